//! [`PlainValues`]: what a file has besides tensors, as JSON: the number of an epoch, arguments.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::container::Container;
use super::contents::broken;
use super::tensor::Meanings;
use super::tree::{Kind, Tree};
use super::value::{Call, Id, Value, Values};
use crate::error::{Error, ErrorKind, Result};
use crate::store::archive::Window;

/// Values of a file without tensors, in the order of the file. They are written as JSON.
///
/// Dicts are objects, also those of the attributes of plain objects; lists and tuples are arrays.
/// Numbers that JSON lacks (`NaN`) are texts, bytes and values of unknown classes are texts that
/// say what they are. Where a dict or list holds nothing but tensors, it isn't there.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct PlainValues(Json);

/// Most values that are written: one that is in many places counts in each.
const MAX_WRITTEN: usize = 1 << 20;

/// How deep they may lie in each other.
const MAX_DEPTH: usize = 100;

impl PlainValues {
    /// Those of a file of `torch.save`.
    ///
    /// # Errors
    /// If the file is broken, or has more of them than are written.
    pub fn read(file: Window<'_>) -> Result<Self> {
        let (saved, _) = Container::read(file)?;
        let top = saved.root.map_err(|error| broken(&error))?;
        let tree = Tree::new(&saved.values, Meanings::of(&saved.values), top);
        let mut writer = Writer { values: &saved.values, tree: &tree, left: MAX_WRITTEN };
        Ok(Self(writer.json(top, 0)?.unwrap_or_else(|| Json::Object(Map::new()))))
    }

    /// Those of several files, by their names.
    pub fn together(files: impl IntoIterator<Item = (String, Self)>) -> Self {
        Self(Json::Object(files.into_iter().map(|(name, values)| (name, values.0)).collect()))
    }
}

struct Writer<'v> {
    values: &'v Values,
    tree: &'v Tree<'v>,
    left: usize,
}

impl Writer<'_> {
    /// A value; `None` if it is a tensor, or holds nothing else.
    fn json(&mut self, id: Id, depth: usize) -> Result<Option<Json>> {
        let many = || Error::new(ErrorKind::Limit, "too many values, or too deep in each other");
        self.left = self.left.checked_sub(1).filter(|_| depth <= MAX_DEPTH).ok_or_else(many)?;
        Ok(match self.values.get(id) {
            Some(Value::None) => Some(Json::Null),
            Some(Value::Bool(is)) => Some(Json::Bool(*is)),
            Some(Value::Int(number)) => Some(Json::from(*number)),
            Some(Value::Float(number)) => Some(real(*number)),
            Some(Value::Text(_)) => self.values.text(id).map(Json::from),
            Some(Value::Bytes(_)) => self.values.bytes(id).map(bytes),
            Some(Value::Long(_)) => self.values.bytes(id).map(long),
            Some(Value::Global(_)) => self.values.global(id).map(Json::from),
            Some(Value::Set(items)) => self.items(items, depth)?,
            Some(Value::Tuple(_)) => self.items(self.values.tuple(id), depth)?,
            Some(Value::List(items)) => self.items(items, depth)?,
            Some(Value::Call(call)) => match self.tree.kind(id) {
                Kind::Tensor | Kind::Lost(_) => None,
                Kind::Branch(entries) => {
                    let named = entries
                        .iter()
                        .filter_map(|(name, id)| Some((name.text()?.into_owned(), *id)));
                    self.entries(named, depth)?
                }
                Kind::Plain | Kind::Foreign(..) => self.object(call, depth)?,
            },
            Some(Value::Dict(_)) => {
                let Kind::Branch(entries) = self.tree.kind(id) else { return Ok(None) };
                let named =
                    entries.iter().filter_map(|(name, id)| Some((name.text()?.into_owned(), *id)));
                self.entries(named, depth)?
            }
            Some(Value::Persistent(_) | Value::Opaque) | None => None,
        })
    }

    fn items(&mut self, items: &[Id], depth: usize) -> Result<Option<Json>> {
        let mut found = Vec::new();
        for item in items {
            found.extend(self.json(*item, depth + 1)?);
        }
        Ok((items.is_empty() || !found.is_empty()).then_some(Json::Array(found)))
    }

    fn entries(
        &mut self,
        entries: impl Iterator<Item = (String, Id)>,
        depth: usize,
    ) -> Result<Option<Json>> {
        let (mut found, mut is_empty) = (Map::new(), true);
        for (name, id) in entries {
            is_empty = false;
            if let Some(value) = self.json(id, depth + 1)? {
                found.insert(name, value);
            }
        }
        Ok((is_empty || !found.is_empty()).then_some(Json::Object(found)))
    }

    /// What a call would give: a number of NumPy, an object by its attributes, or its class's name.
    fn object(&mut self, call: &Call, depth: usize) -> Result<Option<Json>> {
        let name = self.values.global(call.function).unwrap_or_default();
        if let Some(number) = self.scalar(name, call) {
            return Ok(Some(number));
        }
        let plain = self.values.tuple(call.arguments);
        if matches!(name, "torch.Size" | "builtins.set" | "__builtin__.set" | "torch.device") {
            return self.items(plain, depth);
        }
        if name == "_codecs.encode" {
            let text = plain.first().and_then(|text| self.values.text(*text)).unwrap_or_default();
            return Ok(Some(Json::from(format!("{} bytes", text.chars().count()))));
        }
        let attributes = call.state.and_then(|state| self.values.entries(state));
        let named: Option<Vec<(String, Id)>> = attributes.map(|entries| {
            let named = |(name, id): &(Id, Id)| Some((self.values.text(*name)?.to_owned(), *id));
            entries.iter().filter_map(named).collect()
        });
        match named {
            Some(named) if name == "argparse.Namespace" => self.entries(named.into_iter(), depth),
            _ => Ok(Some(Json::from(format!("a value of {name}")))),
        }
    }

    /// A single number of NumPy: its dtype, and its bytes, which protocols before 3 write as text.
    fn scalar(&self, name: &str, call: &Call) -> Option<Json> {
        name.ends_with("multiarray.scalar").then_some(())?;
        let [dtype, content] = self.values.tuple(call.arguments) else { return None };
        let Some(Value::Call(dtype)) = self.values.get(*dtype) else { return None };
        let dtype = self.values.text(*self.values.tuple(dtype.arguments).first()?)?;
        let bytes: Vec<u8> = match self.values.get(*content)? {
            Value::Call(encode) => {
                let text = self.values.text(*self.values.tuple(encode.arguments).first()?)?;
                text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect::<Option<_>>()?
            }
            _ => self.values.bytes(*content)?.to_vec(),
        };
        Some(match dtype {
            "f8" => real(f64::from_le_bytes(bytes.try_into().ok()?)),
            "f4" => real(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
            "i8" => Json::from(i64::from_le_bytes(bytes.try_into().ok()?)),
            "i4" => Json::from(i32::from_le_bytes(bytes.try_into().ok()?)),
            "b1" => Json::from(bytes.first().is_some_and(|byte| *byte != 0)),
            _ => return None,
        })
    }
}

fn real(number: f64) -> Json {
    serde_json::Number::from_f64(number).map_or_else(|| Json::from(number.to_string()), Json::from)
}

fn bytes(bytes: &[u8]) -> Json {
    Json::from(format!("{} bytes", bytes.len()))
}

/// An integer beyond 64 bits, in hexadecimal digits of its two's complement.
fn long(bytes: &[u8]) -> Json {
    Json::from(bytes.iter().rev().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}
