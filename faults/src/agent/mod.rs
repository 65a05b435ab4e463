//! What is between the files and PostgreSQL is broken: the agent, the server, the line between them.
//!
//! Each harness makes servers of its own, lets programs write stores, lets agents follow them, and
//! breaks something meanwhile. Then the `oracle` compares what the files say, read without the
//! library, with what the database holds: the same lines, each once, and the cursor at the end; and
//! at any moment before, exactly the lines before the cursor.

mod content;
mod crash;
mod databases;
mod expected;
mod fold;
mod follower;
mod found;
mod model;
mod oracle;
mod partition;
mod pooler;
mod proxy;
mod refused;
mod rewind;
mod senders;
mod server;
mod stall;
mod wire;
mod world;
mod writers;

use rustix::process::{Signal, kill_process};

use crate::Result;

pub use crash::run as crash;
pub use follower::Follow;
pub use model::run as model;
pub use oracle::{exact, prefix};
pub use partition::run as partition;
pub use pooler::{ClientCertificates, Pooler, run as pooler};
pub use proxy::run as proxy;
pub use refused::run as disk;
pub use rewind::run as rewind;
pub use stall::run as stall;

/// Sends a signal to a process.
fn signal(process: u32, signal: Signal) -> Result<()> {
    Ok(kill_process(server::pid(process)?, signal)?)
}
