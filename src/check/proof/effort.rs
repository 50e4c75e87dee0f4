//! [`Effort`]: what proofs may cost, counted in steps rather than in time, so that they say the
//! same on every machine.

use std::cell::Cell;

use crate::key::{Atom, Part, Pattern};

/// Steps that checking the statements of one file may take. No file of the library takes a fiftieth
/// of it.
const CHECK: u64 = 20_000_000;
/// Steps that following rules through a whole file may take. No file of the library uses it up.
const PROOF: u64 = 100_000_000;

/// Work that is left. Once it's spent, each question that is still open is answered with "not
/// known".
#[derive(Debug)]
pub(in crate::check) struct Effort(Cell<u64>);

impl Effort {
    /// For all statements of a file.
    pub(in crate::check) fn of_check() -> Self {
        Self(Cell::new(CHECK))
    }

    /// For a file of which all is known.
    pub(in crate::check) fn none() -> Self {
        Self(Cell::new(0))
    }

    /// For a file as a whole.
    pub(super) fn of_proof() -> Self {
        Self(Cell::new(PROOF))
    }

    /// Takes so many steps; `false` if they aren't there any more.
    pub(super) fn spend(&self, steps: usize) -> bool {
        let left = self.0.get().checked_sub(steps as u64);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Whether nothing is left.
    pub(in crate::check) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }

    /// Steps that a check has taken.
    #[cfg(test)]
    pub(super) fn used(&self) -> u64 {
        CHECK - self.0.get()
    }
}

/// What it costs to hold a segment against a part.
pub(super) fn weight(part: &Part) -> usize {
    match part {
        Part::Literal(_) | Part::Rest(_) => 1,
        Part::Segment(atoms) => atoms
            .iter()
            .map(|atom| if let Atom::Words { words, .. } = atom { 1 + words.len() } else { 1 })
            .sum(),
    }
}

/// What it costs to hold a key against a pattern.
pub(super) fn weight_of(pattern: &Pattern) -> usize {
    pattern.parts().iter().map(weight).sum()
}
