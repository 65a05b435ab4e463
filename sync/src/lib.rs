//! The agent: follows the files of a store and keeps PostgreSQL an exact replica of them.
//!
//! [`Agent`] is the way in. Files first: the writer never waits for the agent, the files are the
//! queue, and the cursor of each segment lies in the database, in the transaction of its rows. So
//! whatever either side goes back to, they agree.

mod agent;
mod apply;
pub mod backoff;
mod blobs;
mod checkpoints;
pub mod connect;
pub mod database;
mod deletion;
mod error;
mod field;
mod follow;
mod insert;
mod lines;
mod listing;
mod pass;
mod quarantine;
mod refresh;
mod replica;
mod restore;
mod rows;
pub mod schema;
mod ship;
pub mod sqlstate;
mod state;
mod status;
mod table;
mod texts;
mod wake;

pub use agent::{Agent, Report};
pub use blobs::BlobPolicy;
pub use connect::Target;
pub use error::SyncError;
pub use restore::{Inexact, MissingFile, Restored, Restoring, restore};
pub use state::{AgentState, Notice, SegmentState};
pub use status::{SegmentStatus, Status, status};
