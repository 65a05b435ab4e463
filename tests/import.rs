//! Import of a predecessor's folder: everything is taken once, and what is not taken is named.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use tidelog::import::{ImportOptions, Report, import, time_zone};
use tidelog::journal::{BatchLimits, Content, Cursor, Header, SegmentReader, discover};
use tidelog::{Array, Body, CheckpointCreated, Emergency, Entry, Outcome, Record, Store, Value};

struct Case {
    folder: tempfile::TempDir,
    store: Store,
}

impl Case {
    /// An empty predecessor's folder and an empty store.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        fs::create_dir_all(folder.path().join("old/logs/telemetry")).unwrap();
        fs::create_dir_all(folder.path().join("old/logs/emergency")).unwrap();
        Self { folder, store }
    }

    fn old(&self) -> PathBuf {
        self.folder.path().join("old")
    }

    /// Puts lines into the telemetry file of session_a.
    fn telemetry(&self, text: &str) {
        fs::write(self.old().join("logs/telemetry/session_a.jsonl"), text).unwrap();
    }

    fn import(&self) -> Report {
        self.import_with(&ImportOptions::default())
    }

    fn import_with(&self, options: &ImportOptions) -> Report {
        import(&self.store, &self.old(), options, &mut |_| ()).unwrap()
    }

    fn entries(&self) -> Vec<(Header, Entry)> {
        entries(&self.store)
    }

    fn steps(&self) -> Vec<i64> {
        records(&self.store).into_iter().map(|(_, record)| record.step).collect()
    }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/predecessor")
}

/// A store with the fixture imported.
fn imported() -> (tempfile::TempDir, Store, Report) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let report = import(&store, &fixture(), &ImportOptions::default(), &mut |_| ()).unwrap();
    (folder, store, report)
}

/// Every entry of the journal, by segment's creation.
fn entries(store: &Store) -> Vec<(Header, Entry)> {
    let mut entries = Vec::new();
    for segment in discover(store.root()).unwrap().segments {
        let mut reader = SegmentReader::open(&segment.path, Cursor::START).unwrap();
        let limits = BatchLimits { lines_max: 1000, bytes_max: 1 << 20 };
        while let Some(batch) = reader.next_batch(limits).unwrap() {
            for line in batch.lines() {
                let Content::Entry(entry) = &line.content else { panic!("{:?}", line.content) };
                entries.push((segment.header.clone(), entry.clone()));
            }
        }
    }
    entries
}

fn records(store: &Store) -> Vec<(Header, Record)> {
    let record = |(header, entry): (Header, Entry)| match entry.body {
        Body::Record(record) => Some((header, record)),
        _ => None,
    };
    entries(store).into_iter().filter_map(record).collect()
}

fn emergencies(store: &Store) -> BTreeMap<String, Emergency> {
    let event = |(_, entry): (Header, Entry)| match entry.body {
        Body::Emergency(event) => Some((event.event_id.to_string(), *event)),
        _ => None,
    };
    entries(store).into_iter().filter_map(event).collect()
}

fn checkpoints(store: &Store) -> BTreeMap<String, CheckpointCreated> {
    let created = |(_, entry): (Header, Entry)| match entry.body {
        Body::CheckpointCreated(created) => Some((created.checkpoint_id.to_string(), *created)),
        _ => None,
    };
    entries(store).into_iter().filter_map(created).collect()
}

