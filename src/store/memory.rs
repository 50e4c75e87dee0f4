//! [`StateDict`]: tensors in memory, in order, with metadata.
//!
//! Its header follows every change; fields are private so that it can't fall behind.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::safetensors::read_header;
use super::{Extent, Identity, Store, range_in};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::tensor::{Entry, Header, Storage, TensorView};

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
        let header = read_header(bytes.as_slice(), bytes.len() as u64)?;
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

    /// Puts a tensor under a key; gives the one that was there, whose place in the order it takes.
    pub fn insert(&mut self, key: Key, view: TensorView) -> Option<TensorView> {
        let info = view.info().clone();
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
        self.tensors
            .get(key)
            .ok_or_else(|| Error::corrupt("the state dict has no such key").at_key(key))
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
        let view = self.find(key)?;
        range_in(view.nbytes(), offset, buffer.len())
            .and_then(|offset| read_part(view, offset, buffer))
            .map_err(|error| error.at_key(key))
    }

    fn extent(&self, _: &str) -> Result<Option<Extent<'_>>> {
        Ok(None)
    }

    /// Nothing tells tensors in memory from others of the same names and shapes but their bytes,
    /// and those may change.
    fn identity(&self) -> Option<Identity> {
        None
    }

    fn unchanged(&self) -> Result<()> {
        Ok(())
    }

    fn view(&self, key: &str) -> Result<TensorView> {
        self.find(key).cloned()
    }
}

/// Reads bytes of a view's row-major order from `offset`; the range is known to lie within.
fn read_part(view: &TensorView, offset: u64, buffer: &mut [u8]) -> Result<()> {
    let outside = || Error::corrupt("the range leaves the tensor");
    if buffer.is_empty() {
        return Ok(());
    }
    if let Some(bytes) = view.bytes() {
        let start = usize::try_from(offset).map_err(|_| outside())?;
        let part =
            bytes.get(start..).and_then(|rest| rest.get(..buffer.len())).ok_or_else(outside)?;
        buffer.copy_from_slice(part);
        return Ok(());
    }
    // Not contiguous, so of at least one dimension and not empty. Whole rows are copied at once; of
    // the first and the last, parts may be asked.
    let rows = view.shape().first().copied().unwrap_or(1);
    let row = view.nbytes().checked_div(rows).filter(|row| *row > 0).ok_or_else(outside)?;
    let (mut at, mut rest) = (offset, buffer);
    while !rest.is_empty() {
        let (first, skip) = (at / row, at % row);
        let whole = rest.len() as u64 / row;
        let part =
            if skip == 0 && whole > 0 { whole * row } else { (row - skip).min(rest.len() as u64) };
        let (now, later) = rest
            .split_at_mut_checked(usize::try_from(part).map_err(|_| outside())?)
            .ok_or_else(outside)?;
        if skip == 0 && whole > 0 {
            view.narrow(0, first, whole)?.copy_into(now)?;
        } else {
            read_part(&view.select(0, first)?, skip, now)?;
        }
        at += part;
        rest = later;
    }
    Ok(())
}
