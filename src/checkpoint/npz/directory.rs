//! Where is an archive's directory, and how many members does it list?

use std::io::{Read, Seek, SeekFrom};

use super::NpzError;

/// What the archive's last record says of its directory.
///
/// `zip` sets aside memory for as many members as the record says and drops members of one name, so
/// both need their number before.
pub(super) struct Directory {
    pub(super) members: u64,
    /// Offset of its first byte.
    pub(super) begin: u64,
}

impl Directory {
    /// Reads the record, which is the file's end.
    pub(super) fn find<R: Read + Seek>(file: &mut R, file_bytes: u64) -> Result<Self, NpzError> {
        const END_BYTES: u64 = 22;
        const LOCATOR_BYTES: u64 = 20;
        let end_at = file_bytes.checked_sub(END_BYTES).ok_or_else(cut)?;
        let end: [u8; 22] = read_at(file, end_at)?;
        let [b'P', b'K', 5, 6, _, _, _, _, low, high, .., o1, o2, o3, o4, 0, 0] = end else {
            return Err(cut());
        };
        let members = u16::from_le_bytes([low, high]);
        let begin = u32::from_le_bytes([o1, o2, o3, o4]);
        let narrow = Self { members: members.into(), begin: begin.into() };
        if members != u16::MAX && begin != u32::MAX {
            return Ok(narrow);
        }
        // A field does not fit, or is exactly this: look for the record with 64-bit fields.
        let locator: [u8; 20] = read_at(file, end_at.checked_sub(LOCATOR_BYTES).ok_or_else(cut)?)?;
        match locator {
            [b'P', b'K', 6, 7, _, _, _, _, position @ .., _, _, _, _] => {
                Self::wide(read_at(file, u64::from_le_bytes(position))?)
            }
            _ => Ok(narrow),
        }
    }

    /// Reads the record with 64-bit fields.
    fn wide(record: [u8; 56]) -> Result<Self, NpzError> {
        let (words, _) = record.as_chunks::<8>();
        match (record, words) {
            ([b'P', b'K', 6, 6, ..], [_, _, _, _, members, _, begin]) => Ok(Self {
                members: u64::from_le_bytes(*members),
                begin: u64::from_le_bytes(*begin),
            }),
            _ => Err(cut()),
        }
    }
}

pub(super) fn cut() -> NpzError {
    let reason = "its last bytes are not the end of an archive; it is cut short or goes on";
    NpzError::Archive { reason: reason.to_owned() }
}

fn read_at<const N: usize>(file: &mut (impl Read + Seek), at: u64) -> Result<[u8; N], NpzError> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}
