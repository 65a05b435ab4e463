//! Runs a pickle's opcodes into a graph of nodes.
//!
//! Nodes lie in one vector and point at each other by index, so shared parts are stored once, and
//! nothing recurses however deeply a pickle nests.

use std::borrow::Cow;
use std::collections::HashMap;

use ndarray_npy::npy::header::Layout;

use super::calls::Global;
use super::input::Input;
use super::integer;
use super::{Limits, PickleError};
use crate::checkpoint::array::{ByteOrder, Dtype};
use crate::value::Value;

/// Place of a node in the graph.
pub(super) type NodeId = usize;

/// One Python object.
pub(super) enum Node<'a> {
    /// None, a number or a numpy scalar.
    Leaf(Value),
    Text(&'a str),
    Bytes(Cow<'a, [u8]>),
    List(Vec<NodeId>),
    Tuple(Vec<NodeId>),
    Dict(Vec<(NodeId, NodeId)>),
    /// Something that Python would look up by name.
    Global(Global),
    /// A numpy dtype: its code, such as `f4`, and its byte order, such as `<`.
    Dtype {
        code: &'a str,
        order: &'a str,
    },
    /// A numpy array that has no contents yet.
    EmptyArray,
    Numbers(Box<Numbers>),
    /// A numpy array of objects; its elements are the items of a list, in C order.
    Objects {
        shape: Vec<usize>,
        items: NodeId,
    },
}

/// A numpy array of numbers.
pub(super) struct Numbers {
    pub(super) dtype: Dtype,
    pub(super) order: ByteOrder,
    pub(super) layout: Layout,
    pub(super) shape: Vec<usize>,
    /// Order in which the array's axes are taken at last.
    pub(super) axes: Option<Vec<usize>>,
    pub(super) bytes: NodeId,
}

/// What a pickle makes, before shared parts are copied.
pub(super) struct Graph<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) root: NodeId,
}

/// The stack machine.
pub(super) struct Machine<'a> {
    input: Input<'a>,
    /// Position of the opcode that is being run.
    at: usize,
    nodes: Vec<Node<'a>>,
    stack: Vec<NodeId>,
    /// Heights of the stack at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, NodeId>,
    limits: Limits,
    items: u64,
}

impl<'a> Machine<'a> {
    pub(super) fn new(pickle: &'a [u8], limits: Limits) -> Self {
        Self {
            input: Input::new(pickle),
            at: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            limits,
            items: 0,
        }
    }

