//! Which system calls did the program under test make? As `strace` saw them.
//!
//! Only calls that succeeded are kept. Of two threads' calls that overlapped, each is placed where
//! it ended; a persist also knows where it began, because it covers no write that came later.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::scenario::Task;
use crate::{Error, Options, Result};

/// Calls that change what is on a disk, move a place in a file, or tell something; and those that
/// the model does not know, so that they are noticed.
const CALLS: &str = "trace=openat,open,creat,close,dup,dup2,dup3,fcntl,lseek,read,write,pwrite64,\
    writev,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,sync,syncfs,\
    sync_file_range,msync,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,\
    mkdir,mkdirat,rmdir,copy_file_range,sendfile,splice,mmap";

/// Longest string that is shown; a write that is longer is an error.
const STRING_BYTES_MAX: &str = "67108864";

/// One call that succeeded.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    pub(super) result: usize,
    /// Lines of the trace where it began and ended.
    pub(super) began: usize,
    pub(super) ended: usize,
}

/// Whether `strace` is there and may trace.
pub(super) fn is_possible() -> bool {
    let status = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Runs the program under test in a store and returns its calls.
pub(super) fn trace(options: &Options, task: &Task, store: &Path) -> Result<Vec<Call>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("trace");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-xx", "-s", STRING_BYTES_MAX, "-e", "signal=none", "-e", CALLS, "-o"])
        .arg(&path)
        .arg(&options.program)
        .args(task.arguments(store))
        .stdout(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(
            format!("{} under strace ended with {status}", options.program.display()).into()
        );
    }
    parse(&std::fs::read_to_string(&path)?)
}

fn parse(text: &str) -> Result<Vec<Call>> {
    let mut unfinished: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (thread, call) = line.split_once(char::is_whitespace).ok_or_else(|| odd(line))?;
        let call = call.trim_start();
        if let Some(begin) = call.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (number, begin));
        } else if let Some(resumed) = call.strip_prefix("<... ") {
            let (began, begin) = unfinished.remove(thread).ok_or_else(|| odd(line))?;
            let (_, rest) = resumed.split_once(" resumed>").ok_or_else(|| odd(line))?;
            calls.extend(parse_call(&format!("{begin}{rest}"), began, number)?);
        } else if !call.starts_with("+++") {
            calls.extend(parse_call(call, number, number)?);
        }
    }
    // a descriptor's number is free as soon as its close has begun
    calls.sort_by_key(|call| if call.name == "close" { call.began } else { call.ended });
    Ok(calls)
}

/// `None` for a call that failed or never returned.
fn parse_call(text: &str, began: usize, ended: usize) -> Result<Option<Call>> {
    let (name, rest) = text.split_once('(').ok_or_else(|| odd(text))?;
    let (arguments, result) = rest.rsplit_once(" = ").ok_or_else(|| odd(text))?;
    let arguments = arguments.trim_end().strip_suffix(')').ok_or_else(|| odd(text))?;
    let result = result.split_whitespace().next().unwrap_or_default();
    let result = match result.strip_prefix("0x") {
        Some(_) => Some(0), // an address
        None => result.parse().ok(),
    };
    Ok(result.map(|result| Call {
        name: name.to_owned(),
        arguments: split(arguments),
        result,
        began,
        ended,
    }))
}

/// Arguments, split at the commas outside of brackets. Strings hold nothing but `\x..`.
fn split(text: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let mut depth = 0;
    for character in text.chars() {
        match character {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        match arguments.last_mut() {
            Some(last) if character != ',' || depth > 0 => last.push(character),
            _ => arguments.push(String::new()),
        }
    }
    arguments.iter().map(|argument| argument.trim().to_owned()).collect()
}

fn odd(line: &str) -> Error {
    let shown: String = line.chars().take(200).collect();
    format!("strace wrote a line that is not understood: {shown}").into()
}

impl Call {
    /// The argument of this number as it was written.
    pub(super) fn argument(&self, number: usize) -> &str {
        self.arguments.get(number).map_or("", String::as_str)
    }

    /// An argument that is a number.
    pub(super) fn number(&self, number: usize) -> Result<usize> {
        let argument = self.argument(number);
        argument.parse().map_err(|_| format!("{}: {argument:?} is no number", self.name).into())
    }

    /// An argument that is a string; of a vector, its strings together.
    pub(super) fn bytes(&self, number: usize) -> Result<Vec<u8>> {
        let argument = self.argument(number);
        if argument.contains("\"...") {
            return Err(format!("{}: a string is longer than {STRING_BYTES_MAX}", self.name).into());
        }
        let strings = argument.split('"').skip(1).step_by(2);
        let hex = strings.flat_map(|string| string.split("\\x").skip(1));
        hex.map(|digits| u8::from_str_radix(digits, 16).map_err(|_| odd(argument))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_overlap_are_put_together_and_failed_ones_left_out() {
        let text = "10 fsync(5 <unfinished ...>\n\
            11 write(1, \"\\x6f\\x6b\", 2) = 2\n\
            10 <... fsync resumed>) = 0\n\
            11 open(\"\\x2f\", O_RDONLY) = -1 ENOENT (No such file or directory)\n\
            11 +++ exited with 0 +++\n";
        let calls = parse(text).unwrap();
        let places: Vec<(&str, usize, usize)> =
            calls.iter().map(|call| (call.name.as_str(), call.began, call.ended)).collect();
        assert_eq!(places, [("write", 1, 1), ("fsync", 0, 2)]);
        assert_eq!(calls[0].bytes(1).unwrap(), b"ok");
    }

    #[test]
    fn the_strings_of_a_vector_are_one_write() {
        let text = "10 writev(5, [{iov_base=\"\\x61\", iov_len=1}, {iov_base=\"\\x62\\x63\", iov_len=2}], 2) = 3\n";
        let calls = parse(text).unwrap();
        assert_eq!(calls[0].bytes(1).unwrap(), b"abc");
        assert_eq!(calls[0].arguments.len(), 3);
    }
}
