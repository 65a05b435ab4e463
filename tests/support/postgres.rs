//! Fresh databases on a real PostgreSQL server.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use tidelog_sync::schema;

const SERVER_VARIABLE: &str = "TIDELOG_TEST_DATABASE_URL";

/// What a template depends on: other migrations, another template.
const MIGRATIONS: [&str; 2] = [
    include_str!("../../migrations/002_telemetry_checkpoints_schema.sql"),
    include_str!("../../migrations/003_replica.sql"),
];

/// Held by whoever makes the template.
const TEMPLATE_LOCK: i64 = 0x74_65_6d_70_6c;

/// A database of its own for one test, dropped with this value.
pub(crate) struct TestDatabase {
    name: String,
}

impl TestDatabase {
    /// A database with the schema of `tidelog-sync migrate`.
    pub(crate) fn create() -> Self {
        let mut server = server_client();
        let template = template(&mut server);
        Self::clone_of(&mut server, &template)
    }

    /// A database with nothing in it, not even pgvector.
    pub(crate) fn empty() -> Self {
        Self::clone_of(&mut server_client(), "template0")
    }

    /// A backup: another database with the same contents. Ends every connection to this one.
    pub(crate) fn copy(&self) -> Self {
        let mut server = server_client();
        let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1";
        server.execute(end, &[&self.name]).unwrap();
        Self::clone_of(&mut server, &self.name)
    }

    /// Returns when somebody waits for a lock.
    pub(crate) fn await_lock_wait(&self) {
        let sql = "SELECT FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let mut client = self.client();
        let deadline = Instant::now() + Duration::from_secs(20);
        while client.query(sql, &[]).unwrap().is_empty() {
            assert!(Instant::now() < deadline, "nobody ever waited for a lock");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn clone_of(server: &mut Client, template: &str) -> Self {
        let name = format!("tidelog_test_{}", uuid::Uuid::new_v4().simple());
        server.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).unwrap();
        Self { name }
    }

    /// Connection URL of the superuser.
    pub(crate) fn url(&self) -> String {
        database_url(&self.name)
    }

    /// A new connection of the superuser.
    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.url(), NoTls).unwrap()
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A server that is gone has no database to drop, and a panic here would hide the test's own.
        Client::connect(&server_url(), NoTls)
            .and_then(|mut server| server.batch_execute(&sql))
            .ok();
    }
}

fn server_url() -> String {
    std::env::var(SERVER_VARIABLE).unwrap_or_else(|_| {
        panic!("{SERVER_VARIABLE} is not set; run: eval \"$(scripts/postgres start)\"")
    })
}

fn database_url(name: &str) -> String {
    let server = server_url();
    let (address, _) = server.rsplit_once('/').unwrap();
    format!("{address}/{name}")
}

fn server_client() -> Client {
    Client::connect(&server_url(), NoTls).unwrap_or_else(|error| {
        panic!("cannot connect to {SERVER_VARIABLE}: {error}; run: scripts/postgres start")
    })
}

/// Name of the migrated template, made by the first test that needs it. It gets its name when it is
/// complete, so a test that died half-way leaves nothing that looks like one.
fn template(server: &mut Client) -> String {
    let mut hasher = DefaultHasher::new();
    MIGRATIONS.hash(&mut hasher);
    let name = format!("tidelog_template_{:016x}", hasher.finish());
    let mut transaction = server.transaction().unwrap();
    transaction.batch_execute(&format!("SELECT pg_advisory_xact_lock({TEMPLATE_LOCK})")).unwrap();
    let made = transaction
        .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name])
        .unwrap()
        .is_some();
    if !made {
        make_template(&name);
    }
    transaction.commit().unwrap();
    name
}

fn make_template(name: &str) {
    let mut server = server_client();
    let partial = format!("{name}_partial");
    server.batch_execute(&format!("DROP DATABASE IF EXISTS {partial} WITH (FORCE)")).unwrap();
    server.batch_execute(&format!("CREATE DATABASE {partial} TEMPLATE template0")).unwrap();
    let mut client = Client::connect(&database_url(&partial), NoTls).unwrap();
    schema::migrate(&mut client).unwrap();
    client.close().unwrap();
    server.batch_execute(&format!("ALTER DATABASE {partial} RENAME TO {name}")).unwrap();
}
