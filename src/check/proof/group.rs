//! [`Group`]: the rules of one statement, found by the key that they take or give.

use std::collections::HashSet;

use super::super::keys::Keys;
use super::super::rules::{Rule, Side};
use super::effort::{Effort, weight_of};
use super::trace::{fits, forward, leading, looks_like_result};
use crate::key::{Atom, Part, Pattern, PatternSet, Segments};

/// Patterns of some rules, and whose each is.
pub(super) struct Owned {
    owners: Vec<usize>,
    set: PatternSet,
}

impl Owned {
    pub(super) fn new<'r>(sides: impl Iterator<Item = (usize, &'r [Side])>) -> Self {
        let patterns: Vec<(usize, &Pattern)> = sides
            .flat_map(|(at, sides)| {
                sides.iter().filter_map(Side::pattern).map(move |pattern| (at, pattern))
            })
            .collect();
        let set = PatternSet::new(patterns.iter().map(|(_, pattern)| *pattern));
        Self { owners: patterns.into_iter().map(|(at, _)| at).collect(), set }
    }

    /// The rules that may fit a key, in order.
    pub(super) fn of(&self, key: &str) -> Vec<usize> {
        let (mut segments, mut found) = (Segments::default(), Vec::new());
        segments.split(key);
        self.set.candidates(key, &segments, &mut found);
        let mut owners: Vec<usize> = found
            .into_iter()
            .filter_map(|number| self.owners.get(number as usize).copied())
            .collect();
        owners.dedup();
        owners
    }
}

/// What it costs to follow a key through a rule.
pub(super) fn weight_of_rule(rule: &Rule) -> usize {
    let sides = rule.left.iter().chain(&rule.right).filter_map(Side::pattern);
    let unless = rule.unless_left.iter().chain(&rule.unless_right).map(Keys::without_ranges);
    1 + sides.chain(unless).map(weight_of).sum::<usize>()
}

/// The rules of a statement.
pub(super) struct Group<'r> {
    pub(super) rules: &'r [Rule],
    sources: Owned,
    targets: Owned,
    /// The literal segments of all patterns.
    names: HashSet<&'r str>,
    weights: Vec<usize>,
    pub(super) effort: &'r Effort,
}

impl<'r> Group<'r> {
    pub(super) fn new(rules: &'r [Rule], effort: &'r Effort) -> Self {
        let sides = || {
            rules
                .iter()
                .flat_map(|rule| rule.left.iter().chain(&rule.right))
                .filter_map(Side::pattern)
        };
        Self {
            rules,
            sources: Owned::new(rules.iter().enumerate().map(|(at, rule)| (at, &rule.left[..]))),
            targets: Owned::new(rules.iter().enumerate().map(|(at, rule)| (at, &rule.right[..]))),
            names: sides().flat_map(Pattern::literals).collect(),
            weights: rules.iter().map(weight_of_rule).collect(),
            effort,
        }
    }

    /// What it costs to follow a key through a rule.
    pub(super) fn weight(&self, at: usize) -> usize {
        self.weights[at]
    }

    /// The first rule before this one that takes a key, and what it makes of it.
    pub(super) fn taker_before(&self, end: usize, key: &str) -> Option<(usize, String)> {
        let before = self.sources.of(key).into_iter().take_while(|at| *at < end);
        before
            .take_while(|at| self.effort.spend(self.weights[*at]))
            .find_map(|at| Some((at, forward(&self.rules[at], key)?)))
    }

    /// The first rule that takes a key, and what it makes of it.
    pub(super) fn taker(&self, key: &str) -> Option<(usize, String)> {
        self.taker_before(self.rules.len(), key)
    }

    /// Whether a key fits a target of a rule, so that it may be a result already.
    pub(super) fn looks_like_result(&self, key: &str) -> bool {
        self.targets.of(key).into_iter().any(|at| {
            !self.effort.spend(self.weights[at]) || looks_like_result(&self.rules[at], key)
        })
    }

    /// Whether what a leading `**` takes of a key has none of the names that the rules speak of. It
    /// stands for the place of a subtree; keys in which that place looks like the subtree itself
    /// are not held against the rules: the plan looks at those that there are.
    pub(super) fn plain_place(&self, rule: &Rule, key: &str) -> bool {
        leading(rule, key)
            .is_none_or(|place| !place.split('.').any(|segment| self.names.contains(segment)))
    }

    /// Whether one look is enough to see that a source has a key that no rule before this one fits:
    /// the plainest key, with a word of its own for each capture.
    pub(super) fn leaves(&self, at: usize, source: &Pattern) -> bool {
        let segments = source.parts().iter().filter_map(|part| match part {
            Part::Literal(text) => Some(text.to_string()),
            Part::Rest(_) => None,
            Part::Segment(atoms) => Some(atoms.iter().map(plainest).collect()),
        });
        let key = segments.collect::<Vec<String>>().join(".");
        let unless = &self.rules[at].unless_left;
        if !self.effort.spend(self.weights[at])
            || !fits(source, &key)
            || unless.iter().any(|keys| fits(keys.without_ranges(), &key))
        {
            return false;
        }
        let fitting = |rule: &Rule| {
            rule.left.iter().filter_map(Side::pattern).any(|pattern| fits(pattern, &key))
        };
        let mut before = self.sources.of(&key).into_iter().take_while(|earlier| *earlier < at);
        before.all(|earlier| {
            self.effort.spend(self.weights[earlier]) && !fitting(&self.rules[earlier])
        })
    }
}

fn plainest(atom: &Atom) -> String {
    match atom {
        Atom::Text(text) => text.to_string(),
        Atom::Index { mul, add, .. } => mul.saturating_mul(7919).saturating_add(*add).to_string(),
        Atom::Calculated { .. } => "7919".to_owned(),
        Atom::Chars(_) => "x_y_z".to_owned(),
        Atom::Words { words, .. } => words.first().map(ToString::to_string).unwrap_or_default(),
    }
}
