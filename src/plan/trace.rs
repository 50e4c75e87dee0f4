//! [`trace`]: keys followed through the statements of a rule file, without tensors.
//!
//! What only tensors or a target manifest can tell is left out: shapes, whether an instance is
//! complete, `tie`, `create`, `prefix`. A question that the facts at hand don't decide (`when
//! config.x` without a config) is answered both ways, so that there may be several traces.

use std::collections::{BTreeMap, HashSet};

use super::bind::{truth_of, value_of};
use super::pass::strip::{below, rejoin, strip_key, without};
use super::pass::whole::exchanged;
use crate::check::reading::{Act, Reading, Rewrite, Statement};
use crate::check::takes::{Named, Takes, any_matches};
use crate::check::value::{Environment, Scope, Value};
use crate::check::{Direction, Identity, Keys, Rule, Rules, Selection, Whole};
use crate::diagnostic::{Diagnostic, Place};
use crate::key::{Binding, Bindings, Segments, Slot};

/// Ways to answer undecided questions that are tried.
const WAYS: usize = 64;

/// Keys that are followed at once; a rule file can multiply them.
const KEYS: usize = 4096;

/// Keys followed to the end, for one way to answer what isn't decided.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Where a statement took a key, in order.
    pub hits: Vec<Hit>,
    /// The keys that came out.
    pub results: Vec<String>,
    /// Whether there are results that can't be named, since one tensor becomes as many as its shape
    /// says.
    pub open: bool,
}

/// A statement, or a rule of a group, that took a key.
#[derive(Clone, Debug)]
pub struct Hit {
    /// Where it is written.
    pub place: Place,
    /// It in one line.
    pub text: String,
    /// The key as it was.
    pub key: String,
    /// Each capture by name, and what it held.
    pub captures: Vec<(String, String)>,
    /// What the key became; empty if it was dropped or can't be named.
    pub targets: Vec<String>,
}

/// Follows keys through a rule file.
///
/// The environment says what is known; its captures are not asked.
pub fn trace(
    rules: &Rules,
    direction: Direction,
    keys: &[String],
    environment: &Environment<'_>,
) -> Vec<Trace> {
    let mut traces = Vec::new();
    let mut answers = Vec::new();
    while traces.len() < WAYS {
        let mut tracer = Tracer {
            environment,
            answers,
            asked: Vec::new(),
            trace: Trace::default(),
            since: BTreeMap::new(),
        };
        let results = tracer.follow(&Reading::of(rules, direction), keys.to_vec());
        traces.push(Trace { results, ..tracer.trace });
        // The next way: the last `yes` becomes `no`.
        answers = tracer.answers;
        while answers.last() == Some(&false) {
            answers.pop();
        }
        match answers.last_mut() {
            Some(last) => *last = false,
            None => break,
        }
    }
    traces
}

struct Tracer<'a> {
    environment: &'a Environment<'a>,
    /// What to say to each undecided question, in the order in which they come up.
    answers: Vec<bool>,
    /// Those questions: which statement or rule asks, and about which key.
    asked: Vec<(Identity, String)>,
    trace: Trace,
    /// What became of keys since a `separator` was read.
    since: BTreeMap<Identity, Since>,
}

/// What became of keys since a `separator` was read.
#[derive(Default)]
struct Since {
    /// Keys that were split at it, as they are then.
    split: HashSet<String>,
    /// Keys that rules gave, or left with their name.
    taken: HashSet<String>,
}

impl<'a> Tracer<'a> {
    /// What keys become by statements.
    fn follow(&mut self, reading: &Reading<'a>, mut keys: Vec<String>) -> Vec<String> {
        for statement in reading.statements() {
            keys = if let Act::When { condition, then, otherwise } = &statement.act {
                let asked = self.environment.truth(statement.scope, condition);
                let holds = self.decide(asked, statement.step.id, "");
                self.follow(if holds { then } else { otherwise }, keys)
            } else {
                let each = keys.into_iter().flat_map(|key| self.statement(&statement, key));
                each.take(KEYS).collect()
            };
        }
        keys
    }

