//! Texts of a line on their way into columns.
//!
//! PostgreSQL holds every text but those with U+0000, which is shown as U+FFFD. Free-form values have
//! a form for such texts and come back exactly; names of fields and plain texts have none.

use serde::Serialize;

use crate::field::Field;
use crate::quarantine::Refusal;

const REPLACEMENT: &str = "\u{fffd}";
/// How JSON writes U+0000.
const ESCAPED_NUL: &str = "\\u0000";

/// Makes columns of texts, and remembers whether one of them had to be changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Texts {
    is_changed: bool,
}

impl Texts {
    pub(crate) fn text(&mut self, text: &str) -> String {
        self.is_changed |= text.contains('\0');
        text.replace('\0', REPLACEMENT)
    }

    pub(crate) fn field(&mut self, text: Option<&str>) -> Field {
        text.map_or(Field::Null, |text| Field::Text(self.text(text)))
    }

    pub(crate) fn json(
        &mut self,
        name: &str,
        value: Option<&impl Serialize>,
    ) -> Result<Field, Refusal> {
        let Some(value) = value else { return Ok(Field::Null) };
        let json = serde_json::to_string(value).map_err(|error| Refusal::no_json(name, &error))?;
        let clean = without_nul(&json);
        self.is_changed |= clean != json;
        Ok(Field::Json(clean))
    }

    /// Whether a text was changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.is_changed)
    }
}

/// JSON whose texts have U+FFFD in place of U+0000. After an odd number of backslashes the escape's
/// own backslash is escaped, and what follows is plain letters.
fn without_nul(json: &str) -> String {
    let mut clean = String::with_capacity(json.len());
    let mut rest = json;
    while let Some((before, after)) = rest.split_once(ESCAPED_NUL) {
        let backslashes = before.len() - before.trim_end_matches('\\').len();
        clean.push_str(before);
        clean.push_str(if backslashes % 2 == 0 { REPLACEMENT } else { ESCAPED_NUL });
        rest = after;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nul_in_json_is_replaced_and_nothing_else() {
        let texts = ["\0", "\0\0", "\\\0", "\\u0000", "\\\\u0000\0", "\\\\\\u0000", "é\0"];
        for text in texts {
            let json = serde_json::to_string(text).unwrap();
            let clean: String = serde_json::from_str(&without_nul(&json)).unwrap();
            assert_eq!(clean, text.replace('\0', "\u{fffd}"), "{json}");
        }
    }

    #[test]
    fn a_change_is_told_once() {
        let mut texts = Texts::default();
        assert_eq!(texts.text("plain"), "plain");
        assert!(!texts.take_changed());
        texts.json("x", Some(&"a\0b")).unwrap();
        assert!(texts.take_changed() && !texts.take_changed());
    }
}
