//! What a model's state consists of, leaf by leaf.

use serde::Serialize;
use tidelog::{Array, Value};

use crate::text;

/// How much of a text or number is shown.
const SHOWN_CHARS_MAX: usize = 40;

/// One leaf of a state tree.
#[derive(Serialize)]
pub(crate) struct Leaf {
    /// Keys and indices on the way to it, joined by `/`.
    pub(crate) path: String,
    /// `array`, `scalar`, `text`, `integer`, `float`, `complex`, `bytes`, `bool`, `null`, or an
    /// empty `list`, `tuple` or `dict`.
    pub(crate) kind: &'static str,
    /// Element type of an array, as numpy writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    dtype: Option<String>,
    /// Axis lengths of an array.
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<Vec<usize>>,
    /// Size of an array, of bytes or of a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size_bytes: Option<usize>,
    /// What people are shown of it.
    #[serde(skip)]
    shown: String,
}

impl Leaf {
    pub(crate) fn line(&self) -> String {
        format!("{}  {}", text::clean(&self.path), self.shown)
    }
}

/// All leaves, in the tree's order.
pub(crate) fn leaves(state: &Value) -> Vec<Leaf> {
    let mut found = Vec::new();
    collect(String::new(), state, &mut found);
    found
}

/// A value's own reader and writer limit its depth.
fn collect(path: String, value: &Value, found: &mut Vec<Leaf>) {
    match value {
        Value::List(items) | Value::Tuple(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                collect(joined(&path, &index.to_string()), item, found);
            }
        }
        Value::Dict(pairs) if !pairs.is_empty() => {
            for (key, item) in pairs {
                collect(joined(&path, &short(key)), item, found);
            }
        }
        leaf => found.push(describe(path, leaf)),
    }
}

fn joined(path: &str, step: &str) -> String {
    if path.is_empty() { step.to_owned() } else { format!("{path}/{step}") }
}

fn describe(path: String, value: &Value) -> Leaf {
    let plain = |kind, shown| Leaf {
        path: path.clone(),
        kind,
        dtype: None,
        shape: None,
        size_bytes: None,
        shown,
    };
    let sized = |kind, bytes: usize, shown| Leaf { size_bytes: Some(bytes), ..plain(kind, shown) };
    let array = |kind, array: &Array| {
        let (dtype, shape) = (array.dtype().descr(), array.shape().to_vec());
        let size = text::bytes(array.bytes().len() as u64);
        let shown = format!("{dtype} {shape:?}  {size}");
        Leaf { dtype: Some(dtype), shape: Some(shape), ..sized(kind, array.bytes().len(), shown) }
    };
    match value {
        Value::Array(found) => array("array", found),
        Value::Scalar(found) => array("scalar", found),
        Value::Bytes(bytes) => sized("bytes", bytes.len(), text::bytes(bytes.len() as u64)),
        Value::Text(text) => sized("text", text.len(), format!("{:?}", short(value))),
        Value::Null => plain("null", "none".into()),
        Value::Bool(_) => plain("bool", short(value)),
        Value::Int(_) | Value::BigInt(_) => plain("integer", short(value)),
        Value::Float(_) => plain("float", short(value)),
        Value::Complex(..) => plain("complex", short(value)),
        Value::List(_) => plain("list", "[]".into()),
        Value::Tuple(_) => plain("tuple", "()".into()),
        Value::Dict(_) => plain("dict", "{}".into()),
        Value::ArrayRef(_) => plain("array", "kept elsewhere".into()),
        Value::Summary(_) => plain("summary", "kept elsewhere".into()),
    }
}

/// A scalar or a key in few characters.
fn short(value: &Value) -> String {
    let whole = match value {
        Value::Text(text) => text.clone(),
        other => serde_json::to_string(other).unwrap_or_default(),
    };
    text::cut(&whole, SHOWN_CHARS_MAX)
}
