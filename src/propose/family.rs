//! Families: keys that differ in numbers alone, as `layers.0.norm.weight` and
//! `layers.1.norm.weight`.

use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::IndexMap;

use super::MOST;
use crate::key::Key;
use crate::tensor::{Header, Shape, TensorInfo, Wanted};

/// A segment of a family's keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Part {
    Word(String),
    Index,
}

/// The numbers of a key, in order.
pub(super) type Indices = Vec<u64>;

/// Keys that differ in numbers alone.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) parts: Vec<Part>,
    /// By their numbers: the shape, if it is known.
    pub(super) members: BTreeMap<Indices, Option<Shape>>,
    pub(super) keys: Vec<Key>,
}

impl Family {
    /// How many numbers its keys have.
    pub(super) fn arity(&self) -> usize {
        self.parts.iter().filter(|part| **part == Part::Index).count()
    }

    /// The words, without numbers.
    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Word(word) => Some(word.as_str()),
            Part::Index => None,
        })
    }

    /// The last segment.
    pub(super) fn leaf(&self) -> &str {
        match self.parts.last() {
            Some(Part::Word(word)) => word,
            _ => "",
        }
    }

    /// All but the last segment.
    pub(super) fn parent(&self) -> &[Part] {
        self.parts.split_last().map_or(&[], |(_, parent)| parent)
    }

    /// The families in which one of its numbers is a word; none if it has too many values.
    fn apart(&self, index: usize, separator: char) -> Vec<Family> {
        let mut found: BTreeMap<u64, Family> = BTreeMap::new();
        // Members are in the order of their numbers, keys in that of the file: both are by member.
        let keys: BTreeMap<Indices, &Key> =
            self.keys.iter().map(|key| (numbers(key.as_str(), separator), key)).collect();
        for (member, shape) in &self.members {
            let mut rest = member.clone();
            let value = rest.remove(index);
            let family = found.entry(value).or_insert_with(|| {
                let mut seen = 0;
                let mut parts = self.parts.clone();
                for part in &mut parts {
                    if *part == Part::Index {
                        if seen == index {
                            *part = Part::Word(value.to_string());
                        }
                        seen += 1;
                    }
                }
                Family { parts, members: BTreeMap::new(), keys: Vec::new() }
            });
            family.members.insert(rest, shape.clone());
            family.keys.extend(keys.get(member).map(|key| (*key).clone()));
        }
        if found.len() > TOLD_APART { Vec::new() } else { found.into_values().collect() }
    }

    /// The shape that all its tensors have; `None` if they differ, or it isn't known.
    pub(super) fn shape(&self) -> Option<&Shape> {
        let mut shapes = self.members.values();
        let first = shapes.next()?.as_ref()?;
        shapes.all(|shape| shape.as_ref() == Some(first)).then_some(first)
    }
}

/// Most values of a number that are told apart as words.
const TOLD_APART: usize = 8;

/// The families of one side, and which of them are still free.
pub(super) struct Side {
    pub(super) families: Vec<Family>,
    /// What segments are parted by.
    pub(super) separator: char,
    free: Vec<bool>,
    /// The families that a key is in.
    of_key: HashMap<Key, Vec<usize>>,
}

impl Side {
    fn new(families: Vec<Family>, separator: char) -> Self {
        let (free, of_key) = (Vec::new(), HashMap::new());
        let mut side = Self { families: Vec::new(), separator, free, of_key };
        families.into_iter().for_each(|family| side.add(family));
        side
    }

    fn add(&mut self, family: Family) {
        for key in &family.keys {
            self.of_key.entry(key.clone()).or_default().push(self.families.len());
        }
        self.families.push(family);
        self.free.push(true);
    }

    /// The families that nothing is known of yet, by number; not more of them than are compared.
    pub(super) fn free(&self) -> Vec<usize> {
        (0..self.families.len()).filter(|at| self.is_free(*at)).take(MOST).collect()
    }

    pub(super) fn is_free(&self, at: usize) -> bool {
        self.free.get(at).copied().unwrap_or(false)
    }

    /// Takes a family, and with it all that have a key of it.
    pub(super) fn take(&mut self, at: usize) {
        for key in &self.families[at].keys {
            for other in self.of_key.get(key).into_iter().flatten() {
                self.free[*other] = false;
            }
        }
    }

    /// Adds, for each family that is free, those in which one of its numbers is a word: what stands
    /// at `mlp.0` may be another thing than what stands at `mlp.2`.
    pub(super) fn tell_apart(&mut self) {
        let mut apart = Vec::new();
        for at in self.free() {
            let family = &self.families[at];
            for index in 0..family.arity() {
                apart.extend(family.apart(index, self.separator));
            }
        }
        apart.into_iter().for_each(|family| self.add(family));
    }

    /// The keys that are in no family that was taken.
    pub(super) fn rest(&self) -> Vec<Key> {
        let mut seen = HashSet::new();
        let free = self.families.iter().zip(&self.free).filter(|(_, free)| **free);
        free.flat_map(|(family, _)| &family.keys).filter(|key| seen.insert(*key)).cloned().collect()
    }
}

pub(super) fn of_header(header: &Header) -> Side {
    // Flax and big_vision part segments by slashes.
    let slashes = header.tensors.keys().filter(|key| key.contains('/') && !key.contains('.'));
    let separator = if 2 * slashes.count() > header.tensors.len() { '/' } else { '.' };
    families(separator, header.tensors.iter().map(|(key, entry)| (key, Some(&entry.info))))
}

pub(super) fn of_wanted(wanted: &Wanted) -> Side {
    families('.', wanted.keys.iter().map(|(key, info)| (key, info.as_ref())))
}

/// The families of some keys, in the order in which they begin.
fn families<'a>(
    separator: char,
    keys: impl Iterator<Item = (&'a Key, Option<&'a TensorInfo>)>,
) -> Side {
    let mut found: IndexMap<Vec<Part>, Family> = IndexMap::new();
    for (key, info) in keys {
        let (mut parts, mut indices) = (Vec::new(), Indices::new());
        for segment in key.as_str().split(separator) {
            match number(segment) {
                Some(number) => {
                    indices.push(number);
                    parts.push(Part::Index);
                }
                None => parts.push(Part::Word(segment.to_owned())),
            }
        }
        let family = found.entry(parts).or_insert_with_key(|parts| Family {
            parts: parts.clone(),
            members: BTreeMap::new(),
            keys: Vec::new(),
        });
        let shape = info.map(|info| info.shape.clone());
        if family.members.insert(indices, shape).is_none() {
            family.keys.push(key.clone());
        }
    }
    Side::new(found.into_values().collect(), separator)
}

/// The numbers of a key.
fn numbers(key: &str, separator: char) -> Indices {
    key.split(separator).filter_map(number).collect()
}

/// A number as rules know it: without leading zeros.
fn number(segment: &str) -> Option<u64> {
    let digits = segment.bytes().all(|byte| byte.is_ascii_digit());
    let plain = segment == "0" || !segment.starts_with('0');
    (digits && plain).then(|| segment.parse().ok()).flatten()
}
