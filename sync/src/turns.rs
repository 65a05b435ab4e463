//! Fewer connections than stores: agents take turns.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::pulse;

/// How soon one that waits notices that it need not any more.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// An agent with much to send leaves its turn to others after so long.
const TURN: Duration = Duration::from_secs(5);

/// The connections that the agents of a process may have at once.
#[derive(Debug)]
pub struct Turns {
    queue: Mutex<Queue>,
    freed: Condvar,
}

#[derive(Debug)]
struct Queue {
    free: usize,
    next_ticket: u64,
    waiting: VecDeque<u64>,
}

/// The right to be connected, until dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    since: Instant,
}

impl Turns {
    /// So many agents may be connected at once, at least one.
    #[must_use]
    pub fn new(connections_max: usize) -> Arc<Self> {
        let free = connections_max.max(1);
        let queue = Mutex::new(Queue { free, next_ticket: 0, waiting: VecDeque::new() });
        Arc::new(Self { queue, freed: Condvar::new() })
    }

    /// Waits for a turn, first come, first served; none if `gives_up` says so before.
    pub(crate) fn take(self: &Arc<Self>, gives_up: impl Fn() -> bool) -> Option<Turn> {
        let mut queue = self.lock();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.push_back(ticket);
        while queue.free == 0 || queue.waiting.front() != Some(&ticket) {
            if gives_up() {
                queue.waiting.retain(|other| *other != ticket);
                self.freed.notify_all();
                return None;
            }
            pulse::beat(LOOK_INTERVAL);
            let waited = self.freed.wait_timeout(queue, LOOK_INTERVAL);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.waiting.pop_front();
        queue.free -= 1;
        self.freed.notify_all();
        Some(Turn { turns: Arc::clone(self), since: Instant::now() })
    }

    /// A thread that panicked under the lock left numbers that still hold.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Whether somebody waits for it.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.turns.lock().waiting.is_empty()
    }

    /// Whether somebody waits for it, and it lasted long enough to be left in the middle.
    pub(crate) fn is_over(&self) -> bool {
        self.since.elapsed() >= TURN && self.is_wanted()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().free += 1;
        self.turns.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn turns_are_given_in_the_order_of_asking() {
        let turns = Turns::new(1);
        let first = turns.take(|| false).unwrap();
        assert!(!first.is_wanted() && turns.take(|| true).is_none());
        let (sender, order) = mpsc::channel();
        thread::scope(|scope| {
            for number in 0..4 {
                let (turns, sender) = (&turns, sender.clone());
                scope.spawn(move || {
                    let _turn = turns.take(|| false).unwrap();
                    sender.send(number).unwrap();
                });
                while turns.lock().waiting.len() <= number {
                    thread::yield_now();
                }
            }
            assert!(first.is_wanted() && !first.is_over());
            drop(first);
        });
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}
