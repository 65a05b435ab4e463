//! What a comparison found, for people and for programs.

use std::fmt;

use serde::Serialize;
use tidelog::{SegmentId, StoreId};

/// The most differences that are told one by one.
pub const DIFFERENCES_MAX: usize = 100;

/// How a store and its replica compare. The names of the fields are a contract of `--json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// The store's id.
    pub store_id: StoreId,
    /// The worst of all segments and differences, as a word: "equal", "behind", "different", "forked",
    /// "ahead", "missing" or "unreadable".
    pub verdict: &'static str,
    /// Lines of files that were compared.
    pub lines: u64,
    /// Rows that these lines mean; each was compared in every column.
    pub rows: u64,
    /// Every segment of the store's folder, and those of which the replica has lines.
    pub segments: Vec<SegmentVerification>,
    /// The first differences, at most [`DIFFERENCES_MAX`].
    pub differences: Vec<Difference>,
    /// There are more differences than are told.
    pub has_more: bool,
    /// Why what several segments say together (checkpoints, parts of sessions, tombstones) was not
    /// compared; null if it was.
    pub folds_left_out: Option<String>,
    /// Sessions whose statistics are older than their rows, so that they were not compared.
    pub statistics_behind: u64,
    /// The ranks of checkpoints are older than the checkpoints; an agent was at work a moment ago.
    pub ranks_behind: bool,
}

/// One segment and its rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SegmentVerification {
    /// The segment.
    pub segment: SegmentId,
    /// File name, without folders.
    pub file: String,
    /// Lines that were compared, the header left out.
    pub lines: u64,
    /// The outcome.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What one segment and its rows are to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Every line is in the replica, as it is in the file.
    Equal,
    /// Every line before the cursor is; some lines have not been sent yet.
    Behind {
        /// Complete lines of the file that are not in the replica.
        lines_behind: u64,
    },
    /// Rows differ from lines.
    Different {
        /// The first line that differs; null if it is no line but the segment as a whole.
        line: Option<u32>,
    },
    /// The file has lost its end, as after a power cut. What is left of it is in the replica.
    Ahead {
        /// Lines that only the replica has.
        lines_ahead: u64,
    },
    /// The file's bytes are not those that were sent.
    Forked {
        /// The change lies in this line or after it …
        first_line: u32,
        /// … and not after this one.
        last_line: u32,
    },
    /// The file is not here, so its rows were not compared.
    Missing {
        /// Its end had been sent, so it may have been removed on purpose.
        sealed: bool,
    },
    /// The file cannot be read.
    Unreadable {
        /// Why.
        reason: String,
    },
}

impl Verdict {
    /// The word for it, as in `--json`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Behind { .. } => "behind",
            Self::Different { .. } => "different",
            Self::Ahead { .. } => "ahead",
            Self::Forked { .. } => "forked",
            Self::Missing { .. } => "missing",
            Self::Unreadable { .. } => "unreadable",
        }
    }

    /// How bad it is; 0 and 1 are as they should be.
    pub(super) fn weight(&self) -> u8 {
        match self {
            Self::Equal | Self::Missing { sealed: true } => 0,
            Self::Behind { .. } => 1,
            Self::Missing { .. } => 2,
            Self::Unreadable { .. } => 3,
            Self::Ahead { .. } => 4,
            Self::Forked { .. } => 5,
            Self::Different { .. } => 6,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Self::Equal => Ok(()),
            Self::Behind { lines_behind } => write!(f, " by {lines_behind} lines"),
            Self::Different { line: Some(line) } => write!(f, " at line {line}"),
            Self::Different { line: None } => Ok(()),
            Self::Ahead { lines_ahead } => {
                write!(f, " by {lines_ahead} lines, which the file has lost")
            }
            Self::Forked { first_line, last_line } => {
                write!(f, " between lines {first_line} and {last_line}")
            }
            Self::Missing { sealed: true } => f.write_str(", after its end was sent"),
            Self::Missing { sealed: false } => f.write_str(" before its end was sent"),
            Self::Unreadable { reason } => write!(f, ": {reason}"),
        }
    }
}

/// One place where the replica is not what the files say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// The segment's file; null where several segments decide together.
    pub file: Option<String>,
    /// The line of that file.
    pub line: Option<u32>,
    /// What else names the row: a checkpoint, a session, a segment.
    pub key: Option<String>,
    /// The column; null if the row is missing or should not be there.
    pub column: Option<String>,
    /// The value in the replica; null if there is no row, or for SQL's NULL.
    pub replica: Option<String>,
    /// The value by the files; null if there should be no row, or for SQL's NULL.
    pub expected: Option<String>,
    /// "changed", "missing" or "extra".
    pub kind: DifferenceKind,
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// A value is another one.
    #[default]
    Changed,
    /// The row is not there.
    Missing,
    /// There should be no such row.
    Extra,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "segment {file}, line {line}, ")?,
            (Some(file), None) => write!(f, "segment {file}, ")?,
            (None, _) => {}
        }
        f.write_str(&self.table)?;
        if let Some(key) = &self.key {
            write!(f, " of {key}")?;
        }
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".into());
        match self.kind {
            DifferenceKind::Missing => f.write_str(": the row is missing in the replica"),
            DifferenceKind::Extra => f.write_str(": the replica has a row that the files have not"),
            DifferenceKind::Changed => write!(
                f,
                ": column {} is {} in the replica, {} in the file",
                self.column.as_deref().unwrap_or("?"),
                shown(&self.replica),
                shown(&self.expected)
            ),
        }
    }
}

/// Differences as they are found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) differences: Vec<Difference>,
    pub(super) has_more: bool,
}

impl Findings {
    pub(super) fn add(&mut self, difference: Difference) {
        if self.is_full() {
            self.has_more = true;
        } else {
            self.differences.push(difference);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.differences.len() >= DIFFERENCES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_place_column_and_both_values() {
        let difference = Difference {
            table: "telemetry_records".into(),
            file: Some("session_a.jsonl".into()),
            line: Some(7),
            column: Some("phi".into()),
            replica: Some("0.5".into()),
            expected: Some("0.7".into()),
            ..Difference::default()
        };
        assert_eq!(
            difference.to_string(),
            "segment session_a.jsonl, line 7, telemetry_records: column phi is 0.5 in the replica, \
             0.7 in the file"
        );
    }

    #[test]
    fn differences_are_told_up_to_a_limit() {
        let mut findings = Findings::default();
        (0..=DIFFERENCES_MAX).for_each(|_| findings.add(Difference::default()));
        assert_eq!((findings.differences.len(), findings.has_more), (DIFFERENCES_MAX, true));
    }
}
