//! One telemetry record's fields: sixteen named ones and whatever else the caller measures.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::Value;
use crate::float::{Float, exact_from_integer, non_finite_from_text};

/// What was measured at one step. A field that was not measured is `None`.
///
/// Unknown names go to [`extra`](Self::extra) and come back as they went in; so does a named
/// field of another type (a text in `phi`, say). NaN and infinities are values like others.
///
/// ```
/// use tidelog::Telemetry;
/// let telemetry = Telemetry { phi: Some(0.72), ..Telemetry::default() }.with("loss", 0.31);
/// assert_eq!(telemetry.extra.len(), 1);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Telemetry {
    /// Integrated information Φ; by it checkpoints are ranked.
    pub phi: Option<f64>,
    /// Effective coupling κ.
    pub kappa_eff: Option<f64>,
    /// Name of the regime, such as `linear` or `geometric`.
    pub regime: Option<String>,
    /// Distance from the reference basin.
    pub basin_distance: Option<f64>,
    /// How many recursions the step took.
    pub recursion_depth: Option<i64>,
    /// Distance along the geodesic.
    pub geodesic_distance: Option<f64>,
    /// Curvature at the point.
    pub curvature: Option<f64>,
    /// Trace of the Fisher metric.
    pub fisher_metric_trace: Option<f64>,
    /// Share of the breakdown, in percent.
    pub breakdown_pct: Option<f64>,
    /// Drift of coherence.
    pub coherence_drift: Option<f64>,
    /// Whether the step counts as an emergency.
    pub emergency: Option<bool>,
    /// Meta-awareness.
    pub meta_awareness: Option<f64>,
    /// Generativity.
    pub generativity: Option<f64>,
    /// Grounding.
    pub grounding: Option<f64>,
    /// Coherence over time.
    pub temporal_coherence: Option<f64>,
    /// Coupling to the outside.
    pub external_coupling: Option<f64>,
    /// Everything else, by name.
    pub extra: BTreeMap<String, Value>,
}

impl Telemetry {
    /// Adds a metric. The name of a field sets the field if the value is one of its own as a line
    /// holds them: integers that a float can hold, `"NaN"` and the infinities as texts too, and
    /// [`Value::Null`] for not measured. Everything else goes to [`extra`](Self::extra).
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let Err(other) = self.set(name, value.into()) {
            self.extra.insert(name.to_owned(), other);
        }
        self
    }

    /// A name in `extra` that a line could not give back there: its field is set as well, or would
    /// take the value.
    pub(crate) fn misplaced(&self) -> Option<&str> {
        let taken = |name: &str, value: &Value| Self::default().set(name, value.clone()).is_ok();
        let mut named = self.extra.iter().filter(|(name, _)| is_named(name));
        let found = named.find(|(name, value)| self.is_set(name) || taken(name, value));
        found.map(|(name, _)| name.as_str())
    }

    /// Whether a named field was measured.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        match name {
            "regime" => self.regime.is_some(),
            "recursion_depth" => self.recursion_depth.is_some(),
            "emergency" => self.emergency.is_some(),
            _ => self.float(name).is_some(),
        }
    }

    /// Puts a value into its field, or hands it back if there is none or it is of another type.
    pub(crate) fn set(&mut self, name: &str, value: Value) -> Result<(), Value> {
        match (name, value) {
            ("regime", Value::Null) => self.regime = None,
            ("regime", Value::Text(text)) => self.regime = Some(text),
            ("recursion_depth", Value::Null) => self.recursion_depth = None,
            ("recursion_depth", Value::Int(depth)) => self.recursion_depth = Some(depth),
            ("emergency", Value::Null) => self.emergency = None,
            ("emergency", Value::Bool(emergency)) => self.emergency = Some(emergency),
            (name, value) => match (self.float_mut(name), as_float(&value)) {
                (Some(slot), None) if matches!(value, Value::Null) => *slot = None,
                (Some(slot), Some(number)) => *slot = Some(number),
                _ => return Err(value),
            },
        }
        Ok(())
    }
}

/// Names the float fields once; reading, writing and both databases go by these.
macro_rules! float_fields {
    ($($name:ident),+ $(,)?) => {
        /// Names of the float fields, in the order of the tables' columns.
        pub const FLOAT_FIELDS: &[&str] = &[$(stringify!($name)),+];

        impl Telemetry {
            /// A float field by name.
            pub fn float(&self, name: &str) -> Option<f64> {
                match name {
                    $(stringify!($name) => self.$name,)+
                    _ => None,
                }
            }

            fn float_mut(&mut self, name: &str) -> Option<&mut Option<f64>> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)+
                    _ => None,
                }
            }
        }
    };
}

float_fields!(
    phi,
    kappa_eff,
    basin_distance,
    geodesic_distance,
    curvature,
    fisher_metric_trace,
    breakdown_pct,
    coherence_drift,
    meta_awareness,
    generativity,
    grounding,
    temporal_coherence,
    external_coupling,
);

fn is_named(name: &str) -> bool {
    matches!(name, "regime" | "recursion_depth" | "emergency") || FLOAT_FIELDS.contains(&name)
}

fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some(*number),
        Value::Int(integer) => exact_from_integer(*integer),
        Value::Text(text) => non_finite_from_text(text),
        _ => None,
    }
}

