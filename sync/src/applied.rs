//! What is told of a batch once it is in the replica.

use std::time::Duration;

use tidelog::Timestamp;

use crate::field::Field;
use crate::insert::{self, Method};
use crate::rows::BatchRows;

/// What one transaction wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct AppliedBatch {
    /// The number of its first line.
    pub first_line: u32,
    /// Its lines.
    pub lines: usize,
    /// Rows for each table; some may have been there already if it is a fallback.
    pub rows: Vec<(&'static str, usize)>,
    /// How the rows were sent: "copy", "unnest", or "fallback" after rows were in the way.
    pub way: &'static str,
    /// From its first statement to the end of COMMIT.
    pub duration: Duration,
    /// Time of its last record; none without records.
    pub last_record: Option<Timestamp>,
}

impl BatchRows {
    /// How most of its rows are sent.
    pub(crate) fn way(&self, method: Method) -> &'static str {
        match self.immutable().iter().any(|rows| insert::is_copied(rows, method)) {
            true => "copy",
            false => "unnest",
        }
    }

    /// What is told of it once it is applied.
    pub(crate) fn applied(&self, way: &'static str, duration: Duration) -> AppliedBatch {
        let rows = self.immutable().map(|rows| (rows.table.name, rows.len()));
        let last_record = self.records.iter().last().and_then(|row| match row.get(3) {
            Some(Field::Time(time)) => Some(*time),
            _ => None,
        });
        AppliedBatch {
            first_line: self.from.next_line,
            lines: self.lines,
            rows: rows.into_iter().filter(|(_, count)| *count > 0).collect(),
            way,
            duration,
            last_record,
        }
    }
}
