//! Files beside the journal: whole, and none of a dead writer left.

use std::fs;
use std::path::{Path, PathBuf};

use super::promise::{Owed, Promises};
use crate::Result;

/// Every copy of an emergency event is whole, and those owed are there; an import that returned
/// has its report; nothing announces a writer that is gone.
pub(super) fn check(promises: &Promises, root: &Path, violations: &mut Vec<String>) -> Result<()> {
    for path in listed(&root.join("logs/emergency"))? {
        let text = fs::read_to_string(&path).unwrap_or_default();
        if !text.starts_with('{') || !text.ends_with("}\n") || text.contains('\0') {
            violations.push(format!("{} is half", path.display()));
        }
    }
    for (id, (_, owed)) in &promises.emergencies {
        let path = root.join(format!("logs/emergency/emergency_{id}.json"));
        let text = fs::read_to_string(&path).unwrap_or_default();
        if *owed == Owed::Must && !text.contains(&format!("\"{id}\"")) {
            violations.push(format!("the copy of emergency {id} is missing"));
        }
    }
    let reports = listed(&root.join("logs/import"))?;
    let is_report = |path: &&PathBuf| path.extension().is_some_and(|ending| ending == "jsonl");
    let reports: Vec<String> = reports
        .iter()
        .filter(is_report)
        .map(|path| fs::read_to_string(path).unwrap_or_default())
        .collect();
    if promises.imported && reports.is_empty() {
        violations.push("the report of an import that had returned is missing".into());
    }
    if reports.iter().any(|text| !text.ends_with("}\n") || text.contains('\0')) {
        violations.push("the report of an import is half".into());
    }
    Ok(())
}

/// What announces a writer, or keeps space for one, though all of them are gone.
pub(super) fn announced(root: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = listed(&root.join("active"))?;
    paths.retain(|path| path.extension().is_some());
    Ok(paths)
}

/// Files of a folder that need not be there; temporary ones, which nothing reads, left out.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(".tidelog-") {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}
