//! Equality and hash of values: are the same things stored?

use std::hash::{Hash, Hasher};
use std::mem::discriminant;

use super::Value;

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::BigInt(a), Self::BigInt(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => bits(*a) == bits(*b),
            (Self::Complex(a, b), Self::Complex(c, d)) => {
                (bits(*a), bits(*b)) == (bits(*c), bits(*d))
            }
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => a == b,
            (Self::Dict(a), Self::Dict(b)) => a == b,
            (Self::Array(a), Self::Array(b)) | (Self::Scalar(a), Self::Scalar(b)) => a == b,
            (Self::ArrayRef(a), Self::ArrayRef(b)) => a == b,
            (Self::Summary(a), Self::Summary(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        discriminant(self).hash(state);
        match self {
            Self::Null => {}
            Self::Bool(value) => value.hash(state),
            Self::Int(value) => value.hash(state),
            Self::BigInt(value) => value.hash(state),
            Self::Float(value) => bits(*value).hash(state),
            Self::Complex(re, im) => (bits(*re), bits(*im)).hash(state),
            Self::Text(value) => value.hash(state),
            Self::Bytes(value) => value.hash(state),
            Self::List(items) | Self::Tuple(items) => items.hash(state),
            Self::Dict(pairs) => pairs.hash(state),
            Self::Array(array) | Self::Scalar(array) => array.hash(state),
            Self::ArrayRef(reference) => reference.hash(state),
            Self::Summary(summary) => summary.hash(state),
        }
    }
}

/// The bits of a float, with all NaN made one.
fn bits(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_asks_what_is_stored() {
        assert_eq!(Value::Float(f64::NAN), Value::Float(-f64::NAN));
        assert_ne!(Value::Float(0.0), Value::Float(-0.0));
        assert_ne!(Value::Int(1), Value::Float(1.0));
        assert_ne!(Value::List(vec![]), Value::Tuple(vec![]));
        assert_ne!(Value::Complex(0.0, 0.0), Value::Complex(0.0, -0.0));
    }
}
