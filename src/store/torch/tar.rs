//! The tar archive that `torch.save` wrote in its first year: `storages`, `tensors` and `pickle`.
//!
//! There the pickle only has a number for each tensor. Each becomes the call that PyTorch writes
//! today, so that nothing else has to know of this form.
//!
//! Source: `legacy_load` in `torch.serialization` of PyTorch 2.15.

use std::collections::HashMap;

use super::container::{MAX_PICKLE, Saved};
use super::pickle::Machine;
use super::tensor::class_of;
use super::value::{Id, Value, Values};
use crate::error::{Error, Result};
use crate::store::archive::{Window, u32_at, u64_at};

/// A storage: its class, how many elements it has, and where they are.
struct Stored {
    class: String,
    count: u64,
    /// Its own key, and where in the storage of that key it begins, in elements.
    root: String,
    offset: u64,
}

/// Where the bytes of storages are: by key, the first one, and how many.
pub(super) type Places = Vec<(String, u64, u64)>;

/// Reads the archive.
///
/// # Errors
/// If a member is missing or broken.
pub(super) fn read(members: &[(String, Window<'_>)]) -> Result<(Saved, Places)> {
    let member = |name: &str| {
        let found = members.iter().find(|(known, _)| known == name).map(|(_, place)| *place);
        found.ok_or_else(|| Error::corrupt(format!("the archive has no {name:?}")))
    };
    let (storages, places) = storages(member("storages")?)?;
    let tensors = member("tensors")?;
    let pickle = member("pickle")?.head(MAX_PICKLE)?;
    let mut machine = Machine::new(&pickle);
    let root = machine.object();
    let mut values = machine.into_values();
    let outer: Vec<(Id, Id)> = values
        .iter()
        .filter_map(|(id, value)| match value {
            Value::Persistent(name) => Some((id, *name)),
            _ => None,
        })
        .collect();
    let calls = rebuilt(tensors, &storages, &mut values)?;
    for (id, name) in outer {
        let meant = match key(&values, name) {
            Some(key) => calls.get(&key).copied(),
            // A module with its source, which comes first.
            None => values.tuple(name).first().copied(),
        };
        if let Some(value) = meant.and_then(|meant| values.get(meant).cloned()) {
            values.put(id, value);
        }
    }
    Ok((Saved { values, root }, places))
}

/// A key, which is written as a number or a text.
fn key(values: &Values, id: Id) -> Option<String> {
    match values.get(id)? {
        Value::Int(number) => Some(number.to_string()),
        Value::Text(_) => values.text(id).map(str::to_owned),
        _ => None,
    }
}

/// Reads pickles that lie between other bytes.
struct Between<'f> {
    file: Window<'f>,
    at: u64,
}

impl Between<'_> {
    fn object(&mut self) -> Result<(Values, Id)> {
        let rest = self.file.part(self.at, self.file.len().saturating_sub(self.at))?;
        // Pickles are short here.
        let bytes = rest.head(1 << 16)?;
        let mut machine = Machine::new(&bytes);
        let root = machine.object().map_err(|error| super::contents::broken(&error))?;
        self.at = self.at.saturating_add(machine.at() as u64);
        Ok((machine.into_values(), root))
    }

    fn count(&mut self) -> Result<u64> {
        let (values, root) = self.object()?;
        match values.get(root) {
            Some(Value::Int(count)) => u64::try_from(*count).ok(),
            _ => None,
        }
        .ok_or_else(|| Error::corrupt("a number of storages or tensors is none"))
    }

    fn bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        let bytes = self.file.bytes(self.at, len)?;
        self.at = self.at.saturating_add(len);
        Ok(bytes)
    }

    /// Passes over bytes; gives where they begin in the file.
    fn skip(&mut self, len: u64) -> Result<u64> {
        let start = self.file.part(self.at, len)?.start();
        self.at = self.at.saturating_add(len);
        Ok(start)
    }
}

