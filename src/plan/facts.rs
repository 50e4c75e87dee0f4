//! What `size` and `count` give: keys and shapes of the layout that a rule file reads are gone
//! through once, for all that its `let`s ask.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use crate::check::value::{Environment, Fact, Scope};
use crate::check::{CaptureKind, Question, What};
use crate::diagnostic::codes::{NUMBERS_MISSING, UNLIKE_SIZES};
use crate::diagnostic::{Diagnostic, Place};
use crate::key::{Binding, Bindings, Pattern, PatternSet, Segments, Slot};
use crate::plan::Plan;
use crate::plan::bind::value_of;
use crate::tensor::{Header, Shape};

/// Visits each key with its shape.
type EachShape<'a> = dyn Fn(&mut dyn FnMut(&str, &Shape)) + 'a;

/// Numbers that a finding names at most.
const NAMED: usize = 5;

/// What is known, by scope, and by where in its text the question begins.
#[derive(Clone, Debug, Default)]
pub struct ShapeFacts(BTreeMap<usize, BTreeMap<u32, Fact>>);

/// What shapes told while a plan was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The stage whose rules asked, by its number.
    pub stage: usize,
    /// The file of them that asked, by its place in [`Rules::scopes`](crate::check::Rules::scopes).
    pub scope: usize,
    /// Where in its text the question begins, in bytes.
    pub at: u32,
    /// The length, or the count; none if no key fits.
    pub value: Option<i64>,
}

/// A key that fits, and its shape.
type Fitting = (String, Shape);

/// What was found of one question.
enum Found {
    /// The first key that fits, and the first whose length differs from its.
    Size { dim: u64, first: Option<Fitting>, other: Option<Fitting> },
    /// Which numbers there are, and which should be the least.
    Numbers { slot: Slot, least: u64, held: BTreeSet<u64> },
    /// Which texts there are.
    Texts { slot: Slot, held: HashSet<String> },
}

struct Search<'q> {
    question: &'q Question,
    pattern: Pattern,
    found: Found,
}

impl ShapeFacts {
    /// What was told in a stage, as a plan has it; what couldn't be told is no part of it.
    pub(super) fn told(&self, stage: usize) -> impl Iterator<Item = Told> {
        let of = move |(scope, facts): (&usize, &BTreeMap<u32, Fact>)| {
            let known = facts.iter().filter_map(|(at, fact)| Some((*at, *fact.as_ref().ok()?)));
            let scope = *scope;
            known.map(move |(at, value)| Told { stage, scope, at, value }).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of)
    }

    /// What a plan says was told in a stage.
    pub fn of_plan(plan: &Plan, stage: usize) -> Self {
        let mut facts = Self::default();
        for told in plan.told.iter().filter(|told| told.stage == stage) {
            facts.0.entry(told.scope).or_default().insert(told.at, Ok(told.value));
        }
        facts
    }

    /// What a checkpoint says to scopes that read it as it is.
    pub fn of(scopes: &[Scope], header: &Header, environment: &Environment<'_>) -> Self {
        let mut facts = Self::default();
        for scope in scopes.iter().filter(|scope| !scope.questions.is_empty()) {
            facts.look(scope, environment, &|visit| {
                header.tensors.iter().for_each(|(key, entry)| visit(key, &entry.info.shape));
            });
        }
        facts
    }

    /// Whether the questions of a scope were answered, if it has any.
    pub fn has(&self, scope: &Scope) -> bool {
        scope.questions.is_empty() || self.0.contains_key(&scope.number)
    }

    /// What is known of the question that begins at a place of the scope's text.
    pub fn get(&self, scope: &Scope, at: u32) -> Option<Fact> {
        self.0.get(&scope.number)?.get(&at).cloned()
    }

    /// Answers the questions of a scope. What decides the numbers in their patterns is asked of
    /// the environment, which knows none of these answers.
    pub fn look(&mut self, scope: &Scope, environment: &Environment<'_>, each: &EachShape<'_>) {
        let (mut facts, mut searches) = (BTreeMap::new(), Vec::new());
        for question in &scope.questions {
            match Search::new(question, scope, environment) {
                Ok(search) => searches.push(search),
                Err(why) => drop(facts.insert(question.span.start, Err(why))),
            }
        }
        let set = PatternSet::new(searches.iter().map(|search| &search.pattern));
        let (mut segments, mut candidates) = (Segments::default(), Vec::new());
        let mut bindings = Bindings::default();
        each(&mut |key, shape| {
            segments.split(key);
            set.candidates(key, &segments, &mut candidates);
            for at in &candidates {
                if let Some(search) = searches.get_mut(*at as usize) {
                    search.meet(key, &segments, shape, &mut bindings);
                }
            }
        });
        for search in searches {
            facts.insert(search.question.span.start, search.answer(scope));
        }
        self.0.insert(scope.number, facts);
    }
}

