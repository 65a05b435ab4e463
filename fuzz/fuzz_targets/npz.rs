//! Any bytes as an archive. What is read as a checkpoint is written as one that reads the same.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tidelog::checkpoint::npz::{Compression, Limits, NpzReader, read, write};
use tidelog_fuzz::within;

/// What does not grow with the file: `zip` may set aside room for 65,535 members.
const BYTES: usize = 24 << 20;
/// Deflate makes at most 1,032 bytes of one, and reordering axes copies them.
const BYTES_PER_BYTE: usize = 2_200;

/// Every member by itself, as an import reads them. No name leads out of a folder.
fn read_members(file: &[u8]) {
    let Ok(mut npz) = NpzReader::open(Cursor::new(file), Limits::default()) else { return };
    let members: Vec<String> = npz.members().map(str::to_owned).collect();
    for member in members {
        let parts: Vec<&str> = member.split(['/', '\\']).collect();
        assert!(!parts.iter().any(|part| matches!(*part, "" | "." | "..")), "{member:?}");
        npz.member(&member).ok();
    }
}

fuzz_target!(|file: &[u8]| {
    let bytes_max = BYTES + BYTES_PER_BYTE * file.len();
    within(bytes_max, || read_members(file));
    let Ok((state, coords)) = within(bytes_max, || read(Cursor::new(file))) else { return };
    for compression in [Compression::Stored, Compression::Deflated] {
        let written = write(Cursor::new(Vec::new()), &state, coords.as_ref(), compression)
            .expect("what was read can be written");
        let (again, again_coords) = read(written).expect("what was written can be read");
        assert_eq!(again, state);
        assert_eq!(again_coords.map(|c| c.map(f64::to_bits)), coords.map(|c| c.map(f64::to_bits)));
    }
});
