//! Names of members: ones that a person recognises, and that are safe to unpack.

use std::collections::HashMap;

use crate::value::{Step, Value};

/// Most characters of one part of a name.
const PART_CHARS_MAX: usize = 80;

/// Most parts of a name; the innermost are kept.
const PARTS_MAX: usize = 12;

/// Makes names and remembers them, so that no two are the same, not even by letter case.
#[derive(Default)]
pub(super) struct Names {
    uses: HashMap<String, usize>,
}

impl Names {
    /// Returns a new name for the array at this place of the state.
    pub(super) fn member(&mut self, path: &[Step<'_>]) -> String {
        let parts = path.iter().skip(path.len().saturating_sub(PARTS_MAX)).map(part);
        let stem = std::iter::once("state".to_owned()).chain(parts).collect::<Vec<_>>().join("/");
        let uses = self.uses.entry(stem.to_lowercase()).or_insert(0);
        *uses = uses.saturating_add(1);
        // No part keeps a `~` of its own, so a numbered name is never another key's name.
        if *uses == 1 { format!("{stem}.npy") } else { format!("{stem}~{uses}.npy") }
    }
}

/// One part of a name: the key without what is special in a path.
fn part(step: &Step<'_>) -> String {
    let text = match step {
        Step::Index(index) => index.to_string(),
        Step::Key(Value::Text(key)) => key.clone(),
        Step::Key(Value::Int(key)) => key.to_string(),
        Step::Key(key) => key.kind().to_owned(),
    };
    let is_kept = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let kept: String =
        text.chars().take(PART_CHARS_MAX).map(|c| if is_kept(c) { c } else { '_' }).collect();
    if kept.chars().all(|c| c == '.') { format!("_{}", kept.len()) } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of<const N: usize>(keys: [&str; N]) -> [String; N] {
        let mut names = Names::default();
        keys.map(|key| names.member(&[Step::Key(&key.into())]))
    }

    #[test]
    fn a_person_recognises_the_array() {
        let (encoder, layer) = (Value::from("encoder"), Value::from("layer.0"));
        let path = [Step::Key(&encoder), Step::Index(3), Step::Key(&layer)];
        assert_eq!(Names::default().member(&path), "state/encoder/3/layer.0.npy");
        assert_eq!(Names::default().member(&[]), "state.npy");
    }

    #[test]
    fn names_differ_when_keys_do() {
        let names = names_of(["a b", "a_b", "A_B", "a_b~2", "a_b_2"]);
        assert_eq!(
            names,
            ["a_b", "a_b~2", "A_B~3", "a_b_2", "a_b_2~2"].map(|name| format!("state/{name}.npy"))
        );
    }

    #[test]
    fn no_key_leads_out_of_the_archive() {
        let names = names_of(["..", ".", "", "../x", "/etc/passwd", "C:\\x", "\0\n"]);
        let expected = ["_2", "_1", "_0", ".._x", "_etc_passwd", "C__x", "__"];
        assert_eq!(names, expected.map(|name| format!("state/{name}.npy")));
    }

    #[test]
    fn long_keys_and_long_ways_are_cut() {
        let long = Value::from("ä".repeat(10_000));
        let name = Names::default().member(&[Step::Key(&long); 90]);
        assert!(name.len() < 2_500, "{}", name.len());
    }
}
