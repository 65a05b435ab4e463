//! A TCP proxy that does to a connection what networks do.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::Result;

/// How the driver asks for the end of a transaction: a simple query.
const COMMIT: &[u8] = b"COMMIT\0";
const BUFFER_BYTES: usize = 8192;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the agent.
    ToServer,
    /// To the agent.
    ToAgent,
}

/// What happens to one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// It is closed as soon as it is open.
    Drop,
    /// After so many bytes that way, both ends are closed.
    Cut(Way, usize),
    /// After so many bytes that way, the receiver is told that there are no more.
    HalfClose(Way, usize),
    /// After so many bytes that way, nothing passes for this long; then both ends are closed.
    Stall(Way, usize, Duration),
    /// Each piece waits so long before it goes on, in both ways.
    Delay(Duration),
    /// After so many COMMITs were sent, only so many bytes of the reply pass, and both ends are
    /// closed.
    Commit(usize, usize),
}

/// Connections to which their fault has happened, by its kind.
#[derive(Debug, Default)]
struct Happened(Mutex<BTreeMap<&'static str, usize>>);

impl Happened {
    fn add(&self, fault: Fault) {
        if let Ok(mut counts) = self.0.lock() {
            *counts.entry(fault.name()).or_default() += 1;
        }
    }

    fn counts(&self) -> BTreeMap<&'static str, usize> {
        self.0.lock().map(|counts| counts.clone()).unwrap_or_default()
    }
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::None | Self::Delay(_) => "left alone",
            Self::Drop => "dropped at once",
            Self::Cut(..) => "cut",
            Self::HalfClose(..) => "closed one way",
            Self::Stall(..) => "stalled",
            Self::Commit(..) => "cut after COMMIT",
        }
    }
}

/// A proxy in front of a server; it listens until the process ends.
pub(super) struct Proxy {
    pub(super) port: u16,
    happened: Arc<Happened>,
    is_open: Arc<AtomicBool>,
}

impl Proxy {
    /// Each connection gets the next of these faults.
    ///
    /// # Errors
    /// There is no port.
    pub(super) fn start(
        server: u16,
        faults: impl FnMut() -> Fault + Send + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let happened = Arc::new(Happened::default());
        let is_open = Arc::new(AtomicBool::new(true));
        let counter = Arc::clone(&happened);
        let open = Arc::clone(&is_open);
        let faults = Mutex::new(faults);
        thread::Builder::new().spawn(move || {
            for agent in listener.incoming().flatten() {
                if !open.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(mut faults) = faults.lock() else { return };
                let fault = faults();
                drop(faults);
                if fault == Fault::Drop {
                    counter.add(fault);
                } else if let Ok(server) = TcpStream::connect(("127.0.0.1", server)) {
                    Line { fault, happened: Arc::clone(&counter), ..Line::default() }
                        .connect(agent, server)
                        .ok(); // a thread that the system refuses closes the connection
                }
            }
        })?;
        Ok(Self { port, happened, is_open })
    }

    /// To how many connections their fault has happened, by its kind.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, usize> {
        self.happened.counts()
    }

    /// To how many in all.
    pub(super) fn happened(&self) -> usize {
        self.counts().values().sum()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.is_open.store(false, Ordering::Relaxed);
        TcpStream::connect(("127.0.0.1", self.port)).ok(); // wakes the listener
    }
}

/// Both ways of one connection.
#[derive(Clone)]
struct Line {
    fault: Fault,
    commits: Arc<AtomicUsize>,
    happened: Arc<Happened>,
}

impl Default for Line {
    fn default() -> Self {
        Self { fault: Fault::None, commits: Arc::default(), happened: Arc::default() }
    }
}

/// What is done with a piece that has come.
enum Next {
    Pass,
    /// Pass so many bytes, then close both ends.
    Cut(usize),
    /// The same, after a rest.
    Stall(usize, Duration),
    /// Pass so many bytes, and say that no more will come.
    HalfClose(usize),
}

