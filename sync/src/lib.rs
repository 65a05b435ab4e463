//! The agent: follows the files of a store and keeps PostgreSQL an exact replica of them.
//!
//! [`Agent`] is the way in. Files first: the writer never waits for the agent, the files are the
//! queue, and the cursor of each segment lies in the database, in the transaction of its rows. So
//! whatever either side goes back to, they agree.

mod agent;
mod apply;
pub mod backoff;
mod checkpoints;
pub mod connect;
pub mod database;
mod deletion;
mod error;
mod field;
mod follow;
mod insert;
mod listing;
mod pass;
mod quarantine;
mod refresh;
mod replica;
mod rows;
pub mod schema;
mod ship;
pub mod sqlstate;
mod state;
mod status;
mod table;
mod texts;
mod verify;
mod wake;

pub use agent::{Agent, Report};
pub use connect::Target;
pub use error::SyncError;
pub use state::{AgentState, Notice, SegmentState};
pub use status::{SegmentStatus, Status, status};
pub use verify::{
    DIFFERENCES_MAX, Difference, DifferenceKind, SegmentVerification, Verdict, Verification,
    VerifyProgress, verify,
};
