//! Numbers for Prometheus, in its text format 0.0.4.
//!
//! Labels are the store's folder and words of ours; nothing that grows with the number of sessions,
//! segments or lines. Times are moments, not ages, so that a dead process does not look fresh.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::path::PathBuf;
use std::sync::Arc;

use tidelog::Timestamp;

use crate::progress::Progress;
use crate::service::board::{Board, Facts, StoreBoard};
use crate::service::counters::BUCKETS;
use crate::service::lag::Lag;
use crate::state::AgentState;

/// The words of `tidelog_sync_state`.
const STATES: [&str; 10] = [
    "starting",
    "awaiting_store",
    "standby",
    "connecting",
    "ready",
    "resting",
    "backoff",
    "blocked",
    "draining",
    "stopped",
];

/// One store at this moment.
struct Seen {
    store: String,
    facts: Facts,
    lag: Option<Lag>,
}

impl Seen {
    fn of((folder, store): (PathBuf, Arc<StoreBoard>)) -> Self {
        let store_label = format!("store=\"{}\"", escaped(&folder.display().to_string()));
        Self { store: store_label, facts: store.facts(), lag: store.lag() }
    }

    fn state(&self) -> &'static str {
        self.facts.state.as_ref().map_or("starting", AgentState::as_str)
    }
}

/// Everything, now.
pub(crate) fn render(board: &Board) -> String {
    let stores: Vec<Seen> = board.stores().into_iter().map(Seen::of).collect();
    let mut page = Page { text: String::new(), stores };
    let version = env!("CARGO_PKG_VERSION");
    page.family("tidelog_build_info", "gauge", "The version of this program.");
    page.line("tidelog_build_info", &format!("version=\"{version}\""), 1);
    page.states();
    page.lags();
    page.counters();
    page.batches();
    page.text
}

struct Page {
    text: String,
    stores: Vec<Seen>,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String does not fail.
        write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").ok();
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        writeln!(self.text, "{name}{{{labels}}} {value}").ok();
    }

    /// A family with so many samples a store: further labels, and the value.
    fn each<V: Display>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        samples: impl Fn(&Seen) -> Vec<(String, V)>,
    ) {
        self.family(name, kind, help);
        let stores = std::mem::take(&mut self.stores);
        for seen in &stores {
            for (labels, value) in samples(seen) {
                let separator = if labels.is_empty() { "" } else { "," };
                self.line(name, &format!("{}{separator}{labels}", seen.store), value);
            }
        }
        self.stores = stores;
    }

    /// A family with at most one sample a store.
    fn one<V: Display>(&mut self, family: (&str, &str, &str), value: impl Fn(&Seen) -> Option<V>) {
        self.each(family, |seen| {
            value(seen).map(|value| (String::new(), value)).into_iter().collect()
        });
    }

    fn states(&mut self) {
        let help = "1 for the state that the agent is in, 0 for the others.";
        self.each(("tidelog_sync_state", "gauge", help), |seen| {
            let now = seen.state();
            let value = |state: &str| (label("state", state), u8::from(state == now));
            STATES.iter().map(|state| value(state)).collect()
        });
        let help = "Segments in each state.";
        self.each(("tidelog_sync_segments", "gauge", help), |seen| {
            let counts = seen.facts.progress.as_deref().map(segment_states).unwrap_or_default();
            counts.into_iter().map(|(state, count)| (label("state", state), count)).collect()
        });
        let help = "The wait until the next attempt; 0 if it does not wait.";
        self.one(("tidelog_sync_backoff_seconds", "gauge", help), |seen| {
            Some(match &seen.facts.state {
                Some(AgentState::Backoff { wait, .. } | AgentState::Blocked { wait, .. }) => {
                    wait.as_secs_f64()
                }
                _ => 0.0,
            })
        });
    }

    fn lags(&mut self) {
        let help = "Lines in the files that are not in the replica; missing before the first \
                    connection, estimated where very many were never looked at.";
        self.one(("tidelog_sync_lag_lines", "gauge", help), |seen| seen.lag.map(|lag| lag.lines));
        let help = "Bytes of the lines that are not in the replica.";
        self.one(("tidelog_sync_lag_bytes", "gauge", help), |seen| seen.lag.map(|lag| lag.bytes));
        let help = "Time of the oldest line that is not in the replica; missing if there is none.";
        self.one(("tidelog_sync_oldest_unacked_timestamp_seconds", "gauge", help), |seen| {
            seen.lag?.oldest.map(seconds)
        });
        let help = "When this process last committed a batch.";
        self.one(("tidelog_sync_last_commit_timestamp_seconds", "gauge", help), |seen| {
            seen.facts.counters.last_commit.map(seconds)
        });
        let help = "Time of the newest record that this process replicated.";
        self.one(("tidelog_sync_last_record_timestamp_seconds", "gauge", help), |seen| {
            seen.facts.counters.last_record.map(seconds)
        });
    }

    fn counters(&mut self) {
        let help = "Lines of committed batches.";
        self.one(("tidelog_sync_lines_total", "counter", help), |seen| {
            Some(seen.facts.counters.lines)
        });
        let help = "Rows of committed batches; sent again, they may have been there already.";
        self.each(("tidelog_sync_rows_total", "counter", help), |seen| {
            let rows = seen.facts.counters.rows.iter();
            rows.map(|(table, count)| (rows_labels(table), *count)).collect()
        });
        let help = "Lines that this process put into quarantine.";
        self.one(("tidelog_sync_quarantine_lines_total", "counter", help), |seen| {
            Some(seen.facts.counters.rows.get("sync_quarantine").copied().unwrap_or(0))
        });
        let help = "Failures by SQLSTATE and its class; none where the server did not answer.";
        self.each(("tidelog_sync_errors_total", "counter", help), |seen| {
            let errors = seen.facts.counters.errors.iter();
            errors.map(|(code, count)| (error_labels(code), *count)).collect()
        });
        let help = "Connections after the first.";
        self.one(("tidelog_sync_reconnects_total", "counter", help), |seen| {
            Some(seen.facts.counters.connects.saturating_sub(1))
        });
        let help = "Batches of which rows were there before their cursor.";
        self.one(("tidelog_sync_unexpected_conflicts_total", "counter", help), |seen| {
            Some(seen.facts.counters.conflicts)
        });
        let help = "Segments of which the replica went back.";
        self.one(("tidelog_sync_replica_rewinds_total", "counter", help), |seen| {
            Some(seen.facts.counters.rewinds)
        });
    }

    fn batches(&mut self) {
        let help = "Committed batches by how their rows were sent.";
        self.each(("tidelog_sync_batches_total", "counter", help), |seen| {
            let batches = seen.facts.counters.batches.iter();
            batches.map(|(way, count)| (label("path", way), *count)).collect()
        });
        let name = "tidelog_sync_batch_duration_seconds";
        self.family(name, "histogram", "From the first statement of a batch to its commit.");
        let stores = std::mem::take(&mut self.stores);
        for Seen { store, facts, .. } in &stores {
            let counters = &facts.counters;
            let bounds = BUCKETS.iter().map(f64::to_string).zip(counters.within);
            for (bound, count) in bounds.chain([("+Inf".to_owned(), counters.batch_count)]) {
                self.line(&format!("{name}_bucket"), &format!("{store},le=\"{bound}\""), count);
            }
            self.line(&format!("{name}_sum"), store, counters.batch_time.as_secs_f64());
            self.line(&format!("{name}_count"), store, counters.batch_count);
        }
        self.stores = stores;
    }
}

