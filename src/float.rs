//! Named number fields as JSON: JSON has no NaN and no infinities, so these three are the texts
//! `"NaN"`, `"Infinity"` and `"-Infinity"`. Every other f64 is a JSON number that reads back
//! bit for bit; the bits inside a NaN are not kept.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// An f64 that keeps NaN and the infinities through JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Float(pub(crate) f64);

/// The text of a number that JSON cannot hold.
pub(crate) fn non_finite_text(number: f64) -> Option<&'static str> {
    if number.is_nan() {
        Some("NaN")
    } else if number.is_infinite() {
        Some(if number > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        None
    }
}

/// Appends the number, as [`Float`] is written.
pub(crate) fn write(number: f64, buffer: &mut Vec<u8>) {
    match non_finite_text(number) {
        None => push_digits(zmij::Buffer::new().format_finite(number).as_bytes(), buffer),
        Some(text) => {
            buffer.push(b'"');
            buffer.extend_from_slice(text.as_bytes());
            buffer.push(b'"');
        }
    }
}

/// Most numbers have 16 to 24 characters: the first 16 and the last 16, which overlap, are two copies
/// of known length, in less time than a call that copies any length.
fn push_digits(digits: &[u8], buffer: &mut Vec<u8>) {
    match (digits.first_chunk::<16>(), digits.last_chunk::<16>()) {
        (Some(first), Some(last)) if digits.len() <= 32 => {
            let end = buffer.len() + digits.len();
            buffer.extend_from_slice(first);
            buffer.truncate(end - 16);
            buffer.extend_from_slice(last);
        }
        _ => buffer.extend_from_slice(digits),
    }
}

/// The number of such a text.
pub(crate) fn non_finite_from_text(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// An integer as f64, if no digit is lost.
pub(crate) fn exact_from_integer(integer: i64) -> Option<f64> {
    const EXACT_MAX: u64 = 1 << 53;
    #[expect(clippy::cast_precision_loss, reason = "checked to be exact")]
    (integer.unsigned_abs() <= EXACT_MAX).then_some(integer as f64)
}

impl Serialize for Float {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match non_finite_text(self.0) {
            Some(text) => serializer.serialize_str(text),
            None => serializer.serialize_f64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Float;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Float, E> {
                Ok(Float(number))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Float, E> {
                exact_from_integer(number).map(Float).ok_or_else(|| {
                    E::custom(format_args!("integer {number} does not fit a float exactly"))
                })
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Float, E> {
                match i64::try_from(number) {
                    Ok(number) => self.visit_i64(number),
                    Err(_) => Err(E::custom(format_args!(
                        "integer {number} does not fit a float exactly"
                    ))),
                }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Float, E> {
                non_finite_from_text(text)
                    .map(Float)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// For `#[serde(deserialize_with = "float::optional")]`.
pub(crate) fn optional<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<f64>, D::Error> {
    Ok(Option::<Float>::deserialize(deserializer)?.map(|number| number.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(number: f64) -> f64 {
        let text = serde_json::to_string(&Float(number)).unwrap();
        serde_json::from_str::<Float>(&text).unwrap().0
    }

    #[test]
    fn ugly_floats_round_trip_bit_for_bit() {
        for number in [-0.0, 5e-324, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, 0.1 + 0.2] {
            assert_eq!(round_trip(number).to_bits(), number.to_bits(), "{number}");
        }
        assert!(round_trip(f64::NAN).is_nan());
    }

    #[test]
    fn an_integer_that_a_float_cannot_hold_is_refused() {
        let error = serde_json::from_str::<Float>("9007199254740993").unwrap_err();
        assert!(error.to_string().contains("9007199254740993"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn every_bit_pattern_round_trips(bits: u64) {
            let number = f64::from_bits(bits);
            let back = round_trip(number);
            proptest::prop_assert!(back.to_bits() == bits || (back.is_nan() && number.is_nan()));
        }
    }
}
