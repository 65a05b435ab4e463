//! How is one array stored? As NPY: a short Python literal, then the elements.
//!
//! `ndarray-npy` knows the header. What it does not check is checked here before anything is
//! allocated: the header's length, and that the shape's size is what the file has left.

use std::io::{self, Read};

use ndarray_npy::npy::header::{Header, Layout};
use thiserror::Error;

use super::array::{Array, ArrayError, ByteOrder, DIMS_MAX, Dtype};

/// Longest header that is read, in bytes; numpy's own limit.
pub const HEADER_BYTES_MAX: usize = 10_000;

/// Deepest brackets of a header; the dict and the tuple of the shape take two.
const HEADER_NESTING_MAX: usize = 4;

/// What an NPY file holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Npy {
    /// Numbers or booleans.
    Array(Array),
    /// Python objects, as the pickle that numpy makes of the array. Nothing of it was run.
    Objects {
        /// Bytes of the pickle.
        pickle: Vec<u8>,
    },
}

/// Why bytes are not an NPY file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NpyError {
    /// The bytes end early, a checksum is wrong, or the disk failed.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// The header is longer than [`HEADER_BYTES_MAX`].
    #[error("an npy header of {bytes} bytes is over the limit of {HEADER_BYTES_MAX}")]
    HeaderBytes {
        /// Length that the file declares.
        bytes: usize,
    },
    /// The header is not one.
    #[error("not an npy header: {reason}")]
    Header {
        /// What is wrong with it.
        reason: String,
    },
    /// Dtype or shape are out of bounds.
    #[error(transparent)]
    Array(#[from] ArrayError),
    /// The elements are not as many as the header says.
    #[error("shape {shape:?} of {dtype} needs {expected} bytes, but the file has {found}")]
    Length {
        /// As numpy writes it.
        dtype: String,
        /// Axis lengths.
        shape: Vec<usize>,
        /// Bytes of elements that the header asks for.
        expected: u64,
        /// Bytes after the header.
        found: u64,
    },
    /// This machine has not the memory.
    #[error("no memory for {bytes} bytes")]
    Memory {
        /// Bytes needed.
        bytes: u64,
    },
}

/// Size of a file before and after decompression.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Bytes that it claims to have.
    pub(crate) declared: u64,
    /// Bytes that it certainly has; memory is set aside for no more than these.
    pub(crate) present: u64,
}

/// Reads one NPY file from memory.
///
/// # Errors
/// Every [`NpyError`]; bytes after the last element are one.
pub fn from_bytes(bytes: &[u8]) -> Result<Npy, NpyError> {
    let length = bytes.len() as u64;
    read(bytes, Size { declared: length, present: length })
}

/// Reads one NPY file to its end.
pub(crate) fn read(mut file: impl Read, size: Size) -> Result<Npy, NpyError> {
    let (elements, bytes) = read_start(&mut file, size)?;
    let body = read_body(file, bytes, size.present)?;
    let Elements::Numbers { dtype, order, layout, shape } = elements else {
        return Ok(Npy::Objects { pickle: body });
    };
    Ok(Npy::Array(Array::from_memory(dtype, order, layout, shape, body)?))
}

/// Whether one NPY file is whole and holds numbers; its elements are read to their end, and none
/// is kept.
pub(crate) fn check(mut file: impl Read, size: Size) -> Result<bool, NpyError> {
    let (elements, bytes) = read_start(&mut file, size)?;
    let found = io::copy(&mut file.take(bytes.saturating_add(1)), &mut io::sink())?;
    check_length(found, bytes)?;
    Ok(matches!(elements, Elements::Numbers { .. }))
}

/// What a header says of the bytes after it.
enum Elements {
    Objects,
    Numbers { dtype: Dtype, order: ByteOrder, layout: Layout, shape: Vec<usize> },
}

