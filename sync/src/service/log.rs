//! The log: one line a notice on standard error, for people or for programs.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value};
use tidelog::Timestamp;

use crate::sqlstate;
use crate::state::{AgentState, Notice, SegmentState};

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Time, level and words; under systemd a priority instead of the time.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// How important a line is; the most important first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Somebody has to act.
    Error,
    /// Something is not as it should be, and may pass.
    Warn,
    /// A state changed.
    #[default]
    Info,
    /// Every batch.
    Debug,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        })
    }
}

impl Level {
    /// The number of syslog.
    fn priority(self) -> u8 {
        match self {
            Self::Error => 3,
            Self::Warn => 4,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }
}

/// Where lines go.
pub struct Log {
    format: Format,
    level: Level,
    /// The journal has its own clock, and reads a priority before each line.
    is_journal: bool,
    out: Mutex<Box<dyn Write + Send>>,
}

impl Log {
    /// The log on standard error.
    #[must_use]
    pub fn to_stderr(format: Format, level: Level) -> Self {
        let is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
        Self { format, level, is_journal, out: Mutex::new(Box::new(io::stderr())) }
    }

    /// Writes what a store's agent tells, unless it is less important than asked for.
    pub(crate) fn write(&self, level: Level, store: Option<&Path>, notice: &Notice) {
        if level > self.level {
            return;
        }
        let line = match self.format {
            Format::Json => json(level, store, notice),
            Format::Text => text(level, store, notice, self.is_journal),
        };
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // There is nobody to tell when that fails.
        out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).ok();
    }
}

fn text(level: Level, store: Option<&Path>, notice: &Notice, is_journal: bool) -> String {
    let beginning = match is_journal {
        true => format!("<{}>", level.priority()),
        false => format!("{} {level:<5} ", Timestamp::now()),
    };
    let store = store.map(|store| format!("{}: ", store.display())).unwrap_or_default();
    // A name or an answer of a server may hold line breaks, and a line is one notice.
    format!("{beginning}{}", format!("{store}{notice}").replace(['\n', '\r'], " "))
}

fn json(level: Level, store: Option<&Path>, notice: &Notice) -> String {
    let mut line = Map::new();
    let mut put =
        |key: &str, value: String| drop(line.insert(key.to_owned(), Value::String(value)));
    put("time", Timestamp::now().to_string());
    put("level", level.to_string());
    put("message", notice.to_string());
    if let Some(store) = store {
        put("store", store.display().to_string());
    }
    match notice {
        Notice::Agent(state) => {
            put("agent", state.as_str().to_owned());
            if let Some(reason) = trouble(notice) {
                put("error", reason.to_owned());
                if let Some(code) = sqlstate::code_in(reason) {
                    put("sqlstate", code.to_owned());
                }
            }
        }
        Notice::Segment { path, from, to, detail } => {
            put("segment", path.display().to_string());
            put("from", from.as_str().to_owned());
            put("to", to.as_str().to_owned());
            if !detail.is_empty() {
                put("detail", detail.clone());
            }
        }
        Notice::Refused { path, reason } | Notice::Unlocked { path, reason, .. } => {
            put("path", path.display().to_string());
            put("error", reason.clone());
        }
        _ => {}
    }
    Value::Object(line).to_string()
}

/// Why an agent waits, if it does.
pub(crate) fn trouble(notice: &Notice) -> Option<&str> {
    match notice {
        Notice::Agent(AgentState::Backoff { reason, .. } | AgentState::Blocked { reason, .. }) => {
            Some(reason)
        }
        _ => None,
    }
}

/// How important it is, if it is news.
fn level_of(notice: &Notice) -> Level {
    use SegmentState::{Discovered, Sealed, Streaming, Verifying};
    match notice {
        Notice::Agent(AgentState::Blocked { .. }) => Level::Error,
        Notice::Agent(AgentState::Backoff { .. }) => Level::Warn,
        Notice::Agent(AgentState::Resting) | Notice::Batch { .. } => Level::Debug,
        Notice::Segment { to: Discovered | Verifying, .. } => Level::Debug,
        Notice::Agent(_) | Notice::Segment { to: Streaming | Sealed, .. } => Level::Info,
        _ => Level::Warn,
    }
}

