//! [`StateDict`]: tensors in memory, in order, with metadata.
//!
//! Its header follows every change; fields are private so that it can't fall behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use indexmap::IndexMap;

use super::archive::{Packed, Window};
use super::contents::as_packed;
use super::format;
use super::safetensors::read_header;
use super::{Blob, Boxes, Hints, Identity, Range, Storages, Store};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::tensor::{Entry, Header, Shape, Storage, TensorView};

/// Key -> tensor, in order, with metadata. Cloning shares the tensors' storage.
#[derive(Clone, Default)]
pub struct StateDict {
    tensors: IndexMap<Key, TensorView>,
    header: Header,
    /// By storage, the number of the first tensor in it: made when it is first asked for.
    firsts: OnceLock<HashMap<usize, usize>>,
}

impl StateDict {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// From tensors and metadata.
    pub fn from_tensors(
        tensors: impl IntoIterator<Item = (Key, TensorView)>,
        metadata: BTreeMap<String, String>,
    ) -> Self {
        let mut dict = Self::default();
        dict.set_metadata(metadata);
        dict.extend(tensors);
        dict
    }

    /// The content of a safetensors file. The tensors share the given bytes.
    ///
    /// # Errors
    /// If the bytes break a rule of the format.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let header = read_header(Window::new(&bytes.as_slice(), bytes.len() as u64))?;
        let storage = Storage::new(bytes);
        let mut dict = Self::default();
        dict.set_metadata(header.metadata);
        for (key, (info, [begin, _])) in header.tensors {
            let view = TensorView::contiguous(storage.clone(), info, begin)
                .map_err(|error| error.at_key(key.as_str()))?;
            dict.insert(key, view);
        }
        Ok(dict)
    }

    /// The tensors of a file of any format that is read, from its bytes, which they share as far
    /// as these are theirs as they are. `name` is how the file is called, `root` where in dicts in
    /// dicts the state dict lies (`None`: where it usually does).
    ///
    /// # Errors
    /// If the bytes are of no such format, or break a rule of theirs.
    pub fn from_file(name: &str, bytes: Vec<u8>, root: Option<&str>) -> Result<Self> {
        let slice = bytes.as_slice();
        let window = Window::new(&slice, bytes.len() as u64);
        let (_, contents) = format::read(name, window, root)?;
        let unpack = |packed: &Packed| {
            let mut unpacked = Vec::new();
            packed.unpack(window, &mut unpacked).map(|()| Storage::new(unpacked))
        };
        let unpacked = contents.packed.iter().map(unpack).collect::<Result<Vec<Storage>>>()?;
        let storage = Storage::new(bytes);
        let mut dict = Self::default();
        dict.set_metadata(contents.metadata);
        for (key, (info, [begin, _])) in contents.tensors {
            let parts = contents.parts.get(&key);
            let view = match parts.and_then(|boxes| boxes.get(0)) {
                None => TensorView::contiguous(storage.clone(), info, begin),
                Some(part) => {
                    let packed = as_packed(part.blob).and_then(|number| unpacked.get(number));
                    let storage = packed.unwrap_or(&storage).clone();
                    let strides = part.strides.to_vec();
                    TensorView::strided(storage, info, strides, part.offset.saturating_mul(8))
                }
            };
            dict.insert(key.clone(), view.map_err(|error| error.at_key(key.as_str()))?);
        }
        (dict.header.shared, dict.header.remarks) = (contents.shared, contents.remarks);
        Ok(dict)
    }

    /// Puts a tensor under a key; gives the one that was there, whose place in the order it takes.
    pub fn insert(&mut self, key: Key, view: TensorView) -> Option<TensorView> {
        let info = view.info().clone();
        self.header.shared.iter_mut().for_each(|keys| keys.retain(|known| *known != key));
        self.header.tensors.insert(key.clone(), Entry { info, location: None });
        self.firsts = OnceLock::new();
        self.tensors.insert(key, view)
    }

    /// Takes a tensor out; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<TensorView> {
        self.header.tensors.shift_remove(key);
        self.header.shared.iter_mut().for_each(|keys| keys.retain(|known| known.as_str() != key));
        self.firsts = OnceLock::new();
        self.tensors.shift_remove(key)
    }

    /// The tensor under a key.
    pub fn get(&self, key: &str) -> Option<&TensorView> {
        self.tensors.get(key)
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key> {
        self.tensors.keys()
    }

    /// Keys and tensors, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Key, &TensorView)> {
        self.tensors.iter()
    }

    /// How many tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    fn firsts(&self) -> &HashMap<usize, usize> {
        self.firsts.get_or_init(|| {
            let mut firsts = HashMap::with_capacity(self.tensors.len());
            for (at, view) in self.tensors.values().enumerate() {
                firsts.entry(view.storage().id()).or_insert(at);
            }
            firsts
        })
    }

    /// `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// Replaces `__metadata__`.
    pub fn set_metadata(&mut self, metadata: BTreeMap<String, String>) {
        self.header.metadata = metadata;
    }
}

impl Extend<(Key, TensorView)> for StateDict {
    fn extend<T: IntoIterator<Item = (Key, TensorView)>>(&mut self, tensors: T) {
        for (key, view) in tensors {
            self.insert(key, view);
        }
    }
}

impl FromIterator<(Key, TensorView)> for StateDict {
    fn from_iter<T: IntoIterator<Item = (Key, TensorView)>>(tensors: T) -> Self {
        Self::from_tensors(tensors, BTreeMap::new())
    }
}

impl Store for StateDict {
    fn header(&self) -> &Header {
        &self.header
    }

    /// Each storage is a blob, which has the number of the first tensor in it.
    fn boxes(&self, key: &str) -> Result<Boxes> {
        let view = self.tensors.get(key).ok_or_else(|| no_key(key))?;
        let first = self.firsts().get(&view.storage().id()).and_then(|at| u32::try_from(*at).ok());
        let blob = Blob(first.ok_or_else(|| no_key(key))?);
        let strides = Shape::from(view.strides());
        Boxes::strided(view.info().clone(), blob, view.offset_bits() / 8, strides)
    }

    fn read(&self, ranges: &mut [Range<'_>]) -> Result<()> {
        for range in ranges {
            let storage = self.storage(range.blob)?;
            let outside = || Error::corrupt("the range leaves the storage");
            range.fill_from(storage.bytes()).ok_or_else(outside)?;
        }
        Ok(())
    }

    fn hints(&self) -> Hints {
        Hints::LOCAL
    }

    /// Nothing tells tensors in memory from others of the same names and shapes but their bytes,
    /// and those may change.
    fn identity(&self) -> Option<Identity> {
        None
    }

    fn unchanged(&self) -> Result<()> {
        Ok(())
    }

    fn storages(&self) -> Option<&dyn Storages> {
        Some(self)
    }

    #[cfg(feature = "files")]
    fn files(&self) -> Option<&dyn super::Files> {
        None
    }
}

impl Storages for StateDict {
    fn storage(&self, blob: Blob) -> Result<Storage> {
        let found = self.tensors.get_index(blob.0 as usize);
        let (_, view) =
            found.ok_or_else(|| Error::corrupt("the state dict has no such storage"))?;
        Ok(view.storage().clone())
    }
}

fn no_key(key: &str) -> Error {
    Error::corrupt("the state dict has no such key").at_key(key)
}
