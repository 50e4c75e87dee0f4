//! The dtypes of a `.bin` checkpoint, read off its pickle without running it.
//!
//! A pickle is a program for a small stack machine. Here the machine has no calls: the few
//! functions that `torch.save` names to rebuild a tensor are recognized by name, and any other ends
//! the reading, as `torch.load(weights_only=True)` ends it. Nothing is imported, built or run; a
//! tensor's elements are never looked at. Memory is bounded by the length of the pickle, and that
//! by [`MAX_PICKLE`].
//!
//! Source: `pickletools` of CPython for the opcodes, `torch.serialization` and `torch._utils` of
//! PyTorch for what a checkpoint names.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};

use super::Raised;
use super::archive::{Archive, MAX_PICKLE, pickle_in_archive, u16_at, u32_at};
use crate::dtypes::TorchDtype;

/// Key and dtype of each tensor of a state dict that `torch.save` wrote, in order.
///
/// # Errors
/// An `UnpicklingError` for a file that is neither form of such a file, or that needs code to run;
/// an `OSError` where reading fails.
pub(crate) fn state_dict_dtypes(
    mut file: impl Read + Seek,
) -> Result<Vec<(String, TorchDtype)>, Raised> {
    let failed = |error: std::io::Error| Raised::new("OSError", error.to_string());
    let len = file.seek(SeekFrom::End(0)).map_err(failed)?;
    match pickle_in_archive(&mut file, len).map_err(failed)? {
        Archive::Pickle { start, len } => {
            file.seek(SeekFrom::Start(start)).map_err(failed)?;
            let mut bytes =
                vec![0; usize::try_from(len).map_err(|_| bad("the pickle is too long"))?];
            file.read_exact(&mut bytes).map_err(failed)?;
            Machine::new(&bytes).run()
        }
        Archive::Bad(why) => Err(bad(why)),
        Archive::None => {
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            let mut bytes = Vec::new();
            file.take(MAX_PICKLE).read_to_end(&mut bytes).map_err(failed)?;
            // The form before archives: a magic number, a version, facts of the system, and then
            // the state dict; the elements follow.
            let mut machine = Machine::new(&bytes);
            for _ in 0..3 {
                machine.object()?;
            }
            machine.run()
        }
    }
}

fn bad(why: impl Into<String>) -> Raised {
    Raised::new("UnpicklingError", why)
}

/// An object of the machine, by its number.
type Id = usize;