    /// What one key becomes by one statement.
    fn statement(&mut self, statement: &Statement<'a>, key: String) -> Vec<String> {
        let Statement { step, scope, direction, .. } = *statement;
        let forward = direction == Direction::Forward;
        let becomes = match &statement.act {
            Act::Rewrite(rewrite) => return self.rewrite(*rewrite, scope, key),
            Act::StripAnywhere { wrappers } => {
                strip_key(&key, wrappers, scope, |_| {}).map(|key| vec![key])
            }
            Act::StripLeading { wrappers, if_wanted } => {
                let wanted = !if_wanted || self.answer(step.id, "");
                leading(&key, wrappers, scope).filter(|_| wanted).map(|key| vec![key])
            }
            Act::Drop(keys) => (forward && self.selects(keys, step.id, scope, &key)).then(Vec::new),
            Act::Keep(keys) => {
                let goes = forward
                    && !self.selects(keys, step.id, scope, &key)
                    && below(&key, &scope.under).is_some();
                goes.then(Vec::new)
            }
            Act::Whole { whole: Whole::Separator(separator), after } => {
                let when = (forward, *after);
                let exchange = self.exchanges(step.id, when, *separator, scope, &key);
                let other = exchange.then(|| exchange_key(&key, *separator, scope));
                return vec![other.unwrap_or(key)];
            }
            // A tensor's name is left as it is, or a target manifest decides.
            Act::Whole { whole: Whole::Strict, .. }
            | Act::Prefix(_)
            | Act::Cast { .. }
            | Act::Tie(_)
            | Act::Create { .. }
            | Act::Expect { .. }
            | Act::When { .. } => None,
        };
        match becomes {
            Some(targets) => {
                for since in self.since.values_mut() {
                    for keys in [&mut since.split, &mut since.taken] {
                        if keys.contains(&key) {
                            keys.extend(targets.iter().cloned());
                        }
                    }
                }
                self.hit(&step.place, &step.text, &key, Vec::new(), &targets);
                targets
            }
            None => vec![key],
        }
    }

    /// Whether a key is split otherwise, where rules are read forwards or not, before the statements
    /// of a file or after them: a key that rules took is one of the other layout then.
    fn exchanges(
        &mut self,
        asks: Identity,
        when: (bool, bool),
        separator: char,
        scope: &Scope,
        key: &str,
    ) -> bool {
        let has = below(key, &scope.under).is_some_and(|rest| rest.contains(separator));
        let since = self.since.entry(asks).or_default();
        match when {
            (true, false) => {
                if has {
                    since.split.insert(exchange_key(key, separator, scope));
                }
                has
            }
            (true, true) => since.split.contains(key) && !since.taken.contains(key),
            (false, false) => false,
            (false, true) => since.taken.contains(key),
        }
    }

    /// The first rule of a group that takes the key.
    fn rewrite(&mut self, rewrite: Rewrite<'a>, scope: &'a Scope, key: String) -> Vec<String> {
        let mut segments = Segments::default();
        segments.split(&key);
        for read in rewrite.rules() {
            let rule = read.rule;
            let names = Takes::known(read, scope, self.environment);
            let mut bindings = Bindings::default();
            for source in 0..names.sources.len() {
                if !names.fits(source, &key, &segments, &mut bindings)
                    || !self.holds(rule, scope, &key, &bindings)
                {
                    continue;
                }
                let Some((named, open)) = render(&names.targets, &key, &bindings) else {
                    continue;
                };
                for since in self.since.values_mut() {
                    since.taken.extend(named.iter().cloned());
                }
                // A key that has its name already is taken all the same.
                if rule.is_rename() && named.contains(&key) {
                    return vec![key];
                }
                self.trace.open |= open;
                self.hit(&rule.place, &rule.text, &key, captures(rule, &key, &bindings), &named);
                return named;
            }
        }
        vec![key]
    }

