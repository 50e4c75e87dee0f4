//! [`StateDict`]: tensors in memory, in order, with metadata.
//!
//! Its header follows every change; fields are private so that it can't fall behind.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::safetensors::read_header;
use super::{Checkpoint, Store, range_in};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::tensor::{Entry, Header, Storage, TensorInfo, TensorView};

/// Key -> tensor, in order, with metadata. Cloning shares the tensors' storage.
#[derive(Clone, Default)]
pub struct StateDict {
    tensors: IndexMap<Key, TensorView>,
    header: Header,
}

impl StateDict {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// From tensors and metadata.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (Key, TensorView)>, metadata: BTreeMap<String, String>) -> Self {
        let mut dict = Self::default();
        dict.set_metadata(metadata);
        dict.extend(tensors);
        dict
    }

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

    /// The content of a safetensors file. The tensors share the given bytes.
    ///
    /// # Errors
    /// If the bytes break a rule of the format.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        let header = read_header(bytes.as_slice(), bytes.len() as u64)?;
        let storage = Storage::new(bytes);
        let mut dict = Self::default();
        dict.set_metadata(header.metadata);
        for (key, (info, [begin, _])) in header.tensors {
            let view = TensorView::contiguous(storage.clone(), info, begin).map_err(|error| error.at_key(key.as_str()))?;
            dict.insert(key, view);
        }
        Ok(dict)
    }

    /// Puts a tensor under a key; gives the one that was there, whose place in the order it takes.
    pub fn insert(&mut self, key: Key, view: TensorView) -> Option<TensorView> {
        let info = TensorInfo::new(view.dtype(), view.shape().clone());
        self.header.tensors.insert(key.clone(), Entry { info, location: None });
        self.tensors.insert(key, view)
    }

    /// Takes a tensor out; the others keep their order.
    pub fn remove(&mut self, key: &str) -> Option<TensorView> {
        self.header.tensors.shift_remove(key);
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

    /// `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// Replaces `__metadata__`.
    pub fn set_metadata(&mut self, metadata: BTreeMap<String, String>) {
        self.header.metadata = metadata;
    }

    fn find(&self, key: &str) -> Result<&TensorView> {
        self.tensors.get(key).ok_or_else(|| Error::corrupt("the state dict has no such key").at_key(key))
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

    fn read_at(&self, key: &str, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let bytes = self.find(key)?.contiguous_bytes().ok_or_else(|| {
            let error = Error::new(ErrorKind::Unsupported, "the tensor is not contiguous, so its bytes can't be read in place").at_key(key);
            error.hint("materialize it first")
        })?;
        let start = range_in(bytes.len() as u64, offset, buffer.len()).map_err(|error| error.at_key(key))?;
        let start = usize::try_from(start).map_err(|_| Error::corrupt("the offset exceeds the address space").at_key(key))?;
        let source = bytes.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(source.ok_or_else(|| Error::corrupt("the range leaves the tensor").at_key(key))?);
        Ok(())
    }

    fn view(&self, key: &str) -> Result<TensorView> {
        self.find(key).cloned()
    }
}
