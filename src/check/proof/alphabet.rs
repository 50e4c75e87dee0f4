//! Segments that stand for all segments: one for each way in which the patterns at hand can tell
//! segments apart.
//!
//! Literals and words stand for themselves; numbers and free text are represented by examples. The
//! alphabet is complete where free text is told apart in at most two ways; else it is an
//! approximation, and says so.

use std::collections::HashSet;

use super::effort::{Effort, weight};
use crate::key::{Atom, Number, Part, Pattern};

/// Representative segments.
pub(super) struct Alphabet {
    symbols: Vec<String>,
    /// Whether nothing was left out.
    pub(super) complete: bool,
    /// Whether all symbols fit.
    whole: bool,
}

/// Numbers that are tried as examples.
const NUMBERS: &[u64] =
    &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 31, 32, 63, 64, 100, 127, 128, 1000];

/// Examples of one segment.
const EXAMPLES: usize = 256;

/// The largest alphabet.
pub(super) const MAX_SYMBOLS: usize = 96;

impl Alphabet {
    /// An alphabet for these patterns.
    pub(super) fn new(patterns: &[&Pattern], effort: &Effort) -> Self {
        let mut parts: Vec<&Part> = Vec::new();
        let mut known: HashSet<&Part> = HashSet::new();
        for part in patterns.iter().flat_map(|pattern| pattern.parts()) {
            if !matches!(part, Part::Rest(_)) && known.insert(part) {
                parts.push(part);
            }
        }
        let mut pool: Vec<String> = Vec::new();
        let mut free = 0;
        let mut whole = true;
        for part in &parts {
            match part {
                Part::Literal(text) => pool.push(text.to_string()),
                Part::Segment(atoms) => {
                    free += usize::from(atoms.iter().any(|atom| matches!(atom, Atom::Chars(_))));
                    let (found, all) = examples(atoms);
                    pool.extend(found);
                    whole &= all;
                }
                Part::Rest(_) => {}
            }
        }
        // A segment that no pattern names.
        let fresh = ["x", "y", "z", "other", "other_"]
            .into_iter()
            .find(|word| !pool.iter().any(|known| known == word));
        pool.extend(fresh.map(str::to_owned));
        let cost: usize = parts.iter().map(|part| weight(part)).sum();
        let mut known: HashSet<Vec<bool>> = HashSet::new();
        let mut symbols = Vec::new();
        let mut seen = HashSet::new();
        for word in pool {
            if !seen.insert(word.clone()) {
                continue;
            }
            if symbols.len() > MAX_SYMBOLS || !effort.spend(cost) {
                whole = false;
                break;
            }
            let signature: Vec<bool> = parts.iter().map(|part| part.fits(&word)).collect();
            if known.insert(signature) {
                symbols.push(word);
            }
        }
        whole &= symbols.len() <= MAX_SYMBOLS;
        let complete = free <= 2 && whole && !parts.iter().any(|part| part.is_wide());
        symbols.truncate(MAX_SYMBOLS);
        Self { symbols, complete, whole }
    }

    /// Whether these patterns can't tell segments apart in a way that no symbol shows: at most one
    /// of their parts has text around a capture of text, and numbers are calculated with in one way
    /// at most.
    pub(super) fn is_exact(&self, patterns: &[&Pattern]) -> bool {
        let mut around: Vec<&Part> = Vec::new();
        let mut factors: Vec<(i64, i64)> = Vec::new();
        for part in patterns.iter().flat_map(|pattern| pattern.parts()) {
            let Part::Segment(atoms) = part else { continue };
            if part.is_wide() {
                return false;
            }
            if atoms.len() > 1
                && atoms.iter().any(|atom| matches!(atom, Atom::Chars(_)))
                && !around.contains(&part)
            {
                around.push(part);
            }
            for atom in atoms.iter() {
                if matches!(atom, Atom::Calculated { number: Number::Sum(_), .. }) {
                    return false;
                }
                if let Atom::Index { mul, add, .. } = atom
                    && (*mul, *add) != (1, 0)
                    && !factors.contains(&(*mul, *add))
                {
                    factors.push((*mul, *add));
                }
            }
        }
        let small =
            factors.iter().all(|(mul, add)| (1..=8).contains(mul) && (-8..=8).contains(add));
        self.whole
            && around.len() <= 1
            && small
            && factors.iter().filter(|(mul, _)| *mul > 1).count() <= 1
    }

    /// The segments.
    pub(super) fn symbols(&self) -> &[String] {
        &self.symbols
    }
}

/// Whether a fixed part accepts a segment.
pub(super) fn accepts(part: &Part, segment: &str) -> bool {
    part.fits(segment)
}

/// Segments that atoms match, to tell them from others, and whether all words are among them.
fn examples(atoms: &[Atom]) -> (Vec<String>, bool) {
    let mut all = true;
    let mut found = vec![String::new()];
    for atom in atoms {
        let choices: Vec<String> = match atom {
            Atom::Text(text) => vec![text.to_string()],
            Atom::Index { mul, add, range, .. } => {
                let ends = range
                    .iter()
                    .flat_map(|range| [range.start, range.end.saturating_sub(1), range.end]);
                let numbers = NUMBERS.iter().copied().chain(ends);
                numbers
                    .filter_map(|n| i64::try_from(n).ok()?.checked_mul(*mul)?.checked_add(*add))
                    .filter(|number| *number >= 0)
                    .map(|number| number.to_string())
                    .collect()
            }
            Atom::Calculated { number, .. } => {
                let sum = match number {
                    Number::Sum(sum) => sum.examples(NUMBERS, EXAMPLES),
                    Number::Calculation(_) | Number::Unknown => Vec::new(),
                };
                let numbers = NUMBERS.iter().map(u64::to_string);
                numbers.chain(sum.into_iter().map(|number| number.to_string())).collect()
            }
            Atom::Chars(_) => ["x", "0", "x_y", "z9"].map(str::to_owned).to_vec(),
            Atom::Words { words, .. } => {
                all &= found.len().saturating_mul(words.len()) <= EXAMPLES;
                words.iter().take(EXAMPLES).map(|word| word.to_string()).collect()
            }
        };
        found = found
            .iter()
            .flat_map(|start| choices.iter().map(move |choice| format!("{start}{choice}")))
            .take(EXAMPLES)
            .collect();
    }
    (found, all)
}
