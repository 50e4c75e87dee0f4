//! [`Meanings`]: what PyTorch means by the values of a pickle: which name storages, and which are
//! tensors over them.
//!
//! The functions that `torch.save` names to rebuild a tensor are known by name and are not called;
//! any other is [`Unknown`], and what a reader makes of that is the reader's.
//!
//! Source: `torch.serialization`, `torch._utils` and `torch._tensor` of PyTorch 2.15.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;

use super::dtype::TorchDtype;
use super::value::{Call, Id, ORDERED_DICT, Value, Values};
use crate::tensor::Shape;

/// A storage: bytes that lie beside the pickle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorchStorage {
    /// Its key: in an archive, the entry `data/KEY`.
    pub key: String,
    /// What its elements are; `None` for one of bytes, over which each tensor has a dtype of its
    /// own.
    pub dtype: Option<TorchDtype>,
    /// How many elements it says to have; bytes if it has no dtype.
    pub len: u64,
}

/// A tensor: a view of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorchTensor {
    /// Where its bytes are.
    pub storage: Arc<TorchStorage>,
    /// What an element is.
    pub dtype: TorchDtype,
    /// Where it begins in the storage, in elements.
    pub offset: u64,
    /// The size of each dimension.
    pub shape: Shape,
    /// The stride of each dimension, in elements.
    pub strides: Vec<i64>,
    /// What else is said of it: a dict that may hold its conjugate and negative bits.
    pub metadata: Option<Id>,
}

/// What a value means. Not every tensor was looked at whole: nothing says that it lies within its
/// storage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Meaning {
    /// A storage.
    Storage(Arc<TorchStorage>),
    /// A tensor.
    Tensor(Arc<TorchTensor>),
    /// A value without a tensor: a dict, a set, a size, a device.
    Plain,
    /// A value that nothing here knows.
    Unknown(Unknown),
}

/// Why a value isn't known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unknown {
    /// The result of a function or class that isn't known, by its name.
    Function(String),
    /// The result of a known function with arguments that it doesn't have, by its name.
    Arguments(String),
    /// The result of calling what is no function.
    NotAFunction,
    /// A storage of a class that isn't known, by its name.
    Storage(String),
    /// Something outside the pickle that is no storage.
    NotAStorage,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(name) => write!(f, "a call of {name}"),
            Self::Arguments(name) => write!(f, "a call of {name} with unknown arguments"),
            Self::NotAFunction => f.write_str("a call of what is no function"),
            Self::Storage(class) => write!(f, "unknown storage {class}"),
            Self::NotAStorage => f.write_str("a persistent id that names no storage"),
        }
    }
}

/// What the calls and the outer things of a pickle mean, in the order in which they stand.
#[derive(Clone, Debug, Default)]
pub struct Meanings(IndexMap<Id, Meaning>);

impl Meanings {
    /// Looks at each value once. One that is made of others stands after them.
    pub fn of(values: &Values) -> Self {
        let mut meanings = Self::default();
        for (id, value) in values.iter() {
            let meaning = match value {
                Value::Persistent(name) => storage(values, *name),
                Value::Call(call) => meanings.of_call(values, call),
                _ => continue,
            };
            let meaning = meaning.unwrap_or_else(Meaning::Unknown);
            meanings.0.insert(id, meaning);
        }
        meanings
    }

    /// What a value means, where it is a call or lies outside the pickle.
    pub fn get(&self, id: Id) -> Option<&Meaning> {
        self.0.get(&id)
    }

    /// The tensor that a value is.
    pub fn tensor(&self, id: Id) -> Option<&Arc<TorchTensor>> {
        match self.0.get(&id)? {
            Meaning::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The storage that a value names.
    pub fn storage(&self, id: Id) -> Option<&Arc<TorchStorage>> {
        match self.0.get(&id)? {
            Meaning::Storage(storage) => Some(storage),
            _ => None,
        }
    }

    /// Each meaning with its value's number, in the order of the pickle.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &Meaning)> {
        self.0.iter().map(|(id, meaning)| (*id, meaning))
    }

    fn of_call(&self, values: &Values, call: &Call) -> Result<Meaning, Unknown> {
        let name = values.global(call.function).ok_or(Unknown::NotAFunction)?;
        // A subclass's tensor: a function and its arguments are arguments here, once.
        if name == REBUILD_FROM_TYPE {
            let [function, _, arguments, ..] = values.tuple(call.arguments) else {
                return Err(Unknown::Arguments(name.to_owned()));
            };
            let inner = values.global(*function).ok_or(Unknown::NotAFunction)?;
            return self.result(values, inner, *arguments);
        }
        self.result(values, name, call.arguments)
    }

    /// What a function would give.
    fn result(&self, values: &Values, name: &str, arguments: Id) -> Result<Meaning, Unknown> {
        let items = values.tuple(arguments);
        let wrong = || Unknown::Arguments(name.to_owned());
        match name {
            ORDERED_DICT | "torch.Size" | "torch.device" | "builtins.set" | "__builtin__.set" => {
                Ok(Meaning::Plain)
            }
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => {
                let storage = items.first().and_then(|id| self.storage(*id)).ok_or_else(wrong)?;
                let dtype = storage.dtype.ok_or_else(wrong)?;
                let tensor = over(values, storage, dtype, items, items.get(6).copied());
                tensor.map(Meaning::Tensor).ok_or_else(wrong)
            }
            // A newer form: an untyped storage, and the dtype as the seventh argument.
            "torch._utils._rebuild_tensor_v3" => {
                let storage = items.first().and_then(|id| self.storage(*id)).ok_or_else(wrong)?;
                let dtype = items.get(6).and_then(|id| values.global(*id));
                let dtype = dtype.and_then(TorchDtype::from_name).ok_or_else(wrong)?;
                let tensor = over(values, storage, dtype, items, items.get(7).copied());
                tensor.map(Meaning::Tensor).ok_or_else(wrong)
            }
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
                let tensor = items.first().and_then(|id| self.tensor(*id)).ok_or_else(wrong)?;
                Ok(Meaning::Tensor(Arc::clone(tensor)))
            }
            _ => Err(Unknown::Function(name.to_owned())),
        }
    }
}

