//! Opening a store of many sealed sessions, against opening one of a single session.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use tidelog::{Outcome as End, SessionId, Store};

use crate::Outcome;
use crate::stats::spread;

/// Open a store of many sealed sessions, against a store of one.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Sealed sessions in the store.
    #[arg(long, default_value_t = 10_000)]
    sessions: u32,
    /// Rounds of both, in turn.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let (many, one) = (tempfile::tempdir()?, tempfile::tempdir()?);
    fill(many.path(), arguments.sessions)?;
    fill(one.path(), 1)?;
    let (mut ours, mut theirs, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..arguments.rounds {
        let own = open(many.path())?;
        let reference = open(one.path())?;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        ours.push(milliseconds(own));
        theirs.push(milliseconds(reference));
        ratios.push(milliseconds(own) / milliseconds(reference));
    }
    println!("open, {} sessions, ms:     {:.3}", arguments.sessions, spread(ours));
    println!("open, 1 session, ms:          {:.3}", spread(theirs));
    println!("ratio:                        {:.2}", spread(ratios));
    Ok(())
}

fn fill(root: &Path, sessions: u32) -> tidelog::Result<()> {
    let store = Store::open(root)?;
    for number in 0..sessions {
        store.start_session(SessionId::new(format!("run-{number}"))?)?.end(End::Completed)?;
    }
    Ok(())
}

fn open(root: &Path) -> tidelog::Result<Duration> {
    let start = Instant::now();
    let store = Store::open(root)?;
    let taken = start.elapsed();
    drop(store);
    Ok(taken)
}
