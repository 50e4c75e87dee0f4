//! Which rule file and layout explain a checkpoint's keys best.
//!
//! Keys that differ only in their indices count as one while they are followed, so that 90,000 keys
//! cost what a few hundred do. They go through the rewrites of each file in order, as a plan would
//! take them. What is weighed are the words that were met on the way: a word that many rule files
//! speak of, like `model`, tells little, and one that nearly all do tells nothing. A file most of
//! whose words are nowhere to be seen is less likely than one whose words all are. A file that
//! looks as if it had been applied already, for some of the keys, comes after those for which
//! nothing does.

use std::collections::{HashMap, HashSet};

use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use super::{ALWAYS_FIRST, names, rules};
use crate::check::reading::{Act, ReadRule, Reading, Rewrite};
use crate::check::{Direction, Keys, Rules, Side, SideItem};
use crate::config::Config;
use crate::key::{Atom, Binding, Bindings, Part, Pattern, PatternSet, Segments};
use crate::syntax::ast::Arrow;
use crate::tensor::Header;

/// Names that models of all families share, though few rule files speak of them: they tell little,
/// however rare they are in the library.
const USUAL: [&str; 29] = [
    "weight",
    "bias",
    "model",
    "layers",
    "layer",
    "norm",
    "embed_tokens",
    "lm_head",
    "self_attn",
    "attention",
    "mlp",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "out_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
    "fc1",
    "fc2",
    "input_layernorm",
    "post_attention_layernorm",
    "encoder",
    "decoder",
    "embeddings",
    "output",
    "dense",
    "head",
];
/// What such a name tells, beside one that only one family has.
const LITTLE: f64 = 0.1;
/// Below this share of a file's words, by what they tell, it explains nothing.
const LEAST: f64 = 0.2;

/// Rule files whose strips are looked through: names that no model gives a module of its own.
const WRAPPERS: [&str; 2] = [ALWAYS_FIRST, "peft"];

/// How well a rule file explains a checkpoint in one of its layouts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Detection {
    /// The rule file.
    pub rules: String,
    /// The layout that the checkpoint would be in.
    pub layout: String,
    /// The layout that the rules lead to from there.
    pub leads_to: String,
    /// Keys that the file speaks of when it is read from that layout: its rewrites, its ties, its
    /// examples.
    pub explained: u64,
    /// Keys that look like results of such a rewrite already.
    pub against: u64,
    /// Keys in all.
    pub keys: u64,
    /// Whether config.json asks for this rule file.
    pub by_config: bool,
    /// How telling the words are that were met: what decides the order, where nothing speaks
    /// against a file.
    pub score: f64,
    /// Wrappers around the keys that were looked through.
    pub wrappers: Vec<Wrapper>,
}

/// A wrapper around keys, as `strip` takes it off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Wrapper {
    /// Its segments.
    pub name: String,
    /// How many keys have it.
    pub keys: u64,
}

/// Every embedded rule file and layout that explains keys, the best first: those that config.json
/// asks for, then those that nothing speaks against, by score.
pub fn detect(header: &Header, config: &Config) -> Vec<Detection> {
    let (keys, wrappers) = unwrapped(header);
    let kinds = kinds(&keys);
    let asked: Vec<&str> =
        super::candidates(config).into_iter().map(|rules| rules.source.name.as_str()).collect();
    // Files of ranks hold a model of which another file speaks, in names that are those again.
    let files: Vec<(&str, &Rules)> = names()
        .filter_map(|name| Some((name, rules(name)?)))
        .filter(|(_, rules)| rules.shards.is_none())
        .collect();
    let telling = Telling::new(&files);
    let mut found = Vec::new();
    for (name, rules) in files {
        let Some((left, right)) = &rules.layouts else { continue };
        // A file that no model has is a part of others, which speak for themselves.
        if rules.models.is_empty() && !asked.contains(&name) {
            continue;
        }
        let [as_left, as_right] =
            [true, false].map(|left| Vocabulary::new(rules, left).explain(&kinds, &telling));
        for (layout, leads_to, own, other) in
            [(left, right, &as_left, &as_right), (right, left, &as_right, &as_left)]
        {
            let by_config = asked.contains(&name);
            if own.keys > 0 && own.weight > 0.0 && (own.share >= LEAST || by_config) {
                found.push(Detection {
                    rules: name.to_owned(),
                    layout: layout.clone(),
                    leads_to: leads_to.clone(),
                    explained: own.keys,
                    against: other.taken,
                    keys: keys.len() as u64,
                    by_config,
                    score: own.weight * own.share,
                    wrappers: wrappers.clone(),
                });
            }
        }
    }
    found.sort_by(|a, b| {
        let order =
            b.by_config.cmp(&a.by_config).then_with(|| (a.against > 0).cmp(&(b.against > 0)));
        let order = order
            .then_with(|| b.score.total_cmp(&a.score))
            .then_with(|| b.explained.cmp(&a.explained));
        order.then_with(|| a.rules.len().cmp(&b.rules.len())).then_with(|| a.rules.cmp(&b.rules))
    });
    found
}

