//! [`KeyShapes`]: keys without the numbers in them, so that a checkpoint of 90,000 keys is a few
//! hundred shapes, among which completion looks at each keystroke.

use std::collections::{BTreeMap, BTreeSet};

use crate::syntax::ast::{Atom, Segment};
use crate::tensor::Header;

/// What stands for a number in a shape.
const NUMBER: &str = "{}";

/// The different keys that there are but for numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyShapes {
    shapes: BTreeSet<Vec<String>>,
    /// Of segments that are numbers, the largest that stands at a place.
    pub(super) largest: u64,
}

/// A segment that may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// As it is in keys.
    Literal(String),
    /// A number.
    Number,
}

impl KeyShapes {
    pub(super) fn of(header: &Header) -> Self {
        let mut shapes = Self::default();
        header.tensors.keys().for_each(|key| shapes.add(key));
        shapes
    }

    /// Adds a key.
    pub(super) fn add(&mut self, key: &str) {
        let shape: Vec<String> = key
            .split('.')
            .map(|segment| match segment.parse::<u64>() {
                Ok(number) => {
                    self.largest = self.largest.max(number);
                    NUMBER.to_owned()
                }
                Err(_) => segment.to_owned(),
            })
            .collect();
        self.shapes.insert(shape);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shapes.is_empty()
    }

    /// The segments that follow in keys after those of a pattern, each with how many shapes have it.
    pub(super) fn after(&self, pattern: &[Segment]) -> Vec<(Next, usize)> {
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        for shape in &self.shapes {
            let mut ends = BTreeSet::new();
            follow(pattern, shape, 0, &mut ends);
            let mut nexts: Vec<&str> =
                ends.iter().filter_map(|end| shape.get(*end)).map(String::as_str).collect();
            nexts.sort_unstable();
            nexts.dedup();
            for next in nexts {
                *found.entry(next).or_default() += 1;
            }
        }
        let next = |segment: &str| match segment {
            NUMBER => Next::Number,
            other => Next::Literal(other.to_owned()),
        };
        found.into_iter().map(|(segment, count)| (next(segment), count)).collect()
    }
}

/// Where in a shape a pattern may end that begins at a place.
fn follow(pattern: &[Segment], shape: &[String], at: usize, ends: &mut BTreeSet<usize>) {
    match pattern.split_first() {
        None => {
            ends.insert(at);
        }
        Some((Segment::Rest { .. }, rest)) => {
            (at..=shape.len()).for_each(|at| follow(rest, shape, at, ends));
        }
        Some((Segment::Atoms(atoms), rest)) => {
            if shape.get(at).is_some_and(|segment| may_be(atoms, segment)) {
                follow(rest, shape, at + 1, ends);
            }
        }
    }
}

/// Whether a segment may be what atoms are: a capture may be any text.
fn may_be(atoms: &[Atom], segment: &str) -> bool {
    match atoms {
        [] => segment.is_empty(),
        [Atom::Text(text), rest @ ..] => {
            segment.strip_prefix(text.as_str()).is_some_and(|left| may_be(rest, left))
        }
        [Atom::Capture(_)] => !segment.is_empty(),
        [Atom::Capture(_), rest @ ..] => {
            let ends = segment.char_indices().map(|(at, _)| at).skip(1);
            ends.chain([segment.len()]).any(|at| may_be(rest, &segment[at..]))
        }
    }
}
