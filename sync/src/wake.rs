//! When does the agent look again? When a file changed, and at the latest after a second.
//!
//! A notification is a hint: systems drop them, and network file systems have none. The timer is
//! the rule.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

use crate::pulse;

/// The longest time between two looks.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest, so that a writer of many small lines gets few large batches.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// How soon a request to stop is noticed.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// Folders of segments below a store's folder.
pub(crate) const SEGMENT_FOLDERS: [&str; 2] = ["logs/telemetry", "logs/store"];

/// Waits for changes of a store's files.
pub(crate) struct Wake {
    changes: Receiver<()>,
    /// Keeps the channel open where there is no watcher.
    _sender: SyncSender<()>,
    /// None where the system has no notifications.
    watcher: Option<RecommendedWatcher>,
    /// Folders that were not there yet.
    unwatched: Vec<PathBuf>,
}

impl Wake {
    pub(crate) fn new(root: &Path) -> Self {
        let (sender, changes) = mpsc::sync_channel(1);
        let events = sender.clone();
        let on_event = move |event: notify::Result<Event>| {
            // The agent's own reading is no change.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                // A full channel holds a wake-up already.
                events.try_send(()).ok();
            }
        };
        let watcher = notify::recommended_watcher(on_event).ok();
        let unwatched = SEGMENT_FOLDERS.map(|folder| root.join(folder)).to_vec();
        Self { changes, _sender: sender, watcher, unwatched }
    }

    /// Until a folder is there, the timer looks at it.
    fn watch_new_folders(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            self.unwatched
                .retain(|folder| watcher.watch(folder, RecursiveMode::NonRecursive).is_err());
        }
    }

    /// Waits for a change, the timer or a request to stop.
    pub(crate) fn wait(&mut self, stop: &AtomicBool) {
        let start = Instant::now();
        self.watch_new_folders();
        pause(LOOK_INTERVAL_MIN, stop);
        while start.elapsed() < LOOK_INTERVAL && !stop.load(Ordering::Relaxed) {
            pulse::beat(STOP_INTERVAL);
            if self.changes.recv_timeout(STOP_INTERVAL).is_ok() {
                return;
            }
        }
    }
}

/// Waits for so long, or until a request to stop.
pub(crate) fn pause(time: Duration, stop: &AtomicBool) {
    let start = Instant::now();
    while start.elapsed() < time && !stop.load(Ordering::Relaxed) {
        pulse::beat(STOP_INTERVAL);
        thread::sleep(STOP_INTERVAL.min(time.saturating_sub(start.elapsed())));
    }
}

/// Whether files may have come to the folders of segments, or gone, since the last look.
#[derive(Debug, Default)]
pub(crate) struct FolderTimes {
    times: Vec<Option<std::time::SystemTime>>,
    looked_at: Option<Instant>,
}

/// A file that came in the same tick of the clock as the last look is found after so long.
const LIST_INTERVAL: Duration = Duration::from_secs(10);

impl FolderTimes {
    /// Whether it was seen that files came or went. Changes nothing.
    pub(crate) fn differ(&self, root: &Path) -> bool {
        self.times != Self::now(root)
    }

    /// Call before the folders are listed.
    pub(crate) fn changed(&mut self, root: &Path) -> bool {
        let times = Self::now(root);
        let is_recent = self.looked_at.is_some_and(|time| time.elapsed() < LIST_INTERVAL);
        if is_recent && times == self.times {
            return false;
        }
        self.times = times;
        self.looked_at = Some(Instant::now());
        true
    }

    fn now(root: &Path) -> Vec<Option<std::time::SystemTime>> {
        let modified = |folder: PathBuf| folder.metadata().and_then(|found| found.modified()).ok();
        SEGMENT_FOLDERS.iter().map(|folder| modified(root.join(folder))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_request_to_stop_ends_a_wait() {
        let folder = tempfile::tempdir().unwrap();
        let mut wake = Wake::new(folder.path());
        let start = Instant::now();
        pause(Duration::from_secs(60), &AtomicBool::new(true));
        wake.wait(&AtomicBool::new(true));
        assert!(start.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_folder_that_comes_later_is_watched() {
        let folder = tempfile::tempdir().unwrap();
        let mut wake = Wake::new(folder.path());
        fs::create_dir_all(folder.path().join(SEGMENT_FOLDERS[0])).unwrap();
        wake.wait(&AtomicBool::new(true));
        assert_eq!(wake.unwatched, [folder.path().join(SEGMENT_FOLDERS[1])]);
    }

    #[test]
    fn a_new_file_changes_the_folders() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join(SEGMENT_FOLDERS[0])).unwrap();
        let mut times = FolderTimes::default();
        assert!(times.changed(folder.path()));
        assert!(!times.changed(folder.path()));
        fs::create_dir_all(folder.path().join(SEGMENT_FOLDERS[1])).unwrap();
        assert!(times.changed(folder.path()));
    }
}
