//! A connection whose every call has an end.
//!
//! The driver waits for ever for a server that is stopped but whose kernel still answers: no TCP
//! timer fires. So the connection lives on a thread of its own, and the caller waits for an answer
//! at most as long as it says. After that the thread is given up: it and its connection end when
//! the server comes back or the peer is found dead. What it was doing may then still take effect,
//! as after a lost reply to COMMIT; the cursor in the same transaction makes that harmless.
//!
//! Nothing is set for a session, which may change under a pooler; [`transaction`] sets its limits
//! for itself only.

use std::error::Error as _;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use postgres::{Client, IsolationLevel, NoTls, Transaction};

use crate::connect::{Endpoint, Target, TargetError};
use crate::pulse;
use crate::sqlstate::{self, Class};

/// The most connections of this process, given-up ones included.
const WORKERS_MAX: usize = 32;

static WORKERS: AtomicUsize = AtomicUsize::new(0);

/// Why a call to the database failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// A certificate or key file cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The server was not reached, or refused the login.
    #[error("cannot connect to {to}: {reason}")]
    Connect {
        /// `host:port`.
        to: String,
        /// What happened, and what to change if that is known.
        reason: String,
        /// What the agent does about it.
        class: Class,
    },
    /// No answer in time. The connection is given up; connect again.
    #[error("the database gave no answer within {seconds} s while {what}")]
    Deadline {
        /// What was being done, in the form "connecting".
        what: String,
        /// The limit.
        seconds: f64,
    },
    /// The connection was given up before. Connect again.
    #[error("no connection is left for {what}: connect again")]
    Closed {
        /// What was to be done.
        what: String,
    },
    /// Given-up connections still hang on a stopped server; no more are opened until some end.
    #[error("{WORKERS_MAX} connections hang without an answer: continue or stop the server")]
    TooManyHanging,
    /// The system refused a thread.
    #[error("cannot start a thread for the connection: {0}")]
    Thread(io::Error),
    /// Rows of a batch are there before its cursor, so that COPY would write them in vain.
    #[error("rows of these lines are there before their cursor")]
    RowsThere,
    /// The server refused a statement, or the connection broke.
    #[error("{}", sqlstate::explain(.0))]
    Server(postgres::Error),
}

impl From<postgres::Error> for DatabaseError {
    fn from(error: postgres::Error) -> Self {
        Self::Server(error)
    }
}

impl DatabaseError {
    /// What the agent does next.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Target(_) => Class::Blocked,
            Self::Connect { class, .. } => *class,
            Self::Server(error) => sqlstate::classify(error),
            Self::RowsThere => Class::Duplicate,
            Self::TooManyHanging | Self::Thread(_) => Class::RetrySlowly,
            Self::Deadline { .. } | Self::Closed { .. } => Class::RetryNewConnection,
        }
    }

    /// The server's code, if the server answered.
    pub(crate) fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Server(error) => error.code().map(|code| code.code().to_owned()),
            _ => None,
        }
    }
}

type Job = Box<dyn FnOnce(&mut Client) + Send>;

/// A connection on its own thread. Dropping it closes the connection without waiting.
pub struct Database {
    /// Nothing after a deadline passed.
    jobs: Option<SyncSender<Job>>,
}

