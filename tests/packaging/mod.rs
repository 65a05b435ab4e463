//! What is shipped around the programs does what its text says: roles, partitions, dashboards, units.

mod dashboards;
mod partitions;
mod roles;
mod units;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use postgres::{Client, NoTls};
use tempfile::TempDir;
use tidelog::checkpoint::npz::Compression;
use tidelog::{
    BasinCoords, BasinPoint, Emergency, EventId, NewCheckpoint, Outcome, SegmentId, SessionId,
    Store, Telemetry, Value,
};
use tidelog_sync::{Agent, Report, SyncError, Target};

use crate::support::postgres::TestDatabase;

const DELETE_RUN_1: &str =
    r#"{"timestamp":"2026-01-05T09:50:00Z","event":"session_deleted","session_id":"run-1"}"#;

/// A store in a temporary folder.
struct Files {
    _folder: TempDir,
    store: Store,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        Self { _folder: folder, store }
    }

    /// A finished session with an entry of every kind and so many records.
    fn every_kind(&self, id: &str, records: i64) {
        let session = self.store.start_session(SessionId::new(id).unwrap()).unwrap();
        for step in 0..records {
            let phi = Some(f64::from(u16::try_from(step % 1000).unwrap()) / 1000.0);
            session.record_telemetry(step, &Telemetry { phi, ..Telemetry::default() }).unwrap();
        }
        let basin_coords = BasinCoords::from([0.5; 64]);
        session
            .record_basin(BasinPoint {
                step: Some(3),
                basin_coords: basin_coords.clone(),
                phi: Some(0.7),
                kappa: None,
            })
            .unwrap();
        let event = EventId::new(format!("e-{id}")).unwrap();
        session.record_emergency(Emergency::new(event, "collapse", "high")).unwrap();
        let state = Value::Dict(vec![("epoch".into(), 3_i64.into())]);
        let checkpoint = NewCheckpoint {
            basin_coords: Some(basin_coords),
            compression: Compression::Stored,
            ..NewCheckpoint::new(state, 0.8)
        };
        session.save_checkpoint(checkpoint).unwrap();
        session.end(Outcome::Completed).unwrap();
    }

    /// A segment with these lines; of the store's own journal, if of no session.
    fn segment(&self, session: Option<&str>, lines: &[String]) {
        let folder = if session.is_some() { "logs/telemetry" } else { "logs/store" };
        let session = session.map_or("null".to_owned(), |session| format!("\"{session}\""));
        let segment = SegmentId::random();
        let header = format!(
            "{{\"tidelog\":1,\"segment\":\"{segment}\",\"store\":\"{}\",\"session\":{session},\
             \"writer\":{{\"pid\":1,\"host\":\"h\",\"program\":\"t\"}},\
             \"created_at\":\"2026-01-05T09:30:00Z\"}}",
            self.store.id()
        );
        let folder = self.store.root().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let text = format!("{header}\n{}\n", lines.join("\n"));
        fs::write(folder.join(format!("{segment}.jsonl")), text).unwrap();
    }

    /// Sends everything to where the URL says.
    fn send(&self, url: &str) -> Result<Report, SyncError> {
        let target = Target::parse(Some(url), &|_| None).unwrap();
        Agent::new(self.store.root(), target, |_| {}).unwrap().once(Duration::ZERO)
    }
}

/// A line with a record of that moment.
fn record_at(timestamp: &str, step: i64) -> String {
    format!(r#"{{"timestamp":"{timestamp}","step":{step},"telemetry":{{"phi":0.5}}}}"#)
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Runs a file of SQL as its first lines say, and gives what psql said when it failed.
fn psql(database: &TestDatabase, file: &str, variables: &[String]) -> Result<(), String> {
    let output = Command::new("psql")
        .args(["--no-psqlrc", "--quiet", "--file"])
        .arg(path(file))
        .args(variables.iter().flat_map(|variable| ["-v", variable]))
        .arg(database.url())
        .output()
        .expect("psql is not in PATH; run: eval \"$(scripts/postgres start)\"");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn connect(url: &str) -> Client {
    Client::connect(url, NoTls).unwrap()
}

fn count(client: &mut Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).unwrap().get(0)
}

/// Begins every segment anew, as after a lost cursor.
fn rewind(client: &mut Client) {
    let sql = "UPDATE sync_segments SET next_line = 0, next_byte = 0, sealed = false,
                                        chain_hash = decode(repeat('00', 32), 'hex')";
    client.batch_execute(sql).unwrap();
}