#[derive(Clone)]
enum Object {
    /// What doesn't matter here: numbers, lists, attributes.
    Opaque,
    Text(String),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A name that the pickle imports: module and name.
    Global(String),
    /// A storage, with its dtype unless it is untyped.
    Storage(Option<TorchDtype>),
    Tensor(TorchDtype),
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
        }
    }

    /// The next pickle, as a state dict.
    fn run(&mut self) -> Result<Vec<(String, TorchDtype)>, Raised> {
        let id = self.object()?;
        let Some(Object::Dict(entries)) = self.objects.get(id) else {
            return Err(bad("the file holds no state dict"));
        };
        let entry =
            |(key, value): &(Id, Id)| match (self.objects.get(*key)?, self.objects.get(*value)?) {
                (Object::Text(key), Object::Tensor(dtype)) => Some((key.clone(), *dtype)),
                _ => None,
            };
        Ok(entries.iter().filter_map(entry).collect())
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Raised> {
        let bytes = self
            .at
            .checked_add(len)
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or_else(|| bad("pickle data was truncated"))?;
        self.at += len;
        Ok(bytes)
    }

    fn len8(&mut self) -> Result<usize, Raised> {
        Ok(usize::from(u16_at(&[self.take(1)?, &[0]].concat(), 0)))
    }

    fn len32(&mut self) -> Result<usize, Raised> {
        usize::try_from(u32_at(self.take(4)?, 0)).map_err(|_| bad("pickle data was truncated"))
    }

    fn line(&mut self) -> Result<String, Raised> {
        let len = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
            .ok_or_else(|| bad("pickle data was truncated"))?;
        let line = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.at += 1;
        Ok(line)
    }

    fn push(&mut self, object: Object) {
        self.objects.push(object);
        self.stack.push(self.objects.len() - 1);
    }

    fn pop(&mut self) -> Result<Id, Raised> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(bad("unexpected MARK found"));
        }
        self.stack.pop().ok_or_else(|| bad("the stack is empty"))
    }

    /// What lies above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Id>, Raised> {
        let mark = self.marks.pop().ok_or_else(|| bad("could not find MARK"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn text(&mut self, len: usize) -> Result<(), Raised> {
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.push(Object::Text(text));
        Ok(())
    }

    fn skip(&mut self, len: usize) -> Result<(), Raised> {
        self.take(len)?;
        self.push(Object::Opaque);
        Ok(())
    }

    fn tuple(&mut self, len: usize) -> Result<(), Raised> {
        let mut items = (0..len).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Object::Tuple(items));
        Ok(())
    }

    fn put(&mut self, slot: u32) -> Result<(), Raised> {
        let top = *self.stack.last().ok_or_else(|| bad("the stack is empty"))?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn get(&mut self, slot: u32) -> Result<(), Raised> {
        let id = *self
            .memo
            .get(&slot)
            .ok_or_else(|| bad(format!("Memo value not found at index {slot}")))?;
        self.stack.push(id);
        Ok(())
    }

    fn set(&mut self, entries: &[Id]) -> Result<(), Raised> {
        let dict = *self.stack.last().ok_or_else(|| bad("the stack is empty"))?;
        if let Some(Object::Dict(known)) = self.objects.get_mut(dict) {
            known.extend(
                entries.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))),
            );
        }
        Ok(())
    }

    /// Runs to the next STOP and gives the object that is left.
    fn object(&mut self) -> Result<Id, Raised> {
        loop {
            match self.take(1)?.first().copied().unwrap_or_default() {
                b'.' => return self.pop(),
                // PROTO and FRAME
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = *self.stack.last().ok_or_else(|| bad("the stack is empty"))?;
                    self.stack.push(top);
                }
                b'N' | 0x88 | 0x89 | b']' | 0x8f => self.push(Object::Opaque),
                b'K' => self.skip(1)?,
                b'M' => self.skip(2)?,
                b'J' => self.skip(4)?,
                b'G' => self.skip(8)?,
                b'I' | b'L' | b'F' => {
                    self.line()?;
                    self.push(Object::Opaque);
                }
                // LONG1, LONG4, and bytes
                0x8a | b'C' => {
                    let len = self.len8()?;
                    self.skip(len)?;
                }
                0x8b | b'B' => {
                    let len = self.len32()?;
                    self.skip(len)?;
                }
                b'U' | 0x8c => {
                    let len = self.len8()?;
                    self.text(len)?;
                }
                b'T' | b'X' => {
                    let len = self.len32()?;
                    self.text(len)?;
                }
                b')' => self.push(Object::Tuple(Vec::new())),
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' => {
                    let items = self.pop_mark()?;
                    self.push(Object::Tuple(items));
                }
                b'}' => self.push(Object::Dict(Vec::new())),
                b'd' => {
                    let items = self.pop_mark()?;
                    self.push(Object::Dict(Vec::new()));
                    self.set(&items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set(&items)?;
                }
                b'a' => drop(self.pop()?),
                b'e' | 0x90 => drop(self.pop_mark()?),
                b'q' => {
                    let slot = self.len8()?;
                    self.put(u32::try_from(slot).unwrap_or_default())?;
                }
                b'r' => {
                    let slot = u32_at(self.take(4)?, 0);
                    self.put(slot)?;
                }
                0x94 => {
                    let slot = u32::try_from(self.memo.len()).unwrap_or(u32::MAX);
                    self.put(slot)?;
                }
                b'h' => {
                    let slot = self.len8()?;
                    self.get(u32::try_from(slot).unwrap_or_default())?;
                }
                b'j' => {
                    let slot = u32_at(self.take(4)?, 0);
                    self.get(slot)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Object::Global(format!("{module}.{name}")));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Some(Object::Text(module)), Some(Object::Text(name))) =
                        (self.objects.get(module), self.objects.get(name))
                    else {
                        return Err(bad("STACK_GLOBAL requires str"));
                    };
                    let global = Object::Global(format!("{module}.{name}"));
                    self.push(global);
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push(storage);
                }
                // Attributes of what was rebuilt say nothing of its dtype.
                b'b' => drop(self.pop()?),
                b'R' | 0x81 => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    let result = self.rebuilt(function, arguments, 0)?;
                    self.push(result);
                }
                opcode => {
                    return Err(bad(format!("opcode 0x{opcode:02x} is not one of a checkpoint")));
                }
            }
        }
    }

    fn items(&self, tuple: Id) -> &[Id] {
        match self.objects.get(tuple) {
            Some(Object::Tuple(items)) => items,
            _ => &[],
        }
    }

    fn item(&self, tuple: Id, index: usize) -> Option<&Object> {
        self.objects.get(*self.items(tuple).get(index)?)
    }

    /// The storage that a persistent id names: a tuple of `"storage"`, its class, a key, a device
    /// and a length.
    fn storage(&self, id: Id) -> Result<Object, Raised> {
        match (self.item(id, 0), self.item(id, 1)) {
            (Some(Object::Text(kind)), Some(Object::Global(class))) if kind == "storage" => {
                let name = class.rsplit('.').next().unwrap_or_default();
                match STORAGES.iter().find(|(known, _)| *known == name) {
                    Some((_, dtype)) => Ok(Object::Storage(*dtype)),
                    None => Err(bad(format!("unknown storage {class}"))),
                }
            }
            _ => Err(bad("a persistent id that names no storage")),
        }
    }

    /// What a known function would give. It is not called.
    fn rebuilt(&self, function: Id, arguments: Id, depth: usize) -> Result<Object, Raised> {
        let Some(Object::Global(name)) = self.objects.get(function) else {
            return Err(bad("a call of what is no function"));
        };
        let unsupported = || {
            bad(format!("Weights only load failed: {name} with these arguments is not supported"))
        };
        match name.as_str() {
            "collections.OrderedDict" => Ok(Object::Dict(Vec::new())),
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => {
                match self.item(arguments, 0) {
                    Some(Object::Storage(Some(dtype))) => Ok(Object::Tensor(*dtype)),
                    _ => Err(unsupported()),
                }
            }
            // A newer form: an untyped storage, and the dtype as the seventh argument.
            "torch._utils._rebuild_tensor_v3" => match self.item(arguments, 6) {
                Some(Object::Global(dtype)) => {
                    TorchDtype::from_name(dtype).map(Object::Tensor).ok_or_else(unsupported)
                }
                _ => Err(unsupported()),
            },
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
                match self.item(arguments, 0) {
                    Some(tensor @ Object::Tensor(_)) => Ok(tensor.clone()),
                    _ => Err(unsupported()),
                }
            }
            "torch._tensor._rebuild_from_type_v2" if depth == 0 => match self.items(arguments) {
                [function, _, arguments, ..] => self.rebuilt(*function, *arguments, depth + 1),
                _ => Err(unsupported()),
            },
            "torch.Size" | "torch.device" | "builtins.set" | "__builtin__.set" => {
                Ok(Object::Opaque)
            }
            name => {
                Err(bad(format!("Weights only load failed: Unsupported global: GLOBAL {name}")))
            }
        }
    }
}

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
