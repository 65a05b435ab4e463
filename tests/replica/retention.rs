//! What is too old goes from the replica, and nothing brings it back.

use std::process::Command;

use tidelog::Timestamp;
use tidelog_sync::{Retained, Retention};

use super::*;
use crate::support::program;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A segment of a session of its own: a record a day, `days` days ago and since then, of which the
/// first has a text that is kept exactly beside it; and what else there is, all of it old.
fn old_session(files: &Files, number: u32, days: u32) {
    let time = |ago: u32| {
        let back = i64::try_from((DAY * ago + DAY / 24).as_micros()).unwrap();
        Timestamp::from_micros(Timestamp::now().as_micros() - back).unwrap().to_string()
    };
    let line = |ago: u32, rest: &str| format!("{{\"timestamp\":\"{}\",{rest}}}\n", time(ago));
    let nul = "\\u0000";
    let mut text = format!(
        "{{\"tidelog\":1,\"segment\":\"6f2a3b1c-0000-4000-8000-{number:012}\",\"store\":\"{}\",\
         \"session\":\"old-{number}\",\"attempt\":1,\
         \"writer\":{{\"pid\":1,\"host\":\"h\",\"program\":\"t\"}},\"created_at\":\"{}\"}}\n",
        files.store.id(),
        time(days)
    );
    text += &line(days, "\"event\":\"session_started\",\"attempt\":1");
    text += &line(days, &format!("\"step\":0,\"telemetry\":{{\"phi\":0.9,\"regime\":\"{nul}\"}}"));
    for step in 1..=days {
        text += &line(days - step, &format!("\"step\":{step},\"telemetry\":{{\"phi\":0.1}}"));
    }
    let coords = vec!["0.5"; 64].join(",");
    text += &line(days, &format!("\"event\":\"basin\",\"basin\":{{\"basin_coords\":[{coords}]}}"));
    text += &line(
        days,
        "\"event\":\"emergency\",\"emergency\":{\"event_id\":\"e-1\",\"reason\":\"r\",\"severity\":\"low\"}",
    );
    text += &line(
        days,
        "\"event\":\"checkpoint_created\",\"checkpoint\":{\"checkpoint_id\":\"c-1\",\"file\":\"f\",\
         \"size_bytes\":1,\"sha256\":\"00\",\"state_dict\":null}",
    );
    text += &line(0, "\"event\":\"session_ended\",\"status\":\"completed\"");
    let folder = files.store.root().join("logs/telemetry");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("session_old-{number}.jsonl")), text).unwrap();
}

fn retain(database: &TestDatabase, days: u32) -> Retained {
    let target = Target::parse(Some(&database.url()), &|_| None).unwrap();
    Retention::connect(&target).unwrap().apply(None, DAY * days).unwrap().remove(0)
}

#[test]
fn old_measurements_go_and_their_session_stays() {
    let (files, database) = (Files::new(), TestDatabase::create());
    old_session(&files, 1, 10);
    once(&files, &database).unwrap();
    let mut client = database.client();
    assert_eq!(count(&mut client, "sync_quarantine"), 1);
    assert_eq!(retain(&database, 3).rows, 10);
    let left = [
        ("telemetry_records WHERE timestamp > now() - interval '3 days'", 3),
        ("telemetry_records", 3),
        ("emergency_events", 0),
        ("basin_history", 0),
        ("sync_quarantine", 0),
        ("checkpoints", 1),
        ("checkpoint_history", 1),
        ("telemetry_sessions WHERE status = 'completed' AND total_steps = 3 AND max_phi = 0.1", 1),
        ("telemetry_sessions WHERE emergency_count = 0", 1),
    ];
    for (table, rows) in left {
        assert_eq!(count(&mut client, table), rows, "{table}");
    }
    assert_eq!(retain(&database, 3).rows, 0);
    once(&files, &database).unwrap(); // finds statistics that are older than the rows
    verify::settle(&mut client);
    verify::check_equal(&files, &database);
}

#[test]
fn what_is_below_the_floor_is_never_written_again() {
    let (files, database) = (Files::new(), TestDatabase::create());
    old_session(&files, 1, 10);
    once(&files, &database).unwrap();
    retain(&database, 3);
    let backup = database.copy();
    let mut client = database.client();
    let before = contents(&mut client);
    rewind(&mut client);
    // What arrives late is passed over, too.
    old_session(&files, 2, 10);
    for replica in [&database, &backup] {
        once(&files, replica).unwrap();
        let mut client = replica.client();
        for session in ["old-1", "old-2"] {
            let rows =
                count(&mut client, &format!("telemetry_records WHERE session_id = '{session}'"));
            assert_eq!(rows, 3, "{session}");
        }
        assert_eq!(count(&mut client, "sync_quarantine"), 0);
        assert_eq!(count(&mut client, "sync_segments WHERE sealed AND next_line = 17"), 2);
        let passed_over = "sync_segments WHERE below_floor = 10";
        assert!(count(&mut client, passed_over) >= 1);
    }
    client.batch_execute("DELETE FROM checkpoint_history WHERE segment_no > 1").unwrap();
    let after = contents(&mut client);
    assert!(before.iter().all(|row| after.contains(row) || row.contains("checkpoints")));
}

#[test]
fn a_floor_only_moves_forward() {
    let (files, database) = (Files::new(), TestDatabase::create());
    old_session(&files, 1, 10);
    once(&files, &database).unwrap();
    let floor = retain(&database, 3).floor;
    assert_eq!(retain(&database, 90).floor, floor);
    assert!(retain(&database, 2).floor > floor);
}

#[test]
fn retention_beside_an_agent_leaves_what_is_new_and_nothing_else() {
    let (files, database) = (Files::new(), TestDatabase::create());
    for number in 1..=20 {
        old_session(&files, number, 10);
    }
    let session = files.session("new");
    let mut client = database.client();
    while_running(&files, &database, |_| {
        await_count(&mut client, "sync_stores", 1);
        for step in 0..10 {
            retain(&database, 3);
            record(&session, step * 100..(step + 1) * 100);
        }
        await_count(&mut client, "telemetry_records WHERE session_id = 'new'", 1000);
        await_count(&mut client, "telemetry_records WHERE session_id <> 'new'", 60);
    })
    .unwrap();
    assert_eq!(count(&mut client, "emergency_events"), 0);
}

#[test]
fn a_dry_run_deletes_nothing() {
    let (files, database) = (Files::new(), TestDatabase::create());
    old_session(&files, 1, 10);
    once(&files, &database).unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(program("tidelog-sync"));
        command.args(["retention", "--older-than", "3d"]).args(more);
        command.env_clear().env("DATABASE_URL", database.url()).output().unwrap()
    };
    let told = String::from_utf8(run(&["--dry-run"]).stdout).unwrap();
    assert!(told.contains("10 rows") && told.contains("would be deleted"), "{told}");
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_records"), 11);
    assert_eq!(count(&mut client, "retention_floor"), 0);
    let unknown = run(&["--store-id", "6f2a3b1c-0000-4000-8000-000000000009"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(run(&["--json"]).status.success());
    assert_eq!(count(&mut client, "telemetry_records"), 3);
}
