//! A made-up training run: a model warms up, grows, breaks down and recovers.
//!
//! Equal steps and seed give equal values.

use ndarray::Array2;
use tidelog::{
    Array, BASIN_DIMENSIONS, BasinCoords, BasinPoint, Emergency, EventId, NewCheckpoint, Outcome,
    Session, Telemetry, Value,
};

use crate::error::CliError;

/// Shares of the run at which a phase ends: warm-up, growth, breakdown.
const WARM: f64 = 0.25;
const GROWN: f64 = 0.55;
const BROKEN: f64 = 0.65;

/// Shares of the run at which something is saved.
const CHECKPOINTS_AT: [f64; 5] = [0.15, 0.35, 0.54, 0.80, 1.0];
/// Shares of the run at which something breaks down, and how badly.
const EMERGENCIES_AT: [(f64, &str, &str); 3] = [
    (0.57, "warning", "phi is falling fast"),
    (0.60, "high", "phi below its threshold"),
    (0.64, "critical", "collapse of consciousness metrics"),
];
const BASIN_POINTS: u32 = 40;
const PHI_THRESHOLD: f64 = 0.5;

/// What a run wrote.
pub(crate) struct Written {
    pub(crate) records: u32,
    pub(crate) basin_points: u32,
    pub(crate) emergencies: u32,
    pub(crate) checkpoints: u32,
}

/// The run so far.
struct Run<'a> {
    session: &'a Session,
    noise: Noise,
    steps: u32,
    /// Where the model is in its basin.
    coords: [f64; BASIN_DIMENSIONS],
    written: Written,
}

/// Records a whole run and ends the session.
pub(crate) fn record(session: Session, steps: u32, seed: u64) -> Result<Written, CliError> {
    let written = Written { records: 0, basin_points: 0, emergencies: 0, checkpoints: 0 };
    let noise = Noise(seed);
    let coords = [0.0; BASIN_DIMENSIONS];
    let mut run = Run { session: &session, noise, steps, coords, written };
    for step in 1..=steps {
        run.step(step)?;
    }
    let written = run.written;
    session.end(Outcome::Completed)?;
    Ok(written)
}