impl Line {
    fn connect(self, agent: TcpStream, server: TcpStream) -> Result<()> {
        agent.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let other = (self.clone(), agent.try_clone()?, server.try_clone()?);
        thread::Builder::new().spawn(move || other.0.pump(Way::ToServer, other.1, other.2))?;
        thread::Builder::new().spawn(move || self.pump(Way::ToAgent, server, agent))?;
        Ok(())
    }

    fn pump(&self, way: Way, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; BUFFER_BYTES];
        let mut passed = 0;
        loop {
            let piece = match from.read(&mut buffer) {
                Ok(0) => {
                    to.shutdown(Shutdown::Write).ok(); // an answer may still be on its way
                    return;
                }
                Ok(bytes) => buffer.get(..bytes).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let next = self.next(way, passed, piece);
            passed += piece.len();
            let pass = match next {
                Next::Pass => piece.len(),
                Next::Cut(bytes) | Next::Stall(bytes, _) | Next::HalfClose(bytes) => bytes,
            };
            let is_passed = to.write_all(piece.get(..pass).unwrap_or(piece)).is_ok();
            match next {
                Next::Pass if is_passed => continue,
                Next::Pass => break,
                Next::HalfClose(_) => return self.happen(|| to.shutdown(Shutdown::Write)),
                Next::Stall(_, rest) => thread::sleep(rest),
                Next::Cut(_) => {}
            }
            self.happen(|| to.shutdown(Shutdown::Both));
            break;
        }
        // Each may be closed already.
        to.shutdown(Shutdown::Both).ok();
        from.shutdown(Shutdown::Both).ok();
    }

    fn happen(&self, what: impl FnOnce() -> std::io::Result<()>) {
        what().ok(); // closed already is as good
        self.happened.add(self.fault);
    }

    fn next(&self, way: Way, passed: usize, piece: &[u8]) -> Next {
        let left = |at: usize| at.checked_sub(passed).filter(|left| *left < piece.len());
        match self.fault {
            Fault::Delay(rest) => {
                thread::sleep(rest);
                Next::Pass
            }
            Fault::Cut(here, at) if here == way => left(at).map_or(Next::Pass, Next::Cut),
            Fault::HalfClose(here, at) if here == way => {
                left(at).map_or(Next::Pass, Next::HalfClose)
            }
            Fault::Stall(here, at, rest) if here == way => {
                left(at).map_or(Next::Pass, |left| Next::Stall(left, rest))
            }
            Fault::Commit(..) if way == Way::ToServer => {
                let commits = piece.windows(COMMIT.len()).filter(|it| *it == COMMIT).count();
                self.commits.fetch_add(commits, Ordering::SeqCst);
                Next::Pass
            }
            Fault::Commit(number, bytes) if self.commits.load(Ordering::SeqCst) >= number => {
                Next::Cut(bytes.min(piece.len()))
            }
            _ => Next::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes back of what is sent, through a proxy before a server that sends back all.
    fn echoed(fault: Fault, sent: &[u8]) -> (Vec<u8>, usize) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut buffer = [0; 64];
            while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                stream.write_all(&buffer[..bytes]).unwrap();
            }
        });
        let proxy = Proxy::start(port, move || fault).unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        stream.write_all(sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).ok(); // a cut is an end, too
        (back, proxy.happened())
    }

    #[test]
    fn a_connection_without_a_fault_is_left_alone() {
        let slow = Fault::Delay(Duration::from_millis(1));
        for fault in [Fault::None, slow] {
            assert_eq!(echoed(fault, b"hello"), (b"hello".to_vec(), 0));
        }
    }

    #[test]
    fn a_connection_is_cut_where_it_was_asked_for() {
        let rest = Duration::from_millis(1);
        for fault in [
            Fault::Cut(Way::ToAgent, 3),
            Fault::HalfClose(Way::ToServer, 3),
            Fault::Stall(Way::ToAgent, 3, rest),
        ] {
            assert_eq!(echoed(fault, b"hello").0, b"hel", "{fault:?}");
        }
        assert_eq!(echoed(Fault::Commit(1, 2), b"Q\0\0\0\x0bCOMMIT\0"), (b"Q\0".to_vec(), 1));
        assert_eq!(echoed(Fault::Drop, b"hello").0, b"");
    }
}
