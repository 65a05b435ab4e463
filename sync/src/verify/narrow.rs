//! From a range of lines whose digests differ to the lines and columns that do.

use std::cmp::Ordering;

use postgres::types::{ToSql, Type};
use tidelog::journal::Cursor;

use super::canonical::{Canonical, Column, RowDigest, columns};
use super::jsonb;
use super::report::{Difference, DifferenceKind, Findings};
use super::snapshot::{Cell, Snapshot};
use crate::database::DatabaseError;
use crate::field::Field;
use crate::table::{Rows, Table};

/// Of long values the neighbourhood of the first difference is shown.
const SHOWN_MAX: usize = 80;
const SHOWN_BEFORE: usize = 20;

/// Names the lines of `rows` that the replica has not, or not as they are, and those that only the
/// replica has between `lines`. Returns the first of them.
pub(super) fn find(
    snapshot: &mut Snapshot,
    findings: &mut Findings,
    file: &str,
    rows: &Rows,
    (segment_no, lines): (i32, (i32, i32)),
) -> Result<Option<i32>, DatabaseError> {
    let rows_max = rows.len() + super::DIFFERENCES_MAX;
    let found = snapshot.row_digests(rows.table, segment_no, lines, rows_max)?;
    let canonical = snapshot.canonical;
    let expected: Vec<(i32, RowDigest, &[Field])> =
        rows.iter().map(|row| (line_no(row), canonical.digest(rows.table, row), row)).collect();
    let mut first = None;
    for (line, outcome) in merge(&expected, &found) {
        first = first.or(Some(line));
        if findings.is_full() {
            findings.has_more = true;
            break;
        }
        let place = Difference {
            table: rows.table.name.to_owned(),
            file: Some(file.to_owned()),
            line: u32::try_from(line).ok(),
            ..Difference::default()
        };
        match outcome {
            Outcome::Missing => {
                findings.add(Difference { kind: DifferenceKind::Missing, ..place });
            }
            Outcome::Extra => findings.add(Difference { kind: DifferenceKind::Extra, ..place }),
            Outcome::Changed(row) => {
                let key = vec![(segment_no, Type::INT4), (line, Type::INT4)];
                let condition = "t.segment_no = $1 AND t.line_no = $2";
                name_columns(snapshot, findings, &place, (rows.table, row), (condition, key))?;
            }
        }
    }
    Ok(first)
}

enum Outcome<'a> {
    Missing,
    Extra,
    Changed(&'a [Field]),
}

/// Walks both lists in the order of their lines.
fn merge<'a>(
    expected: &[(i32, RowDigest, &'a [Field])],
    found: &[(i32, RowDigest)],
) -> Vec<(i32, Outcome<'a>)> {
    let (mut ours, mut theirs) = (expected.iter().peekable(), found.iter().peekable());
    let mut outcomes = Vec::new();
    loop {
        let order = match (ours.peek(), theirs.peek()) {
            (None, None) => return outcomes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(ours), Some(theirs)) => ours.0.cmp(&theirs.0),
        };
        let our = if order == Ordering::Greater { None } else { ours.next() };
        let their = if order == Ordering::Less { None } else { theirs.next() };
        match (our, their) {
            (Some((line, _, _)), None) => outcomes.push((*line, Outcome::Missing)),
            (None, Some((line, _))) => outcomes.push((*line, Outcome::Extra)),
            (Some((line, ours, row)), Some((_, theirs))) if ours != theirs => {
                outcomes.push((*line, Outcome::Changed(row)));
            }
            _ => {}
        }
    }
}

/// Names each column of a row that differs.
pub(super) fn name_columns<P: ToSql + Sync + Send + 'static>(
    snapshot: &mut Snapshot,
    findings: &mut Findings,
    place: &Difference,
    (table, row): (&'static Table, &[Field]),
    (condition, key): (&str, Vec<(P, Type)>),
) -> Result<(), DatabaseError> {
    let columns: Vec<(usize, Column)> = columns(table).collect();
    let names: Vec<Column> = columns.iter().map(|(_, column)| *column).collect();
    let expected = columns.iter().filter_map(|(index, column)| Some((*column, row.get(*index)?)));
    let expected: Vec<(Column, Field)> =
        expected.map(|(column, field)| (column, field.clone())).collect();
    let cells = snapshot.cells(table.name, &names, condition, key)?;
    compare_cells(snapshot.canonical, findings, place, &expected, cells.as_deref());
    Ok(())
}

