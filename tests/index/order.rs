//! Whichever segment is read first, the rows are the same.

use super::*;

const START: &str = r#"{"timestamp":"2026-01-05T09:30:00Z","event":"session_started","attempt":1}"#;
/// Ends segment 1, which its writer continues elsewhere.
const CONTINUED: &str = r#"{"timestamp":"2026-01-05T09:40:00Z","event":"session_ended","status":"continued","session_id":"run-7","segment":"6f2a3b1c-0000-4000-8000-000000000001"}"#;
const GAP: &str = r#"{"timestamp":"2026-01-05T09:41:00Z","event":"gap","gap":{"records":3,"first_step":7,"last_step":9,"since":"2026-01-05T09:40:30Z"},"reason":"no space left on device"}"#;

const CREATED: &str = r#"{"timestamp":"2026-01-05T09:31:00Z","event":"checkpoint_created","checkpoint":{"checkpoint_id":"c-1","phi":0.7,"file":"c-1.npz","size_bytes":1,"sha256":"00","state_dict":null}}"#;
const PRUNED: &str =
    r#"{"timestamp":"2026-01-05T09:32:00Z","event":"checkpoint_pruned","checkpoint_id":"c-1"}"#;
const DELETED: &str =
    r#"{"timestamp":"2026-01-05T09:33:00Z","event":"session_deleted","session_id":"run-7"}"#;

/// What two segments give, read together and one after the other in both orders.
fn in_any_order(first: (u32, &str, &[&str]), second: (u32, &str, &[&str])) -> [Dump; 2] {
    [[first, second], [second, first]].map(|order| {
        let store = TestStore::new();
        for (number, session, lines) in order {
            add_segment(&store.root(), number, session, lines);
            store.store().refresh_index(&mut |_| {}).unwrap();
        }
        let mut dump = dump(&store.root());
        let segments = dump.remove("index_segments").unwrap();
        assert_eq!(segments.len(), 2);
        for rows in dump.values_mut().flatten() {
            rows.retain(|value| *value != SqlValue::Integer(1) && *value != SqlValue::Integer(2));
        }
        dump
    })
}

#[test]
fn an_end_may_be_read_before_its_start() {
    let store = TestStore::new();
    let end = r#"{"timestamp":"2026-01-05T10:00:00Z","event":"session_ended","status":"aborted","session_id":"run-7","segment":"6f2a3b1c-0000-4000-8000-000000000007"}"#;
    add_segment(&store.root(), 1, "null", &[end]);
    store.store().refresh_index(&mut |_| {}).unwrap();
    add_segment(&store.root(), 7, "\"run-7\"", &[START]);
    let row = store.store().sessions().unwrap().remove(0);
    assert_eq!((row.status.as_str(), row.attempts), ("aborted", 1));
    let stats = store.store().get_session_stats(&row.session_id).unwrap();
    assert_eq!(stats.duration_seconds, Some(1800.0));
}

#[test]
fn the_header_of_a_part_tells_its_session_in_any_order() {
    let end = r#"{"timestamp":"2026-01-05T10:00:00Z","event":"session_ended","status":"aborted","session_id":"other","segment":"6f2a3b1c-0000-4000-8000-000000000001"}"#;
    let [one, other] = in_any_order((1, "\"run-7\"", &[START]), (2, "null", &[end]));
    assert_eq!(one, other);
    assert_eq!(one["telemetry_sessions"].len(), 1);
    assert_eq!(one["telemetry_sessions"][0][0], SqlValue::Text("run-7".into()));
}

#[test]
fn of_two_ends_of_one_part_the_later_counts() {
    let failed =
        r#"{"timestamp":"2026-01-05T10:00:00Z","event":"session_ended","status":"failed"}"#;
    let aborted = failed.replace("10:00", "09:59").replace("failed", "aborted");
    let store = TestStore::new();
    add_segment(&store.root(), 1, "\"one\"", &[START, failed, &aborted]);
    add_segment(&store.root(), 2, "\"two\"", &[START, &aborted, failed]);
    let rows = store.store().sessions().unwrap();
    assert!(rows.iter().all(|row| row.status == "failed"), "{rows:?}");
}

#[test]
fn a_pruned_checkpoint_stays_pruned_in_any_order() {
    let [one, other] = in_any_order((1, "\"run-7\"", &[CREATED]), (2, "null", &[PRUNED]));
    assert_eq!(one["checkpoints"], other["checkpoints"]);
    assert!(one["checkpoints"][0].contains(&SqlValue::Text("pruned".into())));
}

#[test]
fn a_checkpoint_is_pruned_although_the_clock_went_back() {
    let store = TestStore::new();
    let created = CREATED.replace("2026", "9000");
    add_segment(&store.root(), 1, "\"run-7\"", &[&created]);
    store.store().prune_checkpoint(&CheckpointId::new("c-1").unwrap()).unwrap();
    let row = store.store().list_checkpoints(1).unwrap().remove(0);
    assert!(row.is_pruned(), "{row:?}");
}

