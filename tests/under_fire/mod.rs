//! The store under faults that are made on purpose; short seeded runs of `scripts/faults`.

use tidelog_faults::{Options, Report};

use crate::support::{is_root, program, say};

mod agent;
mod cuts;
mod environment;
mod kills;
mod states;
mod syscalls;

fn options(runs: usize) -> Options {
    Options { program: program("tidelog-faults"), runs, seed: 7 }
}

/// Every promise was kept, under at least so many faults. What this machine cannot do is told; to
/// root, and so in CI, it is no excuse.
fn check(report: &Report, executed_min: usize) {
    say(&format!("{report}"));
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.executed >= executed_min, "{report}");
    assert!(report.skipped.is_empty() || !is_root(), "{report}");
}