/// Every file of the store that is not a report, with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("import") {
            found.extend(files(&path));
        } else if path.is_file() {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn line(step: i64) -> String {
    format!(
        r#"{{"timestamp": "2026-01-05T09:00:{step:02}", "step": {step}, "telemetry": {{"phi": 0.5}}}}"#
    )
}

fn lines(steps: std::ops::Range<i64>) -> String {
    steps.map(|step| line(step) + "\n").collect()
}

#[test]
fn everything_is_counted_and_every_refusal_is_a_line_of_the_report_file() {
    let (_folder, _store, report) = imported();
    let taken = [report.telemetry.taken, report.emergencies.taken, report.checkpoints.taken];
    let refused =
        [report.telemetry.refused, report.emergencies.refused, report.checkpoints.refused];
    assert_eq!((report.sessions, taken, refused), (3, [25, 4, 6], [4, 2, 3]));
    let file = fs::read_to_string(report.report_file.unwrap()).unwrap();
    assert_eq!(file.lines().count() as u64, report.notes + 9);
    for part in ["\"line\":8,\"byte\":3463", "posix.system", "kernel_abort.json", "is empty"] {
        assert!(file.contains(part), "{part}");
    }
}

#[test]
fn a_second_import_changes_no_file() {
    let (folder, store, first) = imported();
    let before = files(folder.path());
    let second = import(&store, &fixture(), &ImportOptions::default(), &mut |_| ()).unwrap();
    assert!(files(folder.path()) == before);
    assert_eq!((second.taken(), second.refused()), (0, first.refused()));
    assert_eq!(second.telemetry.already_there, 25);
    assert_eq!((second.emergencies.already_there, second.checkpoints.already_there), (4, 6));
}

#[test]
fn a_session_is_called_like_its_file_and_spans_its_records() {
    let (_folder, store, _) = imported();
    let session: Vec<Entry> = (entries(&store).into_iter())
        .filter(|(header, _)| {
            header.session.as_ref().is_some_and(|id| id.as_str() == "session_20260106_120000")
        })
        .map(|(_, entry)| entry)
        .collect();
    let (first, last) = (session.first().unwrap(), session.last().unwrap());
    assert!(matches!(&first.body, Body::SessionStarted(started) if started.attempt == 1));
    assert_eq!(first.timestamp.to_string(), "2026-01-06T12:00:00.000000Z");
    assert!(matches!(&last.body, Body::SessionEnded(ended) if ended.outcome == Outcome::Completed));
    assert_eq!(last.timestamp.to_string(), "2026-01-06T12:00:02.000000Z");
    assert_eq!(session.len(), 7);
}

#[test]
fn pythons_numbers_and_unknown_fields_are_kept() {
    let (_folder, store, _) = imported();
    let (_, record) = records(&store).into_iter().find(|(_, r)| r.step == 3).unwrap();
    let telemetry = record.telemetry;
    assert!(telemetry.phi.unwrap().is_nan());
    assert_eq!(telemetry.curvature, Some(f64::INFINITY));
    let extra = |name: &str| telemetry.extra.get(name).cloned().unwrap();
    assert_eq!(extra("loss"), Value::Float(f64::NEG_INFINITY));
    assert_eq!(extra("note"), "NaN, Infinity: [-Infinity]".into());
    assert_eq!(extra("seen"), Value::integer("18446744073709551617").unwrap());
    assert_eq!(extra("basin_distance"), "far".into());
    assert_eq!((extra("host"), extra("record.phi")), ("gpu-7".into(), 0.25.into()));
    let norm = Value::List(vec![1.5.into(), f64::NAN.into()]);
    let gradients = Value::Dict(vec![("$float".into(), "x".into()), ("norm".into(), norm)]);
    assert_eq!(extra("gradients"), gradients);
}

#[test]
fn a_file_that_grew_gives_its_new_lines_only() {
    let case = Case::new();
    case.telemetry(&lines(0..3));
    case.import();
    case.telemetry(&lines(0..5));
    let report = case.import();
    assert_eq!((report.telemetry.taken, report.telemetry.already_there), (2, 3));
    assert_eq!(case.steps(), [0, 1, 2, 3, 4]);
    let source = case.entries().last().unwrap().0.source.clone().unwrap();
    assert_eq!((source.first_line, source.next_line), (3, 5));
}

#[test]
fn a_cut_last_line_is_taken_once_it_is_whole() {
    let case = Case::new();
    let text = lines(0..3);
    for length in [text.len() - 1 - line(2).len() / 2, text.len() - 1, text.len()] {
        case.telemetry(&text[..length]);
        case.import();
    }
    assert_eq!(case.steps(), [0, 1, 2]);
    assert_eq!(case.import().telemetry.already_there, 3);
}

#[test]
fn a_file_that_changed_or_shrank_is_refused_whole() {
    let case = Case::new();
    case.telemetry(&lines(0..3));
    case.import();
    for (text, reason) in [(lines(1..9), "differs in its first 3 lines"), (lines(0..2), "2 lines")]
    {
        case.telemetry(&text);
        let report = case.import();
        assert_eq!((report.telemetry.taken, report.telemetry.refused), (0, 1));
        let found = &report.first_findings[0].reason;
        assert!(found.contains(reason), "{found}");
    }
    assert_eq!(case.steps(), [0, 1, 2]);
}

#[test]
fn a_file_without_a_record_makes_no_session() {
    let case = Case::new();
    case.telemetry("{\"type\": \"spawn\"}\n[]\n\nnot json\n");
    let report = case.import();
    assert_eq!((report.sessions, report.telemetry.refused), (0, 3));
    assert!(case.entries().is_empty());
}

#[test]
fn local_times_are_read_in_the_zone_that_the_user_names() {
    let case = Case::new();
    case.telemetry(
        "{\"timestamp\": \"2025-10-26T02:30:00\", \"step\": 1, \"telemetry\": {}}\n\
         {\"timestamp\": \"2025-10-26T02:30:00Z\", \"step\": 2, \"telemetry\": {}}\n",
    );
    let timezone = time_zone("Europe/Berlin").unwrap();
    let report = case.import_with(&ImportOptions { timezone, dry_run: false });
    assert_eq!(report.ambiguous_times, 1);
    let times: Vec<String> =
        case.entries()[1..3].iter().map(|(_, entry)| entry.timestamp.to_string()).collect();
    assert_eq!(times, ["2025-10-26T00:30:00.000000Z", "2025-10-26T02:30:00.000000Z"]);
}

#[test]
fn a_session_that_the_store_recorded_itself_gets_another_attempt() {
    let case = Case::new();
    let session = case.store.start_session("session_a".parse().unwrap()).unwrap();
    session.end(Outcome::Completed).unwrap();
    case.telemetry(&lines(0..1));
    case.import();
    let attempts: Vec<_> = case.entries().iter().map(|(header, _)| header.attempt).collect();
    assert_eq!(attempts.last(), Some(&Some(2)));
}

#[test]
fn an_event_belongs_to_a_session_only_if_exactly_one_covers_it() {
    let (_folder, store, _) = imported();
    let events = emergencies(&store);
    let session = |id: &str| events[id].session_id.as_ref().map(ToString::to_string);
    assert_eq!(session("emergency_20260105_090004").unwrap(), "session_20260105_090000");
    assert_eq!(session("emergency_1767603611_ab12"), None);
    assert_eq!(session("emergency_20260109_000000").unwrap(), "session_20260106_120000");
    assert_eq!(session("emergency_20260110_000000"), None);
    assert!(store.root().join("logs/emergency/emergency_20260110_000000.json").exists());
}

#[test]
fn another_event_of_a_known_id_is_refused() {
    let case = Case::new();
    for (severity, refused) in [("high", 0), ("high", 0), ("low", 1)] {
        let event = format!(
            r#"{{"timestamp": "2026-01-05T09:00:00",
                "emergency": {{"reason": "r", "severity": "{severity}"}}}}"#
        );
        fs::write(case.old().join("logs/emergency/emergency_1.json"), event).unwrap();
        assert_eq!(case.import().emergencies.refused, refused);
    }
    assert_eq!(emergencies(&case.store)["emergency_1"].severity, "high");
}

