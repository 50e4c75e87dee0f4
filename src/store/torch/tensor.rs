//! [`Meanings`]: what PyTorch means by the values of a pickle: which name storages, and which are
//! tensors over them.
//!
//! The functions that `torch.save` names to rebuild a tensor are known by name and are not called;
//! any other is [`Unknown`], and what a reader makes of that is the reader's.
//!
//! Source: `torch.serialization`, `torch._utils` and `torch._tensor` of PyTorch 2.15.

use std::fmt;

use super::dtype::TorchDtype;
use super::value::{Call, Id, ORDERED_DICT, Value, Values};
use crate::tensor::Shape;

/// A storage: bytes that lie beside the pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TorchStorage<'v> {
    /// Its key: in an archive, the entry `data/KEY`.
    pub key: &'v str,
    /// What its elements are; `None` for one of bytes, over which each tensor has a dtype of its
    /// own.
    pub dtype: Option<TorchDtype>,
    /// How many elements it says to have; bytes if it has no dtype.
    pub len: u64,
}

/// A tensor: a view of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorchTensor<'v> {
    /// Where its bytes are.
    pub storage: TorchStorage<'v>,
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
pub enum Meaning<'v> {
    /// A storage.
    Storage(TorchStorage<'v>),
    /// A tensor.
    Tensor(TorchTensor<'v>),
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

/// What the calls and the outer things of a pickle mean. Each is looked at when it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Meanings<'v>(&'v Values);

/// How many functions may stand around each other: a subclass's tensor in a parameter is two.
const MAX_AROUND: usize = 8;

impl<'v> Meanings<'v> {
    /// Of all values of a pickle.
    pub fn of(values: &'v Values) -> Self {
        Self(values)
    }

    /// What a value means, where it is a call or lies outside the pickle.
    pub fn get(&self, id: Id) -> Option<Meaning<'v>> {
        self.within(id, MAX_AROUND)
    }

    /// The tensor that a value is.
    pub fn tensor(&self, id: Id) -> Option<TorchTensor<'v>> {
        match self.get(id)? {
            Meaning::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The storage that a value names.
    pub fn storage(&self, id: Id) -> Option<TorchStorage<'v>> {
        match self.0.get(id)? {
            Value::Persistent(name) => storage(self.0, *name).ok(),
            _ => None,
        }
    }

    /// Each meaning with its value's number, in the order of the pickle.
    pub fn iter(&self) -> impl Iterator<Item = (Id, Meaning<'v>)> {
        let meanings = *self;
        self.0.iter().filter_map(move |(id, _)| Some((id, meanings.get(id)?)))
    }

    fn within(&self, id: Id, around: usize) -> Option<Meaning<'v>> {
        let meaning = match self.0.get(id)? {
            Value::Persistent(name) => storage(self.0, *name).map(Meaning::Storage),
            Value::Call(call) => self.of_call(call, around),
            _ => return None,
        };
        Some(meaning.unwrap_or_else(Meaning::Unknown))
    }

    fn of_call(&self, call: &Call, around: usize) -> Result<Meaning<'v>, Unknown> {
        let name = self.0.global(call.function).ok_or(Unknown::NotAFunction)?;
        // Nothing that PyTorch rebuilds is a dict or a list to be filled.
        let is_filled = !(call.entries.is_empty() && call.items.is_empty());
        if is_filled && name.starts_with("torch.") {
            return Err(Unknown::Arguments(name.to_owned()));
        }
        // A subclass's tensor: a function and its arguments are arguments here, once.
        if name == REBUILD_FROM_TYPE {
            let [function, _, arguments, ..] = self.0.tuple(call.arguments) else {
                return Err(Unknown::Arguments(name.to_owned()));
            };
            let inner = self.0.global(*function).ok_or(Unknown::NotAFunction)?;
            return self.result(inner, *arguments, around);
        }
        self.result(name, call.arguments, around)
    }

    /// What a function would give.
    fn result(&self, name: &str, arguments: Id, around: usize) -> Result<Meaning<'v>, Unknown> {
        let (values, items) = (self.0, self.0.tuple(arguments));
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
                let around = around.checked_sub(1).ok_or_else(wrong)?;
                match items.first().and_then(|id| self.within(*id, around)) {
                    Some(Meaning::Tensor(tensor)) => Ok(Meaning::Tensor(tensor)),
                    _ => Err(wrong()),
                }
            }
            _ => Err(Unknown::Function(name.to_owned())),
        }
    }
}

const REBUILD_FROM_TYPE: &str = "torch._tensor._rebuild_from_type_v2";

/// A tensor over a storage; offset, sizes and strides are the second to fourth argument.
fn over<'v>(
    values: &'v Values,
    storage: TorchStorage<'v>,
    dtype: TorchDtype,
    arguments: &[Id],
    metadata: Option<Id>,
) -> Option<TorchTensor<'v>> {
    let number = |id: &Id| match values.get(*id)? {
        Value::Int(number) => Some(*number),
        _ => None,
    };
    let size = |id: &Id| number(id).and_then(|number| u64::try_from(number).ok());
    let [_, offset, sizes, strides, ..] = arguments else { return None };
    let all = |id: &Id| match values.get(*id)? {
        Value::Tuple(_) => Some(values.tuple(*id)),
        _ => None,
    };
    let sizes: Vec<u64> = all(sizes)?.iter().map(size).collect::<Option<_>>()?;
    let strides: Vec<i64> = all(strides)?.iter().map(number).collect::<Option<_>>()?;
    (sizes.len() == strides.len()).then_some(())?;
    let offset = size(offset)?;
    Some(TorchTensor { storage, dtype, offset, shape: sizes.into(), strides, metadata })
}

/// The storage that a persistent id names: a tuple of `"storage"`, its class, a key, a device and a
/// length.
fn storage(values: &Values, name: Id) -> Result<TorchStorage<'_>, Unknown> {
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
    let dtype = class_of(class).ok_or_else(|| Unknown::Storage(class.to_owned()))?;
    let Some(Value::Int(len)) = values.get(*len) else { return Err(Unknown::NotAStorage) };
    let len = u64::try_from(*len).map_err(|_| Unknown::NotAStorage)?;
    Ok(TorchStorage { key, dtype, len })
}

/// What the elements of a class of storages are, of whichever device: `torch.cuda.FloatStorage`.
/// `None` if it is no such class; one of bytes has no dtype.
pub(super) fn class_of(class: &str) -> Option<Option<TorchDtype>> {
    let short = class.strip_prefix("torch.")?.rsplit('.').next()?;
    STORAGES.iter().find(|(known, _)| *known == short).map(|(_, dtype)| *dtype)
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