/// The keys without wrappers, and which there were.
fn unwrapped(header: &Header) -> (Vec<String>, Vec<Wrapper>) {
    let mut keys: Vec<String> = header.tensors.keys().map(|key| key.as_str().to_owned()).collect();
    let mut found: IndexMap<String, u64> = IndexMap::new();
    let files = WRAPPERS.iter().filter_map(|name| rules(name));
    let statements = files.flat_map(|rules| Reading::of(rules, Direction::Forward).statements());
    for statement in statements {
        match statement.act {
            Act::StripAnywhere { wrappers } => {
                let single: Vec<&str> = wrappers
                    .iter()
                    .filter_map(
                        |wrapper| if let [one] = &wrapper[..] { Some(one.as_str()) } else { None },
                    )
                    .collect();
                for key in &mut keys {
                    let here: IndexSet<&str> =
                        key.split('.').filter(|segment| single.contains(segment)).collect();
                    if here.is_empty() {
                        continue;
                    }
                    let rest: Vec<&str> =
                        key.split('.').filter(|segment| !single.contains(segment)).collect();
                    if rest.is_empty() {
                        continue;
                    }
                    for wrapper in here {
                        *found.entry(wrapper.to_owned()).or_default() += 1;
                    }
                    *key = rest.join(".");
                }
            }
            Act::StripLeading { wrappers, if_wanted: false } => {
                for wrapper in wrappers.iter().map(|wrapper| wrapper.join(".")) {
                    let without = |key: &String| {
                        Some(key.strip_prefix(&wrapper)?.strip_prefix('.')?.to_owned())
                    };
                    let Some(shorter) = keys
                        .iter()
                        .map(without)
                        .collect::<Option<Vec<String>>>()
                        .filter(|keys| !keys.is_empty())
                    else {
                        continue;
                    };
                    found.insert(wrapper, keys.len() as u64);
                    keys = shorter;
                }
            }
            Act::StripLeading { .. }
            | Act::Rewrite(_)
            | Act::Whole { .. }
            | Act::Prefix(_)
            | Act::Drop(_)
            | Act::Keep(_)
            | Act::Cast { .. }
            | Act::Tie(_)
            | Act::Create { .. }
            | Act::Expect { .. }
            | Act::When { .. } => {}
        }
    }
    (keys, found.into_iter().map(|(name, keys)| Wrapper { name, keys }).collect())
}

/// The literal segments of a pattern, and the words that it chooses from.
fn words(pattern: &Pattern) -> impl Iterator<Item = &str> {
    pattern.parts().iter().flat_map(|part| -> Vec<&str> {
        match part {
            Part::Literal(text) => vec![text],
            Part::Segment(atoms) => match &atoms[..] {
                [Atom::Words { words, .. }] => words.iter().map(|word| &**word).collect(),
                _ => Vec::new(),
            },
            Part::Rest(_) => Vec::new(),
        }
    })
}

/// The words of a pattern that a match of it met.
fn met<'p>(pattern: &'p Pattern, bindings: &Bindings) -> Vec<&'p str> {
    let of_part = |part: &'p Part| match part {
        Part::Literal(text) => Some(&**text),
        Part::Segment(atoms) => match &atoms[..] {
            [Atom::Words { slot, words }] => match bindings.get(*slot) {
                Binding::Word(at) => words.get(usize::from(*at)).map(|word| &**word),
                _ => None,
            },
            _ => None,
        },
        Part::Rest(_) => None,
    };
    pattern.parts().iter().filter_map(of_part).collect()
}

fn is_number(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_digit())
}

