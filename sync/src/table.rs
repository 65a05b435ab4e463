//! The tables that rows of the journal go to, and rows for one of them.

use std::collections::BTreeSet;

use tidelog::Timestamp;

use crate::field::{ColumnType, Field};

/// A table whose rows never change: their key is (segment_no, line_no), and a row that is there is
/// the same row.
#[derive(Debug, PartialEq)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [(&'static str, ColumnType)],
    /// Where the row's session stands; none for tables that outlive the deletion of a session.
    session_column: Option<usize>,
}

use ColumnType::{Bool, Bytes, Float8, Floats, Int4, Int8, Json, Text, Time, Vector};

pub(crate) static TELEMETRY_RECORDS: Table = Table {
    name: "telemetry_records",
    session_column: Some(2),
    columns: &[
        ("segment_no", Int4),
        ("line_no", Int4),
        ("session_id", Text),
        ("timestamp", Time),
        ("step", Int8),
        ("phi", Float8),
        ("kappa_eff", Float8),
        ("regime", Text),
        ("basin_distance", Float8),
        ("recursion_depth", Int8),
        ("geodesic_distance", Float8),
        ("curvature", Float8),
        ("fisher_metric_trace", Float8),
        ("breakdown_pct", Float8),
        ("coherence_drift", Float8),
        ("emergency", Bool),
        ("meta_awareness", Float8),
        ("generativity", Float8),
        ("grounding", Float8),
        ("temporal_coherence", Float8),
        ("external_coupling", Float8),
        ("extra", Json),
    ],
};

pub(crate) static EMERGENCY_EVENTS: Table = Table {
    name: "emergency_events",
    session_column: Some(3),
    columns: &[
        ("segment_no", Int4),
        ("line_no", Int4),
        ("event_id", Text),
        ("session_id", Text),
        ("timestamp", Time),
        ("step", Int8),
        ("reason", Text),
        ("severity", Text),
        ("metric", Text),
        ("value", Float8),
        ("threshold", Float8),
        ("telemetry", Json),
        ("metadata", Json),
    ],
};

/// The audit trail, which a deleted session leaves behind.
pub(crate) static CHECKPOINT_HISTORY: Table = Table {
    name: "checkpoint_history",
    session_column: None,
    columns: &[
        ("segment_no", Int4),
        ("line_no", Int4),
        ("checkpoint_id", Text),
        ("action", Text),
        ("timestamp", Time),
        ("details", Json),
    ],
};

pub(crate) static BASIN_HISTORY: Table = Table {
    name: "basin_history",
    session_column: Some(2),
    columns: &[
        ("segment_no", Int4),
        ("line_no", Int4),
        ("session_id", Text),
        ("timestamp", Time),
        ("step", Int8),
        ("basin_coords", Vector),
        ("basin_coords_exact", Floats),
        ("phi", Float8),
        ("kappa", Float8),
    ],
};

pub(crate) static TELEMETRY_GAPS: Table = Table {
    name: "telemetry_gaps",
    session_column: Some(2),
    columns: &[
        ("segment_no", Int4),
        ("line_no", Int4),
        ("session_id", Text),
        ("timestamp", Time),
        ("records", Int8),
        ("first_step", Int8),
        ("last_step", Int8),
        ("since", Time),
        ("reason", Text),
    ],
};

pub(crate) static SYNC_QUARANTINE: Table = Table {
    name: "sync_quarantine",
    session_column: Some(2),
    columns: &[
        ("segment_no", Int4),
        ("line_no", Int4),
        ("session_id", Text),
        ("sqlstate", Text),
        ("reason", Text),
        ("raw", Bytes),
        ("raw_bytes_total", Int8),
        ("sha256", Bytes),
        ("agent_version", Text),
    ],
};

pub(crate) static SYNC_UNKNOWN: Table = Table {
    name: "sync_unknown",
    session_column: Some(2),
    columns: &[
        ("segment_no", Int4),
        ("line_no", Int4),
        ("session_id", Text),
        ("event", Text),
        ("raw", Bytes),
    ],
};

pub(crate) static SYNC_LINES: Table = Table {
    name: "sync_lines",
    session_column: Some(2),
    columns: &[("segment_no", Int4), ("line_no", Int4), ("session_id", Text), ("raw", Bytes)],
};

