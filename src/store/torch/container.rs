//! What is around the pickle of a file: an archive, or a stream of pickles and bytes.
//!
//! Source: `torch.serialization` of PyTorch 2.15 (`_save`, `_legacy_save`, `_legacy_load`).

use std::collections::HashMap;

use super::pickle::{Machine, PickleError};
use super::tar;
use super::tensor::{Meaning, Meanings, TorchStorage};
use super::value::{Id, Values};
use crate::error::{Error, Result};
use crate::store::archive::{Archive, Member, Packed, Window, is_tar, members, u64_at};

/// The longest pickle that is read, in bytes: one of a hundred thousand tensors has about sixteen
/// million.
pub const MAX_PICKLE: u64 = 256 << 20;

/// What was read of a file that `torch.save` wrote.
#[derive(Debug)]
pub struct Saved {
    /// Every value that the pickle makes, in order; where the pickle breaks, those before.
    pub values: Values,
    /// The object that was saved, or where the pickle breaks.
    pub root: std::result::Result<Id, PickleError>,
}

/// Reads the pickle of a file: an archive's, or the stream of PyTorch before 1.6.
///
/// # Errors
/// If reading fails, or if the file is an archive without a pickle that can be read. A pickle that
/// breaks is none: [`Saved::root`] says so, beside what stands before.
pub fn read(file: Window<'_>) -> Result<Saved> {
    Container::read(file).map(|(saved, _)| saved)
}

/// Where the storages of a file lie.
pub(in crate::store) enum Container<'f> {
    /// Each is a member of an archive.
    Archive {
        archive: Archive<'f>,
        /// What stands before each member's name: the folder of the pickle.
        folder: String,
        /// Whether the machine that wrote it has the other byte order.
        swapped: bool,
    },
    /// They follow the pickles, each behind its length.
    Stream {
        file: Window<'f>,
        /// Their keys in order, and where the first one begins.
        keys: Vec<String>,
        start: u64,
    },
    /// They are members of a tar archive, each behind its length: where they are.
    Listed(Vec<(String, u64, u64)>),
}

/// Where the bytes of a storage lie in the file.
#[derive(Clone, Debug)]
pub(in crate::store) enum StorageBytes {
    /// As they are: the first one, and how many.
    Run { start: u64, len: u64 },
    /// They have to be unpacked.
    Packed(Box<Packed>),
}

impl StorageBytes {
    /// How many bytes a storage has.
    pub(in crate::store) fn len(&self) -> u64 {
        match self {
            Self::Run { len, .. } => *len,
            Self::Packed(packed) => packed.len,
        }
    }
}

const PICKLE: &str = "data.pkl";

impl<'f> Container<'f> {
    /// Reads what is around the pickle, and the pickle itself.
    pub(in crate::store) fn read(file: Window<'f>) -> Result<(Saved, Self)> {
        let head = file.head(512)?;
        if head.starts_with(b"PK\x03\x04") {
            Self::archive(Archive::read(file)?)
        } else if is_tar(&head) {
            let members = members(file)?;
            // NeMo packs a checkpoint together with its config.
            let inner = members.iter().find(|(name, _)| name.ends_with(".ckpt"));
            if let Some((_, inner)) = inner {
                let is_zip = inner.head(4)?.starts_with(b"PK\x03\x04");
                return if is_zip {
                    Self::archive(Archive::read(*inner)?)
                } else {
                    Self::stream(*inner)
                };
            }
            tar::read(&members).map(|(saved, places)| (saved, Self::Listed(places)))
        } else {
            Self::stream(file)
        }
    }

    /// Reads the pickle in an archive.
    pub(in crate::store) fn archive(archive: Archive<'f>) -> Result<(Saved, Self)> {
        let of_pickle = |member: &&Member| {
            member
                .name
                .strip_suffix(PICKLE)
                .is_some_and(|folder| folder.is_empty() || folder.ends_with('/'))
        };
        // A folder inside of another may have a pickle as well: the outer one is meant.
        let mut pickles: Vec<&Member> = archive.members().iter().filter(of_pickle).collect();
        let depth = |member: &Member| member.name.bytes().filter(|byte| *byte == b'/').count();
        pickles.sort_by_key(|member| depth(member));
        let member = match pickles.as_slice() {
            [] => {
                let what = format!("the archive has no {PICKLE}: it is none of torch.save");
                return Err(Error::corrupt(what));
            }
            [one, other, ..] if depth(one) == depth(other) => {
                let what = format!("the archive has {:?} and {:?}", one.name, other.name);
                return Err(Error::corrupt(what));
            }
            [one, ..] => *one,
        };
        let bytes = archive.unpack(member, MAX_PICKLE)?;
        let folder = member.name.strip_suffix(PICKLE).unwrap_or_default().to_owned();
        let order = archive.members().iter().find(|it| it.name == format!("{folder}byteorder"));
        let swapped = match order.map(|member| archive.unpack(member, 16)).transpose()?.as_deref() {
            None | Some(b"little") => false,
            Some(b"big") => true,
            Some(other) => {
                let name = String::from_utf8_lossy(other).into_owned();
                return Err(Error::corrupt(format!("the byte order is {name:?}")));
            }
        };
        let mut machine = Machine::new(&bytes);
        let root = machine.object();
        let saved = Saved { values: machine.into_values(), root };
        Ok((saved, Self::Archive { archive, folder, swapped }))
    }