impl Serialize for Telemetry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let float = |map: &mut S::SerializeMap, name, value: Option<f64>| match value {
            Some(number) => map.serialize_entry(name, &Float(number)),
            None => Ok(()),
        };
        float(&mut map, "phi", self.phi)?;
        float(&mut map, "kappa_eff", self.kappa_eff)?;
        if let Some(regime) = &self.regime {
            map.serialize_entry("regime", regime)?;
        }
        float(&mut map, "basin_distance", self.basin_distance)?;
        if let Some(depth) = self.recursion_depth {
            map.serialize_entry("recursion_depth", &depth)?;
        }
        float(&mut map, "geodesic_distance", self.geodesic_distance)?;
        float(&mut map, "curvature", self.curvature)?;
        float(&mut map, "fisher_metric_trace", self.fisher_metric_trace)?;
        float(&mut map, "breakdown_pct", self.breakdown_pct)?;
        float(&mut map, "coherence_drift", self.coherence_drift)?;
        if let Some(emergency) = self.emergency {
            map.serialize_entry("emergency", &emergency)?;
        }
        float(&mut map, "meta_awareness", self.meta_awareness)?;
        float(&mut map, "generativity", self.generativity)?;
        float(&mut map, "grounding", self.grounding)?;
        float(&mut map, "temporal_coherence", self.temporal_coherence)?;
        float(&mut map, "external_coupling", self.external_coupling)?;
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// A field's name, borrowed from the line unless it holds an escape.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Telemetry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Telemetry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of telemetry fields")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Telemetry, A::Error> {
                let mut telemetry = Telemetry::default();
                while let Some(Name(name)) = map.next_key()? {
                    let duplicate = telemetry.is_set(&name) || telemetry.extra.contains_key(&*name);
                    if duplicate {
                        return Err(de::Error::custom(format_args!("{name:?} stands twice")));
                    }
                    if let Err(other) = telemetry.set(&name, map.next_value()?) {
                        telemetry.extra.insert(name.into_owned(), other);
                    }
                }
                Ok(telemetry)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(telemetry: &Telemetry) -> Telemetry {
        serde_json::from_str(&serde_json::to_string(telemetry).unwrap()).unwrap()
    }

    #[test]
    fn named_and_unknown_fields_round_trip() {
        let telemetry = Telemetry {
            phi: Some(-0.0),
            recursion_depth: Some(i64::MAX),
            regime: Some("géométrique".into()),
            emergency: Some(false),
            ..Telemetry::default()
        }
        .with("loss", 1.0)
        .with("epoch", 3_i64);
        assert_eq!(round_trip(&telemetry), telemetry);
    }

    #[test]
    fn a_named_field_of_another_type_is_kept_as_extra() {
        let telemetry: Telemetry = serde_json::from_str(r#"{"phi":"high","regime":7}"#).unwrap();
        assert_eq!(telemetry.phi, None);
        assert_eq!(telemetry.extra.len(), 2);
        assert_eq!(round_trip(&telemetry), telemetry);
    }

    #[test]
    fn with_sets_the_field_of_a_name_as_a_line_would() {
        let telemetry = Telemetry { kappa_eff: Some(64.2), ..Telemetry::default() }
            .with("phi", "NaN")
            .with("kappa_eff", Value::Null)
            .with("grounding", 1_i64)
            .with("regime", 7_i64);
        assert!(telemetry.phi.unwrap().is_nan());
        assert_eq!((telemetry.kappa_eff, telemetry.grounding), (None, Some(1.0)));
        assert_eq!(telemetry.extra.get("regime"), Some(&Value::Int(7)));
        assert_eq!(telemetry.misplaced(), None);
        assert_eq!(format!("{:?}", round_trip(&telemetry)), format!("{telemetry:?}"));
    }

    #[test]
    fn what_a_line_would_not_give_back_in_extra_is_misplaced() {
        let misplaced = |field: Option<f64>, value: Value| {
            let mut telemetry = Telemetry { phi: field, ..Telemetry::default() };
            telemetry.extra.insert("phi".into(), value);
            telemetry.misplaced().is_some()
        };
        assert!(misplaced(None, "NaN".into()));
        assert!(misplaced(None, Value::Null));
        assert!(misplaced(None, 1_i64.into()));
        assert!(misplaced(Some(0.5), "high".into()));
        assert!(!misplaced(None, "high".into()));
    }

    #[test]
    fn null_is_not_measured() {
        let telemetry: Telemetry = serde_json::from_str(r#"{"phi":null,"gain":null}"#).unwrap();
        assert_eq!(telemetry.phi, None);
        assert_eq!(telemetry.extra.get("gain"), Some(&Value::Null));
    }

    #[test]
    fn a_name_that_stands_twice_is_an_error() {
        let error = serde_json::from_str::<Telemetry>(r#"{"phi":1.0,"phi":2.0}"#).unwrap_err();
        assert!(error.to_string().contains("\"phi\" stands twice"), "{error}");
    }

    #[test]
    fn non_finite_numbers_of_named_fields_are_texts() {
        let telemetry = Telemetry { phi: Some(f64::INFINITY), ..Telemetry::default() };
        assert_eq!(serde_json::to_string(&telemetry).unwrap(), r#"{"phi":"Infinity"}"#);
        assert_eq!(round_trip(&telemetry), telemetry);
    }
}
