//! Writers are killed at any moment, and so are those who recover what they left.

use tidelog_faults::{Options, kills};

use crate::support::program;

const KILLS: usize = 20;

#[test]
fn a_kill_takes_nothing_that_had_returned() {
    let options = Options { program: program("tidelog-faults"), runs: KILLS, seed: 7 };
    let report = kills::run(&options).unwrap();
    println!("{report}");
    assert_eq!(report.violations, [""; 0]);
    assert!(report.executed >= KILLS && report.skipped.is_empty(), "{report}");
}
