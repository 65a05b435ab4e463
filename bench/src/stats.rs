//! Medians: the machine is never quiet.

/// Median, least and greatest of some numbers.
pub(crate) struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

pub(crate) fn spread(mut numbers: Vec<f64>) -> Spread {
    numbers.sort_by(f64::total_cmp);
    let at = |index: usize| numbers.get(index).copied().unwrap_or(f64::NAN);
    Spread {
        median: at(numbers.len() / 2),
        least: at(0),
        greatest: at(numbers.len().saturating_sub(1)),
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let Self { median, least, greatest } = self;
        write!(f, "{median:.digits$} ({least:.digits$}–{greatest:.digits$})")
    }
}
