//! `docs/format.md` names what is written.

use std::collections::BTreeSet;
use std::fs::{self, File};

use serde_json::Value as Json;
use tidelog::checkpoint::npz::{Limits, NpzReader};
use tidelog::{Array, NewCheckpoint, Value};

use crate::support::{TestStore, session_id};

const PAGE: &str = include_str!("../docs/format.md");

/// Every key of a JSON value.
fn keys(json: &Json, found: &mut BTreeSet<String>) {
    match json {
        Json::Array(items) => items.iter().for_each(|item| keys(item, found)),
        Json::Object(object) => {
            found.extend(object.keys().cloned());
            object.values().for_each(|value| keys(value, found));
        }
        _ => {}
    }
}

#[test]
fn the_page_names_every_tag() {
    let one = Array::from_ndarray(&ndarray::arr0(1.0));
    let long = Value::Bytes(vec![0; 5_000]);
    let values = [
        Value::Float(-0.0),
        Value::integer("18446744073709551616").unwrap(),
        "\0".into(),
        Value::Complex(1.0, 2.0),
        Value::Tuple(vec![]),
        long.summary().unwrap(),
        long,
        Value::Dict(vec![(Value::Int(1), Value::Null)]),
        Value::Array(one.clone()),
        Value::Scalar(one),
    ];
    let count = values.len();
    let mut tags = BTreeSet::new();
    keys(&serde_json::to_value(Value::List(values.into())).unwrap(), &mut tags);
    tags.retain(|key| key.starts_with('$'));
    assert_eq!(tags.len(), count);
    for tag in tags {
        assert!(PAGE.contains(&format!("`{tag}`")), "{tag}");
    }
}

#[test]
fn the_page_names_every_key_of_a_marker() {
    let store = TestStore::new();
    let _session = store.store().start_session(session_id("run-7")).unwrap();
    let mut files = fs::read_dir(store.root().join("active")).unwrap().map(|file| file.unwrap());
    let marker = files.find(|file| file.path().extension().is_some_and(|it| it == "json")).unwrap();
    let mut found = BTreeSet::new();
    keys(&serde_json::from_slice(&fs::read(marker.path()).unwrap()).unwrap(), &mut found);
    for key in found {
        assert!(PAGE.contains(&format!("`{key}`")), "{key}");
    }
}

#[test]
fn a_checkpoint_has_the_members_that_the_page_names() {
    let store = TestStore::new();
    let session = store.store().start_session(session_id("run-7")).unwrap();
    let array = || Value::Array(Array::from_ndarray(&ndarray::arr0(1.0)));
    let state = Value::Dict(vec![("a".into(), array()), ("A".into(), array())]);
    let new =
        NewCheckpoint { basin_coords: Some([0.5; 64].into()), ..NewCheckpoint::new(state, 0.5) };
    let id = session.save_checkpoint(new).unwrap();
    let file = File::open(store.root().join(format!("checkpoints/{id}.npz"))).unwrap();
    let mut npz = NpzReader::open(file, Limits::default()).unwrap();
    let members: Vec<String> = npz.members().map(str::to_owned).collect();
    assert_eq!(members, ["tree.npy", "basin_coords.npy", "state/a.npy", "state/A~2.npy"]);
    let tree: Json = serde_json::from_slice(npz.array("tree.npy").unwrap().bytes()).unwrap();
    assert_eq!(tree["tidelog"], 1);
    assert_eq!(tree["state"]["a"]["$array"]["member"], "state/a.npy");
}
