//! Looks a password up in libpq's password file: `host:port:database:user:password` lines.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::TargetError;

/// The largest password file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where the password file is, and whether somebody asked for it by name.
pub(super) enum Passfile {
    /// `passfile=` or `PGPASSFILE`: it must exist.
    Named(PathBuf),
    /// `~/.pgpass`: used when it exists.
    Usual(PathBuf),
}

/// What a line of the file is matched against.
pub(super) struct Login<'a> {
    /// Host name, address or socket folder.
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) dbname: &'a str,
    pub(super) user: &'a str,
}

impl Passfile {
    /// Reads the whole file; empty when the usual one does not exist.
    pub(super) fn read(&self) -> Result<String, TargetError> {
        let (Self::Named(path) | Self::Usual(path)) = self;
        match read_private(path) {
            Err(TargetError::File { source, .. })
                if source.kind() == ErrorKind::NotFound && matches!(self, Self::Usual(_)) =>
            {
                Ok(String::new())
            }
            read => read,
        }
    }
}

fn read_private(path: &Path) -> Result<String, TargetError> {
    let failed = |source| TargetError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
        return Err(TargetError::PassfileMode { path: path.to_owned() });
    }
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(failed(std::io::Error::other("not a file of at most 1 MiB")));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// The password of the first line that fits.
pub(super) fn find(text: &str, login: &Login<'_>) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| fit(line, login))
}

fn fit(line: &str, login: &Login<'_>) -> Option<String> {
    let (host, rest) = field(line)?;
    let (port, rest) = field(rest)?;
    let (dbname, rest) = field(rest)?;
    let (user, password) = field(rest)?;
    let fits = |pattern: &str, value: &str| pattern == "*" || pattern == value;
    let host_fits = fits(&host, login.host) || (host == "localhost" && login.host.starts_with('/'));
    let all = host_fits
        && fits(&port, &login.port.to_string())
        && fits(&dbname, login.dbname)
        && fits(&user, login.user);
    all.then(|| unescape(password))
}

/// Takes the text up to the next bare colon, and what follows that colon.
fn field(text: &str) -> Option<(String, &str)> {
    let mut escaped = false;
    let end = text.find(|letter| {
        let ends = letter == ':' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends
    })?;
    let (field, rest) = text.split_at(end);
    Some((unescape(field), rest.strip_prefix(':')?))
}

fn unescape(text: &str) -> String {
    let mut letters = text.chars();
    let mut plain = String::new();
    while let Some(letter) = letters.next() {
        plain.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_fitting_line_gives_the_password() {
        let text = "# h:1:d:u:comment\nshort:line\nh:2:d:u:port\n::1:1:d:u:colons\n\
                    \\:\\:1:1:d:u:v6\nlocalhost:*:*:u:socket\nh:1:d:u:a\\:b:c\\\\\n*:*:*:*:rest\n";
        for (host, port, expected) in [
            ("h", 1, "a:b:c\\"),
            ("h", 2, "port"),
            ("::1", 1, "v6"),
            ("/run/postgresql", 9, "socket"),
            ("other", 1, "rest"),
        ] {
            let login = Login { host, port, dbname: "d", user: "u" };
            assert_eq!(find(text, &login).as_deref(), Some(expected), "{host}:{port}");
        }
        let login = Login { host: "h", port: 3, dbname: "d", user: "u" };
        assert_eq!(find("h:1:d:u:p", &login), None);
    }
}
