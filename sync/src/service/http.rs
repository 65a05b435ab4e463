//! `/livez`, `/readyz`, `/metrics`: a small server for probes and scrapers.
//!
//! It answers GET and HEAD, one request a connection, and trusts nobody: a request has at most 8 KiB,
//! a connection at most 5 s, and of many connections at once those beyond a few are closed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::Config;
use crate::service::board::Board;
use crate::service::{metrics, probes};

/// Longest request, headers included.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// How long a connection may last until its request is complete; the answer has as long again.
const DEADLINE: Duration = Duration::from_secs(5);
/// Connections at once.
const CONNECTIONS_MAX: usize = 8;
/// After a connection that could not be accepted, such as one too many for the process.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is sent back.
#[derive(Debug, PartialEq)]
struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

impl Answer {
    fn text(status: &'static str, body: &str) -> Self {
        Self { status, kind: TEXT, body: format!("{body}\n") }
    }

    fn json(is_good: bool, body: &impl Serialize) -> Self {
        let status = if is_good { "200 OK" } else { "503 Service Unavailable" };
        // Numbers, texts and lists always have a form in JSON.
        Self { status, kind: JSON, body: serde_json::to_string(body).unwrap_or_default() + "\n" }
    }
}

/// Serves on a thread of its own for as long as the process lives. Returns where.
///
/// # Errors
/// The address is taken, not of this machine, or not allowed.
pub(crate) fn serve(
    address: SocketAddr,
    board: Arc<Board>,
    config: Config,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    let answer = Arc::new(move |path: &str| answer(path, &board, &config));
    thread::Builder::new()
        .name("tidelog-http".to_owned())
        .spawn(move || accept(&listener, &answer))?;
    Ok(address)
}

fn accept(listener: &TcpListener, answer: &Arc<impl Fn(&str) -> Answer + Send + Sync + 'static>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            thread::sleep(ACCEPT_PAUSE);
            continue;
        };
        let Some(place) = Place::take(&open) else { continue };
        let answer = Arc::clone(answer);
        let serve = move || {
            let _place = place;
            // Who does not take its answer needs none.
            converse(stream, &*answer).ok();
        };
        // Without a thread the connection closes, as one too many does.
        thread::Builder::new().name("tidelog-http".to_owned()).spawn(serve).ok();
    }
}

/// One of the few connections, given back on drop.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let before = open.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(open));
        (before < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn converse(mut stream: TcpStream, answer: &impl Fn(&str) -> Answer) -> io::Result<()> {
    let request = read_request(&mut stream)?;
    let (answer, is_head) = match request.as_deref().map(parse) {
        None => (Answer::text("431 Request Header Fields Too Large", "at most 8 KiB"), false),
        Some(Err(refused)) => (refused, false),
        Some(Ok((path, is_head))) => (answer(path), is_head),
    };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.kind,
        answer.body.len()
    );
    let body = if is_head { "" } else { answer.body.as_str() };
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.write_all((head + body).as_bytes())
}

/// The request up to the empty line; none if it is too long.
fn read_request(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let until = Instant::now() + DEADLINE;
    let (mut request, mut block) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() >= REQUEST_BYTES_MAX {
            return Ok(None);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut block)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => request.extend_from_slice(block.get(..read).unwrap_or_default()),
        }
    }
    Ok(Some(request))
}

/// The path that is asked for, and whether only the head is.
fn parse(request: &[u8]) -> Result<(&str, bool), Answer> {
    let bad = || Answer::text("400 Bad Request", "this is not HTTP/1");
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| bad())?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad());
    };
    if !version.starts_with("HTTP/1.") {
        return Err(bad());
    }
    let path = target.split('?').next().unwrap_or_default();
    match method {
        "GET" => Ok((path, false)),
        "HEAD" => Ok((path, true)),
        _ => Err(Answer::text("405 Method Not Allowed", "only GET and HEAD")),
    }
}

fn answer(path: &str, board: &Board, config: &Config) -> Answer {
    match path {
        "/livez" => {
            let found = probes::liveness(board, config.live_timeout().0);
            Answer::json(found.alive, &found)
        }
        "/readyz" => {
            let found = probes::readiness(board, config.ready_lag().0);
            Answer::json(found.ready, &found)
        }
        "/metrics" => Answer { status: "200 OK", kind: METRICS, body: metrics::render(board) },
        _ => Answer::text("404 Not Found", "there are /livez, /readyz and /metrics"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(|path: &str| Answer::text("200 OK", path));
        thread::spawn(move || accept(&listener, &answer));
        address
    }

    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        // The server may close before it has read everything.
        stream.write_all(request).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn a_request_gets_its_answer_and_the_connection_ends() {
        let address = server();
        let got = ask(address, b"GET /livez?x=1 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(
            got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("\r\n\r\n/livez\n"),
            "{got}"
        );
        let head = ask(address, b"HEAD /livez HTTP/1.0\r\n\r\n");
        assert!(head.contains("Content-Length: 7") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let address = server();
        for (request, status) in [
            (b"\r\n\r\n".as_slice(), "400"),
            (b"GET /\r\n\r\n", "400"),
            (b"GET / x HTTP/1.1\r\n\r\n", "400"),
            (b"GET / HTTP/2.0\r\n\r\n", "400"),
            (b"GET /\xff HTTP/1.1\r\n\r\n", "400"),
            (b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n", "405"),
        ] {
            let got = ask(address, request);
            assert!(got.starts_with(&format!("HTTP/1.1 {status}")), "{got}");
        }
    }

    #[test]
    fn a_request_without_end_is_cut_off() {
        let got = ask(server(), &[b'x'; REQUEST_BYTES_MAX]);
        assert!(got.starts_with("HTTP/1.1 431"), "{got}");
        // Whether the refusal arrives depends on how fast the rest is sent; it ends at once.
        ask(server(), &[b'x'; REQUEST_BYTES_MAX * 100]);
    }

    #[test]
    fn silent_connections_end_and_keep_no_other_out_for_long() {
        let address = server();
        let start = Instant::now();
        let silent: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut got = String::new();
        while !got.starts_with("HTTP/1.1 200") {
            assert!(start.elapsed() < DEADLINE * 3, "no answer");
            thread::sleep(Duration::from_millis(100));
            got = ask(address, b"GET / HTTP/1.1\r\n\r\n");
        }
        drop(silent);
    }
}
