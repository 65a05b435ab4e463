//! Which files of a predecessor's folder are to be read?

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::report::{Area, Recorder};
use crate::error::{Error, Result};

/// Most entries of one folder that are looked at.
const FOLDER_ENTRIES_MAX: usize = 1_000_000;

/// Where each kind lies relative to the folder, with how names begin and end. A folder without
/// the predecessor's own subfolders may hold the files itself.
const PLACES: [(Area, &str, &str, &str); 9] = [
    (Area::Telemetry, "logs/telemetry", "session_", ".jsonl"),
    (Area::Telemetry, "telemetry", "session_", ".jsonl"),
    (Area::Telemetry, "", "session_", ".jsonl"),
    (Area::Emergencies, "logs/emergency", "", ".json"),
    (Area::Emergencies, "emergency_logs", "", ".json"),
    (Area::Emergencies, "emergency", "", ".json"),
    (Area::Emergencies, "", "emergency_", ".json"),
    (Area::Checkpoints, "checkpoints", "", ".npz"),
    (Area::Checkpoints, "", "checkpoint_", ".npz"),
];

/// Files to be read, each kind by folder and name.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) telemetry: Vec<PathBuf>,
    pub(super) emergencies: Vec<PathBuf>,
    pub(super) checkpoints: Vec<PathBuf>,
}

/// Looks for the predecessor's files. Links, folders and pipes of a matching name are refused, and
/// so is a folder inside that cannot be listed.
///
/// # Errors
/// The folder itself cannot be listed, or holds nothing of the kind.
pub(super) fn look(folder: &Path, recorder: &mut Recorder) -> Result<Found> {
    fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let mut found = Found::default();
    for (area, place, prefix, ending) in PLACES {
        let inside = folder.join(place);
        let paths = match matching(&inside, prefix, ending) {
            Ok(paths) => paths,
            Err(error) => {
                recorder.refuse(area, &inside, error.to_string())?;
                continue;
            }
        };
        for path in paths {
            recorder.report.counts(area).files += 1;
            match irregular(&path) {
                Some(reason) => recorder.refuse(area, &path, reason)?,
                None => found.of(area).push(path),
            }
        }
    }
    let counts = &recorder.report;
    let files = counts.telemetry.files + counts.emergencies.files + counts.checkpoints.files;
    if files + counts.refused() == 0 {
        return Err(Error::InvalidValue {
            what: "import",
            reason: format!(
                "found nothing in {}: no logs/telemetry/session_*.jsonl, no logs/emergency/*.json \
                 or emergency_logs/*.json, no checkpoints/*.npz; name the folder that holds these",
                folder.display()
            ),
        });
    }
    Ok(found)
}

impl Found {
    fn of(&mut self, area: Area) -> &mut Vec<PathBuf> {
        match area {
            Area::Telemetry => &mut self.telemetry,
            Area::Emergencies => &mut self.emergencies,
            Area::Checkpoints => &mut self.checkpoints,
        }
    }

    /// Size of all files together, for progress.
    pub(super) fn bytes(&self) -> u64 {
        let all = self.telemetry.iter().chain(&self.emergencies).chain(&self.checkpoints);
        all.filter_map(|path| fs::metadata(path).ok()).map(|found| found.len()).sum()
    }
}

/// The entries of a folder with such a name, by name; none if there is no folder.
fn matching(folder: &Path, prefix: &str, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        entries => entries.map_err(Error::io("list", folder))?,
    };
    let mut paths = Vec::new();
    for (count, entry) in entries.enumerate() {
        if count >= FOLDER_ENTRIES_MAX {
            let reason = format!("has more than {FOLDER_ENTRIES_MAX} entries; import it in parts");
            return Err(Error::io("list", folder)(io::Error::other(reason)));
        }
        let path = entry.map_err(Error::io("list", folder))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if name.starts_with(prefix) && name.ends_with(ending) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Why an entry of a folder is no file to be read.
fn irregular(path: &Path) -> Option<String> {
    let kind = match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => return None,
        Ok(found) if found.is_symlink() => "a symbolic link; import the folder that it leads to",
        Ok(found) if found.is_dir() => "a folder",
        Ok(_) => "no regular file",
        Err(error) => return Some(format!("cannot be inspected: {error}")),
    };
    Some(format!("is {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_at(folder: &Path) -> Result<(Found, u64)> {
        let mut recorder = Recorder::new(folder, folder, true);
        let found = look(folder, &mut recorder)?;
        Ok((found, recorder.report.refused()))
    }

    #[test]
    fn files_lie_in_their_folders_or_in_the_folder_itself() {
        let folder = tempfile::tempdir().unwrap();
        for file in [
            "logs/telemetry/session_1.jsonl",
            "session_2.jsonl",
            "emergency_logs/x.json",
            "emergency_1.json",
            "checkpoints/c.npz",
            "checkpoints/c_metadata.json",
            "logs/telemetry/other.jsonl",
        ] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let (found, refused) = look_at(folder.path()).unwrap();
        let lengths = (found.telemetry.len(), found.emergencies.len(), found.checkpoints.len());
        assert_eq!((lengths, refused), ((2, 2, 1), 0));
    }

    #[cfg(unix)]
    #[test]
    fn links_folders_and_what_is_no_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("session_1.jsonl")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("session_2.jsonl")).unwrap();
        let socket = folder.path().join("session_3.jsonl");
        let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        let (found, refused) = look_at(folder.path()).unwrap();
        assert_eq!((found.telemetry.len(), refused), (0, 3));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_cannot_be_listed_is_refused_and_the_others_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = folder.path().join("checkpoints");
        std::os::unix::fs::symlink(&checkpoints, &checkpoints).unwrap(); // leads to itself
        let (found, refused) = look_at(folder.path()).unwrap();
        assert_eq!((found.telemetry.len(), refused), (0, 1));
        fs::write(folder.path().join("session_1.jsonl"), "").unwrap();
        let (found, refused) = look_at(folder.path()).unwrap();
        assert_eq!((found.telemetry.len(), refused), (1, 1));
    }

    #[test]
    fn an_empty_folder_is_an_error_that_names_what_is_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let error = look_at(folder.path()).unwrap_err().to_string();
        assert!(error.contains("session_*.jsonl"), "{error}");
    }
}
