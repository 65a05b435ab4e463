//! Is what somebody waits for reached? Decided from a [`Status`], without asking anybody.

use std::fmt;
use std::str::FromStr;

use crate::status::{SegmentStatus, Status};

const EXPECTED: &str = "lag-lines=0, lag-bytes<1000, lag-seconds<=5, session=ID or segment=FILE";

/// Something to wait for.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// The lag of every store is so small.
    Lag {
        /// What is compared.
        unit: LagUnit,
        /// How.
        comparison: Comparison,
        /// With what.
        limit: f64,
    },
    /// The session has ended, and every line of its segments is in the replica.
    Session(String),
    /// Every line of the segment with this file name is in the replica.
    Segment(String),
}

/// What lag is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LagUnit {
    /// Lines that are not in the replica.
    Lines,
    /// Their bytes.
    Bytes,
    /// Age of the oldest, in seconds.
    Seconds,
}

/// How a lag is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
}

impl Condition {
    /// Whether it holds for these stores; if not, why not.
    ///
    /// # Errors
    /// What is still in the way, in words for a person.
    pub fn check(&self, stores: &[(String, Status)]) -> Result<(), String> {
        if let Some((name, status)) = stores.iter().find(|(_, status)| status.lag_lines.is_none()) {
            let reason = status.database_reason.as_deref().unwrap_or("no database is named");
            return Err(format!("{name}: {reason}"));
        }
        match self {
            Self::Lag { unit, comparison, limit } => {
                stores.iter().try_for_each(|(name, status)| {
                    let lag = unit.of(status);
                    match comparison.holds(lag, *limit) {
                        true => Ok(()),
                        false => Err(format!("{name}: {unit} is {lag}, and not yet {self}")),
                    }
                })
            }
            Self::Session(id) => self.segments(
                stores,
                |segment| segment.session_id.as_deref() == Some(id),
                is_sealed,
            ),
            Self::Segment(file) => self.segments(stores, |segment| segment.file == *file, is_sent),
        }
    }

    fn segments(
        &self,
        stores: &[(String, Status)],
        is_meant: impl Fn(&SegmentStatus) -> bool,
        is_done: impl Fn(&SegmentStatus) -> bool,
    ) -> Result<(), String> {
        let segments = stores.iter().flat_map(|(_, status)| &status.segments);
        let mut meant = segments.filter(|segment| is_meant(segment)).peekable();
        if meant.peek().is_none() {
            return Err(format!("no store has a segment of {self}"));
        }
        match meant.find(|segment| !is_done(segment)) {
            None => Ok(()),
            Some(segment) => Err(format!(
                "{} is {}, {} lines behind",
                segment.file,
                segment.state.as_deref().unwrap_or("unknown"),
                segment.lag_lines.unwrap_or(0)
            )),
        }
    }
}

fn is_sent(segment: &SegmentStatus) -> bool {
    segment.lag_lines == Some(0)
}

fn is_sealed(segment: &SegmentStatus) -> bool {
    is_sent(segment) && segment.state.as_deref() == Some("sealed")
}

impl LagUnit {
    fn of(self, status: &Status) -> f64 {
        // A lag beyond 2^53 is as far from any limit as its neighbour.
        match self {
            Self::Lines => status.lag_lines.unwrap_or(u64::MAX) as f64,
            Self::Bytes => status.lag_bytes.unwrap_or(u64::MAX) as f64,
            Self::Seconds => status.lag_seconds.unwrap_or(f64::INFINITY),
        }
    }
}

impl Comparison {
    fn holds(self, lag: f64, limit: f64) -> bool {
        match self {
            Self::Less => lag < limit,
            Self::LessOrEqual => lag <= limit,
            Self::Equal => lag.total_cmp(&limit).is_eq(),
        }
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is no condition such as {EXPECTED}");
        let (key, sign, value) = ["<=", "<", "="]
            .into_iter()
            .find_map(|sign| text.split_once(sign).map(|(key, value)| (key, sign, value)))
            .ok_or_else(refused)?;
        let unit = match key {
            "lag-lines" => LagUnit::Lines,
            "lag-bytes" => LagUnit::Bytes,
            "lag-seconds" => LagUnit::Seconds,
            "session" if sign == "=" && !value.is_empty() => {
                return Ok(Self::Session(value.to_owned()));
            }
            "segment" if sign == "=" && !value.is_empty() => {
                return Ok(Self::Segment(value.to_owned()));
            }
            _ => return Err(refused()),
        };
        let comparison = match sign {
            "<=" => Comparison::LessOrEqual,
            "<" => Comparison::Less,
            _ => Comparison::Equal,
        };
        let limit = value.parse().ok().filter(|limit: &f64| limit.is_finite() && *limit >= 0.0);
        Ok(Self::Lag { unit, comparison, limit: limit.ok_or_else(refused)? })
    }
}

