//! NPZ files that claim what is not so.

use std::fs;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use tidelog::checkpoint::npz::{Limits, NpzReader, read, read_within};
use tidelog::import::{ImportOptions, import};
use tidelog::{Array, Store};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Far below what doing as the file says would take, far above what refusing takes.
const AT_ONCE: Duration = Duration::from_secs(5);

fn npy(descr: &str, fortran: bool, shape: &str, body: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let length = u16::try_from(text.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes(), body].concat()
}

fn options(method: CompressionMethod) -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(method)
}

fn archive(options: SimpleFileOptions, members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn member(file: &[u8], name: &str) -> Result<Array, String> {
    NpzReader::open(Cursor::new(file), Limits::default())
        .and_then(|mut npz| npz.array(name))
        .map_err(|error| error.to_string())
}

fn stored(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    archive(options(CompressionMethod::Stored), &[(name, bytes)])
}

#[test]
fn shapes_that_no_file_holds_are_refused_at_once() {
    let start = Instant::now();
    for (descr, shape) in [
        ("<f8", "(1152921504606846976,)"),
        ("<f8", "(1000000000000,)"),
        ("<f8", "(0, 18446744073709551615)"),
        ("<f4", "(4294967296, 4294967296)"),
        ("<f4", "(340282366920938463463374607431768211456,)"),
        ("<f4", "(-1,)"),
        ("<f4", "(1.5,)"),
        ("<f4", "(True,)"),
        ("<f4", "((((1,))))"),
        ("|O", "(1000000,)"),
        ("|V1000000000", "(1,)"),
        ("<U1000000000", "(1,)"),
        ("<M8[ns]", "(1,)"),
    ] {
        let error = member(&stored("a.npy", npy(descr, false, shape, &[0; 8])), "a.npy");
        let error = error.unwrap_err();
        assert!(error.contains("a.npy"), "{descr} {shape}: {error}");
    }
    assert!(start.elapsed() < AT_ONCE);
}

#[test]
fn orders_and_widths_of_other_machines_are_converted() {
    let cases = [
        (npy("<f8", false, "(2, 2)", &bytes([1.0, 2.0, 3.0, 4.0], f64::to_le_bytes)), "native"),
        (npy(">f8", false, "(2, 2)", &bytes([1.0, 2.0, 3.0, 4.0], f64::to_be_bytes)), "big endian"),
        (npy(">f8", true, "(2, 2)", &bytes([1.0, 3.0, 2.0, 4.0], f64::to_be_bytes)), "Fortran"),
    ];
    let expected = Array::from_ndarray(&ndarray::array![[1.0, 2.0], [3.0, 4.0]]);
    for (npy, name) in cases {
        assert_eq!(member(&stored("a.npy", npy), "a.npy").unwrap(), expected, "{name}");
    }
}

/// Counts what is read.
struct Counted<R> {
    file: R,
    bytes: usize,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bytes += read;
        Ok(read)
    }
}

impl<R: Seek> Seek for Counted<R> {
    fn seek(&mut self, place: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(place)
    }
}

fn bytes(numbers: [f64; 4], to_bytes: impl Fn(f64) -> [u8; 8]) -> Vec<u8> {
    numbers.into_iter().flat_map(to_bytes).collect()
}

#[test]
fn archives_with_64_bit_fields_are_read() {
    let options = options(CompressionMethod::Stored).large_file(true);
    let file = archive(options, &[("a.npy", npy("<i2", false, "(2,)", &[1, 0, 2, 0]))]);
    let expected = Array::from_ndarray(&ndarray::array![1_i16, 2]);
    assert_eq!(member(&file, "a.npy").unwrap(), expected);
}

/// 256 MiB of zeros in 256 KiB; the directory says that they are 50 bytes.
#[test]
fn a_bomb_that_lies_is_not_inflated() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("tree.npy", options(CompressionMethod::Deflated)).unwrap();
    zip.write_all(&npy("|u1", false, "(50,)", b"")).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..256).for_each(|_| zip.write_all(&zeros).unwrap());
    let mut file = zip.finish().unwrap().into_inner();
    let header = u32::try_from(npy("|u1", false, "(50,)", b"").len()).unwrap();
    let (real, lie) = ((header + (256 << 20)).to_le_bytes(), (header + 50).to_le_bytes());
    let places: Vec<usize> = (0..file.len() - 4).filter(|at| file[*at..at + 4] == real).collect();
    assert!(!places.is_empty() && file.len() < 1 << 20);
    places.into_iter().for_each(|at| file[at..at + 4].copy_from_slice(&lie));
    let mut reader = Counted { file: Cursor::new(&file), bytes: 0 };
    let error = read(&mut reader).unwrap_err().to_string();
    assert!(error.starts_with("tree.npy: "), "{error}");
    assert!(reader.bytes < file.len() / 4, "{} of {} bytes", reader.bytes, file.len());
}

