//! Values on their way into SQLite's columns and back, none of them changed.

use std::error::Error;
use std::str::FromStr;

use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, Value, ValueRef};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A number that may be missing. SQLite makes NULL of NaN, so NaN goes in as a text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number(pub(crate) Option<f64>);

impl ToSql for Number {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            None => ToSqlOutput::Borrowed(ValueRef::Null),
            Some(number) if number.is_nan() => ToSqlOutput::Borrowed(ValueRef::Text(b"NaN")),
            Some(number) => ToSqlOutput::Owned(Value::Real(number)),
        })
    }
}

impl FromSql for Number {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Null => Ok(Self(None)),
            ValueRef::Real(number) => Ok(Self(Some(number))),
            ValueRef::Text(b"NaN") => Ok(Self(Some(f64::NAN))),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// A value in its JSON form.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> ToSql for Json<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        serde_json::to_string(&self.0)
            .map(ToSqlOutput::from)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
    }
}

impl<T: DeserializeOwned> FromSql for Json<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_str(value.as_str()?).map(Self).map_err(FromSqlError::other)
    }
}

/// An id or a timestamp, kept as its text.
#[derive(Debug)]
pub(crate) struct Parsed<T>(pub(crate) T);

impl<T: FromStr<Err: Error + Send + Sync + 'static>> FromSql for Parsed<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Self).map_err(FromSqlError::other)
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    fn round_trip(number: f64) -> f64 {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE t (number ANY) STRICT").unwrap();
        db.execute("INSERT INTO t VALUES (?1)", [Number(Some(number))]).unwrap();
        db.query_row("SELECT number FROM t", [], |row| row.get::<_, Number>(0)).unwrap().0.unwrap()
    }

    #[test]
    fn ugly_floats_come_back_bit_for_bit() {
        for number in [-0.0, 0.0, 1.0, 5e-324, f64::MAX, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(round_trip(number).to_bits(), number.to_bits(), "{number}");
        }
        assert!(round_trip(f64::NAN).is_nan());
    }
}
