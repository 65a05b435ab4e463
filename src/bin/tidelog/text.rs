//! Values as people read them.

use tidelog::Timestamp;

/// A number with four decimals, or a dash.
pub(crate) fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(number) if number == 0.0 || (1e-3..1e9).contains(&number.abs()) => {
            format!("{number:.4}")
        }
        Some(number) if number.is_finite() => format!("{number:.4e}"),
        Some(other) => other.to_string(),
    }
}

/// Anything that may be missing.
pub(crate) fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| clean(&value.to_string()))
}

/// A moment in UTC, to the second.
pub(crate) fn time(timestamp: Timestamp) -> String {
    timestamp.to_jiff().strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A size with a binary unit.
pub(crate) fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut size = bytes as f64 / 1024.0;
    let mut unit = "KiB";
    for larger in ["MiB", "GiB", "TiB", "PiB", "EiB"] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    format!("{size:.1} {unit}")
}

/// A duration in the two largest units that say something.
pub(crate) fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond i64 becomes its limit")]
    let whole = seconds as i64;
    match whole {
        ..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// "1 segment", "2 segments".
pub(crate) fn count(number: u64, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        many => format!("{many} {one}s"),
    }
}

/// A text in one line: control characters, which could also steer the terminal, are escaped.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => clean.extend(c.escape_default()),
            false => clean.push(c),
        }
    }
    clean
}

/// A text cut to `chars` characters; a cut shows as `…`.
pub(crate) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_are_short() {
        let shown = [0.0, 0.72, -1e-5, 1e12, f64::NAN].map(|n| number(Some(n)));
        assert_eq!(shown, ["0.0000", "0.7200", "-1.0000e-5", "1.0000e12", "NaN"]);
    }

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!([bytes(1023), bytes(1536), bytes(u64::MAX)], ["1023 B", "1.5 KiB", "16.0 EiB"]);
        assert_eq!([duration(1.25), duration(3_661.0)], ["1.2 s", "1 h 1 min"]);
    }

    #[test]
    fn a_text_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        assert_eq!(cut("äöü", 2), "äö…");
    }
}
