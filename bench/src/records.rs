//! The records that are written: sixteen fields and one of the user's, seeded.

use std::path::Path;

use fastrand::Rng;
use tidelog::{Outcome, SessionId, Store, Telemetry};

/// One record of about 500 bytes as a line.
pub(crate) fn record(rng: &mut Rng) -> Telemetry {
    let mut number = || Some(rng.f64());
    Telemetry {
        phi: number(),
        kappa_eff: number(),
        regime: Some("geometric".into()),
        basin_distance: number(),
        recursion_depth: Some(5),
        geodesic_distance: number(),
        curvature: number(),
        fisher_metric_trace: number(),
        breakdown_pct: number(),
        coherence_drift: number(),
        emergency: Some(false),
        meta_awareness: number(),
        generativity: number(),
        grounding: number(),
        temporal_coherence: number(),
        external_coupling: number(),
        ..Telemetry::default()
    }
    .with("loss", rng.f64())
}

/// A store with one session of `count` records.
pub(crate) fn store(root: &Path, count: u64) -> tidelog::Result<()> {
    let store = Store::open(root)?;
    let session = store.start_session(SessionId::new("bench")?)?;
    let mut rng = Rng::with_seed(7);
    for step in 0..count {
        session.record_telemetry(step.try_into().unwrap_or(i64::MAX), &record(&mut rng))?;
    }
    session.end(Outcome::Completed)
}
