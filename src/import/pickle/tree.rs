//! Copies a pickle's graph into a tree of values.
//!
//! A graph of a few hundred bytes can make a tree of billions of values (each list holding the one
//! before twice), so everything that is copied is counted.

use super::machine::{Graph, Node, NodeId, Numbers};
use super::{Limits, PickleError};
use crate::checkpoint::array::{Array, DIMS_MAX};
use crate::value::{Value, check_keys, deeper, dict_brackets};

/// Returns the tree below the graph's root.
pub(super) fn build(graph: &Graph<'_>, limits: Limits) -> Result<Value, PickleError> {
    let is_open = vec![false; graph.nodes.len()];
    Builder { graph, limits, is_open, items: 0, bytes: 0 }.value(graph.root, 0)
}

struct Builder<'g, 'a> {
    graph: &'g Graph<'a>,
    limits: Limits,
    /// Nodes on the way from the root.
    is_open: Vec<bool>,
    items: u64,
    bytes: u64,
}

impl<'g> Builder<'g, '_> {
    /// Recurses as deep as values may nest, because whatever holds values adds to the nesting.
    fn value(&mut self, id: NodeId, outside: usize) -> Result<Value, PickleError> {
        let graph = self.graph;
        self.count(1, 0)?;
        match graph.nodes.get(id) {
            Some(Node::Leaf(value)) => Ok(value.clone()),
            Some(Node::Text(text)) => {
                self.count(0, text.len())?;
                Ok(Value::from(*text))
            }
            Some(Node::Bytes(bytes)) => {
                self.count(0, bytes.len())?;
                Ok(Value::Bytes(bytes.to_vec()))
            }
            Some(Node::List(items)) => self.items(id, items, outside, 1).map(Value::List),
            Some(Node::Tuple(items)) => self.items(id, items, outside, 2).map(Value::Tuple),
            Some(Node::Dict(pairs)) => self.dict(id, pairs, outside),
            Some(Node::Numbers(numbers)) => self.array(numbers).map(Value::Array),
            Some(Node::Objects { shape, items }) => self.objects(id, shape, *items, outside),
            Some(Node::Global(global)) => Err(unsupported(global.name())),
            Some(Node::Dtype { .. }) => Err(unsupported("a numpy dtype")),
            Some(Node::EmptyArray) | None => Err(unsupported("an array without contents")),
        }
    }

    fn items(
        &mut self,
        id: NodeId,
        items: &'g [NodeId],
        outside: usize,
        brackets: usize,
    ) -> Result<Vec<Value>, PickleError> {
        let kind = if brackets == 1 { "list" } else { "tuple" };
        self.open(id, kind)?;
        let inside = deeper(outside, brackets)?;
        let values = items.iter().map(|&item| self.value(item, inside)).collect();
        self.close(id);
        values
    }

    fn dict(
        &mut self,
        id: NodeId,
        pairs: &'g [(NodeId, NodeId)],
        outside: usize,
    ) -> Result<Value, PickleError> {
        self.open(id, "dict")?;
        let mut built = Vec::new();
        for &(key, _) in pairs {
            built.push((self.key(key, outside)?, Value::Null));
        }
        check_keys(&built)?;
        let inside = deeper(outside, dict_brackets(&built))?;
        for ((_, value), &(_, id)) in built.iter_mut().zip(pairs) {
            *value = self.value(id, inside)?;
        }
        self.close(id);
        Ok(Value::Dict(built))
    }

    fn key(&mut self, id: NodeId, outside: usize) -> Result<Value, PickleError> {
        match self.graph.nodes.get(id) {
            Some(Node::Text(_)) => self.value(id, outside),
            _ => self.value(id, deeper(outside, 3)?),
        }
    }

    fn array(&mut self, numbers: &Numbers) -> Result<Array, PickleError> {
        let Some(Node::Bytes(bytes)) = self.graph.nodes.get(numbers.bytes) else {
            return Err(unsupported("an array that is not made of bytes"));
        };
        self.count(0, bytes.len())?;
        let Numbers { dtype, order, layout, ref shape, ref axes, .. } = *numbers;
        Array::from_memory(dtype, order, layout, shape.clone(), bytes.to_vec())
            .and_then(|array| match axes {
                Some(axes) => array.transposed(axes),
                None => Ok(array),
            })
            .map_err(|source| PickleError::Value(source.into()))
    }

    /// An array of objects becomes lists; of shape (), the object itself.
    fn objects(
        &mut self,
        id: NodeId,
        shape: &[usize],
        items: NodeId,
        outside: usize,
    ) -> Result<Value, PickleError> {
        let Some(Node::List(items)) = self.graph.nodes.get(items) else {
            return Err(unsupported("an array of objects without a list of them"));
        };
        let elements = shape.iter().try_fold(1_usize, |all, &length| all.checked_mul(length));
        if elements != Some(items.len()) || shape.len() > DIMS_MAX {
            let count = items.len();
            return Err(unsupported(&format!("{count} objects in an array of shape {shape:?}")));
        }
        self.open(id, "array")?;
        // One level for the array itself: an array of shape () adds none of its own, and a graph
        // of nothing else would recurse without end.
        let inside = deeper(outside, shape.len().max(1))?;
        let values = items.iter().map(|&item| self.value(item, inside));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        self.close(id);
        self.nested(shape, &mut values.into_iter())
    }

    fn nested(
        &mut self,
        shape: &[usize],
        values: &mut impl Iterator<Item = Value>,
    ) -> Result<Value, PickleError> {
        let Some((&length, shape)) = shape.split_first() else {
            return values.next().ok_or_else(|| unsupported("an array without contents"));
        };
        self.count(1, 0)?;
        (0..length).map(|_| self.nested(shape, values)).collect::<Result<_, _>>().map(Value::List)
    }

    fn count(&mut self, items: u64, bytes: usize) -> Result<(), PickleError> {
        self.items = self.items.saturating_add(items);
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.items > self.limits.items {
            return Err(PickleError::Limit { what: "values", limit: self.limits.items });
        }
        if self.bytes > self.limits.bytes {
            let limit = self.limits.bytes;
            return Err(PickleError::Limit { what: "bytes of text and arrays", limit });
        }
        Ok(())
    }

    fn open(&mut self, id: NodeId, kind: &'static str) -> Result<(), PickleError> {
        match self.is_open.get_mut(id) {
            Some(is_open) if !*is_open => {
                *is_open = true;
                Ok(())
            }
            _ => Err(PickleError::Cycle { kind }),
        }
    }

    fn close(&mut self, id: NodeId) {
        if let Some(is_open) = self.is_open.get_mut(id) {
            *is_open = false;
        }
    }
}

fn unsupported(what: &str) -> PickleError {
    PickleError::Unsupported { what: what.to_owned() }
}
