//! [`Config`]: a checkpoint's config.json, read as plain data.
//!
//! Reading one from a file needs the feature `files`. A config is hostile input: its size and
//! nesting are limited, and no field is assumed to be there or to have its usual type. What the
//! fields mean is for others, except for one question that rules ask often: whether a model is
//! [tied](Config::tie_policy).

mod base;
#[cfg(feature = "files")]
mod file;
mod json;
mod tie;

use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

pub use tie::{TieDecision, TieReason, default_tie};

/// The largest config.json that is read, in bytes.
pub const MAX_BYTES: u64 = 16 << 20;

/// What some editors put before text: it says nothing of UTF-8, and JSON doesn't have it.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A config.json, or nothing where a checkpoint has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config(Value);

impl Config {
    /// No config: every field is absent.
    pub fn empty() -> Self {
        Self(Value::Null)
    }

    /// A config from data, as [`from_json`](Config::from_json) would give it.
    pub fn from_value(value: Value) -> Self {
        Self(value)
    }

    /// A config from the bytes of a config.json.
    ///
    /// `NaN` and `Infinity`, which Python writes into JSON and JSON doesn't have, read as null.
    ///
    /// # Errors
    /// If they are more than [`MAX_BYTES`], or no JSON object nested less than 128 deep.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > MAX_BYTES {
            let message = format!("the config is larger than {} MiB", MAX_BYTES >> 20);
            return Err(Error::new(ErrorKind::Limit, message));
        }
        let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        match serde_json::from_slice(&json::without_python_constants(text)) {
            Ok(value @ Value::Object(_)) => Ok(Self(value)),
            Ok(other) => {
                Err(Error::corrupt(format!("a config is a JSON object, this is {}", kind(&other))))
            }
            Err(error) => Err(Error::corrupt(format!("not a JSON object: {error}"))),
        }
    }

    /// With another config as a field, as that of an adapter beside a model.
    ///
    /// # Errors
    /// If there is another field of this name.
    pub fn with(self, (name, field): (String, Config)) -> Result<Self> {
        let mut fields = match self.0 {
            Value::Object(fields) => fields,
            _ => serde_json::Map::new(),
        };
        if fields.get(&name).is_some_and(|there| *there != field.0) {
            let what = format!("the config has a field `{name}`, and a source is called so too");
            return Err(Error::new(ErrorKind::Unsupported, what).hint("give it another name"));
        }
        fields.insert(name, field.0);
        Ok(Self(Value::Object(fields)))
    }

    /// The whole, null where there is none.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// Whether there is no config.
    pub fn is_empty(&self) -> bool {
        self.0.is_null()
    }

    /// The value at a path, from the top: a step is the name of a field, or the index of an array's
    /// item in decimal. No steps give the whole. `None` where a step isn't there; a null that is
    /// there is `Some`.
    pub fn get<S: AsRef<str>>(&self, steps: &[S]) -> Option<&Value> {
        steps.iter().try_fold(&self.0, |value, step| match value {
            Value::Object(fields) => fields.get(step.as_ref()),
            Value::Array(items) => items.get(step.as_ref().parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// The dotted path of every field, those of nested objects too (not of objects in arrays), in
    /// the order of the file: for did-you-mean.
    pub fn fields(&self) -> Vec<String> {
        fn collect(value: &Value, prefix: &str, fields: &mut Vec<String>) {
            let Value::Object(object) = value else { return };
            for (name, value) in object {
                let path =
                    if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                fields.push(path.clone());
                collect(value, &path, fields);
            }
        }
        let mut fields = Vec::new();
        collect(&self.0, "", &mut fields);
        fields
    }

    /// `model_type`, if it is there and a string.
    pub fn model_type(&self) -> Option<&str> {
        self.get(&["model_type"])?.as_str()
    }

    /// The strings of `architectures`, in order; empty where it is absent or no array.
    pub fn architectures(&self) -> Vec<&str> {
        match self.get(&["architectures"]) {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

/// A JSON value's type in words, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