    /// Five pickles: a magic number, a version, facts of the system, the object, the keys of the
    /// storages. A file of gigabytes begins with them, so more of it is only read as needed. What
    /// follows is little-endian whatever the facts say, as PyTorch has it.
    fn stream(file: Window<'f>) -> Result<(Saved, Self)> {
        let mut most = 1 << 20;
        loop {
            let bytes = file.head(most)?;
            let all = bytes.len() as u64 == file.len() || most >= MAX_PICKLE;
            let mut machine = Machine::new(&bytes);
            let facts = (0..3).try_for_each(|_| machine.object().map(drop));
            let root = facts.and_then(|()| machine.object());
            let keys = root.as_ref().ok().map(|_| machine.object());
            let cut = PickleError::Truncated;
            let is_cut = root.as_ref().err() == Some(&cut) || keys == Some(Err(cut));
            if !all && is_cut {
                most = most.saturating_mul(16);
                continue;
            }
            let start = machine.at() as u64;
            let values = machine.into_values();
            let names = keys.and_then(|keys| values.list(keys.ok()?));
            let names = names.into_iter().flatten();
            let keys = names.filter_map(|id| values.text(*id)).map(str::to_owned).collect();
            let saved = Saved { values, root };
            return Ok((saved, Self::Stream { file, keys, start }));
        }
    }

    /// Where each storage that tensors use lies, by its key.
    ///
    /// # Errors
    /// If one isn't there, has another length than the pickle says, or lies outside of the file.
    pub(in crate::store) fn storages<'s>(
        &self,
        used: impl Iterator<Item = TorchStorage<'s>>,
        meanings: Meanings<'_>,
    ) -> Result<HashMap<String, StorageBytes>> {
        match self {
            Self::Archive { archive, folder, swapped } => {
                let members: HashMap<&str, &Member> =
                    archive.members().iter().map(|member| (&*member.name, member)).collect();
                let mut found = HashMap::new();
                for storage in used {
                    if found.contains_key(storage.key) {
                        continue;
                    }
                    let name = format!("{folder}data/{}", storage.key);
                    let member = members.get(&*name).ok_or_else(|| {
                        Error::corrupt(format!("the archive has no {name:?}, which a tensor needs"))
                    })?;
                    let bytes = of_member(archive, member, &storage, *swapped)?;
                    found.insert(storage.key.to_owned(), bytes);
                }
                Ok(found)
            }
            Self::Stream { file, keys, start } => in_stream(*file, keys, *start, meanings),
            Self::Listed(places) => Ok(places
                .iter()
                .map(|(key, start, len)| {
                    (key.clone(), StorageBytes::Run { start: *start, len: *len })
                })
                .collect()),
        }
    }
}

/// How many bytes are swapped at a time where the byte order is the other one. Parts of a complex
/// number are swapped one by one, and bytes without a dtype not at all, as PyTorch has it.
fn swap(storage: &TorchStorage<'_>, swapped: bool) -> u8 {
    use super::TorchDtype::{Complex32, Complex64, Complex128};
    let size = storage.dtype.map_or(1, |dtype| match dtype {
        Complex32 | Complex64 | Complex128 => dtype.element_size() / 2,
        _ => dtype.element_size(),
    });
    if swapped { u8::try_from(size).unwrap_or(1) } else { 1 }
}

/// How many bytes a storage has, as the pickle says.
fn claimed(storage: &TorchStorage<'_>) -> Result<u64> {
    let size = storage.dtype.map_or(1, super::TorchDtype::element_size);
    storage.len.checked_mul(size).ok_or_else(|| {
        Error::corrupt(format!("storage {:?} has more bytes than 64 bits count", storage.key))
    })
}

fn of_member(
    archive: &Archive<'_>,
    member: &Member,
    storage: &TorchStorage<'_>,
    swapped: bool,
) -> Result<StorageBytes> {
    let (claim, place) = (claimed(storage)?, archive.place(member)?);
    if member.len != claim {
        let why = format!(
            "the archive has {} bytes of storage {:?}, of which the pickle says that it has {claim}",
            member.len, storage.key
        );
        return Err(Error::corrupt(why));
    }
    let swap = swap(storage, swapped);
    Ok(if member.deflated || swap > 1 {
        StorageBytes::Packed(Box::new(Packed::member(member, place, swap)))
    } else {
        StorageBytes::Run { start: place.start(), len: place.len() }
    })
}

/// The storages of a stream: each begins with how many elements it has, in eight bytes.
fn in_stream(
    file: Window<'_>,
    keys: &[String],
    start: u64,
    meanings: Meanings<'_>,
) -> Result<HashMap<String, StorageBytes>> {
    // The stream doesn't say how large an element is; the pickle does.
    let storages: HashMap<&str, TorchStorage<'_>> = meanings
        .iter()
        .filter_map(|(_, meaning)| match meaning {
            Meaning::Storage(storage) => Some((storage.key, storage)),
            _ => None,
        })
        .collect();
    let mut found = HashMap::new();
    let mut at = start;
    for key in keys {
        let missing =
            || Error::corrupt(format!("the file lists storage {key:?}, which nothing is"));
        let storage = storages.get(&**key).ok_or_else(missing)?;
        let cut = || {
            Error::corrupt(format!("the file ends before storage {key:?} does"))
                .hint("the file is truncated: fetch it again")
        };
        let count = file.bytes(at, 8).map_err(|_| cut())?;
        let size = storage.dtype.map_or(1, super::TorchDtype::element_size);
        let len = u64_at(&count, 0).checked_mul(size);
        let place = len.and_then(|len| file.part(at.checked_add(8)?, len).ok());
        let place = place.ok_or_else(cut)?;
        // A view of a storage may reach into it, and say less than it has.
        if claimed(storage)? > place.len() {
            let why = format!("storage {key:?} is shorter than the pickle says");
            return Err(Error::corrupt(why));
        }
        at = at.saturating_add(8).saturating_add(place.len());
        let (start, len) = (place.start(), place.len());
        let bytes = StorageBytes::Run { start, len };
        found.insert(key.clone(), bytes);
    }
    Ok(found)
}
