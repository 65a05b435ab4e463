//! Does the loop still move?
//!
//! Each thread that follows a store has a pulse. The loop says before each thing that may take time
//! how long that takes at most, so a wait for a hung server is life, and a loop that is stuck is not.
//! It does not depend on the database: an outage must not get the agent killed.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Instants are counted from here.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    static PULSE: RefCell<Option<Arc<Pulse>>> = const { RefCell::new(None) };
}

/// The moment by which a loop will beat again.
#[derive(Debug)]
pub struct Pulse {
    /// Milliseconds after [`START`].
    due: AtomicU64,
}

impl Pulse {
    /// A pulse that beats now.
    #[must_use]
    pub fn begin() -> Arc<Self> {
        Arc::new(Self { due: AtomicU64::new(milliseconds(Duration::ZERO)) })
    }

    /// Makes it the pulse of this thread.
    pub fn adopt(self: &Arc<Self>) {
        PULSE.with_borrow_mut(|pulse| *pulse = Some(Arc::clone(self)));
    }

    /// Whether the loop moved when it said, or is late by less than `grace`: what has no limit of
    /// its own, such as reading a file, must fit in there.
    #[must_use]
    pub fn is_alive(&self, grace: Duration) -> bool {
        let due = Duration::from_millis(self.due.load(Ordering::Relaxed));
        START.elapsed() <= due.saturating_add(grace)
    }
}

/// The loop of this thread moves, and will again within so long. Nothing on a thread without a pulse.
pub(crate) fn beat(within: Duration) {
    PULSE.with_borrow(|pulse| {
        if let Some(pulse) = pulse {
            pulse.due.store(milliseconds(within), Ordering::Relaxed);
        }
    });
}

fn milliseconds(from_now: Duration) -> u64 {
    u64::try_from(START.elapsed().saturating_add(from_now).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_alive_as_long_as_it_said() {
        let pulse = Pulse::begin();
        pulse.adopt();
        std::thread::sleep(Duration::from_millis(30));
        assert!(!pulse.is_alive(Duration::from_millis(10)));
        beat(Duration::from_secs(60));
        assert!(pulse.is_alive(Duration::ZERO));
        assert!(Pulse::begin().is_alive(Duration::from_secs(1)));
    }
}
