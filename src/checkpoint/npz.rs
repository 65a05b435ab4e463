//! How is a checkpoint stored? As an NPZ: a ZIP archive of NPY files.
//!
//! - `tree.npy`: the state's tree as JSON in a uint8 array; arrays are references to members.
//! - `basin_coords.npy`: float64 of shape (64,), where there are any.
//! - `state/….npy`: one member per array, named after the keys on the way to it.
//!
//! `numpy.load(file, allow_pickle=False)` reads every member. Equal input gives equal bytes, and
//! the elements of members that are not compressed begin at a multiple of 64 bytes.
//!
//! Reading allocates nothing for what a file merely claims, and runs nothing.

mod directory;
mod names;
mod patient;
mod reader;
mod writer;

use std::io;

use thiserror::Error;

pub use self::reader::{Limits, NpzReader, read, read_within};
pub use self::writer::{Compression, write};
use super::npy::NpyError;
use crate::value::ValueError;

/// Coordinates of a basin.
const BASIN_DIMS: usize = 64;

/// Member that holds the basin's coordinates.
const BASIN_MEMBER: &str = "basin_coords.npy";

/// Member that holds the tree.
const TREE_MEMBER: &str = "tree.npy";

/// Version of the tree's form; a reader refuses those above.
const TREE_VERSION: u32 = 1;

