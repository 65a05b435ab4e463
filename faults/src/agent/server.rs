//! A PostgreSQL server that may be killed, stopped, filled up and set back to an older state.
//!
//! It runs in a folder of its own, without root's rights, and is gone with this value. Its programs
//! (`initdb`, `postgres`) are found on the path, as `scripts/postgres start` sets it.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::signal;
use crate::Result;

/// A server refuses to run as root; this user has no rights anywhere.
const NOBODY: u32 = 65534;
/// How long a server may take to start, repair its data and let somebody in.
const START_PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// The way to let a server go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// `kill -9` of its first process: the others notice and end.
    Kill,
    /// As `pg_ctl stop -m immediate`: all end at once, and nothing is written.
    Immediate,
    /// As `pg_ctl stop -m fast`: everything is written.
    Fast,
}

/// A PostgreSQL server with pgvector.
#[derive(Debug)]
pub(crate) struct Server {
    folder: TempDir,
    data: PathBuf,
    port: u16,
    settings: Vec<String>,
    postmaster: Option<Child>,
}

impl Server {
    /// A running server with these settings (`name=value`) beside its own.
    ///
    /// # Errors
    /// There is no PostgreSQL on the path, or it does not start.
    pub(crate) fn start(settings: &[&str]) -> Result<Self> {
        let folder = shared_folder()?;
        let data = folder.path().join("data");
        fs::create_dir(&data)?;
        own(&data)?;
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { folder, data, port: free_port()?, settings, postmaster: None };
        server.initialize()?;
        server.restart()?;
        Ok(server)
    }

    fn initialize(&self) -> Result<()> {
        let output = as_nobody("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .args(["--locale=C", "--pgdata"])
            .arg(&self.data)
            .output()
            .map_err(|error| {
                format!("no initdb: {error}; run: eval \"$(scripts/postgres start)\"")
            })?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("initdb: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    }

    /// Starts it, with the same port and settings, and waits until it lets somebody in. After a
    /// kill it may have to wait for processes of the one before.
    ///
    /// # Errors
    /// It does not start in time.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if start.elapsed() > START_PATIENCE {
                return Err(format!("the server does not start: {}", self.log()?).into());
            }
            if !self.is_alive()? {
                self.postmaster = Some(self.spawn()?);
            }
            if Client::connect(&self.url("postgres"), NoTls).is_ok() {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
    }

    fn spawn(&self) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let own = [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".into(),
            "unix_socket_directories=".into(),
            "fsync=off".into(), // it is killed; the machine stays up
            "max_connections=200".into(),
            "log_statement=none".into(),
        ];
        let mut command = as_nobody("postgres");
        command.arg("-D").arg(&self.data);
        for setting in own.iter().chain(&self.settings) {
            command.args(["-c", setting]);
        }
        Ok(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?)
    }

    fn is_alive(&mut self) -> Result<bool> {
        match &mut self.postmaster {
            Some(postmaster) => Ok(postmaster.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    /// Lets it go, and waits until its first process is gone.
    ///
    /// # Errors
    /// There is no such process.
    pub(crate) fn stop(&mut self, death: Death) -> Result<()> {
        let Some(mut postmaster) = self.postmaster.take() else { return Ok(()) };
        match death {
            Death::Kill => postmaster.kill()?,
            Death::Immediate => signal(postmaster.id(), Signal::QUIT)?,
            Death::Fast => signal(postmaster.id(), Signal::INT)?,
        }
        postmaster.wait()?;
        Ok(())
    }

    /// The connection string of a database on it.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_through("127.0.0.1", self.port, database)
    }

    /// As [`url`](Self::url), for whoever reaches it by another address.
    pub(crate) fn url_through(&self, host: &str, port: u16, database: &str) -> String {
        format!("postgresql://postgres@{host}:{port}/{database}?sslmode=disable")
    }

    /// The first process, if it runs.
    pub(crate) fn process(&self) -> Option<u32> {
        self.postmaster.as_ref().map(Child::id)
    }

    /// The folder beside its data.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Lets the superuser in from another address, without a password.
    ///
    /// # Errors
    /// The file cannot be written, or the server does not answer.
    pub(crate) fn let_in(&self, address: &str) -> Result<()> {
        let mut file = File::options().append(true).open(self.data.join("pg_hba.conf"))?;
        writeln!(file, "host all postgres {address}/32 trust")?;
        Ok(self.client("postgres")?.batch_execute("SELECT pg_reload_conf()")?)
    }

    /// Makes the stopped server a standby of nobody: it only answers, until it is promoted.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn make_standby(&self) -> Result<()> {
        let file = self.data.join("standby.signal");
        File::create(&file)?;
        own(&file)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A connection of the superuser.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) fn client(&self, database: &str) -> Result<Client> {
        Ok(Client::connect(&self.url(database), NoTls)?)
    }

    /// A new database with the replica's schema.
    ///
    /// # Errors
    /// The server refuses.
    pub(crate) fn create_replica(&self, database: &str) -> Result<()> {
        self.create_replica_with(database, "")
    }

    /// As [`create_replica`](Self::create_replica), with more words for `CREATE DATABASE`.
    ///
    /// # Errors
    /// The server refuses.
    pub(crate) fn create_replica_with(&self, database: &str, more: &str) -> Result<()> {
        self.client("postgres")?.batch_execute(&format!("CREATE DATABASE {database} {more}"))?;
        tidelog_sync::schema::migrate(&mut self.client(database)?)?;
        Ok(())
    }

    /// Copies the data of the stopped server.
    ///
    /// # Errors
    /// The folder cannot be copied.
    pub(crate) fn back_up(&self, name: &str) -> Result<()> {
        copy(&self.data, &self.folder.path().join(name))
    }

    /// Puts a copy in the place of the stopped server's data.
    ///
    /// # Errors
    /// The folder cannot be copied.
    pub(crate) fn put_back(&self, name: &str) -> Result<()> {
        fs::remove_dir_all(&self.data)?;
        copy(&self.folder.path().join(name), &self.data)
    }

    /// Everything that the server has logged.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.log_path())?).into_owned())
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Death::Immediate).ok(); // it may be gone already
    }
}

/// A folder in memory, where there is one, that the server's user may enter.
pub(crate) fn shared_folder() -> Result<TempDir> {
    let folder = crate::kills::folder()?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder.path(), open)?;
    Ok(folder)
}

/// Gives a folder, or a file, to the server's user.
pub(crate) fn own(folder: &Path) -> Result<()> {
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(folder, closed)?;
    if is_root() {
        std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(())
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program run by a user without rights, under the process id of the command.
pub(crate) fn as_nobody(program: &str) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", program]);
    command.current_dir("/");
    command
}

pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Copies a folder as it is.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    if status.success() { Ok(()) } else { Err(format!("cp of {} failed", from.display()).into()) }
}

/// The process of this number.
pub(crate) fn pid(number: u32) -> Result<Pid> {
    let number = i32::try_from(number)?;
    Pid::from_raw(number).ok_or_else(|| "0 is no process".into())
}
