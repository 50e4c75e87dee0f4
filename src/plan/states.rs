//! What quantized tensors say of themselves in bytes: bitsandbytes stores a description beside each,
//! without which not even its shape is known.
//!
//! A plan sees no bytes, so they are among its options, for whoever holds them ([`States`]).

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::key::Key;
use crate::tensor::Dtype;

/// The longest description that is read, in bytes.
pub const LONGEST: u64 = 1 << 16;

/// What the name of a description has in it. Source: bitsandbytes 0.50.2, `QuantState.as_dict`.
const NAME: &str = ".quant_state.bitsandbytes__";

/// Descriptions by key.
#[derive(Clone, Debug, Default)]
pub struct States(Arc<HashMap<Key, Value>>);

/// What a description says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    /// The shape of the tensor.
    pub(super) shape: Vec<u64>,
    /// What it was before.
    pub(super) dtype: Dtype,
    /// Elements of a block.
    pub(super) block: u64,
    /// What is added to scales that are quantized too, and how many of those are a block.
    pub(super) nested: Option<(f64, u64)>,
}

impl States {
    /// Whether a key is that of a description.
    pub fn is_one(key: &str) -> bool {
        key.contains(NAME)
    }

    /// Of the bytes of descriptions; what is none is left out.
    pub fn of_bytes(described: impl Iterator<Item = (Key, Vec<u8>)>) -> Self {
        let parsed =
            described.filter_map(|(key, bytes)| Some((key, serde_json::from_slice(&bytes).ok()?)));
        Self(Arc::new(parsed.collect()))
    }

    /// What is said under a key.
    pub(super) fn of(&self, key: &Key) -> Result<State, String> {
        let value = self.0.get(key).ok_or_else(|| {
            format!("what `{key}` says is not known: only its bytes tell the shape and the blocks")
        })?;
        let wrong = |field: &str| format!("`{key}` says nothing that makes sense of `{field}`");
        let number = |field: &str| {
            value.get(field).and_then(Value::as_u64).filter(|n| *n > 0).ok_or_else(|| wrong(field))
        };
        let shape = value.get("shape").and_then(Value::as_array);
        let shape: Option<Vec<u64>> =
            shape.and_then(|sizes| sizes.iter().map(Value::as_u64).collect());
        let dtype = value.get("dtype").and_then(Value::as_str);
        let dtype = dtype.and_then(|name| match name {
            "bfloat16" => Some(Dtype::BF16),
            "float16" => Some(Dtype::F16),
            "float32" => Some(Dtype::F32),
            _ => None,
        });
        let nested = match value.get("nested_offset").and_then(Value::as_f64) {
            // As an `f32`, which is what it is added as.
            #[allow(clippy::cast_possible_truncation)]
            Some(offset) => Some((f64::from(offset as f32), number("nested_blocksize")?)),
            None => None,
        };
        Ok(State {
            shape: shape.ok_or_else(|| wrong("shape"))?,
            dtype: dtype.ok_or_else(|| wrong("dtype"))?,
            block: number("blocksize")?,
            nested,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<State, String> {
        let key = Key::from("a.weight.quant_state.bitsandbytes__nf4");
        let states = States::of_bytes(std::iter::once((key.clone(), text.as_bytes().to_vec())));
        states.of(&key)
    }

    #[test]
    fn a_description_is_read_or_refused() {
        let plain =
            r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4, 96]}"#;
        let expected = State { shape: vec![4, 96], dtype: Dtype::BF16, block: 64, nested: None };
        assert_eq!(said(plain).unwrap(), expected);
        let nested = plain.replace('{', r#"{"nested_blocksize": 256, "nested_offset": 0.5, "#);
        assert_eq!(said(&nested).unwrap().nested, Some((0.5, 256)));
        for bad in [
            "",
            "[]",
            "{}",
            &plain.replace("64", "0"),
            &plain.replace("64", "-1"),
            &plain.replace("bfloat16", "int8"),
            &plain.replace("[4, 96]", "[4, -96]"),
            &plain.replace('{', r#"{"nested_offset": 0.5, "#),
        ] {
            assert!(said(bad).is_err(), "{bad}");
        }
        assert!(States::is_one("a.weight.quant_state.bitsandbytes__fp4"));
        assert!(!States::is_one("a.weight.absmax"));
    }
}
