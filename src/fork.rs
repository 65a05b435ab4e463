//! Is this still the process that it was?
//!
//! A forked child inherits memory, locks and file offsets of its parent and must not write with
//! them. To ask for the process id at each record would be a system call; the C library tells a
//! child of its birth instead.

#[cfg(unix)]
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts the forks between the program's start and this process.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// A process, as its child knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    /// The one that runs now.
    pub(crate) fn this() -> Self {
        listen();
        Self(FORKS.load(Ordering::Relaxed))
    }

    /// Whether it is the one that runs now, and no child of it.
    pub(crate) fn is_this(self) -> bool {
        self.0 == FORKS.load(Ordering::Relaxed)
    }
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "there is no safe way to be told of a fork")]
fn listen() {
    static LISTENS: Once = Once::new();
    extern "C" fn in_the_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the handler does nothing but add to an atomic, which is allowed between fork and exec.
    LISTENS.call_once(|| unsafe {
        libc::pthread_atfork(None, None, Some(in_the_child));
    });
}

#[cfg(not(unix))]
fn listen() {}
