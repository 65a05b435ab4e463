//! Where is the model state?
//!
//! A **checkpoint** is one NPZ file under `checkpoints/` that `numpy.load(allow_pickle=False)`
//! reads, and one journal entry with its size and SHA-256. Order on disk: the file under a
//! temporary name, persisted; its final name; the folder; then the journal entry, persisted. A
//! crash leaves a complete checkpoint, or a file that no entry names (an **orphan**, which
//! `verify` lists). A checkpoint is never a read position: that is a cursor.

pub mod array;
pub mod npy;
pub mod npz;

use std::fs::File;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::basin::{BASIN_DIMENSIONS, BasinCoords};
use crate::disk::{self, NewFile};
use crate::entry::CheckpointCreated;
use crate::error::{Error, Result};
use crate::hex::hex;
use crate::ids::CheckpointId;
use crate::timestamp::Timestamp;
use crate::value::Value;
use npz::{Compression, NpzError};

/// A checkpoint about to be saved.
#[derive(Debug, Clone)]
pub struct NewCheckpoint {
    /// None: one is made of time and Φ, as `checkpoint_20251218_143022_0.723`.
    pub checkpoint_id: Option<CheckpointId>,
    /// The step, if it belongs to one.
    pub step: Option<i64>,
    /// Φ of the state; checkpoints are ranked by it, NaN last.
    pub phi: f64,
    /// κ of the state.
    pub kappa: Option<f64>,
    /// Regime of the state.
    pub regime: Option<String>,
    /// The state's place in the basin.
    pub basin_coords: Option<BasinCoords>,
    /// The model's state, a tree with arrays at any depth.
    pub state_dict: Value,
    /// Whatever is to be kept with it.
    pub metadata: Option<Value>,
    /// How the arrays are kept in the file.
    pub compression: Compression,
}

impl NewCheckpoint {
    /// A checkpoint of this state; the other fields are public.
    pub fn new(state_dict: Value, phi: f64) -> Self {
        Self {
            checkpoint_id: None,
            step: None,
            phi,
            kappa: None,
            regime: None,
            basin_coords: None,
            state_dict,
            metadata: None,
            compression: Compression::Stored,
        }
    }
}

/// A checkpoint read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// What the journal says of it.
    pub created: CheckpointCreated,
    /// When it was saved.
    pub created_at: Timestamp,
    /// The model's state, equal to what was saved.
    pub state_dict: Value,
}

/// Where checkpoint files lie.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("checkpoints")
}

/// Writes the file of a new checkpoint, which [`expect`] gave the entry of; the entry with what is
/// known now. The file is persisted.
pub(crate) fn save(
    root: &Path,
    new: &NewCheckpoint,
    expected: CheckpointCreated,
) -> Result<CheckpointCreated> {
    let (checkpoint_id, path) = write_file(root, new, Timestamp::now())?;
    complete(expected, checkpoint_id, &path)
}

/// As [`save`], for an id that no journal entry names: if there is a file of it, a crash left it,
/// and it is taken if it holds the same state.
pub(crate) fn save_or_adopt(
    root: &Path,
    new: &NewCheckpoint,
    expected: CheckpointCreated,
) -> Result<CheckpointCreated> {
    let (checkpoint_id, path) = match write_file(root, new, Timestamp::now()) {
        Err(Error::CheckpointExists { id }) => {
            let path = folder(root).join(file_name(&id));
            if !holds(&path, new)? {
                return Err(Error::CheckpointExists { id });
            }
            (id, path)
        }
        written => written?,
    };
    complete(expected, checkpoint_id, &path)
}

/// Whether a file holds the state and the coordinates of a new checkpoint.
fn holds(path: &Path, new: &NewCheckpoint) -> Result<bool> {
    let file = disk::open(path).map_err(Error::io("open", path))?;
    let Ok((state_dict, coords)) = npz::read(file) else { return Ok(false) };
    let bits = |coords: &[f64; BASIN_DIMENSIONS]| coords.map(f64::to_bits);
    let same_coords =
        coords.as_ref().map(bits) == new.basin_coords.as_ref().map(|new| bits(new.as_array()));
    Ok(same_coords && state_dict == new.state_dict)
}

/// Puts into an entry what is known once its file is complete.
fn complete(
    expected: CheckpointCreated,
    checkpoint_id: CheckpointId,
    path: &Path,
) -> Result<CheckpointCreated> {
    let (size_bytes, sha256) = size_and_hash(path)?;
    let file = file_name(&checkpoint_id);
    Ok(CheckpointCreated { checkpoint_id, file, size_bytes, sha256, ..expected })
}

/// The entry of a new checkpoint before its file is written. Id, file, size and hash are as long as
/// they can become: if a line can hold this entry, it can hold the one that [`save`] makes of it.
pub(crate) fn expect(new: &NewCheckpoint) -> Result<CheckpointCreated> {
    let summary = new
        .state_dict
        .summary()
        .map_err(|error| Error::InvalidValue { what: "state_dict", reason: error.to_string() })?;
    let checkpoint_id = possible_ids(new, Timestamp::now()).longest();
    Ok(CheckpointCreated {
        file: file_name(&checkpoint_id),
        checkpoint_id,
        session_id: None,
        step: new.step,
        phi: Some(new.phi),
        kappa: new.kappa,
        regime: new.regime.clone(),
        basin_coords: new.basin_coords.clone(),
        state_dict: summary,
        metadata: new.metadata.clone(),
        size_bytes: u64::MAX,
        sha256: "0".repeat(64),
    })
}

