//! What a user of the program sees.

mod full_disk;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value as Json;
use tidelog::{Outcome, SessionId, Store, Telemetry};

use crate::support::specification::{ACTIVE_SESSIONS, DIRECT_QUERIES};

const CLI_PAGE: &str = include_str!("../docs/cli.md");

const PREDECESSOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/predecessor");

/// What prints documented JSON, for a store that holds a demo.
const WITH_JSON: [&[&str]; 11] = [
    &["demo", "--steps", "20"],
    &["sessions"],
    &["show", "demo-42"],
    &["checkpoints"],
    &["best"],
    &["status"],
    &["rebuild"],
    &["verify"],
    &["doctor"],
    &["tail", "demo-42"],
    &["import", PREDECESSOR],
];

fn program(store: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog"));
    command.env_remove("TIDELOG_STORE").arg("--store").arg(store);
    command
}

fn run(store: &Path, arguments: &[&str]) -> Output {
    program(store).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard output of a command that must succeed.
fn ok(store: &Path, arguments: &[&str]) -> String {
    let output = run(store, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Exit code and standard error.
fn fails(store: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(store, arguments);
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    (output.status.code(), text(&output.stderr))
}

/// A store with one demo, and a folder that is not there yet.
fn demo() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    ok(&store, &["demo", "--steps", "200"]);
    (folder, store)
}

fn commands() -> Vec<String> {
    let help =
        text(&Command::new(env!("CARGO_BIN_EXE_tidelog")).arg("help").output().unwrap().stdout);
    let list = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let name = |line: &str| line.split_whitespace().next().map(str::to_owned);
    list.lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(name)
        .collect()
}

/// The part of the page about one command.
fn chapter(command: &str) -> Option<&'static str> {
    let begin = format!("\n## {command}\n");
    CLI_PAGE.split_once(&begin).map(|(_, rest)| rest.split("\n## ").next().unwrap_or(rest))
}

#[test]
fn every_command_has_help_and_a_chapter() {
    let commands = commands();
    assert!(commands.len() > 13, "{commands:?}");
    for command in commands.iter().filter(|command| *command != "help") {
        let help =
            Command::new(env!("CARGO_BIN_EXE_tidelog")).args(["help", command]).output().unwrap();
        let help = text(&help.stdout);
        assert!(!help.starts_with("Usage:") && help.contains("\n\nUsage:"), "{command}: {help}");
        assert!(chapter(command).is_some(), "docs/cli.md has no chapter {command:?}");
    }
}

#[test]
fn every_field_of_the_json_is_documented() {
    let (_folder, store) = demo();
    for arguments in WITH_JSON {
        let printed = ok(&store, &[&["--json"], arguments].concat());
        let chapter = chapter(arguments[0]).unwrap();
        for document in serde_json::Deserializer::from_str(&printed).into_iter::<Json>() {
            for field in fields(&document.unwrap()) {
                assert!(chapter.contains(&format!("`{field}`")), "{arguments:?}: {field}");
            }
        }
    }
}

/// Names of all fields; what is in free-form ones is not ours.
fn fields(document: &Json) -> BTreeSet<String> {
    match document {
        Json::Array(items) => items.iter().flat_map(fields).collect(),
        Json::Object(map) if map.contains_key("event") => BTreeSet::from(["event".into()]),
        Json::Object(map) => {
            let inner = map.iter().filter(|(name, _)| *name != "metadata" && *name != "telemetry");
            inner.flat_map(|(_, value)| fields(value)).chain(map.keys().cloned()).collect()
        }
        _ => BTreeSet::new(),
    }
}

#[test]
fn a_demo_shows_what_was_recorded_and_what_to_do_next() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let shown = ok(&store, &["demo", "--steps", "200"]);
    for part in ["session demo-42: completed", "critical", "phi over steps", "⠁", "go on with:"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let next = shown.split("go on with:\n").nth(1).unwrap();
    for line in next.lines() {
        let line = line.replacen("tidelog", env!("CARGO_BIN_EXE_tidelog"), 1);
        let status = Command::new("sh").args(["-c", &line]).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "{line}");
    }
}

