//! [`Pattern`]: a whole key, segment by segment, with captures; the same value matches keys and,
//! given bindings, renders them.
//!
//! Matching is whole-key and never by substring. Where more than one way to match exists, the first
//! run of `**` is the shortest possible, then the next (so the leftmost occurrence of what follows
//! it decides). Numbers are decimal without leading zeros and take all the digits that are there.
//! Patterns here are resolved: captures are slots, ranges are numbers; see `check` for how they get
//! there from text.

mod matcher;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::ops::Range;

use super::number::Number;
use matcher::Matcher;

/// Which capture of a rule, an index into its [`Bindings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// One part of a pattern: a segment, or any number of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Exactly this segment (it may hold dots only by escape, which a key's segments never do).
    Literal(Box<str>),
    /// A segment made of text and captures.
    Segment(Box<[Atom]>),
    /// Zero or more whole segments.
    Rest(Slot),
}

impl Part {
    /// Whether it may take more than one segment, or a capture of it holds a dot.
    pub fn is_wide(&self) -> bool {
        match self {
            Part::Literal(_) => false,
            Part::Rest(_) => true,
            Part::Segment(atoms) => atoms.iter().any(|atom| {
                matches!(atom, Atom::Words { words, .. } if words.iter().any(|word| word.contains('.')))
            }),
        }
    }

    /// Whether a segment fits, by itself.
    pub fn fits(&self, segment: &str) -> bool {
        let atoms = match self {
            Part::Literal(text) => return **text == *segment,
            Part::Rest(_) => return true,
            Part::Segment(atoms) => atoms,
        };
        let mut segments = Segments::default();
        segments.split(segment);
        let slots =
            || atoms.iter().flat_map(|atom| atom.slots().iter().map(|slot| usize::from(slot.0)));
        let words = atoms.iter().filter(|atom| matches!(atom, Atom::Words { .. })).count();
        let all: HashSet<usize> = slots().collect();
        let forks = words > 2 && all.len() == slots().count();
        let slots = slots().max().map_or(0, |last| last + 1);
        let mut matcher = Matcher::new(segment, &segments, forks);
        segments.len() == 1
            && matcher.parts(std::slice::from_ref(self), 0, 0, &mut Bindings::new(slots))
    }
}

/// A part of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Atom {
    /// This text.
    Text(Box<str>),
    /// A number `mul * n + add`, where `n` is what the slot holds; `n` lies in the range.
    Index {
        /// Where `n` is bound.
        slot: Slot,
        /// Factor, not 0.
        mul: i64,
        /// Summand.
        add: i64,
        /// The values that `n` may have; all if `None`.
        range: Option<Range<u64>>,
    },
    /// One or more characters.
    Chars(Slot),
    /// One of these words, which may go over several segments; the slot holds which.
    Words {
        /// Where the choice is bound.
        slot: Slot,
        /// The words on this side.
        words: Box<[Box<str>]>,
    },
    /// A number that several captures make, or that more than one of them is calculated to.
    Calculated {
        /// Which of the pattern's calculated numbers it is.
        which: u16,
        /// The captures that it is calculated from.
        slots: Box<[Slot]>,
        /// How.
        number: Number,
    },
}

/// What numbers of a pattern are once a config is known.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// The values that each index capture may have, by slot; all if `None`.
    pub ranges: Vec<Option<Range<u64>>>,
    /// What each calculated number is; as it was if `None`.
    pub calculated: Vec<Option<Atom>>,
}

/// What a capture holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// Nothing yet.
    #[default]
    Unbound,
    /// A number.
    Index(u64),
    /// Which word.
    Word(u16),
    /// A range of bytes of the matched key: characters, or whole segments (empty for none).
    Text(u32, u32),
    /// Text that doesn't lie in the matched key.
    Owned(Box<str>),
}

/// The captures of one match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings(Vec<Binding>);

impl Bindings {
    /// Room for this many captures, all unbound.
    pub fn new(slots: usize) -> Self {
        Self(vec![Binding::Unbound; slots])
    }

    /// Unbinds everything.
    pub fn reset(&mut self, slots: usize) {
        self.0.clear();
        self.0.resize(slots, Binding::Unbound);
    }

    /// What a slot holds.
    pub fn get(&self, slot: Slot) -> &Binding {
        self.0.get(usize::from(slot.0)).unwrap_or(&Binding::Unbound)
    }

    /// Binds a slot; slots beyond the room are ignored.
    pub fn set(&mut self, slot: Slot, binding: Binding) {
        if let Some(place) = self.0.get_mut(usize::from(slot.0)) {
            *place = binding;
        }
    }

    /// The number a slot holds.
    pub fn index(&self, slot: Slot) -> Option<u64> {
        match self.get(slot) {
            Binding::Index(value) => Some(*value),
            _ => None,
        }
    }

