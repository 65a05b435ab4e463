//! Values come back exactly; what was pruned or deleted stays so.

use tidelog::FLOAT_FIELDS;

use super::*;

#[test]
fn numbers_come_back_bit_for_bit() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    let numbers = [f64::NAN, -0.0, f64::NEG_INFINITY, f64::MAX, 5e-324, 0.1 + 0.2];
    for (phi, depth) in std::iter::zip(numbers, [i64::MIN, i64::MAX, -1, 0, 1, 2]) {
        let (phi, recursion_depth) = (Some(phi), Some(depth));
        let telemetry = Telemetry { phi, recursion_depth, ..Telemetry::default() };
        session.record_telemetry(depth, &telemetry.with("x", phi.unwrap())).unwrap();
    }
    once(&files, &database).unwrap();
    let sql =
        "SELECT phi, recursion_depth, step, extra::text FROM telemetry_records ORDER BY line_no";
    for (row, phi) in std::iter::zip(database.client().query(sql, &[]).unwrap(), numbers) {
        assert_eq!(row.get::<_, f64>(0).to_bits(), phi.to_bits());
        assert_eq!(row.get::<_, i64>(1), row.get::<_, i64>(2));
        let extra: Telemetry = serde_json::from_str(row.get(3)).unwrap();
        assert_eq!(extra.extra["x"], Value::Float(phi));
    }
}

#[test]
fn telemetry_of_an_emergency_comes_back_bit_for_bit() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    let telemetry = Telemetry {
        phi: Some(-0.0),
        kappa_eff: Some(1e16),
        curvature: Some(f64::MAX),
        grounding: Some(f64::NAN),
        generativity: Some(0.1),
        ..Telemetry::default()
    };
    let mut emergency = Emergency::new(EventId::new("e-1").unwrap(), "collapse", "high");
    emergency.telemetry = Some(telemetry.clone().with("x", -0.0));
    session.record_emergency(emergency).unwrap();
    once(&files, &database).unwrap();
    let sql = "SELECT telemetry::text FROM emergency_events";
    let row = database.client().query_one(sql, &[]).unwrap();
    let read: Telemetry = serde_json::from_str(row.get(0)).unwrap();
    for name in FLOAT_FIELDS {
        let bits = [&read, &telemetry].map(|telemetry| telemetry.float(name).map(f64::to_bits));
        assert_eq!(bits[0], bits[1], "{name}");
    }
    assert_eq!(read.extra["x"], Value::Float(-0.0));
}

#[test]
fn a_point_with_nan_has_no_vector_and_every_number() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let session = files.session("run-1");
    let mut coords = [0.1; 64];
    coords[5] = f64::NAN;
    let basin_coords = BasinCoords::from(coords);
    session.record_basin(BasinPoint { step: None, basin_coords, phi: None, kappa: None }).unwrap();
    once(&files, &database).unwrap();
    let sql = "SELECT basin_coords IS NULL, basin_coords_exact FROM basin_history";
    let row = database.client().query_one(sql, &[]).unwrap();
    assert!(row.get::<_, bool>(0));
    let exact: Vec<f64> = row.get(1);
    assert!(exact[5].is_nan() && exact[6].to_bits() == 0.1_f64.to_bits());
}

#[test]
fn a_pruned_checkpoint_is_pruned_whichever_entry_comes_first() {
    let files = Files::new();
    let id = every_kind(&files);
    let store_journal = |action: &str, day: u32| {
        format!(
            "{{\"timestamp\":\"2099-01-{day:02}T00:00:00Z\",\"event\":\"checkpoint_{action}\",\
             \"checkpoint_id\":\"{id}\"}}\n"
        )
    };
    let path = write_store_segment(&files, &store_journal("pruned", 1));
    let both = TestDatabase::create();
    once(&files, &both).unwrap();
    // The pruning first: its segment alone, then the session's.
    let reversed = TestDatabase::create();
    let session = files.segment("session_run-1.jsonl");
    let aside = files.folder.path().join("aside");
    fs::rename(&session, &aside).unwrap();
    once(&files, &reversed).unwrap();
    fs::rename(&aside, &session).unwrap();
    once(&files, &reversed).unwrap();
    for database in [&both, &reversed] {
        let mut client = database.client();
        assert_eq!(count(&mut client, "checkpoints WHERE state = 'pruned' AND rank IS NULL"), 1);
    }
    assert!(path.exists());
}

#[test]
fn a_deleted_session_does_not_come_back() {
    let (files, database) = (Files::new(), TestDatabase::create());
    every_kind(&files);
    files.records("run-2", 3);
    once(&files, &database).unwrap();
    write_store_segment(
        &files,
        "{\"timestamp\":\"2026-01-05T09:30:00Z\",\"event\":\"session_deleted\",\"session_id\":\"run-1\"}\n",
    );
    once(&files, &database).unwrap();
    let check = |client: &mut Client| {
        for table in ["telemetry_records", "emergency_events", "basin_history", "checkpoints"] {
            assert_eq!(count(client, &format!("{table} WHERE session_id = 'run-1'")), 0, "{table}");
        }
        assert_eq!(count(client, "telemetry_sessions"), 1);
        assert_eq!(count(client, "session_parts"), 1);
        assert_eq!(count(client, "checkpoint_history"), 2);
    };
    let mut client = database.client();
    check(&mut client);
    // Replayed from the first line, with the tombstone there already.
    client
        .batch_execute(
            "UPDATE sync_segments SET next_line = 0, next_byte = 0,
                                      chain_hash = decode(repeat('00', 32), 'hex')
             WHERE session_id = 'run-1'",
        )
        .unwrap();
    once(&files, &database).unwrap();
    check(&mut client);
    let from_nothing = TestDatabase::create();
    once(&files, &from_nothing).unwrap();
    check(&mut from_nothing.client());
}

/// A segment of the store's own journal with these lines.
fn write_store_segment(files: &Files, lines: &str) -> PathBuf {
    let header = format!(
        "{{\"tidelog\":1,\"segment\":\"{}\",\"store\":\"{}\",\"session\":null,\
         \"writer\":{{\"pid\":1,\"host\":\"h\",\"program\":\"t\"}},\
         \"created_at\":\"2026-01-05T09:30:00Z\"}}\n",
        tidelog::SegmentId::random(),
        files.store.id()
    );
    let folder = files.store.root().join("logs/store");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{}.jsonl", tidelog::SegmentId::random()));
    fs::write(&path, header + lines).unwrap();
    path
}
