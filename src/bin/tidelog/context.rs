//! What every command knows: which store, and for whom the output is.

use std::path::{Path, PathBuf};

use clap::Args;
use tidelog::Store;

use crate::error::CliError;
use crate::output;
use crate::progress::Bar;
use crate::text;

const STORE_VARIABLE: &str = "TIDELOG_STORE";
const STORE_DEFAULT: &str = "tidelog";

/// Options that stand before or after any command.
#[derive(Args)]
pub(crate) struct Globals {
    /// Folder of the store [env: TIDELOG_STORE] [default: tidelog]
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Print JSON for programs: one document, or one line per row where output is streamed
    #[arg(long, global = true)]
    json: bool,
}

/// The options, resolved.
pub(crate) struct Context {
    store: PathBuf,
    /// For programs, not for people.
    pub(crate) json: bool,
}

impl Context {
    pub(crate) fn new(globals: Globals) -> Self {
        let variable = std::env::var_os(STORE_VARIABLE).filter(|value| !value.is_empty());
        let store =
            globals.store.or(variable.map(PathBuf::from)).unwrap_or_else(|| STORE_DEFAULT.into());
        Self { store, json: globals.json }
    }

    /// The store's folder as the user named it.
    pub(crate) fn store_path(&self) -> &Path {
        &self.store
    }

    /// Opens the store for reading; a folder without a store is an error and stays as it is.
    pub(crate) fn open(&self) -> Result<Store, CliError> {
        Ok(Store::open_read_only(&self.store)?)
    }

    /// As [`open`](Self::open), as it is now: all questions of a command are about one moment. Shows
    /// a bar if the index has much to read, and tells of lines that it passed over.
    pub(crate) fn open_snapshot(&self) -> Result<Store, CliError> {
        let bar = Bar::new("reading");
        let store = self.open()?.snapshot(&mut |progress| bar.show(progress))?;
        drop(bar);
        let damaged = store.damaged_lines()?;
        if damaged > 0 {
            let lines = text::count(damaged, "damaged line");
            output::remark(&format!(
                "passed over {lines}; `{}` names them",
                self.command("verify")
            ));
        }
        Ok(store)
    }

    /// Opens the store for writing and creates it if there is none.
    pub(crate) fn open_for_writing(&self) -> Result<Store, CliError> {
        Ok(Store::open(&self.store)?)
    }

    /// A command line that reaches the same store when pasted into the same shell.
    pub(crate) fn command(&self, arguments: &str) -> String {
        let reached_without = match std::env::var_os(STORE_VARIABLE) {
            Some(variable) => self.store.as_os_str() == variable,
            None => self.store == Path::new(STORE_DEFAULT),
        };
        if reached_without {
            return format!("tidelog {arguments}");
        }
        format!("tidelog --store {} {arguments}", quoted(&self.store.to_string_lossy()))
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/+=:@,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_blank_or_a_quote_can_be_pasted() {
        assert_eq!(quoted("runs/a-1"), "runs/a-1");
        assert_eq!(quoted("my runs"), "'my runs'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
