//! Verifying a store, against one pass over the same bytes: `read(2)` and CRC-32 of them, as `cat`
//! through a checksum does.

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use tidelog::Store;

use crate::Outcome;
use crate::records;
use crate::stats::spread;

/// Verify a store, against one pass of CRC-32 over its bytes.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Records in the journal.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Rounds of both, in turn.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Leave the index out, and with it the comparison of every line's hash.
    #[arg(long)]
    without_index: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let folder = tempfile::tempdir()?;
    records::store(folder.path(), arguments.records)?;
    let store = Store::open_read_only(folder.path())?;
    if !arguments.without_index {
        store.refresh_index(&mut |_| {})?;
    }
    let segment = folder.path().join("logs/telemetry/session_bench.jsonl");
    let (mut ours, mut theirs, mut ratios) = (vec![], vec![], vec![]);
    for round in 0..=arguments.rounds {
        let (bytes, own) = verify(&store)?;
        let reference = checksum(&segment)?;
        if round == 0 {
            continue; // warms up
        }
        let per_second = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
        ours.push(per_second(own));
        theirs.push(per_second(reference));
        ratios.push(per_second(own) / per_second(reference));
    }
    println!("verify, MB/s:                 {:.0}", spread(ours));
    println!("read and CRC-32, MB/s:        {:.0}", spread(theirs));
    println!("ratio:                        {:.2}", spread(ratios));
    Ok(())
}

fn verify(store: &Store) -> Result<(u64, Duration), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let report = store.verify(&mut |_| {})?;
    match report.findings.first() {
        None => Ok((report.journal_bytes, start.elapsed())),
        Some(finding) => Err(format!("{finding:?}").into()),
    }
}

fn checksum(path: &Path) -> std::io::Result<Duration> {
    let start = Instant::now();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 << 10];
    let mut crc = crc32fast::Hasher::new();
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            black_box(crc.finalize());
            return Ok(start.elapsed());
        }
        crc.update(buffer.get(..read).unwrap_or_default());
    }
}