/// How much a word tells: the fewer rule files speak of it, the more.
struct Telling(HashMap<String, f64>);

impl Telling {
    #[allow(clippy::cast_precision_loss)]
    fn new(files: &[(&str, &Rules)]) -> Self {
        let mut spoken: HashMap<String, usize> = HashMap::new();
        let words_of = |rules: &Rules| -> HashSet<String> {
            let sides = [Vocabulary::new(rules, true), Vocabulary::new(rules, false)];
            sides.iter().flat_map(Vocabulary::words).map(str::to_owned).collect()
        };
        let (publishers, families): (Vec<_>, Vec<_>) =
            files.iter().partition(|(_, rules)| own_layout(rules).is_some());
        // The order of a set doesn't show in counts.
        #[allow(clippy::iter_over_hash_type)]
        for word in families.iter().flat_map(|(_, rules)| words_of(rules)) {
            *spoken.entry(word).or_default() += 1;
        }
        // A publisher's file speaks of its family's words once more, which makes them no commoner.
        let mut new: HashMap<String, usize> = HashMap::new();
        #[allow(clippy::iter_over_hash_type)]
        for word in publishers.iter().flat_map(|(_, rules)| words_of(rules)) {
            if !spoken.contains_key(&word) {
                *new.entry(word).or_default() += 1;
            }
        }
        spoken.extend(new);
        let of = |word: &str, count: usize| {
            (files.len() as f64 / count as f64).ln()
                * if USUAL.contains(&word) { LITTLE } else { 1.0 }
        };
        Self(
            spoken
                .into_iter()
                .map(|(word, count)| (of(&word, count), word))
                .map(|(tells, word)| (word, tells))
                .collect(),
        )
    }

    fn of<'w>(&self, words: impl IntoIterator<Item = &'w str>) -> f64 {
        let distinct: IndexSet<&str> = words.into_iter().collect();
        distinct.iter().filter_map(|word| self.0.get(*word)).sum()
    }
}

/// How a file, read from one of its layouts, explains keys.
struct Explained {
    /// Keys that it speaks of.
    keys: u64,
    /// Of those, keys that a rewrite takes.
    taken: u64,
    /// How telling the words are that were met, in all.
    weight: f64,
    /// Which part that is of what the file's words would tell.
    share: f64,
}

/// One key of each kind, and how many there are of it.
fn kinds(keys: &[String]) -> IndexMap<String, (&str, u64)> {
    let mut kinds: IndexMap<String, (&str, u64)> = IndexMap::new();
    for key in keys {
        kinds.entry(kind(key)).or_insert((key, 0)).1 += 1;
    }
    kinds
}

/// A key with all numbers alike.
fn kind(key: &str) -> String {
    let segments: Vec<&str> =
        key.split('.').map(|segment| if is_number(segment) { "0" } else { segment }).collect();
    segments.join(".")
}

/// The rules of one statement.
struct Group<'r> {
    patterns: Vec<(&'r Pattern, usize)>,
    /// Those of rules that need not find anything.
    optional: Vec<bool>,
    rules: Vec<ReadRule<'r>>,
}

/// What a file speaks of, read from one of its layouts.
#[derive(Default)]
struct Vocabulary<'r> {
    groups: Vec<Group<'r>>,
    /// Patterns of ties.
    ties: Vec<&'r Pattern>,
    examples: Vec<&'r str>,
    prefixes: Vec<&'r [String]>,
}

impl<'r> Vocabulary<'r> {
    fn new(rules: &'r Rules, left: bool) -> Self {
        let mut vocabulary = Self::default();
        let direction = if left { Direction::Forward } else { Direction::Reverse };
        for statement in Reading::of(rules, direction).everywhere() {
            vocabulary.read(statement.act);
        }
        for example in &rules.examples {
            match (left, example.arrow) {
                (true, _) => vocabulary.examples.extend(example.left.iter().map(String::as_str)),
                (false, Arrow::TwoWay) => {
                    vocabulary.examples.extend(example.right.iter().map(String::as_str))
                }
                (false, _) => {}
            }
        }
        vocabulary
    }

