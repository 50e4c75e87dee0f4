//! [`Checkpoint`]: files as one store, whatever the format of each is.
//!
//! * Files are opened when their bytes are first asked for, and must then be what they were when
//!   their header was read.
//! * [`read`](Store::read) uses positioned reads: a file that shrinks meanwhile gives an
//!   error. Only [`view`](Store::view) maps files, each at most once; a file that shrinks under a
//!   map kills the process on access, which is why conversion doesn't use maps.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use indexmap::map::Entry as Slot;

use super::contents::Contents;
use super::format::Format;
use super::json::ByKey;
use super::place::{self, Bytes, Version};
use super::read::in_pieces;
use super::remote::Object;
use super::stored::{StoredFile, each};
use super::torch::PlainValues;
use super::unpacked::{Scratch, Unpacked};
use super::{
    Blob, Boxes, Files, Hints, Identity, OpenOptions, Range, StateDict, Storages, Store, dcp,
};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::tensor::{Entry, Header, Location, Storage};

/// Tensors in files: one file, a directory, several; or a manifest, which has no bytes.
pub struct Checkpoint {
    pub(super) header: Header,
    pub(super) directory: PathBuf,
    pub(super) files: Vec<StoredFile>,
    /// The boxes of those tensors that aren't one run of a file.
    pub(super) parts: ByKey<Boxes>,
    /// What has to be unpacked: blobs from [`PACKED`] on.
    unpacked: Vec<Unpacked>,
    scratch: Arc<Scratch>,
    pub(super) has_bytes: bool,
    pub(super) indexes: Vec<PathBuf>,
    pub(super) ignored: Vec<PathBuf>,
    pub(super) notes: Vec<String>,
    /// The names that keys begin with and their files don't have, and the directories of those.
    named: Vec<(String, PathBuf)>,
    /// Whether all files are on a disk: asked for with each read, and there are many files.
    is_on_disk: bool,
}

/// Blobs from this number on are packed bytes, those below are files.
const PACKED: u32 = 1 << 31;

impl Checkpoint {
    /// The directory that holds the files: where config and tokenizer lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The names that stand before keys, and the directory that the files of each lie in.
    pub fn named(&self) -> &[(String, PathBuf)] {
        &self.named
    }

    /// The files, in the order of [`Header::files`]; empty for a manifest.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// The formats of the files, in the same order.
    pub fn formats(&self) -> impl ExactSizeIterator<Item = Format> {
        self.files.iter().map(|file| file.format)
    }

    /// What the files of `torch.save` hold besides tensors, by file if there are several.
    ///
    /// # Errors
    /// If a file can't be read, or has too much of it.
    pub fn plain_values(&self) -> Result<PlainValues> {
        let files = self.files.iter().zip(&self.header.files);
        let mut found = Vec::new();
        for (file, name) in files.filter(|(file, _)| file.format == Format::Torch) {
            let values = PlainValues::read(file.window()?);
            found.push((name.clone(), values.map_err(|error| error.in_file(&file.path))?));
        }
        Ok(match found.len() {
            1 => found.remove(0).1,
            _ => PlainValues::together(found),
        })
    }

    /// Whether there are tensors to read: a manifest has none.
    pub fn has_bytes(&self) -> bool {
        self.has_bytes
    }

    /// The indexes by which the files were found: one for each sharded checkpoint that has one.
    pub fn indexes(&self) -> &[PathBuf] {
        &self.indexes
    }

