//! A store and its replica: everything arrives, exactly once, whatever happens on the way.

mod blobs;
mod copying;
mod deletion;
mod delivery;
mod differential;
mod faults;
mod files;
mod order;
mod poison;
mod quarantine;
mod replay;
mod restore;
mod retention;
mod states;
mod tls;
mod values;
mod verify;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use tempfile::TempDir;
use tidelog::checkpoint::npz::Compression;
use tidelog::{
    BasinCoords, BasinPoint, CheckpointId, Emergency, EventId, NewCheckpoint, Outcome, Session,
    SessionId, SessionOptions, Store, Telemetry, Value,
};
use tidelog_sync::{Agent, Notice, Report, SyncError, Target, status};

use crate::support::postgres::TestDatabase;

/// A store in a temporary folder.
struct Files {
    folder: TempDir,
    store: Store,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        Self { folder, store }
    }

    fn session(&self, id: &str) -> Session {
        self.store.start_session(SessionId::new(id).unwrap()).unwrap()
    }

    /// A finished session of so many plain records.
    fn records(&self, id: &str, count: i64) {
        let session = self.session(id);
        record(&session, 0..count);
        session.end(Outcome::Completed).unwrap();
    }

    fn segment(&self, name: &str) -> PathBuf {
        self.store.root().join("logs/telemetry").join(name)
    }
}

fn record(session: &Session, steps: std::ops::Range<i64>) {
    for step in steps {
        let phi = Some(f64::from(u16::try_from(step % 1000).unwrap()) / 1000.0);
        let telemetry = Telemetry { phi, ..Telemetry::default() }.with("loss", 0.5);
        session.record_telemetry(step, &telemetry).unwrap();
    }
}

fn agent_with(
    files: &Files,
    database: &TestDatabase,
    more: &str,
    notice: impl FnMut(&Notice) + 'static,
) -> Agent {
    let target = Target::parse(Some(&format!("{}{more}", database.url())), &|_| None).unwrap();
    Agent::new(files.store.root(), target, notice).unwrap()
}

fn once(files: &Files, database: &TestDatabase) -> Result<Report, SyncError> {
    agent_with(files, database, "", |_| {}).once(Duration::ZERO)
}

/// Runs an agent while `work` looks at what it does; then stops it.
fn while_running(
    files: &Files,
    database: &TestDatabase,
    work: impl FnOnce(&Receiver<String>),
) -> Result<Report, SyncError> {
    let stop = AtomicBool::new(false);
    let (sender, notices) = mpsc::channel();
    thread::scope(|scope| {
        let agent = scope.spawn(|| {
            agent_with(files, database, "", move |notice| {
                // The test listens no more when it failed.
                sender.send(notice.to_string()).ok();
            })
            .run(Duration::ZERO, &stop)
        });
        let _stop = StopOnDrop(&stop);
        work(&notices);
        stop.store(true, Ordering::Relaxed);
        agent.join().unwrap()
    })
}

/// Stops the agent of a test that failed, too.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until the agent tells something.
fn await_notice(notices: &Receiver<String>, part: &str) -> String {
    let start = Instant::now();
    loop {
        let left = Duration::from_secs(30).saturating_sub(start.elapsed());
        let notice = notices.recv_timeout(left).unwrap_or_else(|_| panic!("never told: {part}"));
        if notice.contains(part) {
            return notice;
        }
    }
}

/// Waits until the agent has done something.
fn await_count(client: &mut Client, table: &str, expected: i64) {
    let start = Instant::now();
    while count(client, table) != expected {
        assert!(start.elapsed() < Duration::from_secs(30), "{table} never has {expected} rows");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Everything is to be sent again, as to a database.
fn rewind(client: &mut Client) {
    client
        .batch_execute(
            "UPDATE sync_segments SET next_line = 0, next_byte = 0, sealed = false,
                                      chain_hash = decode(repeat('00', 32), 'hex')",
        )
        .unwrap();
}

fn count(client: &mut Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).unwrap().get(0)
}

/// Every row of the tables that a user reads, as text.
fn contents(client: &mut Client) -> Vec<String> {
    const TABLES: [&str; 9] = [
        "telemetry_sessions",
        "telemetry_records",
        "emergency_events",
        "checkpoints",
        "checkpoint_history",
        "basin_history",
        "telemetry_gaps",
        "session_parts",
        "sync_quarantine",
    ];
    let mut rows = Vec::new();
    for table in TABLES {
        let sql = format!(
            "SELECT concat('{table} ', (to_jsonb(t) - 'first_seen' - 'last_seen')::text)
             FROM {table} t"
        );
        rows.extend(client.query(&sql, &[]).unwrap().iter().map(|row| row.get::<_, String>(0)));
    }
    rows.sort();
    rows
}

/// Which transaction wrote each row.
fn versions(client: &mut Client) -> Vec<String> {
    const TABLES: [&str; 7] = [
        "telemetry_sessions",
        "telemetry_records",
        "checkpoints",
        "session_parts",
        "sync_segments",
        "sync_stores",
        "sync_session_stats",
    ];
    TABLES
        .iter()
        .map(|table| {
            let sql =
                format!("SELECT concat('{table} ', string_agg(xmin::text, ',')) FROM {table}");
            client.query_one(&sql, &[]).unwrap().get(0)
        })
        .collect()
}

/// A session with an entry of every kind.
fn every_kind(files: &Files) -> CheckpointId {
    let metadata = Value::Dict(vec![("lr".into(), 0.1.into())]);
    let id = SessionId::new("run-1").unwrap();
    let options = SessionOptions { metadata: Some(metadata), ..SessionOptions::default() };
    let session = files.store.start_session_with(id, options).unwrap();
    record(&session, 0..10);
    let mut coords = [0.5; 64];
    coords[7] = 0.1;
    let basin_coords = BasinCoords::from(coords);
    session
        .record_basin(BasinPoint {
            step: Some(3),
            basin_coords: basin_coords.clone(),
            phi: Some(0.7),
            kappa: None,
        })
        .unwrap();
    let mut emergency = Emergency::new(EventId::new("e-1").unwrap(), "collapse", "high");
    emergency.telemetry = Some(Telemetry { phi: Some(f64::NAN), ..Telemetry::default() });
    session.record_emergency(emergency).unwrap();
    let state = Value::Dict(vec![("epoch".into(), 3_i64.into())]);
    let checkpoint = NewCheckpoint {
        basin_coords: Some(basin_coords),
        compression: Compression::Stored,
        ..NewCheckpoint::new(state, 0.8)
    };
    let saved = session.save_checkpoint(checkpoint);
    session.end(Outcome::Completed).unwrap();
    saved.unwrap()
}
