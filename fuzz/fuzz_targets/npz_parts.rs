//! A whole archive around any tree and any array, so that no checksum keeps the input from the
//! readers of NPY and of the tree. The first byte says how the archive is made, the first line is
//! the tree, the rest an NPY file.
#![no_main]

use std::io::{Cursor, Write};

use libfuzzer_sys::{Corpus, fuzz_target};
use tidelog::Value;
use tidelog::checkpoint::npy::{self, Npy};
use tidelog::checkpoint::npz::{Compression, Limits, NpzReader, read, write};
use tidelog_fuzz::within;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const ARRAYS: [&str; 2] = ["state/a.npy", "basin_coords.npy"];

fn archive(method: CompressionMethod, members: [(&str, &[u8]); 2]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in members {
        zip.start_file(name, options).expect("memory");
        zip.write_all(bytes).expect("memory");
    }
    zip.finish().expect("memory").into_inner()
}

/// The tree's text as the array of bytes that an archive holds.
fn tree_member(json: &[u8]) -> Vec<u8> {
    let shape = json.len();
    let mut header =
        format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape},), }}\n").into_bytes();
    let length = u16::try_from(header.len()).expect("a short header").to_le_bytes();
    header.splice(0..0, [b"\x93NUMPY\x01\x00", &length[..]].concat());
    [&header[..], json].concat()
}

/// An array is the same alone and in an archive, and comes back as it was.
fn check_array(file: &[u8], name: &str, npy: &[u8]) {
    let mut npz = NpzReader::open(Cursor::new(file), Limits::default()).expect("an archive");
    let (alone, inside) = (npy::from_bytes(npy), npz.member(name));
    assert_eq!(alone.as_ref().ok(), inside.as_ref().ok());
    if let Ok(Npy::Array(array)) = alone {
        check_state(&Value::Array(array), None);
    }
}

fn check_state(state: &Value, coords: Option<&[f64; 64]>) {
    let written = write(Cursor::new(Vec::new()), state, coords, Compression::Stored)
        .expect("what was read can be written");
    let (again, again_coords) = read(written).expect("what was written can be read");
    assert_eq!(again, *state);
    assert_eq!(again_coords.map(|c| c.map(f64::to_bits)), coords.map(|c| c.map(f64::to_bits)));
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((how, parts)) = data.split_first() else { return Corpus::Reject };
    let Some(end) = parts.iter().position(|byte| *byte == b'\n') else { return Corpus::Reject };
    let (json, npy) = (&parts[..end], &parts[end + 1..]);
    let name = ARRAYS[usize::from(how >> 1 & 1)];
    // Deflating takes most of the time and is not what is tested.
    let method = match how & 0b1101 {
        1 => CompressionMethod::Deflated,
        _ => CompressionMethod::Stored,
    };
    let file = archive(method, [("tree.npy", &tree_member(json)), (name, npy)]);
    check_array(&file, name, npy);
    // The tree may name the array often.
    let bytes_max = (1 << 20) + 2_200 * (data.len() + 1) + json.len() * npy.len();
    if let Ok((state, coords)) = within(bytes_max, || read(Cursor::new(&file))) {
        check_state(&state, coords.as_ref());
    }
    Corpus::Keep
});
