//! Ids: what may name a session, a checkpoint or an event.
//!
//! An id becomes part of a file name, so it is checked once, when it is made; afterwards no code
//! asks again. Allowed are ASCII letters, digits and `. _ - : + = @`; the first character is a
//! letter, a digit or `_`; the last is not a dot; at most 128 bytes, and 200 where each `:` counts
//! as three, as it does in a file name. That rules out folders,
//! hidden files, two spellings of one letter and names that a file system folds. Case matters.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Longest id, in bytes: a file name holds 255, and it carries a prefix, a suffix and an ending.
pub const ID_BYTES_MAX: usize = 128;

/// Longest id as part of a file name, beside a prefix, the place of an event and an ending.
const NAME_BYTES_MAX: usize = 200;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} id {shown:?} {reason}")]
pub struct InvalidId {
    kind: &'static str,
    shown: String,
    reason: String,
}

/// Names that Windows keeps for devices, with any ending.
const RESERVED: [&str; 22] = [
    "con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8",
    "com9", "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
];

fn check(kind: &'static str, text: &str) -> Result<(), InvalidId> {
    match fault(text) {
        None => Ok(()),
        Some(reason) => {
            Err(InvalidId { kind, shown: text.chars().take(ID_BYTES_MAX).collect(), reason })
        }
    }
}

fn fault(text: &str) -> Option<String> {
    let Some(first) = text.chars().next() else { return Some("is empty".into()) };
    if text.len() > ID_BYTES_MAX {
        return Some(format!("has {} bytes, the limit is {ID_BYTES_MAX}", text.len()));
    }
    if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
        return Some(format!("holds {bad:?}; use letters, digits and . _ - : + = @"));
    }
    if !(first.is_ascii_alphanumeric() || first == '_') {
        return Some("must begin with a letter, a digit or _".into());
    }
    let name_bytes = in_file_name(text).len();
    if name_bytes > NAME_BYTES_MAX {
        return Some(format!(
            "has {name_bytes} bytes in a file name, where : takes three; the limit is \
             {NAME_BYTES_MAX}"
        ));
    }
    if text.ends_with('.') {
        return Some("must not end with a dot".into());
    }
    let stem = text.split('.').next().unwrap_or_default().to_ascii_lowercase();
    if RESERVED.contains(&stem.as_str()) {
        return Some("is a device name on some systems".into());
    }
    None
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-:+=@".contains(c)
}

/// An id as part of a file name: `:` is a path separator or a stream mark on some systems.
fn in_file_name(id: &str) -> String {
    id.replace(':', "%3A")
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks a text and keeps it as an id.
            ///
            /// # Errors
            /// [`InvalidId`] names the rule that the text breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                check($kind, &text)?;
                Ok(Self(text))
            }

            /// An id that this library made of allowed characters.
            #[allow(dead_code, reason = "not every kind of id is made here")]
            pub(crate) fn unchecked(text: String) -> Self {
                Self(text)
            }

            /// The id's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id as part of a file name: no separator, no folder.
            pub(crate) fn in_file_name(&self) -> String {
                in_file_name(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id! {
    /// One training run. Several processes and several attempts may write the same session.
    SessionId, "session"
}
text_id! {
    /// One saved model state.
    CheckpointId, "checkpoint"
}
text_id! {
    /// One emergency event.
    EventId, "event"
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new random id; it carries nothing of the machine.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The id as a UUID.
            pub fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

random_id! {
    /// One store, born with its folder.
    StoreId
}
random_id! {
    /// One segment, born in its header line.
    SegmentId
}

impl SegmentId {
    /// The first eight hexadecimal digits, to tell files of one session apart.
    pub(crate) fn short(&self) -> String {
        let mut text = self.0.simple().to_string();
        text.truncate(8);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_of_the_specification_are_ids() {
        for id in ["session_20251218_001", "run-7", "_x", "a", "2026-01-05T09:30:00+01:00"] {
            assert!(SessionId::new(id).is_ok(), "{id}");
        }
        assert!(CheckpointId::new("checkpoint_20251218_143022_0.723").is_ok());
    }

    #[test]
    fn ids_that_could_leave_the_folder_are_refused() {
        let (long, colons) = ("x".repeat(ID_BYTES_MAX + 1), format!("a{}", ":".repeat(100)));
        for id in [
            "", ".", "..", "../x", "/etc/x", "a/b", "a\\b", "a\0b", "a\nb", "-x", ".x", "x.", "é",
            "CON", "nul.json", "a b", &long, &colons,
        ] {
            assert!(SessionId::new(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn ids_too_long_for_a_file_name_are_refused() {
        let colons = |count| format!("a{}", ":".repeat(count));
        assert!(EventId::new(colons(66)).is_ok());
        let error = EventId::new(colons(67)).unwrap_err().to_string();
        assert!(error.contains("has 202 bytes in a file name"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn no_id_leaves_its_folder(
            text in prop_oneof!["\\PC{0,300}", "[a-zA-Z0-9._:/%\\\\~-]{0,140}", "\\.{0,4}[/:.]{0,3}x?"]
        ) {
            let ids = [
                SessionId::new(&*text).map(|id| id.in_file_name()),
                CheckpointId::new(&*text).map(|id| id.in_file_name()),
                EventId::new(&*text).map(|id| id.in_file_name()),
            ];
            for name in ids.into_iter().flatten() {
                let parts: Vec<Component<'_>> = Path::new(&name).components().collect();
                prop_assert_eq!(parts, [Component::Normal(name.as_ref())]);
                prop_assert!(!name.starts_with('.') && name.len() + 55 <= 255);
                prop_assert!(name.bytes().all(|b| b.is_ascii_graphic() && !b"/\\:".contains(&b)));
                prop_assert_eq!(name.replace("%3A", ":"), text.as_str());
            }
        }
    }

    #[test]
    fn an_invalid_id_names_kind_value_and_rule() {
        let error = CheckpointId::new("a/b").unwrap_err().to_string();
        assert_eq!(error, "checkpoint id \"a/b\" holds '/'; use letters, digits and . _ - : + = @");
    }

    #[test]
    fn a_colon_does_not_reach_a_file_name() {
        let id = EventId::new("2025-12-18T08:25:34").unwrap();
        assert_eq!(id.in_file_name(), "2025-12-18T08%3A25%3A34");
    }
}
