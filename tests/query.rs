//! Questions to a store, and their answers.

use std::ops::ControlFlow;

use tidelog::{
    BasinCoords, CheckpointId, Emergency, Error, EventId, NewCheckpoint, Outcome, Session,
    SqlValue, Store, Telemetry, Value,
};

use crate::support::specification::{ACTIVE_SESSIONS, DIRECT_QUERIES};
use crate::support::{TestStore, session_id, telemetry};

fn started(id: &str) -> (TestStore, Session) {
    let store = TestStore::new();
    let session = store.store().start_session(session_id(id)).unwrap();
    (store, session)
}

fn saved(session: &Session, id: &str, phi: f64) -> CheckpointId {
    let checkpoint_id = Some(CheckpointId::new(id).unwrap());
    session.save_checkpoint(NewCheckpoint { checkpoint_id, ..state(phi) }).unwrap()
}

fn state(phi: f64) -> NewCheckpoint {
    NewCheckpoint::new(Value::Dict(vec![("weights".into(), Value::List(vec![]))]), phi)
}

fn ids(store: &TestStore) -> Vec<String> {
    let rows = store.store().list_checkpoints(100).unwrap();
    rows.into_iter().map(|row| row.checkpoint_id.to_string()).collect()
}

fn sql(store: &Store, text: &str) -> Result<(Vec<String>, Vec<Vec<SqlValue>>), Error> {
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    store.sql(
        text,
        |names| columns = names.to_vec(),
        |row| {
            rows.push(row.to_vec());
            ControlFlow::Continue(())
        },
    )?;
    Ok((columns, rows))
}

#[test]
fn a_query_sees_what_was_just_recorded() {
    let (store, session) = started("run-7");
    for step in 0..3 {
        session.record_telemetry(step, &telemetry(0.5)).unwrap();
        assert_eq!(store.store().sessions().unwrap()[0].total_steps, step as u64 + 1);
    }
}

#[test]
fn sessions_come_newest_first_with_their_numbers() {
    let (store, first) = started("first");
    first.record_telemetry(1, &telemetry(0.25)).unwrap();
    first.record_telemetry(2, &telemetry(f64::NAN)).unwrap();
    first.record_telemetry(3, &telemetry(0.75)).unwrap();
    first.end(Outcome::Completed).unwrap();
    let _second = store.store().start_session(session_id("second")).unwrap();
    let rows = store.store().sessions().unwrap();
    assert_eq!(rows[0].session_id, session_id("second"));
    assert_eq!((rows[0].status.as_str(), rows[0].avg_phi), ("active", None));
    assert_eq!((rows[1].avg_phi, rows[1].max_phi), (Some(0.5), Some(0.75)));
    assert_eq!((rows[1].status.as_str(), rows[1].total_steps), ("completed", 3));
}

#[test]
fn a_session_is_active_until_its_last_part_has_ended() {
    let (store, one) = started("run-7");
    let other = store.store().start_session(session_id("run-7")).unwrap();
    one.end(Outcome::Completed).unwrap();
    assert_eq!(store.store().sessions().unwrap()[0].status, "active");
    other.end(Outcome::Failed).unwrap();
    assert_eq!(store.store().sessions().unwrap()[0].status, "failed");
}

#[test]
fn a_trajectory_gives_telemetry_back_as_it_went_in() {
    let (store, session) = started("run-7");
    let ugly = Telemetry {
        phi: Some(-0.0),
        curvature: Some(f64::INFINITY),
        recursion_depth: Some(i64::MIN),
        emergency: Some(true),
        regime: Some("a\0b é".into()),
        ..Telemetry::default()
    };
    let ugly = ugly.with("loss", f64::NAN).with("$x", Value::Tuple(vec![Value::Int(1)]));
    session.record_telemetry(1, &telemetry(0.1)).unwrap();
    session.record_telemetry(-5, &ugly).unwrap();
    session.record_telemetry(6, &Telemetry::default()).unwrap();
    let points = store.store().get_telemetry_trajectory(session.id(), 2).unwrap();
    assert_eq!(points.iter().map(|point| point.step).collect::<Vec<_>>(), [-5, 6]);
    assert_eq!(points[0].telemetry, ugly);
    assert!(points[0].telemetry.phi.unwrap().is_sign_negative());
}

