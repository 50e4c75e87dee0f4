//! A rule file as one reading of it runs: which rules take keys, in which order, and where a key goes
//! through them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::certain::*;
use super::*;
use crate::check::keys::Keys;
use crate::check::proof::alphabet::accepts;
use crate::check::proof::effort::Effort;
use crate::check::proof::group::{Owned, weight_of_rule};
use crate::check::proof::trace::{backward, captured, takes};
use crate::check::reading::{Act, ReadRule, Reading, Statement};
use crate::check::rules::{Direction, Rule, Rules, Selection, SideItem, Whole};
use crate::key::{Part, Pattern};

/// A rule as it is read, and where it stands.
pub(super) struct Placed<'r> {
    pub(super) at: usize,
    pub(super) rule: Cow<'r, Rule>,
    /// Whether the checkpoint's config decides that it is read at all.
    pub(super) guarded: bool,
    /// Whether it takes each key that fits.
    pub(super) certain: bool,
    pub(super) weight: usize,
}

impl<'r> Placed<'r> {
    pub(super) fn new(at: usize, rule: Cow<'r, Rule>, guarded: bool) -> Self {
        Self {
            at,
            guarded,
            certain: !guarded && takes_for_certain(&rule),
            weight: weight_of_rule(&rule),
            rule,
        }
    }

    pub(super) fn has_regex(&self) -> bool {
        self.rule.left.iter().any(|side| matches!(side.item, SideItem::Regex(_)))
    }
}

/// What takes keys away or shortens them.
pub(super) struct Taker<'r> {
    pub(super) at: usize,
    pub(super) text: &'r str,
    pub(super) kind: TakerKind<'r>,
}

pub(super) enum TakerKind<'r> {
    Drop(&'r Selection),
    Keep,
    Strip { wrappers: &'r [Vec<String>], leading: bool },
}

/// The statements of a file in the order in which they are read.
pub(super) struct Program<'r> {
    pub(super) rules: Vec<Placed<'r>>,
    pub(super) takers: Vec<Taker<'r>>,
    /// Keys that are made from nothing, or by a tie.
    pub(super) made: Vec<(usize, &'r str, &'r Pattern)>,
    pub(super) open: Option<String>,
    /// Whether keys aren't split at dots alone, so that no key can be followed.
    pub(super) splits: bool,
    pub(super) effort: Effort,
}

impl<'r> Program<'r> {
    pub(super) fn of(rules: &'r Rules, direction: Direction) -> Self {
        let (placed, takers, made) = (Vec::new(), Vec::new(), Vec::new());
        let mut program = Self {
            rules: placed,
            takers,
            made,
            open: None,
            splits: false,
            effort: Effort::of_proof(),
        };
        for (at, statement) in Reading::of(rules, direction).everywhere().into_iter().enumerate() {
            program.read(at, &statement);
        }
        program
    }

    pub(super) fn open(&mut self, because: impl FnOnce() -> String) {
        self.open.get_or_insert_with(because);
    }

    pub(super) fn read(&mut self, at: usize, statement: &Statement<'r>) {
        let step = statement.step;
        let forward = statement.direction == Direction::Forward;
        let mut taker = |kind| self.takers.push(Taker { at, text: &step.text, kind });
        match &statement.act {
            Act::Rewrite(rewrite) => {
                let guarded = !statement.guards.is_empty();
                let rule = |read: ReadRule<'r>| match read.direction {
                    Direction::Forward => Cow::Borrowed(read.rule),
                    Direction::Reverse => Cow::Owned(turned(read.rule)),
                };
                self.rules.extend(rewrite.rules().map(|read| Placed::new(at, rule(read), guarded)));
            }
            Act::StripAnywhere { wrappers } => taker(TakerKind::Strip { wrappers, leading: false }),
            Act::StripLeading { wrappers, .. } => {
                taker(TakerKind::Strip { wrappers, leading: true })
            }
            Act::Drop(keys) if forward => taker(TakerKind::Drop(keys)),
            Act::Keep(_) if forward => taker(TakerKind::Keep),
            Act::Create { target, .. } if forward => self.made.push((at, &step.text, target)),
            Act::Create { .. } => {
                self.open(|| format!("`{}`, read backwards, takes a key away", step.text))
            }
            Act::Tie(tie) => {
                let patterns = tie.targets.iter().chain(&tie.sources).map(Keys::without_ranges);
                self.made.extend(patterns.map(|pattern| (at, step.text.as_str(), pattern)));
            }
            // What config.json decides, it decides both times. The branches come as statements.
            Act::When { condition, .. } => {
                if condition.asks_layout(&|_| None) || names_something(condition) {
                    self.open(|| "a `when` may be decided by the keys themselves".to_owned());
                }
            }
            Act::Whole { whole: Whole::Separator(_), .. } => {
                self.splits = true;
                self.open(|| "keys of the left layout are split at another character".to_owned());
            }
            Act::Whole { whole: Whole::Strict, .. }
            | Act::Prefix(_)
            | Act::Drop(_)
            | Act::Keep(_)
            | Act::Cast { .. }
            | Act::Expect { .. } => {}
        }
    }
}

