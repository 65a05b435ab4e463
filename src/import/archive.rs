//! A predecessor's NPZ: `state_dict.npy`, mostly a pickled dict, and `basin_coords.npy`.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::pickle;
use crate::basin::BasinCoords;
use crate::checkpoint::array::{Array, Dtype};
use crate::checkpoint::npy::Npy;
use crate::checkpoint::npz::{Limits, NpzError, NpzReader};
use crate::value::Value;

const STATE: &str = "state_dict.npy";
const BASIN: &str = "basin_coords.npy";

/// What an archive of any size may unpack to, and how many times its own size a larger one.
/// Weights hardly shrink; only what was made to do harm grows a thousand times.
const UNPACKED_BYTES: u64 = 1 << 30;
const UNPACKED_BYTES_PER_BYTE: u64 = 64;

/// What an archive holds.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) state_dict: Value,
    pub(super) basin_coords: Option<BasinCoords>,
    /// Coordinates that are not 64 floats.
    pub(super) other_coords: Option<Value>,
    /// What a reader of the report should know.
    pub(super) notes: Vec<String>,
}

/// Reads an archive; nothing in it is run.
///
/// # Errors
/// Which member cannot be read, and why.
pub(super) fn read(path: &Path) -> Result<Archive, String> {
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let size = file.metadata().map_err(|error| format!("cannot be read: {error}"))?.len();
    let mut npz = NpzReader::open(BufReader::new(file), limits(size)).map_err(reason)?;
    let mut members: Vec<String> = npz.members().map(str::to_owned).collect();
    let coords = match position(&members, BASIN) {
        Some(at) => Some(read_member(&mut npz, &members.remove(at))?),
        None => None,
    };
    let mut archive = Archive {
        state_dict: Value::Null,
        basin_coords: coords.as_ref().and_then(as_coords),
        other_coords: None,
        notes: Vec::new(),
    };
    archive.other_coords =
        coords.filter(|value| archive.basin_coords.is_none() && *value != Value::Null);
    if archive.other_coords.is_some() {
        archive.notes.push("has basin_coords that are not 64 floats: kept as metadata".into());
    }
    archive.state_dict = match members.as_slice() {
        [] => return Err(format!("holds no {STATE}")),
        [only] if only == STATE => read_member(&mut npz, only)?,
        several => {
            archive.notes.push(format!(
                "holds other members than {STATE} and {BASIN}: its state is a dict of all of them"
            ));
            read_all(&mut npz, several)?
        }
    };
    Ok(archive)
}

fn limits(file_bytes: u64) -> Limits {
    let total_bytes = file_bytes.saturating_mul(UNPACKED_BYTES_PER_BYTE).max(UNPACKED_BYTES);
    let limits = Limits::default();
    Limits { total_bytes: total_bytes.min(limits.total_bytes), ..limits }
}

fn reason(error: NpzError) -> String {
    match error {
        NpzError::TooLarge { .. } => {
            format!("{error}; written by numpy.savez, without compression, it is taken")
        }
        other => other.to_string(),
    }
}

type Reader = NpzReader<BufReader<File>>;

fn position(members: &[String], name: &str) -> Option<usize> {
    members.iter().position(|member| member == name)
}

fn read_member(npz: &mut Reader, member: &str) -> Result<Value, String> {
    match npz.member(member).map_err(reason)? {
        Npy::Array(array) => Ok(Value::Array(array)),
        Npy::Objects { pickle } => {
            pickle::decode(&pickle).map_err(|error| format!("{member}: {error}"))
        }
    }
}

fn read_all(npz: &mut Reader, members: &[String]) -> Result<Value, String> {
    let mut state = Vec::new();
    for member in members {
        let name = member.strip_suffix(".npy").unwrap_or(member);
        state.push((name.into(), read_member(npz, member)?));
    }
    Ok(Value::Dict(state))
}

/// Coordinates kept as an array of floats or as a list of them.
fn as_coords(value: &Value) -> Option<BasinCoords> {
    let numbers: Vec<f64> = match value {
        Value::Array(array) if array.shape().len() == 1 => floats(array)?,
        Value::List(items) => items.iter().map(as_float).collect::<Option<_>>()?,
        _ => return None,
    };
    BasinCoords::try_from(numbers.as_slice()).ok()
}

fn floats(array: &Array) -> Option<Vec<f64>> {
    match array.dtype() {
        Dtype::Float64 => Some(array.to_ndarray::<f64>().ok()?.into_raw_vec_and_offset().0),
        Dtype::Float32 => {
            Some(array.to_ndarray::<f32>().ok()?.into_iter().map(f64::from).collect())
        }
        _ => None,
    }
}

fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number),
        _ => None,
    }
}
