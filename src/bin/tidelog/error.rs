//! The one error at the edge: what failed, because of what, what to try.

use std::error::Error as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::context::Context;

/// Why a command ended early. Decides the exit code.
#[derive(Debug)]
enum Kind {
    Failure,
    Usage,
    /// `verify` found damage. Without a message it has said so itself.
    Damage,
    /// Nobody reads the output any more, as with `| head`: a normal end.
    OutputClosed,
}

/// An error as the user sees it.
#[derive(Debug)]
pub(crate) struct CliError {
    kind: Kind,
    message: String,
    causes: Vec<String>,
    hint: Option<Hint>,
}

/// A command to try.
#[derive(Debug)]
enum Hint {
    /// Arguments of `tidelog` on the same store.
    Tidelog(&'static str),
    /// A whole command.
    Shell(&'static str),
}

impl CliError {
    pub(crate) fn failure(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failure, message: message.into(), causes: Vec::new(), hint: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, ..Self::failure(message) }
    }

    /// The report of the damage is the command's output; only the exit code is left to say.
    pub(crate) fn damage() -> Self {
        Self { kind: Kind::Damage, ..Self::failure("") }
    }

    /// What is wrong is the command's output; only the exit code is left to say.
    pub(crate) fn problems() -> Self {
        Self::failure("")
    }

    /// Damage that leaves nothing to report on: the store cannot even be opened.
    pub(crate) fn damage_on_open(error: tidelog::Error) -> Self {
        match error {
            tidelog::Error::Damaged { .. } => {
                Self { kind: Kind::Damage, ..Self::failure(error.to_string()) }
            }
            other => other.into(),
        }
    }

    pub(crate) fn because(mut self, cause: impl ToString) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Adds a command to try, as the shell takes it.
    pub(crate) fn with_hint(mut self, command: &'static str) -> Self {
        self.hint = Some(Hint::Shell(command));
        self
    }

    /// Tells the user on standard error.
    pub(crate) fn report(self, context: &Context) -> ExitCode {
        let code = match self.kind {
            Kind::OutputClosed => return ExitCode::SUCCESS,
            Kind::Failure => 1,
            Kind::Usage => 2,
            Kind::Damage => 3,
        };
        if self.message.is_empty() {
            return ExitCode::from(code);
        }
        let (message, hint) = self.message_and_hint(context);
        let mut text = format!("error: {message}\n");
        for cause in &self.causes {
            text.push_str(&format!("  because: {cause}\n"));
        }
        if let Some(command) = hint {
            text.push_str(&format!("  try: {command}\n"));
        }
        io::stderr().write_all(text.as_bytes()).ok(); // there is nobody else to tell
        ExitCode::from(code)
    }

    /// A command that the message names is not named again, and reaches this store there.
    fn message_and_hint(&self, context: &Context) -> (String, Option<String>) {
        let (named, command) = match self.hint {
            None => return (self.message.clone(), None),
            Some(Hint::Shell(command)) => return (self.message.clone(), Some(command.into())),
            Some(Hint::Tidelog(arguments)) => {
                (format!("`tidelog {arguments}`"), context.command(arguments))
            }
        };
        match self.message.contains(&named) {
            true => (self.message.replace(&named, &format!("`{command}`")), None),
            false => (self.message.clone(), Some(command)),
        }
    }
}

impl From<tidelog::Error> for CliError {
    fn from(error: tidelog::Error) -> Self {
        use tidelog::Error as E;
        let hint = match &error {
            E::SessionUnknown { .. } => Some("sessions"),
            E::CheckpointUnknown { .. } => Some("checkpoints"),
            E::Damaged { .. } | E::CheckpointDamaged { .. } | E::Npz { .. } => Some("verify"),
            E::Index { .. } if !error.is_index_without_room() => Some("rebuild"),
            E::Query(reason) if reason.contains("no such") => {
                Some("sql \"SELECT name, sql FROM sqlite_schema WHERE type != 'index'\"")
            }
            _ => None,
        };
        let kind = match &error {
            E::InvalidId(_) | E::InvalidValue { .. } => Kind::Usage,
            _ => Kind::Failure,
        };
        let message = error.to_string();
        let causes = causes(&error, &message);
        Self { kind, message, causes, hint: hint.map(Hint::Tidelog) }
    }
}

/// An error of standard output; every other I/O error has a path and is the library's.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { kind: Kind::OutputClosed, ..Self::failure("") };
        }
        Self::failure("cannot write to standard output").because(error)
    }
}

/// The causes that the message does not hold already.
fn causes(error: &tidelog::Error, message: &str) -> Vec<String> {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            causes.push(text);
        }
        source = cause.source();
    }
    causes
}
