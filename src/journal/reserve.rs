//! Space that is kept for a full disk: `active/<segment id>.reserve`.
//!
//! Made with the segment and removed with its marker. When the disk is full, the writer gives it back
//! piece by piece, so that an emergency event, a checkpoint's entry and the end of the session
//! still find room; records do not ask for it.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::marker;
use super::segment::Header;
use crate::disk;

/// Of each segment of a session.
const RESERVE_BYTES: u64 = 256 << 10;
/// Taken back at least; a block of most disks. Both others are multiples of it.
const BLOCK_BYTES: u64 = 4 << 10;
/// Given back at a time: an event's line, its copy, and the blocks of their folders.
const PIECE_BYTES: u64 = 64 << 10;

/// What one writer keeps. To have none is no error: the disk may be full at the start, or not know
/// how to reserve.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// None once everything was given back.
    file: Option<File>,
    bytes: u64,
    /// The disk had room at the start, and did not reserve any.
    is_refused: bool,
}

impl Reserve {
    /// Takes the space, if there is any.
    pub(super) fn take(root: &Path, header: &Header) -> Self {
        let path = marker::reserve_path(root, header.segment);
        let mut reserve = Self { path, file: None, bytes: 0, is_refused: false };
        reserve.top_up();
        // the error does not tell whether the disk is full or cannot reserve
        let free_bytes = disk::free_bytes(root).unwrap_or(0);
        reserve.is_refused = reserve.file.is_none() && free_bytes > 2 * RESERVE_BYTES;
        reserve.refill();
        reserve
    }

    /// Takes back what was given, or as much of it as the disk has left.
    pub(super) fn refill(&mut self) {
        let mut wanted = RESERVE_BYTES;
        while wanted > self.bytes && !self.is_refused && !self.takes(wanted) {
            wanted -= BLOCK_BYTES;
        }
    }

    /// Takes back what was given, in one try.
    pub(super) fn top_up(&mut self) {
        if self.bytes < RESERVE_BYTES && !self.is_refused {
            self.takes(RESERVE_BYTES);
        }
    }

    fn takes(&mut self, bytes: u64) -> bool {
        let taken = match &self.file {
            Some(file) => disk::allocate(file, &self.path, bytes),
            None => disk::create_allocated(&self.path, bytes).map(|file| self.file = Some(file)),
        };
        if taken.is_ok() {
            self.bytes = bytes;
        }
        taken.is_ok()
    }

    /// Gives a piece back to the disk, at last the file itself; whether there was anything to give.
    pub(super) fn release(&mut self) -> bool {
        let Some(file) = &self.file else { return false };
        let rest = self.bytes.saturating_sub(PIECE_BYTES);
        if rest > 0 && file.set_len(rest).is_ok() {
            self.bytes = rest;
            return true;
        }
        self.file = None;
        self.bytes = 0;
        disk::remove_unpersisted(&self.path).is_ok()
    }
}
