//! [`Wanted`]: the keys that a target asks for, with dtype and shape where they are known.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Header, TensorInfo};
use crate::key::Key;

/// The target manifest: which keys the result should have. Read from a file with [`Wanted::read`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The keys, in the order of the file; with dtype and shape, or `None` where only the key is known.
    pub keys: IndexMap<Key, Option<TensorInfo>>,
}

impl Wanted {
    /// Keys alone.
    pub fn from_keys(keys: impl IntoIterator<Item = Key>) -> Self {
        Self { keys: keys.into_iter().map(|key| (key, None)).collect() }
    }

    /// dtype and shape of a key; `None` if the key isn't wanted or nothing more is known of it.
    pub fn get(&self, key: &str) -> Option<&TensorInfo> {
        self.keys.get(key)?.as_ref()
    }

    /// Whether a key is wanted.
    pub fn contains(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }
}

impl From<&Header> for Wanted {
    fn from(header: &Header) -> Self {
        Self { keys: header.tensors.iter().map(|(key, entry)| (key.clone(), Some(entry.info.clone()))).collect() }
    }
}
