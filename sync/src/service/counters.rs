//! What one agent did so far, counted from its notices.

use std::collections::BTreeMap;
use std::time::Duration;

use tidelog::Timestamp;

use crate::applied::AppliedBatch;
use crate::service::log;
use crate::sqlstate;
use crate::state::{AgentState, Notice};

/// Different SQLSTATEs that are told apart; a server can send any.
const SQLSTATES_MAX: usize = 40;
/// Upper bounds of the buckets, in seconds. The last bucket has none.
pub(crate) const BUCKETS: [f64; 8] = [0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Numbers that only grow while the process runs, and the last times of things.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counters {
    pub(crate) lines: u64,
    /// Rows by table.
    pub(crate) rows: BTreeMap<&'static str, u64>,
    /// Batches by how they were sent.
    pub(crate) batches: BTreeMap<&'static str, u64>,
    /// How many batches took no longer than each bound, and how many there were.
    pub(crate) within: [u64; BUCKETS.len()],
    pub(crate) batch_count: u64,
    pub(crate) batch_time: Duration,
    /// Failures by SQLSTATE; "none" where the server said nothing.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) connects: u64,
    pub(crate) conflicts: u64,
    pub(crate) rewinds: u64,
    pub(crate) last_commit: Option<Timestamp>,
    pub(crate) last_record: Option<Timestamp>,
}

impl Counters {
    pub(crate) fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::Batch { batch, .. } => self.batch(batch),
            Notice::Conflict { .. } => self.conflicts += 1,
            Notice::Rewound { .. } => self.rewinds += 1,
            Notice::Agent(AgentState::Connecting(_)) => self.connects += 1,
            _ => {
                if let Some(reason) = log::trouble(notice) {
                    self.error(sqlstate::code_in(reason).unwrap_or("none"));
                }
            }
        }
    }

    fn batch(&mut self, batch: &AppliedBatch) {
        self.lines += batch.lines as u64;
        for (table, count) in &batch.rows {
            *self.rows.entry(table).or_default() += *count as u64;
        }
        *self.batches.entry(batch.way).or_default() += 1;
        let seconds = batch.duration.as_secs_f64();
        for (bound, count) in BUCKETS.iter().zip(&mut self.within) {
            *count += u64::from(seconds <= *bound);
        }
        self.batch_count += 1;
        self.batch_time += batch.duration;
        self.last_commit = Some(Timestamp::now());
        self.last_record = self.last_record.max(batch.last_record);
    }

    fn error(&mut self, code: &str) {
        let is_known = self.errors.contains_key(code) || self.errors.len() < SQLSTATES_MAX;
        let code = if is_known { code } else { "other" };
        *self.errors.entry(code.to_owned()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_cannot_make_series_without_end() {
        let mut counters = Counters::default();
        for number in 0..10_000 {
            counters.error(&format!("{number:05}"));
        }
        assert_eq!(counters.errors.len(), SQLSTATES_MAX + 1);
        assert_eq!(counters.errors["other"], 10_000 - SQLSTATES_MAX as u64);
    }

    #[test]
    fn a_batch_is_in_every_bucket_that_it_fits() {
        let mut counters = Counters::default();
        let batch = AppliedBatch {
            first_line: 0,
            lines: 5,
            rows: vec![("telemetry_records", 4)],
            way: "unnest",
            duration: Duration::from_millis(60),
            last_record: None,
        };
        counters.note(&Notice::Batch { path: "a".into(), batch });
        assert_eq!(counters.within, [0, 0, 0, 1, 1, 1, 1, 1]);
        assert_eq!((counters.lines, counters.rows["telemetry_records"]), (5, 4));
    }
}
