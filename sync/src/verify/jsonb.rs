//! JSON as `jsonb` prints it: keys sorted by length, then bytes; numbers without exponent; a space
//! after colons and commas.

use serde_json::{Map, Number, Value};

/// The text that PostgreSQL gives back for this JSON. What is no JSON stays as it is.
pub(super) fn canonical(json: &str) -> String {
    let Ok(value) = serde_json::from_str(json) else { return json.to_owned() };
    let mut out = String::with_capacity(json.len() + json.len() / 8);
    write(&value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&plain(number)),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => write_object(map, out),
    }
}

fn write_object(map: &Map<String, Value>, out: &mut String) {
    let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
    pairs.sort_by_key(|(key, _)| (key.len(), *key));
    out.push('{');
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        out.push_str(if index > 0 { ", " } else { "" });
        write_text(key, out);
        out.push_str(": ");
        write(value, out);
    }
    out.push('}');
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '.. => out.push(character),
            control => out.push_str(&format!("\\u{:04x}", u32::from(control))),
        }
    }
    out.push('"');
}

/// A number as `numeric` prints it: every digit that was written, none in an exponent.
fn plain(number: &Number) -> String {
    let text = number.to_string();
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else { return without_sign(text) };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let point = i32::try_from(whole.len()).unwrap_or_default() + exponent;
    let length = i32::try_from(digits.len()).unwrap_or_default();
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
    let moved = if point <= 0 {
        format!("0.{}{digits}", zeros(-point))
    } else if point >= length {
        format!("{digits}{}", zeros(point - length))
    } else {
        let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or_default());
        format!("{whole}.{fraction}")
    };
    without_sign(format!("{sign}{moved}"))
}

/// `numeric` has no negative zero.
fn without_sign(text: String) -> String {
    match text.strip_prefix('-') {
        Some(zero) if zero.bytes().all(|byte| matches!(byte, b'0' | b'.')) => zero.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_as_postgresql_prints_it() {
        for (json, expected) in [
            (
                r#"{"bb":1e-7,"a":[1.5,-0.0],"c":{}}"#,
                r#"{"a": [1.5, 0.0], "c": {}, "bb": 0.0000001}"#,
            ),
            (r#"[0.1,1.25e-3,123456789012345.0,-7]"#, "[0.1, 0.00125, 123456789012345.0, -7]"),
            ("\"\\u0001\\u007fé\\n\\/\"", "\"\\u0001\u{7f}é\\n/\""),
            ("[1.5e20,1e16]", "[150000000000000000000, 10000000000000000]"),
            ("{\"k\":1,\"k\":2}", "{\"k\": 2}"),
        ] {
            assert_eq!(canonical(json), expected);
        }
    }
}