    /// Looks whether the files are still those whose headers were read.
    ///
    /// # Errors
    /// If one has another length or was written since, or can't be looked at.
    pub(crate) fn is_as_read(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| {
            let found = file
                .path
                .metadata()
                .map_err(|source| Error::io("cannot look at", &file.path, source))?;
            match file.is_as_read(found.len(), &Version::of(&found)) {
                true => Ok(()),
                false => Err(file.changed()),
            }
        })
    }

    /// Safetensors files of the directory that are no part of the checkpoint.
    pub fn ignored(&self) -> &[PathBuf] {
        &self.ignored
    }

    /// What is odd about the files but no error, in a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Key -> dtype and shape without bytes.
    pub(super) fn manifest(header: Header, directory: PathBuf) -> Self {
        Self {
            header,
            directory,
            files: Vec::new(),
            parts: ByKey::default(),
            unpacked: Vec::new(),
            scratch: Arc::default(),
            has_bytes: false,
            indexes: Vec::new(),
            ignored: Vec::new(),
            notes: Vec::new(),
            named: Vec::new(),
            is_on_disk: true,
        }
    }

    /// Without a tensor yet, in files of this directory.
    pub(super) fn empty(directory: &Path) -> Self {
        let mut checkpoint = Self::manifest(Header::default(), directory.to_owned());
        checkpoint.has_bytes = true;
        checkpoint
    }

    /// Takes files by name, in the order in which places count them.
    pub(super) fn take_files(&mut self, files: Vec<(String, StoredFile)>) {
        for (name, file) in files {
            self.take_file(name, file);
        }
    }

    fn take_file(&mut self, name: String, file: StoredFile) {
        self.is_on_disk &= file.far().is_none();
        self.header.files.push(name);
        self.files.push(file);
    }

    /// The keys of a file beside the checkpoint; none if it can't be read.
    pub(super) fn keys_of(path: &Path) -> Vec<Key> {
        StoredFile::read(path, &OpenOptions::default())
            .map(|(_, header)| header.tensors.into_keys().collect())
            .unwrap_or_default()
    }

    /// Files of one directory, given by name, their keys all different.
    pub(super) fn from_files(
        directory: &Path,
        names: Vec<String>,
        options: &OpenOptions,
    ) -> Result<Self> {
        let paths: Vec<PathBuf> = names.iter().map(|name| directory.join(name)).collect();
        super::journal::settled(paths.iter().map(PathBuf::as_path))?;
        let mut checkpoint = Self::empty(directory);
        // A header is read in parallel with others: a checkpoint on a network disk has hundreds.
        let read = place::beside(directory, &paths, |path| StoredFile::read(path, options));
        let mut slices = dcp::Slices::default();
        for (name, read) in names.into_iter().zip(read) {
            let (file, mut contents) = read?;
            let number = number(checkpoint.files.len())?;
            slices
                .take(&name, number, &mut contents)
                .map_err(|error| error.in_file(file.path()))?;
            checkpoint.add(name, file, contents)?;
        }
        slices.put_into(&mut checkpoint)?;
        Ok(checkpoint)
    }

    fn add(&mut self, name: String, file: StoredFile, header: Contents) -> Result<()> {
        let number = number(self.files.len())?;
        let first = self.number_packed()?;
        for (key, (info, [begin, end])) in header.tensors {
            match self.header.tensors.entry(key) {
                Slot::Vacant(slot) => {
                    let location = Location { file: number, offset: begin, len: end - begin };
                    let is_run = !header.parts.contains_key(slot.key());
                    slot.insert(Entry { info, location: is_run.then_some(location) });
                }
                Slot::Occupied(slot) => {
                    let other = slot
                        .get()
                        .location
                        .and_then(|location| self.header.files.get(location.file as usize));
                    let other = other.map_or("a manifest", String::as_str);
                    return Err(Error::corrupt(format!("the key is in {other} too"))
                        .in_file(&file.path)
                        .at_key(slot.key().as_str())
                        .hint(EQUAL_KEYS));
                }
            }
        }
        let place = |blob: Blob| match blob.0.checked_sub(1) {
            None => Blob(number),
            Some(packed) => Blob(first.saturating_add(packed)),
        };
        self.parts.extend(header.parts.into_iter().map(|(key, boxes)| (key, boxes.moved(place))));
        for packed in header.packed {
            self.unpacked.push(Unpacked::new(number, packed, &self.scratch)?);
        }
        self.header.shared.extend(header.shared);
        self.header.remarks.extend(header.remarks);
        self.merge_metadata(header.metadata, &name);
        self.take_file(name, file);
        Ok(())
    }

    /// The number of the next blob of packed bytes.
    fn number_packed(&self) -> Result<u32> {
        let count = u32::try_from(self.unpacked.len()).ok();
        count.and_then(|count| count.checked_add(PACKED)).ok_or_else(too_many)
    }

    /// Where files disagree, the first file's value stands.
    fn merge_metadata(&mut self, metadata: std::collections::BTreeMap<String, String>, name: &str) {
        for (field, value) in metadata {
            match self.header.metadata.get(&field) {
                Some(first) if *first != value => self.notes.push(format!(
                    "{name} has another {field:?} in its metadata; the first file's value stands"
                )),
                Some(_) => {}
                None => {
                    self.header.metadata.insert(field, value);
                }
            }
        }
    }

    /// The same with a name before each key.
    pub(super) fn under(self, name: &str) -> Self {
        let parts = self.parts.into_iter();
        let parts = parts.map(|(key, boxes)| (Key::from(format!("{name}.{key}")), boxes));
        let (header, parts) = (self.header.under(name), parts.collect());
        let named = vec![(name.to_owned(), self.directory.clone())];
        Self { header, parts, named, ..self }
    }

    /// The files that aren't on a disk.
    fn far(&self) -> impl Iterator<Item = &Object> {
        self.files.iter().filter_map(StoredFile::far)
    }

    /// Whether all files are on a disk.
    pub fn is_on_disk(&self) -> bool {
        self.is_on_disk
    }

    /// Bytes that have come from afar so far, those of headers too.
    pub fn fetched(&self) -> u64 {
        self.far().map(Object::fetched).sum()
    }

    /// Whether its keys are those of its files, and none has a name before it.
    pub(crate) fn has_keys_of_files(&self) -> bool {
        self.named.is_empty()
    }

    /// Adds all of another checkpoint.
    pub(super) fn join(&mut self, other: Checkpoint) -> Result<()> {
        let first = number(self.files.len())?;
        let packed = self.number_packed()?;
        for (key, mut entry) in other.header.tensors {
            let file = entry
                .location
                .and_then(|location| other.files.get(location.file as usize))
                .map(|file| file.path.clone());
            if let Some(location) = &mut entry.location {
                location.file = location.file.checked_add(first).ok_or_else(too_many)?;
            }
            match self.header.tensors.entry(key) {
                Slot::Vacant(slot) => {
                    slot.insert(entry);
                }
                Slot::Occupied(slot) => {
                    let earlier = slot
                        .get()
                        .location
                        .and_then(|location| self.files.get(location.file as usize));
                    let earlier = earlier.map_or_else(
                        || "a manifest".to_owned(),
                        |file| file.path.display().to_string(),
                    );
                    let error = Error::corrupt(format!("the key is in {earlier} too"))
                        .at_key(slot.key().as_str());
                    return Err(error.in_file(file.unwrap_or(other.directory)).hint(EQUAL_KEYS));
                }
            }
        }
        let from = other.directory.display().to_string();
        self.merge_metadata(other.header.metadata, &from);
        let place = |blob: Blob| match blob.0.checked_sub(PACKED) {
            None => Blob(blob.0.saturating_add(first)),
            Some(number) => Blob(packed.saturating_add(number)),
        };
        self.parts.extend(other.parts.into_iter().map(|(key, boxes)| (key, boxes.moved(place))));
        self.unpacked.extend(other.unpacked.into_iter().map(|packed| packed.after(first)));
        self.header.shared.extend(other.header.shared);
        self.header.files.extend(other.header.files);
        self.header.remarks.extend(other.header.remarks);
        self.files.extend(other.files);
        // Names of two directories may be equal: then the names are whole paths.
        let mut names: Vec<_> = self.header.files.iter().collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            self.header.files =
                self.files.iter().map(|file| file.path.display().to_string()).collect();
        }
        self.has_bytes &= other.has_bytes;
        self.is_on_disk &= other.is_on_disk;
        self.named.extend(other.named);
        self.indexes.extend(other.indexes);
        self.ignored.extend(other.ignored);
        self.notes.extend(other.notes);
        Ok(())
    }

    /// Bytes that have to be unpacked, and the file that they are of; `None` if the blob is a file.
    fn packed(&self, blob: Blob) -> Option<(&Unpacked, &StoredFile)> {
        let number = usize::try_from(blob.0.checked_sub(PACKED)?).ok()?;
        let packed = self.unpacked.get(number)?;
        Some((packed, self.files.get(packed.file())?))
    }

    fn blob(&self, blob: Blob) -> Result<&StoredFile> {
        let found = self.files.get(blob.0 as usize);
        found.ok_or_else(|| {
            Error::corrupt("the checkpoint has no such file").in_file(&self.directory)
        })
    }
}

