//! Two ways to insert rows of one table. Both leave the same rows.

use postgres::Transaction;
use postgres::binary_copy::BinaryCopyInWriter;
use postgres::types::{ToSql, Type};

use crate::field::Field;
use crate::table::Rows;

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
        _ if method == Method::Fast && is_copied(rows) => copy(transaction, rows),
        _ => unnest(transaction, rows, "ON CONFLICT DO NOTHING"),
    }
}

/// Whether these rows go by COPY where they may.
pub(crate) fn is_copied(rows: &Rows) -> bool {
    rows.len() >= COPY_ROWS_MIN
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
    let columns: Vec<Vec<&Field>> =
        (0..rows.table.columns.len()).map(|index| rows.column(index)).collect();
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> = std::iter::zip(&columns, rows.table.columns)
        .map(|(column, (_, ty))| (column as &(dyn ToSql + Sync), ty.array()))
        .collect();
    transaction.execute_typed(&unnest_sql(rows, on_conflict), &parameters).map(|_| ())
}

fn unnest_sql(rows: &Rows, on_conflict: &str) -> String {
    let names = names(rows);
    let arrays: Vec<String> = (1..=names.len()).map(|number| format!("${number}")).collect();
    let values: Vec<String> = std::iter::zip(&names, rows.table.columns)
        .map(|(name, (_, ty))| format!("{name}{}", ty.cast()))
        .collect();
    format!(
        "INSERT INTO {table} AS old ({names}) SELECT {values} FROM unnest({arrays}) AS new ({names}) \
         {on_conflict}",
        table = rows.table.name,
        names = names.join(", "),
        values = values.join(", "),
        arrays = arrays.join(", "),
    )
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
