//! Rows as they come out of the index, named and ordered as the tables' columns.

use rusqlite::Row;
use rusqlite::types::FromSql;
use serde::{Serialize, Serializer};

use crate::basin::BasinCoords;
use crate::entry::CheckpointCreated;
use crate::float::Float;
use crate::ids::{CheckpointId, EventId, SessionId};
use crate::index::columns::{Json, Number, Parsed};
use crate::telemetry::Telemetry;
use crate::timestamp::Timestamp;
use crate::value::Value;

/// One session, folded from all its segments.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionRow {
    /// The session.
    pub session_id: SessionId,
    /// When its first writer started; none if only its end is known.
    pub started_at: Option<Timestamp>,
    /// When its last writer ended; none while one is active.
    pub ended_at: Option<Timestamp>,
    /// `active`, `completed`, `failed` or `aborted`.
    pub status: String,
    /// How often it was started: 1, and one more for each resume.
    pub attempts: u32,
    /// Number of telemetry records.
    pub total_steps: u64,
    /// Mean Φ of the records that have one.
    #[serde(serialize_with = "float")]
    pub avg_phi: Option<f64>,
    /// Greatest Φ; NaN does not count.
    #[serde(serialize_with = "float")]
    pub max_phi: Option<f64>,
    /// Least Φ; NaN does not count.
    #[serde(serialize_with = "float")]
    pub min_phi: Option<f64>,
    /// Mean κ.
    #[serde(serialize_with = "float")]
    pub avg_kappa: Option<f64>,
    /// Number of emergency events.
    pub emergency_count: u64,
    /// What it was started with, at its first start that gave any.
    pub metadata: Option<Value>,
}

/// A session in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionStats {
    /// The session.
    pub session_id: SessionId,
    /// When its first writer started.
    pub started_at: Option<Timestamp>,
    /// When its last writer ended; none while one is active.
    pub ended_at: Option<Timestamp>,
    /// `active`, `completed`, `failed` or `aborted`.
    pub status: String,
    /// Seconds from start to end; none while it is active.
    #[serde(serialize_with = "float")]
    pub duration_seconds: Option<f64>,
    /// Number of telemetry records.
    pub total_steps: u64,
    /// Mean Φ of the records that have one.
    #[serde(serialize_with = "float")]
    pub avg_phi: Option<f64>,
    /// Greatest Φ; NaN does not count.
    #[serde(serialize_with = "float")]
    pub max_phi: Option<f64>,
    /// Least Φ; NaN does not count.
    #[serde(serialize_with = "float")]
    pub min_phi: Option<f64>,
    /// Mean κ.
    #[serde(serialize_with = "float")]
    pub avg_kappa: Option<f64>,
    /// Number of emergency events.
    pub emergency_count: u64,
    /// Number of checkpoints that were not pruned.
    pub checkpoint_count: u64,
    /// Greatest Φ among these.
    #[serde(serialize_with = "float")]
    pub best_checkpoint_phi: Option<f64>,
}

/// One record of a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrajectoryPoint {
    /// When it was recorded.
    pub timestamp: Timestamp,
    /// The training step.
    pub step: i64,
    /// What was measured, unknown fields included.
    pub telemetry: Telemetry,
}

/// One checkpoint, without its state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckpointRow {
    /// The checkpoint.
    pub checkpoint_id: CheckpointId,
    /// Its session, if it has one.
    pub session_id: Option<SessionId>,
    /// The step, if it belongs to one.
    pub step: Option<i64>,
    /// When it was saved.
    pub created_at: Timestamp,
    /// Φ of the state.
    #[serde(serialize_with = "float")]
    pub phi: Option<f64>,
    /// κ of the state.
    #[serde(serialize_with = "float")]
    pub kappa: Option<f64>,
    /// Regime of the state.
    pub regime: Option<String>,
    /// The state's place in the basin.
    pub basin_coords: Option<BasinCoords>,
    /// What was kept with it.
    pub metadata: Option<Value>,
    /// File name inside `checkpoints/`.
    pub file: String,
    /// The file's size.
    pub size_bytes: u64,
    /// The file's SHA-256, 64 hexadecimal digits.
    pub sha256: String,
    /// `present` or `pruned`.
    pub state: String,
    /// 1 is best; none if it is pruned.
    pub rank: Option<u32>,
    /// Whether its rank is 1.
    pub is_best: bool,
}

