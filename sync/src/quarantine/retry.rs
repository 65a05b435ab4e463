//! Trying lines in quarantine again, as this version of the agent reads them and the database takes
//! them now.

use std::collections::BTreeSet;
use std::num::TryFromIntError;

use postgres::types::Type;
use postgres::{Row, Transaction};
use tidelog::journal::{Batch, Cursor};

use super::lines::{Key, LIMITS, Quarantine, Selection};
use super::{CHANGED_TEXT, Refusal};
use crate::apply;
use crate::database::{DatabaseError, transaction};
use crate::deletion;
use crate::error::SyncError;
use crate::field::Field;
use crate::insert::Method;
use crate::place::Place;
use crate::rows::{self, BatchRows};
use crate::ship::is_about_rows;

/// What became of lines that were tried again.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Retried {
    /// Lines that have their rows now, and are in quarantine no more.
    pub applied: u64,
    /// Lines that have their rows, but not exactly, and so stay beside them.
    pub beside: u64,
    /// Lines that are still refused.
    pub refused: u64,
}

/// What became of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Applied,
    Beside,
    Refused,
    /// Somebody else was faster.
    Gone,
}

/// A line, and all that is needed to read it.
struct Held {
    key: Key,
    place: Place,
    raw: Vec<u8>,
    bytes_total: i64,
}

impl Quarantine {
    /// Tries lines again, in their order. A line whose rows are written leaves the quarantine in the
    /// same transaction; of one that is still refused the attempts are counted.
    ///
    /// # Errors
    /// The database does not answer. What was applied until then stays; again goes on.
    pub fn retry(&mut self, selection: &Selection) -> Result<Retried, SyncError> {
        let mut retried = Retried::default();
        let mut sessions = BTreeSet::new();
        self.each_page(selection, |quarantine, page| {
            for key in page {
                match quarantine.retry_line(*key, &mut sessions)? {
                    Outcome::Applied => retried.applied += 1,
                    Outcome::Beside => retried.beside += 1,
                    Outcome::Refused => retried.refused += 1,
                    Outcome::Gone => {}
                }
            }
            Ok(())
        })?;
        self.refresh(sessions)?;
        Ok(retried)
    }

