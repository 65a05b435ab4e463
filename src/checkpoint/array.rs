//! What is one array of a model's state? A dtype, a shape and the bytes of its elements.
//!
//! The bytes are always little-endian and in C order (the last axis varies fastest), whatever
//! order they were read in, so that equal arrays have equal bytes and one SHA-256.

mod dtype;
mod element;

use ndarray::{ArrayBase, ArrayD, ArrayView, Data, Dimension, IxDyn, ShapeBuilder};
use ndarray_npy::npy::header::Layout;
use thiserror::Error;

pub use self::dtype::{ByteOrder, Dtype};
pub use self::element::Element;

/// Most axes of an array; numpy's own limit.
pub const DIMS_MAX: usize = 64;

/// An array of numbers or booleans.
///
/// Two arrays are equal when dtype, shape and every bit of every element are: NaN equals the same
/// NaN, and 0.0 is not -0.0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Array {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Why bytes are not an array.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ArrayError {
    /// The dtype is none of [`Dtype`].
    #[error("dtype {descr} is not supported: only bool, integers, floats and complex numbers are")]
    Dtype {
        /// As numpy writes it.
        descr: String,
    },
    /// More axes than [`DIMS_MAX`].
    #[error("an array of {dims} axes is over the limit of {DIMS_MAX}")]
    Dims {
        /// Axes of the array.
        dims: usize,
    },
    /// The shape's size in bytes does not fit this machine's address space.
    #[error("shape {shape:?} of {dtype} is larger than this machine can address")]
    Overflow {
        /// As numpy writes it.
        dtype: String,
        /// Axis lengths.
        shape: Vec<usize>,
    },
    /// The number of bytes is not what dtype and shape say.
    #[error("shape {shape:?} of {dtype} needs {expected} bytes, but there are {found}")]
    Length {
        /// As numpy writes it.
        dtype: String,
        /// Axis lengths.
        shape: Vec<usize>,
        /// Bytes that dtype and shape ask for.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The array holds elements of another type than was asked for.
    #[error("the array holds {found}, not {wanted}")]
    Element {
        /// Dtype asked for, as numpy writes it.
        wanted: String,
        /// Dtype of the array, as numpy writes it.
        found: String,
    },
    /// The order of axes is not a permutation of them.
    #[error("axis order {axes:?} does not fit an array of {dims} axes")]
    Axes {
        /// Order given.
        axes: Vec<usize>,
        /// Axes of the array.
        dims: usize,
    },
}

impl Array {
    /// Makes an array of little-endian bytes in C order.
    ///
    /// # Errors
    /// When the bytes are not exactly those of dtype and shape, or the shape is over a limit.
    pub fn new(dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self, ArrayError> {
        let expected = dtype.array_bytes(&shape)?;
        if bytes.len() != expected {
            let found = bytes.len();
            return Err(ArrayError::Length { dtype: dtype.descr(), shape, expected, found });
        }
        Ok(Self { dtype, shape, bytes })
    }

    /// Copies an `ndarray`, of any layout.
    pub fn from_ndarray<T, S, D>(array: &ArrayBase<S, D>) -> Self
    where
        T: Element,
        S: Data<Elem = T>,
        D: Dimension,
    {
        let bytes = T::encode(array.iter().copied(), array.len());
        Self { dtype: T::DTYPE, shape: array.shape().to_vec(), bytes }
    }

    /// Copies the elements into an `ndarray`.
    ///
    /// # Errors
    /// [`ArrayError::Element`] when the array holds another type; nothing is ever cast.
    pub fn to_ndarray<T: Element>(&self) -> Result<ArrayD<T>, ArrayError> {
        let mismatch =
            || ArrayError::Element { wanted: T::DTYPE.descr(), found: self.dtype.descr() };
        if self.dtype != T::DTYPE {
            return Err(mismatch());
        }
        ArrayD::from_shape_vec(IxDyn(&self.shape), T::decode(&self.bytes)).map_err(|_| mismatch())
    }

    /// Returns the element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Returns the axis lengths; none for a single element.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the elements: little-endian, C order.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.bytes.len() / self.dtype.item_bytes()
    }

    /// Makes an array of bytes as numpy holds them in memory.
    pub(crate) fn from_memory(
        dtype: Dtype,
        order: ByteOrder,
        layout: Layout,
        shape: Vec<usize>,
        bytes: Vec<u8>,
    ) -> Result<Self, ArrayError> {
        let reversed: Vec<usize> = shape.iter().rev().copied().collect();
        let stored_shape = if layout.is_fortran() { reversed } else { shape };
        let mut array = Self::new(dtype, stored_shape, bytes)?;
        if order == ByteOrder::Big {
            let (words, size) = (&mut array.bytes, dtype.swap_bytes());
            words.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        if !layout.is_fortran() {
            return Ok(array);
        }
        // Fortran order is C order of the transposed array.
        let axes: Vec<usize> = (0..array.shape.len()).rev().collect();
        array.transposed(&axes)
    }

    /// Returns the array with its axes in another order, as numpy's `transpose` does.
    pub(crate) fn transposed(self, axes: &[usize]) -> Result<Self, ArrayError> {
        let dims = self.shape.len();
        let mut sorted = axes.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..dims) {
            return Err(ArrayError::Axes { axes: axes.to_vec(), dims });
        }
        let pick = |lengths: &[usize]| -> Vec<usize> {
            axes.iter().filter_map(|&axis| lengths.get(axis).copied()).collect()
        };
        let item_bytes = self.dtype.item_bytes();
        let mut shape = pick(&self.shape);
        let mut strides = pick(&row_major_strides(&self.shape, item_bytes));
        if dims < 2 || self.bytes.is_empty() {
            return Ok(Self { shape, ..self });
        }
        shape.push(item_bytes);
        strides.push(1);
        let view = ArrayView::from_shape(IxDyn(&shape).strides(IxDyn(&strides)), &self.bytes)
            .map_err(|_| ArrayError::Axes { axes: axes.to_vec(), dims })?;
        let bytes = view.iter().copied().collect();
        shape.pop();
        Ok(Self { dtype: self.dtype, shape, bytes })
    }
}

