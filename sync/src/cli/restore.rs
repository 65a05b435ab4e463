//! `tidelog-sync restore`

use std::path::PathBuf;

use clap::Args;
use tidelog::StoreId;
use tidelog_sync::{Restored, restore};
use uuid::Uuid;

use super::{DatabaseArgs, Failure, print, say};

/// Makes the folder of a store again from the database alone, on a new machine for example
///
/// Files come back byte for byte, proven by their hashes. Nothing is overwritten; after an
/// interruption call it again, and it goes on. If the store is still written elsewhere, do not record
/// into the restored one under the same session ids, unless you mean it.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// Folder to make
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Which store, if the database has several
    #[arg(long, value_name = "UUID")]
    store_id: Option<Uuid>,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
}

impl Restore {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let target = self.database.target()?;
        let mut tell = |what: &tidelog_sync::Restoring| say(&what.to_string());
        let restored = restore(&self.store, &target, self.store_id.map(StoreId::from), &mut tell)?;
        if self.json {
            let json = serde_json::to_string(&restored)
                .map_err(|error| Failure::Output(std::io::Error::other(error)))?;
            print(&json)?;
        } else {
            print(&summary(&restored))?;
        }
        for segment in &restored.segments_inexact {
            say(&format!("{}: {}", segment.file, segment.reason));
        }
        for file in &restored.checkpoints_missing {
            say(&format!("checkpoint {} has no file: {}", file.checkpoint_id, file.reason));
        }
        match restored.is_whole() {
            true => Ok(()),
            false => Err(Failure::NotWhole),
        }
    }
}

fn summary(restored: &Restored) -> String {
    format!(
        "store {}: {} segments restored, {} there already, {} lines; {} checkpoint files of {} bytes \
         restored, {} there already",
        restored.store_id,
        restored.segments,
        restored.segments_there,
        restored.lines,
        restored.checkpoint_files,
        restored.checkpoint_bytes,
        restored.checkpoint_files_there
    )
}
