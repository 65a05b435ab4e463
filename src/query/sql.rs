//! A user's own SQL: one statement, which reads.

use std::ops::ControlFlow;

use rusqlite::{Connection, ErrorCode, Statement};

use crate::error::{Error, Result};
use crate::store::Store;

/// A value of a column: NULL, integer, real, text or blob. NaN is the text `NaN`.
pub use rusqlite::types::Value as SqlValue;

impl Store {
    /// Runs one reading SQL statement on the index, in SQLite's dialect.
    ///
    /// `on_columns` gets the column names, once, before any row; `on_row` gets each row as it is
    /// found and ends the query with [`ControlFlow::Break`]. Rows are never collected: memory does
    /// not grow with the result. The call takes as long as the statement; nothing waits for it.
    ///
    /// # Errors
    /// [`Error::Query`] if the text is not one statement that reads, or SQLite does not
    /// understand it; [`Error::Index`] if the index cannot be read.
    pub fn sql(
        &self,
        sql: &str,
        on_columns: impl FnOnce(&[String]),
        on_row: impl FnMut(&[SqlValue]) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some(pinned) = &self.pinned else {
            return self.snapshot(&mut |_| {})?.sql(sql, on_columns, on_row);
        };
        let index = pinned.lock()?;
        run(index.db(), sql, on_columns, on_row).map_err(|fault| match fault {
            Fault::Refused(reason) => Error::Query(reason),
            Fault::Sqlite(error) if is_about_the_statement(&error) => {
                Error::Query(error.to_string())
            }
            Fault::Sqlite(error) => index.failed()(error),
        })
    }
}

enum Fault {
    Refused(String),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::MultipleStatement => {
                Self::Refused("more than one SQL statement; give them one at a time".into())
            }
            error => Self::Sqlite(error),
        }
    }
}

fn run(
    db: &Connection,
    sql: &str,
    on_columns: impl FnOnce(&[String]),
    mut on_row: impl FnMut(&[SqlValue]) -> ControlFlow<()>,
) -> Result<(), Fault> {
    let mut statement = db.prepare(sql)?;
    check_reads(&statement)?;
    let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    on_columns(&columns);
    let mut rows = statement.query([])?;
    let mut values = Vec::with_capacity(columns.len());
    while let Some(row) = rows.next()? {
        values.clear();
        for column in 0..columns.len() {
            values.push(row.get::<_, SqlValue>(column)?);
        }
        if on_row(&values).is_break() {
            break;
        }
    }
    Ok(())
}

/// The connection cannot write this file, but ATTACH and the like could open others; whatever has
/// no columns has nothing to show.
fn check_reads(statement: &Statement<'_>) -> Result<(), Fault> {
    if statement.readonly() && statement.column_count() > 0 {
        return Ok(());
    }
    Err(Fault::Refused(
        "the statement does not read; only SELECT, WITH, VALUES, EXPLAIN and reading PRAGMAs run: \
         the index follows the files and is never written by hand"
            .into(),
    ))
}

/// As against: about the index.
fn is_about_the_statement(error: &rusqlite::Error) -> bool {
    use ErrorCode::{AuthorizationForStatementDenied, ReadOnly, TooBig, TypeMismatch, Unknown};
    match error.sqlite_error_code() {
        None => true, // of this library's binding: an empty text, a parameter without a value
        Some(code) => matches!(
            code,
            Unknown | TooBig | TypeMismatch | ReadOnly | AuthorizationForStatementDenied
        ),
    }
}
