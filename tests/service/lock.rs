//! One agent works, a second one waits.

use super::*;

#[test]
fn a_second_agent_waits_and_takes_over_when_the_first_is_killed() {
    let (runs, database) = (Runs::new(), TestDatabase::create());
    let session = runs.session("run", 3);
    let options =
        ["--store", text(&runs.path("run")), "--database-url", &database.url()].map(str::to_owned);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut first = Running::start(&options);
    first.says("agent: ready");
    let second = Running::start(&options);
    second.says(&format!("standby: process {} follows this store", first.pid()));
    record(&session, 3..5);
    await_records(&database, "run", 5);
    first.signal("KILL");
    first.ended();
    second.says("agent: ready");
    record(&session, 5..9);
    await_records(&database, "run", 9);
}

#[test]
fn an_agent_in_standby_ends_at_once() {
    let (runs, database) = (Runs::new(), TestDatabase::create());
    let (store, url) = (runs.store("run", 3), database.url());
    let options = ["--store", text(&store), "--database-url", &url];
    let first = Running::start(&options);
    first.says("agent: ready");
    let mut second = Running::start(&options);
    second.says("standby");
    second.signal("TERM");
    assert_eq!(second.ended().code(), Some(0));
}

#[test]
fn a_store_that_cannot_be_locked_is_followed_even_so() {
    let (runs, database) = (Runs::new(), TestDatabase::create());
    let (store, url) = (runs.store("run", 3), database.url());
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=flock:error=ENOLCK"]);
    strace.arg(program("tidelog-sync"));
    let options = ["run", "--start-delay", "0s", "--store", text(&store), "--database-url", &url];
    let running = Running::spawn(clean(strace, &options));
    running.says("no lock on");
    await_records(&database, "run", 3);
}