    fn read(&mut self, act: Act<'r>) {
        match act {
            Act::Rewrite(rewrite) => self.groups.push(group(rewrite)),
            Act::Tie(tie) => {
                self.ties.extend(tie.targets.iter().chain(&tie.sources).map(Keys::without_ranges))
            }
            Act::Prefix(prefix) => self.prefixes.push(prefix),
            // What takes keys away or shortens them tells of no layout, and neither does what is
            // made; the statements of a `when` come after it.
            Act::StripAnywhere { .. }
            | Act::StripLeading { .. }
            | Act::Whole { .. }
            | Act::Drop(_)
            | Act::Keep(_)
            | Act::Cast { .. }
            | Act::Create { .. }
            | Act::Expect { .. }
            | Act::When { .. } => {}
        }
    }

    /// All words that it speaks of, but for rules that need not find anything.
    fn words(&self) -> impl Iterator<Item = &'r str> {
        let expected = |group: &'_ Group<'r>| -> Vec<&'r Pattern> {
            group
                .patterns
                .iter()
                .zip(&group.optional)
                .filter(|(_, optional)| !**optional)
                .map(|((pattern, _), _)| *pattern)
                .collect()
        };
        let patterns = self.groups.iter().flat_map(expected).chain(self.ties.iter().copied());
        let examples = self.examples.iter().flat_map(|key| key.split('.'));
        let prefixes = self.prefixes.iter().flat_map(|prefix| prefix.iter().map(String::as_str));
        let all = patterns.flat_map(words).chain(examples).chain(prefixes);
        all.filter(|word| !is_number(word))
    }

    fn explain(&self, kinds: &IndexMap<String, (&str, u64)>, telling: &Telling) -> Explained {
        let mut found: IndexSet<&str> = IndexSet::new();
        // Keys as they stand after the statements so far, and whether the file speaks of them, by a
        // rewrite or at all.
        let mut keys: Vec<(String, bool, bool)> =
            kinds.values().map(|(key, _)| ((*key).to_owned(), false, false)).collect();
        let mut segments = Segments::default();
        for example in &self.examples {
            if let Some(at) = kinds.get_index_of(&kind(example)) {
                keys[at].2 = true;
                found.extend(example.split('.'));
            }
        }
        for prefix in &self.prefixes {
            let start = prefix.join(".");
            if kinds
                .values()
                .any(|(key, _)| key.strip_prefix(&start).is_some_and(|rest| rest.starts_with('.')))
            {
                found.extend(prefix.iter().map(String::as_str));
            }
        }
        for pattern in &self.ties {
            for (key, _, spoken) in &mut keys {
                segments.split(key);
                let mut bindings = Bindings::new(room(pattern));
                if pattern.matches(key, &segments, &mut bindings) {
                    *spoken = true;
                    found.extend(met(pattern, &bindings));
                }
            }
        }
        for group in &self.groups {
            group.follow(&mut keys, &mut found);
        }
        let (mut spoken, mut taken) = (0, 0);
        for ((_, is_taken, is_spoken), (_, count)) in keys.iter().zip(kinds.values()) {
            spoken += if *is_taken || *is_spoken { *count } else { 0 };
            taken += if *is_taken { *count } else { 0 };
        }
        found.retain(|word| !is_number(word));
        let weight = telling.of(found.iter().copied());
        let all = telling.of(self.words().chain(found));
        Explained { keys: spoken, taken, weight, share: if all > 0.0 { weight / all } else { 0.0 } }
    }
}

/// Room for what a pattern captures.
fn room(pattern: &Pattern) -> usize {
    pattern.slots().last().map_or(0, |slot| usize::from(slot.0) + 1)
}