/// Each storage by its key.
fn storages(file: Window<'_>) -> Result<(HashMap<String, Stored>, Places)> {
    let broken = || Error::corrupt("the storages are no list of them");
    let mut from = Between { file, at: 0 };
    let (mut found, mut places) = (HashMap::new(), Places::new());
    for _ in 0..from.count()? {
        let (values, root) = from.object()?;
        let [name, _, class] = values.tuple(root) else { return Err(broken()) };
        let name = key(&values, *name).ok_or_else(broken)?;
        let class = values.global(*class).ok_or_else(broken)?.to_owned();
        let size = class_of(&class).flatten().ok_or_else(broken)?.element_size();
        let count = u64_at(&from.bytes(8)?, 0);
        let len = count.checked_mul(size).ok_or_else(broken)?;
        places.push((name.clone(), from.skip(len)?, len));
        let stored = Stored { class, count, root: name.clone(), offset: 0 };
        found.insert(name, stored);
    }
    // Storages that are parts of others.
    let (values, root) = from.object()?;
    for view in values.list(root).ok_or_else(broken)? {
        let [name, of, offset, count] = values.tuple(*view) else { return Err(broken()) };
        let number = |id: &Id| match values.get(*id) {
            Some(Value::Int(number)) => u64::try_from(*number).map_err(|_| broken()),
            _ => Err(broken()),
        };
        let (name, of) = (key(&values, *name), key(&values, *of));
        let (Some(name), Some(of)) = (name, of) else { return Err(broken()) };
        let root = found.get(&of).ok_or_else(broken)?;
        let (offset, count) = (number(offset)?, number(count)?);
        let stored = Stored {
            class: root.class.clone(),
            count: root.count,
            root: root.root.clone(),
            offset: root.offset.checked_add(offset).ok_or_else(broken)?,
        };
        if stored.offset.checked_add(count).is_none_or(|end| end > root.count) {
            return Err(broken());
        }
        found.insert(name, stored);
    }
    Ok((found, places))
}

/// The call that gives each tensor, by its key: made of new values.
fn rebuilt(
    file: Window<'_>,
    storages: &HashMap<String, Stored>,
    values: &mut Values,
) -> Result<HashMap<String, Id>> {
    let broken = || Error::corrupt("the tensors are no list of them");
    let mut from = Between { file, at: 0 };
    let mut found = HashMap::new();
    for _ in 0..from.count()? {
        let (own, root) = from.object()?;
        let [name, of, _] = own.tuple(root) else { return Err(broken()) };
        let (name, of) = (key(&own, *name), key(&own, *of));
        let (Some(name), Some(of)) = (name, of) else { return Err(broken()) };
        let stored = storages.get(&of).ok_or_else(broken)?;
        // Four bytes follow that mean nothing.
        let rank = u64::from(u32_at(&from.bytes(8)?, 0));
        if rank > 64 {
            return Err(broken());
        }
        let mut numbers = |count: u64| -> Result<Vec<i64>> {
            let bytes = from.bytes(8 * count)?;
            Ok(bytes.chunks_exact(8).map(|number| u64_at(number, 0).cast_signed()).collect())
        };
        let (sizes, strides) = (numbers(rank)?, numbers(rank)?);
        let offset = numbers(1)?.first().copied().unwrap_or_default();
        let offset = stored.offset.checked_add_signed(offset).ok_or_else(broken)?;
        let count = i64::try_from(stored.count).map_err(|_| broken())?;
        let number = |number: u64| i64::try_from(number).map(Value::Int).map_err(|_| broken());
        let (kind, storage) = (values.new_text("storage"), values.new_text(&stored.root));
        let (kind, storage) = (values.add(kind), values.add(storage));
        let class = values.new_name(&stored.class);
        let (class, device) = (values.add(class), values.add(Value::None));
        let count = values.add(Value::Int(count));
        let persistent = values.new_tuple(&[kind, class, storage, device, count]);
        let persistent = values.add(persistent);
        let persistent = values.add(Value::Persistent(persistent));
        let offset = values.add(number(offset)?);
        let mut list = |numbers: Vec<i64>| {
            let ids: Vec<Id> =
                numbers.into_iter().map(|number| values.add(Value::Int(number))).collect();
            let tuple = values.new_tuple(&ids);
            values.add(tuple)
        };
        let (sizes, strides) = (list(sizes), list(strides));
        let arguments = values.new_tuple(&[persistent, offset, sizes, strides]);
        let arguments = values.add(arguments);
        let function = values.new_name("torch._utils._rebuild_tensor");
        let function = values.add(function);
        let call = Value::Call(Box::new(super::Call::new(function, arguments)));
        found.insert(name, values.add(call));
    }
    Ok(found)
}
