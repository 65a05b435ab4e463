//! The configuration file.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::Options;

/// Longest file that is read; one has some hundred bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a configuration cannot be used. No text of it shows a database's URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file, or one that it names, cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not one of settings.
    #[error(
        "{}:{line}: {reason}; the settings are the options of `tidelog-sync run --help`, without \
         their dashes", path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// Where; the first line is 1.
        line: usize,
        /// The key, and what is wrong.
        reason: String,
    },
    /// A value that cannot be used.
    #[error("`{key}` is {value}, which must be {expected}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
}

/// Reads the settings that the file has, and the names of their keys.
///
/// # Errors
/// It cannot be read, is not TOML, has an unknown key, or a value of another kind.
pub(super) fn read(path: &Path) -> Result<(Options, Vec<String>), ConfigError> {
    parse(&read_short(path)?, path)
}

/// A small text file.
pub(super) fn read_short(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        let reason = format!("it has {bytes} bytes, which is too long for settings");
        return Err(failed(io::Error::other(reason)));
    }
    fs::read_to_string(path).map_err(failed)
}

fn parse(text: &str, path: &Path) -> Result<(Options, Vec<String>), ConfigError> {
    let refused = |error: toml::de::Error| {
        let (line, key) = place(text, error.span());
        let reason = match key {
            Some(key) => format!("`{key}`: {}", error.message()),
            None => error.message().to_owned(),
        };
        ConfigError::File { path: path.to_owned(), line, reason }
    };
    let options: Options = toml::from_str(text).map_err(refused)?;
    let table: toml::Table = toml::from_str(text).map_err(refused)?;
    Ok((options, table.into_iter().map(|(key, _)| key).collect()))
}

/// The line of a place, and the key before the `=` in it.
fn place(text: &str, span: Option<Range<usize>>) -> (usize, Option<&str>) {
    let start = span.map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let line = before.matches('\n').count();
    let key = text.lines().nth(line).and_then(|line| line.split_once('='));
    (line + 1, key.map(|(key, _)| key.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, Path::new("a.toml")).unwrap_err().to_string()
    }

    #[test]
    fn settings_are_read_with_the_names_of_the_options() {
        let text = "store = [\"/a\", \"/b\"]\ndrain-timeout = \"5s\"\nlisten = \"127.0.0.1:9\"";
        let (options, keys) = parse(text, Path::new("a.toml")).unwrap();
        assert_eq!(options.store, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(keys, ["drain-timeout", "listen", "store"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_key_and_value() {
        for (text, parts) in [
            ("\nlog-level = \"loud\"", ["a.toml:2", "`log-level`", "`loud`", "info"]),
            ("stores-max = \"x\"", ["a.toml:1", "`stores-max`", "\"x\"", "usize"]),
            ("drain-timeout = \"5x\"", ["a.toml:1", "`drain-timeout`", "`5x`", "25s"]),
            ("drane-timeout = 5", ["a.toml:1", "`drane-timeout`", "drain-timeout", "run --help"]),
            ("listen = \"here\"", ["a.toml:1", "`listen`", "here", "127.0.0.1"]),
        ] {
            let error = error(text);
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
    }

    #[test]
    fn no_error_shows_the_url() {
        for text in [
            "database-url = \"postgres://u:c4narY@h\"\nx = 1",
            "database-url = [\"postgres://u:c4narY@h\"]",
            "database-url = \"postgres://u:c4narY@h",
            "databse-url = \"postgres://u:c4narY@h\"",
            "database-url = postgres://u:c4narY@h",
            "database-url = { c4narY = 1 }",
        ] {
            assert!(!error(text).contains("c4narY"), "{text}: {}", error(text));
        }
    }
}
