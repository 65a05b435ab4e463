//! Appending one record, against `write(2)` of the same line made beforehand.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use fastrand::Rng;
use tidelog::{SessionId, Store, Telemetry};

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
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut rng = Rng::with_seed(7);
    let records: Vec<Telemetry> = (0..arguments.records).map(|_| record(&mut rng)).collect();
    let (mut ours, mut theirs, mut ratios, mut calls) = (vec![], vec![], vec![], vec![]);
    for round in 0..=arguments.rounds {
        let folder = tempfile::tempdir()?;
        calls = tidelog(folder.path(), &records)?;
        let lines = lines(folder.path())?;
        let reference = write_lines(folder.path(), &lines)?;
        if round == 0 {
            continue; // warms up
        }
        let own = calls.iter().sum::<Duration>();
        let per_second = |time: Duration| records.len() as f64 / time.as_secs_f64();
        ours.push(per_second(own));
        theirs.push(per_second(reference));
        ratios.push(per_second(own) / per_second(reference));
    }
    calls.sort();
    let percentile = |percent| calls.get(calls.len() * percent / 100).copied().unwrap_or_default();
    println!("append, records/s:            {:.0}", spread(ours));
    println!("write(2) of same lines, /s:   {:.0}", spread(theirs));
    println!("ratio:                        {:.2}", spread(ratios));
    println!("one call p50, p99:            {:?}, {:?}", percentile(50), percentile(99));
    Ok(())
}

/// The time of each call.
fn tidelog(folder: &Path, records: &[Telemetry]) -> tidelog::Result<Vec<Duration>> {
    let store = Store::open(folder)?;
    let session = store.start_session(SessionId::new("bench")?)?;
    let mut calls = Vec::with_capacity(records.len());
    let mut before = Instant::now();
    for (step, record) in (0..).zip(records) {
        session.record_telemetry(step, record)?;
        let now = Instant::now();
        calls.push(now - before);
        before = now;
    }
    Ok(calls)
}

fn lines(folder: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let bytes = fs::read(folder.join("logs/telemetry/session_bench.jsonl"))?;
    Ok(bytes.split_inclusive(|byte| *byte == b'\n').skip(2).map(<[u8]>::to_vec).collect())
}

fn write_lines(folder: &Path, lines: &[Vec<u8>]) -> std::io::Result<Duration> {
    let path = folder.join("reference.jsonl");
    let mut file: File = OpenOptions::new().append(true).create_new(true).open(path)?;
    let start = Instant::now();
    for line in lines {
        file.write_all(line)?;
    }
    Ok(start.elapsed())
}
