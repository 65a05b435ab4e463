//! Several stores by one agent.

use super::*;

#[test]
fn a_store_that_fails_stops_no_other_and_one_that_comes_later_is_followed() {
    let (runs, database) = (Runs::new(), TestDatabase::create());
    runs.store("a", 3);
    runs.store("broken", 3);
    std::fs::write(runs.path("broken/store.json"), "{}").unwrap();
    let named = Runs::new();
    let (other, url) = (named.store("named", 4), database.url());
    let options =
        ["--stores-in", text(runs.folder()), "--store", text(&other), "--database-url", &url];
    let mut running = Running::start(&options);
    running.says("/broken: agent: blocked");
    await_records(&database, "a", 3);
    await_records(&database, "named", 4);
    runs.store("later", 5);
    await_records(&database, "later", 5);
    running.signal("TERM");
    assert_eq!(running.ended().code(), Some(1));
}

#[test]
fn a_store_that_is_gone_from_its_parent_folder_is_left() {
    let (runs, database) = (Runs::new(), TestDatabase::create());
    runs.store("a", 3);
    runs.store("b", 3);
    let url = database.url();
    let running = Running::start(&["--stores-in", text(runs.folder()), "--database-url", &url]);
    await_records(&database, "a", 3);
    std::fs::remove_dir_all(runs.path("a")).unwrap();
    running.says("/a: agent: draining");
    record(&runs.session("b", 0), 0..2);
    await_records(&database, "b", 5);
}

#[test]
fn many_stores_take_turns_on_few_connections() {
    let (runs, database) = (Runs::new(), TestDatabase::create());
    let names: Vec<String> = (0..9).map(|number| format!("run-{number}")).collect();
    let sessions: Vec<Session> = names.iter().map(|name| runs.session(name, 2)).collect();
    let url = format!("{}?application_name=turns", database.url());
    let options =
        ["--stores-in", text(runs.folder()), "--connections", "2", "--database-url", &url];
    let mut running = Running::start(&options);
    let mut client = database.client();
    let mut check_connections = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'turns'";
        let count: i64 = client.query_one(sql, &[]).unwrap().get(0);
        assert!(count <= 3, "{count}"); // one may just be closing
    };
    for records in [2, 4, 6] {
        for (name, session) in names.iter().zip(&sessions) {
            record(session, records..records + 2);
            check_connections();
            await_records(&database, name, records + 2);
        }
    }
    running.signal("TERM");
    assert_eq!(running.ended().code(), Some(0));
}

#[test]
fn stores_beyond_the_limit_are_told_and_not_followed() {
    let (runs, database) = (Runs::new(), TestDatabase::create());
    for name in ["a", "b"] {
        runs.store(name, 2);
    }
    let url = database.url();
    let options = ["--stores-in", text(runs.folder()), "--stores-max", "1", "--database-url", &url];
    let running = Running::start(&options);
    running.says("is not followed, because 1 stores are; raise --stores-max");
    await_records(&database, "a", 2);
}
