//! Writes a value in its JSON form, straight into the serializer.

use std::fmt;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, Serializer};

use super::{ArrayPlace, ArrayRef, Summary, Value, ValueError, check_keys, has_plain_keys};
use crate::checkpoint::array::Array;
use crate::hex::hex;

/// Integral floats from here on print with an exponent and without a fraction, and `jsonb` then
/// takes them for integers.
const PLAIN_FLOAT_MAX: f64 = 1e16;

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Node { value: self, outside: 0 }.serialize(serializer)
    }
}

/// A value and the nesting around it.
struct Node<'a> {
    value: &'a Value,
    outside: usize,
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let outside = self.value.nesting_inside(self.outside).map_err(S::Error::custom)?;
        match self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::BigInt(value) => tagged(serializer, "$int", value.as_str()),
            Value::Float(value) => Float(*value).serialize(serializer),
            Value::Complex(re, im) => tagged(serializer, "$complex", &[Float(*re), Float(*im)]),
            Value::Text(text) if text.contains('\0') => {
                tagged(serializer, "$text", &Base64(text.as_bytes()))
            }
            Value::Text(text) => serializer.serialize_str(text),
            Value::Bytes(bytes) => tagged(serializer, "$bytes", &Base64(bytes)),
            Value::List(items) => Items { items, outside }.serialize(serializer),
            Value::Tuple(items) => tagged(serializer, "$tuple", &Items { items, outside }),
            Value::Dict(pairs) => dict(serializer, pairs, outside),
            Value::Array(array) => tagged(serializer, "$array", &Inline(array)),
            Value::Scalar(scalar) if scalar.shape().is_empty() => {
                tagged(serializer, "$scalar", &Inline(scalar))
            }
            Value::Scalar(array) => {
                let shape = array.shape().to_vec();
                Err(S::Error::custom(ValueError::Scalar { shape }))
            }
            Value::ArrayRef(reference) => tagged(serializer, "$array", &Elsewhere(reference)),
            Value::Summary(summary) => tagged(serializer, "$summary", summary),
        }
    }
}

fn tagged<S: Serializer>(
    serializer: S,
    tag: &'static str,
    content: &(impl Serialize + ?Sized),
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(tag, content)?;
    map.end()
}

fn dict<S: Serializer>(
    serializer: S,
    pairs: &[(Value, Value)],
    outside: usize,
) -> Result<S::Ok, S::Error> {
    check_keys(pairs).map_err(S::Error::custom)?;
    if !has_plain_keys(pairs) {
        return tagged(serializer, "$dict", &Pairs { pairs, outside });
    }
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (key, value) in pairs {
        map.serialize_entry(&Node { value: key, outside }, &Node { value, outside })?;
    }
    map.end()
}

struct Items<'a> {
    items: &'a [Value],
    outside: usize,
}

impl Serialize for Items<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.items.iter().map(|value| Node { value, outside: self.outside }))
    }
}

struct Pairs<'a> {
    pairs: &'a [(Value, Value)],
    outside: usize,
}

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.pairs.len()))?;
        let outside = self.outside;
        for (key, value) in self.pairs {
            sequence.serialize_element(&[Node { value: key, outside }, Node { value, outside }])?;
        }
        sequence.end()
    }
}

struct Float(f64);

impl Serialize for Float {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = self.0;
        let is_negative_zero = value == 0.0 && value.is_sign_negative();
        // Also false for NaN and the infinities.
        if value.abs() < PLAIN_FLOAT_MAX && !is_negative_zero {
            serializer.serialize_f64(value)
        } else {
            tagged(serializer, "$float", &FloatText(value))
        }
    }
}

/// A float as text; with the names that Python's json has for those that JSON has not.
struct FloatText(f64);

impl fmt::Display for FloatText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            value if value.is_nan() => f.write_str("NaN"),
            f64::INFINITY => f.write_str("Infinity"),
            f64::NEG_INFINITY => f.write_str("-Infinity"),
            value => write!(f, "{value:?}"),
        }
    }
}

impl Serialize for FloatText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

/// An array with its elements.
struct Inline<'a>(&'a Array);

