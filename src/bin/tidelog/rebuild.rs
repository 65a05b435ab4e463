use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;
use crate::progress::Bar;
use crate::text;

/// Make the index anew from the files.
///
/// The index holds nothing that is not in the files, so nothing can be lost by it.
#[derive(Args)]
pub(crate) struct Rebuild {}

/// What `--json` prints.
#[derive(Serialize)]
struct Document {
    lines: u64,
    journal_bytes: u64,
}

impl Rebuild {
    pub(crate) fn run(self, context: &Context, output: &mut Output) -> Result<(), CliError> {
        let store = context.open()?;
        let bar = Bar::new("reading");
        let mut document = Document { lines: 0, journal_bytes: 0 };
        store.rebuild_index(&mut |progress| {
            document = Document { lines: progress.lines_done, journal_bytes: progress.bytes_done };
            bar.show(progress);
        })?;
        drop(bar);
        if context.json {
            return Ok(output.json(&document)?);
        }
        let size = text::bytes(document.journal_bytes);
        Ok(output.line(format!("index rebuilt from {} lines ({size})", document.lines))?)
    }
}
