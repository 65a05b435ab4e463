//! Flags, environment and file.

use super::*;

fn file(runs: &Runs, text: &str) -> PathBuf {
    let path = runs.path("sync.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_flag_wins_over_the_environment_that_over_the_file_and_that_over_the_default() {
    let runs = Runs::new();
    let store = runs.store("run", 1);
    let config = file(
        &runs,
        &format!(
            "store = [{:?}]\ndrain-timeout = \"1s\"\nready-lag = \"2s\"\nconnections = 3\n\
             database-url = \"{NO_DATABASE}\"",
            text(&store)
        ),
    );
    let mut command = agent(&["check-config", "--connections", "5"]);
    command.env("TIDELOG_SYNC_CONFIG", &config);
    command.env("TIDELOG_SYNC_CONNECTIONS", "4").env("TIDELOG_SYNC_READY_LAG", "9s");
    let output = command.output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    for line in [
        "connections = 5  # flag",
        "ready-lag = 9s  # environment",
        "drain-timeout = 1s  # file",
        "live-timeout = 120s  # default",
        "listen = off  # default",
        "database-url = u@127.0.0.1:1/d  # file",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    assert_eq!(output.status.code(), Some(0));
    assert!(!shown.contains("c4narY"));
}

#[test]
fn what_is_wrong_in_a_file_is_named() {
    let runs = Runs::new();
    for (text, parts) in [
        ("connections = 3\nstor = \"x\"", [":2: `stor`", "unknown field"]),
        ("drain-timeout = \"soon\"", [":1: `drain-timeout`", "`soon` is not a time such as"]),
        ("connections = 100", ["`connections` is 100", "from 1 to 24"]),
    ] {
        let config = file(&runs, text);
        for command in ["check-config", "run", "status", "wait"] {
            let (output, said) = output(&[command, "--config", super::text(&config)]);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
    }
}

#[test]
fn check_config_connects_and_tells_what_is_missing() {
    let (runs, database) = (Runs::new(), TestDatabase::create());
    let store = runs.store("run", 1);
    let check = |url: &str| {
        output(&["check-config", "--connect", "--store", text(&store), "--database-url", url])
    };
    let (good, said) = check(&database.url());
    assert!(good.status.success() && said.contains("rights: all"), "{said}");
    let empty = TestDatabase::empty();
    for url in [empty.url().as_str(), NO_DATABASE] {
        let (bad, said) = check(url);
        assert_eq!(bad.status.code(), Some(4), "{said}");
    }
    let role = format!("lacking_{}", std::process::id());
    let mut client = database.client();
    let create = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA public TO {role};
         GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
         REVOKE INSERT ON telemetry_records FROM {role}; ALTER ROLE {role} PASSWORD 'x'"
    );
    client.batch_execute(&create).unwrap();
    let url = database.url();
    let (lacking, said) = check(&as_role(&url, &role));
    client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).unwrap();
    assert_eq!(lacking.status.code(), Some(4), "{said}");
    assert!(said.contains("lacks INSERT on telemetry_records"), "{said}");
}

/// The same URL with another login.
fn as_role(url: &str, role: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}user={role}&password=x")
}

#[test]
fn the_log_is_json_when_asked_for() {
    let runs = Runs::new();
    let store = runs.store("run", 1);
    let options = ["--store", text(&store), "--database-url", NO_DATABASE, "--log-format", "json"];
    let running = Running::start(&options);
    let line: serde_json::Value = serde_json::from_str(&running.says("backoff")).unwrap();
    assert_eq!((&line["level"], &line["agent"]), (&"warn".into(), &"backoff".into()));
    assert!(line["error"].as_str().unwrap().contains("127.0.0.1:1"), "{line}");
    assert!(line["time"].is_string());
}
