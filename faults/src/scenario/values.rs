//! What is recorded: all of it from the seed and a step or an id, so that it can be compared.

use fastrand::Rng;
use tidelog::checkpoint::array::{Array, Dtype};
use tidelog::{BasinCoords, BasinPoint, CheckpointId, Emergency, EventId, NewCheckpoint};
use tidelog::{Telemetry, Value};

use crate::Result;

/// Longest free text of a record: some lines are longer than a page of the disk.
const NOTE_BYTES_MAX: usize = 6000;

/// One record. Most lines have a few hundred bytes, one in eight up to six thousand.
pub fn telemetry(seed: u64, step: i64) -> Telemetry {
    let mut rng = of(seed, &step.to_string());
    let note_bytes = match rng.u8(0..8) {
        0 => rng.usize(..NOTE_BYTES_MAX),
        _ => rng.usize(..64),
    };
    let note: String = std::iter::repeat_with(|| rng.alphanumeric()).take(note_bytes).collect();
    Telemetry {
        phi: Some(rng.f64()),
        kappa_eff: Some(64.0 + rng.f64()),
        regime: Some("geometric".into()),
        ..Telemetry::default()
    }
    .with("note", note)
}

/// One point of the basin.
pub fn basin_point(seed: u64, step: i64) -> BasinPoint {
    let mut rng = of(seed, &step.to_string());
    let coords = std::array::from_fn(|_| rng.f64());
    BasinPoint {
        step: Some(step),
        basin_coords: BasinCoords::from(coords),
        phi: Some(rng.f64()),
        kappa: None,
    }
}

/// One emergency event.
///
/// # Errors
/// The text is no id.
pub fn emergency(seed: u64, id: &str) -> Result<Emergency> {
    let mut emergency = Emergency::new(EventId::new(id)?, "collapse", "high");
    emergency.value = Some(of(seed, id).f64());
    Ok(emergency)
}

/// The state that a checkpoint holds: an array of eight thousand bytes, and its id.
///
/// # Errors
/// The array is none.
pub fn state_dict(seed: u64, id: &str) -> Result<Value> {
    let mut rng = of(seed, id);
    let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(8000).collect();
    let (dtype, _) = Dtype::parse_descr("|u1")?;
    let weights = Array::new(dtype, vec![8, 1000], bytes)?;
    Ok(Value::Dict(vec![("id".into(), id.into()), ("weights".into(), weights.into())]))
}

/// A checkpoint of that state.
///
/// # Errors
/// The text is no id.
pub fn new_checkpoint(seed: u64, id: &str) -> Result<NewCheckpoint> {
    let mut new = NewCheckpoint::new(state_dict(seed, id)?, of(seed, id).f64());
    new.checkpoint_id = Some(CheckpointId::new(id)?);
    Ok(new)
}

fn of(seed: u64, name: &str) -> Rng {
    let mixed = name.bytes().fold(seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a
    });
    Rng::with_seed(mixed)
}