    /// The text a slot holds, if it holds text of the matched key or its own.
    pub fn text<'a>(&'a self, slot: Slot, key: &'a str) -> Option<&'a str> {
        match self.get(slot) {
            Binding::Text(start, end) => key.get(*start as usize..*end as usize),
            Binding::Owned(text) => Some(text),
            _ => None,
        }
    }
}

/// A key split at its dots.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    ends: Vec<u32>,
}

impl Segments {
    /// Splits a key; keys are shorter than 4 GiB.
    pub fn split(&mut self, key: &str) {
        self.ends.clear();
        #[allow(clippy::cast_possible_truncation)]
        self.ends.extend(
            key.bytes().enumerate().filter(|(_, byte)| *byte == b'.').map(|(at, _)| at as u32),
        );
        #[allow(clippy::cast_possible_truncation)]
        self.ends.push(key.len() as u32);
    }

    /// How many segments.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether nothing was split yet (a key always has a segment).
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn start(&self, at: usize) -> usize {
        if at == 0 { 0 } else { self.ends[at - 1] as usize + 1 }
    }

    /// The bytes of segments `from..to`, without the dots around them.
    fn range(&self, from: usize, to: usize) -> (usize, usize) {
        if from == to {
            let at = if from < self.ends.len() {
                self.start(from)
            } else {
                self.ends.last().map_or(0, |end| *end as usize)
            };
            (at, at)
        } else {
            (self.start(from), self.ends[to - 1] as usize)
        }
    }

    /// One segment.
    pub fn get<'a>(&self, key: &'a str, at: usize) -> &'a str {
        &key[self.start(at)..self.ends[at] as usize]
    }
}

/// How far a match got: for saying why a rule didn't fire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    /// Parts of the pattern that matched.
    pub parts: usize,
    /// The segment of the key where it stopped.
    pub segment: usize,
}

/// A resolved pattern over whole keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
    /// Whether ways to divide a key are so many that those which failed are kept in mind; and what
    /// follows a place hangs on nothing before it.
    forks: bool,
}

impl Pattern {
    /// From its parts. Text atoms that make up a whole segment become literals.
    pub fn new(parts: Vec<Part>) -> Self {
        let parts = parts
            .into_iter()
            .map(|part| match part {
                Part::Segment(atoms) if atoms.iter().all(|atom| matches!(atom, Atom::Text(_))) => {
                    Part::Literal(
                        atoms
                            .iter()
                            .filter_map(|atom| match atom {
                                Atom::Text(text) => Some(&**text),
                                _ => None,
                            })
                            .collect::<String>()
                            .into(),
                    )
                }
                other => other,
            })
            .collect();
        let mut pattern = Self { parts, forks: false };
        let wide = pattern.parts.iter().filter(|part| part.is_wide()).count();
        let words = |part: &Part| match part {
            Part::Segment(atoms) => {
                atoms.iter().filter(|atom| matches!(atom, Atom::Words { .. })).count()
            }
            _ => 0,
        };
        let many = wide > 2 || pattern.parts.iter().any(|part| words(part) > 2);
        // A capture that stands twice must agree with itself, so that what follows hangs on what it
        // was bound to.
        pattern.forks = many && pattern.slots().len() == pattern.all_slots().count();
        pattern
    }

    /// The pattern with the range of each index capture, and what its calculated numbers are.
    #[must_use]
    pub fn with_numbers(&self, numbers: &Numbers) -> Self {
        let atom = |atom: &Atom| match atom {
            Atom::Index { slot, mul, add, .. } => Atom::Index {
                slot: *slot,
                mul: *mul,
                add: *add,
                range: numbers.ranges.get(usize::from(slot.0)).cloned().flatten(),
            },
            Atom::Calculated { which, .. } => {
                let known = numbers.calculated.get(usize::from(*which)).cloned().flatten();
                known.unwrap_or_else(|| atom.clone())
            }
            Atom::Text(_) | Atom::Chars(_) | Atom::Words { .. } => atom.clone(),
        };
        let part = |part: &Part| match part {
            Part::Segment(atoms) => Part::Segment(atoms.iter().map(atom).collect()),
            Part::Literal(_) | Part::Rest(_) => part.clone(),
        };
        Self::new(self.parts.iter().map(part).collect())
    }

    /// Its parts, each of which is a segment unless it is [wide](Part::is_wide).
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The whole key, if it has no captures.
    pub fn literal(&self) -> Option<String> {
        let mut key = String::new();
        for (i, part) in self.parts.iter().enumerate() {
            let Part::Literal(text) = part else { return None };
            if i > 0 {
                key.push('.');
            }
            key.push_str(text);
        }
        Some(key)
    }

