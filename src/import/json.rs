//! JSON as Python's `json` module writes it.
//!
//! Beyond JSON that is the bare words `NaN`, `Infinity` and `-Infinity`, and integers of any size.
//! A text is never taken for one of these words, nor a word for a text.

use crate::LINE_VALUES_MAX;
use crate::entry::line::count_values;
use crate::value::{Value, check_keys};

/// Deepest nesting that is read; the parser calls itself this often at most.
const DEPTH_MAX: usize = 128;

/// Reads one value; the text holds nothing else.
///
/// # Errors
/// Why it is none, with the byte where reading stopped, counted from 0.
pub(super) fn parse(text: &[u8]) -> Result<Value, String> {
    if text.len() > LINE_VALUES_MAX && count_values(text) > LINE_VALUES_MAX {
        return Err(format!("holds more than {LINE_VALUES_MAX} values"));
    }
    let text = std::str::from_utf8(text)
        .map_err(|error| format!("is not UTF-8 at byte {}", error.valid_up_to()))?;
    // some editors begin a file with a byte order mark
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut input = Input { text, at: 0 };
    let parsed = input.value(0).and_then(|value| match input.peek() {
        None => Ok(value),
        Some(_) => Err("something follows its end".into()),
    });
    parsed.map_err(|reason| format!("is not JSON: {reason} at byte {}", input.at))
}

struct Input<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Input<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.rest().bytes().next()
    }

    /// Goes past this byte if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.take(byte) { Ok(()) } else { Err(format!("{:?} is missing", char::from(byte))) }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX} levels"));
        }
        match self.peek() {
            Some(b'{') => self.dict(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.text().map(Value::Text),
            Some(b'-' | b'0'..=b'9') if !self.rest().starts_with("-I") => self.number(),
            Some(_) => self.word(),
            None => Err("it ends early".into()),
        }
    }

    fn dict(&mut self, depth: usize) -> Result<Value, String> {
        self.expect(b'{')?;
        let mut pairs = Vec::new();
        while !self.take(b'}') {
            if !pairs.is_empty() {
                self.expect(b',')?;
            }
            self.peek();
            let key = self.text()?;
            self.expect(b':')?;
            pairs.push((Value::Text(key), self.value(depth + 1)?));
        }
        check_keys(&pairs).map_err(|error| error.to_string())?;
        Ok(Value::Dict(pairs))
    }

    fn list(&mut self, depth: usize) -> Result<Value, String> {
        self.expect(b'[')?;
        let mut items = Vec::new();
        while !self.take(b']') {
            if !items.is_empty() {
                self.expect(b',')?;
            }
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::List(items))
    }

    fn text(&mut self) -> Result<String, String> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.bytes().enumerate().skip(1).find(|(_, byte)| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        });
        let literal = end.and_then(|(at, _)| rest.get(..=at)).filter(|text| text.starts_with('"'));
        let literal = literal.ok_or("a text is missing or has no end")?;
        let text = serde_json::from_str(literal).map_err(|error| format!("a text: {error}"))?;
        self.at += literal.len();
        Ok(text)
    }

    fn number(&mut self) -> Result<Value, String> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_digit() && !"+-.eE".contains(c));
        let literal = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let digits = literal.strip_prefix('-').unwrap_or(literal);
        // a zero with a sign is a float: no integer has one
        let is_integer = literal != "-0" && digits.bytes().all(|byte| byte.is_ascii_digit());
        if digits.len() > 1 && digits.starts_with('0') && is_integer {
            return Err(format!("{literal} begins with 0"));
        }
        let number = if is_integer {
            Value::integer(literal).map_err(|error| error.to_string())?
        } else {
            Value::Float(serde_json::from_str(literal).map_err(|_| "a number is malformed")?)
        };
        self.at += literal.len();
        Ok(number)
    }

    fn word(&mut self) -> Result<Value, String> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let word = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let value = match word {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "NaN" => Value::Float(f64::NAN),
            "Infinity" => Value::Float(f64::INFINITY),
            "-Infinity" => Value::Float(f64::NEG_INFINITY),
            _ => return Err("there is no value".into()),
        };
        self.at += word.len();
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bare_words_of_python_are_floats_and_texts_stay_texts() {
        let value = parse(br#"[NaN, Infinity, -Infinity, "NaN", ", Infinity"]"#).unwrap();
        let floats = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(Value::Float);
        let texts = ["NaN", ", Infinity"].map(Value::from);
        assert_eq!(value, Value::List(floats.into_iter().chain(texts).collect()));
    }

    #[test]
    fn integers_keep_every_digit_and_floats_every_bit() {
        let value = parse(b"[18446744073709551617, -0.0, 1e2, 0.1, 5e-324]").unwrap();
        let floats = [-0.0, 100.0, 0.1, 5e-324].map(Value::Float);
        let big = Value::integer("18446744073709551617").unwrap();
        assert_eq!(value, Value::List([big].into_iter().chain(floats).collect()));
    }

    #[test]
    fn texts_are_read_with_their_escapes() {
        let value = parse(br#" {"a\"\\": "\u00e9\n\ud83d\ude00\u0000"} "#).unwrap();
        let expected = Value::Dict(vec![("a\"\\".into(), "é\n😀\0".into())]);
        assert_eq!(value, expected);
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        for (text, part) in [
            (&b""[..], "ends early at byte 0"),
            (b"{\"a\": 1", "'}'"),
            (b"[1,]", "no value at byte 3"),
            (b"[1 2]", "',' is missing at byte 3"),
            (b"{\"a\":1,\"a\":2}", "appears twice"),
            (b"nan", "no value"),
            (b"-", "not an integer"),
            (b"1.e5", "malformed"),
            (b"1e999", "malformed"),
            (b"01", "begins with 0"),
            (b"\"abc", "no end"),
            (b"\"\\ud800\"", "a text: "),
            (b"{}x", "follows its end at byte 2"),
            (b"\xff", "not UTF-8 at byte 0"),
        ] {
            let reason = parse(text).unwrap_err();
            assert!(reason.contains(part) || part == "'}'" && reason.contains("','"), "{reason}");
        }
    }

    #[test]
    fn values_are_limited() {
        let zeros = format!("[{}0]", "0,".repeat(LINE_VALUES_MAX));
        let reason = parse(zeros.as_bytes()).unwrap_err();
        assert_eq!(reason, "holds more than 1048576 values");
    }

    #[test]
    fn depth_is_limited() {
        assert!(parse("[".repeat(1_000_000).as_bytes()).unwrap_err().contains("deeper than 128"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"[\[\]{}":,\\ NaInfity0-9.eE+u\-é]{0,40}"#) {
            parse(text.as_bytes()).ok();
        }

        #[test]
        fn what_is_json_is_read_as_serde_reads_it(text in r#"(\[|\{)?(-?[0-9]{1,3}(\.[0-9]{1,2})?|"[a-z\\]{0,3}"|null)(,1)?\]?"#) {
            let expected: Option<Value> = serde_json::from_str(&text).ok();
            prop_assert_eq!(parse(text.as_bytes()).ok(), expected);
        }
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        assert_eq!(parse("\u{feff}[1]".as_bytes()).unwrap(), Value::List(vec![Value::Int(1)]));
    }
}