#[test]
fn an_unknown_session_is_an_error_that_names_it() {
    let (store, _session) = started("run-7");
    let id = session_id("run-8");
    let stats = store.store().get_session_stats(&id).unwrap_err();
    assert!(matches!(&stats, Error::SessionUnknown { .. }), "{stats}");
    let error = store.store().get_telemetry_trajectory(&id, 1).unwrap_err();
    assert!(error.to_string().starts_with("no session run-8 in"), "{error}");
}

#[test]
fn checkpoints_come_best_first_and_nan_is_never_best() {
    let (store, session) = started("run-7");
    for (id, phi) in [("nan", f64::NAN), ("low", 0.1), ("high", 0.9), ("newer", 0.9)] {
        saved(&session, id, phi);
    }
    assert_eq!(ids(&store), ["newer", "high", "low", "nan"]);
    let best = store.store().get_checkpoint(&CheckpointId::new("newer").unwrap()).unwrap();
    assert_eq!((best.rank, best.is_best), (Some(1), true));
}

#[test]
fn a_pruned_checkpoint_comes_last_and_its_file_is_gone() {
    let (store, session) = started("run-7");
    let (best, next) = (saved(&session, "best", 0.9), saved(&session, "next", 0.5));
    store.store().prune_checkpoint(&best).unwrap();
    store.store().prune_checkpoint(&best).unwrap();
    assert_eq!(ids(&store), ["next", "best"]);
    assert!(!store.root().join("checkpoints/best.npz").exists());
    assert_eq!(store.store().get_checkpoint(&next).unwrap().rank, Some(1));
    let error = store.store().load_checkpoint(&best).unwrap_err();
    assert!(error.to_string().starts_with("checkpoint best was pruned"), "{error}");
    let (_, rows) = sql(store.store(), "SELECT action FROM checkpoint_history").unwrap();
    assert_eq!(rows.iter().filter(|row| row[0] == SqlValue::Text("pruned".into())).count(), 1);
}

#[test]
fn a_checkpoint_is_loaded_as_it_was_saved() {
    let (store, session) = started("run-7");
    let basin_coords = Some(BasinCoords::from([0.1; 64]));
    let metadata = Some(Value::Text("m".into()));
    let new = NewCheckpoint { step: Some(7), basin_coords, metadata, ..state(0.7) };
    let id = session.save_checkpoint(new.clone()).unwrap();
    let loaded = store.store().get_best_checkpoint().unwrap();
    assert_eq!(loaded.state_dict, new.state_dict);
    assert_eq!(loaded.created.checkpoint_id, id);
    assert_eq!(loaded.created.session_id.as_ref(), Some(session.id()));
    assert_eq!((loaded.created.step, loaded.created.basin_coords), (Some(7), new.basin_coords));
    assert_eq!(loaded.created.metadata, new.metadata);
}

#[test]
fn a_load_is_journaled_unless_the_store_is_open_for_reading() {
    let (store, session) = started("run-7");
    let id = saved(&session, "c-1", 0.5);
    store.store().load_checkpoint(&id).unwrap();
    Store::open_read_only(store.root()).unwrap().load_checkpoint(&id).unwrap();
    let loads = "SELECT action FROM checkpoint_history WHERE action = 'loaded'";
    assert_eq!(sql(store.store(), loads).unwrap().1.len(), 1);
}

#[test]
fn a_changed_checkpoint_file_is_refused() {
    let (store, session) = started("run-7");
    let id = saved(&session, "c-1", 0.5);
    std::fs::write(store.root().join("checkpoints/c-1.npz"), b"other").unwrap();
    let error = store.store().load_checkpoint(&id).unwrap_err();
    assert!(matches!(error, Error::CheckpointDamaged { .. }), "{error}");
}

#[test]
fn an_empty_store_has_no_best_checkpoint() {
    let store = TestStore::new();
    assert!(matches!(store.store().get_best_checkpoint(), Err(Error::NoCheckpoint { .. })));
    let id = CheckpointId::new("c-1").unwrap();
    let error = store.store().prune_checkpoint(&id).unwrap_err();
    assert!(matches!(error, Error::CheckpointUnknown { .. }), "{error}");
}