/// Distance in bytes between neighbours along each axis, in C order.
fn row_major_strides(shape: &[usize], item_bytes: usize) -> Vec<usize> {
    let mut strides: Vec<usize> = (shape.iter().rev())
        .scan(item_bytes, |next, &length| {
            let stride = *next;
            *next = next.saturating_mul(length);
            Some(stride)
        })
        .collect();
    strides.reverse();
    strides
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, arr0, array};
    use num_complex::Complex;

    use super::*;

    fn round_trip<T: Element + PartialEq + std::fmt::Debug>(elements: Vec<T>) {
        let given = ArrayD::from_shape_vec(IxDyn(&[elements.len()]), elements).unwrap();
        let array = Array::from_ndarray(&given);
        assert_eq!(array.dtype(), T::DTYPE);
        assert_eq!(array.to_ndarray::<T>().unwrap(), given);
    }

    #[test]
    fn every_element_type_comes_back() {
        round_trip(vec![true, false]);
        round_trip(vec![i8::MIN, i8::MAX]);
        round_trip(vec![i16::MIN, i16::MAX]);
        round_trip(vec![i32::MIN, i32::MAX]);
        round_trip(vec![i64::MIN, i64::MAX]);
        round_trip(vec![u8::MAX]);
        round_trip(vec![u16::MAX]);
        round_trip(vec![u32::MAX]);
        round_trip(vec![u64::MAX]);
        round_trip(vec![1.5_f32, f32::INFINITY]);
        round_trip(vec![5e-324_f64, f64::MAX]);
        round_trip(vec![Complex { re: 1.0_f32, im: -2.0 }]);
        round_trip(vec![Complex { re: 1.0_f64, im: -2.0 }]);
        round_trip(Vec::<f32>::new());
    }

    #[test]
    fn every_dtype_is_spelled_as_numpy_does() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::parse_descr(&dtype.descr()).unwrap(), (dtype, ByteOrder::Little));
        }
        assert_eq!(Dtype::parse_descr(">f4").unwrap(), (Dtype::Float32, ByteOrder::Big));
        assert_eq!(Dtype::Bool.descr(), "|b1");
        for refused in ["|O", "<U4", "|S3", "<M8[ns]", "|V2", "", "<", "é", "<f3"] {
            let text = Dtype::parse_descr(refused).unwrap_err().to_string();
            assert!(text.contains(&format!("dtype {refused} is not supported")), "{text}");
        }
    }

    #[test]
    fn layouts_of_ndarray_end_in_c_order() {
        let rows = array![[1_u8, 2, 3], [4, 5, 6]];
        assert_eq!(Array::from_ndarray(&rows).bytes(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(Array::from_ndarray(&rows.t()).bytes(), [1, 4, 2, 5, 3, 6]);
        assert_eq!(Array::from_ndarray(&arr0(7_u8)).shape(), [0_usize; 0]);
    }

    #[test]
    fn fortran_order_is_converted() {
        let fortran = vec![1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6, 0];
        let (little, layout) = (ByteOrder::Little, Layout::Fortran);
        let array = Array::from_memory(Dtype::Int16, little, layout, vec![2, 3], fortran).unwrap();
        let expected: Array2<i16> = array![[1, 2, 3], [4, 5, 6]];
        assert_eq!(array.to_ndarray::<i16>().unwrap(), expected.into_dyn());
    }

    #[test]
    fn big_endian_is_converted_part_by_part() {
        let bytes = vec![0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0];
        let (big, layout) = (ByteOrder::Big, Layout::Standard);
        let array = Array::from_memory(Dtype::Complex64, big, layout, vec![], bytes).unwrap();
        let expected = arr0(Complex { re: 1.0_f32, im: -2.0 }).into_dyn();
        assert_eq!(array.to_ndarray::<Complex<f32>>().unwrap(), expected);
    }

    #[test]
    fn axes_that_are_no_permutation_are_refused() {
        let array = Array::from_ndarray(&array![[1_u8, 2], [3, 4]]);
        for axes in [&[0_usize][..], &[0, 0], &[0, 2], &[0, 1, 2]] {
            assert!(array.clone().transposed(axes).is_err(), "{axes:?}");
        }
        assert_eq!(array.transposed(&[1, 0]).unwrap().bytes(), [1, 3, 2, 4]);
    }

    #[test]
    fn a_shape_is_checked_before_anything_is_allocated() {
        let forged = |shape: Vec<usize>| Array::new(Dtype::Float64, shape, vec![0; 64]);
        let text = |shape| forged(shape).unwrap_err().to_string();
        assert!(text(vec![1_000_000_000_000]).contains("8000000000000 bytes, but there are 64"));
        assert!(text(vec![usize::MAX, 2]).contains("larger than this machine"));
        assert!(text(vec![0, usize::MAX, 2]).contains("larger than this machine"));
        assert!(text(vec![1; 65]).contains("65 axes"));
        assert!(forged(vec![8]).is_ok());
    }

    #[test]
    fn nothing_is_cast() {
        let array = Array::from_ndarray(&array![1_u8]);
        assert_eq!(
            array.to_ndarray::<i8>().unwrap_err().to_string(),
            "the array holds |u1, not |i1"
        );
    }
}
