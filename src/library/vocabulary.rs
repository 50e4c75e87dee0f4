//! What a rule file speaks of, read from one of its layouts, and how it explains keys.
//!
//! Keys that differ only in their indices count as one while they are followed, so that 90,000 keys
//! cost what a few hundred do. They go through the rewrites of a file in order, as a plan would take
//! them. What is weighed are the words that were met on the way: a word that many rule files speak
//! of, like `model`, tells little, and one that nearly all do tells nothing.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use indexmap::IndexSet;

use super::detect::own_layout;
use super::unwrapped::{Kinds, is_number, kind};
use crate::check::reading::{Act, ReadRule, Reading, Rewrite, Statement};
use crate::check::takes::Takes;
use crate::check::{Direction, Keys, Rules, Side};
use crate::key::{Atom, Binding, Bindings, Part, Pattern, PatternSet, Segments};
use crate::syntax::ast::Arrow;

/// Names that models of all families share, though few rule files speak of them: they tell little,
/// however rare they are in the library.
const USUAL: [&str; 32] = [
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
    "query",
    "key",
    "value",
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
/// How many words are named as evidence.
const NAMED: usize = 5;

/// The literal segments of a pattern, and the words that it chooses from.
fn words(pattern: &Pattern) -> impl Iterator<Item = &str> {
    pattern.parts().iter().flat_map(|part| -> Vec<&str> {
        match part {
            Part::Literal(text) => vec![text],
            Part::Segment(atoms) => match &atoms[..] {
                [Atom::Words { words, .. }] => words.iter().map(|word| &**word).collect(),
                _ => texts(atoms).collect(),
            },
            Part::Rest(_) => Vec::new(),
        }
    })
}

/// Text within a segment that is long enough to tell something: `lora_unet_`, and no `w`.
fn texts(atoms: &[Atom]) -> impl Iterator<Item = &str> {
    atoms.iter().filter_map(|atom| match atom {
        Atom::Text(text) if text.len() > 7 => Some(&**text),
        _ => None,
    })
}

/// The words of a pattern that a match of it met.
fn met<'p>(pattern: &'p Pattern, bindings: &Bindings) -> Vec<&'p str> {
    let of_part = |part: &'p Part| -> Vec<&'p str> {
        match part {
            Part::Literal(text) => vec![text],
            Part::Segment(atoms) => match &atoms[..] {
                [Atom::Words { slot, words }] => match bindings.get(*slot) {
                    Binding::Word(at) => {
                        words.get(usize::from(*at)).map(|word| &**word).into_iter().collect()
                    }
                    _ => Vec::new(),
                },
                _ => texts(atoms).collect(),
            },
            Part::Rest(_) => Vec::new(),
        }
    };
    pattern.parts().iter().flat_map(of_part).collect()
}

/// How much a word tells: the fewer rule files speak of it, the more.
pub(super) struct Telling(HashMap<String, f64>);

impl Telling {
    /// Nothing tells anything: where only keys are counted.
    pub(super) fn nothing() -> Self {
        Self(HashMap::new())
    }

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn new(files: &[(&str, &Rules)]) -> Self {
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
        let mut tells: Vec<f64> =
            distinct.iter().filter_map(|word| self.0.get(*word)).copied().collect();
        // The same words tell the same in whatever order they were met, to the last bit.
        tells.sort_by(f64::total_cmp);
        tells.iter().sum()
    }

    /// The few words that tell the most, those that tell anything.
    fn most(&self, words: IndexSet<&str>) -> Vec<String> {
        let mut words: Vec<(&f64, &str)> =
            words.into_iter().filter_map(|word| Some((self.0.get(word)?, word))).collect();
        words.retain(|(tells, word)| **tells > 0.0 && !USUAL.contains(word));
        words.sort_by(|a, b| b.0.total_cmp(a.0).then_with(|| a.1.cmp(b.1)));
        words.into_iter().take(NAMED).map(|(_, word)| word.to_owned()).collect()
    }
}

/// A key as it stands after the statements so far, and what the file says of it.
struct Followed {
    key: String,
    /// A rewrite takes it.
    taken: bool,
    /// It is spoken of, by whatever statement.
    spoken: bool,
    /// A rewrite takes it that has a name for it, if only a usual one.
    named: bool,
}

impl From<&String> for Followed {
    fn from(key: &String) -> Self {
        Self { key: key.clone(), taken: false, spoken: false, named: false }
    }
}

/// How a file, read from one of its layouts, explains keys.
pub(super) struct Explained {
    /// Rules that should find something.
    pub(super) required: u64,
    /// Of those, rules that didn't.
    pub(super) unmet: u64,
    /// The most telling words that were met, the most telling first.
    pub(super) met: Vec<String>,
    /// The most telling words that were not.
    pub(super) missing: Vec<String>,
    /// Keys that it speaks of.
    pub(super) keys: u64,
    /// Those, and keys that it has no more than a usual name for.
    pub(super) named: u64,
    /// By kind of keys, how many a rewrite takes.
    takes: Vec<u64>,
    /// How telling the words are that were met, in all.
    pub(super) weight: f64,
    /// Which part that is of what the file's words would tell.
    pub(super) share: f64,
}

