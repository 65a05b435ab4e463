//! The pickle's bytes, from front to back.

use super::PickleError;

/// Longest name of a module or class in a pickle of protocol 2 or 3, in bytes.
const LINE_BYTES_MAX: usize = 1_000;

/// What is left to read.
pub(super) struct Input<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    /// Returns how many bytes were read.
    pub(super) fn position(&self) -> usize {
        self.length.saturating_sub(self.rest.len())
    }

    /// Returns how many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8], PickleError> {
        let split = usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count));
        let Some((taken, rest)) = split else {
            return Err(PickleError::Truncated { needed: count, at: self.position() });
        };
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(PickleError::Truncated { needed: N as u64, at: self.position() });
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, PickleError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, PickleError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, PickleError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, PickleError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Returns bytes whose count comes before them as one byte.
    pub(super) fn counted_u8(&mut self) -> Result<&'a [u8], PickleError> {
        let count = self.u8()?;
        self.take(count.into())
    }

    /// Returns bytes whose count comes before them as four bytes.
    pub(super) fn counted_u32(&mut self) -> Result<&'a [u8], PickleError> {
        let count = self.u32()?;
        self.take(count.into())
    }

    /// Returns bytes whose count comes before them as eight bytes.
    pub(super) fn counted_u64(&mut self) -> Result<&'a [u8], PickleError> {
        let count = self.u64()?;
        self.take(count)
    }

    /// Returns the text up to the next line feed.
    pub(super) fn line(&mut self) -> Result<&'a str, PickleError> {
        let at = self.position();
        let damaged = |reason: &str| PickleError::Damaged { at, reason: reason.to_owned() };
        let end = self.rest.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| damaged("a name does not end"))?;
        let line = self.take(end as u64)?;
        self.take(1)?;
        str::from_utf8(line).map_err(|_| damaged("a name is not utf-8"))
    }
}
