//! Rows as the lines that they were made of.

use postgres::Row;
use tidelog::{BasinCoords, BasinPoint, Body, Entry, Record, Telemetry, Timestamp};

use crate::database::DatabaseError;
use crate::error::SyncError;

pub(super) const RECORDS: &str = "
    SELECT line_no, timestamp, step, extra::text, regime, recursion_depth, emergency,
           phi, kappa_eff, basin_distance, geodesic_distance, curvature, fisher_metric_trace,
           breakdown_pct, coherence_drift, meta_awareness, generativity, grounding,
           temporal_coherence, external_coupling
    FROM telemetry_records
    WHERE segment_no = $1 AND line_no >= $2 AND line_no < $3";

/// Not as `vector`: the driver would ask what that is between the rows of the answer, and wait for
/// ever where that is long.
pub(super) const POINTS: &str = "
    SELECT line_no, timestamp, step, basin_coords::real[], basin_coords_exact, phi, kappa
    FROM basin_history
    WHERE segment_no = $1 AND line_no >= $2 AND line_no < $3";

pub(super) const WHOLE: &str = "
    SELECT line_no, raw
    FROM sync_lines
    WHERE segment_no = $1 AND line_no >= $2 AND line_no < $3";

/// The line of an entry, without its newline.
pub(super) fn bytes(entry: &Entry) -> Result<Vec<u8>, SyncError> {
    let mut line = Vec::new();
    entry.write_line(&mut line)?;
    line.pop();
    Ok(line)
}

/// A row of [`RECORDS`].
pub(super) fn record(row: &Row) -> Result<(u32, Entry), DatabaseError> {
    // A row that somebody wrote by hand may hold any JSON: its line then is not the one that was sent.
    let extra: Option<String> = row.try_get(3)?;
    let free: Telemetry =
        extra.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
    let telemetry = Telemetry {
        regime: row.try_get(4)?,
        recursion_depth: row.try_get(5)?,
        emergency: row.try_get(6)?,
        phi: row.try_get(7)?,
        kappa_eff: row.try_get(8)?,
        basin_distance: row.try_get(9)?,
        geodesic_distance: row.try_get(10)?,
        curvature: row.try_get(11)?,
        fisher_metric_trace: row.try_get(12)?,
        breakdown_pct: row.try_get(13)?,
        coherence_drift: row.try_get(14)?,
        meta_awareness: row.try_get(15)?,
        generativity: row.try_get(16)?,
        grounding: row.try_get(17)?,
        temporal_coherence: row.try_get(18)?,
        external_coupling: row.try_get(19)?,
        extra: free.extra,
    };
    let body = Body::Record(Record { step: row.try_get(2)?, telemetry });
    Ok((number(row)?, Entry { timestamp: time(row)?, body }))
}

/// A row of [`POINTS`]; none without 64 numbers.
pub(super) fn point(row: &Row) -> Result<Option<(u32, Entry)>, DatabaseError> {
    let rounded: Option<Vec<f32>> = row.try_get(3)?;
    let exact: Option<Vec<f64>> = row.try_get(4)?;
    let rounded = rounded.map(|coords| coords.into_iter().map(f64::from).collect());
    let Some(coords) = exact.or(rounded).and_then(|coords| <[f64; 64]>::try_from(coords).ok())
    else {
        return Ok(None);
    };
    let body = Body::Basin(BasinPoint {
        step: row.try_get(2)?,
        basin_coords: BasinCoords::from(coords),
        phi: row.try_get(5)?,
        kappa: row.try_get(6)?,
    });
    Ok(Some((number(row)?, Entry { timestamp: time(row)?, body })))
}

/// A row of [`WHOLE`].
pub(super) fn whole(row: &Row) -> Result<(u32, Vec<u8>), DatabaseError> {
    Ok((number(row)?, row.try_get(1)?))
}

fn number(row: &Row) -> Result<u32, DatabaseError> {
    Ok(u32::try_from(row.try_get::<_, i32>(0)?).unwrap_or(u32::MAX))
}

/// The time of what has none.
pub(super) fn epoch() -> Timestamp {
    Timestamp::from_jiff(jiff::Timestamp::UNIX_EPOCH).unwrap_or_else(|_| Timestamp::now())
}

/// Rows that an agent wrote have a time that a line can have.
fn time(row: &Row) -> Result<Timestamp, DatabaseError> {
    Ok(Timestamp::from_jiff(row.try_get(1)?).unwrap_or_else(|_| epoch()))
}