#[test]
fn equal_seeds_give_equal_values() {
    let values = |seed: &str| {
        let folder = tempfile::tempdir().unwrap();
        ok(folder.path(), &["demo", "--steps", "50", "--seed", seed]);
        ok(folder.path(), &["sql", "SELECT step, phi, kappa_eff, extra FROM telemetry_records"])
    };
    assert_eq!(values("7"), values("7"));
    assert_ne!(values("7"), values("8"));
}

#[test]
fn a_second_demo_is_another_session() {
    let (_folder, store) = demo();
    ok(&store, &["demo", "--steps", "5"]);
    let sessions: Json = serde_json::from_str(&ok(&store, &["sessions", "--json"])).unwrap();
    assert_eq!(sessions[0]["session_id"], "demo-42-2");
    assert_eq!(sessions[1]["total_steps"], 200);
}

#[test]
fn a_folder_without_a_store_is_an_error_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no store");
    for command in ["sessions", "status", "verify", "rebuild", "best", "checkpoints"] {
        let (code, error) = fails(folder.path(), &[command]);
        assert_eq!(code, Some(1), "{command}: {error}");
        assert!(error.contains("is not a tidelog store"), "{error}");
        let (code, error) = fails(&missing, &[command]);
        assert_eq!(code, Some(1), "{command}: {error}");
        assert!(error.contains("does not exist"), "{error}");
        assert!(error.contains("--store or TIDELOG_STORE") && !error.contains("demo"), "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_store_can_come_from_the_environment() {
    let (_folder, store) = demo();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog"));
    let output = command.env("TIDELOG_STORE", &store).args(["show", "nobody"]).output().unwrap();
    let error = text(&output.stderr);
    assert!(error.ends_with("; `tidelog sessions` lists them\n"), "{error}");
}

#[test]
fn the_command_that_helps_is_named_once_and_reaches_the_store() {
    let (_folder, store) = demo();
    let (_, error) = fails(&store, &["show", "nobody"]);
    assert_eq!(error.matches(" sessions").count(), 1, "{error}");
    assert!(error.contains(&format!("`tidelog --store {} sessions`", store.display())), "{error}");
}

#[test]
fn an_id_that_cannot_be_one_is_wrong_usage() {
    let (_folder, store) = demo();
    for command in ["show", "tail"] {
        let (code, error) = fails(&store, &[command, "../x"]);
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains("session id \"../x\""), "{error}");
        assert_eq!(fails(&store, &[command, "nobody"]).0, Some(1));
    }
}

