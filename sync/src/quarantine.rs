//! Lines that cannot become rows, or not exactly, are kept whole, in the transaction that passes over
//! them. [`Quarantine`] is what a person does with them afterwards.

mod lines;
mod retry;

pub(crate) use lines::forget_dropped_again;
pub use lines::{Quarantine, QuarantinedLine, Selection};
pub use retry::Retried;

use sha2::{Digest, Sha256};

use crate::field::Field;
use crate::place::Place;

/// Why a line is kept beside its rows.
const CHANGED_TEXT: &str = "text holds U+0000; shown as U+FFFD";

/// Why a line goes to quarantine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    reason: String,
    /// None: the line was refused before it reached the database.
    sqlstate: Option<String>,
    /// Length of a line of which only the beginning is at hand.
    bytes_total: Option<u64>,
}

impl Refusal {
    pub(crate) fn of(reason: String) -> Self {
        Self { reason, sqlstate: None, bytes_total: None }
    }

    /// The line has its rows; only their texts are not exact.
    pub(crate) fn changed_text() -> Self {
        Self::of(CHANGED_TEXT.into())
    }

    pub(crate) fn no_json(name: &str, error: &serde_json::Error) -> Self {
        Self::of(format!("{name} cannot be written as JSON: {error}"))
    }

    /// A line of `bytes` bytes, its newline included.
    pub(crate) fn too_long(bytes: u64) -> Self {
        let reason = tidelog::LineError::TooLong { bytes }.to_string();
        Self { reason, sqlstate: None, bytes_total: Some(bytes.saturating_sub(1)) }
    }

    pub(crate) fn by_server(reason: String, sqlstate: Option<String>) -> Self {
        Self { reason, sqlstate, bytes_total: None }
    }
}

/// A row of `sync_quarantine`. `raw` is the line without its newline, or the beginning of a huge
/// one; the hash is that of `raw`.
pub(crate) fn row(
    place: &Place,
    line_no: i32,
    session: Field,
    raw: &[u8],
    refusal: Refusal,
) -> [Field; 9] {
    let bytes = refusal.bytes_total.unwrap_or(raw.len() as u64);
    [
        place.segment_no.into(),
        line_no.into(),
        session,
        refusal.sqlstate.map_or(Field::Null, Field::Text),
        Field::Text(refusal.reason.replace('\0', "\u{fffd}")),
        Field::Bytes(raw.to_vec()),
        i64::try_from(bytes).unwrap_or(i64::MAX).into(),
        Field::Bytes(Sha256::digest(raw).to_vec()),
        Field::Text(env!("CARGO_PKG_VERSION").to_owned()),
    ]
}
