//! Rows that several lines decide: checkpoints, parts of sessions and tombstones, compared with the
//! fold of all lines.

use std::collections::{BTreeMap, BTreeSet};

use postgres::types::Type;
use tidelog::journal::{BatchLimits, Segment, SegmentReader};
use tidelog::{SegmentId, Timestamp};
use uuid::Uuid;

use super::canonical::{Column, RowDigest};
use super::fold::{Fold, Mark, Newest, Part};
use super::narrow::{compare_cells, name_columns};
use super::report::{Difference, DifferenceKind, Findings};
use super::segment::place;
use super::snapshot::{Snapshot, record_send};
use crate::error::SyncError;
use crate::field::{ColumnType, Field};
use crate::replica::{SegmentRow, file_name};
use crate::rows;
use crate::table;

/// Rows of one answer.
const PAGE: usize = 1000;

/// The segments of the fold by their numbers in the replica.
pub(super) type Segments<'a> = BTreeMap<i32, (&'a Segment, &'a SegmentRow)>;

/// Compares everything that the fold decides.
pub(super) fn compare(
    snapshot: &mut Snapshot,
    findings: &mut Findings,
    fold: &mut Fold,
    segments: &Segments<'_>,
) -> Result<(), SyncError> {
    let sessions = fold.sessions();
    let mut deleted = snapshot.deleted(&sessions)?;
    deleted.extend(fold.deletions.iter().map(|mark| mark.key.clone()));
    let void = fold.bury(&deleted);
    compare_tombstones(snapshot, findings, fold, &void)?;
    compare_parts(snapshot, findings, fold, &sessions)?;
    compare_checkpoints(snapshot, findings, fold, segments)
}

fn of(table: &str, key: String, kind: DifferenceKind) -> Difference {
    Difference { table: table.to_owned(), key: Some(key), kind, ..Difference::default() }
}

/// A row of checkpoints: its digest, and its state, which later lines decide.
type Found = (String, RowDigest, String);

fn compare_checkpoints(
    snapshot: &mut Snapshot,
    findings: &mut Findings,
    fold: &Fold,
    segments: &Segments<'_>,
) -> Result<(), SyncError> {
    let mut missing: BTreeSet<&String> = fold.checkpoints.keys().collect();
    let mut after = String::new();
    loop {
        let page = checkpoints_after(snapshot, &after)?;
        for (id, digest, state) in &page {
            missing.remove(id);
            match fold.checkpoints.get(id) {
                None => findings.add(of("checkpoints", id.clone(), DifferenceKind::Extra)),
                Some(newest) => {
                    if newest.digest != *digest {
                        name_checkpoint(snapshot, findings, id, newest, segments)?;
                    }
                    let expected = fold.state(id, newest);
                    if state != expected {
                        let (replica, expected) = (Some(state.clone()), Some(expected.to_owned()));
                        let column = Some("state".to_owned());
                        let place = of("checkpoints", id.clone(), DifferenceKind::Changed);
                        findings.add(Difference { column, replica, expected, ..place });
                    }
                }
            }
        }
        match page.last() {
            Some((id, _, _)) if page.len() == PAGE => after.clone_from(id),
            _ => break,
        }
    }
    for id in missing {
        findings.add(of("checkpoints", id.clone(), DifferenceKind::Missing));
    }
    Ok(())
}

fn checkpoints_after(snapshot: &mut Snapshot, after: &str) -> Result<Vec<Found>, SyncError> {
    let (store_no, after) = (snapshot.store_no.unwrap_or_default(), after.to_owned());
    let sql = format!(
        "SELECT checkpoint_id, sha256({}), state FROM checkpoints t
         WHERE store_no = $1 AND checkpoint_id > $2 ORDER BY checkpoint_id LIMIT {PAGE}",
        record_send(&table::CHECKPOINTS)
    );
    Ok(snapshot.query("comparing checkpoints", move |client| {
        let rows = client.query_typed(&sql, &[(&store_no, Type::INT4), (&after, Type::TEXT)])?;
        let found = |row: &postgres::Row| {
            let digest: &[u8] = row.try_get(1)?;
            Ok((row.try_get(0)?, digest.try_into().unwrap_or_default(), row.try_get(2)?))
        };
        rows.iter().map(found).collect()
    })?)
}

