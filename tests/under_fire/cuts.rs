//! Power is cut under a real ext4 and XFS.
//!
//! Needs root, loop devices, xfsprogs and eatmydata. Root without them fails: nothing would have
//! been tested.

use std::process::Command;

use tidelog_faults::{Options, cuts};

use crate::support::program;

/// On each file system.
const CUTS: usize = 10;

fn is_root() -> bool {
    Command::new("id").arg("-u").output().unwrap().stdout == b"0\n"
}

#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged_as_durable() {
    let options = Options { program: program("tidelog-faults"), runs: CUTS, seed: 7 };
    let report = cuts::run(&options).unwrap();
    println!("{report}");
    assert_eq!(report.violations, [""; 0]);
    if is_root() {
        assert!(report.executed >= 2 * CUTS && report.skipped.is_empty(), "{report}");
    }
}
