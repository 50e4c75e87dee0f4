//! One key followed through rules, as far as patterns alone can tell: captures that an op makes
//! stand at 0, conditions hold, ranges are open.

use super::super::reading::ReadRule;
use super::super::rules::{Direction, Rule, Side};
use super::super::takes::{Named, Takes};
use crate::key::{Bindings, Part, Pattern, Segments, Slot};

fn split(key: &str) -> Segments {
    let mut segments = Segments::default();
    segments.split(key);
    segments
}

pub(super) fn fits(pattern: &Pattern, key: &str) -> bool {
    pattern.matches(key, &split(key), &mut Bindings::new(pattern.slots().len()))
}

/// What a rule, read in a direction, makes of a key, if it takes it.
fn made(rule: &Rule, direction: Direction, key: &str) -> Option<String> {
    let (names, segments) = (Takes::loosely(ReadRule { rule, direction }), split(key));
    let mut bindings = Bindings::default();
    let by_pattern = |at: &usize| names.sources[*at].pattern().is_some();
    (0..names.sources.len())
        .filter(by_pattern)
        .find(|source| names.fits(*source, key, &segments, &mut bindings))?;
    rule.bind_rest(&mut bindings);
    names.targets.iter().find_map(Named::pattern)?.render(key, &bindings)
}

/// What a rule makes of a key, if it takes it and gives another.
pub(super) fn forward(rule: &Rule, key: &str) -> Option<String> {
    made(rule, Direction::Forward, key).filter(|target| target != key)
}

/// What a two-way rule, read backwards, makes of a key, if it takes it and gives another.
pub(super) fn backward(rule: &Rule, key: &str) -> Option<String> {
    made(rule, Direction::Reverse, key).filter(|source| source != key)
}

/// What a rule makes of a key, if it takes it; a `map` may take a key and give it again.
pub(super) fn takes(rule: &Rule, key: &str) -> Option<String> {
    made(rule, Direction::Forward, key).filter(|target| target != key || !rule.is_rename())
}

/// Whether a key fits a target of a rule, so that it may be a result already.
pub(super) fn looks_like_result(rule: &Rule, key: &str) -> bool {
    Takes::loosely(ReadRule { rule, direction: Direction::Forward }).gives(key, &split(key))
}

/// What the first source that fits captures of a key.
fn bound(rule: &Rule, key: &str) -> Option<Bindings> {
    let segments = split(key);
    rule.left.iter().filter_map(Side::pattern).find_map(|pattern| {
        let mut bindings = Bindings::new(rule.captures.len());
        pattern.matches(key, &segments, &mut bindings).then(|| {
            rule.bind_rest(&mut bindings);
            bindings
        })
    })
}

/// What a `**` at the front of a rule's source takes of a key.
pub(super) fn leading(rule: &Rule, key: &str) -> Option<String> {
    let bindings = bound(rule, key)?;
    match rule.left.iter().filter_map(Side::pattern).next()?.parts().first()? {
        Part::Rest(slot) => bindings.text(*slot, key).map(str::to_owned),
        _ => None,
    }
}

/// What the captures of text and of segments hold where a rule takes a key.
pub(super) fn captured(rule: &Rule, key: &str) -> Vec<String> {
    let Some(bindings) = bound(rule, key) else { return Vec::new() };
    (0u16..)
        .take(rule.captures.len())
        .filter_map(|slot| bindings.text(Slot(slot), key).map(str::to_owned))
        .collect()
}
