//! Reads an older file line by line, with a hash of everything before each line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::entry::line::LINE_BYTES_MAX;
use crate::hex::hex;

const READ_BYTES: usize = 256 << 10;

/// A place in an older file.
///
/// The hash is SHA-256 of the lines' bytes, each with a newline: a last line without one counts as
/// if it had it. So a file is the same whether its last newline was copied or not.
pub(super) struct SourceLines<R = File> {
    input: BufReader<R>,
    next_line: u64,
    next_byte: u64,
    before: Sha256,
    after: Sha256,
}

/// One line of an older file.
pub(super) struct SourceLine {
    /// Counted from 0.
    pub(super) number: u64,
    /// Offset of its first byte.
    pub(super) offset: u64,
    /// It has a newline; without one it is the last and may be cut short.
    pub(super) complete: bool,
    /// Without the newline; none for a line longer than [`LINE_BYTES_MAX`].
    pub(super) bytes: Option<Vec<u8>>,
}

impl SourceLines {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self::new)
    }
}

impl<R: Read> SourceLines<R> {
    fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(READ_BYTES, input),
            next_line: 0,
            next_byte: 0,
            before: Sha256::new(),
            after: Sha256::new(),
        }
    }

    /// The next line; at the end of the file none. Memory: one line.
    pub(super) fn next(&mut self) -> io::Result<Option<SourceLine>> {
        let mut bytes = Vec::new();
        self.before.clone_from(&self.after);
        let limit = LINE_BYTES_MAX as u64;
        let mut length = (&mut self.input).take(limit).read_until(b'\n', &mut bytes)? as u64;
        if length == 0 {
            return Ok(None);
        }
        self.after.update(&bytes);
        let mut complete = bytes.ends_with(b"\n");
        let fits = complete || length < limit;
        if !fits {
            (length, complete) = self.skip_rest(length)?;
        }
        if complete {
            bytes.pop();
        } else {
            self.after.update(b"\n");
        }
        let line = SourceLine {
            number: self.next_line,
            offset: self.next_byte,
            complete,
            bytes: fits.then_some(bytes),
        };
        self.next_line += 1;
        self.next_byte += length;
        Ok(Some(line))
    }

    /// Hashes the rest of a line; the line's length so far, and whether it has a newline.
    fn skip_rest(&mut self, mut length: u64) -> io::Result<(u64, bool)> {
        let mut piece = Vec::new();
        loop {
            piece.clear();
            let read = (&mut self.input).take(READ_BYTES as u64).read_until(b'\n', &mut piece)?;
            self.after.update(&piece);
            length += read as u64;
            if read == 0 || piece.ends_with(b"\n") {
                return Ok((length, read > 0));
            }
        }
    }

    /// Offset behind the last line that was read.
    pub(super) fn next_byte(&self) -> u64 {
        self.next_byte
    }

    /// Hash of everything before the last line that [`next`](Self::next) gave; at the end of the
    /// file, of the whole file.
    pub(super) fn hash_before(&self) -> String {
        hex(&self.before.clone().finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Vec<SourceLine>, String) {
        let mut lines = SourceLines::new(bytes);
        let read = std::iter::from_fn(|| lines.next().unwrap()).collect();
        (read, lines.hash_before())
    }

    #[test]
    fn lines_come_with_number_offset_and_end() {
        let (lines, _) = read(b"ab\n\nc");
        let places: Vec<_> = lines.iter().map(|l| (l.number, l.offset, l.complete)).collect();
        assert_eq!(places, [(0, 0, true), (1, 3, true), (2, 4, false)]);
        assert_eq!(lines[2].bytes.as_deref(), Some(&b"c"[..]));
    }

    #[test]
    fn a_last_newline_does_not_change_the_hash() {
        assert_eq!(read(b"a\nb").1, read(b"a\nb\n").1);
        assert_ne!(read(b"a\nb\n").1, read(b"a\nb\n\n").1);
        let sha256_of_newline = "01ba4719c80b6fe911b091a7c05124b64eeece964e09c058ef8f9805daca546b";
        assert_eq!(read(b"\n").1, sha256_of_newline);
    }

    #[test]
    fn a_line_over_the_limit_is_passed_over_and_counted() {
        let mut file = vec![b'x'; LINE_BYTES_MAX + READ_BYTES];
        file.extend_from_slice(b"\nnext\n");
        let (lines, _) = read(&file);
        assert!(lines[0].bytes.is_none() && lines[0].complete);
        assert_eq!(lines[1].offset, (LINE_BYTES_MAX + READ_BYTES + 1) as u64);
        let (cut, _) = read(&file[..LINE_BYTES_MAX + 5]);
        assert!(cut.len() == 1 && !cut[0].complete && cut[0].bytes.is_none());
    }
}
