//! [`Nearby`]: which patterns may fit a key together with another one, found without comparing each
//! with each.

use std::collections::HashMap;

use super::effort::Effort;
use crate::key::{Part, Pattern};

/// Parts of a pattern that are told apart. What follows is taken to fit anything.
const DEPTH: usize = 16;

/// An index over patterns by what stands at their start and at their end.
#[derive(Default)]
pub(super) struct Nearby<'p> {
    starts: Branches<'p>,
    ends: Branches<'p>,
}

/// A tree of parts, up to the first `**`.
struct Branches<'p>(Vec<Branch<'p>>);

#[derive(Default)]
struct Branch<'p> {
    literals: HashMap<&'p str, usize>,
    /// After a segment with captures, of whatever kind.
    captures: Option<usize>,
    /// Patterns that end here, and those that go on with a `**`.
    ends: Vec<usize>,
    open: Vec<usize>,
    /// All patterns from here on.
    all: Vec<usize>,
}

impl Default for Branches<'_> {
    fn default() -> Self {
        Self(vec![Branch::default()])
    }
}

impl<'p> Nearby<'p> {
    /// Adds a pattern of the owner with this number; numbers don't fall.
    pub(super) fn add(&mut self, pattern: &'p Pattern, owner: usize) {
        self.starts.add(pattern.parts().iter(), owner);
        self.ends.add(pattern.parts().iter().rev(), owner);
    }

    /// The owners of patterns that may fit a key that this one fits, in order, each once. What
    /// isn't among them doesn't meet it.
    pub(super) fn of(&self, pattern: &Pattern, effort: &Effort) -> Vec<usize> {
        let by_start = self.starts.of(pattern.parts().iter(), effort);
        let by_end = self.ends.of(pattern.parts().iter().rev(), effort);
        let count = |found: &[&[usize]]| found.iter().map(|owners| owners.len()).sum::<usize>();
        let fewer = if count(&by_start) <= count(&by_end) { by_start } else { by_end };
        let mut owners = Vec::new();
        for found in fewer {
            if !effort.spend(found.len()) {
                break;
            }
            owners.extend_from_slice(found);
        }
        owners.sort_unstable();
        owners.dedup();
        owners
    }
}

impl<'p> Branches<'p> {
    fn add(&mut self, parts: impl Iterator<Item = &'p Part>, owner: usize) {
        let mut at = 0;
        for (depth, part) in parts.map(Some).chain([None]).enumerate() {
            let new = self.0.len();
            let branch = &mut self.0[at];
            branch.all.push(owner);
            let next = match part {
                None => {
                    branch.ends.push(owner);
                    return;
                }
                Some(part) if part.is_wide() => {
                    branch.open.push(owner);
                    return;
                }
                Some(_) if depth >= DEPTH => {
                    branch.open.push(owner);
                    return;
                }
                Some(Part::Literal(text)) => *branch.literals.entry(text).or_insert(new),
                Some(Part::Segment(_) | Part::Rest(_)) => *branch.captures.get_or_insert(new),
            };
            if next == new {
                self.0.push(Branch::default());
            }
            at = next;
        }
    }

    fn of<'q>(&self, parts: impl Iterator<Item = &'q Part>, effort: &Effort) -> Vec<&[usize]> {
        let mut found: Vec<&[usize]> = Vec::new();
        let mut here: Vec<&Branch<'p>> = self.0.first().into_iter().collect();
        for (depth, part) in parts.map(Some).chain([None]).enumerate() {
            let mut next = Vec::new();
            for branch in here {
                if !effort.spend(1) {
                    return found;
                }
                match part {
                    Some(part) if part.is_wide() => found.push(&branch.all),
                    Some(_) if depth >= DEPTH => found.push(&branch.all),
                    None => found.extend([&branch.open[..], &branch.ends]),
                    Some(part) => {
                        found.push(&branch.open);
                        next.extend(branch.captures);
                        match part {
                            Part::Literal(text) => next.extend(branch.literals.get(&**text)),
                            _ => next.extend(branch.literals.values()),
                        }
                    }
                }
            }
            if part.is_some_and(Part::is_wide) {
                break;
            }
            here = next.into_iter().map(|at| &self.0[at]).collect();
        }
        found
    }
}
