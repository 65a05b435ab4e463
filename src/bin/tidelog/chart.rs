//! A curve drawn in braille characters, 2 × 4 dots each.

const WIDTH: usize = 64;
const HEIGHT: usize = 10;
const DOTS_WIDE: usize = WIDTH * 2;
const DOTS_HIGH: usize = HEIGHT * 4;
/// First of the 256 braille characters; the eight low bits are the dots.
const BRAILLE: u32 = 0x2800;

/// Dots that are set, by row and column of characters.
struct Canvas(Vec<[u8; WIDTH]>);

/// Draws values over steps, given in the order of the x axis; NaN leaves a gap. Nothing to draw
/// gives no lines.
pub(crate) fn draw(points: &[(i64, f64)]) -> Vec<String> {
    let means = means(points);
    let (low, high) = range(&means);
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else {
        return Vec::new();
    };
    if low > high {
        return Vec::new();
    }
    let mut canvas = Canvas(vec![[0; WIDTH]; HEIGHT]);
    let mut before = None;
    for (x, mean) in means.iter().enumerate() {
        let y = mean.map(|mean| height_of(mean, low, high));
        if let Some(y) = y {
            canvas.stroke(x, before.unwrap_or(y), y);
        }
        before = y;
    }
    canvas.with_axes(low, high, *first, *last)
}

/// The mean of each column of dots; few points are spread over the columns.
fn means(points: &[(i64, f64)]) -> Vec<Option<f64>> {
    let count = points.len();
    (0..DOTS_WIDE)
        .map(|x| {
            let from = x * count / DOTS_WIDE;
            let to = ((x + 1) * count / DOTS_WIDE).max(from + 1);
            let column = points.get(from..to.min(count)).unwrap_or_default();
            let finite = column.iter().map(|(_, y)| *y).filter(|y| y.is_finite());
            let (sum, number) = finite.fold((0.0, 0.0), |(sum, n), y| (sum + y, n + 1.0));
            (number > 0.0).then_some(sum / number)
        })
        .collect()
}

fn range(means: &[Option<f64>]) -> (f64, f64) {
    means.iter().flatten().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), mean| {
        (low.min(*mean), high.max(*mean))
    })
}

/// Row of dots, the highest value in row 0; equal values lie in the middle.
fn height_of(value: f64, low: f64, high: f64) -> usize {
    let share = if high > low { (high - value) / (high - low) } else { 0.5 };
    (0..DOTS_HIGH).rev().find(|row| share >= row_start(*row)).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "rows are few")]
fn row_start(row: usize) -> f64 {
    row as f64 / DOTS_HIGH as f64
}

impl Canvas {
    /// A vertical line in column `x`, both ends included.
    fn stroke(&mut self, x: usize, from: usize, to: usize) {
        for y in from.min(to)..=from.max(to) {
            let bit = match (x % 2, y % 4) {
                (0, 3) => 6,
                (0, row) => row,
                (_, 3) => 7,
                (_, row) => row + 3,
            };
            if let Some(cell) = self.0.get_mut(y / 4).and_then(|row| row.get_mut(x / 2)) {
                *cell |= 1 << bit;
            }
        }
    }

    fn with_axes(&self, low: f64, high: f64, first: i64, last: i64) -> Vec<String> {
        let mut lines = Vec::with_capacity(HEIGHT + 2);
        for (row, cells) in self.0.iter().enumerate() {
            let label = match row {
                0 => format!("{high:.3} ┤"),
                _ if row == HEIGHT / 2 => format!("{:.3} ┤", f64::midpoint(low, high)),
                _ if row == HEIGHT - 1 => format!("{low:.3} ┤"),
                _ => "│".into(),
            };
            let dots: String = cells.iter().filter_map(|dots| braille(*dots)).collect();
            lines.push(format!("{label:>12}{}", dots.trim_end_matches('\u{2800}')));
        }
        lines.push(format!("{:>12}{}", "└", "─".repeat(WIDTH)));
        let (first, last) = (format!("step {first}"), format!("step {last}"));
        let gap = WIDTH.saturating_sub(first.len());
        lines.push(format!("{:12}{first}{last:>gap$}", ""));
        lines
    }
}

fn braille(dots: u8) -> Option<char> {
    char::from_u32(BRAILLE + u32::from(dots))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rising_line_goes_from_bottom_left_to_top_right() {
        let points: Vec<(i64, f64)> = (0..100).map(|step| (step, step as f64)).collect();
        let lines = draw(&points);
        assert_eq!(lines.len(), HEIGHT + 2);
        assert!(lines[0].starts_with("    99.000 ┤\u{2800}"), "{}", lines[0]);
        assert!(lines[HEIGHT - 1].starts_with("     0.000 ┤"), "{}", lines[HEIGHT - 1]);
        assert!(lines[HEIGHT + 1].ends_with("step 99"), "{}", lines[HEIGHT + 1]);
    }

    #[test]
    fn nothing_to_draw_gives_no_lines() {
        assert!(draw(&[]).is_empty());
        assert!(draw(&[(1, f64::NAN), (2, f64::INFINITY)]).is_empty());
    }

    #[test]
    fn one_value_is_drawn_in_the_middle() {
        let lines = draw(&[(7, 0.5)]);
        assert!(lines[HEIGHT / 2].chars().any(|c| c > '\u{2800}'), "{lines:?}");
    }
}