/// Reads the line of a checkpoint's newest creation again and names the columns that differ.
fn name_checkpoint(
    snapshot: &mut Snapshot,
    findings: &mut Findings,
    id: &str,
    newest: &Newest,
    segments: &Segments<'_>,
) -> Result<(), SyncError> {
    let Some((segment, row)) = segments.get(&newest.segment_no) else { return Ok(()) };
    let line = u32::try_from(newest.line_no).unwrap_or_default();
    let Some(from) = SegmentReader::chain_at(&segment.path, line)? else { return Ok(()) };
    let one = BatchLimits { lines_max: 1, bytes_max: 1 };
    let Some(batch) = SegmentReader::open(&segment.path, from)?.next_batch(one)? else {
        return Ok(());
    };
    let range = rows::from_batch(&place(segment, row), from, &batch)
        .map_err(|_| SyncError::TooManyLines { path: segment.path.clone() })?;
    let Some(checkpoint) = range.checkpoints.get(id) else { return Ok(()) };
    let place = Difference {
        file: Some(file_name(segment)),
        line: Some(line),
        ..of("checkpoints", id.to_owned(), DifferenceKind::Changed)
    };
    let store_no = snapshot.store_no.unwrap_or_default();
    let condition = format!("t.checkpoint_id = $1 AND t.store_no = {store_no}");
    let key = vec![(id.to_owned(), Type::TEXT)];
    let row = (&table::CHECKPOINTS, checkpoint.fields.as_slice());
    Ok(name_columns(snapshot, findings, &place, row, (&condition, key))?)
}

const PART: [Column; 7] = [
    ("session_id", ColumnType::Text),
    ("attempt", ColumnType::Int4),
    ("started_at", ColumnType::Time),
    ("ended_at", ColumnType::Time),
    ("status", ColumnType::Text),
    ("reason", ColumnType::Text),
    ("metadata", ColumnType::Json),
];

fn part_fields(part: &Part) -> Vec<(Column, Field)> {
    let end = part.end.as_ref();
    let session = match &part.own {
        Some((session, _)) => Some(session.to_string()),
        None => end.map(|end| end.session.clone()),
    };
    let start = part.start.as_ref();
    let text = |text: Option<String>| text.map_or(Field::Null, Field::Text);
    let fields = [
        text(session),
        part.own.as_ref().map(|(_, attempt)| *attempt).into(),
        start.and_then(|start| start.started_at).into(),
        end.map(|end| end.ended_at).into(),
        text(end.map(|end| end.status.to_owned())),
        text(end.and_then(|end| end.reason.clone())),
        start.map_or(Field::Null, |start| start.metadata.clone()),
    ];
    std::iter::zip(PART, fields).collect()
}

fn compare_parts(
    snapshot: &mut Snapshot,
    findings: &mut Findings,
    fold: &Fold,
    sessions: &BTreeSet<String>,
) -> Result<(), SyncError> {
    let names: Vec<(Uuid, Vec<(Column, Field)>)> =
        fold.parts.iter().map(|(id, part)| (id.as_uuid(), part_fields(part))).collect();
    for page in names.chunks(PAGE) {
        let found = part_records(snapshot, page.iter().map(|(id, _)| *id).collect())?;
        for (id, expected) in page {
            let fields: Vec<(ColumnType, &Field)> =
                expected.iter().map(|((_, ty), field)| (*ty, field)).collect();
            if found.get(id) == Some(&snapshot.canonical.record(&fields)) {
                continue;
            }
            let key = vec![(*id, Type::UUID)];
            let cells = snapshot.cells("session_parts", &PART, "t.segment_id = $1", key)?;
            let place = of("session_parts", id.to_string(), DifferenceKind::Changed);
            compare_cells(snapshot.canonical, findings, &place, expected, cells.as_deref());
        }
    }
    let known = fold.parts.keys().map(SegmentId::as_uuid).collect();
    for id in unknown_parts(snapshot, sessions, known)? {
        findings.add(of("session_parts", id.to_string(), DifferenceKind::Extra));
    }
    Ok(())
}

