//! Integers of any size, as a pickle has them: little-endian, two's complement.

use crate::value::{Value, ValueError};

/// Most bytes of an integer; more have more digits than [`Value::integer`] takes.
const BYTES_MAX: usize = 1_787;

/// Returns the integer; no bytes are zero.
pub(super) fn from_le_bytes(bytes: &[u8]) -> Result<Value, ValueError> {
    if bytes.len() > BYTES_MAX {
        return Err(ValueError::Digits { digits: bytes.len().saturating_mul(12) / 5 });
    }
    let is_negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let magnitude = if is_negative { negated(bytes) } else { bytes.to_vec() };
    let sign = if is_negative { "-" } else { "" };
    Value::integer(&format!("{sign}{}", decimal(&magnitude)))
}

/// Two's complement of a negative number: what it is without its sign.
fn negated(bytes: &[u8]) -> Vec<u8> {
    let mut carry = true;
    let negate = |byte: &u8| {
        let (byte, overflow) = (!byte).overflowing_add(u8::from(carry));
        carry = overflow;
        byte
    };
    bytes.iter().map(negate).collect()
}

/// Decimal digits of little-endian bytes, by dividing by ten to the ninth again and again.
fn decimal(magnitude: &[u8]) -> String {
    const GROUP: u64 = 1_000_000_000;
    let mut number = magnitude.to_vec();
    let mut groups = Vec::new();
    while number.iter().any(|&byte| byte != 0) {
        let mut remainder = 0;
        for byte in number.iter_mut().rev() {
            let part = (remainder << 8) | u64::from(*byte);
            // Less than 256, because the remainder is less than the divisor.
            *byte = (part / GROUP).to_le_bytes()[0];
            remainder = part % GROUP;
        }
        groups.push(remainder);
    }
    let Some(first) = groups.pop() else { return "0".to_owned() };
    let rest = groups.iter().rev().map(|group| format!("{group:09}"));
    std::iter::once(first.to_string()).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_any_size_are_decimal() {
        let check = |bytes: &[u8], text: &str| {
            assert_eq!(from_le_bytes(bytes).unwrap(), Value::integer(text).unwrap(), "{bytes:?}");
        };
        check(&[], "0");
        check(&[0xff], "-1");
        check(&[0x80], "-128");
        check(&[0xff, 0x00], "255");
        check(&[0, 0, 0, 0, 0, 0, 0, 0x80], "-9223372036854775808");
        check(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0], "9223372036854775808");
        check(&[0, 0, 0, 0, 0, 0, 0, 0, 0x40], "1180591620717411303424");
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff], "-9223372036854775809");
        check(&[0, 0xca, 0x9a, 0x3b, 0], "1000000000");
    }

    #[test]
    fn an_integer_over_the_limit_is_refused() {
        let text = from_le_bytes(&[1; BYTES_MAX + 1]).unwrap_err().to_string();
        assert!(text.contains("over the limit of 4300"), "{text}");
        assert!(from_le_bytes(&[0x7f; BYTES_MAX]).is_err());
        assert!(from_le_bytes(&[0x7f; 1_780]).is_ok());
    }
}
