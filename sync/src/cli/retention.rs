//! `tidelog-sync retention`

use std::time::Duration;

use clap::Args;
use tidelog::StoreId;
use tidelog_sync::Retention as Floors;
use uuid::Uuid;

use super::{DatabaseArgs, Failure, print, print_json};

const DAY: u64 = 24 * 3600;
/// PostgreSQL's times begin 6,700 years ago.
const DAYS_MAX: u64 = 1_000_000;

/// Deletes old measurements from PostgreSQL, for good: they are not sent again
///
/// Records, emergencies, points of basins and gaps go, of every store or of one. Sessions stay, with
/// statistics of what is left; so do checkpoints and the audit trail. Files are not touched. Agents go
/// on meanwhile.
#[derive(Debug, Args)]
pub(super) struct Retention {
    #[command(flatten)]
    database: DatabaseArgs,
    /// What was measured longer ago goes: 90d, or 36h
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Duration,
    /// Only of this store, by its id
    #[arg(long, value_name = "ID")]
    store_id: Option<Uuid>,
    /// Only tell what would go
    #[arg(long)]
    dry_run: bool,
    /// Write one JSON array, whose fields are listed in the README of tidelog-sync
    #[arg(long)]
    json: bool,
}

impl Retention {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut floors = Floors::connect(&self.database.target()?)?;
        let store = self.store_id.map(StoreId::from);
        let stores = match self.dry_run {
            true => floors.look(store, self.older_than)?,
            false => floors.apply(store, self.older_than)?,
        };
        if self.json {
            return print_json(&stores);
        }
        let done = if self.dry_run { "would be deleted" } else { "deleted" };
        for store in stores {
            let (id, floor, rows) = (store.store_id, store.floor, store.rows);
            print(&format!("{id}: {rows} rows from before {floor} {done}"))?;
        }
        Ok(())
    }
}

fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no age; write a number of days or hours, as in 90d or 36h");
    let (number, seconds) = match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(days), _) => (days, DAY),
        (_, Some(hours)) => (hours, 3600),
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(seconds) if (1..=DAYS_MAX * DAY).contains(&seconds) => {
            Ok(Duration::from_secs(seconds))
        }
        _ => Err(format!("{text:?} is out of range; at least 1h and at most {DAYS_MAX}d")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_days_or_hours() {
        assert_eq!(age("90d"), Ok(Duration::from_secs(90 * DAY)));
        assert_eq!(age("36h"), Ok(Duration::from_secs(36 * 3600)));
        for wrong in ["", "d", "90", "-1d", "0d", "1m", "9999999999999999999d", "1000001d", "1.5d"]
        {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
