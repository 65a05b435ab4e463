//! Rust types that arrays convert from and to.

use num_complex::Complex;

use super::Dtype;

/// A Rust type that an [`Array`](super::Array) converts from and to.
pub trait Element: Copy + sealed::Sealed {
    /// The array's type.
    const DTYPE: Dtype;

    /// Writes `count` elements as little-endian bytes.
    fn encode(elements: impl Iterator<Item = Self>, count: usize) -> Vec<u8>;

    /// Reads little-endian bytes; a part of an element at the end is left out.
    fn decode(bytes: &[u8]) -> Vec<Self>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! number_element {
    ($($number:ty => $dtype:ident),*) => {$(
        impl sealed::Sealed for $number {}

        impl Element for $number {
            const DTYPE: Dtype = Dtype::$dtype;

            fn encode(elements: impl Iterator<Item = Self>, count: usize) -> Vec<u8> {
                let mut bytes = Vec::with_capacity(count.saturating_mul(size_of::<Self>()));
                elements.for_each(|element| bytes.extend_from_slice(&element.to_le_bytes()));
                bytes
            }

            fn decode(bytes: &[u8]) -> Vec<Self> {
                let (elements, _) = bytes.as_chunks::<{ size_of::<$number>() }>();
                elements.iter().map(|element| Self::from_le_bytes(*element)).collect()
            }
        }
    )*};
}

number_element!(i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64);
number_element!(u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64);
number_element!(f32 => Float32, f64 => Float64);

macro_rules! complex_element {
    ($($part:ty => $dtype:ident),*) => {$(
        impl sealed::Sealed for Complex<$part> {}

        impl Element for Complex<$part> {
            const DTYPE: Dtype = Dtype::$dtype;

            fn encode(elements: impl Iterator<Item = Self>, count: usize) -> Vec<u8> {
                let parts = elements.flat_map(|element| [element.re, element.im]);
                <$part>::encode(parts, count.saturating_mul(2))
            }

            fn decode(bytes: &[u8]) -> Vec<Self> {
                let parts = <$part>::decode(bytes);
                let (pairs, _) = parts.as_chunks::<2>();
                pairs.iter().map(|&[re, im]| Self { re, im }).collect()
            }
        }
    )*};
}

complex_element!(f32 => Complex64, f64 => Complex128);

impl sealed::Sealed for bool {}

impl Element for bool {
    const DTYPE: Dtype = Dtype::Bool;

    fn encode(elements: impl Iterator<Item = Self>, _count: usize) -> Vec<u8> {
        elements.map(u8::from).collect()
    }

    fn decode(bytes: &[u8]) -> Vec<Self> {
        bytes.iter().map(|&byte| byte != 0).collect()
    }
}