/// One emergency event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EmergencyRow {
    /// The event.
    pub event_id: EventId,
    /// Its session, if one is known.
    pub session_id: Option<SessionId>,
    /// When it happened.
    pub timestamp: Timestamp,
    /// The step, if it belongs to one.
    pub step: Option<i64>,
    /// What broke down.
    pub reason: String,
    /// A word; info < low < warning < medium < high < critical.
    pub severity: String,
    /// The metric that crossed its threshold.
    pub metric: Option<String>,
    /// Its value.
    #[serde(serialize_with = "float")]
    pub value: Option<f64>,
    /// The threshold.
    #[serde(serialize_with = "float")]
    pub threshold: Option<f64>,
    /// The telemetry of that moment.
    pub telemetry: Option<Telemetry>,
    /// What else was kept with it.
    pub metadata: Option<Value>,
}

/// Records of a session that the disk refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GapRow {
    /// The session.
    pub session_id: SessionId,
    /// When writing went on.
    pub timestamp: Timestamp,
    /// How many records and basin points are missing.
    pub records: u64,
    /// The smallest step among them; none if none had a step.
    pub first_step: Option<i64>,
    /// The greatest step among them.
    pub last_step: Option<i64>,
    /// When the first of them was to be written.
    pub since: Timestamp,
    /// What the disk said.
    pub reason: String,
}

/// JSON has no NaN: as in the journal's lines, it is a text.
fn float<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    number.map(Float).serialize(serializer)
}

/// A row whose columns are asked for by name.
struct Columns<'a>(&'a Row<'a>);

impl Columns<'_> {
    fn plain<T: FromSql>(&self, name: &str) -> rusqlite::Result<T> {
        self.0.get(name)
    }

    fn parsed<T>(&self, name: &str) -> rusqlite::Result<T>
    where
        Parsed<T>: FromSql,
    {
        self.0.get(name).map(|Parsed(value)| value)
    }

    fn optional<T>(&self, name: &str) -> rusqlite::Result<Option<T>>
    where
        Parsed<T>: FromSql,
    {
        Ok(self.0.get::<_, Option<Parsed<T>>>(name)?.map(|Parsed(value)| value))
    }

    fn json<T>(&self, name: &str) -> rusqlite::Result<Option<T>>
    where
        Json<T>: FromSql,
    {
        Ok(self.0.get::<_, Option<Json<T>>>(name)?.map(|Json(value)| value))
    }

    fn number(&self, name: &str) -> rusqlite::Result<Option<f64>> {
        self.0.get(name).map(|Number(number)| number)
    }

    fn count(&self, name: &str) -> rusqlite::Result<u64> {
        self.0.get(name).map(i64::cast_unsigned)
    }
}

impl SessionRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let row = Columns(row);
        Ok(Self {
            session_id: row.parsed("session_id")?,
            started_at: row.optional("started_at")?,
            ended_at: row.optional("ended_at")?,
            status: row.plain("status")?,
            attempts: row.plain("attempts")?,
            total_steps: row.count("total_steps")?,
            avg_phi: row.number("avg_phi")?,
            max_phi: row.number("max_phi")?,
            min_phi: row.number("min_phi")?,
            avg_kappa: row.number("avg_kappa")?,
            emergency_count: row.count("emergency_count")?,
            metadata: row.json("metadata")?,
        })
    }
}

impl SessionStats {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let row = Columns(row);
        Ok(Self {
            session_id: row.parsed("session_id")?,
            started_at: row.optional("started_at")?,
            ended_at: row.optional("ended_at")?,
            status: row.plain("status")?,
            duration_seconds: row.number("duration_seconds")?,
            total_steps: row.count("total_steps")?,
            avg_phi: row.number("avg_phi")?,
            max_phi: row.number("max_phi")?,
            min_phi: row.number("min_phi")?,
            avg_kappa: row.number("avg_kappa")?,
            emergency_count: row.count("emergency_count")?,
            checkpoint_count: row.count("checkpoint_count")?,
            best_checkpoint_phi: row.number("best_checkpoint_phi")?,
        })
    }
}

