//! Reading by a thread of its own, while what was read before is worked on.

use std::sync::mpsc;
use std::thread;

/// What may wait to be worked on: enough that neither side waits for the other where processors are
/// scarce. With what is being read and worked on, this is the memory that reading ahead takes.
const WAITING_MAX: usize = 8;

/// Works on what `read` gives, in its order. If there is no thread to be had, everything happens in
/// this one. When the work ends early, so does the reading.
pub(crate) fn read_ahead<I: Iterator<Item: Send>, T>(
    read: impl Fn() -> I + Sync,
    work: impl FnOnce(&mut dyn Iterator<Item = I::Item>) -> T,
) -> T {
    thread::scope(|scope| {
        let (sender, waiting) = mpsc::sync_channel(WAITING_MAX);
        let read = &read;
        let pass_on = move || read().try_for_each(|item| sender.send(item)).ok();
        let reading = thread::Builder::new().name("tidelog reader".into());
        match reading.spawn_scoped(scope, pass_on) {
            Ok(_) => work(&mut waiting.iter()),
            Err(_) => work(&mut read()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_comes_in_order_and_no_more_is_read_than_is_worked_on() {
        assert_eq!(read_ahead(|| 0..1000, |items| items.sum::<u32>()), 499_500);
        assert_eq!(read_ahead(|| 7.., |items| items.next()), Some(7));
    }
}