impl Explained {
    /// How many keys a rewrite takes.
    fn taken(&self) -> u64 {
        self.takes.iter().sum()
    }

    /// How many keys look as if they were results: the other reading takes them, and this one
    /// doesn't. Of a key that both take it isn't known.
    pub(super) fn against(&self, other: &Self) -> u64 {
        // A layout that is split elsewhere has other kinds.
        if self.takes.len() != other.takes.len() {
            return other.taken();
        }
        let pairs = self.takes.iter().zip(&other.takes);
        pairs.filter(|(own, _)| **own == 0).map(|(_, other)| other).sum()
    }

    /// Whether nine keys in ten have a name here, and two of three rules that should find something
    /// do.
    pub(super) fn explains_nearly_all(&self, keys: u64) -> bool {
        self.taken() > 0 && self.named * 10 >= keys * 9 && self.unmet * 3 <= self.required
    }
}

/// How well a file explains keys that it explains nearly all of, to be compared: one that names more
/// of them does better, then one of whose rules fewer find nothing.
pub(super) fn rank(named: u64, unmet: u64) -> (u64, Reverse<u64>) {
    (named, Reverse(unmet))
}

/// The rules of one statement.
struct Group<'r> {
    /// Whether no `when` stands around it.
    always: bool,
    /// The sources: of which rule, and which of its sources.
    patterns: Vec<(&'r Pattern, (usize, usize))>,
    rules: Vec<(ReadRule<'r>, Takes<'r>)>,
}

/// A statement that says which keys a layout has.
enum Saying<'r> {
    Rewrites(Group<'r>),
    /// Keys that go are keys of the layout, and tell no more than that.
    Drops {
        patterns: Vec<&'r Pattern>,
        /// Whether there is something to drop in each such checkpoint.
        required: bool,
    },
    /// Keys that are one tensor: one of them is there at least.
    Ties {
        patterns: Vec<&'r Pattern>,
        /// Whether they are one in each such checkpoint.
        required: bool,
    },
}

/// What a file speaks of, read from one of its layouts.
#[derive(Default)]
pub(super) struct Vocabulary<'r> {
    sayings: Vec<Saying<'r>>,
    examples: Vec<&'r str>,
    prefixes: Vec<&'r [String]>,
}

