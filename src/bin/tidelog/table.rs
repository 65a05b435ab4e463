//! Tables for people.

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, LineStyle, Row, Table, TableStyle, Width,
};

/// On which side a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A heading and the side of its column.
pub(crate) type Heading<'a> = (&'a str, Side);

/// The lines of a table; cells are texts without control characters.
pub(crate) fn lines(headings: &[Heading<'_>], rows: Vec<Vec<String>>) -> Vec<String> {
    let mut table = plain();
    table.set_header(headings.iter().map(|(title, side)| cell(title, *side)));
    for cells in rows {
        table.add_row(row(cells, headings.iter().map(|(_, side)| *side)));
    }
    trimmed(&table)
}

/// How wide each column of such a table is.
pub(crate) fn widths(headings: &[Heading<'_>], rows: &[Vec<String>]) -> Vec<(u16, Side)> {
    let mut table = plain();
    table.set_header(headings.iter().map(|(title, _)| *title));
    table.add_rows(rows);
    let sides = headings.iter().map(|(_, side)| *side);
    table.column_max_content_widths().into_iter().zip(sides).collect()
}

/// The lines of rows that continue a table whose columns have these widths and sides.
pub(crate) fn more_lines(columns: &[(u16, Side)], rows: Vec<Vec<String>>) -> Vec<String> {
    let mut table = plain();
    for cells in rows {
        table.add_row(row(cells, columns.iter().map(|(_, side)| *side)));
    }
    // blanks beside the cell count as its width
    let width = |width: u16| ColumnConstraint::Absolute(Width::Fixed(width.saturating_add(2)));
    table.set_constraints(columns.iter().map(|(content, _)| width(*content)));
    trimmed(&table)
}

fn plain() -> Table {
    let rule = LineStyle::none().fill('─').junction('─');
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(rule));
    table
}

fn row(cells: Vec<String>, sides: impl Iterator<Item = Side>) -> Row {
    cells.iter().zip(sides).map(|(text, side)| cell(text, side)).collect::<Vec<Cell>>().into()
}

fn cell(text: &str, side: Side) -> Cell {
    Cell::new(text).set_alignment(match side {
        Side::Left => CellAlignment::Left,
        Side::Right => CellAlignment::Right,
    })
}

fn trimmed(table: &Table) -> Vec<String> {
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_rows_stand_under_the_first_ones() {
        let headings = [("name", Side::Left), ("n", Side::Right)];
        let cells = |name: &str, n: &str| vec![name.to_owned(), n.to_owned()];
        let first = lines(&headings, vec![cells("a", "100")]);
        assert_eq!(first[0], " name     n");
        assert_eq!(first[2], " a      100");
        let later = more_lines(&[(4, Side::Left), (3, Side::Right)], vec![cells("b", "7")]);
        assert_eq!(later, [" b        7"]);
    }
}
