//! Values at the edge of their types, given to a session: kept bit for bit, or an error at the
//! call and nothing written.

use std::fs;

use tidelog::{BasinCoords, CheckpointId, Error, NewCheckpoint, Outcome, Telemetry, Value};

use super::{SEGMENT, verify};
use crate::support::{TestStore, session_id, telemetry};

/// Floats as bits: NaN is itself, -0.0 is not 0.0.
fn bits(telemetry: &Telemetry) -> (Option<u64>, Option<u64>) {
    (telemetry.phi.map(f64::to_bits), telemetry.curvature.map(f64::to_bits))
}

#[test]
fn edges_of_numbers_and_steps_come_back_bit_for_bit() {
    let edges = [
        (i64::MIN, f64::NEG_INFINITY),
        (-1, -0.0),
        (0, 5e-324),
        (0, f64::MIN_POSITIVE),
        (1 << 53, 0.1 + 0.2),
        ((1 << 53) + 1, f64::MAX),
        (i64::MAX, f64::INFINITY),
        (7, f64::NAN),
        (7, 1e39),
    ];
    let store = TestStore::new();
    let session = store.store().start_session(session_id("run-7")).unwrap();
    let record = |value| Telemetry { curvature: Some(value), ..telemetry(value) }.with("x", value);
    for (step, value) in edges {
        session.record_telemetry(step, &record(value)).unwrap();
    }
    session.end(Outcome::Completed).unwrap();
    let points = store.store().get_telemetry_trajectory(&session_id("run-7"), 100).unwrap();
    let mut found: Vec<_> = points.iter().map(|p| (p.step, bits(&p.telemetry))).collect();
    let mut expected = edges.map(|(step, value)| (step, bits(&record(value))));
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(verify(&store.root()).findings, []);
}

#[test]
fn texts_of_every_kind_come_back() {
    let texts = [
        "",
        "\0",
        "\u{feff}",
        "\u{202e}\u{200b}",
        "'; DROP TABLE telemetry_records;--",
        "<script>",
        "{\"crc\":\"00000000\"}",
        "\",\"crc\":\"00000000\"}",
        "\r\n\u{2028}\u{85}",
        "🦀",
    ];
    let long = "é".repeat(1 << 19);
    let store = TestStore::new();
    let session = store.store().start_session(session_id("run-7")).unwrap();
    let texts: Vec<&str> = texts.into_iter().chain([long.as_str()]).collect();
    let record = |text: &str| {
        Telemetry { regime: Some(text.into()), ..Telemetry::default() }.with(text, text)
    };
    for text in &texts {
        session.record_telemetry(1, &record(text)).unwrap();
    }
    session.end(Outcome::Completed).unwrap();
    let points = store.store().get_telemetry_trajectory(&session_id("run-7"), 100).unwrap();
    assert_eq!(points.len(), texts.len());
    for text in texts {
        assert!(points.iter().any(|point| point.telemetry == record(text)), "{text:?}");
    }
}

#[test]
fn coordinates_are_sixty_four_numbers() {
    for length in [0, 1, 63, 65, 10_000] {
        let error = BasinCoords::try_from(&vec![0.5; length][..]).unwrap_err().to_string();
        assert!(error.contains("64"), "{error}");
    }
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, _| Value::List(vec![inner]))
}

#[test]
fn what_cannot_be_kept_is_an_error_at_the_call_and_leaves_nothing() {
    let store = TestStore::new();
    let session = store.store().start_session(session_id("run-7")).unwrap();
    let path = store.root().join(SEGMENT);
    let before = fs::read(&path).unwrap();
    let twice = Value::Dict(vec![("a".into(), Value::Null), ("a".into(), Value::Null)]);
    let unhashable = Value::Dict(vec![(Value::List(vec![]), Value::Null)]);
    for value in [nested(1_000), twice, unhashable] {
        let record = telemetry(0.5).with("x", value.clone());
        let error = session.record_telemetry(1, &record).unwrap_err();
        assert!(matches!(error, Error::InvalidValue { .. }), "{error}");
        let mut new = NewCheckpoint::new(value, 0.5);
        new.checkpoint_id = Some(CheckpointId::new("c").unwrap());
        session.save_checkpoint(new).unwrap_err();
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(verify(&store.root()).findings, []);
}

#[test]
fn a_checkpoint_whose_entry_is_too_long_is_an_error_and_leaves_no_file() {
    let store = TestStore::new();
    let session = store.store().start_session(session_id("run-7")).unwrap();
    let mut new = NewCheckpoint::new(Value::Null, 0.5);
    new.metadata = Some(Value::from("x".repeat(tidelog::LINE_BYTES_MAX)));
    let error = session.save_checkpoint(new).unwrap_err();
    assert!(matches!(error, Error::LineTooLong { .. }), "{error}");
    assert_eq!(verify(&store.root()).findings, []);
}