impl<'q> Search<'q> {
    fn new(
        question: &'q Question,
        scope: &Scope,
        environment: &Environment<'_>,
    ) -> Result<Self, Box<Diagnostic>> {
        let found = match question.what {
            What::Size(dim) => Found::Size { dim, first: None, other: None },
            What::Count(slot) => {
                let capture = question.keys.captures().get(usize::from(slot.0));
                match capture.map(|capture| &capture.kind) {
                    Some(CaptureKind::Index(range)) => {
                        let least = range.as_ref().map(|(start, _)| environment.int(scope, start));
                        let least = u64::try_from(least.transpose()?.unwrap_or(0)).unwrap_or(0);
                        Found::Numbers { slot, least, held: BTreeSet::new() }
                    }
                    _ => Found::Texts { slot, held: HashSet::new() },
                }
            }
        };
        Ok(Self { question, pattern: question.keys.bind(scope, environment)?, found })
    }

    /// Takes note of a key, if it fits.
    fn meet(&mut self, key: &str, segments: &Segments, shape: &Shape, bindings: &mut Bindings) {
        let captures = self.question.keys.captures();
        bindings.reset(captures.len());
        if !self.pattern.matches(key, segments, bindings) {
            return;
        }
        match &mut self.found {
            Found::Size { first: first @ None, .. } => {
                *first = Some((key.to_owned(), shape.clone()));
            }
            Found::Size { dim, first: Some((_, first)), other: other @ None } => {
                if length(first, *dim) != length(shape, *dim) {
                    *other = Some((key.to_owned(), shape.clone()));
                }
            }
            Found::Size { .. } => {}
            Found::Numbers { slot, held, .. } => {
                if let Binding::Index(number) = bindings.get(*slot) {
                    held.insert(*number);
                }
            }
            Found::Texts { slot, held } => {
                let capture = captures.get(usize::from(slot.0));
                let value = capture.and_then(|one| value_of(*slot, key, bindings, one));
                held.extend(value.map(|value| value.to_string()));
            }
        }
    }

    fn answer(self, scope: &Scope) -> Fact {
        let place = scope.place(self.question.span);
        match self.found {
            Found::Size { first: None, .. } => Ok(None),
            Found::Size { dim, first: Some(first), other } => match length(&first.1, dim) {
                Some(length) if other.is_none() => Ok(i64::try_from(length).ok()),
                _ => Err(unlike(place, dim, &first, other.as_ref())),
            },
            Found::Numbers { held, least, .. } => match missing(&held, least) {
                Some(numbers) => Err(gap(place, &held, &numbers)),
                None => Ok(counted(held.len())),
            },
            Found::Texts { held, .. } => Ok(counted(held.len())),
        }
    }
}

fn length(shape: &Shape, dim: u64) -> Option<u64> {
    shape.get(usize::try_from(dim).ok()?).copied()
}

/// A count, if there is something to count.
fn counted(count: usize) -> Option<i64> {
    i64::try_from(count).ok().filter(|count| *count > 0)
}

/// The first numbers that lack between the least that should be there and the greatest that is; none
/// if all are there.
fn missing(held: &BTreeSet<u64>, least: u64) -> Option<Vec<u64>> {
    let mut next = least;
    let mut found = Vec::new();
    for number in held {
        found.extend((next..*number).take(NAMED - found.len()));
        next = number.saturating_add(1);
    }
    (!found.is_empty()).then_some(found)
}

fn unlike(place: Place, dim: u64, first: &Fitting, other: Option<&Fitting>) -> Box<Diagnostic> {
    let lacks = |(_, shape): &&Fitting| length(shape, dim).is_none();
    let finding = match [Some(first), other].into_iter().flatten().find(lacks) {
        Some((key, shape)) => {
            let message = format!("`{key}` is {shape}, and has no dimension {dim}");
            Diagnostic::error(UNLIKE_SIZES, message).at(place, "asked of it here")
        }
        None => {
            let of = |(key, shape): &Fitting| format!("`{key}` is {shape}");
            let both: Vec<String> = [first].into_iter().chain(other).map(of).collect();
            let message = format!("dimension {dim} has several lengths: {}", both.join(", "));
            Diagnostic::error(UNLIKE_SIZES, message).at(place, "one is asked for")
        }
    };
    Box::new(finding.hint("write a pattern that only keys of one length fit"))
}

fn gap(place: Place, held: &BTreeSet<u64>, missing: &[u64]) -> Box<Diagnostic> {
    let numbers: Vec<String> = missing.iter().map(u64::to_string).collect();
    let greatest = held.last().copied().unwrap_or_default();
    let message =
        format!("the numbers counted here go up to {greatest}, without {}", numbers.join(", "));
    let finding = Diagnostic::error(NUMBERS_MISSING, message).at(place, "counted here");
    Box::new(finding.hint(
        "are all files there? to count those that there are, write the capture as text: {l*}",
    ))
}
