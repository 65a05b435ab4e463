//! How far a follower has read, and a hash of everything before it.

use std::fmt;

/// Lines of a segment, its header included: line numbers fit PostgreSQL's `integer`. Readers stop
/// there, so no file makes a line number overflow.
pub(crate) const SEGMENT_LINES_MAX: u32 = i32::MAX as u32;

/// Hash of all lines before a place: hₙ = BLAKE3(hₙ₋₁ ‖ line n−1 with its newline), h₀ = 32 zeros.
///
/// Equal hashes at equal lines mean equal bytes before; a changed byte changes every later hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// The hash after one more line.
    pub(crate) fn after(&self, line: &[u8]) -> Self {
        let mut link = self.link();
        link.update(line);
        Self(link.finalize().into())
    }

    /// Begins the hash of a line that comes in pieces.
    pub(crate) fn link(&self) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher
    }

    /// The hash's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A hash kept elsewhere; `None` if it is not 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl From<blake3::Hash> for ChainHash {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.into())
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from(self.0).fmt(f)
    }
}

/// A place in a segment: everything before it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The next line's number; the header is line 0.
    pub next_line: u32,
    /// Offset of its first byte.
    pub next_byte: u64,
    /// Hash of all lines before it.
    pub chain: ChainHash,
}

impl Cursor {
    /// The beginning of a segment, before its header.
    pub const START: Cursor = Cursor { next_line: 0, next_byte: 0, chain: ChainHash([0; 32]) };

    /// The place after one more line, given with its newline.
    pub(crate) fn after(&self, line: &[u8]) -> Self {
        self.moved(line.len() as u64, self.chain.after(line))
    }

    /// The place after one more line of `bytes` bytes.
    pub(crate) fn moved(&self, bytes: u64, chain: ChainHash) -> Self {
        Self { next_line: self.next_line + 1, next_byte: self.next_byte + bytes, chain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_changes_every_later_hash() {
        let walk = |first: &[u8]| Cursor::START.after(first).after(b"same\n").chain;
        assert_ne!(walk(b"a\n"), walk(b"b\n"));
    }

    #[test]
    fn a_line_break_cannot_move_unseen() {
        let one = Cursor::START.after(b"ab\n").after(b"c\n");
        let other = Cursor::START.after(b"a\n").after(b"bc\n");
        assert_ne!(one.chain, other.chain);
    }
}
