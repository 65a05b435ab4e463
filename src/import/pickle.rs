//! What do old files hold that Python pickled? Data, and only data.
//!
//! A pickle is a program for a small stack machine that may call any function of Python. This
//! decoder runs the machine and calls nothing: it knows the few names that plain data and numpy
//! arrays need, builds their values itself, and refuses every other name. It reads protocols 2 to
//! 5, with the module names of numpy 1 (`numpy.core`) and 2 (`numpy._core`).
//!
//! Three steps: `input` cuts the bytes into opcodes' arguments, `machine` runs them (with `calls`
//! for what Python would call) into a graph whose parts may be shared, and `tree` copies the graph
//! into a `Value`, within limits, because sharing makes small graphs into huge trees.
//!
//! Bytearrays become bytes; arrays of objects become lists, nested as the array has axes.

mod calls;
mod input;
mod integer;
mod machine;
mod tree;

use thiserror::Error;

use self::machine::Machine;
use crate::checkpoint::npy::{self, Npy, NpyError};
use crate::value::{Value, ValueError};

/// Most values, marks and memo entries of one pickle, and most values of the tree it makes.
pub const ITEMS_MAX: u64 = 10_000_000;

/// Values that the tree may have, beside some for each byte of the pickle: what stands in a pickle
/// once may stand in its tree often.
const TREE_ITEMS: u64 = 1_000_000;
const TREE_ITEMS_PER_BYTE: u64 = 4;

/// Bytes of text and arrays that the tree may have, beside some for each byte of the pickle.
const TREE_BYTES: u64 = 16 << 20;

/// Bytes of text and arrays that the tree may have for each byte of the pickle.
const TREE_BYTES_PER_BYTE: u64 = 8;

/// Why a pickle is not read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PickleError {
    /// The pickle names something that is not plain data.
    #[error("class {class} is refused: only plain python data and numpy arrays are read")]
    Class {
        /// Module and name.
        class: String,
    },
    /// The pickle uses an opcode that plain data of protocols 2 to 5 does not need.
    #[error("pickle opcode {name} at byte {at} is refused")]
    Opcode {
        /// Python's name of it, or its number.
        name: String,
        /// Position in the pickle.
        at: usize,
    },
    /// The pickle is of another protocol.
    #[error("pickle protocol {protocol} is refused: only 2 to 5 are read")]
    Protocol {
        /// Its protocol.
        protocol: String,
    },
    /// The pickle ends early.
    #[error("the pickle is cut short: it needs {needed} bytes at byte {at}")]
    Truncated {
        /// Bytes that an opcode asks for.
        needed: u64,
        /// Position in the pickle.
        at: usize,
    },
    /// The pickle makes no sense.
    #[error("the pickle is damaged at byte {at}: {reason}")]
    Damaged {
        /// Position in the pickle.
        at: usize,
        /// What is wrong.
        reason: String,
    },
    /// A value cannot stand in a tree.
    #[error("the pickle holds {what}")]
    Unsupported {
        /// What it holds.
        what: String,
    },
    /// A list or dict holds itself.
    #[error("the pickle holds a {kind} that holds itself")]
    Cycle {
        /// What holds itself.
        kind: &'static str,
    },
    /// Too much of something.
    #[error("the pickle makes more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A value cannot be kept.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The NPY file around the pickle is damaged.
    #[error(transparent)]
    Npy(#[from] NpyError),
}

/// How much a pickle may make.
#[derive(Clone, Copy)]
struct Limits {
    items: u64,
    bytes: u64,
}

/// Decodes one pickle, such as [`Npy::Objects`] holds; runs nothing.
///
/// # Errors
/// Every [`PickleError`]; a refused class is named.
pub fn decode(pickle: &[u8]) -> Result<Value, PickleError> {
    let times = |count: u64| count.saturating_mul(pickle.len() as u64);
    let limits = Limits {
        items: times(TREE_ITEMS_PER_BYTE).saturating_add(TREE_ITEMS).min(ITEMS_MAX),
        bytes: times(TREE_BYTES_PER_BYTE).saturating_add(TREE_BYTES),
    };
    decode_within(pickle, limits)
}

