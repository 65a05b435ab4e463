//! Every system call fails, or is the last one: a share of `scripts/faults syscalls`.

use tidelog_faults::syscalls;

use super::{check, options};

const FAULTS: usize = 200;

#[test]
fn no_system_call_that_fails_breaks_a_promise() {
    check(&syscalls::run(&options(FAULTS)).unwrap(), FAULTS);
}
