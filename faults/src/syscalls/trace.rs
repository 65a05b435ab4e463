//! Which calls touch the store? From a run that nothing breaks.

use std::collections::{BTreeMap, BTreeSet};

use super::{fault, inject};
use crate::scenario::Task;
use crate::{Options, Result};

/// One call: the so-manieth of its name in one of the threads, the first is 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) number: usize,
}

/// The calls that name a file of the store.
///
/// # Errors
/// The scenario does not end well.
pub(super) fn calls(options: &Options, task: &Task) -> Result<BTreeSet<Call>> {
    let folder = inject::folder()?;
    let trace = inject::trace(options, task, folder.path(), &fault::names())?;
    let store = folder.path().join("store").to_string_lossy().into_owned();
    Ok(parse(&trace, &store))
}

/// Each line begins a call, `17 write(5</store/file>, …`, or goes on with one.
fn parse(trace: &str, store: &str) -> BTreeSet<Call> {
    let mut numbers: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = rest.trim_start().split_once('(') else { continue };
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let number = numbers.entry((thread, name)).or_default();
        *number += 1;
        if arguments.contains(store) {
            found.insert(Call { name: name.to_owned(), number: *number });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_numbered_by_name_and_thread_and_those_elsewhere_are_left_out() {
        let trace = r#"10 openat(AT_FDCWD</>, "/lib/libc.so.6", O_RDONLY) = 3
10 openat(AT_FDCWD</>, "/s/store/a", O_RDONLY <unfinished ...>
11 openat(AT_FDCWD</>, "/s/store/b", O_RDONLY) = 4
10 <... openat resumed>)             = 5
10 write(5</s/store/a>, "x", 1) = 1
10 +++ exited with 0 +++
"#;
        let found = parse(trace, "/s/store");
        let found: Vec<(&str, usize)> =
            found.iter().map(|call| (call.name.as_str(), call.number)).collect();
        assert_eq!(found, [("openat", 1), ("openat", 2), ("write", 1)]);
    }
}
