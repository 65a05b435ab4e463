//! `checkpoint_blobs` and `checkpoint_chunks`.

use std::time::Duration;

use postgres::Transaction;
use postgres::types::Type;

use crate::database::DatabaseError;
use crate::replica::Replica;

/// Files that one look finds; the next look finds the others.
const WANTED_MAX: i64 = 100;
/// How long one statement may take: a piece over a slow line.
const LIMIT: Duration = Duration::from_secs(60);

/// A checkpoint file that is not in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) checkpoint_id: String,
    /// Name inside `checkpoints/`, as the journal says: nothing is certain about it.
    pub(super) file: String,
    pub(super) size_bytes: u64,
    pub(super) sha256: String,
}

/// A file that is in the database in part.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) blob_no: i64,
    /// SHA-256 of each piece that is there, in order.
    pub(super) before: Vec<Vec<u8>>,
}

/// A piece of a file.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) number: usize,
    pub(super) sha256: Vec<u8>,
    pub(super) bytes: Vec<u8>,
}

impl Piece {
    fn number(&self) -> i32 {
        i32::try_from(self.number).unwrap_or(i32::MAX)
    }
}

/// The newest files to send; those with a problem only after `retry_after`. Files over the limit are
/// noted as such, and pieces of files that were pruned meanwhile go.
pub(super) fn wanted(
    replica: &mut Replica,
    bytes_max: u64,
    retry_after: Duration,
) -> Result<Vec<Wanted>, DatabaseError> {
    let store_no = replica.store_no();
    let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
    replica.within(LIMIT, "looking for checkpoint files to send", move |transaction| {
        let store_and_limit = [(&store_no as _, Type::INT4), (&bytes_max as _, Type::INT8)];
        transaction.execute_typed(NOTE_TOO_LARGE, &store_and_limit)?;
        transaction.execute_typed(DELETE_UNWANTED, &[(&store_no, Type::INT4)])?;
        let rows = transaction.query_typed(
            WANTED,
            &[
                (&store_no, Type::INT4),
                (&bytes_max, Type::INT8),
                (&retry_after.as_secs_f64(), Type::FLOAT8),
                (&WANTED_MAX, Type::INT8),
            ],
        )?;
        let read = |row: &postgres::Row| {
            let size_bytes: i64 = row.try_get(2)?;
            Ok(Wanted {
                checkpoint_id: row.try_get(0)?,
                file: row.try_get(1)?,
                size_bytes: u64::try_from(size_bytes).unwrap_or_default(),
                sha256: row.try_get(3)?,
            })
        };
        rows.iter().map(read).collect()
    })
}

/// A hash of another form is no hash, and no file has it.
const WANTED: &str = "
    SELECT c.checkpoint_id, c.file, c.size_bytes, c.sha256
    FROM checkpoints c
    LEFT JOIN checkpoint_blobs b ON b.store_no = c.store_no AND b.sha256 = c.sha256
    WHERE c.store_no = $1 AND c.state = 'present' AND c.size_bytes <= $2
      AND c.file IS NOT NULL AND c.sha256 ~ '^[0-9a-f]{64}$' AND b.complete_at IS NULL
      AND (b.problem IS NULL OR b.problem_at <= now() - $3 * interval '1 second')
    ORDER BY c.created_at DESC, c.checkpoint_id
    LIMIT $4";

const NOTE_TOO_LARGE: &str = "
    INSERT INTO checkpoint_blobs AS old (store_no, sha256, size_bytes, problem, problem_at)
    SELECT DISTINCT ON (c.sha256) c.store_no, c.sha256, c.size_bytes,
           format('checkpoint file %s has %s bytes, --blob-max-size is %s', c.file, c.size_bytes, $2),
           now()
    FROM checkpoints c
    WHERE c.store_no = $1 AND c.state = 'present' AND c.size_bytes > $2
      AND c.sha256 ~ '^[0-9a-f]{64}$'
    ORDER BY c.sha256
    ON CONFLICT (store_no, sha256) DO UPDATE SET problem = excluded.problem, problem_at = now()
    WHERE old.complete_at IS NULL AND old.problem IS DISTINCT FROM excluded.problem";

