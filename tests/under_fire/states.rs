//! Power fails at every system call, in a model of the disk.

use tidelog_faults::states;

use super::{check, options};

/// The model's own fault is as bad as the store's: a machine without `strace` fails here.
#[test]
fn whatever_a_power_cut_leaves_every_promise_is_kept() {
    check(&states::run(&options(24)).unwrap(), 250);
}

#[test]
fn a_persist_that_the_disk_did_not_hear_is_noticed() {
    let report = states::run_deaf(&options(8)).unwrap();
    check(&report, 150);
    assert!(report.counts["persists noticed"] >= 150, "{report}");
    // the one persist of this folder that nobody needs is not taken for all of them
    assert!(report.counts["noticed: persist of store/active ignored (records)"] >= 1, "{report}");
}
