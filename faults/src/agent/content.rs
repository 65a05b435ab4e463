//! What a replica is to hold, and holds, in a form in which both sides can be compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use tidelog::Timestamp;

/// A line: the segment's id and the line's number.
pub(crate) type Place = (String, i64);

/// Rows by their keys; the rows are texts in one form, whoever wrote them.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Rows that belong to one line, with the name of their table.
    pub(crate) rows: BTreeMap<(Place, &'static str), String>,
    /// Folded rows: a session, or a checkpoint of a store.
    pub(crate) folded: BTreeMap<String, String>,
    /// The next line of each segment that has any but its header.
    pub(crate) cursors: BTreeMap<String, i64>,
}

/// Most differences that are told.
const TOLD_MAX: usize = 12;
/// So much of a row is shown.
const SHOWN_CHARS: usize = 300;

impl Content {
    /// Every way in which the replica is not what the files say; empty if it is.
    pub(crate) fn differences(&self, replica: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        compare(&self.rows, &replica.rows, &mut differences);
        compare(&self.folded, &replica.folded, &mut differences);
        compare(&self.cursors, &replica.cursors, &mut differences);
        let more = differences.len().saturating_sub(TOLD_MAX);
        differences.truncate(TOLD_MAX);
        if more > 0 {
            differences.push(format!("and {more} more differences"));
        }
        differences
    }
}

fn compare<K: Ord + std::fmt::Debug, V: PartialEq + ToString>(
    files: &BTreeMap<K, V>,
    replica: &BTreeMap<K, V>,
    differences: &mut Vec<String>,
) {
    for (key, row) in files {
        match replica.get(key) {
            None => differences.push(format!("missing: {key:?} {}", shown(row))),
            Some(other) if other != row => differences.push(format!(
                "different: {key:?}: files {}, replica {}",
                shown(row),
                shown(other)
            )),
            Some(_) => {}
        }
    }
    let unknown = replica.iter().filter(|(key, _)| !files.contains_key(key));
    differences.extend(unknown.map(|(key, row)| format!("too much: {key:?} {}", shown(row))));
}

fn shown(row: &impl ToString) -> String {
    row.to_string().chars().take(SHOWN_CHARS).collect()
}

/// A member of a JSON object; null, if there is none.
pub(crate) fn at<'v>(value: &'v Value, key: &str) -> &'v Value {
    value.get(key).unwrap_or(&Value::Null)
}

/// A row as text: keys in order, nulls left out, numbers by their value and times by their moment.
pub(crate) fn row_text(row: &Value) -> String {
    let mut text = String::new();
    write_value(row, &mut text);
    text
}

fn write_value(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().filter(|(_, value)| !value.is_null()).collect();
            text.push('{');
            for (key, value) in sorted {
                write!(text, "{key:?}:").ok(); // a String takes everything
                write_value(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for value in values {
                write_value(value, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Number(number) => text.push_str(&number_text(number)),
        Value::String(string) => text.push_str(&moment(string).unwrap_or(format!("{string:?}"))),
        other => text.push_str(&other.to_string()),
    }
}

/// 64 and 64.0 are one number, whatever column it was in.
fn number_text(number: &serde_json::Number) -> String {
    match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => whole.to_string(),
        (None, Some(float)) if float.fract() == 0.0 && float.abs() < 1e15 => format!("{float:.0}"),
        (None, Some(float)) => format!("{float:?}"),
        (None, None) => number.to_string(),
    }
}

/// `2026-01-05T09:30:00.5+00:00` and `2026-01-05T09:30:00.500000Z` are one moment.
fn moment(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    if bytes.get(4) != Some(&b'-') || bytes.get(10) != Some(&b'T') {
        return None;
    }
    let zulu = text.replace("+00:00", "Z");
    zulu.parse().ok().map(|time: Timestamp| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        row_text(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn one_row_is_one_text_whoever_wrote_it() {
        assert_eq!(
            text(r#"{"b":64.0,"a":"2026-01-05T09:30:00.5+00:00","c":null}"#),
            text(r#"{"a":"2026-01-05T09:30:00.500000Z","b":64}"#)
        );
        assert_ne!(text(r#"{"a":0.1}"#), text(r#"{"a":0.10000000000000002}"#));
        assert_ne!(text(r#"{"a":"1"}"#), text(r#"{"a":1}"#));
    }

    #[test]
    fn what_is_missing_too_much_or_different_is_told() {
        let content = |keys: &[(&str, &str)]| Content {
            folded: keys.iter().map(|(key, row)| ((*key).into(), (*row).into())).collect(),
            ..Content::default()
        };
        let files = content(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let told = files.differences(&content(&[("b", "2"), ("c", "1"), ("d", "1")]));
        let words: Vec<&str> = told.iter().filter_map(|text| text.split(':').next()).collect();
        assert_eq!(words, ["missing", "different", "too much"]);
        assert!(files.differences(&files).is_empty());
    }
}
