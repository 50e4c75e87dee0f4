//! [`Table`]: numbers found by the keys that they stand for, with no second copy of any key.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Numbers by key. Whoever has one says which key a number stands for; that of a number in the
/// table doesn't change.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    numbers: HashTable<u32>,
    hasher: RandomState,
}

impl Table {
    /// How many numbers there are.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The number that stands for a key.
    pub(super) fn find<'k>(&self, key: &str, key_of: impl Fn(u32) -> &'k str) -> Option<u32> {
        let is_it = |number: &u32| key_of(*number) == key;
        self.numbers.find(self.hasher.hash_one(key), is_it).copied()
    }

    /// Room for so many more.
    pub(super) fn reserve<'k>(&mut self, more: usize, key_of: impl Fn(u32) -> &'k str) {
        let Self { numbers, hasher } = self;
        numbers.reserve(more, |number| hasher.hash_one(key_of(*number)));
    }

    /// Puts a number in, for whose key there is none.
    pub(super) fn insert<'k>(&mut self, number: u32, key_of: impl Fn(u32) -> &'k str) {
        let Self { numbers, hasher } = self;
        let hash = |number: &u32| hasher.hash_one(key_of(*number));
        numbers.insert_unique(hash(&number), number, hash);
    }

    /// Takes out a number, which stands for this key.
    pub(super) fn remove(&mut self, number: u32, key: &str) {
        let is_it = |other: &u32| *other == number;
        if let Ok(found) = self.numbers.find_entry(self.hasher.hash_one(key), is_it) {
            found.remove();
        }
    }
}
