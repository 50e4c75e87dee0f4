//! [`Wanted`]: the keys that a target asks for, with dtype and shape where they are known.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Header, TensorInfo};
use crate::key::Key;

/// The target manifest: which keys the result should have. Read from a file with [`Wanted::read`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The keys, in the order of the file; with dtype and shape, or `None` where only the key is
    /// known.
    pub keys: IndexMap<Key, Option<TensorInfo>>,
}

/// Two targets say different dtypes or shapes of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disagreement {
    /// The key.
    pub key: Key,
}

impl std::fmt::Display for Disagreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "two targets say different dtypes or shapes of `{}`", self.key)
    }
}

impl std::error::Error for Disagreement {}

impl Wanted {
    /// Keys alone.
    pub fn from_keys(keys: impl IntoIterator<Item = Key>) -> Self {
        Self { keys: keys.into_iter().map(|key| (key, None)).collect() }
    }

    /// The keys of several manifests, as of the stages of one model, each once.
    ///
    /// # Errors
    /// If two of them say different dtypes or shapes of a key.
    pub fn join<'a>(parts: impl IntoIterator<Item = &'a Wanted>) -> Result<Self, Disagreement> {
        let mut all = Self::default();
        for (key, info) in parts.into_iter().flat_map(|part| &part.keys) {
            let known = all.keys.entry(key.clone()).or_default();
            match (&known, info) {
                (Some(known), Some(info)) if known != info => {
                    return Err(Disagreement { key: key.clone() });
                }
                (None, Some(_)) => known.clone_from(info),
                _ => {}
            }
        }
        Ok(all)
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
        Self {
            keys: header
                .tensors
                .iter()
                .map(|(key, entry)| (key.clone(), Some(entry.info.clone())))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;

    fn part(keys: &[(&str, Option<u64>)]) -> Wanted {
        let info = |rows: u64| TensorInfo::new(Dtype::F32, vec![rows]);
        Wanted { keys: keys.iter().map(|(key, rows)| (Key::from(*key), rows.map(info))).collect() }
    }

    #[test]
    fn parts_join_and_agree() {
        let joined = Wanted::join([
            &part(&[("a", None), ("b", Some(2))]),
            &part(&[("a", Some(3)), ("b", None)]),
        ])
        .unwrap();
        assert_eq!(joined, part(&[("a", Some(3)), ("b", Some(2))]));
        let disagree = Wanted::join([&part(&[("a", Some(3))]), &part(&[("a", Some(4))])]);
        assert_eq!(disagree, Err(Disagreement { key: Key::from("a") }));
    }
}
