//! The test of the test: a disk that does not hear one persist.
//!
//! For each persist of a scene, the model acts as if this one call had not been made. Where the
//! store needs the call, a crash state must show a violation; otherwise the call is superfluous, or
//! the oracle is blind to what it is for. The report counts each by the file or folder that was
//! persisted.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::choose::Fates;
use super::crash::{Disk, Fate};
use super::history::{Event, History};
use super::scenes::Scene;
use super::visit::{self, State};
use crate::check::Crash;
use crate::{Options, Report, Result};

/// What became of a persist that the disk did not hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// A crash state shows a violation.
    Noticed,
    /// A later persist made up for it before anything was told: it could be left out.
    MadeUpFor,
    /// States were visited that lack what it should have persisted, and none shows a violation.
    Unnoticed,
}

/// One persist that the disk does not hear.
struct Ignored<'a> {
    number: usize,
    /// What was persisted, without what is drawn at random.
    path: String,
    deaf: Disk<'a>,
    /// The changes that waited for it.
    affected: Vec<usize>,
}

/// Every persist of a scene is ignored once; of those of one path a quarter of `runs` at most.
///
/// # Errors
/// A state cannot be written.
pub(super) fn ignore_each(options: &Options, scene: &Scene, history: &History) -> Result<Report> {
    let waiting = Mutex::new(persists(history, options.runs.div_ceil(4)).into_iter());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<Report> {
        let mut report = Report::default();
        while let Some(ignored) = next() {
            ignore(options, scene, &ignored, &mut report)?;
        }
        Ok(report)
    };
    visit::on_all_processors(&work)
}

/// The persists that something waited for, those about the index left out.
fn persists(history: &History, of_one_path_max: usize) -> Vec<Ignored<'_>> {
    let hearing = Disk::new(history, None);
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut persists = Vec::new();
    for (number, happened) in history.events.iter().enumerate().skip(history.began) {
        let Event::Persist { node, .. } = &happened.event else { continue };
        let deaf = Disk::new(history, Some(number));
        let affected = deaf.later_than(&hearing);
        let path = history.last_paths.get(node).map(|path| pattern(path)).unwrap_or_default();
        let count = counts.entry(path.clone()).or_default();
        if !affected.is_empty() && *count < of_one_path_max {
            *count += 1;
            persists.push(Ignored { number, path, deaf, affected });
        }
    }
    persists
}

fn ignore(
    options: &Options,
    scene: &Scene,
    ignored: &Ignored<'_>,
    report: &mut Report,
) -> Result<()> {
    let (visited, outcome) = outcome(options, scene, ignored)?;
    report.executed += visited;
    let what = match outcome {
        Outcome::Noticed => "noticed",
        Outcome::MadeUpFor => "made up for by a later one",
        Outcome::Unnoticed => "NOT NOTICED",
    };
    let text = format!("persist of {} ignored ({})", ignored.path, scene.name);
    report.count(&format!("{what}: {text}"), 1);
    report.count(&format!("persists {what}"), 1);
    if outcome == Outcome::Unnoticed && ignored.path != HARMLESS {
        report.violations.push(format!("not noticed: {text}"));
    }
    Ok(())
}

/// Here a loss may do no harm: a marker that comes back belongs to a segment with an end, and the
/// next open takes it away; one that is lost is missed only if a line was torn before another
/// writer's marker was persisted.
const HARMLESS: &str = "store/active";

