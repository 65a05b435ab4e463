//! What happened, in order?
//!
//! The **journal** of a store is all of its **segments**. A segment is one JSONL file with one
//! writer process, ever: line 0 is its [`Header`], every other line is one [`Entry`](crate::Entry).
//! A record's identity is (segment id, line number). A line without its newline is a **torn
//! tail**: it never becomes an entry.
//!
//! `writer` appends, `reader` reads **batches** from a [`Cursor`] and never writes,
//! `recovery` cuts the torn tail of a dead writer under its lock. The journal knows nothing of
//! sessions' rules, of the index or of any database.

mod ahead;
mod batch;
mod cursor;
mod discover;
pub(crate) mod marker;
mod reader;
pub(crate) mod recovery;
mod reserve;
mod segment;
pub(crate) mod whole;
pub(crate) mod writer;

pub(crate) use ahead::read_ahead;
pub use batch::{Batch, BatchLimits, Content, Line};
pub use cursor::{ChainHash, Cursor};
pub use discover::{Listing, Refused, Segment, discover};
pub(crate) use discover::{is_deleted, last_attempt, read_header, segment_files};
pub use reader::SegmentReader;
pub use segment::{FORMAT_VERSION, Header, Source, Writer};
pub(crate) use segment::{store_folder, telemetry_folder};
