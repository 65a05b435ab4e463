//! Is this still the process that it was?
//!
//! A forked child inherits memory, locks and file offsets of its parent and must not write with
//! them. To ask for the process id at each record would be a system call; the C library tells a
//! child of its birth instead.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts the forks between the program's start and this process.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// A process, as its child knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    forks: u32,
    /// Where nobody tells of forks.
    pid: Option<u32>,
}

impl Process {
    /// The one that runs now.
    pub(crate) fn this() -> Self {
        static HEARS: OnceLock<bool> = OnceLock::new();
        let hears = *HEARS.get_or_init(listen);
        let pid = (!hears).then(std::process::id);
        Self { forks: FORKS.load(Ordering::Relaxed), pid }
    }

    /// Whether it is the one that runs now, and no child of it.
    pub(crate) fn is_this(self) -> bool {
        self.forks == FORKS.load(Ordering::Relaxed)
            && self.pid.is_none_or(|pid| pid == std::process::id())
    }
}

/// Whether every child will be told.
#[cfg(unix)]
#[expect(unsafe_code, reason = "there is no safe way to be told of a fork")]
fn listen() -> bool {
    extern "C" fn in_the_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the handler does nothing but add to an atomic, which is allowed between fork and exec.
    unsafe { libc::pthread_atfork(None, None, Some(in_the_child)) == 0 }
}

/// There are no forks.
#[cfg(not(unix))]
fn listen() -> bool {
    true
}