#[test]
fn pickled_states_of_every_protocol_come_back_as_plain_npz() {
    let (_folder, store, _) = imported();
    let created = checkpoints(&store);
    let names = ["090005_0.500", "090006_0.500", "090007_nan", "090008_0.700", "090009_0.250"];
    for (seed, name) in names.into_iter().enumerate() {
        let created = &created[&format!("checkpoint_20260105_{name}")];
        let file = File::open(store.root().join("checkpoints").join(&created.file)).unwrap();
        let (state, coords) = tidelog::checkpoint::npz::read(file).unwrap();
        assert_eq!(state, expected_state(seed as f32), "{name}");
        assert_eq!(coords.unwrap()[63].to_bits(), 1.0_f64.to_bits());
        assert_eq!(created.session_id.as_ref().unwrap().as_str(), "session_20260105_090000");
    }
}

/// What `state` of the generator makes.
fn expected_state(seed: f32) -> Value {
    let weights: Vec<f32> = (0..6).map(|i| i as f32 + seed).collect();
    let bytes = |numbers: &[f32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let array = |descr: &str, shape: Vec<usize>, bytes: Vec<u8>| {
        let (dtype, _) = tidelog::checkpoint::array::Dtype::parse_descr(descr).unwrap();
        Array::new(dtype, shape, bytes).unwrap()
    };
    let layer = Value::Dict(vec![
        ("weight".into(), array("<f4", vec![2, 3], bytes(&weights)).into()),
        ("bias".into(), array("|b1", vec![2], vec![1, 0]).into()),
    ]);
    Value::Dict(vec![
        ("layers".into(), Value::List(vec![layer])),
        ("shape".into(), Value::Tuple(vec![Value::Int(2), Value::Int(3)])),
        ("name".into(), "käfer".into()),
        ("raw".into(), Value::Bytes(vec![0, 255])),
        ("steps".into(), Value::integer("1180591620717411303424").unwrap()),
        ("loss".into(), f64::NAN.into()),
        ("lr".into(), Value::Scalar(array("<f4", vec![], bytes(&[0.1])))),
        ("epoch".into(), Value::Scalar(array("<i8", vec![], 7_i64.to_le_bytes().to_vec()))),
        ("done".into(), false.into()),
        ("parent".into(), Value::Null),
        (Value::Int(1), "an integer key".into()),
    ])
}

#[test]
fn metadata_come_from_the_file_beside_else_the_index_else_the_name() {
    let (_folder, store, _) = imported();
    let created = checkpoints(&store);
    let of = |name: &str| &created[&format!("checkpoint_{name}")];
    let inner = Value::Dict(vec![("n_recursions".into(), Value::Int(3))]);
    let with_seed =
        Value::Dict(vec![("metadata".into(), inner.clone()), ("seed".into(), Value::Int(7))]);
    assert_eq!(of("20260105_090005_0.500").metadata, Some(with_seed));
    assert_eq!(of("20260105_090008_0.700").metadata, Some(inner));
    assert_eq!(of("20260105_090008_0.700").kappa, Some(64.2));
    let bare = of("20260105_090009_0.250");
    assert_eq!((bare.phi, bare.kappa, &bare.metadata), (Some(0.25), None, &None));
    assert!(of("20260105_090007_nan").phi.unwrap().is_nan());
}

#[test]
fn a_pickle_that_would_run_something_runs_nothing() {
    let (_folder, store, report) = imported();
    assert!(!Path::new("/tmp/tidelog-was-here").exists());
    assert!(!checkpoints(&store).contains_key("checkpoint_20260105_090011_0.900"));
    let reasons: Vec<&str> = report.first_findings.iter().map(|f| f.reason.as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("class posix.system is refused")));
}