/// Decodes an NPY file of any dtype; an array of objects of shape () gives the object itself.
///
/// # Errors
/// Every [`PickleError`]; a refused class is named.
pub fn decode_object_npy(npy: &[u8]) -> Result<Value, PickleError> {
    match npy::from_bytes(npy)? {
        Npy::Objects { pickle } => decode(&pickle),
        Npy::Array(array) => Ok(Value::Array(array)),
    }
}

fn decode_within(pickle: &[u8], limits: Limits) -> Result<Value, PickleError> {
    tree::build(&Machine::new(pickle, limits).run()?, limits)
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::array::Array;

    /// What `pickle.dumps(numpy.array([[1, 2], [3, 4]], ">i2").T, 5)` gives.
    const FROM_BUFFER: &[u8] = b"\x80\x05\x95~\x00\x00\x00\x00\x00\x00\x00\x8c\x13numpy._core.numeric\
        \x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\x08\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x02\x00\
        \x03\x00\x04\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02i2\x94\x89\x88\x87\x94R\x94\
        (K\x03\x8c\x01>\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02K\x02\x86\x94\x8c\x01F\
        \x94t\x94R\x94.";

    /// The same in protocol 2, with the module name of numpy 1.
    const RECONSTRUCT: &[u8] = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\n\
        q\x01K\x00\x85q\x02c_codecs\nencode\nq\x03X\x01\x00\x00\x00bq\x04X\x06\x00\x00\x00latin1q\x05\
        \x86q\x06Rq\x07\x87q\x08Rq\x09(K\x01K\x02K\x02\x86q\ncnumpy\ndtype\nq\x0bX\x02\x00\x00\x00i2\
        q\x0c\x89\x88\x87q\x0dRq\x0e(K\x03X\x01\x00\x00\x00>q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff\
        K\x00tq\x10b\x88h\x03X\x08\x00\x00\x00\x00\x01\x00\x02\x00\x03\x00\x04q\x11h\x05\x86q\x12Rq\x13\
        tq\x14b.";

    fn refusal(pickle: &[u8]) -> String {
        decode(pickle).unwrap_err().to_string()
    }

    fn refusal_within(pickle: &[u8], items: u64, bytes: u64) -> String {
        decode_within(pickle, Limits { items, bytes }).unwrap_err().to_string()
    }

    #[test]
    fn plain_data_of_every_protocol_is_decoded() {
        let list = vec![Value::Int(1), Value::Null, Value::Tuple(vec![2.5.into()])];
        let bytes = Value::Bytes(vec![0xff]);
        let expected = Value::Dict(vec![("a".into(), Value::List(list)), ("b".into(), bytes)]);
        let pickles: [&[u8]; 3] = [
            b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01NG@\x04\x00\x00\x00\x00\x00\x00\x85q\
              \x03eX\x01\x00\x00\x00bq\x04c_codecs\nencode\nq\x05X\x02\x00\x00\x00\xc3\xbfq\x06X\x06\
              \x00\x00\x00latin1q\x07\x86q\x08Rq\x09u.",
            b"\x80\x03}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01NG@\x04\x00\x00\x00\x00\x00\x00\x85q\
              \x03eX\x01\x00\x00\x00bq\x04C\x01\xffq\x05u.",
            b"\x80\x04\x95#\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01NG@\x04\x00\x00\
              \x00\x00\x00\x00\x85\x94e\x8c\x01b\x94C\x01\xff\x94u.",
        ];
        for pickle in pickles {
            assert_eq!(decode(pickle).unwrap(), expected);
        }
        let protocol_5 = [b"\x80\x05", &pickles[2][2..]].concat();
        assert_eq!(decode(&protocol_5).unwrap(), expected);
    }

    #[test]
    fn arrays_of_numpy_1_and_2_are_decoded() {
        let expected = Value::Array(Array::from_ndarray(&array![[1_i16, 3], [2, 4]]));
        assert_eq!(decode(FROM_BUFFER).unwrap(), expected);
        assert_eq!(decode(RECONSTRUCT).unwrap(), expected);
    }

    #[test]
    fn every_other_class_is_refused_by_name() {
        let refused: [(&[u8], &str); 7] = [
            (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.", "class os.system is refused"),
            (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "class posix.system is refused"),
            (b"\x80\x02c__builtin__\neval\n.", "class __builtin__.eval is refused"),
            (b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.", "class builtins.getattr is refused"),
            (b"\x80\x02ccollections\nOrderedDict\n)R.", "class collections.OrderedDict is refused"),
            (b"\x80\x02cnumpy\nmatrix\n.", "class numpy.matrix is refused"),
            (b"\x80\x02ccopyreg\n_reconstructor\n.", "class copyreg._reconstructor is refused"),
        ];
        for (pickle, reason) in refused {
            let text = refusal(pickle);
            assert!(text.starts_with(reason), "{text}");
        }
    }

    #[test]
    fn a_class_is_not_a_value() {
        assert_eq!(refusal(b"\x80\x02cnumpy\nndarray\n."), "the pickle holds numpy.ndarray");
        let dtype = b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R.";
        assert_eq!(refusal(dtype), "the pickle holds a numpy dtype");
    }

    #[test]
    fn dtypes_without_numbers_are_refused_by_name() {
        let date = b"\x80\x04cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\n\x8c\x02M8\x85RC\x08\
            12345678\x86R.";
        assert!(refusal(date).starts_with("dtype <M8 is not supported"), "{}", refusal(date));
    }

    #[test]
    fn other_protocols_and_opcodes_are_refused_by_name() {
        assert!(refusal(b"(dp0\n.").contains("protocol 0 or 1"));
        assert!(refusal(b"\x80\x06N.").contains("protocol 6"));
        assert_eq!(refusal(b"\x80\x04\x8f."), "pickle opcode EMPTY_SET at byte 2 is refused");
        assert!(refusal(b"\x80\x02U\x01a.").contains("SHORT_BINSTRING"));
        assert!(refusal(b"\x80\x05\x97.").contains("NEXT_BUFFER"));
        assert!(refusal(b"\x80\x02NQ.").contains("BINPERSID"));
        assert!(refusal(b"\x80\x02\xfe.").contains("0xfe"));
    }

    #[test]
    fn sharing_is_kept_within_limits() {
        // Thirty-one lists, each holding the one before twice; all but the last leave the stack.
        let mut laughs = b"\x80\x04(]\x94".to_vec();
        for list in 0..30 {
            laughs.extend([b']', 0x94, b'(', b'h', list, b'h', list, b'e']);
        }
        laughs.extend([b'1', b'h', 30, b'.']);
        assert!(refusal_within(&laughs, 100_000, 0).contains("more than 100000 values"));
        let tied = b"\x80\x04]\x94h\x00\x86.";
        let list = || Value::List(vec![]);
        assert_eq!(decode(tied).unwrap(), Value::Tuple(vec![list(), list()]));
    }

    #[test]
    fn a_small_pickle_makes_no_large_tree() {
        let mut laughs = b"\x80\x04(]\x94".to_vec();
        for list in 0..22 {
            laughs.extend([b']', 0x94, b'(', b'h', list, b'h', list, b'e']);
        }
        laughs.extend([b'1', b'h', 22, b'.']);
        assert!(refusal(&laughs).contains("values"), "{}", refusal(&laughs));
        let text = [b"\x80\x04(X\x00\x00\x01\x00".as_slice(), &[b'x'; 65_536], b"\x94"].concat();
        let echoes = [&text, b"h\x00".repeat(1_000).as_slice(), b"t."].concat();
        assert!(refusal(&echoes).contains("bytes of text"), "{}", refusal(&echoes));
    }

    #[test]
    fn a_list_that_holds_itself_is_refused() {
        assert_eq!(refusal(b"\x80\x04]\x94h\x00a."), "the pickle holds a list that holds itself");
        let through_dict = b"\x80\x04}\x94\x8c\x01a(h\x00ts.";
        assert_eq!(refusal(through_dict), "the pickle holds a dict that holds itself");
    }

    #[test]
    fn deep_nesting_is_refused_without_recursing() {
        let lists = [b"\x80\x04".as_slice(), &b"]".repeat(500_000), &b"a".repeat(499_999), b"."];
        assert!(refusal(&lists.concat()).contains("nested deeper"));
        let tuples = [b"\x80\x04N".as_slice(), &b"\x85".repeat(500_000), b"."];
        assert!(refusal(&tuples.concat()).contains("nested deeper"));
        let keys = [b"\x80\x04".as_slice(), &b"}".repeat(99_999), &b"Ns".repeat(99_998), b"."];
        assert!(refusal(&keys.concat()).contains("nested deeper"));
    }

    #[test]
    fn items_of_every_kind_are_counted() {
        let values = [b"\x80\x04(".as_slice(), &b"N".repeat(200), b"t."].concat();
        assert!(refusal_within(&values, 100, 0).contains("more than 100 values"));
        let marks = [b"\x80\x04".as_slice(), &b"(".repeat(200), b"."].concat();
        assert!(refusal_within(&marks, 100, 0).contains("more than 100 values"));
        let memo = [b"\x80\x04N".as_slice(), &b"\x94".repeat(200), b"."].concat();
        assert!(refusal_within(&memo, 100, 0).contains("more than 100 values"));
        let text = b"\x80\x04\x8c\x03abc\x94h\x00\x86.";
        assert!(refusal_within(text, 100, 5).contains("more than 5 bytes"));
        let array = refusal_within(FROM_BUFFER, 100, 7);
        assert!(array.contains("more than 7 bytes"), "{array}");
    }

    #[test]
    fn integers_over_the_limit_are_refused() {
        let long = [b"\x80\x04\x8b\x00\x00\x01\x00".as_slice(), &[1; 65_536], b"."].concat();
        assert!(refusal(&long).contains("over the limit of 4300"));
        assert!(refusal(b"\x80\x04\x8b\xff\xff\xff\xff.").contains("cut short"));
    }

    #[test]
    fn dict_keys_are_checked() {
        assert!(refusal(b"\x80\x04}]Ns.").contains("a list cannot be the key"));
        assert!(refusal(b"\x80\x04}K\x01NsK\x01Ns.").contains("appears twice"));
    }

    #[test]
    fn a_pickle_cut_anywhere_is_an_error() {
        for pickle in [FROM_BUFFER, RECONSTRUCT] {
            for length in 0..pickle.len() {
                assert!(decode(&pickle[..length]).is_err(), "{length}");
            }
            assert!(refusal(&[pickle, b"N"].concat()).contains("bytes follow its end"));
        }
    }

    #[test]
    fn no_flipped_byte_panics() {
        for pickle in [FROM_BUFFER, RECONSTRUCT] {
            for (at, change) in (0..pickle.len()).flat_map(|at| (0..=255).map(move |c| (at, c))) {
                let mut damaged = pickle.to_vec();
                damaged[at] = change;
                decode(&damaged).ok();
            }
        }
    }

    proptest! {
        #[test]
        fn no_opcodes_panic(opcodes in proptest::collection::vec(
            proptest::sample::select(b"(012NKMJGXC]})taesuqhRb\x85\x86\x87\x88\x89\x94\x8a\x00\x01".to_vec()),
            0..60,
        )) {
            decode(&[b"\x80\x04", opcodes.as_slice(), b"."].concat()).ok();
        }
    }

    #[test]
    fn an_npy_file_of_objects_gives_the_object() {
        let literal = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }\n";
        let object = b"\x80\x04cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R\
            (K\x01)cnumpy\ndtype\n\x8c\x02O8\x89\x88\x87R(K\x03\x8c\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\
            \xff\xffK?tb\x89]}\x8c\x01aK\x01satb.";
        let length = [u8::try_from(literal.len()).unwrap(), 0];
        let npy = [b"\x93NUMPY\x01\x00", length.as_slice(), literal, object].concat();
        let expected = Value::Dict(vec![("a".into(), Value::Int(1))]);
        assert_eq!(decode_object_npy(&npy).unwrap(), expected);
        assert!(decode_object_npy(&npy[..100]).is_err());
    }

    #[test]
    fn an_array_of_objects_has_as_many_as_its_shape_says() {
        let with_shape = |shape: &[u8]| {
            let start =
                b"\x80\x04cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\
                \x87R(K\x01"
                    .as_slice();
            let end = b"cnumpy\ndtype\n\x8c\x02O8\x89\x88\x87R\x89]tb.".as_slice();
            [start, shape, end].concat()
        };
        assert!(refusal(&with_shape(b"K\x02\x85")).contains("0 objects in an array of shape [2]"));
        let endless = with_shape(b"J\xff\xff\xff\x7fK\x00\x86");
        assert!(refusal_within(&endless, 1_000, 0).contains("more than 1000 values"));
        assert_eq!(decode(&with_shape(b"K\x00\x85")).unwrap(), Value::List(vec![]));
    }
}
