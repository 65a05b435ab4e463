//! Telemetry files: each becomes one sealed segment of the session that its name says.
//!
//! What a file's segment was made of stands in its header: which lines, and the hash of all bytes
//! before the next one. So the same file again gives nothing new, a file that grew gives its new
//! lines as one more segment, and a file that changed is refused.

use std::io;
use std::path::Path;

use super::Run;
use super::fields::Fields;
use super::known::{Earlier, EarlierImports, Span};
use super::lines::{SourceLine, SourceLines};
use super::report::Area;
use super::time::LocalTimes;
use crate::entry::{Body, Entry, Outcome, Record, SessionEnded, SessionStarted};
use crate::error::{Error, Result};
use crate::ids::SessionId;
use crate::journal::whole::WholeSegment;
use crate::journal::{Header, Source, read_header};
use crate::telemetry::Telemetry;
use crate::timestamp::Timestamp;
use crate::value::Value;

/// How often progress is told.
const LINES_PER_PROGRESS: u64 = 8192;

/// Why reading a file stopped.
enum Stop {
    /// Nothing of this file is taken.
    Refused(String),
    /// The import cannot go on.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Refused(format!("cannot be read: {error}"))
    }
}

/// Imports one file; the session and the span of its records, if it has any.
///
/// # Errors
/// The store cannot be written. What is wrong with the file is reported.
pub(super) fn import_file(
    run: &mut Run<'_>,
    earlier: &mut EarlierImports,
    path: &Path,
) -> Result<Option<(SessionId, Span)>> {
    match Intake::open(run, earlier, path).and_then(|intake| intake.read_all(run, path)) {
        Ok(intake) => intake.finish(run, earlier),
        Err(Stop::Refused(reason)) => {
            run.recorder.refuse(Area::Telemetry, path, reason).map(|()| None)
        }
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// A file on its way into a segment.
struct Intake {
    lines: SourceLines,
    file_name: String,
    session: SessionId,
    attempt: u32,
    earlier: Option<Earlier>,
    segment: WholeSegment,
    /// Records that this import takes, and those that an earlier one took.
    taken: u64,
    already_there: u64,
    span: Option<Span>,
    last: Option<Timestamp>,
    /// The line after the last one that was taken or refused for good.
    next_line: u64,
}

impl Intake {
    fn open(run: &Run<'_>, earlier: &EarlierImports, path: &Path) -> Result<Self, Stop> {
        let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = file_name.strip_suffix(".jsonl").unwrap_or(&file_name);
        let session = SessionId::new(stem)
            .map_err(|error| Stop::Refused(format!("gives no session: {error}; rename it")))?;
        if let Ok(Some(_)) = read_header(path) {
            let reason = "is a segment of a tidelog store, not a file of the predecessor";
            return Err(Stop::Refused(reason.into()));
        }
        let segment = match run.dry_run {
            true => WholeSegment::checked_only(),
            false => WholeSegment::of_session(run.store.root())?,
        };
        Ok(Self {
            lines: SourceLines::open(path)?,
            attempt: earlier.attempt(&file_name, &session),
            earlier: earlier.of(&file_name, &session).cloned(),
            file_name,
            session,
            segment,
            taken: 0,
            already_there: 0,
            span: None,
            last: None,
            next_line: 0,
        })
    }

    /// First line that no earlier import took.
    fn first_line(&self) -> u64 {
        self.earlier.as_ref().map_or(0, |earlier| earlier.source.next_line)
    }

    fn read_all(mut self, run: &mut Run<'_>, path: &Path) -> Result<Self, Stop> {
        while let Some(line) = self.lines.next()? {
            self.check_earlier(line.number)?;
            if !self.read_line(run, path, &line)? {
                break;
            }
            self.next_line = line.number + 1;
            if line.number % LINES_PER_PROGRESS == LINES_PER_PROGRESS - 1 {
                run.tell(path, self.lines.next_byte());
            }
        }
        if self.next_line < self.first_line() {
            let (now, before) = (self.next_line, self.first_line());
            return Err(Stop::Refused(format!(
                "has {now} lines, {before} were imported before: it is another file of that name"
            )));
        }
        self.check_earlier(self.next_line)?;
        if self.next_line == 0 && self.lines.next_byte() == 0 {
            run.recorder.note(path, "is empty".into())?;
        }
        Ok(self)
    }

    /// Where the earlier import ended, everything before must be what was imported then.
    fn check_earlier(&self, line: u64) -> Result<(), Stop> {
        match &self.earlier {
            Some(Earlier { source, .. })
                if source.next_line == line && source.sha256 != self.lines.hash_before() =>
            {
                Err(Stop::Refused(format!(
                    "differs in its first {line} lines from the file of that name that was \
                     imported before"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Takes or refuses a line; false if it is cut short, and a later import may find it whole.
    fn read_line(&mut self, run: &mut Run<'_>, path: &Path, line: &SourceLine) -> Result<bool> {
        let place = Some((line.number, line.offset));
        match read_record(line, &mut run.times) {
            Ok(None) => Ok(line.complete),
            Ok(Some(entry)) => {
                if let Some(reason) = self.take(entry, line.number)? {
                    run.recorder.refuse_at(Area::Telemetry, path, place, reason)?;
                }
                Ok(true)
            }
            Err(reason) if line.complete => {
                run.recorder.refuse_at(Area::Telemetry, path, place, reason)?;
                Ok(true)
            }
            Err(reason) => {
                let reason = format!("has no newline and {reason}; import again when it is whole");
                run.recorder.refuse_at(Area::Telemetry, path, place, reason)?;
                Ok(false)
            }
        }
    }

    /// Takes a record unless an earlier import did; a reason if no line can hold it.
    fn take(&mut self, entry: Entry, line: u64) -> Result<Option<String>> {
        let (timestamp, moment) = (entry.timestamp, Span::at(entry.timestamp));
        if line < self.first_line() {
            self.already_there += 1;
        } else {
            if self.taken == 0 && self.segment.entries() == 0 {
                let started = SessionStarted { attempt: self.attempt, metadata: None };
                let body = Body::SessionStarted(started);
                self.segment.append(&Entry { timestamp, body })?;
            }
            match self.segment.append(&entry) {
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => return Ok(Some(error.to_string())),
                Ok(()) => {}
            }
            self.taken += 1;
            self.last = Some(timestamp);
        }
        self.span = Some(self.span.map_or(moment, |span| span.with(moment)));
        Ok(None)
    }

    fn finish(
        mut self,
        run: &mut Run<'_>,
        earlier: &mut EarlierImports,
    ) -> Result<Option<(SessionId, Span)>> {
        let counts = run.recorder.report.counts(Area::Telemetry);
        counts.already_there += self.already_there;
        if let Some(timestamp) = self.last {
            counts.taken += self.taken;
            run.recorder.report.sessions += 1;
            let reason = Some("imported".to_owned());
            let ended = SessionEnded { outcome: Outcome::Completed, reason, of: None };
            self.segment.append(&Entry { timestamp, body: Body::SessionEnded(ended) })?;
            let source = self.source();
            let attempt = self.attempt;
            let mut header = Header::new(run.store.id(), Some((self.session.clone(), attempt)));
            header.source = Some(source.clone());
            self.segment.finish(&header)?;
            earlier.add(self.session.clone(), Earlier { source, attempt });
        }
        Ok(self.span.map(|span| (self.session, span)))
    }

    fn source(&self) -> Source {
        Source {
            file: self.file_name.clone(),
            first_line: self.first_line(),
            next_line: self.next_line,
            sha256: self.lines.hash_before(),
        }
    }
}

/// Reads a line as a record; a blank one is none.
fn read_record(line: &SourceLine, times: &mut LocalTimes) -> Result<Option<Entry>, String> {
    let Some(bytes) = &line.bytes else {
        return Err(format!("is longer than {} bytes", crate::LINE_BYTES_MAX));
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    let mut fields = Fields::parse(bytes)?;
    let telemetry = fields
        .object("telemetry")
        .ok_or("is no telemetry record: it has no \"telemetry\" object")?;
    let step = fields.integer("step").ok_or("has no integer \"step\"")?;
    let time = fields.text("timestamp").ok_or("has no text \"timestamp\"")?;
    let timestamp = times.read(&time)?;
    let mut telemetry = telemetry.into_telemetry();
    for (name, value) in fields.into_rest() {
        add(&mut telemetry, name, value)?;
    }
    Ok(Some(Entry { timestamp, body: Body::Record(Record { step, telemetry }) }))
}

/// Keeps a key that stands beside the telemetry; `record.<key>` where the telemetry has its own.
fn add(telemetry: &mut Telemetry, mut name: String, value: Value) -> Result<(), String> {
    if telemetry.is_set(&name) || telemetry.extra.contains_key(&name) {
        name = format!("record.{name}");
    }
    let Err(other) = telemetry.set(&name, value) else { return Ok(()) };
    match telemetry.extra.insert(name.clone(), other) {
        None => Ok(()),
        Some(_) => Err(format!("has {name:?} twice")),
    }
}