    fn holds(&mut self, rule: &'a Rule, scope: &'a Scope, key: &str, bindings: &Bindings) -> bool {
        let Some(condition) = &rule.condition else { return true };
        let holds = truth_of(
            condition,
            &rule.captures,
            (key, bindings),
            &|_| None,
            scope,
            self.environment,
        );
        self.decide(holds, rule.id, key)
    }

    fn selects(&mut self, selection: &Selection, asks: Identity, scope: &Scope, key: &str) -> bool {
        let mut segments = Segments::default();
        segments.split(key);
        for keys in &selection.keys {
            let mut bindings = Bindings::new(keys.captures().len());
            let pattern = keys.known(scope, self.environment);
            if !pattern.matches(key, &segments, &mut bindings)
                || self.excepted(&selection.unless, scope, key)
            {
                continue;
            }
            let Some(condition) = &selection.condition else { return true };
            let holds = truth_of(
                condition,
                keys.captures(),
                (key, &bindings),
                &|_| None,
                scope,
                self.environment,
            );
            if self.decide(holds, asks, key) {
                return true;
            }
        }
        false
    }

    /// Whether exceptions take a key.
    fn excepted(&self, exceptions: &[Keys], scope: &Scope, key: &str) -> bool {
        let mut segments = Segments::default();
        segments.split(key);
        let known = |keys: &Keys| keys.known(scope, self.environment);
        any_matches(&exceptions.iter().map(known).collect::<Vec<_>>(), key, &segments)
    }

    /// Whether a condition holds; either way in turn, if that isn't known.
    fn decide(&mut self, holds: Result<bool, Box<Diagnostic>>, asks: Identity, key: &str) -> bool {
        holds.unwrap_or_else(|_| self.answer(asks, key))
    }

    fn answer(&mut self, asks: Identity, key: &str) -> bool {
        let question = (asks, key.to_owned());
        let at = self.asked.iter().position(|asked| *asked == question).unwrap_or_else(|| {
            self.asked.push(question);
            self.asked.len() - 1
        });
        if at >= self.answers.len() {
            self.answers.push(true);
        }
        self.answers.get(at).copied().unwrap_or(true)
    }

    fn hit(
        &mut self,
        place: &Place,
        text: &str,
        key: &str,
        captures: Vec<(String, String)>,
        targets: &[String],
    ) {
        let (place, text, key) = (place.clone(), text.to_owned(), key.to_owned());
        self.trace.hits.push(Hit { place, text, key, captures, targets: targets.to_vec() });
    }
}

/// A key in which the separator and the dot have changed places.
fn exchange_key(key: &str, separator: char, scope: &Scope) -> String {
    let start = key.len() - below(key, &scope.under).map_or(0, str::len);
    let (under, rest) = key.split_at(start);
    under.chars().chain(rest.chars().map(|c| exchanged(c, separator))).collect()
}