/// Why an NPZ cannot be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NpzError {
    /// The disk failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is no archive, is cut short or goes on after its end.
    #[error("not a complete npz archive: {reason}")]
    Archive {
        /// What is wrong with it.
        reason: String,
    },
    /// More members than [`Limits::members`].
    #[error("{members} members are over the limit of {limit}")]
    Members {
        /// Members of the archive.
        members: u64,
        /// The limit.
        limit: u64,
    },
    /// Two members have one name.
    #[error("{members} members have only {names} names: one of them appears twice")]
    DuplicateMember {
        /// Members of the archive.
        members: u64,
        /// Different names among them.
        names: u64,
    },
    /// A member's name is not a relative path below the archive.
    #[error("the member name {member} is refused: it is not a plain relative path")]
    MemberName {
        /// The name, with control characters escaped.
        member: String,
    },
    /// A member is encrypted.
    #[error("{member}: encrypted members are not supported")]
    Encrypted {
        /// Its name.
        member: String,
    },
    /// A member is compressed in another way than by deflate.
    #[error("{member}: compression {method} is not supported, only deflate")]
    Compression {
        /// Its name.
        member: String,
        /// Name or number of the method.
        method: String,
    },
    /// A member, or all members together, are larger than a limit.
    #[error("{member}: {bytes} bytes when decompressed are over the limit of {limit}")]
    TooLarge {
        /// Name of the member that crosses the limit.
        member: String,
        /// Bytes of it, or of all members read so far.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A member is damaged or is not an array.
    #[error("{member}: {source}")]
    Member {
        /// Its name.
        member: String,
        /// What is wrong with it.
        source: NpyError,
    },
    /// A member holds pickled Python objects.
    #[error("{member}: holds pickled objects; `tidelog import` reads such files")]
    Objects {
        /// Its name.
        member: String,
    },
    /// A member is missing.
    #[error("there is no member {member}")]
    Missing {
        /// Its name.
        member: String,
    },
    /// A member is not what the tree or this format says.
    #[error("{member}: is {found}, not {expected}")]
    Mismatch {
        /// Its name.
        member: String,
        /// Dtype and shape that belong there.
        expected: String,
        /// Dtype and shape that are there.
        found: String,
    },
    /// The tree cannot be written as JSON, or read from it.
    #[error("{TREE_MEMBER}: {0}")]
    Tree(#[from] serde_json::Error),
    /// The tree is of a later version.
    #[error("{TREE_MEMBER}: is of version {found}, this program knows {TREE_VERSION}")]
    Version {
        /// Version of the tree.
        found: u32,
    },
    /// The tree refers to an array that is not in the archive.
    #[error(
        "the state holds only a reference to an array of shape {shape:?}; load the array first"
    )]
    Reference {
        /// Axis lengths of the array.
        shape: Vec<usize>,
    },
    /// The state holds a [`Summary`](crate::Summary).
    #[error("the state holds only a summary of a long value; load the checkpoint first")]
    Summary,
    /// The state cannot be kept.
    #[error(transparent)]
    Value(#[from] ValueError),
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use ndarray::{Array2, arr0, array};
    use zip::ZipArchive;

    use super::*;
    use crate::checkpoint::array::{Array, Dtype};
    use crate::value::{ArrayPlace, Value};

    fn state() -> Value {
        let weights = Array::from_ndarray(&array![[1.0_f32, f32::NAN], [-0.0, 4.0]]);
        let half = Array::new(Dtype::Float16, vec![0, 3], vec![]).unwrap();
        let layer =
            Value::Dict(vec![("weight".into(), weights.into()), ("bias".into(), half.into())]);
        Value::Dict(vec![
            ("step".into(), Value::Int(7)),
            ("layers".into(), Value::List(vec![layer.clone(), Value::Tuple(vec![layer])])),
            (Value::Int(1), Value::Scalar(Array::from_ndarray(&arr0(1.5_f64)))),
            ("name".into(), "ü\0".into()),
            ("loss".into(), f64::NAN.into()),
        ])
    }

    fn coords_of_file() -> [f64; 64] {
        std::array::from_fn(|i| if i == 0 { -0.0 } else { i as f64 / 3.0 })
    }

    fn file(state: &Value, compression: Compression) -> Vec<u8> {
        let coords = coords_of_file();
        write(Cursor::new(Vec::new()), state, Some(&coords), compression).unwrap().into_inner()
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_went_in() {
        for compression in [Compression::Stored, Compression::Deflated] {
            let (read_state, coords) = read(Cursor::new(file(&state(), compression))).unwrap();
            assert_eq!(read_state, state());
            assert_eq!(coords.unwrap().map(f64::to_bits), coords_of_file().map(f64::to_bits));
        }
        for lone in [Value::Null, Value::Array(Array::from_ndarray(&array![1_i64]))] {
            let file = write(Cursor::new(Vec::new()), &lone, None, Compression::Stored).unwrap();
            assert_eq!(read(file).unwrap(), (lone, None));
        }
    }

    #[test]
    fn equal_input_gives_equal_bytes() {
        assert_eq!(file(&state(), Compression::Stored), file(&state(), Compression::Stored));
        assert_eq!(file(&state(), Compression::Deflated), file(&state(), Compression::Deflated));
    }

    #[test]
    fn stored_elements_are_aligned_and_members_have_telling_names() {
        let mut archive =
            ZipArchive::new(Cursor::new(file(&state(), Compression::Stored))).unwrap();
        for index in 0..archive.len() {
            assert_eq!(archive.by_index(index).unwrap().data_start() % 64, 0);
        }
        let names: Vec<&str> = archive.file_names().collect();
        assert_eq!(
            names,
            [
                "tree.npy",
                "basin_coords.npy",
                "state/layers/0/weight.npy",
                "state/layers/0/bias.npy",
                "state/layers/1/0/weight.npy",
                "state/layers/1/0/bias.npy",
            ]
        );
    }

    #[test]
    fn a_reference_is_not_written_as_if_it_were_the_array() {
        let array = Array::from_ndarray(&Array2::<u8>::zeros((9, 9)));
        let reference = Value::reference(&array, ArrayPlace::Sha256([0; 32]));
        let refused = write(Cursor::new(Vec::new()), &reference, None, Compression::Stored);
        let text = refused.map(|_| ()).unwrap_err().to_string();
        assert!(text.contains("load the array first"), "{text}");
    }
}