    fn retry_line(
        &mut self,
        key: Key,
        sessions: &mut BTreeSet<String>,
    ) -> Result<Outcome, SyncError> {
        let Some(held) = self.held(key)? else { return Ok(Outcome::Gone) };
        // A number that no line has was written by somebody else.
        let Ok(rows) = held.rows() else { return Ok(Outcome::Gone) };
        let (outcome, refusal) = match reason(&rows) {
            None => (Outcome::Applied, None),
            Some(reason) if reason == CHANGED_TEXT => (Outcome::Beside, None),
            Some(reason) => (Outcome::Refused, Some(Refusal::of(reason))),
        };
        if let Some(refusal) = refusal {
            return self.still_refused(key, refusal);
        }
        sessions.extend(rows.sessions.iter().cloned());
        let written = self.write("trying a line again", move |client| {
            transaction(client, &LIMITS, |transaction| write(transaction, key, &rows, outcome))
        });
        match written {
            Ok(outcome) => Ok(outcome),
            Err(error) if is_about_rows(error.class()) => {
                self.still_refused(key, Refusal::by_server(error.to_string(), error.sqlstate()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn held(&mut self, (segment_no, line_no): Key) -> Result<Option<Held>, DatabaseError> {
        self.write("reading a line", move |client| {
            let columns = Place::COLUMNS;
            let rows = client.query_typed(
                &format!(
                    "SELECT {columns}, q.raw, q.raw_bytes_total
                     FROM sync_quarantine q JOIN sync_segments g USING (segment_no)
                     WHERE g.segment_no = $1 AND line_no = $2 AND dropped_at IS NULL"
                ),
                &[(&segment_no, Type::INT4), (&line_no, Type::INT4)],
            )?;
            rows.first().map(|row| Held::read(row, (segment_no, line_no))).transpose()
        })
    }

    fn still_refused(
        &mut self,
        (segment_no, line_no): Key,
        refusal: Refusal,
    ) -> Result<Outcome, SyncError> {
        let reason = refusal.reason.replace('\0', "\u{fffd}");
        let counted = self.write("counting an attempt", move |client| {
            Ok(client.execute_typed(
                "UPDATE sync_quarantine
                 SET attempts = attempts + 1, last_seen = now(), reason = $3, sqlstate = $4,
                     agent_version = $5
                 WHERE segment_no = $1 AND line_no = $2 AND dropped_at IS NULL",
                &[
                    (&segment_no, Type::INT4),
                    (&line_no, Type::INT4),
                    (&reason, Type::TEXT),
                    (&refusal.sqlstate, Type::TEXT),
                    (&env!("CARGO_PKG_VERSION"), Type::TEXT),
                ],
            )?)
        })?;
        Ok(if counted == 0 { Outcome::Gone } else { Outcome::Refused })
    }

    /// Brings statistics and ranks up to date. Sessions that this does not get to are found by the
    /// agent at its next start.
    fn refresh(&mut self, sessions: BTreeSet<String>) -> Result<(), DatabaseError> {
        if sessions.is_empty() {
            return Ok(());
        }
        for session in sessions {
            self.write("calculating the statistics of a session", move |client| {
                client
                    .execute_typed("SELECT update_session_stats($1)", &[(&session, Type::TEXT)])?;
                Ok(())
            })?;
        }
        self.write("ranking checkpoints", |client| {
            client.execute_typed("SELECT update_checkpoint_rankings()", &[])?;
            Ok(())
        })
    }
}

/// Writes the rows of a line and takes it out of quarantine, or counts the attempt if it stays there
/// beside its rows. Locks the segment and the sessions first, as a batch does.
fn write(
    transaction: &mut Transaction<'_>,
    (segment_no, line_no): Key,
    rows: &BatchRows,
    outcome: Outcome,
) -> Result<Outcome, DatabaseError> {
    transaction.execute_typed(
        "SELECT FROM sync_segments WHERE segment_no = $1 FOR NO KEY UPDATE",
        &[(&segment_no, Type::INT4)],
    )?;
    deletion::gone(transaction, rows)?;
    let leave = match outcome {
        Outcome::Beside => {
            "UPDATE sync_quarantine SET attempts = attempts + 1, last_seen = now()
             WHERE segment_no = $1 AND line_no = $2 AND dropped_at IS NULL"
        }
        _ => {
            "DELETE FROM sync_quarantine
             WHERE segment_no = $1 AND line_no = $2 AND dropped_at IS NULL"
        }
    };
    let key = [(&segment_no as _, Type::INT4), (&line_no as _, Type::INT4)];
    if transaction.execute_typed(leave, &key)? == 0 {
        return Ok(Outcome::Gone);
    }
    // kept again if its rows do not tell all of it
    transaction
        .execute_typed("DELETE FROM sync_lines WHERE segment_no = $1 AND line_no = $2", &key)?;
    apply::write_entries(transaction, rows, Method::PassOver)?;
    let sessions: Vec<&String> = rows.sessions.iter().collect();
    transaction.execute_typed(
        "DELETE FROM sync_session_stats WHERE session_id = ANY ($1)",
        &[(&sessions, Type::TEXT_ARRAY)],
    )?;
    Ok(outcome)
}

/// Why the line of these rows goes to quarantine, if it does.
fn reason(rows: &BatchRows) -> Option<String> {
    match rows.quarantine.column(4).first() {
        Some(Field::Text(reason)) => Some(reason.clone()),
        _ => None,
    }
}

impl Held {
    fn read(row: &Row, key: Key) -> Result<Self, DatabaseError> {
        let place = Place::read(row)?;
        Ok(Self { key, place, raw: row.try_get(6)?, bytes_total: row.try_get(7)? })
    }

    /// The line as rows. Of one that is too long only the beginning is at hand: it stays refused.
    fn rows(&self) -> Result<BatchRows, TryFromIntError> {
        let number = u32::try_from(self.key.1)?;
        let batch = Batch::of_line(number, &self.raw);
        let from: Cursor = *batch.from();
        let bytes = u64::try_from(self.bytes_total).unwrap_or_default();
        if bytes > self.raw.len() as u64 {
            let refusal = Refusal::too_long(bytes.saturating_add(1));
            return rows::refused_by_server(&self.place, from, &batch, &refusal);
        }
        rows::from_batch(&self.place, from, &batch)
    }
}
