//! `.metadata` of `torch.distributed.checkpoint`: which parts each tensor was saved in, and where
//! each part lies.
//!
//! The file is a pickle. PyTorch runs it; here it is data, and everything that it says is compared
//! with the files that it names.
//!
//! Source: `torch.distributed.checkpoint` of PyTorch 2.15 (`metadata`, `filesystem`, `planner`).

use indexmap::IndexMap;

use super::contents::broken;
use super::pickle::Machine;
use super::tensor::Meanings;
use super::tree::{Tree, listed};
use super::value::{Id, Value, Values};
use super::{MAX_PICKLE, TorchDtype};
use crate::error::{Error, ErrorKind, Result};
use crate::store::archive::Window;

/// What the file says.
#[derive(Debug, Default)]
pub(in crate::store) struct Saved {
    /// Each tensor by its name, in the order of the file.
    pub(in crate::store) tensors: IndexMap<String, SavedTensor>,
    /// Names of what is no tensor.
    pub(in crate::store) plain: Vec<String>,
    /// For names that were made by joining those of dicts in dicts, these.
    pub(in crate::store) paths: IndexMap<String, Vec<String>>,
}

/// A tensor, and its parts.
#[derive(Debug)]
pub(in crate::store) struct SavedTensor {
    pub(in crate::store) dtype: TorchDtype,
    pub(in crate::store) shape: Vec<u64>,
    pub(in crate::store) parts: Vec<Chunk>,
}

/// A part of a tensor, and where it lies.
#[derive(Clone, Debug)]
pub(in crate::store) struct Chunk {
    /// Where it begins in the tensor, and its size, in elements along each dimension.
    pub(in crate::store) start: Vec<u64>,
    pub(in crate::store) shape: Vec<u64>,
    /// The file, relative to the directory; the first byte in it, and how many.
    pub(in crate::store) file: String,
    pub(in crate::store) offset: u64,
    pub(in crate::store) len: u64,
}

/// Reads it.
///
/// # Errors
/// If it isn't what PyTorch writes, or lies: a part without a place, sizes that are none.
pub(in crate::store) fn read(window: Window<'_>) -> Result<Saved> {
    if window.len() > MAX_PICKLE {
        let why = format!("it has {} bytes; {MAX_PICKLE} are read", window.len());
        return Err(Error::new(ErrorKind::Limit, why));
    }
    let bytes = window.head(MAX_PICKLE)?;
    let mut machine = Machine::new(&bytes);
    let root = machine.object().map_err(|error| broken(&error))?;
    let values = machine.into_values();
    Reader { values: &values }.saved(root).map_err(|error| {
        let tree = Tree::new(&values, Meanings::of(&values), root);
        let names: Vec<String> = tree.foreign().into_iter().filter(|it| !is_of_dcp(it)).collect();
        if names.is_empty() {
            return error;
        }
        error.hint(format!(
            "it names {}, which is none of its classes; nothing was run",
            listed(&names)
        ))
    })
}

/// Whether a class is one of those that the file is made of.
fn is_of_dcp(name: &str) -> bool {
    name.starts_with("torch.distributed.checkpoint.")
}

struct Reader<'v> {
    values: &'v Values,
}

/// Where each part lies, by the tensor's name and the part's start.
type Places = IndexMap<(String, Vec<u64>), (String, u64, u64)>;

impl<'v> Reader<'v> {
    fn saved(&self, root: Id) -> Result<Saved> {
        let of = |name: &str| {
            let found = self.field(root, name).and_then(|dict| self.values.entries(dict));
            found.ok_or_else(|| Error::corrupt(format!("it has no dict {name:?}")))
        };
        let tensors = of("state_dict_metadata")?;
        let places = self.places(of("storage_data")?)?;
        let mut saved = Saved::default();
        for (name, metadata) in tensors {
            let name = self.text(*name)?;
            if self.class(*metadata).ends_with(".BytesStorageMetadata") {
                saved.plain.push(name);
                continue;
            }
            let tensor = self.tensor(&name, *metadata, &places);
            let tensor = tensor.map_err(|error| error.at_key(&*name))?;
            if saved.tensors.insert(name.clone(), tensor).is_some() {
                return Err(Error::corrupt("the key is there twice").at_key(name));
            }
        }
        let paths = self.field(root, "planner_data").and_then(|dict| self.values.entries(dict));
        for (name, path) in paths.unwrap_or_default() {
            let (Some(name), path) = (self.values.text(*name), self.values.tuple(*path)) else {
                continue;
            };
            let names = path.iter().map(|part| match self.values.get(*part) {
                Some(Value::Text(_)) => self.values.text(*part).map(str::to_owned),
                Some(Value::Int(number)) => Some(number.to_string()),
                _ => None,
            });
            if let Some(path) = names.collect() {
                saved.paths.insert(name.to_owned(), path);
            }
        }
        Ok(saved)
    }

