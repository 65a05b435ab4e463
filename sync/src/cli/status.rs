//! `tidelog-sync status`

use clap::{ArgMatches, Args};
use tidelog_sync::connect::TargetError;
use tidelog_sync::{Status as Found, status};

use super::{Failure, PlaceArgs, print};

/// Shows how far the replica is behind the store; works without a database, too
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    place: PlaceArgs,
    /// Write one JSON object a store and line, whose fields the README of tidelog-sync lists
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(&self, matches: &ArgMatches) -> Result<(), Failure> {
        let config = self.place.config(matches)?;
        let target = match config.target() {
            Err(TargetError::Missing) => None,
            target => Some(target?),
        };
        for folder in config.all_stores() {
            let found = status(&folder, target.as_ref())?;
            if self.json {
                let json = serde_json::to_string(&found)
                    .map_err(|error| Failure::Output(std::io::Error::other(error)))?;
                print(&json)?;
            } else {
                print(&lines(&found).join("\n"))?;
            }
        }
        Ok(())
    }
}

fn lines(found: &Found) -> Vec<String> {
    let mut lines = vec![
        format!("folder    {}", found.folder.display()),
        format!("store     {}", found.store_id),
    ];
    lines.push(match &found.database_reason {
        Some(reason) => format!("database  {}: {reason}", found.database),
        None => format!("database  {}", found.database),
    });
    if let (Some(lag_lines), Some(lag_bytes)) = (found.lag_lines, found.lag_bytes) {
        let seconds = found.lag_seconds.unwrap_or_default();
        lines.push(format!("lag       {lag_lines} lines, {lag_bytes} bytes, {seconds:.0} seconds"));
    }
    if let Some(quarantined) = found.quarantined_lines {
        lines.push(format!("quarantine  {quarantined} lines"));
    }
    if let Some(refusal) = &found.last_refusal {
        lines.push(format!("last refusal  {refusal}"));
    }
    if let Some(missed) = found.missed_records.filter(|missed| *missed > 0) {
        lines.push(format!("missed    {missed} records that the disk refused"));
    }
    if let Some(missing @ 1..) = found.checkpoint_files_missing {
        lines.push(format!("checkpoint files  {missing} not sent"));
        lines.extend(found.checkpoint_files_problems.iter().map(|problem| format!("  {problem}")));
    }
    if !found.shared_sessions.is_empty() {
        let shared = found.shared_sessions.join(", ");
        lines.push(format!("sessions that other stores write, too: {shared}"));
    }
    lines.extend(found.gaps.iter().map(|gap| format!("gap       {gap}")));
    lines.push(format!("segments  {}", found.segments.len()));
    for segment in &found.segments {
        let state = segment.state.as_deref().unwrap_or("unknown");
        let lag = segment.lag_lines.map_or("?".to_owned(), |lines| lines.to_string());
        lines.push(format!(
            "  {state:<12}  {lag:>10} lines behind  {:>12} bytes  {}",
            segment.bytes, segment.file
        ));
    }
    lines
}
