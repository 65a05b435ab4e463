//! Stops when the server refuses too much. A line that is refused among thousands that pass is its
//! own fault; many at once are the fault of the database: a constraint, a column, a trigger that
//! nobody meant for them. Then nothing more goes to quarantine, until somebody has looked.
//!
//! Lines that are no entries, as of a damaged file, do not count. They never reach the server, and no
//! change of the database would make them rows.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use postgres::types::Type;

use crate::database::DatabaseError;
use crate::place::Place;
use crate::replica::Replica;

/// How many of the last 2,000 lines of a segment the server may refuse for one reason: 5 %.
pub const POISON_LIMIT: u32 = 100;

/// How many lines are the last ones, as a multiple of the limit.
const RECENT: u32 = 20;
/// How many lines of all segments together may be refused within a minute, as a multiple of the
/// limit: what many segments meet at once is not to fill the quarantine with a little of each.
const PER_MINUTE: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// When a segment that waits is tried again. Others go on meanwhile.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Decides whether a line that the server refuses may go to quarantine.
#[derive(Debug)]
pub(crate) struct Breaker {
    limit: u32,
    /// By SQLSTATE.
    minutes: HashMap<String, Minute>,
    /// Segments of which too much was refused, by number, and when they are tried again.
    waiting: HashMap<i32, Instant>,
}

/// Lines that were refused for one reason since it began.
#[derive(Debug)]
struct Minute {
    began: Instant,
    refused: u32,
}

/// Too much was refused. Its text completes "the server refused …".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooMuch {
    /// The reason.
    pub sqlstate: String,
    /// So many lines, without the last one.
    pub refused: u32,
    /// Of so many of one segment; `None`: of all, within a minute.
    pub of: Option<u32>,
    /// The limit that was given.
    pub limit: u32,
}

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.of {
            Some(of) => write!(f, "{} of the last {of} lines", self.refused),
            None => write!(f, "{} lines within a minute", self.refused),
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new(POISON_LIMIT)
    }
}

impl Breaker {
    /// With a limit of 0 the first line that the server refuses is too much.
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, minutes: HashMap::new(), waiting: HashMap::new() }
    }

    /// Whether a segment is left alone for now.
    pub(crate) fn holds(&self, segment_no: i32) -> bool {
        self.waiting.get(&segment_no).is_some_and(|until| Instant::now() < *until)
    }

    /// Asks whether `line` may go to quarantine, which the server refused with `sqlstate`. The answer
    /// about the segment comes from the quarantine itself, so that it outlives the agent, and changes
    /// when somebody drops or retries lines.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) fn ask(
        &mut self,
        replica: &mut Replica,
        place: &Place,
        line: u32,
        sqlstate: &str,
    ) -> Result<Option<TooMuch>, DatabaseError> {
        let of = self.limit.saturating_mul(RECENT);
        let refused = count(replica, place.segment_no, line, of, sqlstate.to_owned())?;
        let now = Instant::now();
        let too_much = if refused >= self.limit {
            let (sqlstate, limit) = (sqlstate.to_owned(), self.limit);
            Some(TooMuch { sqlstate, refused, of: Some(of), limit })
        } else {
            self.count_in(sqlstate, now)
        };
        match too_much {
            Some(_) => drop(self.waiting.insert(place.segment_no, now + TRY_AGAIN_AFTER)),
            None => drop(self.waiting.remove(&place.segment_no)),
        }
        Ok(too_much)
    }

    fn count_in(&mut self, sqlstate: &str, now: Instant) -> Option<TooMuch> {
        let limit = self.limit;
        let minute =
            self.minutes.entry(sqlstate.to_owned()).or_insert(Minute { began: now, refused: 0 });
        if now.saturating_duration_since(minute.began) >= MINUTE {
            *minute = Minute { began: now, refused: 0 };
        }
        let refused = minute.refused;
        if refused >= limit.saturating_mul(PER_MINUTE) {
            return Some(TooMuch { sqlstate: sqlstate.to_owned(), refused, of: None, limit });
        }
        minute.refused = refused.saturating_add(1);
        None
    }
}

/// Lines in quarantine for this reason among the `of` ones before `line`.
fn count(
    replica: &mut Replica,
    segment_no: i32,
    line: u32,
    of: u32,
    sqlstate: String,
) -> Result<u32, DatabaseError> {
    let first = i64::from(line.saturating_sub(of));
    let count = replica.query("counting lines in quarantine", move |client| {
        let row = client.query_typed_one(
            "SELECT count(*) FROM sync_quarantine
             WHERE segment_no = $1 AND line_no >= $2 AND line_no < $3 AND sqlstate = $4
               AND dropped_at IS NULL",
            &[
                (&segment_no, Type::INT4),
                (&first, Type::INT8),
                (&i64::from(line), Type::INT8),
                (&sqlstate, Type::TEXT),
            ],
        )?;
        row.try_get::<_, i64>(0)
    })?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_takes_ten_times_the_limit_of_each_reason() {
        let mut breaker = Breaker::new(2);
        let start = Instant::now();
        for _ in 0..20 {
            assert_eq!(breaker.count_in("23514", start), None);
        }
        let too_much = breaker.count_in("23514", start + MINUTE / 2).unwrap();
        assert_eq!((too_much.refused, too_much.of), (20, None));
        assert_eq!(breaker.count_in("22003", start), None);
        assert_eq!(breaker.count_in("23514", start + MINUTE), None);
    }
}
