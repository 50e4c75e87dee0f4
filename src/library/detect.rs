//! Which rule file and layout explain a checkpoint's keys best.
//!
//! Keys that differ only in their indices count as one while they are matched, so that 90,000 keys cost what a few hundred do. A match
//! weighs what its names tell: a name that many rule files speak of, like `model`, tells little. And a file whose rules mostly find
//! nothing is less likely than one whose rules all do.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use serde::Serialize;

use super::{names, rules};
use crate::check::{Rules, SideItem, Step, StepKind};
use crate::config::Config;
use crate::key::{Bindings, Part, Pattern, PatternSet, Segments};
use crate::tensor::Header;

/// How well a rule file explains a checkpoint in one of its layouts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Detection {
    /// The rule file.
    pub rules: String,
    /// The layout that the checkpoint would be in.
    pub layout: String,
    /// The layout that the rules lead to from there.
    pub leads_to: String,
    /// Keys that a rewrite of the file takes when it is read from that layout.
    pub explained: u64,
    /// Keys that look like results of such a rewrite already.
    pub against: u64,
    /// Keys in all.
    pub keys: u64,
    /// Whether config.json asks for this rule file.
    pub by_config: bool,
    /// How telling the matches are, less those against: what decides the order.
    pub score: f64,
}

/// Every embedded rule file and layout that explains a key, the best first: those that config.json asks for, then by score.
pub fn detect(header: &Header, config: &Config) -> Vec<Detection> {
    let kinds = kinds(header);
    let asked: Vec<&str> = super::candidates(config).into_iter().map(|rules| rules.source.name.as_str()).collect();
    let files: Vec<(&str, &Rules)> = names().filter_map(|name| Some((name, rules(name)?))).collect();
    let sides: Vec<[Sides<'_>; 2]> = files.iter().map(|(_, rules)| [sides(rules, true), sides(rules, false)]).collect();
    let telling = Telling::new(&sides);
    let mut found = Vec::new();
    for ((name, rules), sides) in files.iter().zip(&sides) {
        let Some((left, right)) = &rules.layouts else { continue };
        let [as_left, as_right] = [sides[0].explain(&kinds, &telling), sides[1].explain(&kinds, &telling)];
        for (layout, leads_to, own, other) in [(left, right, &as_left, &as_right), (right, left, &as_right, &as_left)] {
            if own.keys > 0 {
                found.push(Detection {
                    rules: (*name).to_owned(),
                    layout: layout.clone(),
                    leads_to: leads_to.clone(),
                    explained: own.keys,
                    against: other.keys,
                    keys: header.tensors.len() as u64,
                    by_config: asked.contains(name),
                    score: own.score(header) - other.score(header),
                });
            }
        }
    }
    let first = |one: &Detection| one.by_config && one.score > 0.0;
    found.sort_by(|a, b| {
        let order = first(b).cmp(&first(a)).then_with(|| b.score.total_cmp(&a.score));
        order.then_with(|| a.rules.len().cmp(&b.rules.len())).then_with(|| a.rules.cmp(&b.rules))
    });
    found
}

/// How much the names of a pattern tell: the fewer rule files speak of a name, the more.
struct Telling(HashMap<Box<str>, f64>);

impl Telling {
    #[allow(clippy::cast_precision_loss)]
    fn new(files: &[[Sides<'_>; 2]]) -> Self {
        let mut spoken: HashMap<&str, usize> = HashMap::new();
        for sides in files {
            let words: HashSet<&str> = sides.iter().flat_map(|side| &side.patterns).flat_map(|pattern| literals(pattern)).collect();
            // The order of a set doesn't show in counts.
            #[allow(clippy::iter_over_hash_type)]
            for word in words {
                *spoken.entry(word).or_default() += 1;
            }
        }
        Self(spoken.into_iter().map(|(word, count)| (word.into(), (files.len() as f64 / count as f64).ln())).collect())
    }

    fn of(&self, pattern: &Pattern) -> f64 {
        literals(pattern).filter_map(|word| self.0.get(word)).sum()
    }
}

fn literals(pattern: &Pattern) -> impl Iterator<Item = &str> {
    pattern.parts().iter().filter_map(|part| match part {
        Part::Literal(text) => Some(&**text),
        _ => None,
    })
}

/// How a side of a file's rewrites explains keys.
struct Explained {
    keys: u64,
    /// How telling the patterns are that found a key, in all.
    weight: f64,
    /// Which part of the patterns found a key.
    matching: f64,
}

impl Explained {
    #[allow(clippy::cast_precision_loss)]
    fn score(&self, header: &Header) -> f64 {
        self.weight * self.matching * self.keys as f64 / header.tensors.len().max(1) as f64
    }
}

/// One key of each kind, and how many there are of it.
fn kinds(header: &Header) -> Vec<(&str, u64)> {
    let mut kinds: IndexMap<String, (&str, u64)> = IndexMap::new();
    for key in header.tensors.keys() {
        let shape: Vec<&str> =
            key.segments().map(|segment| if segment.bytes().all(|byte| byte.is_ascii_digit()) { "0" } else { segment }).collect();
        kinds.entry(shape.join(".")).or_insert((key, 0)).1 += 1;
    }
    kinds.into_values().collect()
}

/// The patterns of one side of all rewrites of a file.
struct Sides<'r> {
    patterns: Vec<&'r Pattern>,
    set: PatternSet,
}

fn sides(rules: &Rules, left: bool) -> Sides<'_> {
    let mut patterns = Vec::new();
    collect(&rules.steps, left, &mut patterns);
    Sides { set: PatternSet::new(patterns.iter().copied()), patterns }
}

fn collect<'r>(steps: &'r [Step], left: bool, patterns: &mut Vec<&'r Pattern>) {
    for step in steps {
        match &step.kind {
            StepKind::Rewrite(rules) => {
                let sides = rules.iter().flat_map(|rule| if left { &rule.left } else { &rule.right });
                patterns.extend(sides.filter_map(|side| match &side.item {
                    // A pattern without a name of its own speaks for every layout.
                    SideItem::Pattern(pattern) if pattern.literals().next().is_some() => Some(pattern),
                    _ => None,
                }));
            }
            StepKind::Reversed(inner) => collect(inner, !left, patterns),
            StepKind::When { then, otherwise, .. } => {
                collect(then, left, patterns);
                collect(otherwise, left, patterns);
            }
            _ => {}
        }
    }
}

