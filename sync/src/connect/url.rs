//! Reads the two spellings of a libpq connection string into keys and values, in their order.
//!
//! No error shows any part of the text: where the text is malformed, a piece of the password may
//! stand anywhere.

use super::TargetError;

/// The longest connection string, in bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Splits a URL (`postgresql://…`) or a keyword string (`host=… user=…`).
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, TargetError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(TargetError::Syntax("it is longer than 16 KiB"));
    }
    match text.split_once("://") {
        Some(("postgres" | "postgresql", rest)) => parse_url(rest),
        Some((scheme, _)) if !scheme.contains(['=', ' ']) => Err(TargetError::Scheme),
        _ => parse_keywords(text),
    }
}

fn parse_url(rest: &str) -> Result<Vec<(String, String)>, TargetError> {
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // A second `@` is part of a password; reading on would send that part to the DNS as a host.
    if tail.contains('@') || authority.matches('@').count() > 1 {
        return Err(TargetError::UnescapedAt);
    }
    let (user_info, hosts) = authority.split_once('@').unwrap_or(("", authority));
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let (host, port) = split_hosts(hosts)?;

    let mut pairs = Vec::new();
    let dbname = path.strip_prefix('/').unwrap_or(path);
    for (key, value) in [
        ("user", user),
        ("password", password),
        ("host", &host),
        ("port", &port),
        ("dbname", dbname),
    ] {
        if !value.is_empty() {
            pairs.push((key.to_owned(), decode(value)?));
        }
    }
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (key, value) =
            option.split_once('=').ok_or(TargetError::Syntax("an option after `?` has no `=`"))?;
        pairs.push((decode(key)?, decode(value)?));
    }
    Ok(pairs)
}

/// Splits `host:port,[::1]:port` into a list of hosts and one of ports; both stay comma-separated.
fn split_hosts(hosts: &str) -> Result<(String, String), TargetError> {
    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(address) => {
                address.split_once(']').ok_or(TargetError::Syntax("a `[` has no `]`"))?
            }
            None => host.split_at(host.find(':').unwrap_or(host.len())),
        };
        names.push(name);
        ports.push(port.strip_prefix(':').unwrap_or(port));
    }
    let ports = if ports.iter().all(|port| port.is_empty()) { Vec::new() } else { ports };
    Ok((names.join(","), ports.join(",")))
}

fn decode(text: &str) -> Result<String, TargetError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => hex(rest.next()).zip(hex(rest.next())).map(|(high, low)| high << 4 | low),
            _ => Some(byte),
        };
        let byte = decoded.filter(|byte| *byte != 0);
        bytes.push(byte.ok_or(TargetError::Syntax("a `%` must be written as %25"))?);
    }
    String::from_utf8(bytes).map_err(|_| TargetError::Syntax("its escapes are not UTF-8"))
}

fn hex(digit: Option<u8>) -> Option<u8> {
    u8::try_from(char::from(digit?).to_digit(16)?).ok()
}

fn parse_keywords(text: &str) -> Result<Vec<(String, String)>, TargetError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or(TargetError::Syntax(WORD))?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(TargetError::Syntax(WORD));
        }
        let (value, after) = keyword_value(after.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

const WORD: &str = "a word has no `=`; quote values that contain spaces: password='…'";

/// Takes one value, quoted or not, and returns what follows it.
fn keyword_value(text: &str) -> Result<(String, &str), TargetError> {
    let quoted = text.strip_prefix('\'');
    let mut rest = quoted.unwrap_or(text).chars();
    let mut value = String::new();
    loop {
        match rest.next() {
            Some('\\') => value.extend(rest.next()),
            Some('\'') if quoted.is_some() => return Ok((value, rest.as_str())),
            Some(space) if quoted.is_none() && space.is_whitespace() => {
                return Ok((value, rest.as_str()));
            }
            Some(letter) => value.push(letter),
            None if quoted.is_some() => return Err(TargetError::Syntax("a quote is not closed")),
            None => return Ok((value, "")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairs as `key=value` words.
    fn parsed(text: &str) -> String {
        let words: Vec<_> =
            parse(text).unwrap().iter().map(|(key, value)| format!("{key}={value}")).collect();
        words.join(" ")
    }

    #[test]
    fn urls_are_split_and_decoded() {
        for (text, expected) in [
            ("postgresql://h/d", "host=h dbname=d"),
            ("postgres://u:a%40b%25@h:1/d", "user=u password=a@b% host=h port=1 dbname=d"),
            ("postgres://u:a:b#c@h", "user=u password=a:b#c host=h"),
            ("postgres://h1:1,[::1]:2,h3/d", "host=h1,::1,h3 port=1,2, dbname=d"),
            ("postgresql:///d?host=/run/pg", "dbname=d host=/run/pg"),
            ("postgresql://%2Frun%2Fpg/d?", "host=/run/pg dbname=d"),
            ("postgres://h?options=-c%20a%3Db&x=", "host=h options=-c a=b x="),
        ] {
            assert_eq!(parsed(text), expected, "{text}");
        }
    }

    #[test]
    fn keyword_strings_are_split_and_unquoted() {
        for (text, expected) in [
            ("", ""),
            ("host = h  port=1 ", "host=h port=1"),
            (r"password='it\'s a \\' user=u", r"password=it's a \ user=u"),
            (r"password=a\ b://c user=''", "password=a b://c user="),
        ] {
            assert_eq!(parsed(text), expected, "{text}");
        }
    }
}