/// How many states were visited, and what they show. A loss shows most where something was told
/// since; if it does not, then perhaps beside a write that is torn.
fn outcome(options: &Options, scene: &Scene, ignored: &Ignored<'_>) -> Result<(usize, Outcome)> {
    let history = ignored.deaf.history;
    let is_told = |number| matches!(history.event(number), Some(Event::Told(_)));
    let is_write = |number| matches!(history.event(number), Some(Event::Write { .. }));
    let told = look(options, scene, ignored, is_told, |pending, lost| {
        let torn = torn(history, with(pending, &[]), lost);
        torn.into_iter().chain(losses(pending, lost)).collect()
    })?;
    match told {
        (0, _) => return Ok((0, Outcome::MadeUpFor)),
        (visited, true) => return Ok((visited, Outcome::Noticed)),
        (_, false) => {}
    }
    let (visited, is_noticed) = look(options, scene, ignored, is_write, |pending, lost| {
        torn(history, with(pending, lost), pending).into_iter().collect()
    })?;
    let outcome = if is_noticed { Outcome::Noticed } else { Outcome::Unnoticed };
    Ok((told.0 + visited, outcome))
}

/// Visits states after events of one kind; how many, and whether the last one shows a violation.
fn look(
    options: &Options,
    scene: &Scene,
    Ignored { number, deaf, affected, .. }: &Ignored<'_>,
    is_point: impl Fn(usize) -> bool,
    fates: impl Fn(&[usize], &[usize]) -> Vec<Fates>,
) -> Result<(usize, bool)> {
    let mut visited = 0;
    let events = *number..deaf.history.events.len();
    for event in events.filter(|event| is_point(*event) && !deaf.is_derived(*event)) {
        let point = event + 1;
        let pending = deaf.pending(point);
        let lost: Vec<usize> =
            affected.iter().copied().filter(|event| pending.contains(event)).collect();
        if lost.is_empty() {
            break; // a later persist has made up for it
        }
        for fates in fates(&pending, &lost) {
            if visited >= options.runs {
                return Ok((visited, false));
            }
            visited += 1;
            let state = State {
                name: format!("{} without persist {number}, event {point}", scene.name),
                tree: deaf.tree(point, &fates, false),
                runs: scene.runs(deaf.history, point, Crash::PowerInAnyOrder),
            };
            if !visit::check_state(&state)?.is_empty() {
                return Ok((visited, true));
            }
        }
    }
    Ok((visited, false))
}

/// All that waited for the persist is lost, alone or with everything else that is pending; then
/// one change of it at a time.
fn losses(pending: &[usize], lost: &[usize]) -> Vec<Fates> {
    let mut fates = vec![with(pending, lost), with(pending, pending)];
    if lost.len() > 1 {
        fates.extend(lost.iter().rev().map(|one| with(pending, std::slice::from_ref(one))));
    }
    fates
}

/// Some changes are lost, the other pending ones done.
fn with(pending: &[usize], lost: &[usize]) -> Fates {
    let fate = |event| if lost.contains(event) { Fate::Lost } else { Fate::Done };
    pending.iter().map(|event| (*event, fate(event))).collect()
}

/// The last of some changes is torn, if it is a write.
fn torn(history: &History, mut fates: Fates, changes: &[usize]) -> Option<Fates> {
    let last = *changes.last()?;
    let Some(Event::Write { bytes, .. }) = history.event(last) else { return None };
    fates.insert(last, Fate::Torn(bytes.len() / 2));
    Some(fates)
}

/// The path with what is drawn at random left out: ids of segments, temporary names.
fn pattern(path: &Path) -> String {
    let text = path.to_string_lossy();
    let parts = text.split_inclusive(['/', '.']).map(|part| {
        let body = part.trim_end_matches(['/', '.']);
        let is_random =
            body.len() >= 8 && body.chars().all(|c| c.is_ascii_hexdigit() || "-TZ".contains(c));
        if is_random { part.replace(body, "*") } else { part.to_owned() }
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_parts_of_a_path_are_left_out() {
        let path = "store/active/9f1c2a77-0000-4000-8000-000000000000.json";
        assert_eq!(pattern(Path::new(path)), "store/active/*.json");
        assert_eq!(
            pattern(Path::new("store/logs/store/20260105T093000123456Z.9f1c2a77.jsonl")),
            "store/logs/store/*.*.jsonl"
        );
        assert_eq!(
            pattern(Path::new("store/checkpoints/c-7-1.npz")),
            "store/checkpoints/c-7-1.npz"
        );
    }
}