/// What to do about a key that is in two files.
pub(crate) const EQUAL_KEYS: &str = "files of ranks, which hold equal keys, are told apart by a name before each: rank0=FILE rank1=FILE; or by a `shards` statement of the rules";

fn number(count: usize) -> Result<u32> {
    u32::try_from(count).map_err(|_| too_many())
}

fn too_many() -> Error {
    Error::new(ErrorKind::Limit, "too many files")
}

impl StateDict {
    /// Views of every tensor of a checkpoint, over its mapped files; no byte is copied.
    ///
    /// # Errors
    /// If a file can't be mapped, or the checkpoint is a manifest.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        let header = checkpoint.header();
        let mut dict = Self::default();
        dict.set_metadata(header.metadata.clone());
        for key in header.tensors.keys() {
            dict.insert(key.clone(), checkpoint.view(key)?);
        }
        Ok(dict)
    }
}

impl Store for Checkpoint {
    fn header(&self) -> &Header {
        &self.header
    }

    /// Each file is a blob, and so is what has to be unpacked.
    fn boxes(&self, key: &str) -> Result<Boxes> {
        let entry = self.header.tensors.get(key).ok_or_else(|| {
            Error::corrupt("the checkpoint has no such key").at_key(key).in_file(&self.directory)
        })?;
        if let Some(location) = entry.location {
            return Boxes::row_major(entry.info.clone(), Blob(location.file), location.offset);
        }
        self.parts.get(key).cloned().ok_or_else(|| {
            let error = Error::new(ErrorKind::Unsupported, "a manifest has no bytes")
                .at_key(key)
                .in_file(&self.directory);
            error.hint("give the checkpoint itself; a manifest serves for planning only")
        })
    }

