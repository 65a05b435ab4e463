//! What the targets share: memory that is counted, and a segment to put lines into.
//!
//! Each target goes through calls that any user of the library can make, and asks more than "no
//! panic": what is read is written again and read as the same, and nothing takes more memory than
//! a stated multiple of its input.

mod heap;
mod segment;

pub use heap::within;
pub use segment::{HEADER, Row, Segment};

/// A folder in memory where there is one: the disk is not what is tested.
pub fn folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    folder.expect("a temporary folder")
}
