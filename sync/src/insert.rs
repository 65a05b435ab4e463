//! Two ways to insert rows of one table. Both leave the same rows.

use postgres::binary_copy::BinaryCopyInWriter;
use postgres::types::{ToSql, Type};
use postgres::{Row, Transaction};

use crate::field::{ColumnType, Field};
use crate::rows::BatchRows;
use crate::table::{Rows, Table};

/// From so many rows on COPY is faster than UNNEST, in spite of its extra round trip.
const COPY_ROWS_MIN: usize = 1000;

/// Whether rows may be sent by COPY. It fails on a row that is there already, and needs a prepared
/// statement, which a transaction pooler loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Many rows by COPY, few by UNNEST.
    Fast,
    /// UNNEST only, which passes over rows that are there already.
    PassOver,
}

/// Inserts rows that never change.
pub(crate) fn insert(
    transaction: &mut Transaction<'_>,
    rows: &Rows,
    method: Method,
) -> Result<(), postgres::Error> {
    match rows.len() {
        0 => Ok(()),
        _ if is_copied(rows, method) => copy(transaction, rows),
        _ => unnest(transaction, rows, "ON CONFLICT DO NOTHING"),
    }
}

/// Whether these rows go by COPY.
pub(crate) fn is_copied(rows: &Rows, method: Method) -> bool {
    method == Method::Fast && rows.len() >= COPY_ROWS_MIN
}

fn copy(transaction: &mut Transaction<'_>, rows: &Rows) -> Result<(), postgres::Error> {
    let names = names(rows).join(", ");
    let types: Vec<Type> = rows.table.columns.iter().map(|(_, ty)| ty.copied()).collect();
    let sql = format!("COPY {} ({names}) FROM STDIN (FORMAT binary)", rows.table.name);
    let mut writer = BinaryCopyInWriter::new(transaction.copy_in(&sql)?, &types);
    for row in rows.iter() {
        writer.write_raw(row.iter())?;
    }
    writer.finish().map(|_| ())
}

/// Inserts the rows in one unnamed statement, an array a column.
pub(crate) fn unnest(
    transaction: &mut Transaction<'_>,
    rows: &Rows,
    on_conflict: &str,
) -> Result<(), postgres::Error> {
    let columns = columns(rows);
    let parameters = parameters(rows, &columns);
    transaction.execute_typed(&unnest_sql(rows, on_conflict), &parameters).map(|_| ())
}

/// Line number and text of each row, as the server would show it.
pub(crate) fn texts(
    transaction: &mut Transaction<'_>,
    rows: &Rows,
) -> Result<Vec<Row>, postgres::Error> {
    let columns = columns(rows);
    let parameters = parameters(rows, &columns);
    let sql = format!("SELECT line_no, ROW({})::text FROM {}", values(rows), arrays(rows));
    transaction.query_typed(&sql, &parameters)
}

/// Line number and text of each row that a table has of the lines of a batch.
pub(crate) fn texts_between(
    transaction: &mut Transaction<'_>,
    table: &Table,
    batch: &BatchRows,
) -> Result<Vec<Row>, postgres::Error> {
    let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
    let sql = format!(
        "SELECT line_no, ROW({})::text FROM {}
         WHERE segment_no = $1 AND line_no >= $2 AND line_no < $3",
        names.join(", "),
        table.name
    );
    transaction.query_typed(&sql, &line_range(batch))
}

/// Segment, first line and the line after the last one of a batch.
pub(crate) fn line_range(batch: &BatchRows) -> [(&(dyn ToSql + Sync), Type); 3] {
    [
        (&batch.place.segment_no, Type::INT4),
        (&batch.line_range.0, Type::INT8),
        (&batch.line_range.1, Type::INT8),
    ]
}

fn unnest_sql(rows: &Rows, on_conflict: &str) -> String {
    format!(
        "INSERT INTO {table} AS old ({names}) SELECT {values} FROM {arrays} {on_conflict}",
        table = rows.table.name,
        names = names(rows).join(", "),
        values = values(rows),
        arrays = arrays(rows),
    )
}

fn columns(rows: &Rows) -> Vec<Vec<&Field>> {
    (0..rows.table.columns.len()).map(|index| rows.column(index)).collect()
}

/// The columns as parameters of a statement over [`arrays`].
fn parameters<'a>(rows: &Rows, columns: &'a [Vec<&Field>]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    std::iter::zip(columns, rows.table.columns)
        .map(|(column, (_, ty))| (column as &(dyn ToSql + Sync), ty.array()))
        .collect()
}

/// The columns of [`arrays`], each with its type.
fn values(rows: &Rows) -> String {
    let value = |(name, ty): &(&str, ColumnType)| format!("{name}{}", ty.cast());
    rows.table.columns.iter().map(value).collect::<Vec<_>>().join(", ")
}

/// The parameters, an array a column, as rows.
fn arrays(rows: &Rows) -> String {
    let names = names(rows);
    let arrays: Vec<String> = (1..=names.len()).map(|number| format!("${number}")).collect();
    format!("unnest({}) AS new ({})", arrays.join(", "), names.join(", "))
}

fn names(rows: &Rows) -> Vec<&'static str> {
    rows.table.columns.iter().map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::SYNC_UNKNOWN;

    #[test]
    fn each_column_is_an_array() {
        let sql = unnest_sql(&Rows::new(&SYNC_UNKNOWN), "ON CONFLICT DO NOTHING");
        assert_eq!(
            sql,
            "INSERT INTO sync_unknown AS old (segment_no, line_no, session_id, event, raw) \
             SELECT segment_no, line_no, session_id, event, raw \
             FROM unnest($1, $2, $3, $4, $5) AS new (segment_no, line_no, session_id, event, raw) \
             ON CONFLICT DO NOTHING"
        );
    }
}
