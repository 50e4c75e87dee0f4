//! The machine that reads a pickle.
//!
//! A pickle is a program for a small stack machine. This one has no calls: where a pickle calls
//! something, the call itself is the value. Nothing is imported, built or run.
//!
//! Source: `pickletools` of CPython for the opcodes.

use std::collections::HashMap;
use std::fmt;

use smallvec::SmallVec;

#[cfg(test)]
use super::Saved;
use super::value::{Call, Id, Value, Values};
use crate::store::archive::{u16_at, u32_at, u64_at};

/// Where and why a pickle breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PickleError {
    /// It ends before its end.
    Truncated,
    /// It has an opcode that no checkpoint needs.
    Opcode(u8),
    /// It takes a value where a mark lies.
    Mark,
    /// It takes what lies above a mark, and there is none.
    NoMark,
    /// It takes a value, and there is none.
    EmptyStack,
    /// It asks for a memorized value that it hasn't memorized.
    NotMemorized(u32),
    /// It imports what is no name.
    NoName,
    /// It makes more values than [`MAX_VALUES`].
    Values,
}

impl fmt::Display for PickleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("pickle data was truncated"),
            Self::Opcode(opcode) => {
                write!(f, "opcode 0x{opcode:02x} is not one of a checkpoint")
            }
            Self::Mark => f.write_str("unexpected MARK found"),
            Self::NoMark => f.write_str("could not find MARK"),
            Self::EmptyStack => f.write_str("the stack is empty"),
            Self::NotMemorized(slot) => write!(f, "Memo value not found at index {slot}"),
            Self::NoName => f.write_str("STACK_GLOBAL requires str"),
            Self::Values => write!(f, "more than {MAX_VALUES} values"),
        }
    }
}

impl std::error::Error for PickleError {}

/// The most values of a pickle: a state dict has about twenty for each tensor.
pub const MAX_VALUES: usize = 1 << 25;

/// Reads the pickle that comes after so many others.
#[cfg(test)]
pub(super) fn read(bytes: &[u8], before: usize) -> Saved {
    let mut machine = Machine::new(bytes);
    let mut root = machine.object();
    for _ in 0..before {
        root = root.and_then(|_| machine.object());
    }
    Saved { values: machine.into_values(), root }
}

/// Reads pickles that lie one behind the other. All of their values are numbered together.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Values,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: Memo,
}

/// Values that a pickle memorizes, by their slots, which nearly always count up.
#[derive(Default)]
struct Memo {
    first: Vec<Option<Id>>,
    /// Slots far beyond those that were used before.
    others: HashMap<u32, Id>,
    count: u32,
}

impl Memo {
    fn get(&self, slot: u32) -> Option<Id> {
        let first = usize::try_from(slot).ok().and_then(|at| self.first.get(at).copied());
        first.flatten().or_else(|| self.others.get(&slot).copied())
    }

    fn set(&mut self, slot: u32, id: Id) {
        self.count = self.count.saturating_add(u32::from(self.get(slot).is_none()));
        match usize::try_from(slot) {
            Ok(at) if at < self.first.len() => self.first[at] = Some(id),
            Ok(at) if at == self.first.len() => self.first.push(Some(id)),
            _ => drop(self.others.insert(slot, id)),
        }
    }
}

type Result<T> = std::result::Result<T, PickleError>;

