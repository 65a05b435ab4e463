//! What Python would call, done here: the few functions that make numpy arrays and bytes.

use std::borrow::Cow;

use ndarray_npy::npy::header::Layout;

use super::PickleError;
use super::machine::{Machine, Node, NodeId, Numbers};
use crate::checkpoint::array::{Array, ByteOrder, Dtype};
use crate::value::Value;

/// A function or class that plain data and numpy arrays need.
#[derive(Clone, Copy)]
pub(super) enum Global {
    /// `numpy.ndarray`; only ever an argument.
    Ndarray,
    /// `numpy.dtype`.
    Dtype,
    /// Makes an array without contents.
    Reconstruct,
    /// Makes a numpy scalar.
    Scalar,
    /// Makes an array of a buffer (protocol 5).
    FromBuffer,
    /// `_codecs.encode`: makes bytes of text (protocol 2).
    Encode,
    /// Makes a complex number.
    Complex,
    /// Makes bytes; a bytearray is read as bytes.
    Bytes,
}

impl Global {
    /// Finds what a pickle names.
    pub(super) fn find(module: &str, name: &str) -> Result<Self, PickleError> {
        Ok(match (module, name) {
            ("numpy", "ndarray") => Self::Ndarray,
            ("numpy", "dtype") => Self::Dtype,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                Self::Reconstruct
            }
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::Scalar,
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Self::FromBuffer,
            ("_codecs", "encode") => Self::Encode,
            ("builtins" | "__builtin__", "complex") => Self::Complex,
            ("builtins" | "__builtin__", "bytes" | "bytearray") => Self::Bytes,
            _ => {
                let class: String = format!("{module}.{name}").chars().take(200).collect();
                return Err(PickleError::Class { class });
            }
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ndarray => "numpy.ndarray",
            Self::Dtype => "numpy.dtype",
            Self::Reconstruct => "numpy.core.multiarray._reconstruct",
            Self::Scalar => "numpy.core.multiarray.scalar",
            Self::FromBuffer => "numpy.core.numeric._frombuffer",
            Self::Encode => "_codecs.encode",
            Self::Complex => "builtins.complex",
            Self::Bytes => "builtins.bytes",
        }
    }
}

