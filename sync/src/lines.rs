//! Which lines must be kept whole, so that their file can be made again byte for byte?
//!
//! A record and a point of a basin come back from their rows, if this version writes them as the same
//! bytes. Every other line is rare, and is kept.

use tidelog::journal::{Batch, Content};
use tidelog::{Body, LineError, SessionId, Value};

use crate::field::Field;
use crate::rows::BatchRows;

/// Whether the rows of a line make the line again. `rewritten` is room to write it.
pub(crate) fn comes_back(content: &Content, raw: &[u8], rewritten: &mut Vec<u8>) -> bool {
    let Content::Entry(entry) = content else { return false };
    let has_rows = match &entry.body {
        Body::Record(record) => record.telemetry.extra.values().all(survives_jsonb),
        Body::Basin(_) => true,
        _ => false,
    };
    if !has_rows {
        return false;
    }
    rewritten.clear();
    entry.write_line(rewritten).is_ok() && rewritten.strip_suffix(b"\n") == Some(raw)
}

/// Whether `jsonb` keeps a value as it is: all but the order of keys, which it sorts by their length
/// first.
fn survives_jsonb(value: &Value) -> bool {
    match value {
        Value::List(items) | Value::Tuple(items) => items.iter().all(survives_jsonb),
        Value::Dict(entries) => {
            let is_sorted = entries.is_sorted_by(|(a, _), (b, _)| match (a, b) {
                (Value::Text(a), Value::Text(b)) => (a.len(), a) < (b.len(), b),
                _ => false,
            });
            is_sorted && entries.iter().all(|(_, value)| survives_jsonb(value))
        }
        _ => true,
    }
}

/// The session that a line names, which may stand in a segment that belongs to none.
pub(crate) fn named_session(content: &Content) -> Option<&SessionId> {
    let Content::Entry(entry) = content else { return None };
    match &entry.body {
        Body::Emergency(emergency) => emergency.session_id.as_ref(),
        Body::CheckpointCreated(created) => created.session_id.as_ref(),
        Body::SessionEnded(ended) => ended.of.as_ref().map(|part| &part.session_id),
        _ => None,
    }
}

impl BatchRows {
    /// Keeps a line whole. Of one that is too long only the beginning is at hand, and no file is made
    /// of that.
    pub(crate) fn keep(&mut self, line_no: i32, content: &Content, raw: &[u8]) {
        if !matches!(content, Content::Invalid(LineError::TooLong { .. })) {
            let session = self.session_of_content(content);
            self.push_kept(line_no, session, raw);
        }
    }

    /// Keeps line 0, which comes with the first batch.
    pub(crate) fn keep_header(&mut self, batch: &Batch) {
        if let Some(header) = batch.header() {
            let session = self.place.session.as_ref().map(ToString::to_string);
            self.push_kept(0, session.map_or(Field::Null, Field::Text), header);
        }
    }

    fn push_kept(&mut self, line_no: i32, session: Field, raw: &[u8]) {
        let segment_no = self.place.segment_no.into();
        self.kept.push([segment_no, line_no.into(), session, Field::Bytes(raw.to_vec())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_order_of_keys_is_lost_in_jsonb() {
        let dict = |keys: [&str; 2]| Value::Dict(keys.map(|key| (key.into(), Value::Null)).into());
        assert!(survives_jsonb(&Value::List(vec![dict(["b", "aa"]), Value::Float(-0.0)])));
        for keys in [["aa", "b"], ["b", "a"]] {
            assert!(!survives_jsonb(&Value::Tuple(vec![dict(keys)])), "{keys:?}");
        }
    }
}
