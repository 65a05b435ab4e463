//! Reads a checkpoint, or any NPZ member by member.

use std::io::{Read, Seek, SeekFrom};

use serde::Deserialize;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::directory::{Directory, cut};
use super::{BASIN_DIMS, BASIN_MEMBER, NpzError, TREE_MEMBER, TREE_VERSION};
use crate::checkpoint::array::{Array, Dtype};
use crate::checkpoint::npy::{self, Npy, NpyError, Size};
use crate::value::{ArrayPlace, ArrayRef, Value};

/// Most members of an archive.
pub(super) const MEMBERS_MAX: u64 = 65_536;

/// Longest name of a member, in bytes.
const NAME_BYTES_MAX: usize = 4_096;

/// Bytes of a member's record in the directory, without its name.
const RECORD_BYTES_MIN: u64 = 46;

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
        let Directory { members, begin } = Directory::find(&mut file, file_bytes)?;
        if members > limits.members {
            return Err(NpzError::Members { members, limit: limits.members });
        }
        if members > file_bytes / RECORD_BYTES_MIN {
            let reason = format!("{members} members do not fit into its {file_bytes} bytes");
            return Err(NpzError::Archive { reason });
        }
        let archive = ZipArchive::new(file).map_err(from_zip)?;
        if archive.offset() != 0 {
            let reason = format!("{} foreign bytes come before it", archive.offset());
            return Err(NpzError::Archive { reason });
        }
        // `zip` looks further ahead for another directory if it cannot read the last one.
        if archive.central_directory_start() != begin {
            return Err(cut());
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
        self.with_member(member, |file, size| npy::read(file, size))
    }

    /// Reads a member to its end, checksum included, and keeps nothing of it. Memory: a buffer.
    ///
    /// # Errors
    /// As [`NpzReader::array`], except that an array may be larger than this machine's memory.
    pub fn check(&mut self, member: &str) -> Result<(), NpzError> {
        match self.with_member(member, |file, size| npy::check(file, size))? {
            true => Ok(()),
            false => Err(NpzError::Objects { member: member.to_owned() }),
        }
    }

    fn with_member<T>(
        &mut self,
        member: &str,
        read: impl FnOnce(&mut dyn Read, Size) -> Result<T, NpyError>,
    ) -> Result<T, NpzError> {
        let index = self
            .archive
            .index_for_name(member)
            .ok_or_else(|| NpzError::Missing { member: member.to_owned() })?;
        let size = self.check_member(member, index)?;
        self.count_bytes(member, size.declared)?;
        let damaged = |source| NpzError::Member { member: member.to_owned(), source };
        let mut entry = self.archive.by_index(index).map_err(|source| match source {
            ZipError::Io(source) => damaged(NpyError::Read(source)),
            other => from_zip(other),
        })?;
        read(&mut entry, size).map_err(damaged)
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
    fn a_directory_that_is_not_the_last_one_is_not_taken() {
        let mut end = *b"PK\x05\x06\0\0\0\0\x01\0\x01\0....\xf0\xff\xff\xff\0\0";
        end[12..16].copy_from_slice(&46_u32.to_le_bytes());
        let file = [archive(&[(TREE_MEMBER, b"")]), end.to_vec()].concat();
        assert!(refusal(&file).contains("goes on"), "{}", refusal(&file));
    }

    #[test]
    fn a_claimed_number_of_members_is_not_allocated() {
        let mut file = archive(&[("a.npy", b"")]);
        let end = file.len() - 22;
        file[end + 8..end + 12].copy_from_slice(&[0xff, 0xfe, 0xff, 0xfe]);
        assert!(refusal(&file).contains("65279 members do not fit into its 108 bytes"));
    }

    #[test]
    fn checking_a_member_reads_it_to_its_end() {
        for compression in [Compression::Stored, Compression::Deflated] {
            let mut file = checkpoint(compression);
            let check = |file: &[u8]| {
                let mut npz = NpzReader::open(Cursor::new(file.to_vec()), Limits::default())?;
                npz.check("state/w.npy")
            };
            check(&file).unwrap();
            let mut archive = ZipArchive::new(Cursor::new(file.clone())).unwrap();
            let entry = archive.by_name("state/w.npy").unwrap();
            let last = entry.data_start() + entry.compressed_size() - 10;
            drop(entry);
            file[usize::try_from(last).unwrap()] ^= 1;
            let text = check(&file).unwrap_err().to_string();
            assert!(text.starts_with("state/w.npy: "), "{text}");
        }
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