fn segment_states(progress: &Progress) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for standing in progress.standings().values() {
        *counts.entry(standing.state.as_str()).or_default() += 1;
    }
    counts
}

fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", escaped(value))
}

fn rows_labels(table: &str) -> String {
    let result = if table == "sync_quarantine" { "quarantined" } else { "inserted" };
    format!("{},{}", label("table", table), label("result", result))
}

fn error_labels(code: &str) -> String {
    let class =
        if code.len() == 5 && code != "other" { code.get(..2).unwrap_or(code) } else { code };
    format!("{},{}", label("class", class), label("sqlstate", code))
}

/// A moment as Prometheus counts: seconds since 1970.
fn seconds(time: Timestamp) -> String {
    let micros = time.as_micros();
    format!("{}.{:06}", micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000))
}

/// A value between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::applied::AppliedBatch;
    use crate::state::Notice;

    fn page() -> String {
        let board = Board::default();
        let store = board.add(Path::new("/a\"b\\c\nd"));
        store.note(&Notice::Agent(AgentState::Connecting("u@h".into())));
        store.note(&Notice::Agent(AgentState::Ready));
        let batch = AppliedBatch {
            first_line: 0,
            lines: 5,
            rows: vec![("telemetry_records", 4), ("sync_quarantine", 1)],
            way: "copy",
            duration: Duration::from_millis(60),
            last_record: Some(Timestamp::from_micros(1_500_000).unwrap()),
        };
        store.note(&Notice::Batch { path: "x".into(), batch });
        let (wait, reason) = (Duration::from_secs(2), "no (SQLSTATE 57P01)".to_owned());
        store.note(&Notice::Agent(AgentState::Backoff { wait, reason }));
        render(&board)
    }

    #[test]
    fn metrics_have_their_names_and_values() {
        let page = page();
        for line in [
            "tidelog_sync_state{STORE,state=\"backoff\"} 1",
            "tidelog_sync_state{STORE,state=\"ready\"} 0",
            "tidelog_sync_backoff_seconds{STORE} 2",
            "tidelog_sync_last_record_timestamp_seconds{STORE} 1.500000",
            "tidelog_sync_lines_total{STORE} 5",
            "tidelog_sync_rows_total{STORE,table=\"telemetry_records\",result=\"inserted\"} 4",
            "tidelog_sync_quarantine_lines_total{STORE} 1",
            "tidelog_sync_errors_total{STORE,class=\"57\",sqlstate=\"57P01\"} 1",
            "tidelog_sync_reconnects_total{STORE} 0",
            "tidelog_sync_batches_total{STORE,path=\"copy\"} 1",
            "tidelog_sync_batch_duration_seconds_bucket{STORE,le=\"0.05\"} 0",
            "tidelog_sync_batch_duration_seconds_bucket{STORE,le=\"0.1\"} 1",
            "tidelog_sync_batch_duration_seconds_bucket{STORE,le=\"+Inf\"} 1",
            "tidelog_sync_batch_duration_seconds_sum{STORE} 0.06",
        ] {
            let line = line.replace("STORE", "store=\"/a\\\"b\\\\c\\nd\"");
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }

    #[test]
    fn every_sample_follows_its_family() {
        let page = page();
        let mut family = "";
        let mut seen = std::collections::BTreeSet::new();
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap();
                assert!(seen.insert(family), "{family} twice");
            } else if !line.starts_with('#') {
                assert!(line.starts_with(family), "{line} in {family}");
                line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
            }
        }
        assert!(page.ends_with('\n') && seen.len() > 15);
    }
}