impl<'a> Machine<'a> {
    /// REDUCE: a function and its arguments become what the function would return.
    pub(super) fn reduce(&mut self) -> Result<(), PickleError> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Node::Global(function) = *self.node(function)? else {
            return Err(self.damaged("it calls what is no function"));
        };
        let arguments = self.tuple(arguments)?.to_vec();
        let made = match (function, arguments.as_slice()) {
            (Global::Reconstruct, &[class, _, _]) => self.reconstruct(class)?,
            (Global::Dtype, &[code, ..]) => Node::Dtype { code: self.text(code)?, order: "<" },
            (Global::Scalar, &[dtype, bytes]) => self.scalar(dtype, bytes)?,
            (Global::FromBuffer, &[bytes, dtype, shape, order]) => {
                self.buffered_array(bytes, dtype, shape, order, None)?
            }
            (Global::FromBuffer, &[bytes, dtype, shape, order, axes]) => {
                self.buffered_array(bytes, dtype, shape, order, Some(axes))?
            }
            (Global::Bytes, &[]) => Node::Bytes(Cow::Borrowed(&[])),
            (Global::Bytes, &[bytes]) => self.copied_bytes(bytes)?,
            (Global::Encode | Global::Bytes, &[text, encoding]) => self.encode(text, encoding)?,
            (Global::Complex, &[re, im]) => {
                Node::Leaf(Value::Complex(self.float(re)?, self.float(im)?))
            }
            _ => return Err(self.damaged(&format!("{} is not called so", function.name()))),
        };
        self.push_new(made)
    }

    /// BUILD: a dtype or an array without contents gets its contents.
    pub(super) fn build(&mut self) -> Result<(), PickleError> {
        let state = self.pop()?;
        let object = self.top()?;
        let state = self.tuple(state)?.to_vec();
        let built = match (self.node(object)?, state.as_slice()) {
            (&Node::Dtype { code, .. }, &[_version, order, parts, names, fields, ..]) => {
                for structure in [parts, names, fields] {
                    if !matches!(self.node(structure)?, Node::Leaf(Value::Null)) {
                        return Err(self.unsupported(format!("an array of the dtype {code}")));
                    }
                }
                Node::Dtype { code, order: self.text(order)? }
            }
            (Node::EmptyArray, &[_version, shape, dtype, fortran, contents]) => {
                self.array(shape, dtype, fortran, contents)?
            }
            _ => return Err(self.damaged("it gives contents to what takes none")),
        };
        self.replace(object, built);
        Ok(())
    }

    fn reconstruct(&self, class: NodeId) -> Result<Node<'a>, PickleError> {
        match self.node(class)? {
            Node::Global(Global::Ndarray) => Ok(Node::EmptyArray),
            _ => Err(self.damaged("it makes an array of what is no array class")),
        }
    }

    fn array(
        &self,
        shape: NodeId,
        dtype: NodeId,
        fortran: NodeId,
        contents: NodeId,
    ) -> Result<Node<'a>, PickleError> {
        let shape = self.lengths(shape)?;
        if let Node::List(_) = self.node(contents)? {
            return match self.node(dtype)? {
                Node::Dtype { code, .. } if code.starts_with('O') => {
                    Ok(Node::Objects { shape, items: contents })
                }
                _ => Err(self.damaged("only an array of objects has a list of contents")),
            };
        }
        let (dtype, order) = self.dtype(dtype)?;
        let layout = match self.node(fortran)? {
            Node::Leaf(Value::Bool(true) | Value::Int(1)) => Layout::Fortran,
            Node::Leaf(Value::Bool(false) | Value::Int(0)) => Layout::Standard,
            _ => return Err(self.damaged("an array's order of axes is true or false")),
        };
        let numbers = Numbers { dtype, order, layout, shape, axes: None, bytes: contents };
        Ok(Node::Numbers(Box::new(numbers)))
    }

    fn buffered_array(
        &self,
        bytes: NodeId,
        dtype: NodeId,
        shape: NodeId,
        layout: NodeId,
        axes: Option<NodeId>,
    ) -> Result<Node<'a>, PickleError> {
        let (dtype, order) = self.dtype(dtype)?;
        let shape = self.lengths(shape)?;
        let axes = axes.map(|axes| self.lengths(axes)).transpose()?;
        let (layout, axes) = match (self.text(layout)?, axes) {
            ("C", _) => (Layout::Standard, None),
            ("F", _) => (Layout::Fortran, None),
            ("K", Some(axes)) => (Layout::Standard, Some(axes)),
            _ => return Err(self.damaged("an array's order of axes is C, F or K")),
        };
        Ok(Node::Numbers(Box::new(Numbers { dtype, order, layout, shape, axes, bytes })))
    }

    fn scalar(&self, dtype: NodeId, bytes: NodeId) -> Result<Node<'a>, PickleError> {
        let (dtype, order) = self.dtype(dtype)?;
        let Node::Bytes(bytes) = self.node(bytes)? else {
            return Err(self.damaged("a numpy scalar is made of bytes"));
        };
        if bytes.len() != dtype.item_bytes() {
            return Err(self.damaged("a numpy scalar has not the bytes of its dtype"));
        }
        let layout = Layout::Standard;
        Array::from_memory(dtype, order, layout, Vec::new(), bytes.to_vec())
            .map(|array| Node::Leaf(Value::Scalar(array)))
            .map_err(|source| PickleError::Value(source.into()))
    }

    /// Protocol 2 has no bytes: they are text, each character one byte.
    fn encode(&mut self, text: NodeId, encoding: NodeId) -> Result<Node<'a>, PickleError> {
        let (text, encoding) = (self.text(text)?, self.text(encoding)?);
        if !matches!(encoding, "latin1" | "latin-1") {
            return Err(self.unsupported(format!("bytes in the encoding {encoding}")));
        }
        self.count_bytes(text.len())?;
        match text.chars().map(|c| u8::try_from(u32::from(c))).collect() {
            Ok(bytes) => Ok(Node::Bytes(Cow::Owned(bytes))),
            Err(_) => Err(self.damaged("a text for bytes holds more than latin-1")),
        }
    }

    fn copied_bytes(&mut self, bytes: NodeId) -> Result<Node<'a>, PickleError> {
        let Node::Bytes(bytes) = self.node(bytes)? else {
            return Err(self.damaged("a bytearray is made of bytes"));
        };
        let copy = bytes.clone();
        if let Cow::Owned(owned) = &copy {
            self.count_bytes(owned.len())?;
        }
        Ok(Node::Bytes(copy))
    }

    fn dtype(&self, dtype: NodeId) -> Result<(Dtype, ByteOrder), PickleError> {
        let Node::Dtype { code, order } = self.node(dtype)? else {
            return Err(self.damaged("a numpy dtype belongs here"));
        };
        Dtype::parse_descr(&format!("{order}{code}"))
            .map_err(|source| PickleError::Value(source.into()))
    }

    fn tuple(&self, id: NodeId) -> Result<&[NodeId], PickleError> {
        match self.node(id)? {
            Node::Tuple(items) => Ok(items),
            _ => Err(self.damaged("a tuple belongs here")),
        }
    }

    fn lengths(&self, id: NodeId) -> Result<Vec<usize>, PickleError> {
        let length = |&id: &NodeId| match self.node(id)? {
            Node::Leaf(Value::Int(length)) => usize::try_from(*length)
                .map_err(|_| self.damaged("the length of an axis is out of range")),
            _ => Err(self.damaged("the length of an axis is an integer")),
        };
        self.tuple(id)?.iter().map(length).collect()
    }

    fn float(&self, id: NodeId) -> Result<f64, PickleError> {
        match self.node(id)? {
            Node::Leaf(Value::Float(float)) => Ok(*float),
            _ => Err(self.damaged("a float belongs here")),
        }
    }

    fn unsupported(&self, what: String) -> PickleError {
        PickleError::Unsupported { what }
    }
}
