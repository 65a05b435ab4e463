#![doc = include_str!("../README.md")]

mod basin;
pub mod checkpoint;
mod disk;
pub mod doctor;
mod durability;
mod emergency;
mod entry;
mod error;
mod filesystem;
mod float;
mod follower_lock;
mod fork;
mod hex;
mod ids;
pub mod import;
mod index;
pub mod journal;
mod leftovers;
mod persister;
mod query;
mod recorder;
pub mod restore;
mod retention;
mod session;
mod status;
mod store;
mod telemetry;
mod timestamp;
pub mod value;
pub mod verify;

pub use basin::{BASIN_DIMENSIONS, BasinCoords};
pub use checkpoint::array::Array;
pub use checkpoint::{Checkpoint, NewCheckpoint};
pub use durability::{
    BUFFER_BYTES, Durability, Missed, OnMissed, PERSIST_INTERVAL, Recorded, SEGMENT_BYTES_MAX,
    SessionOptions,
};
pub use entry::line::{LINE_BYTES_MAX, LINE_VALUES_MAX, LineError};
pub use entry::{
    Action, BasinPoint, Body, CheckpointAction, CheckpointCreated, Emergency, EndedPart, Entry,
    Gap, Outcome, Record, SessionEnded, SessionStarted,
};
pub use error::{Error, Result};
pub use follower_lock::{FollowerLock, FollowerTurn};
pub use ids::{CheckpointId, EventId, ID_BYTES_MAX, InvalidId, SegmentId, SessionId, StoreId};
pub use index::Progress;
pub use query::{
    CheckpointRow, EmergencyRow, GapRow, SessionRow, SessionStats, SqlValue, TrajectoryPoint,
};
pub use session::Session;
pub use status::{LiveWriter, RefusedFile, Status};
pub use store::Store;
pub use telemetry::{FLOAT_FIELDS, Telemetry};
pub use timestamp::{InvalidTimestamp, Timestamp};
pub use value::{ArrayPlace, ArrayRef, BigInt, Summary, SummaryKind, Value, ValueError};
pub use verify::{FINDINGS_MAX, Finding, FindingKind, VerifyReport};
