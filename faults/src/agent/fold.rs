//! What several lines say about one session or one checkpoint, folded.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::content::{Content, at, row_text};

/// Parts of sessions, by their segments.
#[derive(Debug, Default)]
pub(super) struct Parts(BTreeMap<String, Part>);

#[derive(Debug, Default)]
struct Part {
    session: String,
    attempt: Option<i64>,
    started_at: Option<String>,
    /// Whether its writer went on elsewhere, when it ended, and how.
    end: Option<(bool, String, String)>,
}

impl Parts {
    /// A segment of a session has lines.
    pub(super) fn begin(&mut self, segment: &str, session: &str, attempt: Option<i64>) {
        let part = self.0.entry(segment.to_owned()).or_default();
        part.session = session.to_owned();
        part.attempt = attempt;
    }

    pub(super) fn start(&mut self, segment: &str, time: &Value) {
        let part = self.0.entry(segment.to_owned()).or_default();
        part.started_at.get_or_insert_with(|| text(time));
    }

    /// The end of its own part, or of another segment's, which the line then names.
    pub(super) fn end(&mut self, segment: &str, session: &Value, line: &Value) {
        let of = at(line, "segment").as_str().unwrap_or(segment);
        let part = self.0.entry(of.to_owned()).or_default();
        if part.session.is_empty() {
            part.session =
                text(if at(line, "segment").is_null() { session } else { at(line, "session_id") });
        }
        let status = text(at(line, "status"));
        let end = (status == "continued", text(at(line, "timestamp")), status);
        part.end = part.end.take().max(Some(end));
    }

    /// One row a session: earliest start, active while any part is, else as the last part ended.
    pub(super) fn fold(&self, content: &mut Content) {
        let mut sessions: BTreeMap<&str, Vec<(&String, &Part)>> = BTreeMap::new();
        for (segment, part) in &self.0 {
            sessions.entry(&part.session).or_default().push((segment, part));
        }
        for (session, parts) in sessions {
            let ends: Option<Vec<_>> = parts
                .iter()
                .map(|(id, part)| Some((part.end.as_ref()?, part.attempt, id)))
                .collect();
            let (ended_at, status) = match &ends {
                None => (None, "active"),
                Some(ends) => {
                    let own = ends.iter().filter(|((is_continued, ..), ..)| !is_continued);
                    let last = own.max_by_key(|((_, time, _), attempt, id)| (time, attempt, id));
                    let status = last.map_or("aborted", |((_, _, status), ..)| status.as_str());
                    (ends.iter().map(|((_, time, _), ..)| time).max(), status)
                }
            };
            let started_at = parts.iter().filter_map(|(_, part)| part.started_at.as_ref()).min();
            let row = json!({ "started_at": started_at, "ended_at": ended_at, "status": status });
            content.folded.insert(format!("session {session}"), row_text(&row));
        }
    }
}

/// Checkpoints of stores: the newest creation of an id, and its newest pruning.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    created: BTreeMap<(String, String), (String, String, Value)>,
    pruned: BTreeMap<(String, String), String>,
}

impl Checkpoints {
    pub(super) fn create(
        &mut self,
        store: &str,
        id: &str,
        time: &Value,
        session: &Value,
        created: &Value,
    ) {
        let row = json!({ "session_id": session, "created_at": time, "phi": at(created, "phi"),
            "file": at(created, "file"), "size_bytes": at(created, "size_bytes"),
            "sha256": at(created, "sha256"), "state_dict": at(created, "state_dict") });
        let new = (text(time), text(at(created, "sha256")), row);
        let key = (store.to_owned(), id.to_owned());
        let is_older = |old: &(String, String, Value)| (&old.0, &old.1) < (&new.0, &new.1);
        if self.created.get(&key).is_none_or(is_older) {
            self.created.insert(key, new);
        }
    }

    pub(super) fn prune(&mut self, store: &str, id: &str, time: &Value) {
        let last = self.pruned.entry((store.to_owned(), id.to_owned())).or_default();
        *last = text(time).max(std::mem::take(last));
    }

    pub(super) fn fold(self, content: &mut Content) {
        for ((store, id), (created_at, _, mut row)) in self.created {
            let key = (store, id);
            let is_pruned = self.pruned.get(&key).is_some_and(|time| *time >= created_at);
            if let Some(row) = row.as_object_mut() {
                let state = if is_pruned { "pruned".into() } else { "present".into() };
                row.insert("state".into(), state);
            }
            let (store, id) = key;
            content.folded.insert(format!("checkpoint {id} of {store}"), row_text(&row));
        }
    }
}

/// Times of tidelog's own lines all have one length, so that their texts are in order.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
