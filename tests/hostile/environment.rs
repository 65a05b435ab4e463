//! What a program finds around it on a strange machine: no home, no language, no time zones.

use std::process::Command;

#[test]
fn the_program_needs_nothing_of_its_environment() {
    let folder = tempfile::tempdir().unwrap();
    for variables in [
        &[][..],
        &[("LC_ALL", "C"), ("TZ", ":/nonexistent"), ("TZDIR", "/nonexistent")],
        &[("LC_ALL", "tr_TR.UTF-8"), ("TZ", "Asia/Kathmandu"), ("COLUMNS", "x")],
        &[("TERM", "dumb"), ("HOME", "/nonexistent"), ("TMPDIR", "/nonexistent")],
    ] {
        for arguments in [&["demo", "--steps", "20"][..], &["sessions", "--json"], &["verify"]] {
            let mut program = Command::new(env!("CARGO_BIN_EXE_tidelog"));
            program.env_clear().envs(variables.iter().copied()).args(arguments);
            let output = program.arg("--store").arg(folder.path().join("store")).output().unwrap();
            assert!(output.status.success(), "{variables:?} {arguments:?}: {output:?}");
        }
    }
}