    /// The literal segments: a key without one of them can't match.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(text) => Some(&**text),
            _ => None,
        })
    }

    /// Whether it has a capture of numbers.
    pub fn has_index(&self) -> bool {
        let is_index = |atom: &Atom| matches!(atom, Atom::Index { .. } | Atom::Calculated { .. });
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Segment(atoms) if atoms.iter().any(is_index)))
    }

    /// Whether its last segment says which tensor of a module is meant: text, words and numbers do,
    /// any text at all doesn't.
    pub fn names_last(&self) -> bool {
        match self.parts.last() {
            Some(Part::Literal(_)) => true,
            Some(Part::Segment(atoms)) => !atoms.iter().any(|atom| matches!(atom, Atom::Chars(_))),
            Some(Part::Rest(_)) | None => false,
        }
    }

    fn all_slots(&self) -> impl Iterator<Item = Slot> {
        self.parts.iter().flat_map(|part| {
            let (rest, atoms) = match part {
                Part::Literal(_) => (None, &[][..]),
                Part::Rest(slot) => (Some(*slot), &[][..]),
                Part::Segment(atoms) => (None, &atoms[..]),
            };
            rest.into_iter().chain(atoms.iter().flat_map(Atom::slots).copied())
        })
    }

    /// The slots it binds, in order, each once.
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots: Vec<Slot> = self.all_slots().collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Matches a whole key and binds its captures; slots bound before must hold the same value.
    pub fn matches(&self, key: &str, segments: &Segments, bindings: &mut Bindings) -> bool {
        self.matcher(key, segments).parts(&self.parts, 0, 0, bindings)
    }

    /// How far it gets on a key that it doesn't match.
    pub fn reach(&self, key: &str, segments: &Segments, slots: usize) -> Reach {
        let mut matcher = self.matcher(key, segments);
        matcher.parts(&self.parts, 0, 0, &mut Bindings::new(slots));
        matcher.reach
    }

    fn matcher<'a>(&self, key: &'a str, segments: &'a Segments) -> Matcher<'a> {
        Matcher::new(key, segments, self.forks)
    }

    /// The key that the bindings of a match of `key` give.
    ///
    /// `None` if a capture is unbound, an index leaves its range, falls below zero or overflows, or
    /// nothing is left of the key.
    pub fn render(&self, key: &str, bindings: &Bindings) -> Option<String> {
        let mut out = String::with_capacity(key.len() + 16);
        for part in &self.parts {
            let before = out.len();
            match part {
                Part::Literal(text) => {
                    separate(&mut out);
                    out.push_str(text);
                }
                Part::Rest(slot) => {
                    let text = bindings.text(*slot, key)?;
                    if !text.is_empty() {
                        separate(&mut out);
                        out.push_str(text);
                    }
                }
                Part::Segment(atoms) => {
                    separate(&mut out);
                    for atom in atoms {
                        atom.render(key, bindings, &mut out)?;
                    }
                }
            }
            debug_assert!(out.len() >= before);
        }
        (!out.is_empty()).then_some(out)
    }
}

fn separate(out: &mut String) {
    if !out.is_empty() {
        out.push('.');
    }
}

impl Atom {
    /// The slots it binds.
    pub fn slots(&self) -> &[Slot] {
        match self {
            Atom::Text(_) => &[],
            Atom::Index { slot, .. } | Atom::Chars(slot) | Atom::Words { slot, .. } => {
                std::slice::from_ref(slot)
            }
            Atom::Calculated { slots, .. } => slots,
        }
    }

    /// Whether it is more than text.
    pub fn is_capture(&self) -> bool {
        !matches!(self, Atom::Text(_))
    }

    fn render(&self, key: &str, bindings: &Bindings, out: &mut String) -> Option<()> {
        match self {
            Atom::Text(text) => out.push_str(text),
            Atom::Index { slot, mul, add, range } => {
                let value = bindings.index(*slot)?;
                if range.as_ref().is_some_and(|range| !range.contains(&value)) {
                    return None;
                }
                let number = i64::try_from(value).ok()?.checked_mul(*mul)?.checked_add(*add)?;
                write_number(number, out)?;
            }
            Atom::Calculated { number, .. } => write_number(number.value(bindings)?, out)?,
            Atom::Chars(slot) => out.push_str(bindings.text(*slot, key)?),
            Atom::Words { slot, words } => match bindings.get(*slot) {
                Binding::Word(which) => out.push_str(words.get(usize::from(*which))?),
                _ => return None,
            },
        }
        Some(())
    }
}

/// A number as keys have it: none is below zero.
fn write_number(number: i64, out: &mut String) -> Option<()> {
    (number >= 0).then(|| write!(out, "{number}").ok()).flatten()
}
