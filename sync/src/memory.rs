//! What the agent remembers from one run to the next: which database it sent to last, and how many
//! lines the segments had that it sent whole.
//!
//! It lies in a folder of its own, never in the store, which may be mounted for reading only:
//!
//! ```text
//! <folder>/<store id>/database   the id in tidelog_meta, one line
//! <folder>/<store id>/sent       "<segment id> <lines> <file name>" a line, appended
//! ```
//!
//! All of it is a hint. Where a cursor stands only the database says, so losing the folder, or half
//! a line of it, loses no entry. Without it an empty database looks like the first one, and of a
//! segment whose file is gone nobody knows how long it was.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use tidelog::{SegmentId, StoreId};
use uuid::Uuid;

/// Most bytes of a file that are read back.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What to do with a database that has nothing of the store, while another one was sent to before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NewTarget {
    /// Write nothing, and wait for somebody to decide.
    #[default]
    Refuse,
    /// Send everything to it.
    Accept,
}

/// A database as it shows itself to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `tidelog_meta.database_id`.
    pub(crate) database: Uuid,
    /// Whether lines of the store are in it.
    pub(crate) has_store: bool,
}

/// What a database is to this agent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Recognition {
    /// The one of the last time, or the first one ever.
    Known,
    /// Another one than the last time, with lines of the store or with leave to send them.
    Replaced {
        /// The one of the last time.
        before: Uuid,
    },
    /// Another one than the last time, with nothing of the store.
    Refused {
        /// The one of the last time.
        before: Uuid,
    },
}

/// A segment that was sent whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Number of its lines, the header included.
    pub(crate) lines: u32,
    pub(crate) file_name: String,
}

/// The memory of one store's agent.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// None: nothing outlives this run.
    folder: Option<PathBuf>,
    new_target: NewTarget,
    database: Option<Uuid>,
    sent: BTreeMap<SegmentId, Sent>,
}

impl Memory {
    /// Reads what is in the folder of this store; nothing if there is none, or none that can be read.
    pub(crate) fn open(folder: &Path, store: StoreId, new_target: NewTarget) -> Self {
        let folder = folder.join(store.to_string());
        let database = read_lines(&folder.join("database")).into_iter().next();
        Self {
            database: database.and_then(|line| line.parse().ok()),
            sent: read_lines(&folder.join("sent")).iter().filter_map(|l| read_sent(l)).collect(),
            folder: Some(folder),
            new_target,
        }
    }

    pub(crate) fn recognise(&self, found: Identity) -> Recognition {
        match self.database {
            Some(before) if before == found.database => Recognition::Known,
            None => Recognition::Known,
            Some(before) if found.has_store || self.new_target == NewTarget::Accept => {
                Recognition::Replaced { before }
            }
            Some(before) => Recognition::Refused { before },
        }
    }

    /// Remembers the database that is sent to from now on.
    ///
    /// # Errors
    /// It is remembered in this run only.
    pub(crate) fn keep_database(&mut self, database: Uuid) -> Result<(), NotKept> {
        if self.database.replace(database) == Some(database) {
            return Ok(());
        }
        self.write(|folder| fs::write(folder.join("database"), format!("{database}\n")))
    }

    /// Remembers segments that were sent whole.
    ///
    /// # Errors
    /// They are remembered in this run only.
    pub(crate) fn keep_sent(
        &mut self,
        segments: impl Iterator<Item = (SegmentId, Sent)>,
    ) -> Result<(), NotKept> {
        let mut text = String::new();
        for (id, sent) in segments {
            if self.sent.get(&id) != Some(&sent) {
                text.push_str(&format!("{id} {} {}\n", sent.lines, sent.file_name));
                self.sent.insert(id, sent);
            }
        }
        if text.is_empty() {
            return Ok(());
        }
        self.write(|folder| {
            let path = folder.join("sent");
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            file.write_all(text.as_bytes())
        })
    }

    /// Whether the next run will know what this one does.
    pub(crate) fn is_kept(&self) -> bool {
        self.folder.is_some()
    }

    /// Segments that were sent whole, be it to another database.
    pub(crate) fn sent(&self) -> &BTreeMap<SegmentId, Sent> {
        &self.sent
    }

    /// A folder that cannot be written is told once and then left alone.
    fn write(&mut self, work: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), NotKept> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let written = fs::create_dir_all(folder).and_then(|()| work(folder));
        written.map_err(|error| NotKept {
            reason: error.to_string(),
            folder: self.folder.take().unwrap_or_default(),
        })
    }
}

/// Why something is forgotten at the end of this run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotKept {
    pub(crate) folder: PathBuf,
    pub(crate) reason: String,
}

