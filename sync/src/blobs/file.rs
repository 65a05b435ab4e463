//! One checkpoint file, piece by piece.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tidelog::checkpoint;

use super::table::{self, Begun, Piece, Wanted};
use crate::error::SyncError;
use crate::replica::Replica;

/// Bytes of a piece. New lines of the journal wait while one is sent; memory holds two.
pub(super) const PIECE_BYTES: u64 = 1 << 20;

/// A file that is being sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) wanted: Wanted,
    file: File,
    path: PathBuf,
    blob_no: i64,
    /// Hashes of the pieces that were there before, which are compared on the way.
    before: Vec<Vec<u8>>,
    /// The next piece to be read.
    next: usize,
    /// Of everything before it.
    hasher: Sha256,
}

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is there; others follow.
    Piece,
    /// All are there, and their hash is the journal's.
    Complete,
    /// What was there before is another file's, and is gone now.
    Anew,
    /// The file's row is not where this agent left it.
    Elsewhere,
}

impl Sending {
    /// Opens a file and finds out how much of it is there already; `None` if it is complete or not
    /// wanted any more.
    ///
    /// # Errors
    /// The file cannot be opened or has another size than the journal says; or the database failed.
    pub(super) fn begin(
        root: &Path,
        replica: &mut Replica,
        wanted: Wanted,
    ) -> Result<Option<Self>, SyncError> {
        let (path, file) = checkpoint::open_file(root, &wanted.file)?;
        let found = file.metadata().map_err(|source| failed(&path, source))?.len();
        if found != wanted.size_bytes {
            let reason = format!("has {found} bytes, the journal says {}", wanted.size_bytes);
            return Err(damaged(&path, reason));
        }
        let Some(Begun { blob_no, before }) = table::begin(replica, &wanted)? else {
            return Ok(None);
        };
        let hasher = Sha256::new();
        Ok(Some(Self { wanted, file, path, blob_no, before, next: 0, hasher }))
    }

    /// Sends the next piece, or compares it with the one that is there.
    ///
    /// # Errors
    /// The file cannot be read or is not what the journal says, after which nothing of it is left in
    /// the database; or the database failed.
    pub(super) fn next_piece(&mut self, replica: &mut Replica) -> Result<Sent, SyncError> {
        let bytes = self.read()?;
        if bytes.is_empty() {
            return self.complete(replica);
        }
        self.hasher.update(&bytes);
        let piece = Piece { number: self.next, sha256: Sha256::digest(&bytes).to_vec(), bytes };
        self.next += 1;
        match self.before.get(piece.number) {
            Some(before) if *before == piece.sha256 => Ok(Sent::Piece),
            Some(_) => {
                table::clear(replica, self.blob_no)?;
                Ok(Sent::Anew)
            }
            None if table::send(replica, self.blob_no, piece)? => Ok(Sent::Piece),
            None => Ok(Sent::Elsewhere),
        }
    }

    /// Up to a piece of what the journal says that there is.
    fn read(&mut self) -> Result<Vec<u8>, SyncError> {
        let done = (self.next as u64).saturating_mul(PIECE_BYTES);
        let expected = self.wanted.size_bytes.saturating_sub(done).min(PIECE_BYTES);
        let mut bytes = Vec::new();
        let read = (&mut self.file).take(expected).read_to_end(&mut bytes);
        match read.map_err(|source| failed(&self.path, source))? as u64 {
            read if read == expected => Ok(bytes),
            _ => Err(damaged(&self.path, "became shorter while it was sent".to_owned())),
        }
    }

    fn complete(&mut self, replica: &mut Replica) -> Result<Sent, SyncError> {
        let found = format!("{:x}", self.hasher.clone().finalize());
        if found != self.wanted.sha256 {
            table::clear(replica, self.blob_no)?;
            let reason = format!("has SHA-256 {found}, the journal says {}", self.wanted.sha256);
            return Err(damaged(&self.path, reason));
        }
        Ok(match table::complete(replica, self.blob_no, self.next)? {
            true => Sent::Complete,
            false => Sent::Elsewhere,
        })
    }
}

fn failed(path: &Path, source: std::io::Error) -> SyncError {
    tidelog::Error::Io { action: "read", path: path.to_owned(), source }.into()
}

fn damaged(path: &Path, reason: String) -> SyncError {
    tidelog::Error::CheckpointDamaged { path: path.to_owned(), reason }.into()
}
