//! Reads a checkpoint, or any NPZ member by member.

use std::io::{Read, Seek, SeekFrom};

use serde::Deserialize;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::{BASIN_DIMS, BASIN_MEMBER, NpzError, TREE_MEMBER, TREE_VERSION};
use crate::checkpoint::array::{Array, Dtype};
use crate::checkpoint::npy::{self, Npy, NpyError, Size};
use crate::value::{ArrayPlace, ArrayRef, Value};

/// Most members of an archive.
pub(super) const MEMBERS_MAX: u64 = 65_536;

/// Longest name of a member, in bytes.
const NAME_BYTES_MAX: usize = 4_096;

/// How much of an archive is read at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Members of the archive.
    pub members: u64,
    /// Bytes of one member when decompressed.
    pub member_bytes: u64,
    /// Bytes of all members that are read, when decompressed.
    pub total_bytes: u64,
}

impl Default for Limits {
    /// 65,536 members, 64 GiB each, 256 GiB together.
    fn default() -> Self {
        Self { members: MEMBERS_MAX, member_bytes: 64 << 30, total_bytes: 256 << 30 }
    }
}

/// The tree as it is stored.
#[derive(Deserialize)]
struct Tree {
    tidelog: u32,
    state: Value,
}

/// Reads a checkpoint that [`write()`](super::write()) wrote, within the default [`Limits`].
///
/// # Errors
/// Every [`NpzError`]; a damaged member is named.
pub fn read<R: Read + Seek>(file: R) -> Result<(Value, Option<[f64; BASIN_DIMS]>), NpzError> {
    read_within(file, Limits::default())
}

/// Reads a checkpoint that [`write()`](super::write()) wrote.
///
/// # Errors
/// Every [`NpzError`]; a damaged member is named.
pub fn read_within<R: Read + Seek>(
    file: R,
    limits: Limits,
) -> Result<(Value, Option<[f64; BASIN_DIMS]>), NpzError> {
    let mut npz = NpzReader::open(file, limits)?;
    let json = npz.array(TREE_MEMBER)?;
    if json.dtype() != Dtype::Uint8 {
        return Err(mismatch(TREE_MEMBER, Dtype::Uint8, json.shape(), &json));
    }
    let tree: Tree = serde_json::from_slice(json.bytes())?;
    if tree.tidelog != TREE_VERSION {
        return Err(NpzError::Version { found: tree.tidelog });
    }
    let state = tree.state.map_arrays(&mut |_, value| match value {
        Value::ArrayRef(reference) => npz.referred(reference).map(Value::Array),
        other => Ok(other.clone()),
    })?;
    Ok((state, npz.basin_coords()?))
}

/// An open NPZ, of tidelog or of numpy. Reads nothing but the directory until asked to.
pub struct NpzReader<R> {
    archive: ZipArchive<R>,
    limits: Limits,
    file_bytes: u64,
    read_bytes: u64,
}

impl<R: Read + Seek> NpzReader<R> {
    /// Opens an archive and checks its directory.
    ///
    /// # Errors
    /// The file is no complete archive, has too many members, one name twice, or a name that is
    /// not a relative path below the archive.
    pub fn open(mut file: R, limits: Limits) -> Result<Self, NpzError> {
        let file_bytes = file.seek(SeekFrom::End(0))?;
        let members = count_members(&mut file, file_bytes)?;
        if members > limits.members {
            return Err(NpzError::Members { members, limit: limits.members });
        }
        let archive = ZipArchive::new(file).map_err(from_zip)?;
        if archive.offset() != 0 {
            let reason = format!("{} foreign bytes come before it", archive.offset());
            return Err(NpzError::Archive { reason });
        }
        // The archive keeps the last of several members of one name.
        let names = archive.len() as u64;
        if names != members {
            return Err(NpzError::DuplicateMember { members, names });
        }
        if let Some(name) = archive.file_names().find(|name| !is_plain_path(name)) {
            let member = name.chars().take(200).flat_map(char::escape_default).collect();
            return Err(NpzError::MemberName { member });
        }
        Ok(Self { archive, limits, file_bytes, read_bytes: 0 })
    }