#[test]
fn a_closed_pipe_is_a_normal_end() {
    let (_folder, store) = demo();
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    for flags in [&[][..], &["--json"]] {
        let mut command = program(&store);
        command.args(flags).args(["sql", many]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    }
}

#[test]
fn the_queries_of_the_specification_run_word_for_word() {
    let (_folder, store) = demo();
    for query in DIRECT_QUERIES.iter().chain([&ACTIVE_SESSIONS]) {
        ok(&store, &["sql", query]);
    }
}

#[test]
fn a_statement_can_come_from_standard_input() {
    let (_folder, store) = demo();
    let mut command = program(&store);
    command.args(["--json", "sql", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"SELECT 1 AS one, 'NaN' AS odd, NULL AS none").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "{\"one\":1,\"odd\":\"NaN\",\"none\":null}\n");
}

#[test]
fn rows_beyond_the_first_block_stay_in_their_columns() {
    let (_folder, store) = demo();
    let query = "SELECT step, 'x' AS letter FROM telemetry_records UNION ALL SELECT 201, 'y'";
    let table = ok(&store, &["sql", query]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!((lines[0], lines[202]), (" step   letter", "  201   y"));
}

#[test]
fn sql_only_reads() {
    let (_folder, store) = demo();
    for statement in ["DELETE FROM telemetry_records", "ATTACH 'x' AS y", "DROP TABLE checkpoints"]
    {
        let (code, error) = fails(&store, &["sql", statement]);
        assert_eq!(code, Some(1), "{statement}: {error}");
    }
    let count = ok(&store, &["--json", "sql", "SELECT count(*) AS n FROM telemetry_records"]);
    assert_eq!(count, "{\"n\":200}\n");
}

#[test]
fn a_flipped_byte_ends_verify_with_exit_code_3() {
    let (_folder, store) = demo();
    let segment = store.join("logs/telemetry/session_demo-42.jsonl");
    let mut bytes = fs::read(&segment).unwrap();
    let line = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(9).unwrap().0 + 1;
    bytes[line + 30] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let output = run(&store, &["verify"]);
    let (code, shown) = (output.status.code(), text(&output.stdout));
    let place = format!("damage  logs/telemetry/session_demo-42.jsonl line 10 (byte {line}):");
    assert!(code == Some(3) && shown.contains(&place), "{code:?} {shown}");
    let json: Json = serde_json::from_slice(&run(&store, &["--json", "verify"]).stdout).unwrap();
    assert_eq!(json["findings"][0]["line"], 10);
}

#[test]
fn an_answer_tells_of_the_lines_that_it_passed_over() {
    let (_folder, store) = demo();
    let segment = store.join("logs/telemetry/session_demo-42.jsonl");
    assert_eq!(text(&run(&store, &["sessions"]).stderr), "");
    let mut file = fs::OpenOptions::new().append(true).open(segment).unwrap();
    file.write_all(b"{\"timestamp\":\n").unwrap();
    for command in [&["sessions"] as &[&str], &["best"], &["sql", "SELECT 1"]] {
        let remarks = text(&run(&store, command).stderr);
        assert!(remarks.starts_with("passed over 1 damaged line; `tidelog "), "{remarks}");
    }
}

#[test]
fn a_damaged_store_file_is_damage_too() {
    let (_folder, store) = demo();
    fs::write(store.join("store.json"), "{").unwrap();
    let (code, error) = fails(&store, &["verify"]);
    assert!(code == Some(3) && error.contains("store.json"), "{error}");
    assert_eq!(fails(&store, &["status"]).0, Some(1));
}

#[test]
fn a_dry_import_counts_and_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let counts = |arguments: &[&str]| {
        let arguments = [&["--json", "import", PREDECESSOR], arguments].concat();
        let report: Json = serde_json::from_str(&ok(&store, &arguments)).unwrap();
        (report["telemetry"]["taken"].clone(), report["checkpoints"]["taken"].clone())
    };
    let dry = counts(&["--dry-run"]);
    assert!(!store.exists());
    assert_eq!(counts(&[]), dry);
    assert_eq!(counts(&["--dry-run"]), (0.into(), 0.into()));
    assert_eq!(run(&store, &["verify"]).status.code(), Some(0));
}

#[test]
fn tail_follows_a_session_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let session = store.start_session(SessionId::new("live").unwrap()).unwrap();
    session.record_telemetry(1, &Telemetry::default()).unwrap();
    let (mut child, next) = follow(folder.path());
    assert!(next().unwrap().contains("\"step\":1"));
    session.record_telemetry(2, &Telemetry::default()).unwrap();
    assert!(next().unwrap().contains("\"step\":2"));
    let rank = store.start_session(SessionId::new("live").unwrap()).unwrap();
    session.end(Outcome::Completed).unwrap();
    assert!(next().unwrap().contains("session_ended"));
    assert!(next().unwrap().contains("session_started"));
    rank.end(Outcome::Failed).unwrap();
    assert!(next().unwrap().contains("failed"));
    assert_eq!(next(), None);
    assert!(child.wait().unwrap().success());
}