/// Reads and checks everything before the elements; also how many bytes these have.
fn read_start(file: &mut impl Read, size: Size) -> Result<(Elements, u64), NpyError> {
    let header_bytes = read_header(file)?;
    let Header { type_descriptor, layout, shape } = parse_header(&header_bytes)?;
    let found = size.declared.saturating_sub(header_bytes.len() as u64);
    let Some(descr) = type_descriptor.as_string() else {
        let descr = type_descriptor.to_string().chars().take(64).collect();
        return Err(ArrayError::Dtype { descr }.into());
    };
    if descr == "|O" {
        return Ok((Elements::Objects, found));
    }
    let (dtype, order) = Dtype::parse_descr(descr)?;
    let expected = dtype.array_bytes(&shape)? as u64;
    if expected != found {
        return Err(NpyError::Length { dtype: dtype.descr(), shape, expected, found });
    }
    Ok((Elements::Numbers { dtype, order, layout, shape }, found))
}

/// Returns the header that goes before the elements of such an array; a multiple of 64 bytes.
pub(crate) fn header(dtype: Dtype, shape: &[usize]) -> Result<Vec<u8>, NpyError> {
    let invalid = |reason: String| NpyError::Header { reason };
    // Parsed, because ndarray-npy makes no descriptor for types that Rust has not.
    let literal = format!("'{}'", dtype.descr());
    let type_descriptor = literal.parse().map_err(|_| invalid(literal.clone()))?;
    let header = Header { type_descriptor, layout: Layout::Standard, shape: shape.to_vec() };
    header.to_bytes().map_err(|source| invalid(source.to_string()))
}

/// Reads magic string, version, length and text of the header, and nothing after.
fn read_header(file: &mut impl Read) -> Result<Vec<u8>, NpyError> {
    let mut start = [0; 8];
    file.read_exact(&mut start)?;
    let [.., major, _minor] = start;
    let mut header = start.to_vec();
    let length = if major == 1 {
        let length: [u8; 2] = read_array(file, &mut header)?;
        usize::from(u16::from_le_bytes(length))
    } else {
        let length: [u8; 4] = read_array(file, &mut header)?;
        usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX)
    };
    if !start.starts_with(b"\x93NUMPY") {
        return Err(NpyError::Header { reason: "the first bytes are not those of npy".to_owned() });
    }
    if length > HEADER_BYTES_MAX {
        return Err(NpyError::HeaderBytes { bytes: length });
    }
    let mut text = vec![0; length];
    file.read_exact(&mut text)?;
    header.extend_from_slice(&text);
    Ok(header)
}

fn read_array<const N: usize>(
    file: &mut impl Read,
    header: &mut Vec<u8>,
) -> Result<[u8; N], io::Error> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    header.extend_from_slice(&bytes);
    Ok(bytes)
}

fn parse_header(bytes: &[u8]) -> Result<Header, NpyError> {
    let invalid = |reason: String| NpyError::Header { reason };
    // The parser of literals is recursive.
    if bytes.iter().filter(|byte| b"([{".contains(byte)).count() > HEADER_NESTING_MAX {
        return Err(invalid("it has more brackets than a dtype and a shape need".to_owned()));
    }
    let header = Header::from_reader(&mut &*bytes)
        .map_err(|source| invalid(source.to_string().chars().take(200).collect()))?;
    if header.shape.len() > DIMS_MAX {
        return Err(ArrayError::Dims { dims: header.shape.len() }.into());
    }
    Ok(header)
}

fn read_body(file: impl Read, expected: u64, present: u64) -> Result<Vec<u8>, NpyError> {
    let mut body = Vec::new();
    let reserve = usize::try_from(expected.min(present));
    if reserve.is_err() || reserve.is_ok_and(|bytes| body.try_reserve_exact(bytes).is_err()) {
        return Err(NpyError::Memory { bytes: expected });
    }
    // One byte more than expected, so that the reader comes to its end and checks its checksum.
    file.take(expected.saturating_add(1)).read_to_end(&mut body)?;
    check_length(body.len() as u64, expected)?;
    Ok(body)
}