/// The targets that can be named, and whether there are others; `None` if an index leaves its
/// range.
fn render(targets: &[Named<'_>], key: &str, bindings: &Bindings) -> Option<(Vec<String>, bool)> {
    let (mut named, mut open) = (Vec::new(), false);
    for pattern in targets.iter().filter_map(Named::pattern) {
        if pattern.slots().iter().any(|slot| *bindings.get(*slot) == Binding::Unbound) {
            open = true;
        } else {
            named.push(pattern.render(key, bindings)?);
        }
    }
    Some((named, open))
}

fn captures(rule: &Rule, key: &str, bindings: &Bindings) -> Vec<(String, String)> {
    let mut captures = Vec::new();
    for (slot, capture) in (0u16..).map(Slot).zip(&rule.captures) {
        let has_name = capture.name.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        if let Some(value) = value_of(slot, key, bindings, capture).filter(|_| has_name) {
            let text = if let Value::Text(text) = value { text } else { value.to_string() };
            captures.push((capture.name.clone(), text));
        }
    }
    captures
}

/// A key without the wrappers at its front.
fn leading(key: &str, wrappers: &[Vec<String>], scope: &Scope) -> Option<String> {
    let whole = below(key, &scope.under)?;
    let mut rest = whole;
    while let Some(shorter) = wrappers.iter().find_map(|wrapper| without(rest, wrapper)) {
        rest = shorter;
    }
    (rest != whole).then(|| rejoin(&scope.under, &[rest]))
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use serde_json::json;

    use super::*;
    use crate::check::value::{Captures, unknown_facts, unknown_layout};
    use crate::check::{NoIncludes, check};
    use crate::diagnostic::SourceText;

    fn traces(
        text: &str,
        direction: Direction,
        key: &str,
        config: Option<&serde_json::Value>,
    ) -> Vec<Trace> {
        let source = std::sync::Arc::new(SourceText {
            name: "test.graft".to_owned(),
            text: text.to_owned(),
        });
        let rules = check(&source, &NoIncludes).unwrap();
        let parameters = IndexMap::new();
        let environment = Environment {
            config,
            tied: None,
            parameters: &parameters,
            exists: &unknown_layout,
            facts: &unknown_facts,
            captures: Captures::NONE,
        };
        trace(&rules, direction, &[key.to_owned()], &environment)
    }

    #[test]
    fn what_is_not_decided_is_answered_both_ways() {
        let text = "when config.old { rename \"a\" <-> \"b\" }\nwhen config.old { rename \"c\" <-> \"d\" } else { rename \"b\" <-> \"e\" }\n\
                    when config.new { rename \"a\" <-> \"x\" }\n";
        let results = |config: Option<&serde_json::Value>| -> Vec<Vec<String>> {
            traces(text, Direction::Forward, "a", config)
                .into_iter()
                .map(|trace| trace.results)
                .collect()
        };
        // Each condition is a question of its own: two times two times two ways.
        assert_eq!(results(None).len(), 8);
        assert!(
            results(None).contains(&vec!["e".to_owned()])
                && results(None).contains(&vec!["x".to_owned()])
        );
        assert_eq!(results(Some(&json!({"old": true, "new": false}))), [["b"]]);
        assert_eq!(results(Some(&json!({"old": false, "new": true}))), [["x"]]);
    }

    #[test]
    fn hits_tell_the_captures() {
        let text =
            "rename \"{p**}.{l}.w{x: q=>query | k=>key}.{n*}\" <-> \"{p**}.{l+1}.{x}.{n*}\"\n";
        let found = traces(text, Direction::Forward, "a.b.3.wk.bias", None);
        assert_eq!(found[0].results, ["a.b.4.key.bias"]);
        let captures: Vec<(&str, &str)> = found[0].hits[0]
            .captures
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(captures, [("p", "a.b"), ("l", "3"), ("x", "k"), ("n", "bias")]);
        assert_eq!(
            traces(text, Direction::Reverse, "a.b.4.key.bias", None)[0].results,
            ["a.b.3.wk.bias"]
        );
        // An index below zero is none: the key passes through.
        assert_eq!(
            traces(text, Direction::Reverse, "a.b.0.key.bias", None)[0].results,
            ["a.b.0.key.bias"]
        );
    }

    #[test]
    fn what_cannot_be_named_is_open() {
        let text = "map \"{p**}.{e}.w\" <-> \"{p**}.packed\" via stack(e)\n";
        let back = traces(text, Direction::Reverse, "a.packed", None);
        assert!(back[0].open && back[0].results.is_empty());
        let there = traces(text, Direction::Forward, "a.5.w", None);
        assert!(!there[0].open);
        assert_eq!(there[0].results, ["a.packed"]);
    }
}