    fn read(&self, ranges: &mut [Range<'_>]) -> Result<()> {
        let one = |range: &mut Range<'_>| match self.packed(range.blob) {
            Some((packed, file)) => packed.read(file, range.offset, range.buffer),
            None => self.blob(range.blob)?.read_exact(range.offset, range.buffer),
        };
        if self.is_on_disk() { ranges.iter_mut().try_for_each(one) } else { each(ranges, one) }
    }

    fn stream(
        &self,
        blob: Blob,
        stretch: (u64, u64),
        buffer: &mut [u8],
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if self.packed(blob).is_none()
            && let Some(object) = self.blob(blob)?.far()
        {
            return object.stream(stretch, buffer, take);
        }
        in_pieces(self, blob, stretch, buffer, take)
    }

    fn hints(&self) -> Hints {
        if self.is_on_disk() { Hints::LOCAL } else { Hints::REMOTE }
    }

    /// Paths, lengths and times of all files, and where each tensor lies in them. A manifest has
    /// none: it says nothing of bytes.
    fn identity(&self) -> Option<Identity> {
        if !self.has_bytes {
            return None;
        }
        let since = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok();
        let name = |file: &StoredFile| file.path.as_os_str().as_encoded_bytes().to_vec();
        let files: Option<Vec<_>> = self
            .files
            .iter()
            .map(|file| {
                let time = match &file.version {
                    Version::Time(time) => Some(since((*time)?)?),
                    Version::Tag(_) => None,
                };
                file.version.is_known().then(|| (name(file), file.len, time, &file.version))
            })
            .collect();
        let packed: Vec<_> = self.unpacked.iter().map(Unpacked::bytes).collect();
        Identity::of(&(files?, &self.header.tensors, &self.parts, packed)).ok()
    }

    /// By the open files: one that was replaced meanwhile is read as it was.
    fn unchanged(&self) -> Result<()> {
        let open = self.files.iter().filter_map(|file| Some((file, file.handle.get()?)));
        for (file, handle) in open {
            // Each answer from afar says which version it is of.
            let Bytes::Disk(handle) = handle else { continue };
            let found = handle
                .metadata()
                .map_err(|source| Error::io("cannot look at", &file.path, source))?;
            if !file.is_as_read(found.len(), &Version::of(&found)) {
                let error =
                    Error::corrupt("the file changed while it was read").in_file(&file.path);
                return Err(error.hint("convert it when nobody writes it any more"));
            }
        }
        Ok(())
    }

    fn storages(&self) -> Option<&dyn Storages> {
        self.is_on_disk().then_some(self as _)
    }

    fn files(&self) -> Option<&dyn Files> {
        self.is_on_disk().then_some(self as _)
    }

    fn interrupt(&self) {
        self.far().for_each(Object::interrupt);
    }
}

impl Storages for Checkpoint {
    fn storage(&self, blob: Blob) -> Result<Storage> {
        match self.packed(blob) {
            Some((packed, file)) => packed.map(file),
            None => self.blob(blob)?.map(),
        }
    }
}

impl Files for Checkpoint {
    fn file(&self, blob: Blob) -> Result<(&File, &Path, u64)> {
        if let Some((packed, file)) = self.packed(blob) {
            let (scratch, start) = packed.file_of(file)?;
            return Ok((scratch, &file.path, start));
        }
        let file = self.blob(blob)?;
        Ok((file.on_disk()?, &file.path, 0))
    }
}
