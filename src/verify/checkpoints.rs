//! Checkpoint files against what the journal says of them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Verification;
use super::report::{Finding, FindingKind};
use crate::checkpoint;
use crate::checkpoint::npz::{Limits, NpzReader};
use crate::disk;
use crate::entry::{Action, CheckpointAction, CheckpointCreated};
use crate::error::{Error, Result};
use crate::ids::CheckpointId;
use crate::timestamp::Timestamp;
use crate::value::Value;

/// Files of the checkpoints' folder and entries of the journal, until both are known.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// Size in bytes by file name.
    files: BTreeMap<String, u64>,
    /// The newest creation of each checkpoint, which its file is of.
    created: BTreeMap<CheckpointId, Created>,
    /// When each checkpoint was last pruned.
    pruned: HashMap<CheckpointId, Timestamp>,
}

/// An entry, and the line where it stands.
#[derive(Debug)]
struct Created {
    entry: CheckpointCreated,
    at: Timestamp,
    segment: PathBuf,
    line: u32,
}

impl Checkpoints {
    /// Lists the files that are there now.
    pub(super) fn list(root: &Path) -> Result<Self> {
        let folder = checkpoint::folder(root);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            entries => entries.map_err(Error::io("list", &folder))?,
        };
        let mut files = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".npz") {
                files.insert(name, entry.metadata().map_or(0, |found| found.len()));
            }
        }
        Ok(Self { files, ..Self::default() })
    }

    pub(super) fn bytes_total(&self) -> u64 {
        self.files.values().sum()
    }

    pub(super) fn created(
        &mut self,
        segment: &Path,
        line: u32,
        at: Timestamp,
        entry: &CheckpointCreated,
    ) {
        let found = self.created.get(&entry.checkpoint_id);
        if found.is_some_and(|found| (found.at, &found.entry.sha256) > (at, &entry.sha256)) {
            return;
        }
        // the state's summary may be long and is not asked for here
        let entry = CheckpointCreated { state_dict: Value::Null, metadata: None, ..entry.clone() };
        let id = entry.checkpoint_id.clone();
        let segment = segment.to_owned();
        self.created.insert(id, Created { entry, at, segment, line });
    }

    pub(super) fn action(&mut self, at: Timestamp, action: &CheckpointAction) {
        if action.action == Action::Pruned {
            let pruned = self.pruned.entry(action.checkpoint_id.clone()).or_insert(at);
            *pruned = at.max(*pruned);
        }
    }
}

impl Verification<'_> {
    /// Runs once all entries are known.
    pub(super) fn checkpoint_files(&mut self) {
        let Checkpoints { mut files, created, pruned } = std::mem::take(&mut self.checkpoints);
        for (id, created) in created {
            let bytes = files.remove(&created.entry.file);
            let is_pruned = pruned.get(&id).is_some_and(|pruned| *pruned >= created.at);
            match (is_pruned, bytes) {
                (false, _) => self.checkpoint_file(&created),
                (true, Some(_)) => self.pruned_file(&created),
                (true, None) => {}
            }
            self.advance(bytes.unwrap_or(0));
        }
        for file in files.into_keys() {
            self.found(Finding::new(
                FindingKind::CheckpointOrphan,
                &checkpoint::folder(self.root).join(file),
                "no journal entry names it: its program died while it saved, or the file came \
                 from elsewhere"
                    .into(),
                "move it away if nobody misses it; nothing reads it",
            ));
        }
    }

    fn pruned_file(&mut self, created: &Created) {
        let path = checkpoint::folder(self.root).join(&created.entry.file);
        if !path.exists() {
            return; // it was pruned after the files were listed
        }
        self.found(Finding::new(
            FindingKind::CheckpointUnremoved,
            &path,
            "is of a pruned checkpoint: its program died before it removed the file".into(),
            "prune the checkpoint again, or remove the file",
        ));
    }

    fn checkpoint_file(&mut self, created: &Created) {
        let kind = match self.read_checkpoint(&created.entry) {
            Ok(bytes) => {
                self.report.checkpoints += 1;
                self.report.checkpoint_bytes += bytes;
                return;
            }
            Err(error) => error,
        };
        let (kind, reason) = match kind {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                (FindingKind::CheckpointMissing, "is gone and was not pruned".to_owned())
            }
            Error::CheckpointDamaged { reason, .. } => (FindingKind::CheckpointDamaged, reason),
            Error::Npz { source, .. } => (FindingKind::CheckpointDamaged, source.to_string()),
            other => (FindingKind::CheckpointDamaged, other.to_string()),
        };
        let segment = self.relative(&created.segment);
        let entry = format!("entry: {} line {}", segment.display(), created.line);
        let path = checkpoint::folder(self.root).join(&created.entry.file);
        let remedy = "copy the file back from a backup";
        self.found(Finding::new(kind, &path, format!("{reason} ({entry})"), remedy));
    }

    /// Size and SHA-256, then every member, one at a time.
    fn read_checkpoint(&self, created: &CheckpointCreated) -> Result<u64> {
        let path = checkpoint::path_of(self.root, &created.file)?;
        checkpoint::check(&path, created)?;
        let file = disk::open(&path).map_err(Error::io("open", &path))?;
        let failed = |source| Error::Npz { path: path.clone(), source };
        let mut npz = NpzReader::open(file, Limits::default()).map_err(failed)?;
        let members: Vec<String> = npz.members().map(str::to_owned).collect();
        for member in members {
            npz.check(&member).map_err(failed)?;
        }
        Ok(created.size_bytes)
    }
}
