//! Power is cut under a real ext4 and XFS.
//!
//! Needs root, loop devices, xfsprogs and eatmydata. Root without them fails: nothing would have
//! been tested.

use tidelog_faults::cuts;

use super::{check, options};
use crate::support::is_root;

/// On each file system.
const CUTS: usize = 10;

#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged_as_durable() {
    let report = cuts::run(&options(CUTS)).unwrap();
    check(&report, if is_root() { 2 * CUTS } else { 0 });
}
