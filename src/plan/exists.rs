//! `exists`: whether a layout has a key of a pattern, for the captures that the rule which asks has
//! bound.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use crate::check::value::{Captures, Environment, Scope, Value};
use crate::check::{CaptureKind, Keys, resolve_within};
use crate::key::{Binding, Bindings, Pattern, Segments, Slot};
use crate::plan::bind::value_of;
use crate::syntax::ast;

/// Visits each key.
type EachKey<'a> = dyn Fn(&mut dyn FnMut(&str)) + 'a;

/// The keys of a layout, and what the rules of one stage asked about them: a rule asks for every key
/// that it fits, and the keys are gone through once.
pub struct Inquiry<'a> {
    contains: &'a dyn Fn(&str) -> bool,
    each: &'a EachKey<'a>,
    asked: RefCell<HashMap<Question, Answer>>,
}

/// The number of a scope, and where in its text a pattern begins.
type Question = (usize, u32);

struct Answer {
    /// The captures of the rule that the pattern has, by name.
    shared: Vec<String>,
    /// What they hold in the keys that fit.
    found: HashSet<Vec<Option<String>>>,
    keys: Keys,
    pattern: Pattern,
}

impl<'a> Inquiry<'a> {
    /// Over keys: whether one is there, and each in turn.
    pub fn new(contains: &'a dyn Fn(&str) -> bool, each: &'a EachKey<'a>) -> Self {
        Self { contains, each, asked: RefCell::default() }
    }

    /// Whether a key fits a pattern, in which the captures in sight hold what they hold there;
    /// `None` if the pattern can't be read.
    pub fn has(
        &self,
        scope: &Scope,
        pattern: &ast::Pattern,
        captures: Captures<'_>,
        environment: &Environment<'_>,
    ) -> Option<bool> {
        let question = (scope.number, pattern.span.start);
        let mut asked = self.asked.borrow_mut();
        let answer = match asked.entry(question) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let keys = resolve_within(scope, pattern, captures.known).ok()?;
                let bound = keys.bind(scope, environment).ok()?;
                let shared = keys
                    .captures()
                    .iter()
                    .take(captures.known.len())
                    .filter(|one| one.left)
                    .map(|one| one.name.clone())
                    .collect();
                let mut answer = Answer { shared, found: HashSet::new(), keys, pattern: bound };
                if answer.pattern.literal().is_none() {
                    answer.look(self.each);
                }
                new.insert(answer)
            }
        };
        // A key that is known whole is looked up: a pattern may divide it in another way than the
        // rule did.
        if let Some(key) = answer.pattern.literal().or_else(|| answer.whole(captures)) {
            return Some((self.contains)(&key));
        }
        let held: Vec<Option<String>> = answer
            .shared
            .iter()
            .map(|name| (captures.value)(name).map(|value| value.to_string()))
            .collect();
        // What the rule hasn't bound yet may be anything.
        if held.iter().any(Option::is_none) {
            let agrees = |found: &Vec<Option<String>>| {
                found.iter().zip(&held).all(|(found, held)| held.is_none() || found == held)
            };
            return Some(answer.found.iter().any(agrees));
        }
        Some(answer.found.contains(&held))
    }
}

impl Answer {
    /// The key that the pattern gives, if the rule has bound each of its captures.
    fn whole(&self, captures: Captures<'_>) -> Option<String> {
        let known = self.keys.captures();
        let mut bindings = Bindings::new(known.len());
        for slot in self.pattern.slots() {
            let capture = known
                .get(usize::from(slot.0))
                .filter(|capture| self.shared.contains(&capture.name))?;
            let binding = match ((captures.value)(&capture.name)?, &capture.kind) {
                (Value::Int(number), _) => Binding::Index(u64::try_from(number).ok()?),
                (Value::Text(text), CaptureKind::Words { left, .. }) => Binding::Word(
                    u16::try_from(left.iter().position(|word| **word == *text)?).ok()?,
                ),
                (Value::Text(text), _) => Binding::Owned(text.into()),
                _ => return None,
            };
            bindings.set(slot, binding);
        }
        self.pattern.render("", &bindings)
    }

    /// Goes through the keys.
    fn look(&mut self, each: &EachKey<'_>) {
        let captures = self.keys.captures();
        let at: Vec<usize> = self
            .shared
            .iter()
            .filter_map(|name| captures.iter().position(|capture| capture.name == *name))
            .collect();
        let (mut segments, mut bindings) = (Segments::default(), Bindings::default());
        each(&mut |key| {
            segments.split(key);
            bindings.reset(captures.len());
            if self.pattern.matches(key, &segments, &mut bindings) {
                let held = at.iter().map(|at| {
                    let slot = Slot(u16::try_from(*at).ok()?);
                    value_of(slot, key, &bindings, &captures[*at]).map(|value| value.to_string())
                });
                self.found.insert(held.collect());
            }
        });
    }
}
