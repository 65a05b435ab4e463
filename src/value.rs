//! What may a user put into free-form fields? Anything that Python's plain types and numpy hold.
//!
//! Metadata, unknown telemetry fields, event details and a model's state tree are `Value`s. This
//! module is the one place that knows their JSON form. Plain JSON stands where it says everything;
//! an object with one key says the rest:
//!
//! | value | form |
//! | --- | --- |
//! | NaN, infinities, -0.0, 1e16 and beyond | `{"$float":"NaN"}` |
//! | integers outside signed 64 bits | `{"$int":"18446744073709551616"}` |
//! | text holding U+0000 | `{"$text":"<base64 of UTF-8>"}` |
//! | complex numbers | `{"$complex":[1.0,-2.0]}` |
//! | tuples | `{"$tuple":[1,2]}` |
//! | bytes | `{"$bytes":"<base64>"}` |
//! | dicts with a key that is not text, begins with `$` or holds U+0000 | `{"$dict":[[1,"one"]]}` |
//! | arrays, and numpy's scalars as `$scalar` | `{"$array":{"dtype":"<f4","shape":[2],"data":"<base64>"}}` |
//! | arrays kept elsewhere | `$array` with `member` or `sha256` in place of `data` |
//! | other long values kept elsewhere | `{"$summary":{"kind":"list","length":1000000}}`, `sha256` for text and bytes |
//!
//! Floats beyond 1e16, -0.0 and U+0000 are tagged although JSON could hold them, because
//! PostgreSQL's `jsonb` cannot: it prints 1e16 like an integer and refuses U+0000.

mod equality;
mod from_json;
mod integer;
mod summary;
mod to_json;

use std::collections::HashSet;

use thiserror::Error;

pub use self::integer::{BigInt, DIGITS_MAX};
pub use self::summary::{
    SUMMARY_BRANCH_BYTES_MAX, SUMMARY_ELEMENTS_MAX, SUMMARY_LEAF_BYTES_MAX, Summary, SummaryKind,
};
use crate::checkpoint::array::{Array, ArrayError, Dtype};

/// Deepest nesting of a [`Value`], counted in brackets of its JSON form: a list and a dict with
/// text keys take one, a tuple two, any other dict three.
///
/// JSON readers commonly stop at 128; the rest is left to the line around the value.
pub const NESTING_MAX: usize = 100;

/// A free-form value: what Python's plain types and numpy hold.
///
/// Equality asks whether the same thing is stored, not whether numbers are equal: NaN equals NaN,
/// 0.0 is not -0.0, the integer 1 is not the float 1.0, a list is not a tuple, and dicts in another
/// order differ.
#[derive(Clone, Debug)]
pub enum Value {
    /// Python's None.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// An integer outside 64 bits.
    BigInt(BigInt),
    /// A float of 64 bits; every bit is kept, except that all NaN are one.
    Float(f64),
    /// A complex number: real, imaginary.
    Complex(f64, f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Value>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A dict in order of insertion. Keys are hashable and differ; writing checks it.
    Dict(Vec<(Value, Value)>),
    /// A numpy array.
    Array(Array),
    /// A numpy scalar: a 0-d array that keeps its type.
    Scalar(Array),
    /// An array kept elsewhere.
    ArrayRef(Box<ArrayRef>),
    /// Any other long value kept elsewhere.
    Summary(Summary),
}

/// What is known of an array that is kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArrayRef {
    /// Element type.
    pub dtype: Dtype,
    /// Axis lengths.
    pub shape: Vec<usize>,
    /// Where the elements are, or how to know them.
    pub place: ArrayPlace,
}

/// Where the elements of an [`ArrayRef`] are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ArrayPlace {
    /// In this member of the NPZ that holds the tree.
    Member(String),
    /// In a checkpoint; the elements' little-endian bytes in C order have this SHA-256.
    Sha256([u8; 32]),
}

/// Why a value cannot be kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Deeper than [`NESTING_MAX`].
    #[error("a value nested deeper than {NESTING_MAX} brackets of JSON is over the limit")]
    Nesting,
    /// A dict holds a key twice.
    #[error("the key {key} appears twice in one dict")]
    DuplicateKey {
        /// The key, or its kind.
        key: String,
    },
    /// A dict's key is something that Python does not take as a key.
    #[error("a {kind} cannot be the key of a dict")]
    Unhashable {
        /// What the key is.
        kind: &'static str,
    },
    /// A text is not an integer.
    #[error("{text} is not an integer")]
    Integer {
        /// Beginning of the text.
        text: String,
    },
    /// An integer longer than [`DIGITS_MAX`].
    #[error("an integer of {digits} digits is over the limit of {DIGITS_MAX}")]
    Digits {
        /// Its decimal digits.
        digits: usize,
    },
    /// A numpy scalar has axes.
    #[error("a scalar of shape {shape:?} is not a scalar")]
    Scalar {
        /// Its axis lengths.
        shape: Vec<usize>,
    },
    /// Bytes are not an array.
    #[error(transparent)]
    Array(#[from] ArrayError),
}

/// One step on the way from a tree's root to a value in it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    Key(&'a Value),
    Index(usize),
}