fn group(rewrite: Rewrite<'_>) -> Group<'_> {
    let mut group = Group { patterns: Vec::new(), optional: Vec::new(), rules: Vec::new() };
    for read in rewrite.rules() {
        let sources = read.sources().iter().filter_map(pattern_of);
        group.patterns.extend(sources.map(|pattern| (pattern, group.rules.len())));
        group.optional.resize(group.patterns.len(), read.rule.optional);
        group.rules.push(read);
    }
    group
}

fn pattern_of(side: &Side) -> Option<&Pattern> {
    match &side.item {
        SideItem::Pattern(pattern) => Some(pattern),
        _ => None,
    }
}

impl<'r> Group<'r> {
    /// Takes keys through the statement: what a rule takes becomes its first target that can be
    /// named.
    fn follow(&self, keys: &mut [(String, bool, bool)], found: &mut IndexSet<&'r str>) {
        let set = PatternSet::new(self.patterns.iter().map(|(pattern, _)| *pattern));
        let (mut segments, mut candidates) = (Segments::default(), Vec::new());
        for (key, taken, spoken) in keys {
            segments.split(key);
            set.candidates(key, &segments, &mut candidates);
            for number in &candidates {
                let (pattern, rule) = self.patterns[*number as usize];
                let rule = &self.rules[rule];
                let mut bindings = Bindings::new(rule.rule.captures.len().max(room(pattern)));
                if !pattern.matches(key, &segments, &mut bindings) || excepts(rule, key, &segments)
                {
                    continue;
                }
                let target = rule
                    .targets()
                    .iter()
                    .filter_map(pattern_of)
                    .find_map(|target| target.render(key, &bindings));
                if target.as_ref() == Some(key) && rule.sources().len() == 1 {
                    // Such a rule says that the key is one of the layout, and no more.
                    *spoken = true;
                    continue;
                }
                let words = met(pattern, &bindings);
                // A rule that only captures, or names no more than `model`, explains nothing.
                if words.len() > 1 || words.iter().any(|word| !USUAL.contains(word)) {
                    *taken = true;
                    found.extend(words);
                }
                if let Some(target) = target {
                    *key = target;
                }
                break;
            }
        }
    }
}

/// Whether a rule leaves a key alone.
fn excepts(rule: &ReadRule<'_>, key: &str, segments: &Segments) -> bool {
    rule.unless_source()
        .iter()
        .map(Keys::without_ranges)
        .any(|pattern| pattern.matches(key, segments, &mut Bindings::new(room(pattern))))
}

/// A layout of an embedded file that half of the keys are in, and more than in the one it leads to:
/// none that models share, such as `hub`.
pub(super) fn foreign(header: &Header) -> Option<(&'static str, &'static str, &'static str)> {
    let (keys, _) = unwrapped(header);
    let kinds = kinds(&keys);
    let telling = Telling(HashMap::new());
    names().filter(|name| super::text(name).is_some_and(has_another_layout)).find_map(|name| {
        let rules = rules(name)?;
        let (left, right) = rules.layouts.as_ref()?;
        let [as_left, as_right] =
            [true, false].map(|left| Vocabulary::new(rules, left).explain(&kinds, &telling).keys);
        [(left, right, as_left, as_right), (right, left, as_right, as_left)].into_iter().find_map(
            |(layout, leads_to, own, other)| {
                let is_it = !SHARED.contains(&layout.as_str())
                    && own > other
                    && own * 2 >= header.tensors.len() as u64;
                is_it.then_some((name, layout.as_str(), leads_to.as_str()))
            },
        )
    })
}

/// The layout of a file that is a publisher's own, and the one that it leads to.
pub(super) fn own_layout(rules: &Rules) -> Option<(&str, &str)> {
    let (left, right) = rules.layouts.as_ref()?;
    let own = |layout: &&String| !SHARED.contains(&layout.as_str());
    [(left, right), (right, left)]
        .into_iter()
        .find(|(layout, _)| own(layout))
        .map(|(layout, to)| (layout.as_str(), to.as_str()))
}

/// How many keys a file speaks of that is read from its own layout, and how many it takes that is
/// read from the other one.
pub(super) fn spoken_and_against(header: &Header, rules: &Rules, is_left: bool) -> (u64, u64) {
    let (mut keys, _) = unwrapped(header);
    if let Some(separator) = rules.scopes.first().and_then(|scope| scope.separator) {
        keys = keys.iter().map(|key| key.replace(separator, ".")).collect();
    }
    let (kinds, telling) = (kinds(&keys), Telling(HashMap::new()));
    let read = |left| Vocabulary::new(rules, left).explain(&kinds, &telling);
    (read(is_left).keys, read(!is_left).taken)
}

/// Layouts that say nothing of who made a checkpoint.
pub(super) const SHARED: [&str; 2] = [super::HUB, super::MODEL];

/// Whether a rule file names a layout of its own: a look at its text, before it is checked.
pub(super) fn has_another_layout(text: &str) -> bool {
    let header = text.lines().find_map(|line| line.strip_prefix("ruleset ")?.split_once(':'));
    header.is_some_and(|(_, layouts)| {
        layouts.split_whitespace().any(|word| !word.contains('-') && !SHARED.contains(&word))
    })
}