impl Sides<'_> {
    #[allow(clippy::cast_precision_loss)]
    fn explain(&self, kinds: &[(&str, u64)], telling: &Telling) -> Explained {
        let mut segments = Segments::default();
        let mut candidates = Vec::new();
        let mut found = vec![false; self.patterns.len()];
        let mut keys = 0;
        for (key, count) in kinds {
            segments.split(key);
            self.set.candidates(key, &segments, &mut candidates);
            let mut explained = false;
            for number in &candidates {
                let pattern = self.patterns[*number as usize];
                let slots = pattern.slots().last().map_or(0, |slot| usize::from(slot.0) + 1);
                if pattern.matches(key, &segments, &mut Bindings::new(slots)) {
                    found[*number as usize] = true;
                    explained = true;
                }
            }
            keys += if explained { *count } else { 0 };
        }
        let weight = self.patterns.iter().zip(&found).filter(|(_, found)| **found).map(|(pattern, _)| telling.of(pattern)).sum();
        let matching = found.iter().filter(|found| **found).count() as f64 / found.len().max(1) as f64;
        Explained { keys, weight, matching }
    }
}

/// A layout of an embedded file that half of the keys are in, and more than in the one it leads to: none that models share, such as `hub`.
pub(super) fn foreign(header: &Header) -> Option<(&'static str, &'static str, &'static str)> {
    let kinds = kinds(header);
    let telling = Telling(HashMap::new());
    names().filter(|name| super::text(name).is_some_and(has_another_layout)).find_map(|name| {
        let rules = rules(name)?;
        let (left, right) = rules.layouts.as_ref()?;
        let [as_left, as_right] = [true, false].map(|left| sides(rules, left).explain(&kinds, &telling).keys);
        [(left, right, as_left, as_right), (right, left, as_right, as_left)].into_iter().find_map(|(layout, leads_to, own, other)| {
            let is_it = !SHARED.contains(&layout.as_str()) && own > other && own * 2 >= header.tensors.len() as u64;
            is_it.then_some((name, layout.as_str(), leads_to.as_str()))
        })
    })
}

/// Layouts that say nothing of who made a checkpoint.
const SHARED: [&str; 2] = [super::HUB, super::MODEL];

/// Whether a rule file names a layout of its own: a look at its text, before it is checked.
fn has_another_layout(text: &str) -> bool {
    let header = text.lines().find_map(|line| line.strip_prefix("ruleset ")?.split_once(':'));
    header.is_some_and(|(_, layouts)| layouts.split_whitespace().any(|word| !word.contains('-') && !SHARED.contains(&word)))
}
