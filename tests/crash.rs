//! The agent is killed in the middle of its work.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use postgres::Client;
use tidelog::{Emergency, EventId, NewCheckpoint, Outcome, Store, Value};

use crate::support::compare::check_replica;
use crate::support::postgres::TestDatabase;
use crate::support::{TestStore, program, session_id, telemetry};

const RECORDS: i64 = 200_000;
const KILLS: i64 = 12;
/// The moments are random in any case: the agent's speed adds to them.
const SEED: u64 = 7;
const STUCK: Duration = Duration::from_secs(120);

/// Two sessions with something of everything between their records.
fn record(store: &Store) {
    for id in ["run-1", "run-2"] {
        let session = store.start_session(session_id(id)).unwrap();
        for step in 0..RECORDS / 2 {
            let phi = (step as f64 / 777.0).sin();
            session.record_telemetry(step, &telemetry(phi).with("loss", phi * 0.1)).unwrap();
            if step % 20_000 == 7 {
                session.save_checkpoint(NewCheckpoint::new(Value::from(step), phi)).unwrap();
                session
                    .record_emergency(Emergency::new(EventId::generate(), "collapse", "high"))
                    .unwrap();
            }
        }
        session.end(Outcome::Completed).unwrap();
    }
}

fn agent(store: &TestStore, database: &TestDatabase) -> Child {
    Command::new(program("tidelog-sync"))
        .arg("once")
        .env("TIDELOG_STORE", store.root())
        .env("DATABASE_URL", database.url())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

fn lines_copied(client: &mut Client) -> i64 {
    let sql = "SELECT coalesce(sum(next_line), 0)::bigint FROM sync_segments";
    client.query_one(sql, &[]).unwrap().get(0)
}

/// Kills the agent a random moment after it got as far as `lines`.
fn kill_at(mut agent: Child, client: &mut Client, lines: i64, rng: &mut fastrand::Rng) {
    let start = Instant::now();
    while lines_copied(client) < lines {
        assert!(agent.try_wait().unwrap().is_none(), "the agent ended before {lines} lines");
        assert!(start.elapsed() < STUCK, "the agent does not get to {lines} lines");
    }
    std::thread::sleep(Duration::from_micros(rng.u64(0..60_000)));
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn an_agent_killed_again_and_again_copies_each_line_exactly_once() {
    let mut rng = fastrand::Rng::with_seed(SEED);
    let (store, database) = (TestStore::new(), TestDatabase::create());
    record(store.store());
    let mut client = database.client();
    for kill in 0..KILLS {
        let lines = kill * RECORDS / (KILLS + 2) + rng.i64(0..RECORDS / 40);
        kill_at(agent(&store, &database), &mut client, lines, &mut rng);
    }
    assert!(agent(&store, &database).wait().unwrap().success());
    check_replica(store.store(), &mut client);
    let rows: i64 = client.query_one("SELECT count(*) FROM telemetry_records", &[]).unwrap().get(0);
    assert_eq!(rows, RECORDS);
}