    fn places(&self, entries: &[(Id, Id)]) -> Result<Places> {
        let mut found = Places::with_capacity(entries.len());
        for (index, place) in entries {
            let name = self.text(self.need(*index, "fqn")?)?;
            let start = match self.field(*index, "offset") {
                Some(offset) if self.values.get(offset) != Some(&Value::None) => {
                    self.sizes(offset)?
                }
                // What is no tensor has none.
                _ => Vec::new(),
            };
            let transformed = self.field(*place, "transform_descriptors");
            if transformed.is_some_and(|found| {
                !matches!(self.values.get(found), None | Some(Value::None))
                    && self.values.list(found) != Some(&[])
            }) {
                let error = Error::new(ErrorKind::Unsupported, "its bytes are compressed");
                return Err(error
                    .at_key(name)
                    .hint("save without extensions of torch.distributed.checkpoint"));
            }
            let file = self.text(self.need(*place, "relative_path")?)?;
            let number = |name: &str| {
                let Some(Value::Int(number)) = self.values.get(self.need(*place, name)?) else {
                    return Err(Error::corrupt(format!("{name} is no number")));
                };
                u64::try_from(*number).map_err(|_| Error::corrupt(format!("{name} is {number}")))
            };
            found.insert((name, start), (file, number("offset")?, number("length")?));
        }
        Ok(found)
    }

    fn tensor(&self, name: &str, metadata: Id, places: &Places) -> Result<SavedTensor> {
        let shape = self.sizes(self.need(metadata, "size")?)?;
        let dtype = self.dtype(self.need(metadata, "properties")?)?;
        let chunks = self.need(metadata, "chunks")?;
        let chunks = self.values.list(chunks);
        let mut parts = Vec::new();
        for chunk in chunks.ok_or_else(|| Error::corrupt("its parts are no list"))? {
            let start = self.sizes(self.need(*chunk, "offsets")?)?;
            let shape = self.sizes(self.need(*chunk, "sizes")?)?;
            let place = (name.to_owned(), start.clone());
            let (file, offset, len) = places.get(&place).cloned().ok_or_else(|| {
                Error::corrupt(format!("nothing says where its part at {start:?} lies"))
            })?;
            parts.push(Chunk { start, shape, file, offset, len });
        }
        Ok(SavedTensor { dtype, shape, parts })
    }

    /// The dtype among a tensor's properties: the first of a tuple, or a field.
    fn dtype(&self, properties: Id) -> Result<TorchDtype> {
        let state = match self.values.get(properties) {
            Some(Value::Call(call)) => call.state,
            _ => None,
        };
        let first = state.and_then(|state| self.values.tuple(state).first().copied());
        let dtype = first.or_else(|| self.field(properties, "dtype"));
        let name = dtype.and_then(|dtype| self.values.global(dtype)).unwrap_or("no name");
        TorchDtype::from_name(name)
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, format!("its dtype is {name}")))
    }

    /// A field of an object that a call makes: of its state.
    fn field(&self, object: Id, name: &str) -> Option<Id> {
        let Some(Value::Call(call)) = self.values.get(object) else { return None };
        let state = call.state?;
        // Where a class has slots, the second of a pair has its fields.
        let dicts = [Some(state), self.values.tuple(state).get(1).copied()];
        let mut entries = dicts.into_iter().flatten().filter_map(|id| self.values.entries(id));
        entries.find_map(|entries| {
            let found = entries.iter().find(|(key, _)| self.values.text(*key) == Some(name));
            found.map(|(_, value)| *value)
        })
    }

    fn need(&self, object: Id, name: &str) -> Result<Id> {
        self.field(object, name).ok_or_else(|| Error::corrupt(format!("an entry has no {name}")))
    }

    /// The class that an object is made of.
    fn class(&self, object: Id) -> &'v str {
        let Some(Value::Call(call)) = self.values.get(object) else { return "" };
        self.values.global(call.function).unwrap_or_default()
    }

    fn text(&self, id: Id) -> Result<String> {
        let text = self.values.text(id).map(str::to_owned);
        text.ok_or_else(|| Error::corrupt("a name is no text"))
    }

    /// A `torch.Size`: a call with a tuple or a list; or a plain one.
    fn sizes(&self, id: Id) -> Result<Vec<u64>> {
        let items = match self.values.get(id) {
            Some(Value::Call(call)) if self.class(id) == "torch.Size" => {
                let inner = self.values.tuple(call.arguments).first().copied();
                inner.map_or(&[][..], |inner| {
                    self.values.list(inner).unwrap_or_else(|| self.values.tuple(inner))
                })
            }
            Some(Value::Tuple(_)) => self.values.tuple(id),
            Some(Value::List(items)) => items,
            _ => return Err(Error::corrupt("sizes are no list of numbers")),
        };
        let size = |id: &Id| match self.values.get(*id) {
            Some(Value::Int(size)) => u64::try_from(*size).ok(),
            _ => None,
        };
        let sizes: Option<Vec<u64>> = items.iter().map(size).collect();
        sizes.ok_or_else(|| Error::corrupt("sizes are no list of numbers"))
    }
}
