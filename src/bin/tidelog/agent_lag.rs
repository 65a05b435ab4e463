//! How far is the replica behind? The agent knows; this program has no network code.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use tidelog::doctor::{Finding, Level};

use crate::sync;
use crate::text;

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read; a segment takes about 200 bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// From here on somebody should look.
const LAG_SECONDS_LONG: f64 = 300.0;

/// What is read of `tidelog-sync status --json`.
#[derive(Deserialize)]
struct Answer {
    database: String,
    database_reason: Option<String>,
    lag_lines: Option<u64>,
    lag_seconds: Option<f64>,
    quarantined_lines: Option<u64>,
}

/// Asks the agent's program, if there is one and it answers soon.
pub(crate) fn finding(store: &Path) -> Finding {
    let finding = |level, text: String| Finding::new("agent", level, text);
    let mut status = Command::new(sync::program());
    status.args(["status", "--json"]).env("TIDELOG_STORE", store);
    match ask(&mut status, PATIENCE) {
        Ok(answer) => match serde_json::from_slice(&answer) {
            Ok(answer) => replica(&answer),
            Err(_) => finding(Level::Note, "tidelog-sync said nothing about this store".into())
                .remedy("tidelog sync status"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => finding(
            Level::Note,
            "tidelog-sync is not installed, so nothing goes to PostgreSQL".into(),
        )
        .remedy("cargo install tidelog-sync, if a replica is wanted"),
        Err(error) => finding(Level::Warning, format!("tidelog-sync: {error}"))
            .meaning("recording does not depend on it")
            .remedy("tidelog sync status"),
    }
}

/// Standard output of a program that is ended if it takes too long.
fn ask(command: &mut Command, patience: Duration) -> io::Result<Vec<u8>> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let Some(stdout) = child.stdout.take() else { return Ok(Vec::new()) };
    let (sender, answers) = mpsc::channel();
    thread::spawn(move || {
        let mut answer = Vec::new();
        let read = stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
        sender.send(read.map(|_| answer)).ok(); // nobody waits any more
    });
    let answer = answers.recv_timeout(patience);
    child.kill().ok(); // it has answered, or never will
    child.wait()?;
    answer.unwrap_or_else(|_| Err(io::Error::other(format!("no answer within {patience:?}"))))
}

fn replica(answer: &Answer) -> Finding {
    let finding = |level, text: String| Finding::new("agent", level, text);
    let reason = answer.database_reason.clone().unwrap_or_default();
    match (answer.database.as_str(), answer.lag_lines) {
        ("ready", Some(lines)) => lag(lines, answer),
        ("not named", _) => finding(Level::Note, "no database is named".into()).remedy(
            "set DATABASE_URL, then tidelog sync status shows how far the replica is behind",
        ),
        (state, _) => finding(Level::Warning, format!("database {state}: {reason}"))
            .meaning("recording does not depend on it; the agent catches up later")
            .remedy("tidelog sync status"),
    }
}

fn lag(lines: u64, answer: &Answer) -> Finding {
    let seconds = answer.lag_seconds.unwrap_or_default();
    let quarantined = answer.quarantined_lines.unwrap_or_default();
    let behind = match lines {
        0 => "the replica has everything".to_owned(),
        lines => format!(
            "the replica is {} behind, {}",
            text::count(lines, "line"),
            text::duration(seconds)
        ),
    };
    if quarantined > 0 {
        let found = format!("{behind}; {} in quarantine", text::count(quarantined, "line"));
        return Finding::new("agent", Level::Warning, found)
            .meaning("the database refused them; they are kept whole in its table sync_quarantine")
            .remedy("tidelog sync status");
    }
    match seconds > LAG_SECONDS_LONG {
        false => Finding::new("agent", Level::Ok, behind),
        true => Finding::new("agent", Level::Warning, behind)
            .meaning("no agent runs, or it cannot keep up")
            .remedy("tidelog sync run"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(answer: &str) -> (Level, String) {
        let found = replica(&serde_json::from_str(answer).unwrap());
        (found.level, found.found)
    }

    #[test]
    fn a_lag_is_bad_only_when_it_is_old() {
        let ready = |lines: u64, seconds: f64| {
            level(&format!(
                r#"{{"database":"ready","lag_lines":{lines},"lag_seconds":{seconds:?}}}"#
            ))
        };
        assert_eq!(ready(0, 0.0), (Level::Ok, "the replica has everything".into()));
        let behind = "the replica is 7 lines behind, 2.0 s";
        assert_eq!(ready(7, 2.0), (Level::Ok, behind.into()));
        assert_eq!(ready(7, 301.0).0, Level::Warning);
        let away = r#"{"database":"unreachable","database_reason":"refused"}"#;
        assert_eq!(level(away), (Level::Warning, "database unreachable: refused".into()));
        assert_eq!(level(r#"{"database":"not named"}"#).0, Level::Note);
    }

    #[test]
    fn a_program_that_does_not_answer_is_ended() {
        let error = ask(Command::new("sleep").arg("600"), Duration::from_millis(50));
        assert_eq!(error.unwrap_err().to_string(), "no answer within 50ms");
    }
}