    /// Runs the pickle to its end.
    pub(super) fn run(mut self) -> Result<Graph<'a>, PickleError> {
        self.read_protocol()?;
        loop {
            self.at = self.input.position();
            match self.input.u8()? {
                b'.' => break,
                opcode => self.step(opcode)?,
            }
        }
        if self.input.left() > 0 {
            return Err(self.damaged("bytes follow its end"));
        }
        let root = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            return Err(self.damaged("it makes more than one value"));
        }
        Ok(Graph { nodes: self.nodes, root })
    }

    fn read_protocol(&mut self) -> Result<(), PickleError> {
        let protocol = match self.input.u8()? {
            0x80 => self.input.u8()?.to_string(),
            _ => "0 or 1".to_owned(),
        };
        match protocol.as_str() {
            "2" | "3" | "4" | "5" => Ok(()),
            _ => Err(PickleError::Protocol { protocol }),
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            b'(' => self.mark(),
            b'0' => self.discard(),
            b'1' => self.pop_mark().map(|_| ()),
            b'2' => self.top().and_then(|top| self.push(top)),
            b'N' => self.push_leaf(Value::Null),
            0x88 => self.push_leaf(Value::Bool(true)),
            0x89 => self.push_leaf(Value::Bool(false)),
            b'J' => self.input.array().map(i32::from_le_bytes).and_then(|int| self.push_int(int)),
            b'K' => self.input.u8().and_then(|int| self.push_int(int)),
            b'M' => self.input.u16().and_then(|int| self.push_int(int)),
            0x8a => self.input.counted_u8().and_then(|bytes| self.push_long(bytes)),
            0x8b => self.input.counted_u32().and_then(|bytes| self.push_long(bytes)),
            b'G' => {
                let float = self.input.array().map(f64::from_be_bytes)?;
                self.push_leaf(Value::Float(float))
            }
            0x8c => self.input.counted_u8().and_then(|bytes| self.push_text(bytes)),
            b'X' => self.input.counted_u32().and_then(|bytes| self.push_text(bytes)),
            0x8d => self.input.counted_u64().and_then(|bytes| self.push_text(bytes)),
            b'C' => self.input.counted_u8().and_then(|bytes| self.push_bytes(bytes)),
            b'B' => self.input.counted_u32().and_then(|bytes| self.push_bytes(bytes)),
            // Bytes and a bytearray.
            0x8e | 0x96 => self.input.counted_u64().and_then(|bytes| self.push_bytes(bytes)),
            b']' => self.push_new(Node::List(Vec::new())),
            b'}' => self.push_new(Node::Dict(Vec::new())),
            b')' => self.push_new(Node::Tuple(Vec::new())),
            0x85..=0x87 => self.tuple_of(opcode - 0x84),
            b't' => self.pop_mark().and_then(|items| self.push_new(Node::Tuple(items))),
            b'a' => self.pop().and_then(|item| self.extend_list(vec![item])),
            b'e' => self.pop_mark().and_then(|items| self.extend_list(items)),
            b's' => self.set_item(),
            b'u' => self.pop_mark().and_then(|items| self.extend_dict(&items)),
            b'q' => self.input.u8().and_then(|key| self.memoize(key.into())),
            b'r' => self.input.u32().and_then(|key| self.memoize(key)),
            0x94 => self.memoize(u32::try_from(self.memo.len()).unwrap_or(u32::MAX)),
            b'h' => self.input.u8().and_then(|key| self.recall(key.into())),
            b'j' => self.input.u32().and_then(|key| self.recall(key)),
            // A frame only tells how much to read at once.
            0x95 => self.input.u64().map(|_| ()),
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.push_new(Node::Global(Global::find(module, name)?))
            }
            0x93 => self.stack_global(),
            b'R' => self.reduce(),
            b'b' => self.build(),
            other => Err(PickleError::Opcode { name: opcode_name(other), at: self.at }),
        }
    }

    /// Adds a node without putting it on the stack.
    fn add(&mut self, node: Node<'a>) -> NodeId {
        self.nodes.push(node);
        self.nodes.len().saturating_sub(1)
    }

    pub(super) fn push_new(&mut self, node: Node<'a>) -> Result<(), PickleError> {
        let id = self.add(node);
        self.push(id)
    }

    fn push(&mut self, id: NodeId) -> Result<(), PickleError> {
        self.count_item()?;
        self.stack.push(id);
        Ok(())
    }

    /// Counts everything that takes memory of its own.
    fn count_item(&mut self) -> Result<(), PickleError> {
        self.items = self.items.saturating_add(1);
        let limit = self.limits.items;
        if self.items > limit {
            return Err(PickleError::Limit { what: "values", limit });
        }
        Ok(())
    }

    /// Counts bytes that are not the pickle's own.
    pub(super) fn count_bytes(&mut self, bytes: usize) -> Result<(), PickleError> {
        let left = self.limits.bytes.checked_sub(bytes as u64);
        let limit = self.limits.bytes;
        self.limits.bytes =
            left.ok_or(PickleError::Limit { what: "bytes of text and arrays", limit })?;
        Ok(())
    }

    pub(super) fn push_leaf(&mut self, value: Value) -> Result<(), PickleError> {
        self.push_new(Node::Leaf(value))
    }

    fn push_int(&mut self, int: impl Into<i64>) -> Result<(), PickleError> {
        self.push_leaf(Value::Int(int.into()))
    }

    fn push_long(&mut self, bytes: &[u8]) -> Result<(), PickleError> {
        self.push_leaf(integer::from_le_bytes(bytes)?)
    }

    fn push_text(&mut self, bytes: &'a [u8]) -> Result<(), PickleError> {
        match str::from_utf8(bytes) {
            Ok(text) => self.push_new(Node::Text(text)),
            // Python keeps lone surrogates, which no other encoding of text has.
            Err(_) => Err(self.damaged("a text is not utf-8")),
        }
    }

    fn push_bytes(&mut self, bytes: &'a [u8]) -> Result<(), PickleError> {
        self.push_new(Node::Bytes(Cow::Borrowed(bytes)))
    }

    fn mark(&mut self) -> Result<(), PickleError> {
        self.count_item()?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn pop(&mut self) -> Result<NodeId, PickleError> {
        let above = self.stack.len() > self.floor();
        let popped = if above { self.stack.pop() } else { None };
        popped.ok_or_else(|| self.damaged("it takes a value where there is none"))
    }

    pub(super) fn top(&self) -> Result<NodeId, PickleError> {
        let above = self.stack.get(self.floor()..).unwrap_or_default();
        above.last().copied().ok_or_else(|| self.damaged("it takes a value where there is none"))
    }

    fn pop_mark(&mut self) -> Result<Vec<NodeId>, PickleError> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height.min(self.stack.len()))),
            None => Err(self.damaged("it takes a mark where there is none")),
        }
    }

    fn discard(&mut self) -> Result<(), PickleError> {
        let discarded = if self.stack.len() > self.floor() {
            self.stack.pop().is_some()
        } else {
            self.marks.pop().is_some()
        };
        if discarded { Ok(()) } else { Err(self.damaged("it takes a value where there is none")) }
    }

    fn tuple_of(&mut self, length: u8) -> Result<(), PickleError> {
        let mut items = (0..length).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push_new(Node::Tuple(items))
    }

    fn extend_list(&mut self, items: Vec<NodeId>) -> Result<(), PickleError> {
        let top = self.top()?;
        match self.nodes.get_mut(top) {
            Some(Node::List(list)) => list.extend(items),
            _ => return Err(self.damaged("it appends to what is no list")),
        }
        Ok(())
    }

    fn set_item(&mut self) -> Result<(), PickleError> {
        let value = self.pop()?;
        let key = self.pop()?;
        self.extend_dict(&[key, value])
    }

    fn extend_dict(&mut self, items: &[NodeId]) -> Result<(), PickleError> {
        let top = self.top()?;
        let (pairs, rest) = items.as_chunks::<2>();
        match self.nodes.get_mut(top) {
            Some(Node::Dict(dict)) if rest.is_empty() => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            _ => Err(self.damaged("it sets an item of what is no dict")),
        }
    }

    fn memoize(&mut self, key: u32) -> Result<(), PickleError> {
        self.count_item()?;
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), PickleError> {
        match self.memo.get(&key) {
            Some(&id) => self.push(id),
            None => Err(self.damaged("it recalls what it never remembered")),
        }
    }

    fn stack_global(&mut self) -> Result<(), PickleError> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (module, name) = (self.text(module)?, self.text(name)?);
        self.push_new(Node::Global(Global::find(module, name)?))
    }

    pub(super) fn node(&self, id: NodeId) -> Result<&Node<'a>, PickleError> {
        self.nodes.get(id).ok_or_else(|| self.damaged("it points at nothing"))
    }

    pub(super) fn replace(&mut self, id: NodeId, node: Node<'a>) {
        if let Some(place) = self.nodes.get_mut(id) {
            *place = node;
        }
    }

    pub(super) fn text(&self, id: NodeId) -> Result<&'a str, PickleError> {
        match self.node(id)? {
            Node::Text(text) => Ok(text),
            _ => Err(self.damaged("a text belongs here")),
        }
    }

    pub(super) fn damaged(&self, reason: &str) -> PickleError {
        PickleError::Damaged { at: self.at, reason: reason.to_owned() }
    }
}

/// Python's name of an opcode that is not run.
fn opcode_name(opcode: u8) -> String {
    let name = match opcode {
        b'I' => "INT",
        b'L' => "LONG",
        b'F' => "FLOAT",
        b'S' => "STRING",
        b'T' => "BINSTRING",
        b'U' => "SHORT_BINSTRING",
        b'V' => "UNICODE",
        b'l' => "LIST",
        b'd' => "DICT",
        b'g' => "GET",
        b'p' => "PUT",
        b'i' => "INST",
        b'o' => "OBJ",
        b'P' => "PERSID",
        b'Q' => "BINPERSID",
        0x80 => "PROTO",
        0x81 => "NEWOBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => return format!("0x{opcode:02x}"),
    };
    name.to_owned()
}