const DELETE_UNWANTED: &str = "
    DELETE FROM checkpoint_blobs b
    WHERE b.store_no = $1 AND b.complete_at IS NULL
      AND NOT EXISTS (SELECT FROM checkpoints c
                      WHERE c.store_no = b.store_no AND c.sha256 = b.sha256
                        AND c.state = 'present')";

/// What of a store's checkpoint files is not in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MissingFiles {
    pub(crate) count: i64,
    /// Which files, and why, of those that an agent could not or may not send.
    pub(crate) problems: Vec<String>,
}

impl MissingFiles {
    /// Asks the database. Writes nothing.
    pub(crate) fn read(replica: &mut Replica) -> Result<Self, DatabaseError> {
        let store_no = replica.store_no();
        replica.query("reading the status of checkpoint files", move |client| {
            let row = client.query_typed_one(MISSING, &[(&store_no, Type::INT4)])?;
            Ok(Self { count: row.try_get(0)?, problems: row.try_get(1)? })
        })
    }
}

const MISSING: &str = "
    WITH missing AS (
        SELECT c.created_at, b.problem
        FROM checkpoints c
        LEFT JOIN checkpoint_blobs b ON b.store_no = c.store_no AND b.sha256 = c.sha256
        WHERE c.store_no = $1 AND c.state = 'present' AND b.complete_at IS NULL
    )
    SELECT (SELECT count(*) FROM missing),
           ARRAY(SELECT problem FROM missing WHERE problem IS NOT NULL
                 ORDER BY created_at DESC LIMIT 100)";

/// Makes a file known; `None` if it is complete, or its checkpoint was pruned or deleted.
///
/// The checkpoint's row stays locked until the file's row is there, so that whoever deletes the one
/// finds the other.
pub(super) fn begin(
    replica: &mut Replica,
    wanted: &Wanted,
) -> Result<Option<Begun>, DatabaseError> {
    let (store_no, wanted) = (replica.store_no(), wanted.clone());
    replica.within(LIMIT, "beginning a checkpoint file", move |transaction| {
        if !lock_checkpoint(transaction, store_no, &wanted)? {
            return Ok(None);
        }
        let size_bytes = i64::try_from(wanted.size_bytes).unwrap_or(i64::MAX);
        let key = [(&store_no as _, Type::INT4), (&wanted.sha256 as _, Type::TEXT)];
        transaction.execute_typed(
            "INSERT INTO checkpoint_blobs (store_no, sha256, size_bytes) VALUES ($1, $2, $3)
             ON CONFLICT DO NOTHING",
            &[key[0].clone(), key[1].clone(), (&size_bytes, Type::INT8)],
        )?;
        let row = transaction.query_typed_one(
            "SELECT blob_no, complete_at IS NOT NULL FROM checkpoint_blobs
             WHERE store_no = $1 AND sha256 = $2",
            &key,
        )?;
        let (blob_no, is_complete): (i64, bool) = (row.try_get(0)?, row.try_get(1)?);
        if is_complete {
            return Ok(None);
        }
        let pieces = transaction.query_typed(
            "SELECT sha256 FROM checkpoint_chunks WHERE blob_no = $1 ORDER BY chunk_no",
            &[(&blob_no, Type::INT8)],
        )?;
        let before = pieces.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        Ok(Some(Begun { blob_no, before }))
    })
}

fn lock_checkpoint(
    transaction: &mut Transaction<'_>,
    store_no: i32,
    wanted: &Wanted,
) -> Result<bool, DatabaseError> {
    let rows = transaction.query_typed(
        "SELECT FROM checkpoints
         WHERE checkpoint_id = $1 AND store_no = $2 AND sha256 = $3 AND state = 'present'
         FOR KEY SHARE",
        &[
            (&wanted.checkpoint_id, Type::TEXT),
            (&store_no, Type::INT4),
            (&wanted.sha256, Type::TEXT),
        ],
    )?;
    Ok(!rows.is_empty())
}

