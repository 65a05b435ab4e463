//! Writers are killed at any moment, and so are those who recover what they left.

use tidelog_faults::kills;

use super::{check, options};

const KILLS: usize = 20;

#[test]
fn a_kill_takes_nothing_that_had_returned() {
    check(&kills::run(&options(KILLS)).unwrap(), KILLS);
}
