//! What does the journal keep of a model's state? Its shape, and what is short: the NPZ has it all.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ArrayPlace, Value, ValueError};

/// Most elements of an array that [`Value::summary`] keeps.
pub const SUMMARY_ELEMENTS_MAX: usize = 64;

/// Longest text, in bytes of UTF-8, and most bytes of a bytes value that [`Value::summary`] keeps.
pub const SUMMARY_LEAF_BYTES_MAX: usize = 4 << 10;

/// Longest JSON of a list, tuple or dict that [`Value::summary`] keeps, and so of any summary: a
/// line always has room for it.
pub const SUMMARY_BRANCH_BYTES_MAX: usize = 1 << 20;

/// Bounds of what JSON adds: to a list, tuple or dict, and to each item of one.
const BRACKETS_BYTES: usize = 16;
const COMMA_BYTES: usize = 4;

/// What is known of a long value that is kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Summary {
    /// What it is.
    pub kind: SummaryKind,
    /// Bytes of a text (in UTF-8) or of a bytes value, items of the others.
    pub length: u64,
    /// SHA-256 of a text's or bytes value's bytes.
    pub sha256: Option<[u8; 32]>,
}

/// The kinds of value that can be too long for a summary. Arrays are
/// [references](super::ArrayRef).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SummaryKind {
    /// [`Value::Text`].
    Text,
    /// [`Value::Bytes`].
    Bytes,
    /// [`Value::List`].
    List,
    /// [`Value::Tuple`].
    Tuple,
    /// [`Value::Dict`].
    Dict,
}

impl Value {
    /// Returns the value with what is long replaced by what is known of it: arrays of more than
    /// [`SUMMARY_ELEMENTS_MAX`] elements by dtype, shape and SHA-256, texts and bytes of more than
    /// [`SUMMARY_LEAF_BYTES_MAX`] by length and SHA-256, and each list, tuple or dict whose own
    /// summary is longer than [`SUMMARY_BRANCH_BYTES_MAX`] by its number of items.
    ///
    /// # Errors
    /// [`ValueError::Nesting`].
    pub fn summary(&self) -> Result<Value, ValueError> {
        Summarizer::default().value(self, 0)
    }
}

/// Makes a summary and counts the bytes of its JSON, or a few more.
#[derive(Default)]
struct Summarizer {
    bytes: usize,
}

impl Summarizer {
    fn value(&mut self, value: &Value, outside: usize) -> Result<Value, ValueError> {
        let inside = value.nesting_inside(outside)?;
        let begin = self.bytes;
        let branch = match value {
            Value::List(items) => self.items(items, inside)?.map(Value::List),
            Value::Tuple(items) => self.items(items, inside)?.map(Value::Tuple),
            Value::Dict(pairs) => self.pairs(pairs, inside)?.map(Value::Dict),
            _ => None,
        };
        if let Some(branch) = branch {
            self.bytes += BRACKETS_BYTES;
            return Ok(branch);
        }
        let short = short(value);
        self.bytes = begin + json_bytes(&short);
        Ok(short)
    }

    /// `None` if they are too long together; the rest of them is not looked at then.
    fn items(&mut self, items: &[Value], inside: usize) -> Result<Option<Vec<Value>>, ValueError> {
        let begin = self.bytes;
        let mut kept = Vec::new();
        for item in items {
            kept.push(self.value(item, inside)?);
            self.bytes += COMMA_BYTES;
            if self.bytes - begin > SUMMARY_BRANCH_BYTES_MAX {
                return Ok(None);
            }
        }
        Ok(Some(kept))
    }

    /// As [`items`](Self::items); keys stay as they are.
    fn pairs(
        &mut self,
        pairs: &[(Value, Value)],
        inside: usize,
    ) -> Result<Option<Vec<(Value, Value)>>, ValueError> {
        let begin = self.bytes;
        let mut kept = Vec::new();
        for (key, value) in pairs {
            self.bytes += json_bytes(key) + COMMA_BYTES;
            kept.push((key.clone(), self.value(value, inside)?));
            if self.bytes - begin > SUMMARY_BRANCH_BYTES_MAX {
                return Ok(None);
            }
        }
        Ok(Some(kept))
    }
}