/// A program with what finds its rules and names.
pub(super) struct Lookup<'p> {
    pub(super) rules: &'p [Placed<'p>],
    pub(super) program: &'p Program<'p>,
    pub(super) sources: Owned,
    pub(super) has_regex: bool,
    /// What the sources name: literal segments and words, but no bare numbers. Each once, with the
    /// first statement that has it.
    pub(super) names: Vec<(usize, &'p Part)>,
    /// The literals of them.
    pub(super) literals: HashMap<&'p str, usize>,
}

impl<'p> Lookup<'p> {
    pub(super) fn new(program: &'p Program<'p>) -> Self {
        let rules = &program.rules[..];
        let mut known = HashSet::new();
        let all = rules.iter().flat_map(|placed| names(&placed.rule).map(|part| (placed.at, part)));
        let names: Vec<(usize, &Part)> = all.filter(|(_, part)| known.insert(*part)).collect();
        let literal = |(at, part): &(usize, &'p Part)| {
            if let Part::Literal(text) = part { Some((&**text, *at)) } else { None }
        };
        Self {
            sources: Owned::new(
                rules.iter().enumerate().map(|(number, placed)| (number, &placed.rule.left[..])),
            ),
            has_regex: rules.iter().any(Placed::has_regex),
            literals: names.iter().filter_map(literal).collect(),
            names,
            rules,
            program,
        }
    }

    pub(super) fn effort(&self) -> &'p Effort {
        &self.program.effort
    }

    /// A key through all rules once, with the rules that took it; `None` where a statement takes it
    /// away or shortens it, or where it grows beyond reason.
    pub(super) fn through(&self, key: &str) -> Option<(String, Vec<(&'p Placed<'p>, String)>)> {
        let (mut key, mut by) = (key.to_owned(), Vec::new());
        let mut from = 0;
        loop {
            let mut takers = self
                .sources
                .of(&key)
                .into_iter()
                .skip_while(|number| *number < from)
                .map(|number| &self.rules[number]);
            let taken = takers.find_map(|placed| {
                let next = self.effort().spend(placed.weight).then(|| takes(&placed.rule, &key))?;
                Some((placed, next?))
            });
            if self.effort().is_spent() {
                return None;
            }
            let Some((placed, next)) = taken else { return Some((key, by)) };
            // The plan refuses a key that doesn't read back.
            let ambiguous =
                placed.rule.ambiguous && backward(&placed.rule, &next).as_ref() != Some(&key);
            if placed.guarded
                || ambiguous
                || !depends_on_keys_alone(&placed.rule)
                || next.len() > 4096
            {
                return None;
            }
            by.push((placed, std::mem::replace(&mut key, next)));
            from = self.rules.partition_point(|other| other.at <= placed.at);
        }
    }

    /// A key that is rewritten twice, and whether it is plain.
    pub(super) fn twice(&self, key: String) -> Option<(Twice, bool)> {
        let calculates = self.rules.iter().any(|placed| !placed.rule.numbers.is_empty());
        let untold = self.has_regex || calculates || self.program.splits;
        if !self.program.takers.is_empty() || self.takes_part(&key) || untold {
            return None;
        }
        let (once, by) = self.through(&key)?;
        let (twice, again) = self.through(&once)?;
        if by.is_empty() || again.is_empty() {
            return None;
        }
        let plain = by.iter().all(|(placed, key)| self.is_plain(placed, key));
        Some((Twice { key, once, twice }, plain))
    }

    /// What the sources name up to a statement.
    pub(super) fn names(&self, at: usize) -> impl Iterator<Item = &'p Part> {
        self.names.iter().take_while(move |(first, _)| *first <= at).map(|(_, part)| *part)
    }

    /// Whether the captures of a rule that takes a key hold none of the names of the sources so
    /// far, but for what nearly every key ends with.
    pub(super) fn is_plain(&self, placed: &Placed<'_>, key: &str) -> bool {
        let held = captured(&placed.rule, key);
        let others = || self.names(placed.at).filter(|part| !matches!(part, Part::Literal(_)));
        let literal =
            |segment: &str| self.literals.get(segment).is_some_and(|first| *first <= placed.at);
        let named = |segment: &str| {
            literal(segment)
                || !self.effort().spend(self.names.len())
                || others().any(|part| accepts(part, segment))
        };
        held.iter().all(|text| {
            let text = match text.rsplit_once('.').unwrap_or(("", text)) {
                (rest, leaf) if is_leaf(leaf) && key.ends_with(text.as_str()) => rest,
                _ => text,
            };
            !text.split('.').any(named)
        })
    }

    /// Whether a tie or a `create` speaks of a key.
    pub(super) fn takes_part(&self, key: &str) -> bool {
        let made = &self.program.made;
        !self.effort().spend(made.len())
            || made.iter().any(|(_, _, pattern)| crate::check::proof::trace::fits(pattern, key))
    }
}
