//! Appending one record, against `write(2)` of the same line made beforehand.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use fastrand::Rng;
use tidelog::{Durability, SessionId, SessionOptions, Store, Telemetry};

use crate::Outcome;
use crate::records::record;
use crate::stats::spread;

/// Append records, against write(2) of the same pre-made lines.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Records a round.
    #[arg(long, default_value_t = 200_000)]
    records: usize,
    /// Rounds of both, in turn.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// What a returned call survives; persisted needs fewer records.
    #[arg(long, default_value_t)]
    durability: Durability,
}

/// Different records, in rotation. Both sides find what they write in the processor's cache, as a
/// training loop does that has just worked it out.
const DISTINCT: usize = 128;

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut rng = Rng::with_seed(7);
    let records: Vec<Telemetry> = (0..DISTINCT).map(|_| record(&mut rng)).collect();
    let options = SessionOptions { durability: arguments.durability, ..SessionOptions::default() };
    let (mut ours, mut theirs, mut ratios) = (vec![], vec![], vec![]);
    let (mut calls, mut writes) = (vec![], vec![]);
    for round in 0..=arguments.rounds {
        let folder = tempfile::tempdir()?;
        let count = arguments.records;
        calls = tidelog(folder.path(), records.iter().cycle().take(count), options.clone())?;
        let lines = lines(folder.path())?;
        writes = write_lines(folder.path(), lines.iter().cycle().take(count))?;
        if round == 0 {
            continue; // warms up
        }
        let (own, reference) = (per_second(&calls), per_second(&writes));
        ours.push(own);
        theirs.push(reference);
        ratios.push(own / reference);
    }
    println!("append, records/s:            {:.0}", spread(ours));
    println!("write(2) of same lines, /s:   {:.0}", spread(theirs));
    println!("ratio:                        {:.2}", spread(ratios));
    println!("one call p50, p99:            {:?}, {:?}", at(&mut calls, 50), at(&mut calls, 99));
    println!("one write(2) p50, p99:        {:?}, {:?}", at(&mut writes, 50), at(&mut writes, 99));
    Ok(())
}

fn per_second(calls: &[Duration]) -> f64 {
    calls.len() as f64 / calls.iter().sum::<Duration>().as_secs_f64()
}

/// A percentile.
fn at(calls: &mut [Duration], percent: usize) -> Duration {
    calls.sort();
    calls.get(calls.len() * percent / 100).copied().unwrap_or_default()
}

/// The time of each call.
fn tidelog<'a>(
    folder: &Path,
    records: impl Iterator<Item = &'a Telemetry>,
    options: SessionOptions,
) -> tidelog::Result<Vec<Duration>> {
    let store = Store::open(folder)?;
    let session = store.start_session_with(SessionId::new("bench")?, options)?;
    let mut calls = Vec::with_capacity(records.size_hint().0);
    let mut before = Instant::now();
    for (step, record) in (0..).zip(records) {
        session.record_telemetry(step, record)?;
        let now = Instant::now();
        calls.push(now - before);
        before = now;
    }
    session.wait_durable(Durability::Written)?;
    Ok(calls)
}

fn lines(folder: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let bytes = fs::read(folder.join("logs/telemetry/session_bench.jsonl"))?;
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').skip(2);
    Ok(lines.take(DISTINCT).map(<[u8]>::to_vec).collect())
}

/// The time of each call, as ours is taken.
fn write_lines<'a>(
    folder: &Path,
    lines: impl Iterator<Item = &'a Vec<u8>>,
) -> std::io::Result<Vec<Duration>> {
    let path = folder.join("reference.jsonl");
    let mut file: File = OpenOptions::new().append(true).create_new(true).open(path)?;
    let mut calls = Vec::with_capacity(lines.size_hint().0);
    let mut before = Instant::now();
    for line in lines {
        file.write_all(line)?;
        let now = Instant::now();
        calls.push(now - before);
        before = now;
    }
    Ok(calls)
}
