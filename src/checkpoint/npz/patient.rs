//! A file for the ZIP library that never fails.
//!
//! The library goes on after an error, when it is dropped at the latest: it writes, computes with
//! places that a failed write left behind, and panics in a debug build. So it is told that all is
//! well; nothing reaches the disk any more after the first error, and that error is kept.

use std::cell::OnceCell;
use std::io::{self, Seek, SeekFrom, Write};
use std::rc::Rc;

/// Why nothing is written any more; empty while all is well.
pub(super) type FirstError = Rc<OnceCell<io::Error>>;

/// Takes everything, and writes as long as the disk does.
pub(super) struct Patient<W> {
    inner: W,
    first_error: FirstError,
    position: u64,
    length: u64,
}

impl<W: Write + Seek> Patient<W> {
    /// A file that stands at its end; the error is for whoever asks.
    pub(super) fn new(inner: W) -> (Self, FirstError) {
        let first_error = FirstError::default();
        let patient = Self { inner, first_error: Rc::clone(&first_error), position: 0, length: 0 };
        (patient, first_error)
    }

    /// The file, which is whole if there is no error.
    pub(super) fn into_inner(self) -> W {
        self.inner
    }

    fn fails(&self, error: io::Error) {
        self.first_error.set(error).ok(); // the first one stays
    }

    fn moved_to(&mut self, position: u64) -> u64 {
        self.position = position;
        self.length = self.length.max(position);
        position
    }
}

impl<W: Write + Seek> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = bytes.len();
        if self.first_error.get().is_none() {
            match self.inner.write(bytes) {
                Ok(written) => taken = written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) => self.fails(error),
            }
        }
        self.moved_to(self.position + taken as u64);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.first_error.get().is_none()
            && let Err(error) = self.inner.flush()
        {
            self.fails(error);
        }
        Ok(())
    }
}

impl<W: Write + Seek> Seek for Patient<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        if self.first_error.get().is_none() {
            match self.inner.seek(to) {
                Ok(position) => return Ok(self.moved_to(position)),
                Err(error) => self.fails(error),
            }
        }
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        let position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.moved_to(position))
    }
}