impl Database {
    /// Connects to the first host that lets us in. Each host gets the target's `connect_timeout`
    /// (10 s unless given) for DNS, TCP, TLS and authentication together.
    ///
    /// # Errors
    /// What the last host answered.
    pub fn connect(target: &Target) -> Result<Self, DatabaseError> {
        let mut outcome = Err(TargetError::Missing.into());
        for endpoint in &target.endpoints {
            outcome = Self::connect_to(endpoint, target.connect_timeout);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn connect_to(endpoint: &Endpoint, timeout: Duration) -> Result<Self, DatabaseError> {
        let (jobs, inbox) = mpsc::sync_channel::<Job>(1);
        let (report, opened) = mpsc::sync_channel(1);
        let worker = Worker::count_in()?;
        let what = format!("connecting to {}", endpoint.name);
        let endpoint = endpoint.clone();
        let work = move || {
            let _worker = worker;
            match open(&endpoint) {
                Ok(mut client) => {
                    if report.send(Ok(())).is_ok() {
                        inbox.into_iter().for_each(|job| job(&mut client));
                    }
                }
                // Nobody listens any more once the deadline has passed.
                Err(error) => report.send(Err(error)).unwrap_or_default(),
            }
        };
        thread::Builder::new()
            .name("tidelog-database".to_owned())
            .spawn(work)
            .map_err(DatabaseError::Thread)?;
        pulse::beat(timeout);
        match opened.recv_timeout(timeout) {
            Ok(outcome) => outcome.map(|()| Self { jobs: Some(jobs) }),
            Err(error) => Err(unanswered(error, what, timeout)),
        }
    }

    /// Runs `work` on the connection and waits for it at most `deadline`. `what` completes the
    /// sentence "no answer while …".
    ///
    /// # Errors
    /// Whatever `work` returns; [`DatabaseError::Deadline`] when it did not return in time, after
    /// which every call gives [`DatabaseError::Closed`].
    pub fn run<T, E, F>(&mut self, deadline: Duration, what: &str, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DatabaseError> + Send + 'static,
        F: FnOnce(&mut Client) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = mpsc::sync_channel(1);
        // Nobody listens any more once the deadline has passed.
        let job: Job = Box::new(move |client| reply.send(work(client)).unwrap_or_default());
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(DatabaseError::Closed { what: what.to_owned() }.into());
        }
        pulse::beat(deadline);
        answer.recv_timeout(deadline).unwrap_or_else(|error| {
            self.jobs = None;
            Err(unanswered(error, what.to_owned(), deadline).into())
        })
    }
}

fn unanswered(error: RecvTimeoutError, what: String, limit: Duration) -> DatabaseError {
    match error {
        RecvTimeoutError::Timeout => DatabaseError::Deadline { what, seconds: limit.as_secs_f64() },
        RecvTimeoutError::Disconnected => DatabaseError::Closed { what },
    }
}

/// A place among the [`WORKERS_MAX`], given back on drop.
struct Worker;

impl Worker {
    fn count_in() -> Result<Self, DatabaseError> {
        let counted = WORKERS.fetch_add(1, Ordering::Relaxed);
        let worker = Self;
        if counted < WORKERS_MAX { Ok(worker) } else { Err(DatabaseError::TooManyHanging) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        WORKERS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn open(endpoint: &Endpoint) -> Result<Client, DatabaseError> {
    let client = match endpoint.tls.connector()? {
        None => endpoint.config.connect(NoTls),
        Some(connector) => endpoint.config.connect(connector),
    };
    client.map_err(|error| DatabaseError::Connect {
        to: endpoint.name.clone(),
        reason: format!("{}{}", sqlstate::explain(&error), remedy(&error)),
        class: sqlstate::classify(&error),
    })
}

/// What to change, where the cause is a certificate or the lack of TLS.
fn remedy(error: &postgres::Error) -> &'static str {
    let cause = error.source();
    let tls = cause.and_then(|cause| cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref());
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => {
            "; give the server's CA with sslrootcert=FILE and the name in its certificate as host"
        }
        None if cause.is_some_and(|cause| cause.to_string() == "server does not support TLS") => {
            "; to send the password and all data in plaintext, spell out sslmode=disable"
        }
        _ => "",
    }
}

/// How long the server lets parts of a transaction take. They hold for this transaction only.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// One statement.
    pub statement: Duration,
    /// One wait for a lock.
    pub lock: Duration,
    /// One pause between statements, after which the server ends the connection.
    pub idle: Duration,
}

/// Runs `work` in a transaction with limits, and commits when it returns Ok.
///
/// The transaction is READ COMMITTED whatever the database's default is: a statement that waited
/// for a lock must see what the other one committed.
///
/// Ok means committed. The driver alone does not promise that: its `commit` returns Ok after a
/// failed statement, although the server then rolls back. So the transaction is asked whether it
/// still stands before COMMIT, in case `work` passed over an error.
///
/// # Errors
/// The error of `work`, after which everything is rolled back; or that of BEGIN, the limits or
/// COMMIT. After a broken connection in COMMIT it is unknown whether the transaction took effect.
pub fn transaction<T, E>(
    client: &mut Client,
    limits: &Limits,
    work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
) -> Result<T, E>
where
    E: From<DatabaseError>,
{
    let mut transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .map_err(DatabaseError::Server)?;
    transaction.batch_execute(&limits.sql()).map_err(DatabaseError::Server)?;
    let value = work(&mut transaction)?;
    transaction.query_typed("SELECT 1", &[]).map_err(DatabaseError::Server)?;
    transaction.commit().map_err(DatabaseError::Server)?;
    Ok(value)
}

impl Limits {
    fn sql(&self) -> String {
        format!(
            "SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}; \
             SET LOCAL idle_in_transaction_session_timeout = {}",
            self.statement.as_millis(),
            self.lock.as_millis(),
            self.idle.as_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;

    const SOON: Duration = Duration::from_millis(200);
    const LIMITS: Limits = Limits {
        statement: Duration::from_secs(5),
        lock: Duration::from_secs(5),
        idle: Duration::from_secs(5),
    };

    /// AuthenticationOk and ReadyForQuery.
    const LOGGED_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

    /// A server that gives `answer` to the first bytes of each connection, and never another.
    fn silent_server(answer: &'static [u8], sslmode: &str) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let mut open: Vec<TcpStream> = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
                stream.write_all(answer).unwrap();
                open.push(stream);
            }
        });
        target(&format!("host=127.0.0.1 port={port} sslmode={sslmode} connect_timeout=1"))
    }

