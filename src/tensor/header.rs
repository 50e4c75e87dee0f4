//! [`Header`]: key -> dtype, shape and place, of a file, a sharded directory or tensors in memory.
//! Planning sees only headers.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::TensorInfo;
use crate::key::Key;

/// The longest key, in bytes.
pub(crate) const MAX_KEY_LEN: usize = 64 * 1024;

/// The most dimensions of a tensor; PyTorch and NumPy have the same limit.
pub(crate) const MAX_RANK: usize = 64;

/// The one name in a header that is no key.
pub(crate) const METADATA: &str = "__metadata__";

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
    /// Where its bytes lie, if they are one run of a file as they are. `None` in a manifest, which
    /// has no bytes, for tensors in memory, and for those that lie in parts or with strides.
    pub location: Option<Location>,
}

/// Key -> dtype, shape and place, in the order of the files; with the files' `__metadata__`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Every tensor.
    pub tensors: IndexMap<Key, Entry, foldhash::fast::RandomState>,
    /// Names of the files that [`Location::file`] counts, relative to the store; empty for a
    /// manifest.
    pub files: Vec<String>,
    /// `__metadata__` of the files, merged; where files disagree, the first file's value stands.
    pub metadata: BTreeMap<String, String>,
    /// Keys that lie in one place: one tensor, under several names. The first of them stands for
    /// all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<Vec<Key>>,
    /// What is odd about the files; whether it matters, a plan says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<Remark>,
}

/// What is odd about the files behind a header, though each of them is well-formed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Remark {
    /// Of files that are numbered `i of n`, a directory without an index lacks some.
    Gap {
        /// The names of the first that are not there.
        missing: Vec<String>,
        /// How many are not there.
        count: u64,
        /// How many there should be.
        of: u64,
    },
    /// Files were given by name that are some of `n`.
    Part {
        /// The first of them.
        file: String,
        /// How many there should be.
        of: u64,
    },
    /// Files of ranks were given by name, and more of them lie beside.
    Ranks {
        /// One that was given.
        file: String,
        /// Those that weren't.
        others: Vec<String>,
    },
    /// A file beside the shards holds keys that their index doesn't list.
    Unlisted {
        /// The file.
        file: String,
        /// The keys that only it has.
        keys: Vec<Key>,
    },
    /// An index says another total size than the tensors have.
    Total {
        /// What it says, and what they have.
        what: String,
    },
    /// A file has dicts in dicts, and the state dict was found in one of them.
    Root {
        /// The file.
        file: String,
        /// The path of the dict that was taken.
        root: String,
        /// Other dicts with tensors, by their paths.
        others: Vec<String>,
    },
    /// A file has more than the state dict that was taken of it.
    LeftOut {
        /// The file.
        file: String,
        /// What has tensors: its path, and how many.
        trees: Vec<(String, u64)>,
        /// Paths of what is no tensor.
        plain: Vec<String>,
    },
    /// A state dict has values of classes that nobody knows here.
    Foreign {
        /// The file.
        file: String,
        /// Where each is, and its class.
        values: Vec<(String, String)>,
    },
    /// A file names classes and functions that nobody knows here, outside of its state dict.
    Named {
        /// The file.
        file: String,
        /// Their names.
        names: Vec<String>,
    },
    /// Tensors that can't be read.
    Unreadable {
        /// The file.
        file: String,
        /// Each by its key, and what it is.
        tensors: Vec<(Key, String)>,
    },
}

impl Header {
    /// dtype and shape of a key.
    pub fn get(&self, key: &str) -> Option<&TensorInfo> {
        self.tensors.get(key).map(|entry| &entry.info)
    }

    /// What the metadata says of keys that are one tensor: for each that was left out, the one that
    /// stands for both. `save_model` of safetensors' torch part writes such entries, whose value is
    /// a key of the file.
    pub fn aliases(&self) -> impl Iterator<Item = (&str, &Key)> {
        self.metadata.iter().filter_map(|(name, value)| {
            let (kept, _) =
                self.tensors.get_key_value(value.as_str()).filter(|_| name != "format")?;
            Some((name.as_str(), kept))
        })
    }

    /// The same with a name before each key. What else names keys goes along.
    #[must_use]
    pub fn under(mut self, name: &str) -> Self {
        let renamed = |key: &str| Key::from(format!("{name}.{key}"));
        let aliases: Vec<(String, Key)> =
            self.aliases().map(|(alias, kept)| (alias.to_owned(), kept.clone())).collect();
        for (alias, kept) in aliases {
            self.metadata.remove(&alias);
            self.metadata.insert(renamed(&alias).to_string(), renamed(&kept).to_string());
        }
        self.tensors =
            self.tensors.into_iter().map(|(key, entry)| (renamed(&key), entry)).collect();
        self.shared.iter_mut().flatten().for_each(|key| *key = renamed(key));
        for remark in &mut self.remarks {
            match remark {
                Remark::Unlisted { keys, .. } => {
                    keys.iter_mut().for_each(|key| *key = renamed(key));
                }
                Remark::Unreadable { tensors, .. } => {
                    tensors.iter_mut().for_each(|(key, _)| *key = renamed(key));
                }
                Remark::Gap { .. }
                | Remark::Part { .. }
                | Remark::Ranks { .. }
                | Remark::Total { .. }
                | Remark::Root { .. }
                | Remark::LeftOut { .. }
                | Remark::Foreign { .. }
                | Remark::Named { .. } => {}
            }
        }
        self
    }

    /// A header without places, from dtypes and shapes.
    pub fn from_infos(infos: impl IntoIterator<Item = (Key, TensorInfo)>) -> Self {
        let tensors =
            infos.into_iter().map(|(key, info)| (key, Entry { info, location: None })).collect();
        Self { tensors, ..Self::default() }
    }
}
