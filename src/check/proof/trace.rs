//! One key followed through rules, as far as patterns alone can tell: captures that an op makes
//! stand at 0, conditions hold.

use super::super::keys::Keys;
use super::super::rules::pattern_of;
use super::super::rules::{Rule, Side};
use crate::key::{Binding, Bindings, Part, Pattern, Segments, Slot};

fn split(key: &str) -> Segments {
    let mut segments = Segments::default();
    segments.split(key);
    segments
}

pub(super) fn fits(pattern: &Pattern, key: &str) -> bool {
    pattern.matches(key, &split(key), &mut Bindings::new(pattern.slots().len()))
}

/// Whether exceptions take a key, ranges left aside.
fn matches_any(exceptions: &[Keys], key: &str) -> bool {
    exceptions.iter().any(|keys| fits(keys.without_ranges(), key))
}

/// The first side that matches a key, with its captures; captures that only the other side has
/// stand at 0.
fn bound(rule: &Rule, sides: &[Side], key: &str) -> Option<Bindings> {
    let segments = split(key);
    sides.iter().filter_map(pattern_of).find_map(|pattern| {
        let mut bindings = Bindings::new(rule.captures.len());
        pattern.matches(key, &segments, &mut bindings).then(|| {
            for slot in (0u16..).take(rule.captures.len()).map(Slot) {
                if *bindings.get(slot) == Binding::Unbound {
                    bindings.set(slot, rule.captures[usize::from(slot.0)].zero());
                }
            }
            bindings
        })
    })
}

fn render(sides: &[Side], key: &str, bindings: &Bindings) -> Option<String> {
    sides.iter().find_map(pattern_of)?.render(key, bindings)
}

/// What a rule makes of a key, if it takes it.
pub(super) fn forward(rule: &Rule, key: &str) -> Option<String> {
    let bindings = bound(rule, &rule.left, key)?;
    let target = render(&rule.right, key, &bindings)?;
    (target != key
        && !matches_any(&rule.unless_left, key)
        && !matches_any(&rule.unless_right, &target))
    .then_some(target)
}

/// What a two-way rule, read backwards, makes of a key.
pub(super) fn backward(rule: &Rule, key: &str) -> Option<String> {
    let bindings = bound(rule, &rule.right, key)?;
    let source = render(&rule.left, key, &bindings)?;
    (source != key
        && !matches_any(&rule.unless_right, key)
        && !matches_any(&rule.unless_left, &source))
    .then_some(source)
}

/// What a `**` at the front of a rule's source takes of a key.
pub(super) fn leading(rule: &Rule, key: &str) -> Option<String> {
    let bindings = bound(rule, &rule.left, key)?;
    match rule.left.iter().filter_map(pattern_of).next()?.parts().first()? {
        Part::Rest(slot) => bindings.text(*slot, key).map(str::to_owned),
        _ => None,
    }
}

/// Whether a key fits a target of a rule, so that it may be a result already.
pub(super) fn looks_like_result(rule: &Rule, key: &str) -> bool {
    bound(rule, &rule.right, key).is_some()
}

/// What a rule makes of a key, if it takes it; a `map` may take a key and give it again.
pub(super) fn takes(rule: &Rule, key: &str) -> Option<String> {
    let bindings = bound(rule, &rule.left, key)?;
    let target = render(&rule.right, key, &bindings)?;
    let changed = target != key || !rule.is_rename();
    (changed && !matches_any(&rule.unless_left, key) && !matches_any(&rule.unless_right, &target))
        .then_some(target)
}

/// What the captures of text and of segments hold where a rule takes a key.
pub(super) fn captured(rule: &Rule, key: &str) -> Vec<String> {
    let Some(bindings) = bound(rule, &rule.left, key) else { return Vec::new() };
    (0u16..)
        .take(rule.captures.len())
        .filter_map(|slot| bindings.text(Slot(slot), key).map(str::to_owned))
        .collect()
}
