//! Every system call fails, or is the last one: a share of `scripts/faults syscalls`.

use tidelog_faults::{Options, syscalls};

use crate::support::program;

#[test]
fn no_system_call_that_fails_breaks_a_promise() {
    let options = Options { program: program("tidelog-faults"), runs: 200, seed: 7 };
    let report = syscalls::run(&options).unwrap();
    assert!(report.violations.is_empty(), "{report}");
    assert_eq!(report.skipped, [""; 0]);
    assert!(report.executed >= 200, "{report}");
}
