//! Many short runs at once: as many as there are processors.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Report, Result};

/// What came out of all the work together, or the first error of a harness.
pub(crate) fn each<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<Report> + Sync,
) -> Result<Report> {
    let (next, report) = (AtomicUsize::new(0), Mutex::new(Ok(Report::default())));
    let take = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let done = work(item);
            let Ok(mut report) = report.lock() else { return };
            match (report.as_mut(), done) {
                (Ok(report), Ok(done)) => report.merge(done),
                (Ok(_), Err(error)) => *report = Err(error),
                (Err(_), _) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(take);
        }
    });
    report.into_inner().map_err(|_| "a thread of the harness panicked")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_done_and_counted_unless_the_harness_fails() {
        let one = |_: &i32| Ok(Report { executed: 1, ..Report::default() });
        assert_eq!(each(&[0; 50], one).unwrap().executed, 50);
        let failing = |item: &i32| if *item == 7 { Err("broken".into()) } else { one(item) };
        assert!(each(&(0..50).collect::<Vec<_>>(), failing).is_err());
    }
}
