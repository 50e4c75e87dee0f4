//! What can be said of a rule from its patterns alone: whether it takes every key that fits, and what
//! it names.

use crate::check::keys::Keys;
use crate::check::op::{Call, OpKind};
use crate::check::rules::Side;
use crate::check::rules::{CaptureKind, Rule};
use crate::key::{Atom, Part, Pattern, Slot};
use crate::syntax::ast::Expr;

/// The patterns of exceptions that certainly match what an automaton says they do: a range may
/// forbid it, and so may a name that stands twice.
pub(super) fn certain(exceptions: &[Keys]) -> impl Iterator<Item = &Pattern> {
    exceptions.iter().map(Keys::without_ranges).filter(|pattern| is_certain(pattern))
}

pub(super) fn is_certain(pattern: &Pattern) -> bool {
    let atoms = pattern.parts().iter().flat_map(|part| match part {
        Part::Segment(atoms) => atoms.to_vec(),
        _ => Vec::new(),
    });
    let rests = pattern
        .parts()
        .iter()
        .filter_map(|part| if let Part::Rest(slot) = part { Some(*slot) } else { None });
    let mut slots: Vec<Slot> =
        atoms.clone().flat_map(|atom| atom.slots().to_vec()).chain(rests).collect();
    let count = slots.len();
    slots.sort_unstable();
    slots.dedup();
    slots.len() == count && !pattern.has_index()
}

/// Whether a rule takes each key that fits its source: nothing but the key decides.
pub(super) fn takes_for_certain(rule: &Rule) -> bool {
    let plain = |pattern: &Pattern| {
        pattern.parts().iter().all(|part| match part {
            Part::Segment(atoms) => atoms.iter().all(|atom| {
                !matches!(atom, Atom::Index { mul, add, .. } if (*mul, *add) != (1, 0))
                    && !matches!(atom, Atom::Calculated { .. })
            }),
            _ => true,
        })
    };
    let sources: Vec<&Pattern> = rule.left.iter().filter_map(Side::pattern).collect();
    rule.condition.is_none()
        && rule.unless_left.is_empty()
        && rule.unless_right.is_empty()
        && rule.captures.iter().all(|capture| match &capture.kind {
            CaptureKind::Index(_) => false,
            CaptureKind::Words { left, right } => left == right,
            CaptureKind::Chars | CaptureKind::Rest => true,
        })
        && sources.iter().all(|pattern| is_certain(pattern))
        && rule.left.iter().chain(&rule.right).filter_map(Side::pattern).all(plain)
        // A result that is the key itself is no change; with other names around the captures it
        // can't be.
        && rule.is_rename()
        && sources.first().is_some_and(|left| rule.right.iter().filter_map(Side::pattern).all(|right| literals(left) != literals(right)))
}

pub(super) fn literals(pattern: &Pattern) -> Vec<&str> {
    let mut found: Vec<&str> = pattern
        .parts()
        .iter()
        .filter_map(|part| if let Part::Literal(text) = part { Some(&**text) } else { None })
        .collect();
    found.sort_unstable();
    found
}

/// Whether a witness may go by a rule: nothing but keys decides, and one key is a whole instance of
/// it.
pub(super) fn depends_on_keys_alone(rule: &Rule) -> bool {
    rule.condition.is_none()
        && !rule.hangs_on_numbers()
        && rule.captures.iter().all(|capture| capture.left == capture.right)
        && rule.left.len() == 1
        && rule.right.len() == 1
        && rule
            .joint
            .iter()
            .chain(rule.left.iter().chain(&rule.right).flat_map(|side| &side.ops))
            .all(|used| fits_all(&used.op))
}

/// Whether an op fits any matrix of floats.
pub(super) fn fits_all(op: &Call<Expr>) -> bool {
    use OpKind::{Add, Div, Exp, Log, Mul, Neg, Sub, Transpose};
    matches!(op.kind, Transpose | Add | Sub | Mul | Div | Neg | Exp | Log)
}

/// What nearly every key ends with.
pub(super) fn is_leaf(segment: &str) -> bool {
    matches!(segment, "weight" | "bias")
}

/// What a rule's sources name.
pub(super) fn names(rule: &Rule) -> impl Iterator<Item = &Part> {
    rule.left.iter().filter_map(Side::pattern).flat_map(Pattern::parts).filter(|part| match part {
        Part::Literal(_) => true,
        Part::Segment(atoms) => {
            !atoms.iter().any(|atom| matches!(atom, Atom::Chars(_)))
                && atoms.iter().any(|atom| matches!(atom, Atom::Text(_) | Atom::Words { .. }))
        }
        Part::Rest(_) => false,
    })
}

/// A rule as reading backwards sees it.
pub(super) fn turned(rule: &Rule) -> Rule {
    Rule {
        left: rule.right.clone(),
        right: rule.left.clone(),
        unless_left: rule.unless_right.clone(),
        unless_right: rule.unless_left.clone(),
        captures: rule
            .captures
            .iter()
            .map(|one| crate::check::rules::Capture {
                left: one.right,
                right: one.left,
                ..one.clone()
            })
            .collect(),
        ..rule.clone()
    }
}

/// Whether a condition has a name, behind which a question about keys may stand.
pub(super) fn names_something(condition: &crate::syntax::ast::Expr) -> bool {
    let mut found = Vec::new();
    crate::check::value::names(condition, &mut found);
    !found.is_empty()
}
