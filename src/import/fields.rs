//! The keys of an older file's object, taken one by one. What nobody takes is kept.

use super::json;
use crate::float::exact_from_integer;
use crate::telemetry::Telemetry;
use crate::value::Value;

/// Keys and values not taken yet, in their order.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, Value)>);

impl Fields {
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        Self::of(json::parse(text)?).ok_or_else(|| "is not a JSON object".into())
    }

    /// The keys of an object; none if the value is something else.
    pub(super) fn of(value: Value) -> Option<Self> {
        let Value::Dict(pairs) = value else { return None };
        let text = |(key, value)| match key {
            Value::Text(key) => Some((key, value)),
            _ => None,
        };
        pairs.into_iter().map(text).collect::<Option<_>>().map(Self)
    }

    /// Takes a value if `read` understands it; null is taken and is nothing. Any other value
    /// stays among the rest.
    fn take_as<T>(&mut self, key: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        let (_, value) = self.0.get(at)?;
        let taken = read(value);
        if taken.is_some() || *value == Value::Null {
            self.0.remove(at);
        }
        taken
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.take_as(key, |value| match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    pub(super) fn integer(&mut self, key: &str) -> Option<i64> {
        self.take_as(key, |value| match value {
            Value::Int(integer) => Some(*integer),
            _ => None,
        })
    }

    pub(super) fn float(&mut self, key: &str) -> Option<f64> {
        self.take_as(key, |value| match value {
            Value::Float(number) => Some(*number),
            Value::Int(integer) => exact_from_integer(*integer),
            _ => None,
        })
    }

    /// Takes an object; null is taken and is nothing.
    pub(super) fn object(&mut self, key: &str) -> Option<Fields> {
        let at = self.0.iter().position(|(name, value)| name == key && is_object_or_null(value))?;
        Self::of(self.0.remove(at).1)
    }

    /// Takes a whole value; null is nothing.
    pub(super) fn value(&mut self, key: &str) -> Option<Value> {
        self.take_as(key, |value| (*value != Value::Null).then(|| value.clone()))
    }

    /// Drops a key that says nothing new.
    pub(super) fn drop_text(&mut self, key: &str, text: &str) {
        self.0.retain(|(name, value)| name != key || *value != Value::from(text));
    }

    /// What is left, as a record's telemetry: named fields, and all others in `extra`.
    pub(super) fn into_telemetry(self) -> Telemetry {
        let mut telemetry = Telemetry::default();
        for (name, value) in self.0 {
            if let Err(other) = telemetry.set(&name, value) {
                telemetry.extra.insert(name, other);
            }
        }
        telemetry
    }

    /// What is left, key by key.
    pub(super) fn into_rest(self) -> Vec<(String, Value)> {
        self.0
    }

    /// What is left, to be kept as metadata: the key `metadata` stands for all if it is alone.
    pub(super) fn into_metadata(mut self) -> Option<Value> {
        if self.0.len() == 1
            && let Some(alone) = self.value("metadata")
        {
            return Some(alone);
        }
        self.into_dict()
    }

    /// Puts the rest of an inner object back under its key.
    pub(super) fn put_back(&mut self, key: &str, inner: Fields) {
        if let Some(rest) = inner.into_dict() {
            self.0.push((key.to_owned(), rest));
        }
    }

    fn into_dict(self) -> Option<Value> {
        let pairs: Vec<_> = self.0.into_iter().map(|(key, value)| (key.into(), value)).collect();
        (!pairs.is_empty()).then_some(Value::Dict(pairs))
    }
}

fn is_object_or_null(value: &Value) -> bool {
    matches!(value, Value::Dict(_) | Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_another_type_stays_among_the_rest() {
        let mut fields = Fields::parse(br#"{"step": 1.5, "metric": null, "value": 3}"#).unwrap();
        assert_eq!((fields.integer("step"), fields.text("metric")), (None, None));
        assert_eq!(fields.float("value"), Some(3.0));
        assert_eq!(fields.into_rest(), [("step".to_owned(), Value::Float(1.5))]);
    }

    #[test]
    fn an_object_that_is_null_is_nothing_and_another_value_stays() {
        let mut fields = Fields::parse(br#"{"telemetry": null, "emergency": 1}"#).unwrap();
        assert!(fields.object("telemetry").is_none() && fields.object("emergency").is_none());
        assert_eq!(fields.into_rest(), [("emergency".to_owned(), Value::Int(1))]);
    }

    #[test]
    fn metadata_alone_stands_for_itself_and_beside_others_keeps_its_name() {
        let metadata = |text: &[u8]| Fields::parse(text).unwrap().into_metadata();
        assert_eq!(metadata(br#"{"metadata": 7}"#), Some(Value::Int(7)));
        let both = Value::Dict(vec![("metadata".into(), Value::Int(7)), ("a".into(), true.into())]);
        assert_eq!(metadata(br#"{"metadata": 7, "a": true}"#), Some(both));
        assert_eq!(metadata(b"{}"), None);
        assert_eq!(metadata(br#"{"metadata": null}"#), None);
    }
}
