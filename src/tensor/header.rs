//! [`Header`]: key -> dtype, shape and place, of a file, a sharded directory or tensors in memory. Planning sees only headers.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::TensorInfo;
use crate::key::Key;

/// Where a tensor's bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Location {
    /// Which file of the store, an index into [`Header::files`].
    pub file: u32,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// What a header says of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// dtype and shape.
    pub info: TensorInfo,
    /// Where its bytes lie; `None` in a manifest, which has no bytes, and for tensors in memory.
    pub location: Option<Location>,
}

/// Key -> dtype, shape and place, in the order of the files; with the files' `__metadata__`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Every tensor.
    pub tensors: IndexMap<Key, Entry>,
    /// Names of the files that [`Location::file`] counts, relative to the store; empty for a manifest.
    pub files: Vec<String>,
    /// `__metadata__` of the files, merged; where files disagree, the first file's value stands.
    pub metadata: BTreeMap<String, String>,
}

impl Header {
    /// dtype and shape of a key.
    pub fn get(&self, key: &str) -> Option<&TensorInfo> {
        self.tensors.get(key).map(|entry| &entry.info)
    }

    /// A header without places, from dtypes and shapes.
    pub fn from_infos(infos: impl IntoIterator<Item = (Key, TensorInfo)>) -> Self {
        let tensors = infos.into_iter().map(|(key, info)| (key, Entry { info, location: None })).collect();
        Self { tensors, ..Self::default() }
    }
}
