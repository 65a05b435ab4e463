//! Writes a checkpoint.

use std::cell::OnceCell;
use std::io::{Seek, Write};
use std::rc::Rc;

use serde::Serialize;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::names::Names;
use super::patient::{FirstError, Patient};
use super::reader::MEMBERS_MAX;
use super::{BASIN_DIMS, BASIN_MEMBER, NpzError, TREE_MEMBER, TREE_VERSION};
use crate::checkpoint::array::{Array, Dtype};
use crate::checkpoint::npy;
use crate::value::{ArrayPlace, Value};

/// Where the elements of a stored member begin: at a multiple of this many bytes.
const ALIGNMENT: u16 = 64;

/// Bytes handed to the archive at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Whether members are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are: weights hardly shrink, and compressing them is some thirty times slower.
    #[default]
    Stored,
    /// By deflate.
    Deflated,
}

/// The tree as it is stored.
#[derive(Serialize)]
struct Tree<'a> {
    tidelog: u32,
    state: &'a Value,
}

/// Writes a state and, where there are any, the basin's coordinates; returns the file.
///
/// Persists nothing: that is the caller's. After an error the file may look like a complete
/// archive and is not, so write to a temporary name.
///
/// # Errors
/// - The state is nested too deeply, has a key that Python would not take, or holds more arrays
///   than an archive may have members.
/// - It holds a reference to an array instead of the array, or a summary of another value.
/// - The disk failed.
pub fn write<W: Write + Seek>(
    file: W,
    state: &Value,
    basin_coords: Option<&[f64; BASIN_DIMS]>,
    compression: Compression,
) -> Result<W, NpzError> {
    let mut names = Names::default();
    let mut arrays: Vec<(String, &Array)> = Vec::new();
    let tree = state.map_arrays::<NpzError>(&mut |path, value| match value {
        Value::Array(array) => {
            let member = names.member(path);
            arrays.push((member.clone(), array));
            Ok(Value::reference(array, ArrayPlace::Member(member)))
        }
        Value::ArrayRef(absent) => Err(NpzError::Reference { shape: absent.shape.clone() }),
        Value::Summary(_) => Err(NpzError::Summary),
        other => Ok(other.clone()),
    })?;
    let members = (arrays.len() as u64).saturating_add(2);
    if members > MEMBERS_MAX {
        return Err(NpzError::Members { members, limit: MEMBERS_MAX });
    }
    let json = serde_json::to_vec(&Tree { tidelog: TREE_VERSION, state: &tree })?;
    let (file, first_error) = Patient::new(file);
    let zip = ZipWriter::new(file);
    let mut archive = Archive { zip, first_error, options: options(compression) };
    archive.add(TREE_MEMBER, Dtype::Uint8, &[json.len()], &json)?;
    if let Some(coords) = basin_coords {
        let bytes: Vec<u8> = coords.iter().flat_map(|coord| coord.to_le_bytes()).collect();
        archive.add(BASIN_MEMBER, Dtype::Float64, &[BASIN_DIMS], &bytes)?;
    }
    for (member, array) in arrays {
        archive.add(&member, array.dtype(), array.shape(), array.bytes())?;
    }
    archive.finish()
}

fn options(compression: Compression) -> SimpleFileOptions {
    // Large: members beyond 4 GiB fail without it, and whole sizes are not known to the archive.
    let options = SimpleFileOptions::default().large_file(true);
    match compression {
        Compression::Stored => {
            options.compression_method(CompressionMethod::Stored).with_alignment(ALIGNMENT)
        }
        Compression::Deflated => options.compression_method(CompressionMethod::Deflated),
    }
}

struct Archive<W: Write + Seek> {
    zip: ZipWriter<Patient<W>>,
    first_error: FirstError,
    options: SimpleFileOptions,
}

impl<W: Write + Seek> Archive<W> {
    fn add(
        &mut self,
        member: &str,
        dtype: Dtype,
        shape: &[usize],
        bytes: &[u8],
    ) -> Result<(), NpzError> {
        let header = npy::header(dtype, shape)
            .map_err(|source| NpzError::Member { member: member.to_owned(), source })?;
        self.zip.start_file(member, self.options).map_err(from_zip)?;
        self.zip.write_all(&header)?;
        for chunk in bytes.chunks(CHUNK_BYTES) {
            self.zip.write_all(chunk)?;
            if self.first_error.get().is_some() {
                break; // the rest would be computed for nothing
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<W, NpzError> {
        let file = self.zip.finish().map_err(from_zip)?;
        let file = file.into_inner();
        match Rc::try_unwrap(self.first_error).ok().and_then(OnceCell::into_inner) {
            Some(error) => Err(error.into()),
            None => Ok(file),
        }
    }
}

fn from_zip(source: ZipError) -> NpzError {
    match source {
        ZipError::Io(source) => NpzError::Io(source),
        other => NpzError::Archive { reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor, SeekFrom};

    use super::*;

    /// A disk that fails at one call and at none after it.
    struct Failing {
        file: Cursor<Vec<u8>>,
        calls_until: usize,
    }

    impl Failing {
        fn call(&mut self) -> io::Result<()> {
            let fails = self.calls_until == 0;
            self.calls_until = self.calls_until.wrapping_sub(1);
            if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl Write for Failing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.call()?;
            self.file.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.call()
        }
    }

    impl Seek for Failing {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.call()?;
            self.file.seek(to)
        }
    }

    #[test]
    fn a_disk_that_fails_at_any_call_is_an_error() {
        let state = Value::Dict(vec![("a".into(), Value::Bytes(vec![7; 5000]))]);
        let coords = [0.5; BASIN_DIMS];
        for compression in [Compression::Stored, Compression::Deflated] {
            let mut failures = 0;
            loop {
                let file = Failing { file: Cursor::default(), calls_until: failures };
                match write(file, &state, Some(&coords), compression) {
                    Err(NpzError::Io(error)) => {
                        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
                    }
                    Err(error) => panic!("{error}"),
                    Ok(file) if file.calls_until > usize::MAX / 2 => {
                        panic!("call {failures} failed and nobody was told")
                    }
                    Ok(_) => break,
                }
                failures += 1;
            }
            assert!(failures > 10, "{failures}");
        }
    }
}
