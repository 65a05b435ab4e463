//! Checkpoints and real numpy: each reads what the other wrote.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use tidelog::Value;
use tidelog::checkpoint::npy::Npy;
use tidelog::checkpoint::npz::{self, Compression, Limits, NpzReader};
use tidelog::import::pickle;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/npz_roundtrip.py");

fn run_python(command: &str, path: &Path) {
    let python = std::env::var_os("TIDELOG_TEST_PYTHON").expect(
        "TIDELOG_TEST_PYTHON must name a python that has numpy 2; `scripts/test` sets one up",
    );
    let output = Command::new(python).arg(SCRIPT).arg(command).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn numpy_files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    run_python("make", folder.path());
    folder
}

fn expected(folder: &Path, name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

/// Compares two dicts key by key, because a whole state is too long to print.
fn assert_same_dict(found: &Value, expected: &Value, file: &str) {
    let (Value::Dict(found), Value::Dict(expected)) = (found, expected) else { panic!("{file}") };
    assert_eq!(found.len(), expected.len(), "{file}");
    for ((found_key, found), (key, expected)) in found.iter().zip(expected) {
        assert_eq!(found_key, key, "{file}");
        assert!(found == expected, "{file} {key:?}: {found:.0?}");
    }
}

#[test]
fn numpy_reads_without_pickle_what_tidelog_writes() {
    let folder = numpy_files();
    let state = expected(folder.path(), "arrays.json");
    let coords = std::array::from_fn(|i| i as f64 / 3.0);
    for compression in [Compression::Stored, Compression::Deflated] {
        let path = folder.path().join("checkpoint.npz");
        npz::write(File::create(&path).unwrap(), &state, Some(&coords), compression).unwrap();
        run_python("check", &path);
        assert_eq!(npz::read(File::open(&path).unwrap()).unwrap(), (state.clone(), Some(coords)));
    }
}

#[test]
fn every_array_that_numpy_writes_is_read() {
    let folder = numpy_files();
    let Value::Dict(arrays) = expected(folder.path(), "arrays.json") else { panic!() };
    for name in ["arrays.npz", "arrays_deflated.npz"] {
        let file = File::open(folder.path().join(name)).unwrap();
        let mut npz = NpzReader::open(file, Limits::default()).unwrap();
        assert_eq!(npz.members().count(), arrays.len());
        for (key, array) in &arrays {
            let Value::Text(key) = key else { panic!() };
            let read = npz.array(&format!("{key}.npy")).unwrap();
            assert_eq!(&Value::Array(read), array, "{key}");
        }
    }
}

#[test]
fn pickles_of_every_protocol_and_both_numpys_are_decoded() {
    let folder = numpy_files();
    let state = expected(folder.path(), "state.json");
    for protocol in 2..=5 {
        for numpy in 1..=2 {
            let name = format!("protocol_{protocol}.numpy_{numpy}.pkl");
            let decoded = pickle::decode(&fs::read(folder.path().join(&name)).unwrap()).unwrap();
            assert_same_dict(&decoded, &state, &name);
        }
    }
}

#[test]
fn a_pickled_state_dict_in_an_npz_is_decoded() {
    let folder = numpy_files();
    let file = File::open(folder.path().join("objects.npz")).unwrap();
    let mut npz = NpzReader::open(file, Limits::default()).unwrap();
    let Npy::Objects { pickle } = npz.member("state_dict.npy").unwrap() else { panic!() };
    let (state, file) = (expected(folder.path(), "state.json"), "objects.npz");
    assert_same_dict(&pickle::decode(&pickle).unwrap(), &state, file);
    assert_eq!(npz.basin_coords().unwrap(), Some(std::array::from_fn(|i| i as f64)));
}
