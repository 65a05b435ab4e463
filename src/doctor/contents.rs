//! What is in the store that its user should know? Looks, and reads no more than `status` does.

use super::{Finding, Level, size};
use crate::index::{Index, State};
use crate::status::{LiveWriter, Status};
use crate::store::Store;

pub(super) fn findings(store: &Store) -> Vec<Finding> {
    let mut findings = vec![index(store)];
    match store.status() {
        Ok(status) => findings.extend(of_status(&status)),
        Err(error) => findings.push(Finding::new("writers", Level::Problem, error.to_string())),
    }
    findings
}

fn of_status(status: &Status) -> Vec<Finding> {
    [
        Some(writers(&status.writers)),
        abandoned(&status.abandoned),
        leftovers(status),
        refused(status),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn writers(writers: &[LiveWriter]) -> Finding {
    let pids: Vec<String> =
        writers.iter().map(|writer| format!("{} on {}", writer.pid, writer.host)).collect();
    let found = match pids.len() {
        0 => "nobody records now".to_owned(),
        1 => format!("recording now: process {}", pids.concat()),
        many => format!("recording now: {many} segments, first by process {}", first(&pids)),
    };
    Finding::new("writers", Level::Ok, found)
}

fn first(texts: &[String]) -> &str {
    texts.first().map(String::as_str).unwrap_or_default()
}

fn abandoned(writers: &[LiveWriter]) -> Option<Finding> {
    let writer = writers.first()?;
    let found = format!(
        "abandoned by a program that died: {}, as by process {}",
        writers.len(),
        writer.pid
    );
    let meaning = "their sessions still show as active; what they acknowledged is there";
    let remedy = "none needed: the next program that records here marks them as aborted";
    Some(Finding::new("writers", Level::Note, found).meaning(meaning).remedy(remedy))
}

fn leftovers(status: &Status) -> Option<Finding> {
    let found = format!("temporary files of killed programs: {}", status.leftover_files);
    let finding = Finding::new("leftovers", Level::Note, found)
        .meaning(format!("nothing reads them; they take {}", size(status.leftover_bytes)))
        .remedy("tidelog verify names them; remove them when no program records");
    (status.leftover_files > 0).then_some(finding)
}

fn refused(status: &Status) -> Option<Finding> {
    let file = status.refused_files.first()?;
    let found = format!(
        "not tidelog's among the journal's files: {}, such as {}: {}",
        status.refused_files.len(),
        file.path,
        file.reason,
    );
    let finding = Finding::new("files", Level::Warning, found);
    Some(finding.meaning("readers pass them over").remedy("tidelog verify says more"))
}

fn index(store: &Store) -> Finding {
    let finding = |level, text: String| Finding::new("index", level, text);
    match Index::state(store.root(), store.id()) {
        Ok(State::Missing) => finding(Level::Ok, "not made yet; the first query makes it".into()),
        Ok(State::Behind { bytes: 0 }) => finding(Level::Ok, "has read the whole journal".into()),
        Ok(State::Behind { bytes }) => finding(
            Level::Ok,
            format!("{bytes} bytes behind the journal; the next query reads them"),
        ),
        Ok(State::Other) => finding(Level::Note, "of another version or store".into())
            .meaning("the next query makes it anew from the files; nothing is lost"),
        Err(error) => finding(Level::Warning, error.to_string())
            .meaning("it is made from the files, which hold everything"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(store: &Store) -> (Level, String) {
        let found = index(store);
        (found.level, found.found)
    }

    #[test]
    fn an_index_is_missing_current_behind_or_broken() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert!(level(&store).1.contains("not made yet"));
        store.sessions().unwrap();
        assert!(level(&store).1.contains("whole journal"));
        drop(store.start_session(crate::SessionId::new("run-7").unwrap()).unwrap());
        assert!(level(&store).1.contains("bytes behind"));
        std::fs::write(folder.path().join("index.sqlite"), [7; 8192]).unwrap();
        assert_eq!(level(&store).0, Level::Warning);
    }
}
