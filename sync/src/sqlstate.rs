//! What the agent does about an error of the database, decided by its exact SQLSTATE.
//!
//! A code that is not listed is [`Class::Blocked`], never [`Class::Poison`]: an error that nobody
//! foresaw must not send good lines to quarantine.

use std::error::Error as _;

use postgres::error::Severity;

/// What the agent does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Rolls back and sends the batch again, smaller, after a jittered wait; the connection stays.
    Retry,
    /// Drops the connection, waits and connects again, to the next host if there are several.
    RetryNewConnection,
    /// Waits up to five minutes between attempts and says so: the server has no room.
    RetrySlowly,
    /// Treats the endpoint as a transaction pooler from now on and tries again at once.
    Pooler,
    /// Bisects the batch and puts the line that the server refuses into quarantine.
    Poison,
    /// Sends the batch again with `ON CONFLICT DO NOTHING`; if the code comes back, [`Self::Poison`].
    Duplicate,
    /// Applies the row that is referred to first; if the code comes back, [`Self::Poison`].
    ForeignKey,
    /// Stops writing, says what to run or grant, and looks again after long waits.
    Blocked,
}

/// Decides by the SQLSTATE, or by the kind of an error that did not come from the server.
#[must_use]
pub fn classify(error: &postgres::Error) -> Class {
    match error.as_db_error() {
        Some(refusal) => {
            let ends_connection =
                matches!(refusal.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
            classify_code(refusal.code().code(), refusal.message(), ends_connection)
        }
        None => classify_local(&error.to_string()),
    }
}

fn classify_code(code: &str, message: &str, ends_connection: bool) -> Class {
    match code {
        "08P01" => classify_protocol_violation(message, ends_connection),
        "40003" | "25P03" | "25P04" | "25006" | "53300" | "57P01" | "57P02" | "57P03" | "57P05"
        | "58000" | "58030" => Class::RetryNewConnection,
        "40000" | "40001" | "40P01" | "55P03" | "57014" => Class::Retry,
        "53000" | "53100" | "53200" | "53400" => Class::RetrySlowly,
        "26000" | "42P05" => Class::Pooler,
        "23505" => Class::Duplicate,
        "23503" => Class::ForeignKey,
        "23000" | "23001" | "23502" | "23514" | "23P01" | "21000" | "54000" => Class::Poison,
        _ if code.starts_with("08") => Class::RetryNewConnection,
        _ if code.starts_with("22") => Class::Poison,
        _ => Class::Blocked,
    }
}

/// 08P01 has three senders: a pooler that lacks a feature, a pooler that lost its server (it ends
/// the connection), and the server when a value has the wrong width for its column.
fn classify_protocol_violation(message: &str, ends_connection: bool) -> Class {
    if message.contains("unsupported startup parameter") || message.contains("prepared statement") {
        Class::Pooler
    } else if ends_connection {
        Class::RetryNewConnection
    } else {
        Class::Poison
    }
}

/// The crate keeps the kind of its own errors to itself; its words are all there is.
fn classify_local(text: &str) -> Class {
    const BLOCKED: [&str; 7] = [
        "authentication error",
        "error deserializing",
        "expected",
        "invalid column",
        "invalid configuration",
        "invalid connection string",
        "query returned",
    ];
    if text.starts_with("error serializing") {
        Class::Poison
    } else if BLOCKED.iter().any(|beginning| text.starts_with(beginning)) {
        Class::Blocked
    } else {
        Class::RetryNewConnection
    }
}

/// The longest text of an error that is passed on, in characters; a server may send any amount.
const TEXT_CHARACTERS_MAX: usize = 1000;

/// The error and its causes in one line, with the SQLSTATE if there is one.
pub(crate) fn explain(error: &postgres::Error) -> String {
    let mut text = match error.as_db_error() {
        Some(refusal) => format!("{} (SQLSTATE {})", refusal.message(), refusal.code().code()),
        None => error.to_string(),
    };
    let mut cause = error.source().filter(|_| error.as_db_error().is_none());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.chars().take(TEXT_CHARACTERS_MAX).collect()
}

/// Finds the code in a text that holds an error as the agent words it.
pub(crate) fn code_in(text: &str) -> Option<&str> {
    let code = text.split_once("(SQLSTATE ")?.1.get(..5)?;
    code.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_class() {
        let table = [
            (Class::Retry, "40001 40P01 55P03 57014"),
            (
                Class::RetryNewConnection,
                "08000 08001 08003 08006 57P01 57P02 57P03 53300 58030 25006",
            ),
            (Class::RetrySlowly, "53100 53200"),
            (Class::Pooler, "26000 42P05"),
            (Class::Poison, "22000 22003 22008 22021 22P02 22P05 23502 23514 54000 21000"),
            (Class::Duplicate, "23505"),
            (Class::ForeignKey, "23503"),
            (
                Class::Blocked,
                "28000 28P01 3D000 42501 42P01 42703 42804 0A000 25P02 58P01 XX000 ZZZZZ",
            ),
        ];
        for (class, codes) in table {
            for code in codes.split(' ') {
                assert_eq!(classify_code(code, "", false), class, "{code}");
            }
        }
    }

    #[test]
    fn the_code_is_found_in_a_text() {
        assert_eq!(code_in("cannot connect: no such role (SQLSTATE 28P01); x"), Some("28P01"));
        for text in ["", "x (SQLSTATE ", "x (SQLSTATE 28)", "x (SQLSTATE \"\n}{)"] {
            assert_eq!(code_in(text), None, "{text}");
        }
    }

    #[test]
    fn protocol_violation_is_told_apart_by_its_sender() {
        for (message, ends_connection, class) in [
            ("unsupported startup parameter: options", true, Class::Pooler),
            ("bind message supplies 1 parameters, but prepared statement", false, Class::Pooler),
            ("query_wait_timeout", true, Class::RetryNewConnection),
            ("insufficient data left in message", false, Class::Poison),
        ] {
            assert_eq!(classify_code("08P01", message, ends_connection), class, "{message}");
        }
    }

    #[test]
    fn errors_of_the_client_have_a_class() {
        for (text, class) in [
            ("error serializing parameter 3", Class::Poison),
            ("error deserializing column 1", Class::Blocked),
            ("invalid configuration", Class::Blocked),
            ("connection closed", Class::RetryNewConnection),
            ("error performing TLS handshake", Class::RetryNewConnection),
        ] {
            assert_eq!(classify_local(text), class, "{text}");
        }
        let error = "nonsense=1".parse::<postgres::Config>().map(|_| ()).unwrap_err();
        assert_eq!(classify(&error), Class::Blocked);
    }
}