/// A predecessor's archive of a few hundred bytes that unpacks to a gibibyte, as far as it says.
#[test]
fn an_import_refuses_what_unpacks_to_many_times_its_size() {
    let npy = npy("|u1", false, "(50,)", &[0; 50]);
    let real = u32::try_from(npy.len()).unwrap().to_le_bytes();
    let mut file = archive(options(CompressionMethod::Deflated), &[("state_dict.npy", npy)]);
    let places: Vec<usize> = (0..file.len() - 4).filter(|at| file[*at..at + 4] == real).collect();
    let claimed = ((1_u32 << 30) + 1).to_le_bytes();
    places.into_iter().for_each(|at| file[at..at + 4].copy_from_slice(&claimed));
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old");
    fs::create_dir_all(old.join("checkpoints")).unwrap();
    fs::write(old.join("checkpoints/checkpoint_20260105_090000_0.500.npz"), file).unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let report = import(&store, &old, &ImportOptions::default(), &mut |_| ()).unwrap();
    assert_eq!((report.taken(), report.refused()), (0, 1));
    let reason = &report.first_findings[0].reason;
    assert!(reason.contains("over the limit of 1073741824; written by numpy.savez"), "{reason}");
}

#[test]
fn an_honest_bomb_is_refused_within_limits() {
    let body = vec![0; 64 << 20];
    let npy = npy("|u1", false, "(67108864,)", &body);
    let file = archive(options(CompressionMethod::Deflated), &[("tree.npy", npy)]);
    let limits = Limits { member_bytes: 1 << 20, ..Limits::default() };
    let error = read_within(Cursor::new(&file), limits).unwrap_err().to_string();
    assert!(error.contains("over the limit of 1048576"), "{error}");
}

#[test]
fn seventy_thousand_members_are_refused_at_once() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for number in 0..70_000 {
        zip.start_file(format!("m{number}.npy"), options(CompressionMethod::Stored)).unwrap();
    }
    let file = zip.finish().unwrap().into_inner();
    let start = Instant::now();
    let error = read(Cursor::new(&file)).unwrap_err().to_string();
    assert_eq!(error, "70000 members are over the limit of 65536");
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[test]
fn trees_that_are_no_state_say_what_is_wrong() {
    let deep =
        format!("{{\"tidelog\":1,\"state\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for (json, part) in [
        ("", "EOF"),
        ("[]", "invalid"),
        ("{\"tidelog\":9,\"state\":0}", "version 9"),
        ("{\"tidelog\":1}", "missing field"),
        (
            "{\"tidelog\":1,\"state\":{\"$array\":{\"dtype\":\"<f4\",\"shape\":[2],\"member\":\"../x.npy\"}}}",
            "no member",
        ),
        ("{\"tidelog\":1,\"state\":{\"$python\":\"os.system\"}}", "unknown"),
        (deep.as_str(), "nested deeper"),
    ] {
        let tree = npy("|u1", false, &format!("({},)", json.len()), json.as_bytes());
        let error = read(Cursor::new(stored("tree.npy", tree))).unwrap_err().to_string();
        assert!(error.contains(part), "{error}, not {part}");
    }
}

#[test]
fn coordinates_that_are_not_sixty_four_floats_are_refused() {
    let json = b"{\"tidelog\":1,\"state\":null}";
    let tree = npy("|u1", false, &format!("({},)", json.len()), json);
    for (descr, shape, bytes) in
        [("<f8", "(63,)", 504), ("<f8", "(8, 8)", 512), ("<f4", "(64,)", 256), ("<f8", "()", 8)]
    {
        let coords = npy(descr, false, shape, &vec![0; bytes]);
        let members = [("tree.npy", tree.clone()), ("basin_coords.npy", coords)];
        let file = archive(options(CompressionMethod::Stored), &members);
        let error = read(Cursor::new(file)).unwrap_err().to_string();
        assert!(error.contains("not <f8 of shape [64]"), "{error}");
    }
}