impl<'r> Vocabulary<'r> {
    pub(super) fn new(rules: &'r Rules, left: bool) -> Self {
        let mut vocabulary = Self::default();
        let direction = if left { Direction::Forward } else { Direction::Reverse };
        for statement in Reading::of(rules, direction).everywhere() {
            vocabulary.read(statement);
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

    fn read(&mut self, statement: Statement<'r>) {
        let always = statement.guards.is_empty();
        match statement.act {
            Act::Rewrite(rewrite) => self.sayings.push(Saying::Rewrites(group(rewrite, always))),
            Act::Drop(selection) if statement.direction == Direction::Forward => {
                self.sayings.push(Saying::Drops {
                    patterns: selection.keys.iter().map(Keys::without_ranges).collect(),
                    required: always && !selection.optional,
                });
            }
            Act::Tie(tie) => {
                let patterns = tie.targets.iter().chain(&tie.sources).map(Keys::without_ranges);
                self.sayings.push(Saying::Ties {
                    patterns: patterns.collect(),
                    required: always && tie.condition.is_none(),
                });
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
        let prefixes = self.prefixes.iter().flat_map(|prefix| prefix.iter().map(String::as_str));
        self.expected().chain(prefixes)
    }

    /// Those that should be met: a model without its head has no prefix.
    fn expected(&self) -> impl Iterator<Item = &'r str> {
        let expected = |group: &'_ Group<'r>| -> Vec<&'r Pattern> {
            group
                .patterns
                .iter()
                .filter(|(_, (rule, _))| !group.rules[*rule].0.rule.optional)
                .map(|(pattern, _)| *pattern)
                .collect()
        };
        let patterns = self.sayings.iter().flat_map(move |saying| match saying {
            Saying::Rewrites(group) => expected(group),
            Saying::Drops { .. } => Vec::new(),
            Saying::Ties { patterns, .. } => patterns.clone(),
        });
        let examples = self.examples.iter().flat_map(|key| key.split('.'));
        patterns.flat_map(words).chain(examples).filter(|word| !is_number(word))
    }

    pub(super) fn explain(&self, kinds: &Kinds, telling: &Telling) -> Explained {
        let mut found: IndexSet<&str> = IndexSet::new();
        let mut keys: Vec<Followed> = kinds.values().map(|(key, _)| Followed::from(key)).collect();
        for example in &self.examples {
            if let Some(at) = kinds.get_index_of(&kind(example)) {
                keys[at].spoken = true;
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
        let (mut required, mut unmet) = (0, 0);
        for saying in &self.sayings {
            match saying {
                Saying::Rewrites(group) => {
                    let (all, silent) = group.follow(&mut keys, &mut found);
                    (required, unmet) = (required + all, unmet + silent);
                }
                Saying::Drops { patterns, required: needed } => {
                    let fitted = look(patterns, &mut keys, &mut IndexSet::new());
                    if *needed {
                        required += fitted.len() as u64;
                        unmet += fitted.iter().filter(|fitted| !**fitted).count() as u64;
                    }
                }
                Saying::Ties { patterns, required: needed } => {
                    let fitted = look(patterns, &mut keys, &mut found);
                    if *needed {
                        required += 1;
                        unmet += u64::from(!fitted.contains(&true));
                    }
                }
            }
        }
        let count = |of: fn(&Followed) -> bool| {
            let counted = keys.iter().zip(kinds.values()).filter(|(key, _)| of(key));
            counted.map(|(_, (_, count))| *count).sum()
        };
        let spoken = count(|key| key.taken || key.spoken);
        let named = count(|key| key.taken || key.spoken || key.named);
        let taken_of =
            |(key, (_, count)): (&Followed, &(String, u64))| if key.taken { *count } else { 0 };
        let takes = keys.iter().zip(kinds.values()).map(taken_of).collect();
        found.retain(|word| !is_number(word));
        let weight = telling.of(found.iter().copied());
        let mut missing: IndexSet<&str> = self.expected().collect();
        missing.retain(|word| !found.contains(word));
        let all = telling.of(found.iter().chain(&missing).copied());
        Explained {
            keys: spoken,
            named,
            takes,
            required,
            unmet,
            weight,
            share: if all > 0.0 { weight / all } else { 0.0 },
            met: telling.most(found),
            missing: telling.most(missing),
        }
    }
}

/// Looks for keys of patterns, which are spoken of then; which of the patterns have one.
fn look<'r>(
    patterns: &[&'r Pattern],
    keys: &mut [Followed],
    found: &mut IndexSet<&'r str>,
) -> Vec<bool> {
    let mut segments = Segments::default();
    let mut fitted = vec![false; patterns.len()];
    for followed in keys {
        let key = &followed.key;
        segments.split(key);
        for (pattern, fitted) in patterns.iter().zip(&mut fitted) {
            let mut bindings = Bindings::new(room(pattern));
            if pattern.matches(key, &segments, &mut bindings) {
                (*fitted, followed.spoken) = (true, true);
                found.extend(met(pattern, &bindings));
            }
        }
    }
    fitted
}

/// Room for what a pattern captures.
fn room(pattern: &Pattern) -> usize {
    pattern.slots().last().map_or(0, |slot| usize::from(slot.0) + 1)
}

fn group(rewrite: Rewrite<'_>, always: bool) -> Group<'_> {
    let mut group = Group { always, patterns: Vec::new(), rules: Vec::new() };
    for read in rewrite.rules() {
        for (source, side) in read.sources().iter().enumerate() {
            let place = (group.rules.len(), source);
            group.patterns.extend(Side::pattern(side).map(|pattern| (pattern, place)));
        }
        group.rules.push((read, Takes::loosely(read)));
    }
    group
}

impl<'r> Group<'r> {
    /// Takes keys through the statement: what a rule takes becomes its first target that can be
    /// named. Gives how many rules should find something, and how many of them didn't.
    fn follow(&self, keys: &mut [Followed], found: &mut IndexSet<&'r str>) -> (u64, u64) {
        let mut fired = vec![false; self.rules.len()];
        let set = PatternSet::new(self.patterns.iter().map(|(pattern, _)| *pattern));
        let (mut segments, mut candidates) = (Segments::default(), Vec::new());
        let mut bindings = Bindings::new(0);
        for Followed { key, taken, spoken, named } in keys {
            segments.split(key);
            set.candidates(key, &segments, &mut candidates);
            for number in &candidates {
                let (pattern, (at, source)) = self.patterns[*number as usize];
                let (rule, takes) = &self.rules[at];
                if !takes.fits(source, key, &segments, &mut bindings) {
                    continue;
                }
                fired[at] = true;
                let targets = rule.targets().iter().filter_map(Side::pattern);
                let target = targets.clone().find_map(|target| target.render(key, &bindings));
                let words = met(pattern, &bindings);
                // A rule that takes a prefix off leaves what to say to those behind it.
                let names = targets.flat_map(|target| target.parts());
                let strips = names.clone().all(|part| matches!(part, Part::Rest(_)));
                *named |= !strips && !words.is_empty();
                if target.as_ref() == Some(key) && rule.sources().len() == 1 {
                    // Such a rule says that the key is one of the layout, and no more.
                    *spoken = true;
                    break;
                }
                // A rule that only captures, or names no more than `model`, explains nothing.
                let tells = words.len() > 1 || words.iter().any(|word| !USUAL.contains(word));
                if !strips && tells {
                    *taken = true;
                    found.extend(words);
                }
                if let Some(target) = target {
                    *key = target;
                }
                break;
            }
        }
        if !self.always {
            return (0, 0);
        }
        let required = self.rules.iter().zip(fired).filter(|((rule, _), _)| !rule.rule.optional);
        let silent = required.clone().filter(|(_, fired)| !fired);
        (required.count() as u64, silent.count() as u64)
    }
}