/// Checkpoints do change: a checkpoint that is saved again under its id is the newer one.
pub(crate) static CHECKPOINTS: Table = Table {
    name: "checkpoints",
    session_column: Some(4),
    columns: &[
        ("checkpoint_id", Text),
        ("store_no", Int4),
        ("segment_no", Int4),
        ("line_no", Int4),
        ("session_id", Text),
        ("step", Int8),
        ("created_at", Time),
        ("phi", Float8),
        ("kappa", Float8),
        ("regime", Text),
        ("basin_coords", Vector),
        ("basin_coords_exact", Floats),
        ("state_dict", Json),
        ("metadata", Json),
        ("file", Text),
        ("size_bytes", Int8),
        ("sha256", Text),
    ],
};

/// Rows for one table, in the order of their keys.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rows {
    pub(crate) table: &'static Table,
    /// Row after row.
    fields: Vec<Field>,
}

impl Rows {
    pub(crate) fn new(table: &'static Table) -> Self {
        Self { table, fields: Vec::new() }
    }

    /// Appends a row with a field for each column.
    pub(crate) fn push<const COLUMNS: usize>(&mut self, row: [Field; COLUMNS]) {
        debug_assert_eq!(COLUMNS, self.table.columns.len(), "{}", self.table.name);
        self.fields.extend(row);
    }

    pub(crate) fn len(&self) -> usize {
        self.fields.len() / self.table.columns.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[Field]> {
        self.fields.chunks_exact(self.table.columns.len())
    }

    /// One column of all rows.
    pub(crate) fn column(&self, index: usize) -> Vec<&Field> {
        self.fields.iter().skip(index).step_by(self.table.columns.len()).collect()
    }

    /// Leaves out rows of before `floor`; their lines.
    pub(crate) fn leave_out_before(&mut self, floor: Timestamp) -> Vec<Field> {
        let (old, kept): (Vec<&[Field]>, Vec<&[Field]>) =
            self.iter().partition(|row| is_before(row, floor));
        let lines = old.iter().filter_map(|row| row.get(LINE_COLUMN).cloned()).collect();
        self.fields = kept.into_iter().flatten().cloned().collect();
        lines
    }

    pub(crate) fn has_before(&self, floor: Timestamp) -> bool {
        self.iter().any(|row| is_before(row, floor))
    }

    /// Leaves out the rows of these lines.
    pub(crate) fn leave_out_lines(&mut self, lines: &[Field]) {
        let is_kept =
            |row: &&[Field]| row.get(LINE_COLUMN).is_none_or(|line| !lines.contains(line));
        self.fields = self.iter().filter(is_kept).flatten().cloned().collect();
    }

    /// Leaves out the rows of these sessions.
    pub(crate) fn without(mut self, sessions: &BTreeSet<String>) -> Self {
        let Some(column) = self.table.session_column else { return self };
        let is_kept = |row: &&[Field]| match row.get(column) {
            Some(Field::Text(session)) => !sessions.contains(session),
            _ => true,
        };
        self.fields = self.iter().filter(is_kept).flatten().cloned().collect();
        self
    }
}

/// Where each table but `checkpoints` has its line_no.
const LINE_COLUMN: usize = 1;

/// Whether a measurement is of before then: such a table has one column of a time before all others.
fn is_before(row: &[Field], floor: Timestamp) -> bool {
    let time = row.iter().find_map(|field| match field {
        Field::Time(time) => Some(*time),
        _ => None,
    });
    time.is_some_and(|time| time < floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_columns_are_where_the_tables_say() {
        for table in [
            &TELEMETRY_RECORDS,
            &EMERGENCY_EVENTS,
            &BASIN_HISTORY,
            &TELEMETRY_GAPS,
            &SYNC_QUARANTINE,
            &SYNC_UNKNOWN,
            &SYNC_LINES,
            &CHECKPOINTS,
        ] {
            let column = table.session_column.and_then(|index| table.columns.get(index));
            assert_eq!(column, Some(&("session_id", Text)), "{}", table.name);
        }
    }

    #[test]
    fn rows_of_a_deleted_session_are_left_out() {
        let mut rows = Rows::new(&CHECKPOINT_HISTORY);
        rows.push([const { Field::Null }; 6]);
        let deleted = BTreeSet::from(["s".to_owned()]);
        assert_eq!(rows.clone().without(&deleted).len(), 1);
        let mut records = Rows::new(&BASIN_HISTORY);
        for session in ["s", "t"] {
            let mut row = [const { Field::Null }; 9];
            row[2] = Field::Text(session.into());
            records.push(row);
        }
        let left = records.without(&deleted);
        assert_eq!(left.column(2), [&Field::Text("t".into())]);
    }
}