    /// Returns the names of the members, such as `basin_coords.npy`, in the archive's order.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.archive.file_names()
    }

    /// Reads a member, which may hold pickled objects; none of them is run.
    ///
    /// # Errors
    /// The member is missing, damaged, encrypted, over a limit, or not NPY.
    pub fn member(&mut self, member: &str) -> Result<Npy, NpzError> {
        let index = self
            .archive
            .index_for_name(member)
            .ok_or_else(|| NpzError::Missing { member: member.to_owned() })?;
        let size = self.check_member(member, index)?;
        self.count_bytes(member, size.declared)?;
        let damaged = |source| NpzError::Member { member: member.to_owned(), source };
        let entry = self.archive.by_index(index).map_err(|source| match source {
            ZipError::Io(source) => damaged(NpyError::Read(source)),
            other => from_zip(other),
        })?;
        npy::read(entry, size).map_err(damaged)
    }

    /// Reads a member that holds numbers or booleans.
    ///
    /// # Errors
    /// As [`NpzReader::member`], and [`NpzError::Objects`].
    pub fn array(&mut self, member: &str) -> Result<Array, NpzError> {
        match self.member(member)? {
            Npy::Array(array) => Ok(array),
            Npy::Objects { .. } => Err(NpzError::Objects { member: member.to_owned() }),
        }
    }

    /// Reads the basin's coordinates; none where the archive has no such member.
    ///
    /// # Errors
    /// As [`NpzReader::array`], and [`NpzError::Mismatch`] when they are not float64 of shape (64,).
    pub fn basin_coords(&mut self) -> Result<Option<[f64; BASIN_DIMS]>, NpzError> {
        if self.archive.index_for_name(BASIN_MEMBER).is_none() {
            return Ok(None);
        }
        let array = self.array(BASIN_MEMBER)?;
        let coords = array.to_ndarray::<f64>().ok().filter(|coords| coords.ndim() == 1);
        match coords.and_then(|coords| coords.into_raw_vec_and_offset().0.try_into().ok()) {
            Some(coords) => Ok(Some(coords)),
            None => Err(mismatch(BASIN_MEMBER, Dtype::Float64, &[BASIN_DIMS], &array)),
        }
    }

    fn referred(&mut self, reference: &ArrayRef) -> Result<Array, NpzError> {
        let ArrayPlace::Member(member) = &reference.place else {
            return Err(NpzError::Reference { shape: reference.shape.clone() });
        };
        let array = self.array(member)?;
        if array.dtype() == reference.dtype && array.shape() == reference.shape {
            Ok(array)
        } else {
            Err(mismatch(member, reference.dtype, &reference.shape, &array))
        }
    }

    /// Refuses what cannot be read, by the directory alone.
    fn check_member(&mut self, member: &str, index: usize) -> Result<Size, NpzError> {
        let entry = self.archive.by_index_raw(index).map_err(from_zip)?;
        let name = || member.to_owned();
        if entry.encrypted() {
            return Err(NpzError::Encrypted { member: name() });
        }
        let method = entry.compression();
        if !matches!(method, CompressionMethod::Stored | CompressionMethod::Deflated) {
            return Err(NpzError::Compression { member: name(), method: method.to_string() });
        }
        let (declared, limit) = (entry.size(), self.limits.member_bytes);
        if declared > limit {
            return Err(NpzError::TooLarge { member: name(), bytes: declared, limit });
        }
        Ok(Size { declared, present: entry.compressed_size().min(self.file_bytes) })
    }

    fn count_bytes(&mut self, member: &str, bytes: u64) -> Result<(), NpzError> {
        self.read_bytes = self.read_bytes.saturating_add(bytes);
        let (bytes, limit) = (self.read_bytes, self.limits.total_bytes);
        if bytes > limit {
            return Err(NpzError::TooLarge { member: member.to_owned(), bytes, limit });
        }
        Ok(())
    }
}

fn mismatch(member: &str, dtype: Dtype, shape: &[usize], found: &Array) -> NpzError {
    NpzError::Mismatch {
        member: member.to_owned(),
        expected: format!("{} of shape {shape:?}", dtype.descr()),
        found: format!("{} of shape {:?}", found.dtype().descr(), found.shape()),
    }
}