#[test]
fn checkpoint_files_that_a_crash_left_without_an_entry_are_taken() {
    let (_folder, store, _) = imported();
    let before = checkpoints(&store);
    fs::remove_dir_all(store.root().join("logs/store")).unwrap();
    let report = import(&store, &fixture(), &ImportOptions::default(), &mut |_| ()).unwrap();
    assert_eq!(report.checkpoints.taken, 6);
    assert_eq!(format!("{:?}", checkpoints(&store)), format!("{before:?}")); // NaN is not NaN
}

#[test]
fn a_file_of_another_state_is_not_taken_for_the_checkpoint() {
    let (_folder, store, _) = imported();
    fs::remove_dir_all(store.root().join("logs/store")).unwrap();
    let folder = store.root().join("checkpoints");
    let [one, other] = ["5_0.500", "6_0.500"]
        .map(|name| folder.join(format!("checkpoint_20260105_09000{name}.npz")));
    fs::copy(one, &other).unwrap();
    let report = import(&store, &fixture(), &ImportOptions::default(), &mut |_| ()).unwrap();
    assert_eq!(report.checkpoints.taken, 5);
    assert!(!checkpoints(&store).contains_key("checkpoint_20260105_090006_0.500"));
}

#[test]
fn a_dry_run_reports_the_same_and_writes_nothing() {
    let (_folder, _store, real) = imported();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let before = files(folder.path());
    let options = ImportOptions { dry_run: true, ..ImportOptions::default() };
    let dry = import(&store, &fixture(), &options, &mut |_| ()).unwrap();
    assert!(files(folder.path()) == before && !folder.path().join("logs").exists());
    assert_eq!(dry.report_file, None);
    assert_eq!((dry.telemetry, dry.emergencies), (real.telemetry, real.emergencies));
    assert_eq!((dry.checkpoints, dry.first_findings), (real.checkpoints, real.first_findings));
}

#[test]
fn one_import_runs_at_a_time() {
    let (folder, store, _) = imported();
    let lock = File::open(folder.path().join("logs/import/lock")).unwrap();
    lock.lock().unwrap();
    let error = import(&store, &fixture(), &ImportOptions::default(), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("running in another process"), "{error}");
}

#[test]
fn a_store_is_no_predecessors_folder_and_its_segments_are_no_telemetry() {
    let (folder, store, _) = imported();
    let options = ImportOptions::default();
    let error = import(&store, folder.path(), &options, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("is a tidelog store"), "{error}");
    let logs = folder.path().join("logs");
    let report = import(&store, &logs, &options, &mut |_| ()).unwrap();
    assert_eq!((report.telemetry.taken, report.telemetry.refused), (0, 3));
}

#[test]
fn progress_ends_with_all_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut told = Vec::new();
    let mut tell = |progress: tidelog::import::Progress<'_>| {
        told.push((progress.bytes, progress.bytes_total));
    };
    import(&store, &fixture(), &ImportOptions::default(), &mut tell).unwrap();
    assert!(told.is_sorted() && told.len() == 19);
    assert!(told.last().is_some_and(|(bytes, total)| bytes == total && *total > 10_000));
}
