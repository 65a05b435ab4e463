//! Rows of a query, for people and for programs.

use std::ops::ControlFlow;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use tidelog::SqlValue;
use tidelog::Store;

use crate::error::CliError;
use crate::table::{self, Side};
use crate::text;

/// How much of a cell people are shown; programs get all of it.
const CELL_CHARS_MAX: usize = 60;

/// A small result that is held as a whole.
pub(crate) struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<SqlValue>>,
}

impl Rows {
    /// Runs a query whose result is small.
    pub(crate) fn query(store: &Store, sql: &str) -> Result<Self, CliError> {
        let (mut columns, mut rows) = (Vec::new(), Vec::new());
        store.sql(
            sql,
            |names| columns = names.to_vec(),
            |row| {
                rows.push(row.to_vec());
                ControlFlow::Continue(())
            },
        )?;
        Ok(Self { columns, rows })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn table(&self) -> Vec<String> {
        let cells = self.rows.iter().map(|row| row.iter().map(rounded).collect()).collect();
        let sides = sides(self.columns.len(), &self.rows);
        let headings: Vec<_> = self.columns.iter().map(String::as_str).zip(sides).collect();
        table::lines(&headings, cells)
    }
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.rows.len()))?;
        for row in &self.rows {
            list.serialize_element(&JsonRow { columns: &self.columns, row })?;
        }
        list.end()
    }
}

/// A row as an object: columns by name, NULL as null, blobs in hexadecimal, and the numbers that
/// JSON lacks as the texts `"NaN"`, `"Infinity"` and `"-Infinity"`.
pub(crate) struct JsonRow<'a> {
    pub(crate) columns: &'a [String],
    pub(crate) row: &'a [SqlValue],
}

impl Serialize for JsonRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len()))?;
        for (column, value) in self.columns.iter().zip(self.row) {
            match value {
                SqlValue::Null => map.serialize_entry(column, &())?,
                SqlValue::Integer(integer) => map.serialize_entry(column, integer)?,
                SqlValue::Real(number) if number.is_finite() => {
                    map.serialize_entry(column, number)?;
                }
                SqlValue::Real(number) => map.serialize_entry(column, non_finite(*number))?,
                SqlValue::Text(text) => map.serialize_entry(column, text)?,
                SqlValue::Blob(bytes) => map.serialize_entry(column, &hex(bytes))?,
            }
        }
        map.end()
    }
}

fn non_finite(number: f64) -> &'static str {
    match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value as people read it.
pub(crate) fn cell(value: &SqlValue) -> String {
    let text = match value {
        SqlValue::Null => String::new(),
        SqlValue::Integer(integer) => integer.to_string(),
        SqlValue::Real(number) => number.to_string(),
        SqlValue::Text(text) => text::clean(text),
        SqlValue::Blob(bytes) => format!("{} of data", text::bytes(bytes.len() as u64)),
    };
    text::cut(&text, CELL_CHARS_MAX)
}

/// As [`cell`], with few decimals.
fn rounded(value: &SqlValue) -> String {
    match value {
        SqlValue::Real(number) => text::number(Some(*number)),
        other => cell(other),
    }
}

/// Columns that hold numbers stand on the right.
pub(crate) fn sides(columns: usize, rows: &[Vec<SqlValue>]) -> Vec<Side> {
    let is_number = |column: usize| {
        let mut values = rows.iter().filter_map(|row| row.get(column));
        values.clone().any(|value| !matches!(value, SqlValue::Null))
            && values.all(|value| {
                matches!(value, SqlValue::Null | SqlValue::Integer(_) | SqlValue::Real(_))
            })
    };
    (0..columns).map(|column| if is_number(column) { Side::Right } else { Side::Left }).collect()
}
