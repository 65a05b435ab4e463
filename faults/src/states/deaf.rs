//! The test of the test: a disk that does not hear one persist.
//!
//! For each persist of a scene, the model acts as if this one call had not been made. Where the
//! store needs the call, a crash state must show a violation; otherwise the call is superfluous, or
//! the oracle is blind to what it is for. The report counts both, by the file or folder that was
//! persisted.

use std::path::Path;

use super::choose::Fates;
use super::crash::{Disk, Fate};
use super::history::{Event, History};
use super::scenes::{Scene, Traced};
use super::visit::{self, State};
use crate::check::Crash;
use crate::{Options, Report, Result};

/// Every persist of a scene is ignored once.
///
/// # Errors
/// A state cannot be written.
pub(super) fn ignore_each(options: &Options, scene: &Scene, traced: &Traced) -> Result<Report> {
    let history = &traced.history;
    let hearing = Disk::new(history, None);
    let mut report = Report::default();
    for (number, happened) in history.events.iter().enumerate() {
        let Event::Persist { node, .. } = &happened.event else { continue };
        let deaf = Disk::new(history, Some(number));
        let affected = deaf.later_than(&hearing);
        if affected.is_empty() {
            continue; // nothing was waiting for it, or it is about the index
        }
        let (visited, is_noticed) = ignore(options, scene, traced, &deaf, number, &affected)?;
        report.executed += visited;
        let what = if is_noticed { "noticed" } else { "NOT noticed" };
        let path = history.last_paths.get(node).map(|path| pattern(path)).unwrap_or_default();
        report.count(&format!("{what}: {}, persist of {path} ignored", scene.name), 1);
    }
    Ok(report)
}

/// How many states were visited, and whether one of them shows a violation.
fn ignore(
    options: &Options,
    scene: &Scene,
    traced: &Traced,
    deaf: &Disk<'_>,
    persist: usize,
    affected: &[usize],
) -> Result<(usize, bool)> {
    let mut visited = 0;
    for point in points(&traced.history, persist) {
        let pending = deaf.pending(point);
        let lost: Vec<usize> =
            affected.iter().copied().filter(|event| pending.contains(event)).collect();
        if lost.is_empty() {
            break; // a later persist made up for it
        }
        for fates in fates(&pending, &lost) {
            if visited >= options.runs {
                return Ok((visited, false));
            }
            visited += 1;
            let state = State {
                name: format!("{} without persist {persist}, event {point}", scene.name),
                tree: deaf.tree(point, &fates, false),
                runs: super::runs(scene, traced, point, Crash::Power),
            };
            if !visit::check_state(&state)?.is_empty() {
                return Ok((visited, true));
            }
        }
    }
    Ok((visited, false))
}

/// Where a loss shows most: after each word that was told since the persist.
fn points(history: &History, persist: usize) -> impl Iterator<Item = usize> {
    let told = history.events.iter().enumerate().skip(persist);
    told.filter(|(_, happened)| matches!(happened.event, Event::Told(_)))
        .map(|(number, _)| number + 1)
}

/// All that waited for the persist is lost, alone or with everything else that is pending; then
/// one change of it at a time, the last ones first.
fn fates(pending: &[usize], lost: &[usize]) -> Vec<Fates> {
    let with = |lost: &[usize]| -> Fates {
        let fate = |event| if lost.contains(event) { Fate::Lost } else { Fate::Done };
        pending.iter().map(|event| (*event, fate(event))).collect()
    };
    let mut fates = vec![with(lost), with(pending)];
    if lost.len() > 1 {
        fates.extend(lost.iter().rev().map(|one| with(std::slice::from_ref(one))));
    }
    fates
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
