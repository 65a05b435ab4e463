//! The agent: follows the files of a store and keeps PostgreSQL an exact replica of them.
//!
//! [`Agent`] is the way in. Files first: the writer never waits for the agent, the files are the
//! queue, and the cursor of each segment lies in the database, in the transaction of its rows. So
//! whatever either side goes back to, they agree.

mod agent;
mod applied;
mod apply;
pub mod backoff;
mod blobs;
mod breaker;
mod checkpoints;
pub mod config;
pub mod connect;
pub mod database;
mod deletion;
mod error;
mod field;
mod follow;
mod fork;
mod gaps;
mod insert;
mod lines;
mod listing;
mod memory;
mod part;
mod pass;
mod place;
mod progress;
pub mod pulse;
mod quarantine;
mod refresh;
mod rehome;
mod replica;
mod reprocess;
mod restore;
mod retention;
pub mod rights;
mod rows;
pub mod schema;
pub mod service;
mod ship;
pub mod sqlstate;
mod state;
mod status;
mod table;
mod texts;
mod turns;
mod verify;
pub mod wait;
mod wake;

pub use agent::{Agent, DRAIN_TIMEOUT, Report};
pub use applied::AppliedBatch;
pub use blobs::BlobPolicy;
pub use breaker::{POISON_LIMIT, TooMuch};
pub use connect::Target;
pub use error::SyncError;
pub use gaps::Gap;
pub use memory::{NewTarget, state_folder};
pub use quarantine::{Quarantine, QuarantinedLine, Retried, Selection};
pub use restore::{Inexact, MissingFile, Restored, Restoring, restore};
pub use retention::{Retained, Retention};
pub use state::{AgentState, Notice, SegmentState};
pub use status::{SegmentStatus, Status, status};
pub use turns::Turns;
pub use verify::{
    DIFFERENCES_MAX, Difference, DifferenceKind, SegmentVerification, Verdict, Verification,
    VerifyProgress, verify,
};
