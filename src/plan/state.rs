//! The state dict as the statements leave it: which keys there are, and which node each is.

use std::collections::HashMap;

use crate::key::Key;
use crate::plan::node::{NodeId, RuleId};

/// A key and its tensor, between two statements.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) key: Key,
    pub(super) node: NodeId,
    /// The key it was in the checkpoint; of the first one, if it was made from several.
    pub(super) origin: Key,
    /// The rules that made it, in order.
    pub(super) rules: Vec<RuleId>,
    /// It is one tensor with another entry, by a tie: that one is the source.
    pub(super) tied: bool,
}

/// Keys in the order in which they came, found by name.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    entries: Vec<Option<Current>>,
    by_key: HashMap<Key, usize, foldhash::fast::RandomState>,
}

impl State {
    /// The key as it is now, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<&Current> {
        self.by_key.get(key).and_then(|at| self.at(*at))
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Current> {
        self.by_key.get(key).and_then(|at| self.entries.get_mut(*at)?.as_mut())
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }

    /// The place of a key's entry.
    pub(super) fn place(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// Room for so many more keys.
    pub(super) fn reserve(&mut self, keys: usize) {
        self.entries.reserve(keys);
        self.by_key.reserve(keys);
    }

    /// Takes a key out.
    pub(super) fn remove(&mut self, key: &str) -> Option<Current> {
        self.by_key.remove(key).and_then(|at| self.entries.get_mut(at)?.take())
    }

    /// Takes the entry at a place out.
    pub(super) fn take(&mut self, at: usize) -> Option<Current> {
        let entry = self.entries.get_mut(at)?.take()?;
        self.by_key.remove(&entry.key);
        Some(entry)
    }

    /// Takes all entries out. Their keys are still known.
    pub(super) fn take_all(&mut self) -> Vec<Current> {
        std::mem::take(&mut self.entries).into_iter().flatten().collect()
    }

    /// Puts an entry in.
    ///
    /// # Errors
    /// The entry, if its key is there already.
    pub(super) fn insert(&mut self, entry: Current) -> Result<(), Box<Current>> {
        if self.by_key.contains_key(&entry.key) {
            return Err(Box::new(entry));
        }
        self.by_key.insert(entry.key.clone(), self.entries.len());
        self.entries.push(Some(entry));
        Ok(())
    }

    /// Makes every entry of one node an entry of another, by a tie.
    pub(super) fn replace_node(&mut self, old: NodeId, new: NodeId) {
        for entry in self.entries.iter_mut().flatten().filter(|entry| entry.node == old) {
            entry.node = new;
            entry.tied = true;
        }
    }

    /// Every entry with its place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Current)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(at, entry)| entry.as_ref().map(|entry| (at, entry)))
    }

    /// The entry at a place.
    pub(super) fn at(&self, at: usize) -> Option<&Current> {
        self.entries.get(at).and_then(Option::as_ref)
    }

    /// Whether both have the same keys.
    pub(super) fn same_keys(&self, other: &State) -> bool {
        self.by_key.len() == other.by_key.len() && self.by_key.keys().all(|key| other.contains(key))
    }
}
