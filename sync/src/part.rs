//! What a batch says about parts of sessions.

use tidelog::Timestamp;

use crate::field::Field;

/// The beginning of a segment's part of its session.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PartStart {
    /// None: the segment is there, the line that says so is damaged or has not come yet.
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) metadata: Field,
}

impl PartStart {
    pub(crate) const UNKNOWN: Self = Self { started_at: None, metadata: Field::Null };
}

/// The end of a part. Of several, the greatest counts: that its writer went on elsewhere only this one
/// knows, so it counts before all others; else the later one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartEnd {
    pub(crate) is_continued: bool,
    pub(crate) ended_at: Timestamp,
    pub(crate) status: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) session: String,
}