/// Refuses bytes that are not as many as they should be.
fn check_length(found: u64, expected: u64) -> Result<(), NpyError> {
    match found.cmp(&expected) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        std::cmp::Ordering::Greater => {
            let text = format!("it holds more than the {expected} bytes that it declares");
            Err(io::Error::new(io::ErrorKind::InvalidData, text).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(literal: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&u16::try_from(literal.len() + 1).unwrap().to_le_bytes());
        bytes.extend_from_slice(literal.as_bytes());
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        bytes
    }

    fn file_of(descr: &str, shape: &str, body: &[u8]) -> Vec<u8> {
        file(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"), body)
    }

    fn refusal(bytes: &[u8]) -> String {
        from_bytes(bytes).unwrap_err().to_string()
    }

    #[test]
    fn every_dtype_comes_back() {
        for descr in ["|b1", "|i1", "<u2", "<i4", "<u8", "<f2", "<f4", "<f16", "<c8", "<c32"] {
            let (dtype, _) = Dtype::parse_descr(descr).unwrap();
            let array = Array::new(dtype, vec![1, 3], vec![1; 3 * dtype.item_bytes()]).unwrap();
            let mut bytes = header(dtype, array.shape()).unwrap();
            assert_eq!(bytes.len() % 64, 0);
            bytes.extend_from_slice(array.bytes());
            assert_eq!(from_bytes(&bytes).unwrap(), Npy::Array(array));
        }
    }

    #[test]
    fn a_forged_shape_is_refused_before_allocating() {
        for shape in ["(1000000000000,)", "(2000000000,)"] {
            assert!(refusal(&file_of("'<f8'", shape, &[0; 64])).contains("but the file has 64"));
        }
        let shapes = ["(0, 18446744073709551615)", "(4294967296, 4294967296)"];
        for shape in shapes {
            assert!(refusal(&file_of("'<f8'", shape, &[])).contains("larger than this machine"));
        }
        assert!(refusal(&file_of("'<f8'", "(-1,)", &[])).contains("shape"));
        let dims = format!("({})", "1,".repeat(100));
        assert!(refusal(&file_of("'<f8'", &dims, &[0; 8])).contains("100 axes"));
    }

    #[test]
    fn a_header_that_is_none_is_refused() {
        assert!(refusal(b"").contains("fill"));
        assert!(refusal(b"\x93NUMPY\x09\x00\x01\x00\x00\x00\n").contains("version"));
        assert!(refusal(b"\x93NUMPX\x01\x00\x01\x00\n").contains("not those of npy"));
        assert!(refusal(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("limit of 10000"));
        assert!(refusal(&file("__import__('os').system('id')", &[])).contains("not an npy header"));
        assert!(refusal(&file(&"(".repeat(3_000), &[])).contains("brackets"));
        assert!(refusal(&file(&"-".repeat(9_000), &[])).contains("not an npy header"));
        assert!(refusal(&file("{}", &[])).contains("descr"));
    }

    #[test]
    fn dtypes_that_are_not_numbers_are_refused_by_name() {
        assert!(refusal(&file_of("'<U3'", "()", &[0; 12])).contains("dtype <U3 is not supported"));
        assert!(refusal(&file_of("[('a', '<f4')]", "()", &[0; 4])).contains("[('a', '<f4')]"));
    }

    #[test]
    fn missing_and_surplus_bytes_are_refused() {
        assert!(refusal(&file_of("'<f4'", "(2,)", &[0; 7])).contains("needs 8 bytes"));
        assert!(refusal(&file_of("'<f4'", "(2,)", &[0; 9])).contains("needs 8 bytes"));
        let bytes = file_of("'<f4'", "(2,)", &[0; 9]);
        let lying = Size { declared: bytes.len() as u64 - 1, present: 1 };
        let text = read(bytes.as_slice(), lying).unwrap_err().to_string();
        assert!(text.contains("more than the 8 bytes"), "{text}");
    }

    #[test]
    fn a_check_says_what_reading_would() {
        let whole = file_of("'<f4'", "(2,)", &[0; 8]);
        let surplus = [&whole[..], b"x"].concat();
        let objects = file_of("'|O'", "()", b"\x80\x04N.");
        let declared = whole.len() as u64;
        for bytes in [&whole[..], &whole[..whole.len() - 1], &surplus, &objects, b""] {
            let size = Size { declared, present: 8 };
            let found = read(bytes, size).map(|npy| matches!(npy, Npy::Array(_)));
            let text = |error: NpyError| error.to_string();
            assert_eq!(check(bytes, size).map_err(text), found.map_err(text));
        }
    }

    #[test]
    fn objects_stay_a_pickle() {
        let objects = Npy::Objects { pickle: vec![0x80, 4, b'N', b'.'] };
        assert_eq!(from_bytes(&file_of("'|O'", "()", b"\x80\x04N.")).unwrap(), objects);
    }
}
