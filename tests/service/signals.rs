//! Asked to stop.

use std::net::TcpListener;

use super::*;

#[test]
fn the_first_signal_sends_what_is_there_and_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let (runs, database) = (Runs::new(), TestDatabase::create());
        let session = runs.session("run", 3);
        let (store, url) = (runs.path("run"), database.url());
        let mut running = Running::start(&["--store", text(&store), "--database-url", &url]);
        running.says("agent: ready");
        record(&session, 3..2000);
        running.signal(signal);
        assert_eq!(running.ended().code(), Some(0));
        await_records(&database, "run", 2000);
    }
}

#[test]
fn what_is_not_sent_in_time_is_told_by_the_exit_code() {
    let runs = Runs::new();
    let store = runs.store("run", 3);
    let options = ["--store", text(&store), "--database-url", NO_DATABASE, "--drain-timeout", "1s"];
    let mut running = Running::start(&options);
    running.says("backoff");
    running.signal("TERM");
    assert_eq!(running.ended().code(), Some(75));
    let rest = running.rest();
    assert!(rest.contains("stopped after 1 s with lines left to send"), "{rest}");
    assert!(!rest.contains("c4narY"));
}

#[test]
fn a_second_signal_ends_at_once() {
    // It takes connections and answers nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://u@127.0.0.1:{port}/d?sslmode=disable");
    let runs = Runs::new();
    let store = runs.store("run", 3);
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut running = Running::start(&["--store", text(&store), "--database-url", &url]);
        running.says("connecting");
        let start = Instant::now();
        running.signal(signal);
        thread::sleep(Duration::from_millis(300));
        running.signal(signal);
        assert_eq!(running.ended().code(), Some(code));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