/// The complete lines of a file; what cannot be read is as if it were not there.
fn read_lines(path: &Path) -> Vec<String> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let mut input = BufReader::new(file.take(FILE_BYTES_MAX));
    let mut lines = Vec::new();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).is_ok() && line.pop() == Some(b'\n') {
        lines.extend(String::from_utf8(std::mem::take(&mut line)));
    }
    lines
}

fn read_sent(line: &str) -> Option<(SegmentId, Sent)> {
    let (id, rest) = line.split_once(' ')?;
    let (lines, file_name) = rest.split_once(' ')?;
    let sent = Sent { lines: lines.parse().ok()?, file_name: file_name.to_owned() };
    Some((SegmentId::from(id.parse::<Uuid>().ok()?), sent))
}

/// The folder for the agent's memory, as systemd or the XDG variables give it: `$STATE_DIRECTORY`, else
/// `$XDG_STATE_HOME/tidelog`, else `~/.local/state/tidelog`.
#[must_use]
pub fn state_folder() -> Option<PathBuf> {
    default_folder(&|name| env::var(name).ok())
}

/// Relative folders count as none, as the XDG specification says.
fn default_folder(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    // systemd separates several folders by colons.
    let first = |list: String| list.split(':').next().map(PathBuf::from);
    let systemd = variable("STATE_DIRECTORY").and_then(first).and_then(absolute);
    let xdg = || variable("XDG_STATE_HOME").map(PathBuf::from).and_then(absolute);
    let home = || Some(PathBuf::from(variable("HOME")?).join(".local/state")).and_then(absolute);
    systemd.or_else(|| Some(xdg().or_else(home)?.join("tidelog")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: bool = false;

    fn identity(number: u128, has_store: bool) -> Identity {
        Identity { database: Uuid::from_u128(number), has_store }
    }

    #[test]
    fn another_empty_database_is_refused_until_it_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let store = StoreId::random();
        let open = |new_target| Memory::open(folder.path(), store, new_target);
        assert_eq!(open(NewTarget::Refuse).recognise(identity(1, EMPTY)), Recognition::Known);
        open(NewTarget::Refuse).keep_database(Uuid::from_u128(1)).unwrap();
        let before = Uuid::from_u128(1);
        let memory = open(NewTarget::Refuse);
        assert_eq!(memory.recognise(identity(1, EMPTY)), Recognition::Known);
        assert_eq!(memory.recognise(identity(2, EMPTY)), Recognition::Refused { before });
        assert_eq!(memory.recognise(identity(2, true)), Recognition::Replaced { before });
        let accepting = open(NewTarget::Accept);
        assert_eq!(accepting.recognise(identity(2, EMPTY)), Recognition::Replaced { before });
    }

    #[test]
    fn what_was_sent_is_known_in_the_next_run_and_half_a_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = StoreId::random();
        let sent = (SegmentId::random(), Sent { lines: 7, file_name: "a b.jsonl".into() });
        let mut memory = Memory::open(folder.path(), store, NewTarget::Refuse);
        memory.keep_sent([sent.clone()].into_iter()).unwrap();
        let path = folder.path().join(store.to_string()).join("sent");
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        write!(file, "{} 9 b.jsonl", SegmentId::random()).unwrap();
        let memory = Memory::open(folder.path(), store, NewTarget::Refuse);
        assert_eq!(memory.sent(), &BTreeMap::from([sent]));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let mut memory = Memory::open(&file, StoreId::random(), NewTarget::Refuse);
        assert!(memory.keep_database(Uuid::from_u128(1)).is_err());
        assert_eq!(memory.keep_database(Uuid::from_u128(2)), Ok(()));
        assert_eq!(memory.recognise(identity(2, EMPTY)), Recognition::Known);
    }

    #[test]
    fn the_folder_is_where_the_system_keeps_state() {
        let folder = |variables: &[(&str, &str)]| {
            default_folder(&|name| {
                let found = variables.iter().find(|(known, _)| *known == name)?;
                Some(found.1.to_owned())
            })
        };
        let home = ("HOME", "/home/u");
        assert_eq!(folder(&[home]), Some("/home/u/.local/state/tidelog".into()));
        assert_eq!(folder(&[home, ("XDG_STATE_HOME", "/s")]), Some("/s/tidelog".into()));
        assert_eq!(folder(&[home, ("XDG_STATE_HOME", "s")]), folder(&[home]));
        assert_eq!(folder(&[home, ("STATE_DIRECTORY", "/a:/b")]), Some("/a".into()));
        assert_eq!(folder(&[]), None);
    }
}
