//! Telemetry records: the rows that there are a million of.

use std::fmt::Write as _;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection, ToSql};

use super::columns::Number;
use crate::entry::Record;
use crate::ids::SessionId;
use crate::timestamp::Timestamp;

/// Inserts records of one segment. What they have in common is bound once.
pub(super) struct RecordInsert<'a> {
    statement: CachedStatement<'a>,
    /// Room for each record's texts.
    timestamp: String,
    extra: Vec<u8>,
}

impl<'a> RecordInsert<'a> {
    pub(super) fn prepare(
        db: &'a Connection,
        segment_no: i64,
        session: &SessionId,
    ) -> rusqlite::Result<Self> {
        let mut statement = db.prepare_cached(
            "INSERT INTO telemetry_records (segment_no, session_id, line_no, timestamp, step, phi,
                 kappa_eff, regime, basin_distance, recursion_depth, geodesic_distance, curvature,
                 fisher_metric_trace, breakdown_pct, coherence_drift, emergency, meta_awareness,
                 generativity, grounding, temporal_coherence, external_coupling, extra)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                 ?18, ?19, ?20, ?21, ?22)",
        )?;
        statement.raw_bind_parameter(1, segment_no)?;
        statement.raw_bind_parameter(2, session.as_str())?;
        Ok(Self { statement, timestamp: String::new(), extra: Vec::new() })
    }

    pub(super) fn insert(
        &mut self,
        line_no: u32,
        at: Timestamp,
        record: &Record,
    ) -> rusqlite::Result<()> {
        let failed =
            |error: serde_json::Error| rusqlite::Error::ToSqlConversionFailure(error.into());
        let t = &record.telemetry;
        self.timestamp.clear();
        write!(self.timestamp, "{at}").ok(); // a String takes everything
        self.extra.clear();
        let extra = if t.extra.is_empty() {
            ValueRef::Null
        } else {
            serde_json::to_writer(&mut self.extra, &t.extra).map_err(failed)?;
            ValueRef::Text(&self.extra)
        };
        let columns: [&dyn ToSql; 20] = [
            &line_no,
            &self.timestamp,
            &record.step,
            &Number(t.phi),
            &Number(t.kappa_eff),
            &t.regime,
            &Number(t.basin_distance),
            &t.recursion_depth,
            &Number(t.geodesic_distance),
            &Number(t.curvature),
            &Number(t.fisher_metric_trace),
            &Number(t.breakdown_pct),
            &Number(t.coherence_drift),
            &t.emergency,
            &Number(t.meta_awareness),
            &Number(t.generativity),
            &Number(t.grounding),
            &Number(t.temporal_coherence),
            &Number(t.external_coupling),
            &ToSqlOutput::Borrowed(extra),
        ];
        for (index, column) in (3..).zip(columns) {
            self.statement.raw_bind_parameter(index, column)?;
        }
        self.statement.raw_execute().map(|_| ())
    }
}
