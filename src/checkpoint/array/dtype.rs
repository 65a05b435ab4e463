//! Element types, as numpy spells them.

use super::{ArrayError, DIMS_MAX};

/// Element type of an [`Array`](super::Array); numpy's numeric types and bool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// One byte, 0 or 1.
    Bool,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// Unsigned, 8 bits.
    Uint8,
    /// Unsigned, 16 bits.
    Uint16,
    /// Unsigned, 32 bits.
    Uint32,
    /// Unsigned, 64 bits.
    Uint64,
    /// IEEE 754 half precision; kept, but no Rust type reads it.
    Float16,
    /// IEEE 754 single precision.
    Float32,
    /// IEEE 754 double precision.
    Float64,
    /// The C compiler's `long double` in 16 bytes; kept, but no Rust type reads it. On x86 six of
    /// the bytes mean nothing and are whatever was in memory.
    LongDouble,
    /// Two [`Dtype::Float32`]: real, imaginary.
    Complex64,
    /// Two [`Dtype::Float64`]: real, imaginary.
    Complex128,
    /// Two [`Dtype::LongDouble`]: real, imaginary; kept, but no Rust type reads it.
    ComplexLongDouble,
}

/// Order of the bytes within one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl Dtype {
    pub(super) const ALL: [Self; 16] = [
        Self::Bool,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Float16,
        Self::Float32,
        Self::Float64,
        Self::LongDouble,
        Self::Complex64,
        Self::Complex128,
        Self::ComplexLongDouble,
    ];

    /// Parses numpy's spelling, such as `<f4`, `>i8` or `|b1`.
    ///
    /// # Errors
    /// [`ArrayError::Dtype`] for every other type: text, dates, objects, structures.
    pub fn parse_descr(descr: &str) -> Result<(Self, ByteOrder), ArrayError> {
        let (order, code) = match descr.strip_prefix('>') {
            Some(code) => (ByteOrder::Big, code),
            None => (ByteOrder::Little, descr.strip_prefix(['<', '|']).unwrap_or(descr)),
        };
        match Self::ALL.into_iter().find(|dtype| dtype.code() == code) {
            Some(dtype) => Ok((dtype, order)),
            None => Err(ArrayError::Dtype { descr: descr.chars().take(64).collect() }),
        }
    }

    /// Returns numpy's spelling of the little-endian type, such as `<f4` or `|b1`.
    pub fn descr(self) -> String {
        let order = if self.item_bytes() == 1 { '|' } else { '<' };
        format!("{order}{}", self.code())
    }

    /// Returns the size of one element in bytes.
    pub fn item_bytes(self) -> usize {
        match self {
            Self::Bool | Self::Int8 | Self::Uint8 => 1,
            Self::Int16 | Self::Uint16 | Self::Float16 => 2,
            Self::Int32 | Self::Uint32 | Self::Float32 => 4,
            Self::Int64 | Self::Uint64 | Self::Float64 | Self::Complex64 => 8,
            Self::LongDouble | Self::Complex128 => 16,
            Self::ComplexLongDouble => 32,
        }
    }

    /// Returns the bytes that an array of this type and shape has.
    ///
    /// # Errors
    /// [`ArrayError::Dims`] and [`ArrayError::Overflow`]; an empty array whose other axes would
    /// overflow is refused too, as numpy does.
    pub fn array_bytes(self, shape: &[usize]) -> Result<usize, ArrayError> {
        if shape.len() > DIMS_MAX {
            return Err(ArrayError::Dims { dims: shape.len() });
        }
        let full = (shape.iter().filter(|&&length| length != 0))
            .try_fold(self.item_bytes(), |bytes, &length| bytes.checked_mul(length))
            .filter(|&bytes| isize::try_from(bytes).is_ok());
        match full {
            None => Err(ArrayError::Overflow { dtype: self.descr(), shape: shape.to_vec() }),
            Some(_) if shape.contains(&0) => Ok(0),
            Some(bytes) => Ok(bytes),
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Bool => "b1",
            Self::Int8 => "i1",
            Self::Int16 => "i2",
            Self::Int32 => "i4",
            Self::Int64 => "i8",
            Self::Uint8 => "u1",
            Self::Uint16 => "u2",
            Self::Uint32 => "u4",
            Self::Uint64 => "u8",
            Self::Float16 => "f2",
            Self::Float32 => "f4",
            Self::Float64 => "f8",
            Self::LongDouble => "f16",
            Self::Complex64 => "c8",
            Self::Complex128 => "c16",
            Self::ComplexLongDouble => "c32",
        }
    }

    /// Bytes that change places together when the byte order changes.
    pub(super) fn swap_bytes(self) -> usize {
        match self {
            Self::Complex64 | Self::Complex128 | Self::ComplexLongDouble => self.item_bytes() / 2,
            _ => self.item_bytes(),
        }
    }
}