fn part_records(
    snapshot: &mut Snapshot,
    ids: Vec<Uuid>,
) -> Result<BTreeMap<Uuid, Vec<u8>>, SyncError> {
    let names = PART.map(|(name, _)| name).join(", ");
    let sql = format!(
        "SELECT segment_id, record_send(ROW({names})) FROM session_parts
         WHERE segment_id = ANY ($1)"
    );
    Ok(snapshot.query("comparing parts of sessions", move |client| {
        let rows = client.query_typed(&sql, &[(&ids, Type::UUID_ARRAY)])?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    })?)
}

/// Parts of these sessions that no line knows, and no other store has.
fn unknown_parts(
    snapshot: &mut Snapshot,
    sessions: &BTreeSet<String>,
    known: Vec<Uuid>,
) -> Result<Vec<Uuid>, SyncError> {
    let store_no = snapshot.store_no.unwrap_or_default();
    let sessions: Vec<String> = sessions.iter().cloned().collect();
    Ok(snapshot.query("looking for parts of sessions", move |client| {
        let rows = client.query_typed(
            "SELECT segment_id FROM session_parts p
             WHERE session_id = ANY ($1) AND segment_id <> ALL ($2)
               AND NOT EXISTS (SELECT FROM sync_segments g
                               WHERE g.segment_id = p.segment_id AND g.store_no <> $3)
             ORDER BY segment_id LIMIT 101",
            &[(&sessions, Type::TEXT_ARRAY), (&known, Type::UUID_ARRAY), (&store_no, Type::INT4)],
        )?;
        rows.iter().map(|row| row.try_get(0)).collect()
    })?)
}

/// Each tombstone stands for a line, and every deletion has one. Which of several creations a
/// checkpoint's tombstone names depends on when the deletion came, so any that is late enough is right.
fn compare_tombstones(
    snapshot: &mut Snapshot,
    findings: &mut Findings,
    fold: &Fold,
    void: &[(String, Timestamp)],
) -> Result<(), SyncError> {
    let found = tombstones(snapshot)?;
    for (kind, mark) in &found {
        let lines = match kind.as_str() {
            "session" => &fold.deletions,
            "checkpoint" => &fold.creations,
            _ => continue,
        };
        if !lines.contains(mark) {
            let key = format!("{kind} {}", mark.key);
            findings.add(of("tombstones", key, DifferenceKind::Extra));
        }
    }
    let sessions = fold.deletions.iter().map(|mark| ("session", &mark.key, mark.time));
    let checkpoints = void.iter().map(|(key, time)| ("checkpoint", key, *time));
    for (kind, key, time) in sessions.chain(checkpoints) {
        let is_there =
            |(found, mark): &(String, Mark)| found == kind && mark.key == *key && mark.time >= time;
        if !found.iter().any(is_there) {
            findings.add(of("tombstones", format!("{kind} {key}"), DifferenceKind::Missing));
        }
    }
    Ok(())
}

fn tombstones(snapshot: &mut Snapshot) -> Result<BTreeSet<(String, Mark)>, SyncError> {
    let store_no = snapshot.store_no.unwrap_or_default();
    let rows = snapshot.query("comparing tombstones", move |client| {
        let rows = client.query_typed(
            "SELECT kind, key, segment_no, line_no, deleted_at FROM tombstones WHERE store_no = $1",
            &[(&store_no, Type::INT4)],
        )?;
        let row = |row: &postgres::Row| {
            let time: jiff::Timestamp = row.try_get(4)?;
            let place: (i32, i32) = (row.try_get(2)?, row.try_get(3)?);
            Ok((row.try_get(0)?, row.try_get(1)?, place, time))
        };
        rows.iter().map(row).collect::<Result<Vec<(String, String, (i32, i32), _)>, _>>()
    })?;
    // A time that no line can have belongs to no line, and leaves the line's own tombstone missing.
    let tombstone = |(kind, key, (segment_no, line_no), time)| {
        let time = Timestamp::from_jiff(time).ok()?;
        Some((kind, Mark { key, time, segment_no, line_no }))
    };
    Ok(rows.into_iter().filter_map(tombstone).collect())
}
