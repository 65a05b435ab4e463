//! Persists in the background what the sessions of one store recorded.
//!
//! The writers do not wait for the disk: what is persisted is looked up under the writer's lock,
//! and waited for without it.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::fork::Process;
use crate::recorder::Recorder;
use crate::store::lock;

/// Shorter intervals would keep the thread busy with itself.
const INTERVAL_MIN: Duration = Duration::from_millis(1);
/// Longer ones have no moment on the clock at their end.
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);

/// The thread that persists; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Persister {
    live: Arc<Live>,
    thread: Option<JoinHandle<()>>,
    process: Process,
}

/// What the thread and its owner share.
#[derive(Debug, Default)]
struct Live {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    recorders: Vec<Watched>,
    stops: bool,
}

/// A recorder and when it is persisted next.
#[derive(Debug)]
struct Watched {
    recorder: Weak<Recorder>,
    due: Instant,
}

impl Persister {
    /// Starts the thread; it sleeps while nothing is recorded.
    pub(crate) fn start() -> io::Result<Self> {
        let live = Arc::new(Live::default());
        let shared = Arc::clone(&live);
        let thread = std::thread::Builder::new()
            .name("tidelog-persist".into())
            .spawn(move || shared.run())?;
        Ok(Self { live, thread: Some(thread), process: Process::this() })
    }

    /// Whether the thread runs in this process, and not in the one that forked it.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.process.is_this()
    }

    /// From now on it is persisted every interval, as long as it lives.
    pub(crate) fn watch(&self, recorder: &Arc<Recorder>) {
        let due = Instant::now() + interval(recorder);
        lock(&self.live.state).recorders.push(Watched { recorder: Arc::downgrade(recorder), due });
        self.live.changed.notify_one();
    }

    /// Hands what is buffered to the operating system, where readers find it.
    pub(crate) fn flush(&self) {
        for recorder in self.live.recorders(|_| true) {
            recorder.flush().ok(); // the lines stay buffered, and the writer finds out
        }
    }
}

impl Drop for Persister {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if !self.is_of_this_process() {
            std::mem::forget(thread); // a forked child has no such thread to wait for
            return;
        }
        lock(&self.live.state).stops = true;
        self.live.changed.notify_one();
        thread.join().ok();
    }
}

fn interval(recorder: &Recorder) -> Duration {
    recorder.options().persist_interval.clamp(INTERVAL_MIN, INTERVAL_MAX)
}

impl Live {
    fn run(&self) {
        while self.wait() {
            let now = Instant::now();
            for recorder in self.recorders(|watched| watched.due <= now) {
                recorder.persist_in_background();
                self.put_off(&recorder);
            }
        }
    }

    /// Sleeps until something is due; `false` if it is over.
    fn wait(&self) -> bool {
        let mut state = lock(&self.state);
        loop {
            let due = state.recorders.iter().map(|watched| watched.due).min();
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            state = match left {
                _ if state.stops => return false,
                Some(Duration::ZERO) => return true,
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// The recorders of this kind. Those that ended are forgotten.
    fn recorders(&self, is_wanted: impl Fn(&Watched) -> bool) -> Vec<Arc<Recorder>> {
        let mut state = lock(&self.state);
        state.recorders.retain(|watched| watched.recorder.strong_count() > 0);
        let wanted = state.recorders.iter().filter(|watched| is_wanted(watched));
        wanted.filter_map(|watched| watched.recorder.upgrade()).collect()
    }

    /// Due again an interval after it was persisted: a slow disk is not asked more than that.
    fn put_off(&self, recorder: &Arc<Recorder>) {
        for watched in &mut lock(&self.state).recorders {
            if std::ptr::eq(watched.recorder.as_ptr(), Arc::as_ptr(recorder)) {
                watched.due = Instant::now() + interval(recorder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durability::SessionOptions;
    use crate::entry::line;
    use crate::store::Store;

    const INTERVAL: Duration = Duration::from_millis(20);
    const PATIENCE: Duration = Duration::from_secs(20);

    fn recorder(folder: &std::path::Path, persist_interval: Duration) -> Arc<Recorder> {
        let options = SessionOptions { persist_interval, ..SessionOptions::default() };
        let store = Store::open(folder).unwrap();
        let root = store.root().to_owned();
        Arc::new(Recorder::begin(root, store.id(), None, options, &[]).unwrap())
    }

    fn record(recorder: &Recorder) {
        let line = serde_json::json!({});
        recorder.record(None, |_, buffer| line::write_checked(&line, buffer)).unwrap();
    }

    #[test]
    fn neither_other_sessions_nor_slower_ones_put_a_persist_off() {
        let folder = tempfile::tempdir().unwrap();
        let persister = Persister::start().unwrap();
        let slow = recorder(folder.path(), PATIENCE * 2);
        let quick = recorder(folder.path(), INTERVAL);
        persister.watch(&slow);
        persister.watch(&quick);
        let start = Instant::now();
        for _ in 0..3 {
            record(&quick);
            record(&slow);
            while !quick.is_persisted() {
                assert!(start.elapsed() < PATIENCE, "nothing was persisted");
                persister.watch(&recorder(folder.path(), INTERVAL)); // comes and goes
                std::thread::sleep(INTERVAL / 10);
            }
        }
        assert!(!slow.is_persisted());
    }
}
