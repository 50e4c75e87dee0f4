//! [`PatternSet`]: many patterns, one pass over the keys.
//!
//! Each pattern is found by its most telling part: the whole key if it is a literal, else a literal
//! segment; only patterns without any literal segment are tried on every key. Candidates come in
//! the order of the patterns, so that the first that matches wins.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::pattern::{Pattern, Segments};

/// Segments that most keys have.
const USUAL: [&str; 5] = ["weight", "bias", "model", "layers", "layer"];

/// An index over patterns that gives, for a key, those that can match it.
#[derive(Clone, Debug, Default)]
pub struct PatternSet {
    literals: HashMap<Box<str>, Vec<u32>, foldhash::fast::RandomState>,
    anchors: HashMap<Box<str>, Vec<u32>, foldhash::fast::RandomState>,
    always: Vec<u32>,
}

impl PatternSet {
    /// Sorts each pattern into a match strategy. Patterns are known by their position.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a Pattern>) -> Self {
        let patterns: Vec<&Pattern> = patterns.into_iter().collect();
        let mut uses: HashMap<&str, usize> = HashMap::new();
        for literal in patterns.iter().flat_map(|pattern| pattern.literals()) {
            *uses.entry(literal).or_default() += 1;
        }
        // The literal that the fewest patterns have tells most of them apart; of equal ones a long
        // one, as few keys have that.
        let telling = |literal: &&str| {
            (
                Reverse(uses.get(literal).copied().unwrap_or(0)),
                !USUAL.contains(literal),
                literal.len(),
            )
        };
        let mut set = Self::default();
        for (number, pattern) in (0u32..).zip(&patterns) {
            if let Some(literal) = pattern.literal() {
                set.literals.entry(literal.into()).or_default().push(number);
            } else if let Some(anchor) = pattern.literals().max_by_key(telling) {
                set.anchors.entry(anchor.into()).or_default().push(number);
            } else {
                set.always.push(number);
            }
        }
        set
    }

    /// Writes the patterns that can match a key to `candidates`, in order.
    pub fn candidates(&self, key: &str, segments: &Segments, candidates: &mut Vec<u32>) {
        candidates.clear();
        candidates.extend_from_slice(&self.always);
        if !self.literals.is_empty()
            && let Some(found) = self.literals.get(key)
        {
            candidates.extend_from_slice(found);
        }
        if !self.anchors.is_empty() {
            for at in 0..segments.len() {
                if let Some(found) = self.anchors.get(segments.get(key, at)) {
                    candidates.extend_from_slice(found);
                }
            }
        }
        if candidates.len() > 1 {
            candidates.sort_unstable();
            candidates.dedup();
        }
    }
}