impl Serialize for Inline<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("array", 3)?;
        fields.serialize_field("dtype", &self.0.dtype().descr())?;
        fields.serialize_field("shape", self.0.shape())?;
        fields.serialize_field("data", &Base64(self.0.bytes()))?;
        fields.end()
    }
}

/// An array without its elements.
struct Elsewhere<'a>(&'a ArrayRef);

impl Serialize for Elsewhere<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("array", 3)?;
        fields.serialize_field("dtype", &self.0.dtype.descr())?;
        fields.serialize_field("shape", &self.0.shape)?;
        match &self.0.place {
            ArrayPlace::Member(member) => fields.serialize_field("member", member)?,
            ArrayPlace::Sha256(digest) => fields.serialize_field("sha256", &hex(digest))?,
        }
        fields.end()
    }
}

impl Serialize for Summary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("summary", 3)?;
        fields.serialize_field("kind", &self.kind)?;
        fields.serialize_field("length", &self.length)?;
        if let Some(digest) = &self.sha256 {
            fields.serialize_field("sha256", &hex(digest))?;
        }
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::NESTING_MAX;

    fn json(value: Value) -> String {
        serde_json::to_string(&value).unwrap()
    }

    #[test]
    fn plain_json_stands_where_it_says_everything() {
        let dict = vec![("b".into(), Value::Int(1)), ("ä".into(), Value::Float(1.0))];
        assert_eq!(json(Value::Dict(dict)), r#"{"b":1,"ä":1.0}"#);
        assert_eq!(
            json(Value::List(vec![Value::Null, true.into(), "x".into()])),
            r#"[null,true,"x"]"#
        );
        assert_eq!(json(Value::Float(9_007_199_254_740_993.0)), "9007199254740992.0");
        assert_eq!(json(Value::Float(5e-324)), "5e-324");
    }

    #[test]
    fn what_json_or_jsonb_cannot_say_is_tagged() {
        assert_eq!(json(Value::Float(f64::NAN)), r#"{"$float":"NaN"}"#);
        assert_eq!(json(Value::Float(f64::NEG_INFINITY)), r#"{"$float":"-Infinity"}"#);
        assert_eq!(json(Value::Float(-0.0)), r#"{"$float":"-0.0"}"#);
        assert_eq!(json(Value::Float(1e16)), r#"{"$float":"1e16"}"#);
        assert_eq!(json(u64::MAX.into()), r#"{"$int":"18446744073709551615"}"#);
        assert_eq!(json("a\0".into()), r#"{"$text":"YQA="}"#);
        assert_eq!(json(Value::Complex(1.0, -0.0)), r#"{"$complex":[1.0,{"$float":"-0.0"}]}"#);
        assert_eq!(json(Value::Tuple(vec![Value::Int(1)])), r#"{"$tuple":[1]}"#);
        assert_eq!(json(Value::Bytes(vec![255])), r#"{"$bytes":"/w=="}"#);
    }

    #[test]
    fn dicts_that_json_objects_cannot_say_are_lists_of_pairs() {
        let one = |key: Value| json(Value::Dict(vec![(key, Value::Null)]));
        assert_eq!(one(Value::Int(1)), r#"{"$dict":[[1,null]]}"#);
        assert_eq!(one("$float".into()), r#"{"$dict":[["$float",null]]}"#);
        assert_eq!(one("\0".into()), r#"{"$dict":[[{"$text":"AA=="},null]]}"#);
    }

    #[test]
    fn what_could_not_be_read_back_is_not_written() {
        let deep = (0..=NESTING_MAX).fold(Value::Null, |inner, _| Value::List(vec![inner]));
        assert!(serde_json::to_string(&deep).unwrap_err().to_string().contains("limit"));
        let vector = Array::new(crate::checkpoint::array::Dtype::Bool, vec![1], vec![1]).unwrap();
        let text = serde_json::to_string(&Value::Scalar(vector)).unwrap_err().to_string();
        assert_eq!(text, "a scalar of shape [1] is not a scalar");
        let twice = vec![("a".into(), Value::Null), ("a".into(), Value::Null)];
        assert!(serde_json::to_string(&Value::Dict(twice)).is_err());
    }
}