#[test]
fn a_checkpoint_saved_again_after_pruning_is_present() {
    let again = CREATED.replace("09:31", "09:40").replace("0.7", "0.9");
    let first = (1, "\"run-7\"", &[CREATED][..]);
    let [one, other] = in_any_order(first, (2, "null", &[PRUNED, &again]));
    assert_eq!(one["checkpoints"], other["checkpoints"]);
    assert!(one["checkpoints"][0].contains(&SqlValue::Text("present".into())));
    assert!(one["checkpoints"][0].contains(&SqlValue::Real(0.9)));
}

#[test]
fn a_deleted_session_does_not_come_back_in_any_order() {
    let session = (1, "\"run-7\"", &[START, RECORD, CREATED][..]);
    let [one, other] = in_any_order(session, (2, "null", &[DELETED]));
    assert_eq!(one, other);
    for gone in ["telemetry_sessions", "telemetry_records", "checkpoints", "session_parts"] {
        assert!(one[gone].is_empty(), "{gone}");
    }
    assert_eq!(one["checkpoint_history"].len(), 1);
}

/// Minutes of a part's end and how it ended; none while it is active.
type End = Option<(u32, &'static str)>;

fn end() -> impl Strategy<Value = End> {
    let words = vec!["completed", "failed", "aborted", "continued", "continued"];
    prop::option::weighted(0.9, (40..45_u32, prop::sample::select(words)))
}

/// The rule in other words than those of the fold.
fn expected_status(ends: &[End]) -> &'static str {
    let Some(ends) = ends.iter().copied().collect::<Option<Vec<_>>>() else { return "active" };
    let ends = ends.into_iter().enumerate().filter(|(_, end)| end.1 != "continued");
    ends.max_by_key(|(no, end)| (end.0, *no)).map_or("aborted", |(_, end)| end.1)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_continued_part_is_over_and_never_tells_how_the_session_ended(
        ends in prop::collection::vec(end(), 1..5),
        first in any::<prop::sample::Index>(),
    ) {
        let store = TestStore::new();
        let first = first.index(ends.len());
        for no in (first..ends.len()).chain(0..first) {
            let end = ends[no].map(|(minute, word)| {
                CONTINUED.replace("09:40", &format!("09:{minute}")).replace("continued", word)
                    .replace("000000000001", &format!("{no:012}"))
            });
            // every other part is ended by another segment
            let (own, other): (Vec<_>, Vec<_>) = end.iter().map(String::as_str).partition(|_| no % 2 == 0);
            add_segment(&store.root(), 90 + u32::try_from(no).unwrap(), "null", &other);
            store.store().refresh_index(&mut |_| {}).unwrap();
            add_segment(&store.root(), u32::try_from(no).unwrap(), "\"run-7\"", &[&[START][..], &own].concat());
            store.store().refresh_index(&mut |_| {}).unwrap();
        }
        let row = store.store().sessions().unwrap().remove(0);
        prop_assert_eq!(row.status.as_str(), expected_status(&ends));
        prop_assert_eq!(row.ended_at.is_none(), row.status == "active");
    }
}

#[test]
fn who_takes_a_continued_part_for_abandoned_does_not_abort_its_session() {
    let end = CONTINUED
        .replace("09:40", "09:50")
        .replace("continued", "completed")
        .replace("0001", "0002");
    let aborted = CONTINUED.replace("09:40", "09:55").replace("continued", "aborted");
    let store = TestStore::new();
    add_segment(&store.root(), 1, "\"run-7\"", &[START, &aborted]);
    add_segment(&store.root(), 2, "\"run-7\"", &[START, CONTINUED, &end]);
    assert_eq!(store.store().sessions().unwrap().remove(0).status, "completed");
}

#[test]
fn gaps_are_told_newest_first_and_go_with_their_session() {
    let store = TestStore::new();
    let later = GAP.replace("09:41", "09:43").replace("\"first_step\":7,\"last_step\":9,", "");
    add_segment(&store.root(), 1, "\"run-7\"", &[START, GAP, &later]);
    add_segment(&store.root(), 2, "\"other\"", &[START, GAP]);
    add_segment(&store.root(), 3, "null", &[GAP]);
    let gaps = store.store().gaps(Some(&session_id("run-7"))).unwrap();
    let steps: Vec<_> =
        gaps.iter().map(|gap| (gap.records, gap.first_step, gap.last_step)).collect();
    assert_eq!(steps, [(3, None, None), (3, Some(7), Some(9))]);
    assert_eq!(gaps[1].reason, "no space left on device");
    assert_eq!(gaps[1].since, "2026-01-05T09:40:30Z".parse().unwrap());
    assert_eq!(store.store().gaps(None).unwrap().len(), 3);
    assert_eq!(count(&store, "invalid_lines"), 1);
    assert_eq!(store.store().verify(&mut |_| {}).unwrap().findings, []);

    add_segment(&store.root(), 4, "null", &[DELETED]);
    assert_eq!(store.store().gaps(None).unwrap().len(), 1);
}
