//! Whose lines these are.

use postgres::Row;
use tidelog::{SegmentId, SessionId};
use uuid::Uuid;

use crate::database::DatabaseError;

/// A segment as the replica knows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    pub(crate) store_no: i32,
    pub(crate) segment_no: i32,
    pub(crate) segment: SegmentId,
    pub(crate) session: Option<SessionId>,
    pub(crate) attempt: Option<i32>,
    /// The first line that is the segment's own: 0, or where it parted from another one.
    pub(crate) first_line: u32,
}

impl Place {
    /// The columns that [`read`](Self::read) wants first, of `sync_segments` as `g`.
    pub(crate) const COLUMNS: &str =
        "g.store_no, g.segment_no, g.segment_id, g.session_id, g.attempt, g.parent_line";

    pub(crate) fn read(row: &Row) -> Result<Self, DatabaseError> {
        let session: Option<String> = row.try_get(3)?;
        let parent_line: Option<i32> = row.try_get(5)?;
        Ok(Self {
            store_no: row.try_get(0)?,
            segment_no: row.try_get(1)?,
            segment: SegmentId::from(row.try_get::<_, Uuid>(2)?),
            // An id that is none was written by somebody else, and its lines stay refused.
            session: session.and_then(|session| SessionId::new(session).ok()),
            attempt: row.try_get(4)?,
            first_line: parent_line.and_then(|line| u32::try_from(line).ok()).unwrap_or_default(),
        })
    }
}
