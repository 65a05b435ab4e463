use postgres::Client;
use postgres::error::SqlState;

use super::{DELETE_RUN_1, Files, connect, count, psql, rewind};
use crate::support::compare::check_replica;
use crate::support::postgres::TestDatabase;

const NEW_KIND: &str = r#"{"timestamp":"2026-01-05T09:30:00Z","event":"new"}"#;
const GAP: &str = r#"{"timestamp":"2026-01-05T09:41:00Z","event":"gap","gap":{"records":3,"first_step":7,"last_step":9,"since":"2026-01-05T09:40:30Z"},"reason":"no space left on device"}"#;

/// The roles of `roles.sql` under names of this test's own, as roles belong to the whole server, and
/// a member of each that can log in.
pub(super) struct Roles<'a> {
    database: &'a TestDatabase,
    unique: String,
    /// Created beside the two of `roles.sql`.
    teams: Vec<String>,
}

impl<'a> Roles<'a> {
    pub(super) fn create(database: &'a TestDatabase) -> Self {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let mut roles = Self { database, unique, teams: Vec::new() };
        roles.apply();
        roles.login("agent");
        roles.login("analyst");
        roles
    }

    fn apply(&self) {
        let variables = ["agent", "analyst"].map(|role| format!("{role}={}", self.name(role)));
        psql(self.database, "packaging/roles.sql", &variables).unwrap();
    }

    /// Makes a team, with somebody who can log in.
    fn team(&mut self, team: &str, stores: &[&Files]) {
        let ids: Vec<String> = stores.iter().map(|files| files.store.id().to_string()).collect();
        let variables =
            [format!("team={team}_{}", self.unique), format!("stores={{{}}}", ids.join(","))];
        psql(self.database, "packaging/team.sql", &variables).unwrap();
        if !self.teams.contains(&team.to_owned()) {
            self.teams.push(team.to_owned());
            self.login(team);
        }
    }

    fn name(&self, role: &str) -> String {
        match role {
            "agent" | "analyst" => format!("{role}_{}", self.unique),
            team => format!("tidelog_{team}_{}", self.unique),
        }
    }

    fn login(&mut self, role: &str) {
        let role = self.name(role);
        let sql = format!("CREATE ROLE {role}_user LOGIN PASSWORD 'secret' IN ROLE {role}");
        self.database.client().batch_execute(&sql).unwrap();
    }

    /// Connection URL of the member of a role.
    fn url(&self, role: &str) -> String {
        let url = self.database.url();
        let (_, address) = url.split_once('@').unwrap();
        format!("postgres://{}_user:secret@{address}", self.name(role))
    }

    pub(super) fn client(&self, role: &str) -> Client {
        connect(&self.url(role))
    }
}

impl Drop for Roles<'_> {
    fn drop(&mut self) {
        let mut client = self.database.client();
        for role in ["agent", "analyst"].iter().copied().chain(self.teams.iter().map(|t| &**t)) {
            let role = self.name(role);
            // The test's own failure counts, not this one.
            client
                .batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}_user, {role}"))
                .ok();
        }
    }
}

fn check_refused(client: &mut Client, sql: &str) {
    let error = client.batch_execute(sql).expect_err(sql);
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {error}");
}

fn tables(client: &mut Client, kind: &str) -> Vec<String> {
    let sql = "SELECT relname::text FROM pg_class
               WHERE relnamespace = 'public'::regnamespace AND relkind::text = $1
                 AND relname NOT LIKE 'tidelog_team%'";
    client.query(sql, &[&kind]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn agent_sends_everything_with_its_rights_alone() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let roles = Roles::create(&database);
    files.every_kind("run-1", 1500);
    files.every_kind("run-2", 3);
    files.segment(Some("run-2"), &["no json", NEW_KIND, GAP].map(str::to_owned));
    files.send(&roles.url("agent")).unwrap();
    let mut client = database.client();
    check_replica(&files.store, &mut client);

    rewind(&mut client);
    let report = files.send(&roles.url("agent")).unwrap();
    assert!(report.conflicts > 0, "rows that are there are passed over");
    check_replica(&files.store, &mut client);
    assert_eq!(count(&mut client, "sync_quarantine"), 1);
    assert_eq!(count(&mut client, "sync_unknown"), 1);
}

#[test]
fn agent_has_all_that_a_check_of_the_configuration_asks_for() {
    let database = TestDatabase::create();
    let roles = Roles::create(&database);
    let missing = tidelog_sync::rights::missing(&mut roles.client("agent")).unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    let missing = tidelog_sync::rights::missing(&mut roles.client("analyst")).unwrap();
    assert!(missing.contains(&"INSERT on sync_lines".to_owned()), "{missing:?}");
}

#[test]
fn agent_deletes_the_rows_of_a_deleted_session() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let roles = Roles::create(&database);
    files.every_kind("run-1", 10);
    files.every_kind("run-2", 10);
    files.send(&roles.url("agent")).unwrap();
    files.segment(None, &[DELETE_RUN_1.into()]);
    files.send(&roles.url("agent")).unwrap();
    let mut client = database.client();
    assert_eq!(count(&mut client, "telemetry_records WHERE session_id = 'run-1'"), 0);
    assert_eq!(count(&mut client, "telemetry_records"), 10);
    assert_eq!(count(&mut client, "emergency_events"), 1);
}