#[test]
fn emergencies_come_newest_first() {
    let (store, session) = started("run-7");
    let other = store.store().start_session(session_id("other")).unwrap();
    for (session, id) in [(&session, "e-1"), (&other, "e-2"), (&session, "e-3")] {
        let mut event = Emergency::new(EventId::new(id).unwrap(), "collapse", "high");
        event.value = Some(f64::NAN);
        session.record_emergency(event).unwrap();
    }
    let ids = |session| -> Vec<String> {
        let rows = store.store().emergencies(session).unwrap();
        rows.into_iter().map(|row| row.event_id.to_string()).collect()
    };
    assert_eq!(ids(None), ["e-3", "e-2", "e-1"]);
    assert_eq!(ids(Some(session.id())), ["e-3", "e-1"]);
}

#[test]
fn rows_keep_nan_in_their_json() {
    let (store, session) = started("run-7");
    saved(&session, "c-1", f64::NAN);
    let rows = store.store().list_checkpoints(1).unwrap();
    let json = serde_json::to_value(&rows).unwrap();
    assert_eq!(json[0]["phi"], "NaN");
}

#[test]
fn the_specifications_queries_run_word_for_word() {
    let (store, session) = started("session_20251218_001");
    session.record_telemetry(42, &telemetry(0.85)).unwrap();
    session.record_emergency(Emergency::new(EventId::generate(), "collapse", "high")).unwrap();
    session.save_checkpoint(NewCheckpoint { kappa: Some(64.0), ..state(0.7) }).unwrap();
    for query in DIRECT_QUERIES.into_iter().chain([ACTIVE_SESSIONS]) {
        let (columns, rows) = sql(store.store(), query).unwrap();
        assert_eq!(rows.len(), 1, "{query}");
        assert_eq!(rows[0].len(), columns.len(), "{query}");
    }
}

#[test]
fn sql_that_does_not_read_is_refused_in_words() {
    let (store, _session) = started("run-7");
    let outside = store.root().join("outside.sqlite");
    let outside = outside.to_str().unwrap();
    for (text, part) in [
        ("DELETE FROM telemetry_sessions", "does not read"),
        ("DELETE FROM telemetry_sessions RETURNING session_id", "does not read"),
        ("CREATE TABLE t (a)", "does not read"),
        ("BEGIN", "does not read"),
        ("PRAGMA user_version = 7", "does not read"),
        ("PRAGMA journal_mode = delete", "does not read"),
        (&format!("ATTACH '{outside}' AS o"), "does not read"),
        (&format!("VACUUM INTO '{outside}'"), "does not read"),
        ("SELECT 1; DELETE FROM telemetry_sessions", "more than one SQL statement"),
        ("SELECT 1; SELECT 2", "more than one SQL statement"),
        ("", "empty"),
        ("-- nothing", "empty"),
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nowhere", "no such table: nowhere"),
        ("SELECT ?1", "parameter"),
    ] {
        let error = sql(store.store(), text).unwrap_err();
        assert!(matches!(&error, Error::Query(_)), "{text}: {error:?}");
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
    assert!(!std::path::Path::new(outside).exists());
    assert_eq!(store.store().sessions().unwrap().len(), 1);
}

#[test]
fn a_query_without_an_end_stops_when_it_is_told_to() {
    let store = TestStore::new();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let mut rows = 0;
    let on_row = |_: &[SqlValue]| {
        rows += 1;
        if rows == 1000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.store().sql(endless, |_| {}, on_row).unwrap();
    assert_eq!(rows, 1000);
}

#[test]
fn a_snapshot_sees_one_moment_also_while_others_catch_up() {
    let (store, session) = started("run-7");
    session.record_telemetry(1, &telemetry(0.5)).unwrap();
    let snapshot = store.store().snapshot(&mut |_| {}).unwrap();
    session.record_telemetry(2, &telemetry(0.6)).unwrap();
    let steps = |store: &Store| {
        let stats = store.get_session_stats(session.id()).unwrap();
        let (_, rows) = sql(store, "SELECT count(*) FROM telemetry_records").unwrap();
        let last = store.get_telemetry_trajectory(session.id(), 9).unwrap();
        (stats.total_steps, rows, last.len())
    };
    let count = |count| vec![vec![SqlValue::Integer(count)]];
    assert_eq!(steps(store.store()), (2, count(2), 2));
    assert_eq!(steps(&snapshot), (1, count(1), 1));
}

#[test]
fn a_snapshot_refuses_to_write_like_any_query() {
    let (store, _session) = started("run-7");
    let snapshot = store.store().snapshot(&mut |_| {}).unwrap();
    assert!(sql(&snapshot, "DELETE FROM telemetry_records").is_err());
}
