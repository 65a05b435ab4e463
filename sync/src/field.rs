//! One value on its way into a column, by COPY and by UNNEST alike.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use pgvector::Vector;
use postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};
use tidelog::{BasinCoords, FLOAT_FIELDS, Telemetry, Timestamp, Value};

/// A value of a row. The column's [`ColumnType`] decides how it travels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Field {
    Null,
    Bool(bool),
    Int4(i32),
    Int8(i64),
    Float8(f64),
    Text(String),
    /// JSON, serialised already.
    Json(String),
    Bytes(Vec<u8>),
    Time(Timestamp),
    Vector(Vec<f32>),
    Floats(Vec<f64>),
}

/// The type of a column that the agent fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Bool,
    Int4,
    Int8,
    Float8,
    Text,
    Json,
    Bytes,
    Time,
    Vector,
    Floats,
}

impl ColumnType {
    /// The type as COPY sends it. The number of pgvector's type differs between databases, and
    /// COPY does not send it.
    pub(crate) fn copied(self) -> Type {
        match self {
            Self::Bool => Type::BOOL,
            Self::Int4 => Type::INT4,
            Self::Int8 => Type::INT8,
            Self::Float8 => Type::FLOAT8,
            Self::Text => Type::TEXT,
            Self::Json => Type::JSONB,
            Self::Bytes => Type::BYTEA,
            Self::Time => Type::TIMESTAMPTZ,
            Self::Vector => Type::new("vector".into(), 0, Kind::Simple, String::new()),
            Self::Floats => Type::FLOAT8_ARRAY,
        }
    }

    /// The array that carries a column of rows. Types that have no plain array travel as text.
    pub(crate) fn array(self) -> Type {
        match self {
            Self::Bool => Type::BOOL_ARRAY,
            Self::Int4 => Type::INT4_ARRAY,
            Self::Int8 => Type::INT8_ARRAY,
            Self::Float8 => Type::FLOAT8_ARRAY,
            Self::Bytes => Type::BYTEA_ARRAY,
            Self::Time => Type::TIMESTAMPTZ_ARRAY,
            Self::Text | Self::Json | Self::Vector | Self::Floats => Type::TEXT_ARRAY,
        }
    }

    /// What turns an element of [`array`](Self::array) into a value of the column.
    pub(crate) fn cast(self) -> &'static str {
        match self {
            Self::Json => "::jsonb",
            Self::Vector => "::vector",
            Self::Floats => "::double precision[]",
            _ => "",
        }
    }
}

impl<T: Into<Field>> From<Option<T>> for Field {
    fn from(value: Option<T>) -> Self {
        value.map_or(Field::Null, Into::into)
    }
}

macro_rules! field_from {
    ($($from:ty => $variant:ident),+ $(,)?) => {
        $(impl From<$from> for Field {
            fn from(value: $from) -> Self {
                Field::$variant(value)
            }
        })+
    };
}

field_from!(bool => Bool, i32 => Int4, i64 => Int8, f64 => Float8, Timestamp => Time);

/// A point as two columns: `vector(64)`, and every bit of it where 32 bits a number are too few.
///
/// pgvector refuses NaN and infinities, so such a point has only the exact column.
pub(crate) fn basin_fields(point: Option<&BasinCoords>) -> [Field; 2] {
    let Some(point) = point else { return [Field::Null, Field::Null] };
    let exact = point.as_array();
    #[expect(clippy::cast_possible_truncation, reason = "what is lost is kept in the exact column")]
    let rounded: Vec<f32> = exact.iter().map(|number| *number as f32).collect();
    let lossless = std::iter::zip(exact, &rounded)
        .all(|(exact, rounded)| exact.to_bits() == f64::from(*rounded).to_bits());
    let finite = rounded.iter().all(|number| number.is_finite());
    [
        if finite { Field::Vector(rounded) } else { Field::Null },
        if finite && lossless { Field::Null } else { Field::Floats(exact.to_vec()) },
    ]
}

/// Telemetry as one JSON value. `jsonb` has no -0.0 and takes large floats for integers, so finite
/// numbers are in the form of free-form values, which tags such floats. It reads back the same.
pub(crate) fn telemetry_json(telemetry: &Telemetry) -> serde_json::Result<serde_json::Value> {
    let mut json = serde_json::to_value(telemetry)?;
    for name in FLOAT_FIELDS {
        let number = telemetry.float(name).filter(|number| number.is_finite());
        if let (Some(number), Some(field)) = (number, json.get_mut(name)) {
            *field = serde_json::to_value(Value::Float(number))?;
        }
    }
    Ok(json)
}

impl ToSql for Field {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Field::Null => Ok(IsNull::Yes),
            Field::Bool(value) => value.to_sql(ty, out),
            Field::Int4(value) => value.to_sql(ty, out),
            Field::Int8(value) => value.to_sql(ty, out),
            Field::Float8(value) => value.to_sql(ty, out),
            Field::Text(value) => value.to_sql(ty, out),
            Field::Bytes(value) => value.to_sql(ty, out),
            Field::Time(value) => value.to_jiff().to_sql(ty, out),
            Field::Json(text) => {
                if *ty == Type::JSONB {
                    out.put_u8(1); // version of jsonb's binary form, which is text
                }
                text.to_sql(&Type::TEXT, out)
            }
            Field::Vector(numbers) if *ty == Type::TEXT => list('[', numbers, ']').to_sql(ty, out),
            Field::Vector(numbers) => Vector::from(numbers.clone()).to_sql(ty, out),
            Field::Floats(numbers) if *ty == Type::TEXT => list('{', numbers, '}').to_sql(ty, out),
            Field::Floats(numbers) => numbers.to_sql(ty, out),
        }
    }

    /// A row and its columns are made side by side, so nothing is left to check.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Numbers as PostgreSQL reads them back bit for bit.
fn list<T: std::fmt::LowerExp>(open: char, numbers: &[T], close: char) -> String {
    let numbers: Vec<String> = numbers.iter().map(|number| format!("{number:e}")).collect();
    format!("{open}{}{close}", numbers.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(first: f64) -> [Field; 2] {
        let mut numbers = [0.5; 64];
        numbers[0] = first;
        basin_fields(Some(&BasinCoords::from(numbers)))
    }

    #[test]
    fn a_point_that_32_bits_hold_needs_no_exact_column() {
        for first in [0.5, -0.0, f64::from(f32::MIN_POSITIVE) / 4.0] {
            assert!(matches!(point(first), [Field::Vector(_), Field::Null]), "{first}");
        }
    }

    #[test]
    fn a_point_that_32_bits_round_is_kept_exactly_beside() {
        let [Field::Vector(_), Field::Floats(exact)] = point(0.1) else { panic!("not both") };
        assert_eq!(exact[0].to_bits(), 0.1_f64.to_bits());
    }

    #[test]
    fn a_point_that_pgvector_refuses_is_kept_in_the_exact_column_only() {
        for first in [f64::NAN, f64::INFINITY, 1e39] {
            assert!(matches!(point(first), [Field::Null, Field::Floats(_)]), "{first}");
        }
    }

    #[test]
    fn numbers_as_text_have_every_digit() {
        assert_eq!(list('[', &[-0.0_f32, 1e-45], ']'), "[-0e0,1e-45]");
        assert_eq!(list('{', &[0.1, f64::NAN, f64::NEG_INFINITY], '}'), "{1e-1,NaN,-inf}");
    }
}