impl fmt::Display for LagUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lines => "lag-lines",
            Self::Bytes => "lag-bytes",
            Self::Seconds => "lag-seconds",
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lag { unit, comparison, limit } => {
                let sign = match comparison {
                    Comparison::Equal => "=",
                    Comparison::Less => "<",
                    Comparison::LessOrEqual => "<=",
                };
                write!(f, "{unit}{sign}{limit}")
            }
            Self::Session(id) => write!(f, "session={id}"),
            Self::Segment(file) => write!(f, "segment={file}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog::StoreId;

    use super::*;

    fn segment(session: &str, state: &str, lag: u64) -> SegmentStatus {
        SegmentStatus {
            file: format!("session_{session}.jsonl"),
            session_id: Some(session.to_owned()),
            bytes: 100,
            state: Some(state.to_owned()),
            lag_lines: Some(lag),
            lag_bytes: Some(lag * 10),
            lag_seconds: None,
            quarantined_lines: Some(0),
        }
    }

    fn status(segments: Vec<SegmentStatus>) -> Vec<(String, Status)> {
        let lag: u64 = segments.iter().filter_map(|segment| segment.lag_lines).sum();
        let status = Status {
            folder: "/s".into(),
            store_id: StoreId::random(),
            database: "ready",
            database_reason: None,
            lag_lines: Some(lag),
            lag_bytes: Some(lag * 10),
            lag_seconds: Some(if lag > 0 { 3.5 } else { 0.0 }),
            quarantined_lines: Some(0),
            missed_records: Some(0),
            last_refusal: None,
            gaps: Vec::new(),
            checkpoint_files_missing: Some(0),
            checkpoint_files_problems: Vec::new(),
            last_commit_at: None,
            shared_sessions: Vec::new(),
            segments,
        };
        vec![("/s".to_owned(), status)]
    }

    #[test]
    fn conditions_hold_when_the_lag_is_small_enough() {
        let stores = status(vec![segment("a", "sealed", 0), segment("b", "streaming", 7)]);
        for (text, holds) in [
            ("lag-lines=7", true),
            ("lag-lines=0", false),
            ("lag-lines<7", false),
            ("lag-lines<=7", true),
            ("lag-bytes<71", true),
            ("lag-seconds<3.5", false),
            ("lag-seconds<5", true),
            ("session=a", true),
            ("session=b", false),
            ("session=c", false),
            ("segment=session_a.jsonl", true),
            ("segment=session_b.jsonl", false),
        ] {
            let condition: Condition = text.parse().unwrap();
            assert_eq!(condition.to_string(), text);
            assert_eq!(condition.check(&stores).is_ok(), holds, "{text}");
        }
        let stores = status(vec![segment("a", "streaming", 0)]);
        assert!("session=a".parse::<Condition>().unwrap().check(&stores).is_err());
        assert!("segment=session_a.jsonl".parse::<Condition>().unwrap().check(&stores).is_ok());
    }

    #[test]
    fn without_a_database_nothing_is_reached() {
        let mut stores = status(Vec::new());
        stores[0].1.lag_lines = None;
        stores[0].1.database_reason = Some("no route".to_owned());
        let error = "lag-lines=0".parse::<Condition>().unwrap().check(&stores).unwrap_err();
        assert_eq!(error, "/s: no route");
    }

    #[test]
    fn what_is_no_condition_is_named() {
        for text in ["", "lag", "lag-lines=x", "lag-lines=-1", "lag=0", "session<a", "session="] {
            let error = text.parse::<Condition>().unwrap_err();
            assert!(
                error.contains(&format!("`{text}`")) && error.contains("lag-lines=0"),
                "{error}"
            );
        }
    }
}
