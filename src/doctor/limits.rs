//! What does the system allow this process?

use super::{Finding, Level, size};

#[cfg(unix)]
pub(super) fn findings() -> Vec<Finding> {
    use rustix::process::{Resource, getrlimit};
    let open_files = getrlimit(Resource::Nofile).current;
    let found = [
        Some(open_files_finding(open_files)),
        file_bytes_max().map(file_size),
        watches_max().map(watches_finding),
    ];
    found.into_iter().flatten().collect()
}

/// The longest file that this process may write; none if any.
#[cfg(unix)]
pub(super) fn file_bytes_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current
}

/// There is nobody to ask.
#[cfg(not(unix))]
pub(super) fn file_bytes_max() -> Option<u64> {
    None
}

/// There is nobody to ask.
#[cfg(not(unix))]
pub(super) fn findings() -> Vec<Finding> {
    Vec::new()
}

/// A session holds about five files open, and a training program has its own.
const OPEN_FILES_LOW: u64 = 256;
/// Not even a short session fits into less, nor what SQLite puts beside an index to read it.
pub(super) const FILE_BYTES_MIN: u64 = 1 << 20;
/// The agent watches two folders, and other programs of the user count too.
const WATCHES_LOW: u64 = 64;

fn open_files_finding(limit: Option<u64>) -> Finding {
    let finding = |level, text: String| Finding::new("limits", level, text);
    match limit {
        Some(limit) if limit < OPEN_FILES_LOW => {
            finding(Level::Warning, format!("{limit} open files at most"))
                .meaning("a program that opens more cannot record: it gets \"too many open files\"")
                .remedy(format!("ulimit -n {OPEN_FILES_LOW}, or more"))
        }
        Some(limit) => finding(Level::Ok, format!("{limit} open files at most")),
        None => finding(Level::Ok, "any number of open files".into()),
    }
}

/// The system kills a program that writes more, unless it ignores the signal.
fn file_size(limit: u64) -> Finding {
    let level = if limit < FILE_BYTES_MIN { Level::Problem } else { Level::Warning };
    Finding::new("limits", level, format!("files of {} at most", size(limit)))
        .meaning("the system may end a program that writes a larger file, such as a checkpoint")
        .remedy("ulimit -f unlimited")
}

fn watches_finding(watches: u64) -> Finding {
    let text = format!("{watches} watched files at most");
    match watches < WATCHES_LOW {
        false => Finding::new("limits", Level::Ok, text),
        true => Finding::new("limits", Level::Note, text)
            .meaning("an agent without watches still looks every second")
            .remedy("sysctl fs.inotify.max_user_watches=65536"),
    }
}

/// Linux tells it in a file.
#[cfg(unix)]
fn watches_max() -> Option<u64> {
    std::fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_limits_are_told_with_the_command_that_raises_them() {
        let open_files = open_files_finding(Some(64));
        assert_eq!(open_files.level, Level::Warning);
        assert_eq!(open_files.remedy.unwrap(), "ulimit -n 256, or more");
        assert_eq!(open_files_finding(Some(1024)).level, Level::Ok);
        assert_eq!(open_files_finding(None).level, Level::Ok);
        assert_eq!(file_size(1 << 30).found, "files of 1.0 GiB at most");
        assert_eq!(
            [1 << 10, 1 << 30].map(|b| file_size(b).level),
            [Level::Problem, Level::Warning]
        );
        assert_eq!(watches_finding(8).level, Level::Note);
    }
}
