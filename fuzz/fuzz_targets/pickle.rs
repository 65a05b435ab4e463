//! Any bytes as a pickle. What is decoded is plain data that a checkpoint can keep.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tidelog::checkpoint::npz::{Compression, read, write};
use tidelog::import::pickle::decode;
use tidelog_fuzz::within;

/// What a pickle of few bytes may make by naming its parts again and again: a million values, and
/// 16 MiB of texts.
const BYTES: usize = 256 << 20;
const BYTES_PER_BYTE: usize = 1_000;

fuzz_target!(|pickle: &[u8]| {
    let Ok(value) = within(BYTES + BYTES_PER_BYTE * pickle.len(), || decode(pickle)) else {
        return;
    };
    let written = write(Cursor::new(Vec::new()), &value, None, Compression::Stored)
        .expect("what was decoded can be written");
    let (again, _) = read(written).expect("what was written can be read");
    assert_eq!(again, value);
});