#[test]
fn agent_changes_and_deletes_no_row_of_a_session_that_is_there() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let roles = Roles::create(&database);
    files.every_kind("run-1", 3);
    files.send(&roles.url("agent")).unwrap();
    let mut agent = roles.client("agent");
    for table in ["telemetry_records", "emergency_events", "basin_history", "checkpoint_history"] {
        check_refused(&mut agent, &format!("DELETE FROM {table}"));
        check_refused(&mut agent, &format!("UPDATE {table} SET timestamp = now()"));
        check_refused(&mut agent, &format!("TRUNCATE {table}"));
    }
    check_refused(&mut agent, "CREATE TABLE mine ()");
    check_refused(&mut agent, "DROP TABLE telemetry_records");
    let owner = &mut database.client();
    assert_eq!(owner.execute("DELETE FROM telemetry_records", &[]).unwrap(), 3);
}

#[test]
fn analyst_reads_every_view_and_table_and_writes_nothing() {
    let (files, database) = (Files::new(), TestDatabase::create());
    let roles = Roles::create(&database);
    files.every_kind("run-1", 3);
    files.segment(Some("run-1"), &["no json".into()]);
    files.send(&roles.url("agent")).unwrap();
    let mut analyst = roles.client("analyst");
    for name in tables(&mut analyst, "v") {
        assert!(count(&mut analyst, &name) > 0, "{name}");
    }
    for name in tables(&mut analyst, "r") {
        analyst.query(&format!("SELECT count(*) FROM {name}"), &[]).expect(&name);
        check_refused(&mut analyst, &format!("DELETE FROM {name}"));
        check_refused(&mut analyst, &format!("INSERT INTO {name} DEFAULT VALUES"));
    }
    check_refused(&mut analyst, "SELECT update_checkpoint_rankings()");
    check_refused(&mut analyst, "CREATE TABLE mine ()");
}

#[test]
fn analyst_reads_why_a_line_is_in_quarantine_but_not_the_line() {
    let database = TestDatabase::create();
    let roles = Roles::create(&database);
    let mut analyst = roles.client("analyst");
    analyst
        .batch_execute("SELECT segment_no, line_no, sqlstate, reason FROM sync_quarantine")
        .unwrap();
    check_refused(&mut analyst, "SELECT raw FROM sync_quarantine");
    check_refused(&mut analyst, "SELECT raw FROM sync_unknown");
}

#[test]
fn every_table_has_a_line_in_the_roles() {
    let database = TestDatabase::create();
    let roles = Roles::create(&database);
    let mut agent = roles.client("agent");
    for name in tables(&mut agent, "r").into_iter().chain(tables(&mut agent, "v")) {
        let sql = format!("SELECT FROM {name} LIMIT 1");
        agent.query(&sql, &[]).unwrap_or_else(|error| panic!("{name} in roles.sql: {error}"));
    }
}

#[test]
fn roles_applied_again_take_back_what_is_not_written_there() {
    let database = TestDatabase::create();
    let roles = Roles::create(&database);
    let sql = format!("GRANT UPDATE ON telemetry_records TO {}", roles.name("analyst"));
    database.client().batch_execute(&sql).unwrap();
    roles.apply();
    let mut analyst = roles.client("analyst");
    analyst.batch_execute("SELECT FROM telemetry_records").unwrap();
    check_refused(&mut analyst, "UPDATE telemetry_records SET step = 0");
}

#[test]
fn a_team_sees_the_rows_of_its_stores_whatever_it_sets() {
    let (ours, theirs, database) = (Files::new(), Files::new(), TestDatabase::create());
    let mut roles = Roles::create(&database);
    ours.every_kind("run-1", 3);
    theirs.every_kind("run-2", 5);
    ours.send(&roles.url("agent")).unwrap();
    theirs.send(&roles.url("agent")).unwrap();
    roles.team("vision", &[&ours]);
    let role = roles.name("vision");
    let mut team = roles.client("vision");
    check_refused(&mut team, "SELECT FROM public.telemetry_records");
    team.batch_execute(&format!("SET search_path = {role}")).unwrap();
    assert_eq!(count(&mut team, "telemetry_records"), 3);
    for view in ["latest_telemetry", "session_stats", "emergency_summary", "best_checkpoints"] {
        let rows = team.query(&format!("SELECT session_id FROM {view}"), &[]).unwrap();
        let sessions: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(sessions, ["run-1"], "{view}");
    }
    check_refused(&mut team, "DELETE FROM telemetry_records");

    roles.team("vision", &[&ours, &theirs]);
    assert_eq!(count(&mut team, "telemetry_records"), 8);
}
