//! PgBouncer in transaction mode, with TLS, between four agents and the server: two connections for
//! all of them, on which other clients left prepared statements behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tempfile::TempDir;
use tidelog_sync::Target;
use tidelog_sync::database::{Database, DatabaseError};

use super::crash::{DATABASE, await_progress, finish};
use super::follower::Follower;
use super::oracle;
use super::refused::call;
use super::server::{Server, as_nobody, free_port, own, shared_folder};
use super::writers::Writers;
use crate::{Options, Report, Result};

const AGENTS: usize = 4;
const POOL_SIZE: usize = 2;
/// The driver of some clients names its statements `s0`, `s1` and so on.
const LEFTOVERS: usize = 40;
const START_PATIENCE: Duration = Duration::from_secs(20);
const PAUSE_MAX: Duration = Duration::from_millis(150);
/// Longer than planting takes.
const CALL: Duration = Duration::from_secs(30);

/// Lets four agents work through a pool of two, and kills as many of them as asked for.
///
/// # Errors
/// A server or a program could not be started.
pub fn run(options: &Options) -> Result<Report> {
    let pooler = match Pooler::start(ClientCertificates::NotAsked) {
        Ok(pooler) => pooler,
        Err(reason) => return Ok(Report::skipped(format!("PgBouncer: {reason}"))),
    };
    let mut report = Report::default();
    let mut rng = Rng::with_seed(options.seed);
    let url = pooler.url("localhost", "verify-full", "&pgbouncer=true");
    report.count("statements left behind", leave_statements(&url)?);
    let folder = shared_folder()?;
    let start = |number: usize| {
        let store = folder.path().join(number.to_string());
        Writers::start(options, &store, options.seed, (1, 3000))
    };
    let mut writers: Vec<Writers> = (0..AGENTS).map(start).collect::<Result<_>>()?;
    let follow = |writers: &Writers| Follower::start(options, writers.store(), &url);
    let mut followers: Vec<Follower> = writers.iter().map(follow).collect::<Result<_>>()?;
    let stores: Vec<PathBuf> = writers.iter().map(|it| it.store().to_owned()).collect();
    let mut found = Vec::new();
    for _ in 0..options.runs {
        let number = rng.usize(..AGENTS);
        let (Some(writers), Some(slot)) = (writers.get_mut(number), followers.get_mut(number))
        else {
            continue;
        };
        writers.plant(&mut rng)?;
        await_progress(&mut pooler.server.client(DATABASE)?)?;
        thread::sleep(PAUSE_MAX.mul_f64(rng.f64()));
        let was_alive = std::mem::replace(slot, follow(writers)?).kill()?;
        report.executed += usize::from(was_alive);
        found.extend(oracle::prefix(&stores, &mut pooler.server.client(DATABASE)?)?);
    }
    report.count("agents killed behind PgBouncer", report.executed);
    for follower in followers {
        found.extend(complaints(&follower.told()?));
    }
    found.extend(finish(options, writers, &pooler.server, &mut report)?);
    let name = |text| format!("pooler, seed {}: {text}", options.seed);
    report.violations.extend(found.into_iter().map(name));
    Ok(report)
}

/// What an agent says of statements that others left, or that went to another server.
fn complaints(told: &str) -> Vec<String> {
    let is_complaint = |line: &&str| line.contains("26000") || line.contains("42P05");
    told.lines().filter(is_complaint).map(str::to_owned).collect()
}

/// Leaves prepared statements on both connections of the pool; tells how many.
fn leave_statements(url: &str) -> Result<usize> {
    let target = Target::parse(Some(url), &|_| None)?;
    let mut clients = Vec::new();
    for _ in 0..POOL_SIZE {
        // A transaction that is open keeps its connection to the server to itself.
        let mut client = Database::connect(&target)?;
        run_on(&mut client, "BEGIN".to_owned())?;
        clients.push(client);
    }
    for client in &mut clients {
        let prepare = |n: usize| format!("PREPARE s{n} AS SELECT {n};");
        run_on(client, (0..LEFTOVERS).map(prepare).collect::<String>() + "COMMIT")?;
    }
    Ok(POOL_SIZE * LEFTOVERS)
}

fn run_on(client: &mut Database, sql: String) -> Result<()> {
    let work = move |client: &mut postgres::Client| {
        client.batch_execute(&sql).map_err(DatabaseError::from)
    };
    Ok(client.run(CALL, "preparing", work)?)
}

