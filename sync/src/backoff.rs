//! How long to wait before the next attempt: full jitter, so that a fleet does not come back at once.

use std::time::Duration;

const BASE: Duration = Duration::from_millis(500);

/// Doubles the bound of the wait with each failure in a row.
///
/// It decides and does not wait: the caller gives the random number and sleeps.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The longest wait after an ordinary failure.
    pub const CAP: Duration = Duration::from_secs(60);
    /// The longest wait while the server has no room or somebody has to act.
    pub const SLOW_CAP: Duration = Duration::from_secs(300);

    /// The wait before a long-running agent's first attempt, less than 15 s: many agents start
    /// together when a machine room does. A single run (`once`) starts without it.
    ///
    /// `random` is uniform over its whole range.
    #[must_use]
    pub fn first_delay(random: u16) -> Duration {
        jitter(Self::CAP / 4, random)
    }

    /// Counts a failure and gives the wait after it: less than 0.5 s, 1 s, 2 s … `cap`.
    ///
    /// `random` is uniform over its whole range.
    pub fn next_delay(&mut self, cap: Duration, random: u16) -> Duration {
        let bound = BASE.saturating_mul(2_u32.saturating_pow(self.failures)).min(cap);
        self.failures = self.failures.saturating_add(1);
        jitter(bound, random)
    }

    /// Starts over. Only a committed batch is progress; a connection alone is not, because a
    /// server that accepts and then fails would be asked without pause.
    pub fn batch_committed(&mut self) {
        self.failures = 0;
    }
}

/// The part `random` / 65536 of `bound`.
fn jitter(bound: Duration, random: u16) -> Duration {
    bound.saturating_mul(random.into()) / 65536
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: u16 = 32768;

    #[test]
    fn bound_doubles_up_to_the_cap() {
        let mut backoff = Backoff::default();
        let halves: Vec<_> =
            (0..9).map(|_| backoff.next_delay(Backoff::CAP, HALF).as_millis()).collect();
        assert_eq!(halves, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        backoff.next_delay(Backoff::SLOW_CAP, HALF);
        for _ in 0..100 {
            assert_eq!(backoff.next_delay(Backoff::SLOW_CAP, HALF), Duration::from_secs(150));
        }
    }

    #[test]
    fn jitter_reaches_down_to_nothing() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_delay(Backoff::CAP, 0), Duration::ZERO);
        assert!(backoff.next_delay(Backoff::CAP, u16::MAX) < BASE * 2);
        assert_eq!(Backoff::first_delay(HALF), Duration::from_millis(7500));
    }

    #[test]
    fn only_a_committed_batch_starts_over() {
        let mut backoff = Backoff::default();
        backoff.next_delay(Backoff::CAP, 7);
        backoff.next_delay(Backoff::CAP, 7);
        backoff.batch_committed();
        assert_eq!(backoff.next_delay(Backoff::CAP, HALF), BASE / 2);
    }
}
