//! Pickles that would call something: refused by name, and nothing is called.

use std::fs;
use std::io::Write;

use tidelog::Store;
use tidelog::import::pickle::decode;
use tidelog::import::{ImportOptions, import};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// A short text as a pickle holds it.
fn text(text: &str) -> Vec<u8> {
    [&[0x8c, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

fn refusal(pickle: &[u8]) -> String {
    decode(pickle).unwrap_err().to_string()
}

#[test]
fn every_opcode_that_could_call_is_refused_by_name() {
    let cases: [(&[u8], &str); 14] = [
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.", "class os.system"),
        (b"\x80\x02(X\x02\x00\x00\x00idios\nsystem\n.", "opcode INST"),
        (b"\x80\x02(cos\nsystem\nX\x02\x00\x00\x00ido.", "class os.system"),
        (b"\x80\x02(o.", "opcode OBJ"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93)\x81.", "class os.system"),
        (b"\x80\x04cnumpy\nndarray\n)\x81.", "opcode NEWOBJ"),
        (b"\x80\x04cnumpy\nndarray\n)}\x92.", "opcode NEWOBJ_EX"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"\x80\x02\x83\x01\x00.", "opcode EXT2"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "opcode EXT4"),
        (b"\x80\x02Pid\n.", "opcode PERSID"),
        (b"\x80\x02NQ.", "opcode BINPERSID"),
        (b"\x80\x04}\x94}\x8c\x0c__setstate__cos\nsystem\nsb.", "class os.system"),
        (b"\x80\x04}Nb.", "damaged"),
    ];
    for (pickle, part) in cases {
        let text = refusal(pickle);
        assert!(text.contains(part), "{text}, not {part}");
    }
}

/// Opcodes of Python's `pickletools` that plain data does not need, protocols 0 to 5.
const REFUSED: [(u8, &str); 26] = [
    (b'I', "INT"),
    (b'L', "LONG"),
    (b'F', "FLOAT"),
    (b'S', "STRING"),
    (b'T', "BINSTRING"),
    (b'U', "SHORT_BINSTRING"),
    (b'V', "UNICODE"),
    (b'l', "LIST"),
    (b'd', "DICT"),
    (b'g', "GET"),
    (b'p', "PUT"),
    (b'i', "INST"),
    (b'o', "OBJ"),
    (b'P', "PERSID"),
    (b'Q', "BINPERSID"),
    (0x80, "PROTO"),
    (0x81, "NEWOBJ"),
    (0x82, "EXT1"),
    (0x83, "EXT2"),
    (0x84, "EXT4"),
    (0x8f, "EMPTY_SET"),
    (0x90, "ADDITEMS"),
    (0x91, "FROZENSET"),
    (0x92, "NEWOBJ_EX"),
    (0x97, "NEXT_BUFFER"),
    (0x98, "READONLY_BUFFER"),
];

/// Those that it needs.
const KNOWN: &[u8] = b"(.012BCGJKMNRX]bacehjqrstu}\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x93\x94\
    \x95\x96)";

#[test]
fn every_opcode_is_either_of_plain_data_or_refused_by_its_name() {
    for opcode in 0..=255_u8 {
        let text = refusal(&[0x80, 4, opcode]);
        let named = REFUSED.iter().find(|(refused, _)| *refused == opcode).map(|(_, name)| *name);
        match (named, KNOWN.contains(&opcode)) {
            (Some(name), false) => {
                assert_eq!(text, format!("pickle opcode {name} at byte 2 is refused"));
            }
            (None, false) => assert!(text.contains(&format!("0x{opcode:02x}")), "{text}"),
            (None, true) => assert!(!text.contains("is refused"), "{text}"),
            (Some(name), true) => panic!("{name} is in both lists"),
        }
    }
}

#[test]
fn every_name_that_is_no_data_is_refused_by_name() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "__import__"),
        ("builtins", "getattr"),
        ("builtins", "map"),
        ("__builtin__", "apply"),
        ("importlib", "import_module"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("operator", "methodcaller"),
        ("types", "CodeType"),
        ("pickle", "loads"),
        ("copyreg", "_reconstructor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("numpy", "load"),
        ("numpy", "dtype.__class__"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy.core.multiarray", "__builtins__"),
        ("_codecs", "decode"),
        ("", ""),
        ("\u{202e}os", "system"),
    ] {
        let by_line = [&b"\x80\x02c"[..], format!("{module}\n{name}\n.").as_bytes()].concat();
        let by_stack = [b"\x80\x04".to_vec(), text(module), text(name), b"\x93.".to_vec()];
        for pickle in [by_line, by_stack.concat()] {
            let refused = refusal(&pickle);
            assert!(refused.contains(&format!("class {module}.{name} is refused")), "{refused}");
        }
    }
}

#[test]
fn no_opcode_alone_or_after_values_panics() {
    let before: [&[u8]; 6] =
        [b"", b"N", b"(N", b"}NN", b"cnumpy\nndarray\n)", b"cnumpy\ndtype\n\x8c\x02f4\x85"];
    for (values, opcode) in before.iter().flat_map(|values| (0..=255).map(move |op| (values, op))) {
        for arguments in [&b""[..], b"\x00.", b"\xff\xff\xff\xff\xff\xff\xff\xff."] {
            decode(&[b"\x80\x05", *values, &[opcode], arguments].concat()).ok();
        }
    }
}

/// The predecessor's checkpoint, but its state would touch a file.
#[test]
fn an_import_runs_nothing_and_names_what_it_refused() {
    let folder = tempfile::tempdir().unwrap();
    let touched = folder.path().join("touched");
    let command = format!("touch {}", touched.display());
    let pickle = [b"\x80\x04cposix\nsystem\n".to_vec(), text(&command), b"\x85R.".to_vec()];
    let header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }\n";
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    let npy = [&b"\x93NUMPY\x01\x00"[..], &length, &header[..], &pickle.concat()].concat();
    let old = folder.path().join("old");
    fs::create_dir_all(old.join("checkpoints")).unwrap();
    let path = old.join("checkpoints/checkpoint_20260105_090000_0.500.npz");
    let mut zip = ZipWriter::new(fs::File::create(path).unwrap());
    zip.start_file("state_dict.npy", SimpleFileOptions::default()).unwrap();
    zip.write_all(&npy).unwrap();
    zip.finish().unwrap();

    let store = Store::open(folder.path().join("store")).unwrap();
    let report = import(&store, &old, &ImportOptions::default(), &mut |_| ()).unwrap();
    assert_eq!((report.taken(), report.refused()), (0, 1));
    let reason = &report.first_findings[0].reason;
    assert!(reason.contains("class posix.system is refused"), "{reason}");
    assert!(!touched.exists());
}