fn is_plain_path(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.contains(|c: char| c.is_control() || matches!(c, '\\' | ':'))
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Reads from the archive's last record how many members it has.
///
/// `zip` sets aside memory for as many as the record says and drops members of one name, so both
/// need the number before.
fn count_members<R: Read + Seek>(file: &mut R, file_bytes: u64) -> Result<u64, NpzError> {
    const END_BYTES: u64 = 22;
    const LOCATOR_BYTES: u64 = 20;
    let cut = || NpzError::Archive {
        reason: "its last bytes are not the end of an archive; it is cut short or goes on"
            .to_owned(),
    };
    let end_at = file_bytes.checked_sub(END_BYTES).ok_or_else(cut)?;
    let end: [u8; 22] = read_at(file, end_at)?;
    let [b'P', b'K', 5, 6, _, _, _, _, low, high, .., o1, o2, o3, o4, 0, 0] = end else {
        return Err(cut());
    };
    let (members, offset) = (u16::from_le_bytes([low, high]), u32::from_le_bytes([o1, o2, o3, o4]));
    if members != u16::MAX && offset != u32::MAX {
        return Ok(members.into());
    }
    // A field does not fit, or is exactly this: look for the record with 64-bit fields.
    let locator: [u8; 20] = read_at(file, end_at.checked_sub(LOCATOR_BYTES).ok_or_else(cut)?)?;
    let [b'P', b'K', 6, 7, _, _, _, _, position @ .., _, _, _, _] = locator else {
        return Ok(members.into());
    };
    let end64: [u8; 40] = read_at(file, u64::from_le_bytes(position))?;
    let [b'P', b'K', 6, 6, rest @ ..] = end64 else {
        return Err(cut());
    };
    let [.., a, b, c, d, e, f, g, h] = rest;
    Ok(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}

fn read_at<const N: usize>(file: &mut (impl Read + Seek), at: u64) -> Result<[u8; N], NpzError> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn from_zip(source: ZipError) -> NpzError {
    match source {
        ZipError::Io(source) => NpzError::Io(source),
        ZipError::InvalidArchive(reason) => NpzError::Archive { reason: reason.into_owned() },
        other => NpzError::Archive { reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::checkpoint::npz::{Compression, write};

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, bytes) in members {
            zip.start_file(*name, options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn checkpoint(compression: Compression) -> Vec<u8> {
        let weights = ndarray::Array1::from_elem(10_000, 0.5_f32);
        let state = Value::Dict(vec![("w".into(), Array::from_ndarray(&weights).into())]);
        write(Cursor::new(Vec::new()), &state, Some(&[0.25; 64]), compression).unwrap().into_inner()
    }

    fn refusal(file: &[u8]) -> String {
        read(Cursor::new(file)).unwrap_err().to_string()
    }

    fn replace(file: &mut [u8], from: &[u8], to: &[u8]) {
        let places: Vec<usize> =
            (0..file.len()).filter(|&at| file[at..].starts_with(from)).collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|at| file[at..at + to.len()].copy_from_slice(to));
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let file = checkpoint(Compression::Stored);
        for length in [0, 1, 21, 22, 100, file.len() / 2, file.len() - 10, file.len() - 1] {
            assert!(refusal(&file[..length]).contains("cut short"), "{length}");
        }
        assert!(refusal(&[file.clone(), vec![0]].concat()).contains("goes on"));
        assert!(refusal(&[vec![b'x'; 100], file].concat()).contains("100 foreign bytes"));
        assert!(refusal(&[0; 1000]).contains("cut short"));
    }

    #[test]
    fn a_flipped_byte_names_the_member() {
        for compression in [Compression::Stored, Compression::Deflated] {
            let mut file = checkpoint(compression);
            let mut archive = ZipArchive::new(Cursor::new(file.clone())).unwrap();
            let entry = archive.by_name("state/w.npy").unwrap();
            let middle = entry.data_start() + entry.compressed_size() / 2 + 20;
            drop(entry);
            file[usize::try_from(middle).unwrap()] ^= 1;
            let text = refusal(&file);
            assert!(text.starts_with("state/w.npy: "), "{text}");
        }
    }

    #[test]
    fn no_bytes_panic() {
        for compression in [Compression::Stored, Compression::Deflated] {
            let file = checkpoint(compression);
            // Every byte of the directory and of the small members, one at a time.
            let places = (0..file.len()).filter(|at| *at < 3_000 || *at > file.len() - 600);
            for at in places {
                for change in [1, 0x80, 0xff] {
                    let mut damaged = file.clone();
                    damaged[at] ^= change;
                    read(Cursor::new(damaged)).ok();
                }
            }
        }
    }

    #[test]
    fn names_that_lead_out_or_appear_twice_are_refused() {
        for name in ["../x.npy", "/etc/x.npy", "a/../b.npy", "a\\b.npy", "C:/x.npy", "a//b.npy"] {
            assert!(
                refusal(&archive(&[(name, b"")])).contains("not a plain relative path"),
                "{name}"
            );
        }
        let mut twice = archive(&[("a.npy", b""), ("b.npy", b"")]);
        replace(&mut twice, b"b.npy", b"a.npy");
        assert!(refusal(&twice).contains("2 members have only 1 names"));
    }

    #[test]
    fn encrypted_and_oddly_compressed_members_are_refused_by_name() {
        let mut encrypted = archive(&[(TREE_MEMBER, b"")]);
        replace(
            &mut encrypted,
            b"PK\x01\x02\x0a\x03\x0a\x00\x00",
            b"PK\x01\x02\x0a\x03\x0a\x00\x01",
        );
        assert!(refusal(&encrypted).contains("tree.npy: encrypted"));
        let mut bzip2 = archive(&[(TREE_MEMBER, b"")]);
        replace(
            &mut bzip2,
            b"PK\x01\x02\x0a\x03\x0a\x00\x00\x00\x00",
            b"PK\x01\x02\x0a\x03\x0a\x00\x00\x00\x0c",
        );
        assert!(refusal(&bzip2).starts_with("tree.npy: compression "), "{}", refusal(&bzip2));
    }

    #[test]
    fn an_archive_that_is_no_checkpoint_says_what_is_missing() {
        assert_eq!(refusal(&archive(&[])), "there is no member tree.npy");
        assert_eq!(refusal(&archive(&[("weights.npy", b"")])), "there is no member tree.npy");
    }

    #[test]
    fn limits_hold() {
        let file = checkpoint(Compression::Deflated);
        let within = |limits| read_within(Cursor::new(&file), limits).unwrap_err().to_string();
        let limits = Limits::default();
        let members = within(Limits { members: 2, ..limits });
        assert_eq!(members, "3 members are over the limit of 2");
        let large = within(Limits { member_bytes: 30_000, ..limits });
        assert!(large.contains("state/w.npy: 40128 bytes when decompressed"), "{large}");
        let total = within(Limits { total_bytes: 40_200, ..limits });
        assert!(total.contains("over the limit of 40200"), "{total}");
    }

    #[test]
    fn a_claimed_size_is_not_allocated() {
        let mut file = checkpoint(Compression::Deflated);
        let real = 40_128_u32.to_le_bytes();
        replace(&mut file, &real, &0xffff_0000_u32.to_le_bytes());
        assert!(refusal(&file).starts_with("state/w.npy: "), "{}", refusal(&file));
    }

    #[test]
    fn pickled_objects_are_left_to_the_importer() {
        let mut npy = b"\x93NUMPY\x01\x00\x35\x00".to_vec();
        npy.extend(b"{'descr': '|O', 'fortran_order': False, 'shape': ()}\n\x80\x04N.");
        let file = archive(&[(TREE_MEMBER, &npy)]);
        assert!(refusal(&file).contains("tree.npy: holds pickled objects"));
        let mut npz = NpzReader::open(Cursor::new(file), Limits::default()).unwrap();
        assert_eq!(npz.members().collect::<Vec<_>>(), [TREE_MEMBER]);
        let objects = Npy::Objects { pickle: b"\x80\x04N.".to_vec() };
        assert_eq!(npz.member(TREE_MEMBER).unwrap(), objects);
    }

    #[test]
    fn a_tree_that_does_not_match_its_members_is_refused() {
        let json = |text: &str| {
            let mut npy = npy::header(Dtype::Uint8, &[text.len()]).unwrap();
            npy.extend_from_slice(text.as_bytes());
            archive(&[(TREE_MEMBER, &npy)])
        };
        assert!(refusal(&json(r#"{"tidelog":2,"state":null}"#)).contains("is of version 2"));
        assert!(refusal(&json("{")).contains("tree.npy: EOF"));
        let reference = |descr: &str, shape: &str| {
            json(&format!(
                r#"{{"tidelog":1,"state":{{"$array":{{"dtype":"{descr}","shape":{shape},"member":"tree.npy"}}}}}}"#
            ))
        };
        let text = refusal(&reference("<f4", "[3]"));
        assert!(text.contains("tree.npy: is |u1 of shape ["), "{text}");
        assert!(text.ends_with("not <f4 of shape [3]"), "{text}");
    }
}
