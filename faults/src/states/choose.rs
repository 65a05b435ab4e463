//! Which fates are visited of all that are possible?
//!
//! All, where they are few. Where they are many, first those that a disk brings about most easily
//! (nothing of what is pending, all of it, all but one change, one change alone), then a sample
//! drawn from the seed.

use std::collections::HashMap;

use fastrand::Rng;

use super::crash::Fate;
use super::history::{Event, History};

/// The fates of all pending changes, by event.
pub(super) type Fates = HashMap<usize, Fate>;

/// What was chosen at one point.
pub(super) struct Chosen {
    pub(super) fates: Vec<Fates>,
    /// Whether these are all combinations, tears at one place each.
    pub(super) is_exhaustive: bool,
}

/// At most `limit` combinations, but at least the plain ones.
pub(super) fn choose(history: &History, pending: &[usize], limit: usize, rng: &mut Rng) -> Chosen {
    let options: Vec<(usize, Vec<Fate>)> =
        pending.iter().map(|event| (*event, options(history.event(*event), rng))).collect();
    let combinations =
        options.iter().try_fold(1_usize, |product, (_, fates)| product.checked_mul(fates.len()));
    if combinations.is_some_and(|combinations| combinations <= limit.max(1)) {
        return Chosen { fates: all(&options), is_exhaustive: true };
    }
    let mut fates = plain(&options);
    fates.truncate(limit.max(2));
    while fates.len() < limit {
        fates.push(drawn(&options, rng));
    }
    Chosen { fates, is_exhaustive: false }
}

/// What may become of a change. A write of one byte cannot be torn.
fn options(event: Option<&Event>, rng: &mut Rng) -> Vec<Fate> {
    let mut fates = vec![Fate::Lost, Fate::Done];
    if let Some(Event::Write { bytes, .. }) = event
        && bytes.len() > 1
    {
        let mut place = || rng.usize(1..bytes.len());
        fates.extend([
            Fate::Torn(place()),
            Fate::TornThenNul(place()),
            Fate::NulThenRest(place()),
            Fate::TornThenNul(0),
        ]);
    }
    fates
}

/// Every combination.
fn all(options: &[(usize, Vec<Fate>)]) -> Vec<Fates> {
    let mut combinations = vec![Fates::new()];
    for (event, fates) in options {
        let with = |before: &Fates, fate: &Fate| {
            let mut after = before.clone();
            after.insert(*event, *fate);
            after
        };
        combinations = combinations
            .iter()
            .flat_map(|before| fates.iter().map(move |fate| with(before, fate)))
            .collect();
    }
    combinations
}

/// Nothing, all, and the last change in each way after all others; then each change missing, each
/// torn at its first place, and each alone.
fn plain(options: &[(usize, Vec<Fate>)]) -> Vec<Fates> {
    let every = |fate: Fate| -> Fates { options.iter().map(|(event, _)| (*event, fate)).collect() };
    let (lost, done) = (every(Fate::Lost), every(Fate::Done));
    let with = |base: &Fates, event: usize, fate: Fate| {
        let mut fates = base.clone();
        fates.insert(event, fate);
        fates
    };
    let mut chosen = vec![done.clone(), lost.clone()];
    if let Some((event, fates)) = options.last() {
        chosen.extend(fates.iter().skip(2).map(|fate| with(&done, *event, *fate)));
    }
    chosen.extend(options.iter().map(|(event, _)| with(&done, *event, Fate::Lost)));
    let first_tear = |(event, fates): &(usize, Vec<Fate>)| Some((*event, *fates.get(2)?));
    let tears = options.iter().filter_map(first_tear);
    chosen.extend(tears.map(|(event, fate)| with(&done, event, fate)));
    chosen.extend(options.iter().map(|(event, _)| with(&lost, *event, Fate::Done)));
    chosen
}

fn drawn(options: &[(usize, Vec<Fate>)], rng: &mut Rng) -> Fates {
    let pick = |(event, fates): &(usize, Vec<Fate>)| rng.choice(fates).map(|fate| (*event, *fate));
    options.iter().filter_map(pick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::states::history::Happened;

    fn history() -> History {
        let mut history = History::new();
        let events = [
            Event::Put { name: (0, "a".into()), node: 1 },
            Event::Write { node: 1, offset: 0, bytes: b"bytes".to_vec() },
        ];
        history.events = events.map(|event| Happened { event, line: 1 }).into();
        history
    }

    #[test]
    fn a_few_changes_are_visited_in_every_combination() {
        let chosen = choose(&history(), &[0, 1], 12, &mut Rng::with_seed(7));
        assert!(chosen.is_exhaustive);
        assert_eq!(chosen.fates.len(), 2 * 6, "a name is there or not, a write in six ways");
    }

    #[test]
    fn of_many_changes_all_and_none_come_first() {
        let chosen = choose(&history(), &[0, 1], 11, &mut Rng::with_seed(7));
        assert!(!chosen.is_exhaustive);
        let all = |fate| Fates::from([(0, fate), (1, fate)]);
        assert_eq!(chosen.fates[..2], [all(Fate::Done), all(Fate::Lost)]);
        assert_eq!(chosen.fates.len(), 11);
    }
}
