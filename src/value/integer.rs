//! Integers that do not fit 64 bits, as Python has them.

use super::{Value, ValueError};

/// Most decimal digits of an integer; Python's own limit for printing one.
pub const DIGITS_MAX: usize = 4_300;

/// An integer outside the range of `i64`, in decimal without leading zeros.
///
/// [`Value::integer`] makes one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BigInt(String);

impl BigInt {
    /// Returns the integer in decimal.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value {
    /// Parses a decimal integer of any size: an optional `-`, then digits.
    ///
    /// Gives [`Value::Int`] when it fits, else [`Value::BigInt`].
    ///
    /// # Errors
    /// [`ValueError::Integer`] for other texts, [`ValueError::Digits`] over [`DIGITS_MAX`].
    pub fn integer(text: &str) -> Result<Self, ValueError> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", text),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ValueError::Integer { text: text.chars().take(64).collect() });
        }
        if digits.len() > DIGITS_MAX {
            return Err(ValueError::Digits { digits: digits.len() });
        }
        Ok(match text.parse() {
            Ok(small) => Self::Int(small),
            Err(_) => Self::BigInt(BigInt(format!("{sign}{}", digits.trim_start_matches('0')))),
        })
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        match i64::try_from(value) {
            Ok(small) => Self::Int(small),
            Err(_) => Self::BigInt(BigInt(value.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_fitting_kind_is_chosen() {
        assert_eq!(Value::integer("-9223372036854775808").unwrap(), Value::Int(i64::MIN));
        assert_eq!(Value::integer("0007").unwrap(), Value::Int(7));
        let big = Value::integer("-0009223372036854775809").unwrap();
        assert!(matches!(big, Value::BigInt(big) if big.as_str() == "-9223372036854775809"));
        assert_eq!(Value::from(u64::MAX), Value::integer("18446744073709551615").unwrap());
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "-", "+1", "1.0", "1e3", " 1", "١", "0x10", "--1"] {
            assert!(Value::integer(text).is_err(), "{text}");
        }
        let text = Value::integer(&"9".repeat(4_301)).unwrap_err().to_string();
        assert_eq!(text, "an integer of 4301 digits is over the limit of 4300");
    }
}