impl Run<'_> {
    fn step(&mut self, step: u32) -> Result<(), CliError> {
        let share = f64::from(step) / f64::from(self.steps);
        let telemetry = self.telemetry(share);
        let number = i64::from(step);
        self.session.record_telemetry(number, &telemetry)?;
        self.written.records += 1;
        if step.is_multiple_of(self.steps.div_ceil(BASIN_POINTS)) {
            self.basin_point(number, &telemetry)?;
        }
        for (at, severity, reason) in EMERGENCIES_AT {
            if self.falls_on(step, at) {
                self.emergency(number, severity, reason, &telemetry)?;
            }
        }
        if CHECKPOINTS_AT.iter().any(|at| self.falls_on(step, *at)) {
            self.checkpoint(number, &telemetry)?;
        }
        Ok(())
    }

    /// Whether a share of the run is reached with this step.
    fn falls_on(&self, step: u32, at: f64) -> bool {
        let reached = |step: u32| f64::from(step) / f64::from(self.steps) >= at;
        reached(step) && !reached(step - 1)
    }

    fn telemetry(&mut self, share: f64) -> Telemetry {
        let phi = (phi(share) + 0.015 * self.noise.next()).clamp(0.0, 1.0);
        let stress = 1.0 - phi;
        let broken = (GROWN..BROKEN).contains(&share);
        let regime = match share {
            ..WARM => "linear",
            _ if broken => "breakdown",
            _ => "geometric",
        };
        Telemetry {
            phi: Some(phi),
            kappa_eff: Some(40.0 + 24.0 * (1.0 - (-6.0 * share).exp()) + 0.8 * self.noise.next()),
            regime: Some(regime.to_owned()),
            basin_distance: Some(0.05 + 0.4 * stress + 0.02 * self.noise.next().abs()),
            recursion_depth: Some(if broken { 2 } else { 3 }),
            breakdown_pct: Some(if broken { 60.0 * stress } else { 4.0 * stress }),
            coherence_drift: Some(0.1 * stress),
            emergency: Some(broken && phi < PHI_THRESHOLD),
            meta_awareness: Some(0.8 * phi),
            generativity: Some(0.9 * phi + 0.02 * self.noise.next()),
            grounding: Some(0.5 + 0.4 * phi),
            ..Telemetry::default()
        }
        .with("loss", 2.5 * (-4.0 * share).exp() + if broken { 0.8 * stress } else { 0.05 })
    }

    fn basin_point(&mut self, step: i64, telemetry: &Telemetry) -> Result<(), CliError> {
        for coord in &mut self.coords {
            *coord += 0.05 * self.noise.next();
        }
        let point = BasinPoint {
            step: Some(step),
            basin_coords: BasinCoords::from(self.coords),
            phi: telemetry.phi,
            kappa: telemetry.kappa_eff,
        };
        self.session.record_basin(point)?;
        self.written.basin_points += 1;
        Ok(())
    }

    fn emergency(
        &mut self,
        step: i64,
        severity: &str,
        reason: &str,
        telemetry: &Telemetry,
    ) -> Result<(), CliError> {
        let id = EventId::new(format!("{}-step{step}", self.session.id()))
            .map_err(tidelog::Error::from)?;
        let mut event = Emergency::new(id, reason, severity);
        event.step = Some(step);
        event.metric = Some("phi".into());
        event.value = telemetry.phi;
        event.threshold = Some(PHI_THRESHOLD);
        event.telemetry = Some(telemetry.clone());
        self.session.record_emergency(event)?;
        self.written.emergencies += 1;
        Ok(())
    }

    fn checkpoint(&mut self, step: i64, telemetry: &Telemetry) -> Result<(), CliError> {
        let phi = telemetry.phi.unwrap_or_default();
        let mut checkpoint = NewCheckpoint::new(self.state(step), phi);
        checkpoint.step = Some(step);
        checkpoint.kappa = telemetry.kappa_eff;
        checkpoint.regime = telemetry.regime.clone();
        checkpoint.basin_coords = Some(BasinCoords::from(self.coords));
        self.session.save_checkpoint(checkpoint)?;
        self.written.checkpoints += 1;
        Ok(())
    }

    /// A model of two layers and its optimizer.
    fn state(&mut self, step: i64) -> Value {
        let model = dict([
            ("layer1.weight", self.weights(16, 32)),
            ("layer1.bias", self.weights(1, 16)),
            ("layer2.weight", self.weights(4, 16)),
        ]);
        let optimizer =
            dict([("name", "adam".into()), ("learning_rate", 3e-4.into()), ("step", step.into())]);
        dict([("model", model), ("optimizer", optimizer)])
    }

    fn weights(&mut self, rows: usize, columns: usize) -> Value {
        #[expect(clippy::cast_possible_truncation, reason = "weights are single precision")]
        let weights = Array2::from_shape_simple_fn((rows, columns), || self.noise.next() as f32);
        Value::Array(Array::from_ndarray(&weights))
    }
}

fn dict<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Dict(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

/// Φ without noise at a share of the run.
fn phi(share: f64) -> f64 {
    let ramp =
        |from: f64, to: f64, low: f64, high: f64| low + (high - low) * (share - from) / (to - from);
    match share {
        ..WARM => ramp(0.0, WARM, 0.15, 0.45),
        WARM..GROWN => ramp(WARM, GROWN, 0.45, 0.78),
        GROWN..BROKEN => ramp(GROWN, BROKEN, 0.78, 0.18),
        _ => 0.88 - 0.70 * (-9.0 * (share - BROKEN)).exp(),
    }
}

/// Numbers between -1 and 1 that a seed fixes (SplitMix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let unit = (bits >> 11) as f64 / (1_u64 << 53) as f64;
        2.0 * unit - 1.0
    }
}