/// What is known of a branch or of a long leaf; a short leaf itself.
fn short(value: &Value) -> Value {
    let summary = |kind, length: usize, bytes: Option<&[u8]>| {
        let sha256 = bytes.map(|bytes| Sha256::digest(bytes).into());
        Value::Summary(Summary { kind, length: length as u64, sha256 })
    };
    let is_long = |bytes: &[u8]| bytes.len() > SUMMARY_LEAF_BYTES_MAX;
    match value {
        Value::Text(text) if is_long(text.as_bytes()) => {
            summary(SummaryKind::Text, text.len(), Some(text.as_bytes()))
        }
        Value::Bytes(bytes) if is_long(bytes) => {
            summary(SummaryKind::Bytes, bytes.len(), Some(bytes))
        }
        Value::Array(array) if array.elements() > SUMMARY_ELEMENTS_MAX => {
            Value::reference(array, ArrayPlace::Sha256(Sha256::digest(array.bytes()).into()))
        }
        Value::List(items) => summary(SummaryKind::List, items.len(), None),
        Value::Tuple(items) => summary(SummaryKind::Tuple, items.len(), None),
        Value::Dict(pairs) => summary(SummaryKind::Dict, pairs.len(), None),
        leaf => leaf.clone(),
    }
}

/// A value that JSON cannot say counts nothing: nobody can write it.
fn json_bytes(value: &Value) -> usize {
    serde_json::to_vec(value).map_or(0, |json| json.len())
}

#[cfg(test)]
mod tests {
    use ndarray::Array1;

    use super::*;
    use crate::LINE_BYTES_MAX;
    use crate::checkpoint::array::Array;
    use crate::value::NESTING_MAX;

    fn array_of(elements: usize) -> Value {
        Value::Array(Array::from_ndarray(&Array1::<f32>::zeros(elements)))
    }

    fn json(value: &Value) -> String {
        serde_json::to_string(&value.summary().unwrap()).unwrap()
    }

    fn dict(key: &str, value: Value) -> Value {
        Value::Dict(vec![(key.into(), value)])
    }

    #[test]
    fn a_summary_keeps_small_arrays_and_names_large_ones() {
        let json = json(&Value::List(vec![array_of(64), Value::Tuple(vec![array_of(65)])]));
        assert!(json.contains(r#""shape":[64],"data":"AAAA"#), "{json}");
        let sha256 = "9c0095c04ef53d9df41602f3783c90ef3c3e27cc9d0b38262d23930db6313f5a";
        let reference =
            format!(r#"{{"$array":{{"dtype":"<f4","shape":[65],"sha256":"{sha256}"}}}}"#);
        assert!(json.contains(&reference), "{json}");
    }

    #[test]
    fn long_texts_and_bytes_are_named_by_length_and_hash() {
        let long = Value::Bytes(vec![0; SUMMARY_LEAF_BYTES_MAX + 1]);
        let json = json(&Value::List(vec![long, "short".into()]));
        let sha256 = "b587fa297299ce9c602e58292b51379402bf7b1074f6b18679c2fb871c917ca8";
        let named = format!(r#"{{"kind":"bytes","length":4097,"sha256":"{sha256}"}}"#);
        assert_eq!(json, format!(r#"[{{"$summary":{named}}},"short"]"#));
        let text = Value::from("é".repeat(SUMMARY_LEAF_BYTES_MAX)).summary().unwrap();
        let Value::Summary(text) = text else { panic!("{text:?}") };
        assert_eq!((text.kind, text.length), (SummaryKind::Text, 8192));
    }

    #[test]
    fn a_long_branch_is_named_by_its_items_and_its_neighbours_stay() {
        let long = Value::List(vec![Value::Float(0.1); 1_000_000]);
        let state = Value::Dict(vec![("history".into(), long), ("step".into(), Value::Int(7))]);
        let summary = r#"{"history":{"$summary":{"kind":"list","length":1000000}},"step":7}"#;
        assert_eq!(json(&state), summary);
    }

    #[test]
    fn a_line_has_room_for_the_summary_of_any_tree() {
        let wide =
            (0..5).fold("x".repeat(99).as_str().into(), |leaf, _| Value::Tuple(vec![leaf; 12]));
        let keys = (0..30_000).map(|i| (Value::Int(i), Value::Dict(vec![]))).collect();
        let long_key = dict(&"k".repeat(2 * LINE_BYTES_MAX), Value::Null);
        for tree in [wide, Value::Dict(keys), long_key] {
            assert!(json(&tree).len() <= SUMMARY_BRANCH_BYTES_MAX + BRACKETS_BYTES);
        }
    }

    #[test]
    fn a_summary_of_a_tree_nested_too_deeply_is_refused() {
        let deep = (0..NESTING_MAX).fold(Value::Null, |inner, _| Value::List(vec![inner]));
        assert!(deep.summary().is_ok());
        let text = Value::List(vec![deep]).summary().unwrap_err().to_string();
        assert!(text.contains("deeper than 100"), "{text}");
    }

    #[test]
    fn a_summary_comes_back_and_is_its_own_summary() {
        let summary = dict("a", Value::Bytes(vec![1; 5000])).summary().unwrap();
        let json = serde_json::to_string(&summary).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), summary);
        assert_eq!(summary.summary().unwrap(), summary);
    }
}
