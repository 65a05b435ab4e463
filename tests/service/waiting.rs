//! `wait` and `status`.

use super::*;

#[test]
fn wait_ends_when_the_session_is_in_the_replica_and_not_before() {
    let (runs, database) = (Runs::new(), TestDatabase::create());
    let session = runs.session("run", 5);
    let (store, url) = (runs.path("run"), database.url());
    let place = ["--store", text(&store), "--database-url", &url];
    let wait = |until: &str, timeout: &str| {
        output(&[&["wait", "--until", until, "--timeout", timeout], &place[..]].concat())
    };
    let (early, said) = wait("lag-lines=0", "1s");
    assert_eq!(early.status.code(), Some(75), "{said}");
    assert!(said.contains("lag-lines is 6, and not yet lag-lines=0"), "{said}");
    let running = Running::start(&place);
    running.says("agent: ready");
    assert_eq!(wait("lag-lines=0", "20s").0.status.code(), Some(0));
    let (active, said) = wait("session=run", "1s");
    assert!(active.status.code() == Some(75) && said.contains("streaming"), "{said}");
    session.end(Outcome::Completed).unwrap();
    assert_eq!(wait("session=run", "20s").0.status.code(), Some(0));
    assert_eq!(wait("lag", "1s").0.status.code(), Some(2));
}

#[test]
fn status_of_several_stores_is_a_line_each() {
    let (runs, database) = (Runs::new(), TestDatabase::create());
    runs.store("a", 2);
    runs.store("b", 3);
    let url = database.url();
    let (found, said) =
        output(&["status", "--json", "--stores-in", text(runs.folder()), "--database-url", &url]);
    assert!(found.status.success(), "{said}");
    let stores: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lags: Vec<_> = stores.iter().map(|store| store["lag_lines"].as_u64().unwrap()).collect();
    assert_eq!(lags, [4, 5]);
    assert_eq!(stores[0]["segments"][0]["quarantined_lines"], 0);
    assert_eq!(stores[0]["missed_records"], 0);
    assert!(stores[1]["folder"].as_str().unwrap().ends_with("/b"));
}