const REBUILD_FROM_TYPE: &str = "torch._tensor._rebuild_from_type_v2";

/// A tensor over a storage; offset, sizes and strides are the second to fourth argument.
fn over(
    values: &Values,
    storage: &Arc<TorchStorage>,
    dtype: TorchDtype,
    arguments: &[Id],
    metadata: Option<Id>,
) -> Option<Arc<TorchTensor>> {
    let number = |id: &Id| match values.get(*id)? {
        Value::Int(number) => Some(*number),
        _ => None,
    };
    let size = |id: &Id| number(id).and_then(|number| u64::try_from(number).ok());
    let [_, offset, sizes, strides, ..] = arguments else { return None };
    let all = |id: &Id| match values.get(*id)? {
        Value::Tuple(items) => Some(items),
        _ => None,
    };
    let sizes: Vec<u64> = all(sizes)?.iter().map(size).collect::<Option<_>>()?;
    let strides: Vec<i64> = all(strides)?.iter().map(number).collect::<Option<_>>()?;
    (sizes.len() == strides.len()).then_some(())?;
    let storage = Arc::clone(storage);
    let offset = size(offset)?;
    Some(Arc::new(TorchTensor { storage, dtype, offset, shape: sizes.into(), strides, metadata }))
}

/// The storage that a persistent id names: a tuple of `"storage"`, its class, a key, a device and a
/// length.
fn storage(values: &Values, name: Id) -> Result<Meaning, Unknown> {
    let [kind, class, key, _, len, view @ ..] = values.tuple(name) else {
        return Err(Unknown::NotAStorage);
    };
    // Storages that are parts of others: no version of this decade writes them.
    if view.first().is_some_and(|view| values.get(*view) != Some(&Value::None)) {
        return Err(Unknown::NotAStorage);
    }
    let (Some("storage"), Some(class), Some(key)) =
        (values.text(*kind), values.global(*class), values.text(*key))
    else {
        return Err(Unknown::NotAStorage);
    };
    let short = class.rsplit('.').next().unwrap_or_default();
    let dtype = STORAGES.iter().find(|(known, _)| *known == short);
    let Some((_, dtype)) = dtype else { return Err(Unknown::Storage(class.to_owned())) };
    let Some(Value::Int(len)) = values.get(*len) else { return Err(Unknown::NotAStorage) };
    let len = u64::try_from(*len).map_err(|_| Unknown::NotAStorage)?;
    Ok(Meaning::Storage(Arc::new(TorchStorage { key: key.to_owned(), dtype: *dtype, len })))
}

/// The classes of storages, and what their elements are.
const STORAGES: &[(&str, Option<TorchDtype>)] = &[
    ("FloatStorage", Some(TorchDtype::Float32)),
    ("DoubleStorage", Some(TorchDtype::Float64)),
    ("HalfStorage", Some(TorchDtype::Float16)),
    ("BFloat16Storage", Some(TorchDtype::BFloat16)),
    ("LongStorage", Some(TorchDtype::Int64)),
    ("IntStorage", Some(TorchDtype::Int32)),
    ("ShortStorage", Some(TorchDtype::Int16)),
    ("CharStorage", Some(TorchDtype::Int8)),
    ("ByteStorage", Some(TorchDtype::UInt8)),
    ("BoolStorage", Some(TorchDtype::Bool)),
    ("ComplexFloatStorage", Some(TorchDtype::Complex64)),
    ("ComplexDoubleStorage", Some(TorchDtype::Complex128)),
    ("QInt8Storage", Some(TorchDtype::QInt8)),
    ("QUInt8Storage", Some(TorchDtype::QUInt8)),
    ("QInt32Storage", Some(TorchDtype::QInt32)),
    ("QUInt4x2Storage", Some(TorchDtype::QUInt4x2)),
    ("QUInt2x4Storage", Some(TorchDtype::QUInt2x4)),
    ("UntypedStorage", None),
];
