//! Reads a value from its JSON form.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{ArrayPlace, ArrayRef, Summary, SummaryKind, Value, check_keys, deeper};
use crate::checkpoint::array::{Array, Dtype};

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Node { outside: 0 }.deserialize(deserializer)
    }
}

/// A value about to be read and the nesting around it.
#[derive(Clone, Copy)]
struct Node {
    outside: usize,
}

impl Node {
    fn inside<E: Error>(self, brackets: usize) -> Result<Self, E> {
        let outside = deeper(self.outside, brackets).map_err(E::custom)?;
        Ok(Self { outside })
    }

    fn plain_dict<'de, A: MapAccess<'de>>(
        self,
        first: String,
        mut map: A,
    ) -> Result<Value, A::Error> {
        let inside = self.inside(1)?;
        let mut pairs = vec![(Value::Text(first), map.next_value_seed(inside)?)];
        while let Some(key) = map.next_key::<String>()? {
            if key.starts_with('$') {
                return Err(A::Error::custom(format_args!(
                    "the tag {key} stands beside other keys"
                )));
            }
            pairs.push((Value::Text(key), map.next_value_seed(inside)?));
        }
        check_keys(&pairs).map_err(A::Error::custom)?;
        Ok(Value::Dict(pairs))
    }

    fn tagged<'de, A: MapAccess<'de>>(self, tag: &str, map: &mut A) -> Result<Value, A::Error> {
        match tag {
            "$float" => float(&map.next_value::<String>()?).map(Value::Float),
            "$int" => Value::integer(&map.next_value::<String>()?).map_err(A::Error::custom),
            "$text" => {
                let bytes = base64(&map.next_value::<String>()?)?;
                String::from_utf8(bytes).map(Value::Text).map_err(A::Error::custom)
            }
            "$bytes" => base64(&map.next_value::<String>()?).map(Value::Bytes),
            "$complex" => complex(map.next_value_seed(Items(self.inside(2)?))?),
            "$tuple" => map.next_value_seed(Items(self.inside(2)?)).map(Value::Tuple),
            "$dict" => {
                let pairs = map.next_value_seed(Pairs(self.inside(3)?))?;
                check_keys(&pairs).map_err(A::Error::custom)?;
                Ok(Value::Dict(pairs))
            }
            "$array" => map.next_value::<Stored>()?.into_value(),
            "$scalar" => map.next_value::<Stored>()?.into_scalar(),
            "$summary" => map.next_value::<StoredSummary>()?.into_value(),
            _ => Err(A::Error::custom(format_args!("the tag {tag} is unknown to this version"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Value, A::Error> {
        Items(self.inside(1)?).visit_seq(sequence).map(Value::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Some(first) = map.next_key::<String>()? else {
            self.inside::<A::Error>(1)?;
            return Ok(Value::Dict(Vec::new()));
        };
        if !first.starts_with('$') {
            return self.plain_dict(first, map);
        }
        let value = self.tagged(&first, &mut map)?;
        match map.next_key::<IgnoredAny>()? {
            None => Ok(value),
            Some(_) => {
                Err(A::Error::custom(format_args!("the tag {first} stands beside other keys")))
            }
        }
    }
}

/// The items of a list or tuple; holds what each of them is read with.
struct Items(Node);

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Value>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<Value>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(self.0)? {
            items.push(item);
        }
        Ok(items)
    }
}

/// The pairs of a dict; holds what each key and value is read with.
struct Pairs(Node);

impl<'de> DeserializeSeed<'de> for Pairs {
    type Value = Vec<(Value, Value)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(Value, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of pairs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = sequence.next_element_seed(Items(self.0))? {
            let pair: [Value; 2] = pair.try_into().map_err(|pair: Vec<Value>| {
                A::Error::custom(format_args!("a pair of a dict has {} parts, not 2", pair.len()))
            })?;
            pairs.push(pair.into());
        }
        Ok(pairs)
    }
}

/// An array as JSON has it: exactly one of `data`, `member` and `sha256`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    dtype: String,
    shape: Vec<usize>,
    data: Option<String>,
    member: Option<String>,
    sha256: Option<String>,
}

impl Stored {
    fn into_value<E: Error>(self) -> Result<Value, E> {
        let dtype = dtype(&self.dtype)?;
        let place = match (self.data, self.member, self.sha256) {
            (Some(data), None, None) => return array(dtype, self.shape, &data).map(Value::Array),
            (None, Some(member), None) => ArrayPlace::Member(member),
            (None, None, Some(digest)) => ArrayPlace::Sha256(sha256(&digest)?),
            _ => return Err(E::custom("an array has exactly one of data, member and sha256")),
        };
        dtype.array_bytes(&self.shape).map_err(E::custom)?;
        Ok(Value::ArrayRef(Box::new(ArrayRef { dtype, shape: self.shape, place })))
    }

    fn into_scalar<E: Error>(self) -> Result<Value, E> {
        match self.into_value()? {
            Value::Array(array) if array.shape().is_empty() => Ok(Value::Scalar(array)),
            _ => Err(E::custom("a scalar has no axes and holds its data")),
        }
    }
}

/// A summary as JSON has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSummary {
    kind: SummaryKind,
    length: u64,
    sha256: Option<String>,
}

impl StoredSummary {
    fn into_value<E: Error>(self) -> Result<Value, E> {
        let sha256 = self.sha256.as_deref().map(sha256).transpose()?;
        Ok(Value::Summary(Summary { kind: self.kind, length: self.length, sha256 }))
    }
}

fn array<E: Error>(dtype: Dtype, shape: Vec<usize>, data: &str) -> Result<Array, E> {
    Array::new(dtype, shape, base64(data)?).map_err(E::custom)
}

fn dtype<E: Error>(descr: &str) -> Result<Dtype, E> {
    let (dtype, _) = Dtype::parse_descr(descr).map_err(E::custom)?;
    if dtype.descr() == descr {
        Ok(dtype)
    } else {
        Err(E::custom(format_args!("arrays in JSON are {}, not {descr}", dtype.descr())))
    }
}

fn sha256<E: Error>(text: &str) -> Result<[u8; 32], E> {
    let refused = || E::custom("a sha256 is 64 hexadecimal digits");
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(refused());
    }
    let mut digest = [0; 32];
    for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = str::from_utf8(digits).map_err(|_| refused())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| refused())?;
    }
    Ok(digest)
}

