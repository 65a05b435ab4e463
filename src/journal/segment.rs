//! The header line of a segment, and where segments lie.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::entry::line::{self, LineError};
use crate::ids::{SegmentId, SessionId, StoreId};
use crate::timestamp::Timestamp;

/// Version of the files that this library writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Line 0 of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Format version of every line in this file.
    #[serde(rename = "tidelog")]
    pub format_version: u32,
    /// Random, born with the file: a copy of the file is the same segment.
    pub segment: SegmentId,
    /// The store that the segment was born in.
    pub store: StoreId,
    /// The session it belongs to; none for the store's own segments.
    pub session: Option<SessionId>,
    /// 1 at the session's start, one more at each resume; none for the store's own segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Who writes it.
    pub writer: Writer,
    /// When it was created.
    pub created_at: Timestamp,
    /// The file that an import made it from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// The process that writes a segment; for people, never for identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Process id.
    pub pid: u32,
    /// Host name, empty if the system does not tell.
    pub host: String,
    /// Program and version.
    pub program: String,
}

/// Which lines of which older file a segment was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file's name, without folders.
    pub file: String,
    /// The first line that was taken, counted from 0.
    pub first_line: u64,
    /// The line after the last one that was taken.
    pub next_line: u64,
    /// SHA-256 of the file's bytes before `next_line`; a last line without a newline counts as
    /// if it had one.
    pub sha256: String,
}

impl Writer {
    /// This process.
    pub(crate) fn this_process() -> Self {
        Self {
            pid: std::process::id(),
            host: host_name(),
            program: concat!("tidelog ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// The host's name as Linux shows it in a file, else as the environment tells it.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

impl Header {
    /// The header of a segment that this process begins now.
    pub(crate) fn new(store: StoreId, session: Option<(SessionId, u32)>) -> Self {
        let (session, attempt) = session.unzip();
        Self {
            format_version: FORMAT_VERSION,
            segment: SegmentId::random(),
            store,
            session,
            attempt,
            writer: Writer::this_process(),
            created_at: Timestamp::now(),
            source: None,
        }
    }

    /// With a time behind another segment's. The segments of one writer stand in the order of their
    /// times, and the clock may have gone back.
    pub(crate) fn behind(mut self, old: &Header) -> Self {
        let next = Timestamp::from_micros(old.created_at.as_micros().saturating_add(1));
        self.created_at = self.created_at.max(next.unwrap_or(old.created_at));
        self
    }

    /// Reads line 0, given without its newline.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, LineError> {
        let header: Header = line::read_json(bytes)?;
        if header.format_version > FORMAT_VERSION {
            return Err(LineError::NotAnEntry {
                reason: format!(
                    "format version {} is newer than {FORMAT_VERSION}; install a newer tidelog",
                    header.format_version
                ),
            });
        }
        Ok(header)
    }

    /// The file name that a person looks for; taken names get the segment's short id.
    pub(crate) fn file_names(&self) -> [String; 2] {
        let short = self.segment.short();
        match &self.session {
            Some(session) => {
                let stem = session_stem(session);
                [format!("{stem}.jsonl"), format!("{stem}.{short}.jsonl")]
            }
            None => {
                let time = self.created_at.to_jiff().strftime("%Y%m%dT%H%M%S%6fZ").to_string();
                [format!("{time}.{short}.jsonl"), format!("{time}.{}.jsonl", self.segment)]
            }
        }
    }
}

/// `session_<id>`, or the id itself where it begins so.
pub(crate) fn session_stem(session: &SessionId) -> String {
    let id = session.in_file_name();
    if id.starts_with("session_") { id } else { format!("session_{id}") }
}

/// Where the segments of sessions lie.
pub(crate) fn telemetry_folder(root: &Path) -> PathBuf {
    root.join("logs").join("telemetry")
}

/// Where the store's own segments lie.
pub(crate) fn store_folder(root: &Path) -> PathBuf {
    root.join("logs").join("store")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(session: &str) -> [String; 2] {
        let session = SessionId::new(session).unwrap();
        let mut header = Header::new(StoreId::random(), Some((session, 1)));
        header.segment = SegmentId::from(uuid::Uuid::from_u128(0xabcdef12 << 96));
        header.file_names()
    }

    #[test]
    fn a_segment_is_found_where_its_session_says() {
        let taken = "session_20251218_001.abcdef12.jsonl".to_owned();
        assert_eq!(names("session_20251218_001"), ["session_20251218_001.jsonl".into(), taken]);
        assert_eq!(names("run-7")[0], "session_run-7.jsonl");
    }

    #[test]
    fn a_newer_format_is_refused_by_its_number() {
        let mut header = Header::new(StoreId::random(), None);
        header.format_version = 2;
        let mut bytes = Vec::new();
        line::write(&header, &mut bytes).unwrap();
        let error = Header::read(bytes.trim_ascii_end()).unwrap_err().to_string();
        assert!(error.contains("format version 2 is newer than 1"), "{error}");
    }
}
