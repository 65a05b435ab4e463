//! Coordinates in the 64-dimensional basin.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::float::Float;

/// How many coordinates a basin point has.
pub const BASIN_DIMENSIONS: usize = 64;

/// A point in the basin: exactly 64 numbers, NaN and infinities allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct BasinCoords(Box<[f64; BASIN_DIMENSIONS]>);

impl BasinCoords {
    /// The coordinates.
    pub fn as_array(&self) -> &[f64; BASIN_DIMENSIONS] {
        &self.0
    }
}

impl From<[f64; BASIN_DIMENSIONS]> for BasinCoords {
    fn from(coords: [f64; BASIN_DIMENSIONS]) -> Self {
        Self(Box::new(coords))
    }
}

impl TryFrom<&[f64]> for BasinCoords {
    type Error = Error;

    fn try_from(coords: &[f64]) -> Result<Self> {
        let found = coords.len();
        let coords =
            <[f64; BASIN_DIMENSIONS]>::try_from(coords).map_err(|_| Error::InvalidValue {
                what: "basin_coords",
                reason: format!("has {found} numbers, it takes {BASIN_DIMENSIONS}"),
            })?;
        Ok(coords.into())
    }
}

impl Serialize for BasinCoords {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().copied().map(Float))
    }
}

impl<'de> Deserialize<'de> for BasinCoords {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let numbers: Vec<f64> =
            Vec::<Float>::deserialize(deserializer)?.into_iter().map(|number| number.0).collect();
        Self::try_from(numbers.as_slice()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_three_numbers_are_no_point() {
        let error = BasinCoords::try_from(&[0.0; 63][..]).unwrap_err();
        assert_eq!(error.to_string(), "basin_coords has 63 numbers, it takes 64");
    }

    #[test]
    fn a_point_round_trips_with_nan() {
        let mut numbers = [0.1; BASIN_DIMENSIONS];
        numbers[3] = f64::NAN;
        let text = serde_json::to_string(&BasinCoords::from(numbers)).unwrap();
        let back: BasinCoords = serde_json::from_str(&text).unwrap();
        assert!(back.as_array()[3].is_nan());
        assert_eq!(back.as_array()[4].to_bits(), 0.1_f64.to_bits());
    }
}
