//! The one byte form of a row on which file and replica must agree: that of PostgreSQL's
//! `record_send(ROW(…))`, in which every bit of every value counts.
//!
//! It is made here from what the file says, and by the server from what it holds. Nothing of the way
//! on which rows are sent is used, so a mistake there shows.

use sha2::{Digest, Sha256};

use super::jsonb;
use crate::field::{ColumnType, Field};
use crate::table::{Rows, Table};

/// Seconds from 1970 to 2000, where PostgreSQL begins to count.
const EPOCH_MICROSECONDS: i64 = 946_684_800 * 1_000_000;
const FLOAT8_OID: u32 = 701;

pub(super) type RowDigest = [u8; 32];

/// A column that is compared.
pub(super) type Column = (&'static str, ColumnType);

/// Where rows written by an older agent may differ.
const NOT_OF_THE_FILE: &str = "agent_version";

/// Columns of a table that the files decide.
pub(super) fn columns(table: &Table) -> impl Iterator<Item = (usize, Column)> {
    let columns = table.columns.iter().copied().enumerate();
    columns.filter(|(_, (name, _))| *name != NOT_OF_THE_FILE)
}

/// Makes the byte form; knows the number that this database gave to pgvector's type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Canonical {
    pub(super) vector_oid: u32,
}

impl Canonical {
    /// `record_send(ROW(…))` of these values.
    pub(super) fn record(self, fields: &[(ColumnType, &Field)]) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 * fields.len());
        put_length(&mut out, fields.len());
        for (ty, field) in fields {
            out.extend(self.oid(*ty).to_be_bytes());
            match value(field) {
                None => out.extend((-1_i32).to_be_bytes()),
                Some(bytes) => {
                    put_length(&mut out, bytes.len());
                    out.extend(bytes);
                }
            }
        }
        out
    }

    pub(super) fn digest(self, table: &Table, row: &[Field]) -> RowDigest {
        let fields: Vec<(ColumnType, &Field)> =
            columns(table).filter_map(|(index, (_, ty))| Some((ty, row.get(index)?))).collect();
        Sha256::digest(self.record(&fields)).into()
    }

    /// Digest of all rows: that of their digests one after the other.
    pub(super) fn digest_of_all(self, rows: &Rows) -> RowDigest {
        let mut all = Sha256::new();
        rows.iter().for_each(|row| all.update(self.digest(rows.table, row)));
        all.finalize().into()
    }

    fn oid(self, ty: ColumnType) -> u32 {
        if ty == ColumnType::Vector { self.vector_oid } else { ty.copied().oid() }
    }
}

/// A value as the type's send function gives it; none for NULL.
fn value(field: &Field) -> Option<Vec<u8>> {
    Some(match field {
        Field::Null => return None,
        Field::Bool(value) => vec![u8::from(*value)],
        Field::Int4(value) => value.to_be_bytes().to_vec(),
        Field::Int8(value) => value.to_be_bytes().to_vec(),
        Field::Float8(value) => value.to_be_bytes().to_vec(),
        Field::Text(text) => text.as_bytes().to_vec(),
        Field::Json(json) => [b"\x01", jsonb::canonical(json).as_bytes()].concat(),
        Field::Bytes(bytes) => bytes.clone(),
        Field::Time(time) => (time.as_micros() - EPOCH_MICROSECONDS).to_be_bytes().to_vec(),
        Field::Vector(numbers) => {
            let count = u16::try_from(numbers.len()).unwrap_or(u16::MAX);
            let mut out = [count.to_be_bytes(), [0; 2]].concat();
            numbers.iter().for_each(|number| out.extend(number.to_be_bytes()));
            out
        }
        Field::Floats(numbers) => array(numbers),
    })
}

/// One dimension, no NULL, the first element has number 1; each element with its length.
fn array(numbers: &[f64]) -> Vec<u8> {
    let mut out = [1_u32, 0, FLOAT8_OID].map(u32::to_be_bytes).concat();
    put_length(&mut out, numbers.len());
    out.extend(1_u32.to_be_bytes());
    for number in numbers {
        put_length(&mut out, size_of::<f64>());
        out.extend(number.to_be_bytes());
    }
    out
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_as_record_send_gives_it() {
        let fields = [
            (ColumnType::Int4, &Field::Int4(1)),
            (ColumnType::Text, &Field::Null),
            (ColumnType::Float8, &Field::Float8(f64::NAN)),
            (ColumnType::Floats, &Field::Floats(vec![1.0, 2.0])),
            (ColumnType::Vector, &Field::Vector(vec![1.0])),
        ];
        let hex: String = Canonical { vector_oid: 16 }
            .record(&fields)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        // What PostgreSQL 18 answers to SELECT record_send(ROW(1, NULL::text, 'NaN'::float8, …)).
        let expected = "00000005000000170000000400000001\
                        00000019ffffffff\
                        000002bd000000087ff8000000000000\
                        000003fe0000002c0000000100000000000002bd0000000200000001\
                        000000083ff0000000000000000000084000000000000000\
                        0000001000000008000100003f800000";
        assert_eq!(hex, expected);
    }
}