/// The program, and its next line; none at its end, or after too long a wait.
fn follow(store: &Path) -> (Child, impl Fn() -> Option<String>) {
    let mut command = program(store);
    command.args(["--json", "tail", "live", "--follow", "-n", "1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (sender, lines) = mpsc::channel();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    thread::spawn(move || stdout.lines().try_for_each(|line| sender.send(line.unwrap())));
    (child, move || lines.recv_timeout(Duration::from_secs(30)).ok())
}

#[test]
fn looking_at_a_live_session_leaves_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let session = store.start_session(SessionId::new("live").unwrap()).unwrap();
    session.record_telemetry(1, &Telemetry::default()).unwrap();
    let segment = folder.path().join("logs/telemetry/session_live.jsonl");
    let before = fs::read(&segment).unwrap();
    let status: Json = serde_json::from_str(&ok(folder.path(), &["status", "--json"])).unwrap();
    assert_eq!(status["writers"][0]["session_id"], "live");
    assert_eq!(status["active_sessions"][0]["total_steps"], 1);
    for command in ["sessions", "verify", "rebuild"] {
        ok(folder.path(), &[command]);
    }
    assert_eq!(fs::read(&segment).unwrap(), before);
    session.end(Outcome::Completed).unwrap();
}

#[test]
fn output_that_is_no_terminal_has_no_control_sequences() {
    let (_folder, store) = demo();
    for arguments in [&["show", "demo-42"][..], &["status"], &["verify"], &["help"]] {
        let output = run(&store, arguments);
        let all = [output.stdout, output.stderr].concat();
        assert!(!all.contains(&0x1b), "{arguments:?}");
    }
}

#[cfg(unix)]
#[test]
fn sync_runs_the_agent_beside_the_program_or_says_how_to_get_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("tidelog");
    fs::copy(env!("CARGO_BIN_EXE_tidelog"), &program).unwrap();
    let sync = || {
        let mut command = Command::new(&program);
        command.env("PATH", "").args(["--store", "here", "sync", "once", "--help"]);
        command.output().unwrap()
    };
    let missing = sync();
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("try: cargo install tidelog-sync"));
    let agent = folder.path().join("tidelog-sync");
    fs::write(&agent, "#!/bin/sh\necho \"$TIDELOG_STORE $*\"\nexit 7\n").unwrap();
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o700)).unwrap();
    let found = sync();
    assert_eq!((found.status.code(), text(&found.stdout)), (Some(7), "here once --help\n".into()));
}

#[test]
fn a_hint_never_puts_made_up_data_into_a_folder_that_holds_something() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let (code, message) = fails(folder.path(), &["sessions"]);
    assert_eq!(code, Some(1));
    assert!(message.contains("has no store.json") && !message.contains("demo"), "{message}");
}

#[test]
fn a_file_is_no_store_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let (_, message) = fails(&file, &["sessions"]);
    assert!(message.contains("is a file, not the folder of a store"), "{message}");
}

#[test]
fn rebuild_mends_an_index_whose_pages_are_damaged() {
    let (_folder, store) = demo();
    ok(&store, &["sessions"]);
    let index = store.join("index.sqlite");
    let mut bytes = fs::read(&index).unwrap();
    let length = bytes.len();
    bytes[4096..length].fill(0xff);
    fs::write(&index, bytes).unwrap();
    ok(&store, &["rebuild"]);
    assert!(ok(&store, &["sessions"]).contains("demo-42"));
}

#[test]
fn two_columns_of_one_name_are_no_json_object() {
    let (_folder, store) = demo();
    let (code, message) = fails(&store, &["--json", "sql", "SELECT 1 AS a, 2 AS a"]);
    assert_eq!(code, Some(2));
    assert!(message.contains("two columns are called \"a\""), "{message}");
}

#[test]
fn a_statement_may_begin_with_a_comment() {
    let (_folder, store) = demo();
    assert!(ok(&store, &["sql", "-- how many\nSELECT 41 + 1"]).contains("42"));
}
