//! What survives what: the choice that a session makes when it starts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::Error;
use crate::value::Value;

/// When a returned call that records a step is safe, and from what.
///
/// Starts, ends, emergencies and checkpoints are persisted on return in every mode; the mode is
/// about records and basin points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub enum Durability {
    /// Collected in memory, handed to the operating system when [`BUFFER_BYTES`] have come
    /// together and at least every [`persist_interval`](SessionOptions::persist_interval).
    ///
    /// Application crash, `kill -9`: up to [`BUFFER_BYTES`] of the last lines are lost, and while the
    /// disk takes them never more than the last interval's. Power cut: the last interval's, and what
    /// the disk was about to write. Lines that the disk refuses wait in memory, too.
    Buffered,
    /// In the operating system when the call returns.
    ///
    /// Application crash, `kill -9`: nothing is lost. Power cut: the records of the last
    /// [`persist_interval`](SessionOptions::persist_interval), and what the disk was about to
    /// write.
    #[default]
    Written,
    /// On disk when the call returns: one persist a call, shared by the threads that wait for one.
    ///
    /// Application crash and power cut: nothing is lost.
    Persisted,
}

impl Durability {
    /// All there are, weakest first.
    pub const ALL: [Self; 3] = [Self::Buffered, Self::Written, Self::Persisted];

    /// The word for it: `buffered`, `written` or `persisted`.
    pub fn as_str(self) -> &'static str {
        match self {
            Durability::Buffered => "buffered",
            Durability::Written => "written",
            Durability::Persisted => "persisted",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Durability {
    type Err = Error;

    /// Reads the word.
    fn from_str(word: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|durability| durability.as_str() == word);
        found.ok_or_else(|| Error::InvalidValue {
            what: "durability",
            reason: format!("is {word:?}; it can be buffered, written or persisted"),
        })
    }
}

/// Most bytes that [`Durability::Buffered`] keeps in memory: 64 KiB, about a hundred records.
pub const BUFFER_BYTES: usize = 64 << 10;

/// A record is on disk at most this long after the call that wrote it, and the time that the disk
/// takes: 1 s.
pub const PERSIST_INTERVAL: Duration = Duration::from_secs(1);

/// A segment of this size is full, and the session goes on in another one: 1 GiB.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// What a call that records does when the disk refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnMissed {
    /// Training goes on: the record is counted as missing, and the journal says so as soon as it
    /// can be written again.
    #[default]
    Count,
    /// Counted as well, and the call returns the error.
    Raise,
}

/// How a session records. `SessionOptions::default()` and a change of what should differ.
///
/// ```
/// use tidelog::{Durability, SessionOptions};
/// let options = SessionOptions { durability: Durability::Buffered, ..SessionOptions::default() };
/// assert_eq!(options.persist_interval.as_secs(), 1);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SessionOptions {
    /// Something to keep with the session: a configuration, a commit hash.
    pub metadata: Option<Value>,
    /// What a returned call survives.
    pub durability: Durability,
    /// Between two persists in the background; [`PERSIST_INTERVAL`]. At least a millisecond and at
    /// most a day.
    pub persist_interval: Duration,
    /// What happens when the disk refuses a record.
    pub on_missed: OnMissed,
    /// From this size on the session goes on in another segment; [`SEGMENT_BYTES_MAX`].
    pub segment_bytes_max: u64,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            metadata: None,
            durability: Durability::default(),
            persist_interval: PERSIST_INTERVAL,
            on_missed: OnMissed::default(),
            segment_bytes_max: SEGMENT_BYTES_MAX,
        }
    }
}

/// What became of a record. Only [`OnMissed::Count`] returns anything but `Kept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is as safe as the session's [`Durability`] says.
    Kept,
    /// It is in the operating system, but could not be persisted as [`Durability::Persisted`] asks:
    /// a power cut may take it.
    NotPersisted,
    /// The disk refused it; [`missed`](crate::Session::missed) counts it.
    Missed,
}

/// What a session's writer could not write so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missed {
    /// Records and basin points.
    pub records: u64,
    /// The smallest step among them; none if none had a step.
    pub first_step: Option<i64>,
    /// The greatest step among them.
    pub last_step: Option<i64>,
    /// What the disk said last; none if nothing is missing.
    pub reason: Option<String>,
}

impl Missed {
    pub(crate) fn add(&mut self, step: Option<i64>, reason: &str) {
        self.records += 1;
        if let Some(step) = step {
            self.first_step = Some(self.first_step.map_or(step, |first| first.min(step)));
            self.last_step = Some(self.last_step.map_or(step, |last| last.max(step)));
        }
        if self.reason.as_deref() != Some(reason) {
            self.reason = Some(reason.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durability_is_its_word() {
        for durability in Durability::ALL {
            assert_eq!(durability.to_string().parse::<Durability>().unwrap(), durability);
        }
        let error = "fsync".parse::<Durability>().unwrap_err().to_string();
        assert_eq!(error, "durability is \"fsync\"; it can be buffered, written or persisted");
    }
}
