//! The state dict as the statements leave it: which keys there are, and which node each is.

use crate::key::Key;
use crate::plan::List;
use crate::plan::node::{NodeId, RuleId};
use crate::plan::table::Table;

/// A key and its tensor, between two statements.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) key: Key,
    pub(super) node: NodeId,
    /// The key it was in the checkpoint; of the first one, if it was made from several.
    pub(super) origin: Key,
    /// The rules that made it, in order.
    pub(super) rules: List<RuleId>,
    /// It is one tensor with another entry, by a tie: that one is the source.
    pub(super) tied: bool,
    /// A rewrite of the stage that runs gave it: that it looks like a result says nothing.
    pub(super) given: bool,
}

/// Keys in the order in which they came, found by name. A key that is renamed keeps its place.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    entries: Vec<Option<Current>>,
    /// The places of the keys that there are.
    places: Table,
}

impl State {
    /// The key as it is now, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<&Current> {
        self.at(self.place(key)?)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Current> {
        let at = self.place(key)?;
        self.entries.get_mut(at)?.as_mut()
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.place(key).is_some()
    }

    /// The place of a key's entry.
    pub(super) fn place(&self, key: &str) -> Option<usize> {
        self.places.find(key, |at| key_at(&self.entries, at)).map(|at| at as usize)
    }

    /// Room for so many more keys.
    pub(super) fn reserve(&mut self, keys: usize) {
        self.entries.reserve(keys);
        let entries = &self.entries;
        self.places.reserve(keys, |at| key_at(entries, at));
    }

    /// Takes a key out.
    pub(super) fn remove(&mut self, key: &str) -> Option<Current> {
        self.take(self.place(key)?)
    }

    /// Takes the entry at a place out.
    pub(super) fn take(&mut self, at: usize) -> Option<Current> {
        self.forget(at);
        self.entries.get_mut(at)?.take()
    }

    /// Forgets the key of an entry, which stays at its place until it is [named](Self::name) or
    /// taken out.
    pub(super) fn forget(&mut self, at: usize) {
        if let Ok(at) = u32::try_from(at) {
            self.places.remove(at, key_at(&self.entries, at));
        }
    }

    /// Gives an entry whose key was forgotten another one, by a rule of the stage that runs.
    ///
    /// # Errors
    /// The entry, which is taken out, if another one has this key.
    pub(super) fn name(&mut self, at: usize, key: Key, rule: RuleId) -> Result<(), Box<Current>> {
        let is_taken = self.contains(&key);
        let (Some(slot), Ok(place)) = (self.entries.get_mut(at), u32::try_from(at)) else {
            return Ok(());
        };
        let Some(entry) = slot else { return Ok(()) };
        entry.key = key;
        entry.rules.push(rule);
        entry.given = true;
        if is_taken {
            return slot.take().map_or(Ok(()), |entry| Err(Box::new(entry)));
        }
        self.know(place);
        Ok(())
    }

    /// Puts the place of an entry, whose key no other one has, into the table.
    fn know(&mut self, at: u32) {
        let entries = &self.entries;
        self.places.insert(at, |at| key_at(entries, at));
    }

    /// Takes all entries out.
    pub(super) fn take_all(&mut self) -> Vec<Current> {
        std::mem::take(self).entries.into_iter().flatten().collect()
    }

    /// Puts an entry in.
    ///
    /// # Errors
    /// The entry, if its key is there already.
    pub(super) fn insert(&mut self, entry: Current) -> Result<(), Box<Current>> {
        let next = u32::try_from(self.entries.len());
        let (Ok(next), false) = (next, self.contains(&entry.key)) else {
            return Err(Box::new(entry));
        };
        self.entries.push(Some(entry));
        self.know(next);
        Ok(())
    }

    /// Makes every entry of one node an entry of another, by a tie.
    pub(super) fn replace_node(&mut self, old: NodeId, new: NodeId) {
        for entry in self.entries.iter_mut().flatten().filter(|entry| entry.node == old) {
            entry.node = new;
            entry.tied = true;
        }
    }

    /// A stage begins: nothing was given by a rewrite of it yet.
    pub(super) fn nothing_given(&mut self) {
        self.entries.iter_mut().flatten().for_each(|entry| entry.given = false);
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
        self.places.len() == other.places.len()
            && self.iter().all(|(_, entry)| other.contains(&entry.key))
    }
}

/// The key at a place.
fn key_at(entries: &[Option<Current>], at: u32) -> &str {
    entries.get(at as usize).and_then(Option::as_ref).map_or("", |entry| &entry.key)
}