/// Puts the file under the first free one of its possible names.
fn write_file(
    root: &Path,
    new: &NewCheckpoint,
    created_at: Timestamp,
) -> Result<(CheckpointId, PathBuf)> {
    let folder = folder(root);
    disk::create_folder(&folder)?;
    let ids = possible_ids(new, created_at);
    let mut path = folder.join(file_name(ids.first()));
    let mut file = NewFile::begin(&path)?;
    let basin_coords = new.basin_coords.as_ref().map(BasinCoords::as_array);
    npz::write(file.writer(), &new.state_dict, basin_coords, new.compression).map_err(
        |source| match source {
            NpzError::Io(source) => Error::io("write", &path)(source),
            source => Error::Npz { path: path.clone(), source },
        },
    )?;
    for id in ids.all() {
        path = folder.join(file_name(&id));
        file.rename(path.clone());
        match file.finish()? {
            None => return Ok((id, path)),
            Some(unfinished) => file = unfinished,
        }
    }
    Err(Error::CheckpointExists { id: ids.first().clone() })
}

/// Removes the file of a checkpoint whose entry could not be written: the next try would find it in
/// its way. It is an orphan if that fails, too.
pub(crate) fn take_back(root: &Path, file: &str) {
    disk::remove_unpersisted(&folder(root).join(file)).ok();
}

/// The ids that a new checkpoint may get, the preferred one first.
struct PossibleIds {
    first: CheckpointId,
    /// Number of the last one; the first has none.
    last: u32,
}

/// How many checkpoints of one second and one Φ get an id made for them.
const SAME_SECOND_MAX: u32 = 1000;

fn possible_ids(new: &NewCheckpoint, created_at: Timestamp) -> PossibleIds {
    match &new.checkpoint_id {
        Some(id) => PossibleIds { first: id.clone(), last: 1 },
        None => {
            let time = created_at.to_jiff().strftime("%Y%m%d_%H%M%S");
            let first = CheckpointId::unchecked(format!("checkpoint_{time}_{}", short(new.phi)));
            PossibleIds { first, last: SAME_SECOND_MAX }
        }
    }
}

/// Φ as part of an id: three digits, in powers of ten where there would be very many.
fn short(phi: f64) -> String {
    match phi.abs() < 1e9 || !phi.is_finite() {
        true => format!("{phi:.3}"),
        false => format!("{phi:.3e}"),
    }
}

impl PossibleIds {
    fn first(&self) -> &CheckpointId {
        &self.first
    }

    fn all(&self) -> impl Iterator<Item = CheckpointId> + '_ {
        (1..=self.last).map(|number| self.numbered(number))
    }

    fn longest(&self) -> CheckpointId {
        self.numbered(self.last)
    }

    fn numbered(&self, number: u32) -> CheckpointId {
        match number {
            1 => self.first.clone(),
            _ => CheckpointId::unchecked(format!("{}-{number}", self.first)),
        }
    }
}

fn file_name(id: &CheckpointId) -> String {
    format!("{}.npz", id.in_file_name())
}

/// Reads a checkpoint's file, after its size and hash were found to be those of the journal.
///
/// # Errors
/// The file is gone, or is not what the journal says.
pub(crate) fn load(root: &Path, created: &CheckpointCreated) -> Result<Value> {
    let path = path_of(root, &created.file)?;
    check(&path, created)?;
    let file = disk::open(&path).map_err(Error::io("open", &path))?;
    let (state_dict, _) =
        npz::read(file).map_err(|source| Error::Npz { path: path.clone(), source })?;
    Ok(state_dict)
}

/// Compares a file with its journal entry, by size and SHA-256.
pub(crate) fn check(path: &Path, created: &CheckpointCreated) -> Result<()> {
    let (size_bytes, sha256) = size_and_hash(path)?;
    let damaged = |reason| Err(Error::CheckpointDamaged { path: path.to_owned(), reason });
    if size_bytes != created.size_bytes {
        return damaged(format!("has {size_bytes} bytes, the journal says {}", created.size_bytes));
    }
    if sha256 != created.sha256 {
        return damaged(format!("has SHA-256 {sha256}, the journal says {}", created.sha256));
    }
    Ok(())
}

/// The path of a file that a journal entry names: inside the folder, whatever the entry says.
pub(crate) fn path_of(root: &Path, file: &str) -> Result<PathBuf> {
    let mut parts = Path::new(file).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => Ok(folder(root).join(name)),
        _ => Err(Error::InvalidValue {
            what: "checkpoint file",
            reason: format!("{file:?} is not a plain file name"),
        }),
    }
}

/// Opens the file that a journal entry names, to read it; its path, too. No link is followed, and
/// nothing is checked against the entry.
///
/// # Errors
/// The name leads out of the folder of checkpoints, or the file cannot be opened.
pub fn open_file(root: &Path, file: &str) -> Result<(PathBuf, File)> {
    let path = path_of(root, file)?;
    let opened = disk::open(&path).map_err(Error::io("open", &path))?;
    Ok((path, opened))
}

pub(crate) fn size_and_hash(path: &Path) -> Result<(u64, String)> {
    let mut file = disk::open(path).map_err(Error::io("open", path))?;
    let mut hasher = Sha256::new();
    let size = std::io::copy(&mut file, &mut hasher).map_err(Error::io("read", path))?;
    Ok((size, hex(&hasher.finalize())))
}