impl TrajectoryPoint {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let row = Columns(row);
        let telemetry = Telemetry {
            phi: row.number("phi")?,
            kappa_eff: row.number("kappa_eff")?,
            regime: row.plain("regime")?,
            basin_distance: row.number("basin_distance")?,
            recursion_depth: row.plain("recursion_depth")?,
            geodesic_distance: row.number("geodesic_distance")?,
            curvature: row.number("curvature")?,
            fisher_metric_trace: row.number("fisher_metric_trace")?,
            breakdown_pct: row.number("breakdown_pct")?,
            coherence_drift: row.number("coherence_drift")?,
            emergency: row.plain("emergency")?,
            meta_awareness: row.number("meta_awareness")?,
            generativity: row.number("generativity")?,
            grounding: row.number("grounding")?,
            temporal_coherence: row.number("temporal_coherence")?,
            external_coupling: row.number("external_coupling")?,
            extra: row.json("extra")?.unwrap_or_default(),
        };
        let (timestamp, step) = (row.parsed("timestamp")?, row.plain("step")?);
        Ok(Self { timestamp, step, telemetry })
    }
}

impl CheckpointRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let row = Columns(row);
        Ok(Self {
            checkpoint_id: row.parsed("checkpoint_id")?,
            session_id: row.optional("session_id")?,
            step: row.plain("step")?,
            created_at: row.parsed("created_at")?,
            phi: row.number("phi")?,
            kappa: row.number("kappa")?,
            regime: row.plain("regime")?,
            basin_coords: row.json("basin_coords")?,
            metadata: row.json("metadata")?,
            file: row.plain("file")?,
            size_bytes: row.count("size_bytes")?,
            sha256: row.plain("sha256")?,
            state: row.plain("state")?,
            rank: row.plain("rank")?,
            is_best: row.plain("is_best")?,
        })
    }

    /// Whether its file was removed on purpose.
    pub fn is_pruned(&self) -> bool {
        self.state == "pruned"
    }
}

/// What it takes to load a checkpoint.
pub(super) struct SavedCheckpoint {
    pub(super) created: CheckpointCreated,
    pub(super) created_at: Timestamp,
    pub(super) is_pruned: bool,
}

impl SavedCheckpoint {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let state_dict = Columns(row).json("state_dict")?.unwrap_or(Value::Null);
        let row = CheckpointRow::read(row)?;
        let (created_at, is_pruned) = (row.created_at, row.is_pruned());
        let created = CheckpointCreated {
            checkpoint_id: row.checkpoint_id,
            session_id: row.session_id,
            step: row.step,
            phi: row.phi,
            kappa: row.kappa,
            regime: row.regime,
            basin_coords: row.basin_coords,
            state_dict,
            metadata: row.metadata,
            file: row.file,
            size_bytes: row.size_bytes,
            sha256: row.sha256,
        };
        Ok(Self { created, created_at, is_pruned })
    }
}

impl EmergencyRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let row = Columns(row);
        Ok(Self {
            event_id: row.parsed("event_id")?,
            session_id: row.optional("session_id")?,
            timestamp: row.parsed("timestamp")?,
            step: row.plain("step")?,
            reason: row.plain("reason")?,
            severity: row.plain("severity")?,
            metric: row.plain("metric")?,
            value: row.number("value")?,
            threshold: row.number("threshold")?,
            telemetry: row.json("telemetry")?,
            metadata: row.json("metadata")?,
        })
    }
}

impl GapRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let row = Columns(row);
        Ok(Self {
            session_id: row.parsed("session_id")?,
            timestamp: row.parsed("timestamp")?,
            records: row.count("records")?,
            first_step: row.plain("first_step")?,
            last_step: row.plain("last_step")?,
            since: row.parsed("since")?,
            reason: row.plain("reason")?,
        })
    }
}