fn base64<E: Error>(text: &str) -> Result<Vec<u8>, E> {
    STANDARD.decode(text).map_err(|source| E::custom(format_args!("not base64: {source}")))
}

fn float<E: Error>(text: &str) -> Result<f64, E> {
    match text {
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        _ => (text.parse().ok())
            .filter(|value: &f64| value.is_finite())
            .ok_or_else(|| E::custom(format_args!("{text} is not a float"))),
    }
}

fn complex<E: Error>(parts: Vec<Value>) -> Result<Value, E> {
    match parts.as_slice() {
        [Value::Float(re), Value::Float(im)] => Ok(Value::Complex(*re, *im)),
        _ => Err(E::custom("a complex number is a list of two floats")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{hash_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::value::NESTING_MAX;

    fn read(json: &str) -> Result<Value, serde_json::Error> {
        serde_json::from_str(json)
    }

    fn floats() -> impl Strategy<Value = f64> {
        let ugly = [f64::NAN, f64::INFINITY, -0.0, 1e16, 5e-324, f64::MAX, 0.1];
        prop_oneof![any::<u64>().prop_map(f64::from_bits), proptest::sample::select(ugly.to_vec())]
    }

    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![".*", r"\$[a-z]{0,6}", "[\0ä漢😀\"\\\\$]{0,4}", Just("$float".to_owned())]
    }

    fn arrays() -> impl Strategy<Value = Array> {
        (vec(0_usize..4, 0..4), any::<u8>()).prop_map(|(shape, fill)| {
            let bytes = vec![fill; Dtype::Int16.array_bytes(&shape).unwrap()];
            Array::new(Dtype::Int16, shape, bytes).unwrap()
        })
    }

    fn keys() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            "-?[1-9][0-9]{19,40}".prop_map(|text| Value::integer(&text).unwrap()),
            floats().prop_map(Value::Float),
            (floats(), floats()).prop_map(|(re, im)| Value::Complex(re, im)),
            texts().prop_map(Value::Text),
            vec(any::<u8>(), 0..8).prop_map(Value::Bytes),
            any::<f64>()
                .prop_map(|value| Value::Scalar(Array::from_ndarray(&ndarray::arr0(value)))),
        ];
        leaf.prop_recursive(3, 8, 4, |inner| vec(inner, 0..4).prop_map(Value::Tuple))
    }

    fn values() -> impl Strategy<Value = Value> {
        let reference =
            (any::<[u8; 32]>(), texts(), any::<bool>()).prop_map(|(hash, name, named)| {
                let place = if named { ArrayPlace::Member(name) } else { ArrayPlace::Sha256(hash) };
                Value::ArrayRef(Box::new(ArrayRef { dtype: Dtype::Bool, shape: vec![2, 3], place }))
            });
        let leaf = prop_oneof![4 => keys(), 1 => arrays().prop_map(Value::Array), 1 => reference];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..6).prop_map(Value::List),
                vec(inner.clone(), 0..6).prop_map(Value::Tuple),
                hash_map(keys(), inner.clone(), 0..6)
                    .prop_map(|pairs| Value::Dict(pairs.into_iter().collect())),
                hash_map(texts().prop_map(Value::Text), inner, 0..6)
                    .prop_map(|pairs| Value::Dict(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_comes_back_as_it_went_in(value in values()) {
            let json = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(read(&json).unwrap(), value, "{}", json);
        }

        #[test]
        fn no_text_panics(text in "[\\[\\]{}\"$a-z:,0-9.]{0,64}") {
            read(&text).ok();
        }
    }

    #[test]
    fn limits_of_integers_come_back() {
        for text in ["9223372036854775807", "-9223372036854775808", "0", "18446744073709551615"] {
            let value = Value::integer(text).unwrap();
            assert_eq!(read(text).unwrap(), value);
            assert_eq!(read(&serde_json::to_string(&value).unwrap()).unwrap(), value);
        }
    }

    #[test]
    fn the_deepest_value_of_each_kind_passes_a_json_reader() {
        type Wrap = fn(Value) -> Value;
        let wraps: [(usize, Wrap); 3] = [
            (1, |inner| Value::Dict(vec![("a".into(), inner)])),
            (2, |inner| Value::Tuple(vec![inner])),
            (3, |inner| Value::Dict(vec![(Value::Int(1), inner)])),
        ];
        for (brackets, wrap) in wraps {
            let leaf = Value::Array(Array::new(Dtype::Bool, vec![1], vec![1]).unwrap());
            let deep = (0..NESTING_MAX / brackets).fold(leaf, |inner, _| wrap(inner));
            let json = serde_json::to_string(&deep).unwrap();
            assert_eq!(read(&json).unwrap(), deep);
        }
    }

    #[test]
    fn nesting_beyond_the_limit_is_an_error() {
        let lists = "[".repeat(NESTING_MAX + 1);
        assert!(read(&lists).unwrap_err().to_string().contains("deeper than 100"));
        let tuples = r#"{"$tuple":["#.repeat(51);
        assert!(read(&tuples).unwrap_err().to_string().contains("deeper than 100"));
    }

    #[test]
    fn malformed_tags_are_errors() {
        let refused = [
            (r#"{"$new":1}"#, "the tag $new is unknown"),
            (r#"{"$int":"1","a":2}"#, "the tag $int stands beside other keys"),
            (r#"{"a":2,"$int":"1"}"#, "the tag $int stands beside other keys"),
            (r#"{"$int":"1.0"}"#, "1.0 is not an integer"),
            (r#"{"$float":"inf"}"#, "inf is not a float"),
            (r#"{"$complex":[1.0]}"#, "two floats"),
            (r#"{"$bytes":"?"}"#, "not base64"),
            (r#"{"$text":"/w=="}"#, "utf-8"),
            (r#"{"$dict":[[1]]}"#, "a pair of a dict has 1 parts"),
            (r#"{"$dict":[[[],1]]}"#, "a list cannot be the key"),
            (r#"{"a":1,"a":1}"#, "the key a appears twice"),
            (r#"{"$array":{"dtype":"<f4","shape":[2],"data":""}}"#, "needs 8 bytes"),
            (r#"{"$array":{"dtype":">f4","shape":[0],"data":""}}"#, "not >f4"),
            (r#"{"$array":{"dtype":"<f4","shape":[0]}}"#, "exactly one of"),
            (r#"{"$array":{"dtype":"<f4","shape":[0],"sha256":"00"}}"#, "64 hexadecimal"),
            (r#"{"$scalar":{"dtype":"<f4","shape":[0],"data":""}}"#, "no axes"),
            (r#"{"$summary":{"kind":"set","length":1}}"#, "unknown variant `set`"),
        ];
        for (json, reason) in refused {
            let text = read(json).unwrap_err().to_string();
            assert!(text.contains(reason), "{json}: {text}");
        }
    }
}
