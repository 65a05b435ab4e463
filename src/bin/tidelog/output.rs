//! Standard output: data and nothing else.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use crate::error::CliError;

/// Buffered; what is not flushed appears at the end of the command.
pub(crate) struct Output {
    stdout: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { stdout: BufWriter::new(io::stdout().lock()) }
    }

    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        self.stdout.write_all(text.as_ref().as_bytes())?;
        self.stdout.write_all(b"\n")
    }

    pub(crate) fn lines(
        &mut self,
        lines: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> io::Result<()> {
        lines.into_iter().try_for_each(|line| self.line(line))
    }

    /// Lines of a name and a value, below each other.
    pub(crate) fn fields(&mut self, fields: &[(&str, String)]) -> io::Result<()> {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.lines(fields.iter().map(|(name, value)| format!("  {name:width$}  {value}")))
    }

    /// One JSON document, for people who look at it too.
    pub(crate) fn json(&mut self, document: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.stdout, document)?;
        self.stdout.write_all(b"\n")
    }

    /// One line of JSON.
    pub(crate) fn json_line(&mut self, row: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.stdout, row)?;
        self.stdout.write_all(b"\n")
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stdout.write_all(bytes)
    }

    /// Shows what was written so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }

    pub(crate) fn finish(mut self) -> Result<(), CliError> {
        Ok(self.flush()?)
    }
}

/// A remark for people, on standard error.
pub(crate) fn remark(text: &str) {
    io::stderr().write_all(format!("{text}\n").as_bytes()).ok(); // there is nobody else to tell
}