impl Value {
    /// Returns the value of a text key of a dict.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Self::Dict(pairs) = self else { return None };
        let found = pairs.iter().find(|(name, _)| matches!(name, Self::Text(name) if name == key));
        found.map(|(_, value)| value)
    }

    /// Makes a reference to an array that is kept at `place`.
    pub(crate) fn reference(array: &Array, place: ArrayPlace) -> Self {
        let (dtype, shape) = (array.dtype(), array.shape().to_vec());
        Self::ArrayRef(Box::new(ArrayRef { dtype, shape, place }))
    }

    /// Rebuilds the tree with every array, reference and summary replaced by what `replace` makes
    /// of it.
    pub(crate) fn map_arrays<'a, E: From<ValueError>>(
        &'a self,
        replace: &mut impl FnMut(&[Step<'a>], &'a Value) -> Result<Value, E>,
    ) -> Result<Value, E> {
        self.map_below(&mut Vec::new(), 0, replace)
    }

    fn map_below<'a, E: From<ValueError>>(
        &'a self,
        path: &mut Vec<Step<'a>>,
        outside: usize,
        replace: &mut impl FnMut(&[Step<'a>], &'a Value) -> Result<Value, E>,
    ) -> Result<Value, E> {
        let inside = self.nesting_inside(outside)?;
        let mut child = |step, value: &'a Value| {
            path.push(step);
            let mapped = value.map_below(path, inside, replace);
            path.pop();
            mapped
        };
        let mut items = |items: &'a [Value]| -> Result<Vec<Value>, E> {
            items.iter().enumerate().map(|(i, item)| child(Step::Index(i), item)).collect()
        };
        match self {
            Self::List(list) => items(list).map(Self::List),
            Self::Tuple(tuple) => items(tuple).map(Self::Tuple),
            Self::Dict(pairs) => {
                let mut pair = |(key, value): &'a (Value, Value)| {
                    Ok((key.clone(), child(Step::Key(key), value)?))
                };
                pairs.iter().map(&mut pair).collect::<Result<_, E>>().map(Self::Dict)
            }
            Self::Array(_) | Self::ArrayRef(_) | Self::Summary(_) => replace(path, self),
            other => Ok(other.clone()),
        }
    }

    /// Returns the nesting of what this value holds, when `outside` is that of the value itself.
    fn nesting_inside(&self, outside: usize) -> Result<usize, ValueError> {
        let brackets = match self {
            Self::List(_) => 1,
            Self::Tuple(_) => 2,
            Self::Dict(pairs) => dict_brackets(pairs),
            _ => 0,
        };
        deeper(outside, brackets)
    }

    /// Returns what the value is, in words for an error.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) | Self::BigInt(_) => "integer",
            Self::Float(_) => "float",
            Self::Complex(..) => "complex number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes value",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Array(_) => "array",
            Self::Scalar(_) => "scalar",
            Self::ArrayRef(_) => "reference to an array",
            Self::Summary(_) => "summary",
        }
    }

    /// Returns the first part of the tuple that a key may not be.
    fn unhashable(&self) -> Option<&'static str> {
        match self {
            Self::List(_)
            | Self::Dict(_)
            | Self::Array(_)
            | Self::ArrayRef(_)
            | Self::Summary(_) => Some(self.kind()),
            Self::Tuple(items) => items.iter().find_map(Self::unhashable),
            _ => None,
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Array> for Value {
    fn from(value: Array) -> Self {
        Self::Array(value)
    }
}

/// Refuses a dict that Python could not hold.
pub(crate) fn check_keys(pairs: &[(Value, Value)]) -> Result<(), ValueError> {
    let mut seen = HashSet::with_capacity(pairs.len());
    for (key, _) in pairs {
        if let Some(kind) = key.unhashable() {
            return Err(ValueError::Unhashable { kind });
        }
        if !seen.insert(key) {
            let key = match key {
                Value::Text(text) => text.chars().take(64).collect(),
                other => format!("of kind {}", other.kind()),
            };
            return Err(ValueError::DuplicateKey { key });
        }
    }
    Ok(())
}

/// Whether a JSON object of these keys comes back as it is, from `jsonb` too.
fn has_plain_keys(pairs: &[(Value, Value)]) -> bool {
    let is_plain = |key: &str| !key.starts_with('$') && !key.contains('\0');
    pairs.iter().all(|(key, _)| matches!(key, Value::Text(key) if is_plain(key)))
}

/// Returns the nesting that a dict of these keys adds to its values.
pub(crate) fn dict_brackets(pairs: &[(Value, Value)]) -> usize {
    if has_plain_keys(pairs) { 1 } else { 3 }
}

/// Adds to a nesting, up to the limit.
pub(crate) fn deeper(outside: usize, brackets: usize) -> Result<usize, ValueError> {
    let inside = outside.saturating_add(brackets);
    if inside > NESTING_MAX { Err(ValueError::Nesting) } else { Ok(inside) }
}

#[cfg(test)]
mod tests {
    use ndarray::Array1;

    use super::*;

    fn array_of(elements: usize) -> Value {
        Value::Array(Array::from_ndarray(&Array1::<f32>::zeros(elements)))
    }

    #[test]
    fn keys_that_python_would_not_take_are_refused() {
        let check = |key: Value| check_keys(&[(key, Value::Null)]).unwrap_err().to_string();
        assert_eq!(check(Value::List(vec![])), "a list cannot be the key of a dict");
        let nested = Value::Tuple(vec![Value::Dict(vec![])]);
        assert_eq!(check(nested), "a dict cannot be the key of a dict");
        assert!(check(array_of(1)).contains("array"));
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let pairs = vec![("a".into(), Value::Null), ("a".into(), Value::Null)];
        let text = check_keys(&pairs).unwrap_err().to_string();
        assert_eq!(text, "the key a appears twice in one dict");
    }

    #[test]
    fn get_finds_text_keys_only() {
        let dict = Value::Dict(vec![(Value::Int(1), Value::Null), ("a".into(), true.into())]);
        assert_eq!(dict.get("a"), Some(&Value::Bool(true)));
        assert_eq!(dict.get("1"), None);
        assert_eq!(Value::Null.get("a"), None);
    }
}