/// Names each cell that differs; a row that is not there is missing.
pub(super) fn compare_cells(
    canonical: Canonical,
    findings: &mut Findings,
    place: &Difference,
    expected: &[(Column, Field)],
    cells: Option<&[Cell]>,
) {
    let Some(cells) = cells else {
        return findings.add(Difference { kind: DifferenceKind::Missing, ..place.clone() });
    };
    for (((name, ty), field), cell) in std::iter::zip(expected, cells) {
        if canonical.record(&[(*ty, field)]) == cell.bytes {
            continue;
        }
        let (replica, expected) = excerpts(cell.text.clone(), text(field));
        let column = Some((*name).to_owned());
        findings.add(Difference { column, replica, expected, ..place.clone() });
    }
}

fn line_no(row: &[Field]) -> i32 {
    match row.get(1) {
        Some(Field::Int4(line)) => *line,
        _ => i32::MAX,
    }
}

/// A value as PostgreSQL shows it.
fn text(field: &Field) -> Option<String> {
    Some(match field {
        Field::Null => return None,
        Field::Bool(value) => value.to_string(),
        Field::Int4(value) => value.to_string(),
        Field::Int8(value) => value.to_string(),
        Field::Float8(value) => number(*value),
        Field::Text(text) => text.clone(),
        Field::Json(json) => jsonb::canonical(json),
        Field::Bytes(bytes) => bytes.iter().take(64).map(|byte| format!("{byte:02x}")).collect(),
        Field::Time(time) => time.to_string(),
        Field::Vector(numbers) => list('[', numbers.iter().map(f32::to_string), ']'),
        Field::Floats(numbers) => list('{', numbers.iter().copied().map(number), '}'),
    })
}

fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        value if value != 0.0 && !(1e-4..1e15).contains(&value.abs()) && !value.is_nan() => {
            format!("{value:e}")
        }
        value => value.to_string(),
    }
}

fn list(open: char, numbers: impl Iterator<Item = String>, close: char) -> String {
    format!("{open}{}{close}", numbers.collect::<Vec<_>>().join(","))
}

/// Both values, or of long ones the pieces around the first difference.
fn excerpts(replica: Option<String>, file: Option<String>) -> (Option<String>, Option<String>) {
    let (Some(ours), Some(theirs)) = (&replica, &file) else {
        return (replica.map(|text| excerpt(&text, 0)), file.map(|text| excerpt(&text, 0)));
    };
    let same = std::iter::zip(ours.chars(), theirs.chars()).take_while(|(a, b)| a == b).count();
    let from = if ours.len().max(theirs.len()) > SHOWN_MAX {
        same.saturating_sub(SHOWN_BEFORE)
    } else {
        0
    };
    (Some(excerpt(ours, from)), Some(excerpt(theirs, from)))
}

fn excerpt(text: &str, from: usize) -> String {
    let mut shown: String = text.chars().skip(from).take(SHOWN_MAX).collect();
    if from > 0 {
        shown.insert(0, '…');
    }
    if text.chars().nth(from + SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// A line number as tables have it.
pub(super) fn row_number(cursor: &Cursor) -> i32 {
    i32::try_from(cursor.next_line).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_one_side_has_alone_are_told_from_changed_ones() {
        let row: &[Field] = &[];
        let expected = [(1, [1; 32], row), (2, [2; 32], row), (4, [4; 32], row)];
        let found = [(1, [1; 32]), (3, [3; 32]), (4, [9; 32])];
        let told: Vec<(i32, &str)> = merge(&expected, &found)
            .iter()
            .map(|(line, outcome)| match outcome {
                Outcome::Missing => (*line, "missing"),
                Outcome::Extra => (*line, "extra"),
                Outcome::Changed(_) => (*line, "changed"),
            })
            .collect();
        assert_eq!(told, [(2, "missing"), (3, "extra"), (4, "changed")]);
    }

    #[test]
    fn of_long_values_the_place_that_differs_is_shown() {
        let long = |end: &str| Some("x".repeat(500) + end);
        let (replica, file) = excerpts(long("a"), long("b"));
        assert_eq!(replica.unwrap(), format!("…{}a", "x".repeat(20)));
        assert_eq!(file.unwrap(), format!("…{}b", "x".repeat(20)));
    }
}