/// Tells news from what was said before: an outage is told once, not at each attempt.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// What goes wrong since the agent was last ready.
    trouble: Option<String>,
    /// It only takes turns with others.
    is_resting: bool,
}

impl News {
    /// How important a notice is after those before.
    pub(crate) fn level(&mut self, notice: &Notice) -> Level {
        let level = level_of(notice);
        let Notice::Agent(state) = notice else { return level };
        match (state, trouble(notice)) {
            (_, Some(reason)) => {
                let is_new = self.trouble.as_deref() != Some(reason);
                self.trouble = Some(reason.to_owned());
                if is_new { level } else { Level::Debug }
            }
            (AgentState::Connecting(_), _) if self.trouble.is_some() || self.is_resting => {
                Level::Debug
            }
            (AgentState::Ready, _) if std::mem::take(&mut self.is_resting) => Level::Debug,
            (AgentState::Resting, _) => {
                self.is_resting = true;
                level
            }
            (AgentState::Ready, _) => {
                self.trouble = None;
                level
            }
            _ => level,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn backoff(reason: &str) -> Notice {
        let (wait, reason) = (Duration::from_secs(1), reason.to_owned());
        Notice::Agent(AgentState::Backoff { wait, reason })
    }

    #[test]
    fn an_outage_is_told_once() {
        let mut news = News::default();
        let connecting = Notice::Agent(AgentState::Connecting("u@h".into()));
        let ready = Notice::Agent(AgentState::Ready);
        for (notice, level) in [
            (&connecting, Level::Info),
            (&backoff("no route"), Level::Warn),
            (&connecting, Level::Debug),
            (&backoff("no route"), Level::Debug),
            (&backoff("refused"), Level::Warn),
            (&ready, Level::Info),
            (&backoff("refused"), Level::Warn),
        ] {
            assert_eq!(news.level(notice), level, "{notice}");
        }
    }

    #[test]
    fn taking_turns_is_no_news() {
        let mut news = News::default();
        let states = [
            AgentState::Ready,
            AgentState::Resting,
            AgentState::Connecting("u@h".into()),
            AgentState::Ready,
        ];
        let levels = states.map(|state| news.level(&Notice::Agent(state)));
        assert_eq!(levels, [Level::Info, Level::Debug, Level::Debug, Level::Debug]);
    }

    #[test]
    fn a_line_of_json_has_its_parts() {
        let line = json(Level::Warn, Some(Path::new("/s")), &backoff("gone (SQLSTATE 57P01)"));
        let line: Value = serde_json::from_str(&line).unwrap();
        for (key, value) in [
            ("level", "warn"),
            ("store", "/s"),
            ("agent", "backoff"),
            ("error", "gone (SQLSTATE 57P01)"),
            ("sqlstate", "57P01"),
        ] {
            assert_eq!(line[key], value, "{key}");
        }
        let (from, to) = (SegmentState::Streaming, SegmentState::Forked);
        let segment = Notice::Segment { path: "a\n.jsonl".into(), from, to, detail: "x".into() };
        let line: Value = serde_json::from_str(&json(Level::Warn, None, &segment)).unwrap();
        assert_eq!((&line["from"], &line["to"]), (&"streaming".into(), &"forked".into()));
        assert_eq!(line["segment"], "a\n.jsonl");
    }

    #[test]
    fn a_notice_is_one_line_with_a_priority_for_the_journal() {
        let line = text(Level::Warn, None, &backoff("two\nlines"), true);
        assert_eq!(line, "<4>agent: backoff 1.0 s: two lines");
        let line = text(Level::Info, Some(Path::new("/s")), &backoff("x"), false);
        assert!(line.contains(" info  /s: agent: backoff"), "{line}");
    }
}
