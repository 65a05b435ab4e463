//! Which call fails, at which of its numbers, and how.

use std::fmt;

use super::trace::Call;

/// The calls that a store depends on, with the errors that each is known to return. `EINTR` only
/// ever comes once: for ever it would mean that nobody may ask again. Left out is what would be a
/// lie and not a fault: that a file is not there (`ENOENT`), or is (`EEXIST`), or that another holds
/// a lock (`EWOULDBLOCK`). The store has to believe these; the harness `environment` makes them true.
const CALLS: [(&str, &[&str]); 17] = [
    ("write", &["EIO", "ENOSPC", "EDQUOT", "EINTR", "EROFS"]),
    ("pwrite64", &["EIO", "ENOSPC", "EDQUOT", "EINTR", "EROFS"]),
    ("fdatasync", &["EIO", "ENOSPC", "EDQUOT", "EINTR", "EROFS"]),
    ("fsync", &["EIO", "ENOSPC", "EDQUOT", "EINTR", "EROFS"]),
    ("openat", &["EIO", "ENOSPC", "EDQUOT", "EINTR", "EROFS", "EMFILE", "ENFILE", "EACCES"]),
    ("rename", &["EIO", "ENOSPC", "EDQUOT", "EROFS", "EACCES"]),
    ("renameat2", &["EIO", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EINVAL"]),
    ("linkat", &["EIO", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM"]),
    ("unlink", &["EIO", "EROFS", "EACCES"]),
    ("ftruncate", &["EIO", "ENOSPC", "EDQUOT", "EINTR", "EROFS"]),
    ("fallocate", &["EIO", "ENOSPC", "EDQUOT", "EINTR", "EROFS", "EOPNOTSUPP"]),
    ("flock", &["ENOLCK", "EINTR", "EIO"]),
    ("mkdir", &["EIO", "ENOSPC", "EDQUOT", "EROFS", "EACCES"]),
    ("statx", &["EIO", "EACCES"]),
    ("read", &["EIO", "EINTR"]),
    ("lseek", &["EIO"]),
    ("getdents64", &["EIO"]),
];

/// Their names, as strace takes them.
pub(super) fn names() -> String {
    CALLS.map(|(name, _)| name).join(",")
}

/// What happens at one call.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    call: Call,
    how: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    /// This call fails, the next one does not.
    Once(&'static str),
    /// This one and all later ones of its name fail.
    FromThenOn(&'static str),
    /// The process dies before the call takes effect.
    Kill,
}

/// Everything that can happen at a call.
pub(super) fn of(call: &Call) -> Vec<Fault> {
    let errors = CALLS.iter().find(|(name, _)| *name == call.name).map_or(&[][..], |(_, e)| e);
    let once = errors.iter().map(|error| How::Once(error));
    let lasting = errors.iter().filter(|error| **error != "EINTR");
    let hows = once.chain(lasting.map(|error| How::FromThenOn(error))).chain([How::Kill]);
    hows.map(|how| Fault { call: call.clone(), how }).collect()
}

impl Fault {
    /// The name of its call.
    pub(super) fn call(&self) -> &str {
        &self.call.name
    }

    /// Whether the process is to die of it.
    pub(super) fn kills(&self) -> bool {
        matches!(self.how, How::Kill)
    }

    /// What it is counted under.
    pub(super) fn kind(&self) -> String {
        match self.how {
            How::Once(error) | How::FromThenOn(error) => format!("{} {error}", self.call.name),
            How::Kill => "SIGKILL".to_owned(),
        }
    }

    /// As strace takes it.
    pub(super) fn expression(&self) -> String {
        let Call { name, number } = &self.call;
        match self.how {
            How::Once(error) => format!("inject={name}:error={error}:when={number}"),
            How::FromThenOn(error) => format!("inject={name}:error={error}:when={number}+"),
            How::Kill => format!("inject={name}:signal=SIGKILL:when={number}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.expression())
    }
}