/// Adds a piece; `false` if the pieces before it are not those that were there.
pub(super) fn send(
    replica: &mut Replica,
    blob_no: i64,
    piece: Piece,
) -> Result<bool, DatabaseError> {
    replica.within(LIMIT, "sending a piece of a checkpoint file", move |transaction| {
        let moved = transaction.execute_typed(
            "UPDATE checkpoint_blobs
             SET next_chunk = next_chunk + 1, problem = NULL, problem_at = NULL
             WHERE blob_no = $1 AND next_chunk = $2 AND complete_at IS NULL",
            &[(&blob_no, Type::INT8), (&piece.number(), Type::INT4)],
        )?;
        if moved == 0 {
            return Ok(false);
        }
        transaction.execute_typed(
            "INSERT INTO checkpoint_chunks (blob_no, chunk_no, sha256, bytes)
             VALUES ($1, $2, $3, $4)",
            &[
                (&blob_no, Type::INT8),
                (&piece.number(), Type::INT4),
                (&piece.sha256, Type::BYTEA),
                (&piece.bytes, Type::BYTEA),
            ],
        )?;
        Ok(true)
    })
}

/// Writes down that every piece is there; `false` if there are not so many.
pub(super) fn complete(
    replica: &mut Replica,
    blob_no: i64,
    pieces: usize,
) -> Result<bool, DatabaseError> {
    let pieces = i32::try_from(pieces).unwrap_or(i32::MAX);
    replica.within(LIMIT, "completing a checkpoint file", move |transaction| {
        let completed = transaction.execute_typed(
            "UPDATE checkpoint_blobs SET complete_at = now(), problem = NULL, problem_at = NULL
             WHERE blob_no = $1 AND next_chunk = $2 AND complete_at IS NULL",
            &[(&blob_no, Type::INT8), (&pieces, Type::INT4)],
        )?;
        Ok(completed == 1)
    })
}

/// Takes back the pieces of a file that is not complete.
pub(super) fn clear(replica: &mut Replica, blob_no: i64) -> Result<(), DatabaseError> {
    replica.within(LIMIT, "taking back a checkpoint file", move |transaction| {
        let cleared = transaction.execute_typed(
            "UPDATE checkpoint_blobs SET next_chunk = 0 WHERE blob_no = $1 AND complete_at IS NULL",
            &[(&blob_no, Type::INT8)],
        )?;
        if cleared == 1 {
            transaction.execute_typed(
                "DELETE FROM checkpoint_chunks WHERE blob_no = $1",
                &[(&blob_no, Type::INT8)],
            )?;
        }
        Ok(())
    })
}

/// Writes down why a file is not sent.
pub(super) fn note_problem(
    replica: &mut Replica,
    wanted: &Wanted,
    problem: String,
) -> Result<(), DatabaseError> {
    let (store_no, wanted) = (replica.store_no(), wanted.clone());
    let problem = problem.replace('\0', "\u{fffd}");
    replica.within(LIMIT, "noting a checkpoint file", move |transaction| {
        if !lock_checkpoint(transaction, store_no, &wanted)? {
            return Ok(());
        }
        let size_bytes = i64::try_from(wanted.size_bytes).unwrap_or(i64::MAX);
        transaction.execute_typed(
            "INSERT INTO checkpoint_blobs AS old (store_no, sha256, size_bytes, problem, problem_at)
             VALUES ($1, $2, $3, $4, now())
             ON CONFLICT (store_no, sha256) DO UPDATE
             SET problem = excluded.problem, problem_at = excluded.problem_at
             WHERE old.complete_at IS NULL",
            &[
                (&store_no, Type::INT4),
                (&wanted.sha256, Type::TEXT),
                (&size_bytes, Type::INT8),
                (&problem, Type::TEXT),
            ],
        )?;
        Ok(())
    })
}
