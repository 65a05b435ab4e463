//! Any bytes as each of a predecessor's text files. Every line is counted, and whatever is taken is
//! a good line of the store. The input is split at the first NUL: telemetry, then an event.
#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tidelog::Store;
use tidelog::import::{ImportOptions, Report, import};
use tidelog_fuzz::within;

/// A predecessor's folder, and an empty store that dry runs compare it with.
struct Place {
    folder: tempfile::TempDir,
    store: Store,
}

thread_local! {
    static PLACE: Place = Place::default();
}

impl Default for Place {
    fn default() -> Self {
        let folder = tidelog_fuzz::folder();
        let store = Store::open(folder.path().join("store")).expect("a store");
        Self { folder, store }
    }
}

fn write_files(old: &Path, data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    for (folder, name) in
        [("logs/telemetry", "session_1.jsonl"), ("logs/emergency", "emergency_1.json")]
    {
        fs::create_dir_all(old.join(folder)).expect("a folder");
        fs::write(old.join(folder).join(name), parts.next().unwrap_or_default()).expect("a file");
    }
}

fn run(store: &Store, old: &Path, dry_run: bool) -> Report {
    let options = ImportOptions { dry_run, ..ImportOptions::default() };
    import(store, old, &options, &mut |_| ()).expect("an import that reports what it refuses")
}

/// What a dry run says is what an import does; again nothing is taken twice.
fn check(old: &Path, dry: &Report) {
    let folder = tidelog_fuzz::folder();
    let store = Store::open(folder.path().join("store")).expect("a store");
    let report = run(&store, old, false);
    assert_eq!((report.taken(), report.refused()), (dry.taken(), dry.refused()));
    let again = run(&store, old, false);
    assert_eq!((again.taken(), again.refused()), (0, report.refused()));
    let found = store.verify(&mut |_| {}).expect("a store");
    assert_eq!(found.damage_count, 0, "{:?}", found.findings);
    assert_eq!(found.records, report.telemetry.taken);
}

fuzz_target!(|data: &[u8]| {
    PLACE.with(|place| {
        let old = place.folder.path().join("old");
        write_files(&old, data);
        let bytes_max = (8 << 20) + 600 * data.len();
        let dry = within(bytes_max, || run(&place.store, &old, true));
        // A store takes a hundred times as long to write.
        if dry.taken() > 0 && data.len().is_multiple_of(8) {
            check(&old, &dry);
        }
    });
});
