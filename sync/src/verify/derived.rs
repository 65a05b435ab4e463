//! Rows that are calculated from other rows: sessions, their statistics, the ranks of checkpoints.
//! They are calculated anew, in the same snapshot.
//!
//! Statistics and ranks are written beside the batches, so for a moment they may be older than the rows.
//! That is told apart from a wrong value: statistics by the number of lines that they were calculated
//! from, ranks by whether an agent wrote anything in the last minute.

use std::collections::BTreeSet;

use postgres::types::Type;

use super::report::{Difference, DifferenceKind, Findings};
use super::snapshot::Snapshot;
use crate::database::DatabaseError;

/// What is not up to date, and so was not compared.
#[derive(Debug, Default)]
pub(super) struct Behind {
    pub(super) statistics: u64,
    pub(super) ranks: bool,
}

/// Compares all that is derived of these sessions, and of the store's checkpoints.
pub(super) fn compare(
    snapshot: &mut Snapshot,
    findings: &mut Findings,
    sessions: &BTreeSet<String>,
) -> Result<Behind, DatabaseError> {
    let sessions: Vec<String> = sessions.iter().cloned().collect();
    compare_sessions(snapshot, findings, sessions.clone())?;
    let is_settled = is_settled(snapshot)?;
    let stale = stale_sessions(snapshot, sessions.clone())?;
    let mut behind = Behind { statistics: stale.len() as u64, ranks: false };
    for session in sessions.iter().filter(|session| !stale.contains(*session)) {
        let wrong = statistics(snapshot, session.clone())?;
        behind.statistics += u64::from(!wrong.is_empty() && !is_settled);
        wrong.into_iter().filter(|_| is_settled).for_each(|found| findings.add(found));
    }
    let wrong = ranks(snapshot)?;
    behind.ranks = !wrong.is_empty() && !is_settled;
    wrong.into_iter().filter(|_| is_settled).for_each(|found| findings.add(found));
    Ok(behind)
}

/// The fold of parts, as `fold_sessions()` describes it.
const FOLD: &str = "
    SELECT COALESCE(f.session_id, s.session_id), f.session_id IS NULL, s.session_id IS NULL,
           v.name, v.replica, v.expected
    FROM (
        SELECT p.session_id, min(p.started_at) AS started_at,
               CASE WHEN bool_and(p.ended_at IS NOT NULL) THEN max(p.ended_at) END AS ended_at,
               CASE WHEN bool_and(p.ended_at IS NOT NULL) THEN
                   COALESCE((array_agg(p.status ORDER BY p.ended_at DESC, p.attempt DESC NULLS LAST,
                                                         p.segment_id DESC)
                       FILTER (WHERE p.status <> 'continued'))[1], 'aborted')
               ELSE 'active' END AS status,
               COALESCE(max(p.attempt), 1) AS attempts,
               (array_agg(p.metadata ORDER BY p.attempt, p.started_at, p.segment_id)
                   FILTER (WHERE p.metadata IS NOT NULL))[1] AS metadata
        FROM session_parts p WHERE p.session_id = ANY ($1) GROUP BY p.session_id
    ) f
    FULL JOIN (SELECT * FROM telemetry_sessions WHERE session_id = ANY ($1)) s
        ON s.session_id = f.session_id
    CROSS JOIN LATERAL (VALUES
        ('started_at', s.started_at::text, f.started_at::text),
        ('ended_at', s.ended_at::text, f.ended_at::text),
        ('status', s.status, f.status),
        ('attempts', s.attempts::text, f.attempts::text),
        ('metadata', s.metadata::text, f.metadata::text)) v (name, replica, expected)
    WHERE v.replica IS DISTINCT FROM v.expected
    ORDER BY 1, 4 LIMIT 500";

fn compare_sessions(
    snapshot: &mut Snapshot,
    findings: &mut Findings,
    sessions: Vec<String>,
) -> Result<(), DatabaseError> {
    let found = snapshot.query("comparing sessions", move |client| {
        let rows = client.query_typed(FOLD, &[(&sessions, Type::TEXT_ARRAY)])?;
        rows.iter()
            .map(|row| {
                let difference = Difference {
                    table: "telemetry_sessions".to_owned(),
                    key: row.try_get(0)?,
                    ..Difference::default()
                };
                match (row.try_get(1)?, row.try_get(2)?) {
                    (true, _) => Ok(Difference { kind: DifferenceKind::Extra, ..difference }),
                    (_, true) => Ok(Difference { kind: DifferenceKind::Missing, ..difference }),
                    _ => Ok(Difference {
                        column: row.try_get(3)?,
                        replica: row.try_get(4)?,
                        expected: row.try_get(5)?,
                        ..difference
                    }),
                }
            })
            .collect::<Result<Vec<Difference>, postgres::Error>>()
    })?;
    let mut last = None;
    for difference in found {
        // A whole row is told once.
        if last.as_ref() != Some(&difference) {
            findings.add(difference.clone());
        }
        last = Some(difference);
    }
    Ok(())
}

