//! What systemd wants to know: ready, how it goes, alive, stopping.
//!
//! Ready is when the stores are being followed, whether or not the database is there: the agent is of
//! use offline, too. The watchdog hears of life only while every store's loop moves.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use crate::service::board::Board;
use crate::service::probes;

/// Between two lines about how it goes.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// The socket of `NOTIFY_SOCKET`, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Systemd {
    socket: Option<UnixDatagram>,
    watchdog_interval: Option<Duration>,
    live_timeout: Duration,
    is_ready: bool,
    alive_at: Option<Instant>,
    status_at: Option<Instant>,
    status: String,
}

impl Systemd {
    /// Nothing is told unless systemd, or what does as it does, started this process.
    pub(crate) fn from_environment(live_timeout: Duration) -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let socket = variable("NOTIFY_SOCKET").and_then(|name| connect(&name));
        let is_ours =
            variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let micros =
            variable("WATCHDOG_USEC").filter(|_| is_ours).and_then(|text| text.parse().ok());
        // Twice in its time, as sd_watchdog_enabled(3) says.
        let watchdog_interval = micros.map(|micros: u64| Duration::from_micros(micros / 2));
        Self { socket, watchdog_interval, live_timeout, ..Self::default() }
    }

    /// The stores are being followed. Told once.
    pub(crate) fn ready(&mut self) {
        if !std::mem::replace(&mut self.is_ready, true) {
            self.send("READY=1");
        }
    }

    /// It was asked to stop.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Tells how it goes, when it is time to.
    pub(crate) fn tick(&mut self, board: &Board) {
        if self.socket.is_none() {
            return;
        }
        let is_due = |at: Option<Instant>, interval| at.is_none_or(|at| at.elapsed() >= interval);
        if self.watchdog_interval.is_some_and(|interval| is_due(self.alive_at, interval))
            && board.stuck(self.live_timeout).is_empty()
        {
            self.send("WATCHDOG=1");
            self.alive_at = Some(Instant::now());
        }
        if is_due(self.status_at, STATUS_INTERVAL) {
            self.status_at = Some(Instant::now());
            let status = probes::summary(board);
            if status != self.status {
                self.send(&format!("STATUS={status}"));
                self.status = status;
            }
        }
    }

    /// A supervisor that is gone hears nothing, and that is no reason to stop.
    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket {
            socket.send(message.as_bytes()).ok();
        }
    }
}

/// A socket in the file system, or an abstract one, whose name begins with `@`.
fn connect(name: &str) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    // A full queue must not hold up the stores.
    socket.set_nonblocking(true).ok()?;
    match name.strip_prefix('@') {
        None => socket.connect(name).ok()?,
        Some(name) => connect_abstract(&socket, name)?,
    }
    Some(socket)
}

#[cfg(target_os = "linux")]
fn connect_abstract(socket: &UnixDatagram, name: &str) -> Option<()> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).ok()?;
    socket.connect_addr(&address).ok()
}

#[cfg(not(target_os = "linux"))]
fn connect_abstract(_socket: &UnixDatagram, _name: &str) -> Option<()> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn systemd(name: &str) -> Systemd {
        let (watchdog_interval, live_timeout) = (Some(Duration::ZERO), Duration::from_millis(100));
        Systemd { socket: connect(name), watchdog_interval, live_timeout, ..Systemd::default() }
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 1000];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    #[test]
    fn systemd_hears_of_life_only_while_every_loop_moves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut systemd = systemd(path.to_str().unwrap());
        let board = Board::default();
        board.add(std::path::Path::new("/s"));
        systemd.ready();
        systemd.ready();
        systemd.tick(&board);
        assert_eq!(heard(&listener).unwrap(), "READY=1");
        assert_eq!(heard(&listener).unwrap(), "WATCHDOG=1");
        assert!(heard(&listener).unwrap().starts_with("STATUS=1 store"));
        std::thread::sleep(Duration::from_millis(150));
        systemd.tick(&board);
        systemd.stopping();
        assert_eq!(heard(&listener).unwrap(), "STOPPING=1");
        assert_eq!(heard(&listener), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn abstract_sockets_are_found() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("tidelog-{}", uuid::Uuid::new_v4());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        systemd(&format!("@{name}")).ready();
        assert_eq!(heard(&listener).unwrap(), "READY=1");
    }

    #[test]
    fn a_supervisor_that_is_gone_is_no_trouble() {
        let mut systemd = systemd("/nowhere/socket");
        systemd.ready();
        systemd.tick(&Board::default());
        assert!(systemd.socket.is_none());
    }
}