    fn target(text: &str) -> Target {
        Target::parse(Some(text), &|_| None).unwrap()
    }

    /// The real server of the tests.
    fn database() -> Database {
        let url = std::env::var("TIDELOG_TEST_DATABASE_URL")
            .expect("TIDELOG_TEST_DATABASE_URL is not set: run the tests with scripts/test");
        Database::connect(&target(&url)).unwrap()
    }

    #[test]
    fn server_that_never_answers_a_login_ends_in_deadline() {
        let target = silent_server(b"", "disable");
        let start = Instant::now();
        let error = Database::connect(&target).err().unwrap();
        assert!(matches!(error, DatabaseError::Deadline { .. }), "{error}");
        assert_eq!(error.class(), Class::RetryNewConnection);
        assert!(start.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn server_that_stops_after_login_ends_in_deadline() {
        let target = silent_server(LOGGED_IN, "disable");
        let mut database = Database::connect(&target).unwrap();
        let start = Instant::now();
        let mut ask = || {
            database
                .run(SOON, "asking", |client| Ok(client.simple_query("SELECT 1").map(|_| ())?))
        };
        let (first, second): (Result<_, DatabaseError>, _) = (ask(), ask());
        assert_eq!(
            first.unwrap_err().to_string(),
            "the database gave no answer within 0.2 s while asking"
        );
        assert!(matches!(second, Err(DatabaseError::Closed { .. })));
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn next_host_is_tried_after_a_silent_one() {
        let mut target = silent_server(b"", "disable");
        target.endpoints.extend(silent_server(LOGGED_IN, "disable").endpoints);
        assert!(Database::connect(&target).is_ok());
    }

    #[test]
    fn server_without_tls_is_refused_with_a_remedy() {
        let error = Database::connect(&silent_server(b"N", "require")).err().unwrap().to_string();
        assert!(error.contains("sslmode=disable"), "{error}");
    }

    #[test]
    fn committed_work_is_visible_and_failed_work_is_not() {
        let mut database = database();
        let counts: Result<_, DatabaseError> = database.run(SOON * 25, "testing", |client| {
            client.batch_execute("CREATE TEMP TABLE t (n int)")?;
            transaction(client, &LIMITS, |t| {
                Ok::<_, DatabaseError>(t.batch_execute("INSERT INTO t VALUES (1)")?)
            })?;
            let failed: Result<(), DatabaseError> = transaction(client, &LIMITS, |t| {
                t.batch_execute("INSERT INTO t VALUES (2)")?;
                Ok(t.batch_execute("SELECT 1/0")?)
            });
            assert_eq!(failed.unwrap_err().class(), Class::Poison);
            Ok(client.query_one("SELECT count(*) FROM t", &[])?.get::<_, i64>(0))
        });
        assert_eq!(counts.unwrap(), 1);
    }

    #[test]
    fn commit_after_a_passed_over_error_is_an_error() {
        let outcome = database().run(SOON * 25, "testing", |client| {
            transaction(client, &LIMITS, |t| {
                t.batch_execute("SELECT 1/0").unwrap_err();
                Ok::<(), DatabaseError>(())
            })
        });
        assert!(outcome.unwrap_err().to_string().contains("25P02"));
    }

    #[test]
    fn limits_hold_for_the_transaction_only() {
        let limits = Limits { statement: Duration::from_millis(50), ..LIMITS };
        let outcome: Result<_, DatabaseError> =
            database().run(SOON * 25, "testing", move |client| {
                let slow = transaction(client, &limits, |t| {
                    Ok::<_, DatabaseError>(t.batch_execute("SELECT pg_sleep(5)")?)
                });
                assert_eq!(slow.unwrap_err().class(), Class::Retry);
                transaction(client, &limits, |_| Ok::<_, DatabaseError>(()))?;
                Ok(client.query_one("SHOW statement_timeout", &[])?.get::<_, String>(0))
            });
        assert_eq!(outcome.unwrap(), "0");
    }
}
