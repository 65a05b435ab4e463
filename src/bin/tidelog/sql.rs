use std::cell::RefCell;
use std::io::{self, Read};
use std::ops::ControlFlow;

use clap::Args;
use tidelog::SqlValue;

use crate::context::Context;
use crate::error::CliError;
use crate::output::Output;
use crate::rows::{JsonRow, cell, sides};
use crate::table::{self, Side};

/// The longest statement that is read from standard input.
const STATEMENT_BYTES_MAX: u64 = 1 << 20;
/// Rows that decide the widths of the columns, and that are held at a time.
const ROWS_HELD: usize = 200;

/// Run one reading SQL statement on the index.
///
/// The tables and views are those of the replica in PostgreSQL: telemetry_sessions,
/// telemetry_records, emergency_events, checkpoints, checkpoint_history, basin_history,
/// telemetry_gaps, latest_telemetry, best_checkpoints, emergency_summary, session_stats. Rows are
/// streamed; memory does not grow with them.
#[derive(Args)]
pub(crate) struct Sql {
    /// The statement, or `-` to read it from standard input
    #[arg(allow_hyphen_values = true)]
    statement: String,
}

impl Sql {
    pub(crate) fn run(self, context: &Context, output: &mut Output) -> Result<(), CliError> {
        let store = context.open_snapshot()?;
        let statement = match self.statement.as_str() {
            "-" => read_statement()?,
            _ => self.statement,
        };
        let printer = RefCell::new(Printer::new(context.json, output));
        store.sql(
            &statement,
            |columns| printer.borrow_mut().columns = columns.to_vec(),
            |row| printer.borrow_mut().row(row),
        )?;
        printer.into_inner().finish()
    }
}

fn read_statement() -> Result<String, CliError> {
    let mut statement = String::new();
    let read = io::stdin().take(STATEMENT_BYTES_MAX + 1).read_to_string(&mut statement);
    match read {
        Ok(bytes) if bytes as u64 <= STATEMENT_BYTES_MAX => Ok(statement),
        Ok(_) => Err(CliError::usage(format!(
            "the statement on standard input is longer than {STATEMENT_BYTES_MAX} bytes"
        ))),
        Err(error) => {
            Err(CliError::failure("cannot read the statement from standard input").because(error))
        }
    }
}

/// Prints rows as they come.
struct Printer<'a> {
    json: bool,
    output: &'a mut Output,
    columns: Vec<String>,
    held: Vec<Vec<SqlValue>>,
    /// Known once the first rows were printed.
    widths: Option<Vec<(u16, Side)>>,
    /// Why it stopped.
    failed: Result<(), CliError>,
}

impl<'a> Printer<'a> {
    fn new(json: bool, output: &'a mut Output) -> Self {
        let (columns, held) = (Vec::new(), Vec::new());
        Self { json, output, columns, held, widths: None, failed: Ok(()) }
    }

    fn row(&mut self, row: &[SqlValue]) -> ControlFlow<()> {
        self.failed = if self.json {
            self.print_json(row)
        } else {
            self.held.push(row.to_vec());
            if self.held.len() >= ROWS_HELD { self.print_held() } else { Ok(()) }
        };
        if self.failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn print_json(&mut self, row: &[SqlValue]) -> Result<(), CliError> {
        if let Some(name) = twice(&self.columns) {
            let message = format!("two columns are called {name:?}; name one of them with AS");
            return Err(CliError::usage(message));
        }
        Ok(self.output.json_line(&JsonRow { columns: &self.columns, row })?)
    }

    fn print_held(&mut self) -> Result<(), CliError> {
        let rows = std::mem::take(&mut self.held);
        let cells: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        if let Some(widths) = &self.widths {
            return Ok(self.output.lines(table::more_lines(widths, cells))?);
        }
        let sides = sides(self.columns.len(), &rows);
        let headings: Vec<(&str, Side)> =
            self.columns.iter().map(String::as_str).zip(sides).collect();
        self.widths = Some(table::widths(&headings, &cells));
        Ok(self.output.lines(table::lines(&headings, cells))?)
    }

    fn finish(mut self) -> Result<(), CliError> {
        self.failed?;
        self.failed = Ok(());
        match self.json || (self.held.is_empty() && self.widths.is_some()) {
            true => Ok(()),
            false => self.print_held(),
        }
    }
}

/// A column name that an object could hold only once.
fn twice(columns: &[String]) -> Option<&String> {
    let mut names: Vec<&String> = columns.iter().collect();
    names.sort();
    names.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(*one),
        _ => None,
    })
}