/// Whether no agent has written anything for a minute.
fn is_settled(snapshot: &mut Snapshot) -> Result<bool, DatabaseError> {
    snapshot.query("looking for agents at work", |client| {
        let sql = "SELECT COALESCE(max(updated_at) < now() - interval '1 minute', true)
                   FROM sync_segments";
        client.query_typed_one(sql, &[])?.try_get(0)
    })
}

/// Sessions whose statistics were calculated from other lines than are there.
fn stale_sessions(
    snapshot: &mut Snapshot,
    sessions: Vec<String>,
) -> Result<BTreeSet<String>, DatabaseError> {
    snapshot.query("looking for old statistics", move |client| {
        let rows = client.query_typed(
            "SELECT s.session_id FROM telemetry_sessions s
             LEFT JOIN sync_session_stats t USING (session_id)
             WHERE session_id = ANY ($1)
               AND t.lines IS DISTINCT FROM (SELECT sum(next_line) FROM sync_segments g
                                             WHERE g.session_id = s.session_id)",
            &[(&sessions, Type::TEXT_ARRAY)],
        )?;
        rows.iter().map(|row| row.try_get(0)).collect()
    })
}

/// The aggregates as `update_session_stats()` describes them. Means are sums of floats, which depend on
/// the order of addition, so nine digits must agree.
const STATISTICS: &str = "
    SELECT v.name, v.replica::text, v.expected::text
    FROM telemetry_sessions s, (
        SELECT count(*) AS total_steps,
               sum(t.phi) FILTER (WHERE t.phi BETWEEN -1e290 AND 1e290)
                   / NULLIF(count(*) FILTER (WHERE t.phi BETWEEN -1e290 AND 1e290), 0) AS avg_phi,
               max(NULLIF(t.phi, 'NaN')) AS max_phi, min(NULLIF(t.phi, 'NaN')) AS min_phi,
               sum(t.kappa_eff) FILTER (WHERE t.kappa_eff BETWEEN -1e290 AND 1e290)
                   / NULLIF(count(*) FILTER (WHERE t.kappa_eff BETWEEN -1e290 AND 1e290), 0)
                   AS avg_kappa
        FROM telemetry_records t WHERE t.session_id = $1
    ) r, (
        SELECT count(*) AS emergency_count FROM emergency_events e WHERE e.session_id = $1
    ) e
    CROSS JOIN LATERAL (VALUES
        ('total_steps', s.total_steps::double precision, r.total_steps::double precision),
        ('avg_phi', s.avg_phi, r.avg_phi),
        ('max_phi', s.max_phi, r.max_phi),
        ('min_phi', s.min_phi, r.min_phi),
        ('avg_kappa', s.avg_kappa, r.avg_kappa),
        ('emergency_count', s.emergency_count, e.emergency_count)) v (name, replica, expected)
    WHERE s.session_id = $1 AND v.replica IS DISTINCT FROM v.expected
      AND NOT (v.name IN ('avg_phi', 'avg_kappa')
               AND COALESCE(abs(v.replica - v.expected) <= 1e-9 * abs(v.expected), false))";

fn statistics(snapshot: &mut Snapshot, session: String) -> Result<Vec<Difference>, DatabaseError> {
    snapshot.query("calculating statistics", move |client| {
        let rows = client.query_typed(STATISTICS, &[(&session, Type::TEXT)])?;
        rows.iter()
            .map(|row| {
                Ok(Difference {
                    table: "telemetry_sessions".to_owned(),
                    key: Some(session.clone()),
                    column: row.try_get(0)?,
                    replica: row.try_get(1)?,
                    expected: row.try_get(2)?,
                    ..Difference::default()
                })
            })
            .collect()
    })
}

/// The ranking as `update_checkpoint_rankings()` describes it.
const RANKS: &str = "
    SELECT c.checkpoint_id, v.name, v.replica, v.expected
    FROM (
        SELECT *, CASE WHEN state = 'present' THEN
                      row_number() OVER (PARTITION BY state
                                         ORDER BY NULLIF(phi, 'NaN') DESC NULLS LAST,
                                                  created_at DESC, checkpoint_id, store_no)
                  END AS counted
        FROM checkpoints
    ) c
    CROSS JOIN LATERAL (VALUES
        ('rank', c.rank::text, c.counted::text),
        ('is_best', c.is_best::text, (c.counted IS NOT DISTINCT FROM 1)::text)
    ) v (name, replica, expected)
    WHERE c.store_no = $1 AND v.replica IS DISTINCT FROM v.expected
    ORDER BY 1, 2 LIMIT 101";

fn ranks(snapshot: &mut Snapshot) -> Result<Vec<Difference>, DatabaseError> {
    let store_no = snapshot.store_no.unwrap_or_default();
    snapshot.query("ranking checkpoints", move |client| {
        let rows = client.query_typed(RANKS, &[(&store_no, Type::INT4)])?;
        rows.iter()
            .map(|row| {
                Ok(Difference {
                    table: "checkpoints".to_owned(),
                    key: row.try_get(0)?,
                    column: row.try_get(1)?,
                    replica: row.try_get(2)?,
                    expected: row.try_get(3)?,
                    ..Difference::default()
                })
            })
            .collect()
    })
}