/// What PgBouncer asks of who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Nothing.
    NotAsked,
    /// A certificate of its own authority.
    Required,
}

/// A PostgreSQL server behind a PgBouncer that speaks TLS only, with an authority of its own. Gone
/// with this value.
#[derive(Debug)]
pub struct Pooler {
    server: Server,
    process: Child,
    port: u16,
    folder: TempDir,
}

impl Pooler {
    /// A server with an empty replica, and PgBouncer before it. Its certificate is for `localhost`.
    ///
    /// # Errors
    /// There is no PgBouncer, OpenSSL or PostgreSQL, or one of them does not start.
    pub fn start(asked: ClientCertificates) -> Result<Self> {
        call(Command::new("pgbouncer").arg("--version"))?;
        let server = Server::start(&[])?;
        server.create_replica(DATABASE)?;
        let folder = shared_folder()?;
        for name in ["ca", "other"] {
            make_authority(folder.path(), name)?;
        }
        make_certificate(folder.path(), "server", "DNS:localhost")?;
        make_certificate(folder.path(), "client", "DNS:agent")?;
        let port = free_port()?;
        let settings = folder.path().join("pgbouncer.ini");
        fs::write(&settings, configuration(folder.path(), port, server.port(), asked))?;
        for name in ["server.key", "pgbouncer.ini"] {
            own(&folder.path().join(name))?;
        }
        let process = as_nobody("pgbouncer")
            .arg("--quiet")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log"))?)
            .spawn()?;
        let mut pooler = Self { server, process, port, folder };
        pooler.await_port()?;
        Ok(pooler)
    }

    fn await_port(&mut self) -> Result<()> {
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if start.elapsed() > START_PATIENCE || self.process.try_wait()?.is_some() {
                let log = fs::read_to_string(self.folder.path().join("log"))?;
                return Err(format!("pgbouncer does not start: {log}").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A connection string for the replica by this name of the machine, with the authority's
    /// certificate and whatever else follows.
    pub fn url(&self, host: &str, sslmode: &str, more: &str) -> String {
        let root = self.file("ca.pem");
        format!(
            "postgresql://postgres@{host}:{}/{DATABASE}?hostaddr=127.0.0.1&sslmode={sslmode}\
             &sslrootcert={}{more}",
            self.port,
            root.display()
        )
    }

    /// A file of its certificates: `ca.pem`, `other.pem` (which signed nothing), `client.pem` and
    /// `client.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.process.kill().ok(); // it may be gone already
        self.process.wait().ok();
    }
}

fn configuration(folder: &Path, port: u16, server: u16, asked: ClientCertificates) -> String {
    let at = folder.display();
    let certificates = match asked {
        ClientCertificates::NotAsked => "require",
        ClientCertificates::Required => "verify-ca",
    };
    format!(
        "[databases]\n\
         {DATABASE} = host=127.0.0.1 port={server} user=postgres\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\n\
         max_client_conn = 100\n\
         client_tls_sslmode = {certificates}\nclient_tls_ca_file = {at}/ca.pem\n\
         client_tls_cert_file = {at}/server.pem\nclient_tls_key_file = {at}/server.key\n"
    )
}

/// A key and a certificate that it signed itself.
fn make_authority(folder: &Path, name: &str) -> Result<()> {
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    call(openssl(folder, words).args(["-subj", &format!("/CN=tidelog test {name}")]).args([
        "-keyout",
        &format!("{name}.key"),
        "-out",
        &format!("{name}.pem"),
    ]))
}

/// A key and a certificate that the authority signed.
fn make_certificate(folder: &Path, name: &str, for_name: &str) -> Result<()> {
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
                 -CA ca.pem -CAkey ca.key -addext basicConstraints=critical,CA:FALSE";
    call(openssl(folder, words).args(["-subj", &format!("/CN={name}")]).args([
        "-addext",
        &format!("subjectAltName={for_name}"),
        "-keyout",
        &format!("{name}.key"),
        "-out",
        &format!("{name}.pem"),
    ]))
}

fn openssl(folder: &Path, words: &str) -> Command {
    let mut command = Command::new("openssl");
    command.args(words.split_whitespace()).current_dir(folder);
    command
}