/// What an opcode did.
enum Step {
    /// The pickle goes on.
    On,
    /// It ends here, with this value.
    End(Id),
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            values: Values::default(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Memo::default(),
        }
    }

    /// How many bytes were read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The values that were made, without the machine.
    pub(super) fn into_values(self) -> Values {
        self.values
    }

    /// Runs to the next STOP and gives the value that is left.
    pub(super) fn object(&mut self) -> Result<Id> {
        loop {
            if self.values.all.len() > MAX_VALUES {
                return Err(PickleError::Values);
            }
            let opcode = self.take(1)?.first().copied().unwrap_or_default();
            if let Step::End(root) = self.step(opcode)? {
                // The next pickle, if there is one, begins with nothing.
                self.stack.clear();
                self.marks.clear();
                self.memo = Memo::default();
                return Ok(root);
            }
        }
    }

    fn step(&mut self, opcode: u8) -> Result<Step> {
        match opcode {
            b'.' => return self.pop().map(Step::End),
            // PROTO and FRAME
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            // READONLY_BUFFER
            0x98 => drop(self.top()?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.memorized(opcode)?,
            b')'
            | b't'
            | b'}'
            | b'd'
            | b's'
            | b'u'
            | b']'
            | b'l'
            | b'a'
            | b'e'
            | 0x85..=0x87
            | 0x8f
            | 0x90
            | 0x91 => self.collection(opcode)?,
            b'c' | 0x93 | b'P' | b'Q' | b'b' | b'R' | b'i' | b'o' | 0x81 | 0x92 | 0x82..=0x84 => {
                self.named(opcode)?
            }
            _ => {
                let value = self.constant(opcode)?;
                self.push(value);
            }
        }
        Ok(Step::On)
    }

    /// A value that stands in the pickle.
    fn constant(&mut self, opcode: u8) -> Result<Value> {
        Ok(match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.take(1)?.first().copied().unwrap_or_default().into()),
            b'M' => Value::Int(u16_at(self.take(2)?, 0).into()),
            b'J' => Value::Int(u32_at(self.take(4)?, 0).cast_signed().into()),
            b'G' => Value::Float(f64::from_bits(u64_at(self.take(8)?, 0).swap_bytes())),
            b'I' => match self.line()?.as_str() {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                text => text.parse().map_or(Value::Opaque, Value::Int),
            },
            b'L' => {
                let text = self.line()?;
                let digits = text.strip_suffix('L').unwrap_or(&text);
                digits.parse().map_or(Value::Opaque, Value::Int)
            }
            b'F' => self.line()?.parse().map_or(Value::Opaque, Value::Float),
            // LONG1 and LONG4
            0x8a | 0x8b => {
                let len = if opcode == 0x8a { self.len8()? } else { self.len32()? };
                let bytes = self.take(len)?;
                integer(bytes).map_or_else(|| Value::Long(self.values.new_bytes(bytes)), Value::Int)
            }
            b'C' | b'B' | 0x8e | 0x96 => {
                let len = self.length(opcode)?;
                let bytes = self.take(len)?;
                Value::Bytes(self.values.new_bytes(bytes))
            }
            b'U' | 0x8c | b'T' | b'X' | 0x8d => {
                let len = self.length(opcode)?;
                match std::str::from_utf8(self.take(len)?) {
                    Ok(text) => self.values.new_text(text),
                    // Text that no key can be, as of lone surrogates.
                    Err(_) => Value::Opaque,
                }
            }
            // STRING, in quotes, and UNICODE
            b'S' | b'V' => {
                let line = self.line()?;
                self.values.new_text(line.trim_matches(['\'', '"']))
            }
            _ => return Err(PickleError::Opcode(opcode)),
        })
    }

    /// Tuples, lists, sets and dicts, and what is put into them.
    fn collection(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b')' => self.push_tuple(&[]),
            0x85..=0x87 => {
                let mut items: SmallVec<[Id; 3]> =
                    (0x85..=opcode).map(|_| self.pop()).collect::<Result<_>>()?;
                items.reverse();
                self.push_tuple(&items);
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push_tuple(&items);
            }
            b'}' => self.push(Value::Dict(Box::default())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(Box::default()));
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
            b']' => self.push(Value::List(Box::default())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(Box::new(items)));
            }
            // FROZENSET
            0x91 => {
                let items = self.pop_mark()?;
                self.push(Value::Set(Box::new(items)));
            }
            0x8f => self.push(Value::Set(Box::default())),
            b'a' => {
                let item = self.pop()?;
                self.add(&[item]);
            }
            // APPENDS and ADDITEMS
            _ => {
                let items = self.pop_mark()?;
                self.add(&items);
            }
        }
        Ok(())
    }

    /// What is memorized, to be there twice.
    fn memorized(&mut self, opcode: u8) -> Result<()> {
        let slot = match opcode {
            b'q' | b'h' => self.take(1)?.first().copied().unwrap_or_default().into(),
            b'r' | b'j' => u32_at(self.take(4)?, 0),
            b'p' | b'g' => self.line()?.parse().map_err(|_| PickleError::NotMemorized(u32::MAX))?,
            // MEMOIZE takes the next free one.
            _ => self.memo.count,
        };
        if matches!(opcode, b'g' | b'h' | b'j') {
            let id = self.memo.get(slot).ok_or(PickleError::NotMemorized(slot))?;
            self.stack.push(id);
        } else {
            let top = self.top()?;
            self.memo.set(slot, top);
        }
        Ok(())
    }

    /// Names of what lies outside, calls of it, and state.
    fn named(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let global = self.values.new_global(&module, &name);
                self.push(global);
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Some(module), Some(name)) = (self.values.text(module), self.values.text(name))
                else {
                    return Err(PickleError::NoName);
                };
                let (module, name) = (module.to_owned(), name.to_owned());
                let global = self.values.new_global(&module, &name);
                self.push(global);
            }
            b'P' => {
                let line = self.line()?;
                let name = self.values.new_text(&line);
                self.push(name);
                let name = self.pop()?;
                self.push(Value::Persistent(name));
            }
            b'Q' => {
                let name = self.pop()?;
                self.push(Value::Persistent(name));
            }
            // Names that an interpreter keeps in a table of its own, by their number.
            0x82..=0x84 => {
                let len = 1 << (opcode - 0x82);
                let number = u32_at(self.take(len)?, 0);
                let name = self.values.new_global("copyreg", &format!("extension {number}"));
                self.push(name);
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let items = self.pop_mark()?;
                let function = self.values.new_global(&module, &name);
                self.push(function);
                let function = self.pop()?;
                self.call(function, &items);
            }
            b'o' => {
                let mut items = self.pop_mark()?;
                if items.is_empty() {
                    return Err(PickleError::EmptyStack);
                }
                let function = items.remove(0);
                self.call(function, &items);
            }
            b'b' => {
                let state = self.pop()?;
                if let Some(Value::Call(call)) = self.top_value() {
                    call.state = Some(state);
                }
            }
            // NEWOBJ_EX has names for some arguments besides.
            0x92 => {
                let (_, arguments, function) = (self.pop()?, self.pop()?, self.pop()?);
                self.push(Value::Call(Box::new(Call::new(function, arguments))));
            }
            // REDUCE and NEWOBJ
            _ => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.push(Value::Call(Box::new(Call::new(function, arguments))));
            }
        }
        Ok(())
    }

    /// What calling something with these arguments would give.
    fn call(&mut self, function: Id, arguments: &[Id]) {
        self.push_tuple(arguments);
        if let Some(arguments) = self.stack.pop() {
            self.push(Value::Call(Box::new(Call::new(function, arguments))));
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len);
        let bytes = end.and_then(|end| self.bytes.get(self.at..end));
        let bytes = bytes.ok_or(PickleError::Truncated)?;
        self.at += len;
        Ok(bytes)
    }

    /// The length of bytes or text, in as many bytes as the opcode has for it.
    fn length(&mut self, opcode: u8) -> Result<usize> {
        match opcode {
            b'U' | 0x8c | b'C' => self.len8(),
            0x8d | 0x8e | 0x96 => {
                usize::try_from(u64_at(self.take(8)?, 0)).map_err(|_| PickleError::Truncated)
            }
            _ => self.len32(),
        }
    }

    fn len8(&mut self) -> Result<usize> {
        Ok(self.take(1)?.first().copied().unwrap_or_default().into())
    }

    fn len32(&mut self) -> Result<usize> {
        usize::try_from(u32_at(self.take(4)?, 0)).map_err(|_| PickleError::Truncated)
    }

    fn line(&mut self) -> Result<String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|byte| *byte == b'\n').ok_or(PickleError::Truncated)?;
        let line = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.at += 1;
        Ok(line)
    }

    /// Makes a value. Each takes a byte of the pickle at least, so that their number fits.
    fn push(&mut self, value: Value) {
        let id = self.values.add(value);
        self.stack.push(id);
    }

    fn push_tuple(&mut self, items: &[Id]) {
        let tuple = self.values.new_tuple(items);
        self.push(tuple);
    }

    fn pop(&mut self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(PickleError::Mark);
        }
        self.stack.pop().ok_or(PickleError::EmptyStack)
    }

    /// What lies above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or(PickleError::NoMark)?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().ok_or(PickleError::EmptyStack)
    }

    fn top_value(&mut self) -> Option<&mut Value> {
        let id = *self.stack.last()?;
        self.values.all.get_mut(usize::try_from(id.0).ok()?)
    }

    /// Sets keys and values, one after the other, on the value on top.
    fn set(&mut self, entries: &[Id]) -> Result<()> {
        self.top()?;
        let pairs =
            entries.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?)));
        match self.top_value() {
            Some(Value::Dict(known)) => known.extend(pairs),
            Some(Value::Call(call)) => call.entries.extend(pairs),
            _ => {}
        }
        Ok(())
    }

    /// Adds values to the one on top.
    fn add(&mut self, items: &[Id]) {
        match self.top_value() {
            Some(Value::List(known) | Value::Set(known)) => known.extend(items),
            Some(Value::Call(call)) => call.items.extend(items),
            _ => {}
        }
    }
}

/// An integer of any length: two's complement, little-endian.
/// `None` if it has more than 64 bits.
fn integer(bytes: &[u8]) -> Option<i64> {
    if bytes.len() > 8 {
        return None;
    }
    let sign = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
    let mut whole = [sign; 8];
    whole.iter_mut().zip(bytes).for_each(|(whole, byte)| *whole = *byte);
    Some(i64::from_le_bytes(whole))
}
