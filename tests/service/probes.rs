//! What supervisors ask and hear.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;

use super::*;

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Status and body.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].to_owned(), body.to_owned())
}

fn json(address: &str, path: &str) -> (String, serde_json::Value) {
    let (status, body) = get(address, path);
    (status, serde_json::from_str(&body).unwrap())
}

fn metric(address: &str, name: &str) -> String {
    let (_, page) = get(address, "/metrics");
    let mut lines = page.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let value = lines.next().unwrap_or_else(|| panic!("no {name} in {page}"));
    value.rsplit_once(' ').unwrap().1.to_owned()
}

#[test]
fn an_agent_without_its_database_is_alive_and_not_ready() {
    let (runs, address) = (Runs::new(), free_address());
    let store = runs.store("run", 3);
    let options = ["--store", text(&store), "--database-url", NO_DATABASE, "--listen", &address];
    let running = Running::start(&options);
    running.says("backoff");
    assert_eq!(get(&address, "/livez").0, "200");
    let (status, ready) = json(&address, "/readyz");
    assert_eq!((status.as_str(), &ready["ready"]), ("503", &false.into()));
    let store = &ready["stores"][text(&store)];
    assert!(store["reasons"][0].as_str().unwrap().contains("127.0.0.1:1"), "{ready}");
    let (_, metrics) = get(&address, "/metrics");
    assert!(!format!("{ready}{metrics}").contains("c4narY"));
    assert_ne!(metric(&address, "tidelog_sync_errors_total"), "0");
}

#[test]
fn metrics_count_what_arrives() {
    let (runs, database, address) = (Runs::new(), TestDatabase::create(), free_address());
    let session = runs.session("run", 3);
    let (store, url) = (runs.path("run"), database.url());
    let options = ["--store", text(&store), "--database-url", &url, "--listen", &address];
    let running = Running::start(&options);
    running.says("agent: ready");
    await_records(&database, "run", 3);
    record(&session, 3..10);
    await_records(&database, "run", 10);
    let start = Instant::now();
    while metric(&address, "tidelog_sync_lag_lines") != "0" {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(metric(&address, "tidelog_sync_lines_total"), "11");
    assert_ne!(metric(&address, "tidelog_sync_batch_duration_seconds_count"), "0");
    assert!(metric(&address, "tidelog_sync_last_record_timestamp_seconds").len() > 16);
    let (_, page) = get(&address, "/metrics");
    assert!(page.contains("state=\"ready\"} 1") && page.contains("state=\"streaming\"} 1"));
    let (status, ready) = json(&address, "/readyz");
    assert_eq!((status.as_str(), &ready["ready"]), ("200", &true.into()), "{ready}");
    record(&session, 10..11);
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (output, text) = output(&["run", "--database-url", NO_DATABASE, "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains(&format!("cannot listen at {address}")), "{text}");
}

#[test]
fn systemd_hears_of_ready_life_and_the_end() {
    let runs = Runs::new();
    let (store, socket) = (runs.store("run", 3), runs.path("notify"));
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = agent(&["run", "--start-delay", "0s", "--drain-timeout", "0s"]);
    command.args(["--store", text(&store), "--database-url", NO_DATABASE]);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "200000");
    let mut running = Running::spawn(command);
    let mut heard = Vec::new();
    let mut listen = |until: &str| {
        let mut buffer = [0; 4096];
        while !heard.iter().any(|line: &String| line.starts_with(until)) {
            let length = systemd.recv(&mut buffer).unwrap_or_else(|_| panic!("never {until}"));
            heard.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
    };
    listen("READY=1");
    listen("WATCHDOG=1");
    listen("STATUS=1 store: 1 ");
    running.signal("TERM");
    listen("STOPPING=1");
    assert_eq!(running.ended().code(), Some(75));
}
