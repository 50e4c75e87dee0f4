//! [`Takes`]: which keys a rule takes, as far as names say it. It is decided here, once: plans,
//! traces and proofs differ in what they know of numbers and conditions, and in nothing else.

use std::borrow::Cow;
use std::ops::Range;

use regex::Regex;

use super::keys::{Keys, known_numbers, numbers};
use super::op::Made;
use super::reading::ReadRule;
use super::rules::{Rule, Side, SideItem};
use super::value::{Environment, Scope};
use crate::diagnostic::Diagnostic;
use crate::key::{Binding, Bindings, Numbers, Pattern, Segments, Slot};

/// The names of a rule's sources and targets, and of what it leaves alone, with as much of their
/// numbers as is known.
pub struct Takes<'r> {
    /// How many captures it has.
    captures: usize,
    /// What it takes.
    pub sources: Vec<Named<'r>>,
    /// What it gives.
    pub targets: Vec<Named<'r>>,
    /// Keys that are left alone.
    unless_source: Vec<Cow<'r, Pattern>>,
    /// Keys that nothing may become.
    unless_target: Vec<Cow<'r, Pattern>>,
    /// The range of each index capture that has one.
    pub ranges: Vec<Option<Range<u64>>>,
}

/// A source or target by name.
pub enum Named<'r> {
    /// A pattern.
    Pattern(Cow<'r, Pattern>),
    /// A regular expression.
    Regex(&'r Regex),
    /// A tensor that is made: no key.
    Made(&'r Made),
}

impl<'r> Named<'r> {
    fn new(side: &'r Side, known: Option<&Numbers>) -> Self {
        match &side.item {
            SideItem::Pattern(pattern) => Self::Pattern(match known {
                Some(known) => Cow::Owned(pattern.with_numbers(known)),
                None => Cow::Borrowed(pattern),
            }),
            SideItem::Regex(regex) => Self::Regex(regex),
            SideItem::Made(made) => Self::Made(made),
        }
    }

    /// The pattern, if it is one.
    pub fn pattern(&self) -> Option<&Pattern> {
        match self {
            Self::Pattern(pattern) => Some(pattern),
            Self::Regex(_) | Self::Made(_) => None,
        }
    }
}

impl<'r> Takes<'r> {
    /// With all numbers.
    ///
    /// # Errors
    /// A number that can't be worked out, or a range that makes no sense.
    pub fn bound(
        read: ReadRule<'r>,
        scope: &Scope,
        environment: &Environment<'_>,
    ) -> Result<Self, Box<Diagnostic>> {
        let ReadRule { rule, .. } = read;
        let known = numbers(&rule.captures, &rule.numbers, scope, environment)?;
        let keys = |keys: &'r Keys| keys.bind(scope, environment).map(Cow::Owned);
        let mut takes = Self::new(read, Some(&known), keys)?;
        takes.ranges = known.ranges;
        Ok(takes)
    }

    /// With those numbers that the facts at hand say.
    pub fn known(read: ReadRule<'r>, scope: &Scope, environment: &Environment<'_>) -> Self {
        let ReadRule { rule, .. } = read;
        let known = known_numbers(&rule.captures, &rule.numbers, scope, environment);
        let keys = |keys: &'r Keys| Cow::Owned(keys.known(scope, environment));
        Self::surely(read, Some(&known), keys)
    }

    /// Without numbers: every range is open.
    pub fn loosely(read: ReadRule<'r>) -> Self {
        Self::surely(read, None, |keys| Cow::Borrowed(keys.without_ranges()))
    }

    fn surely(
        read: ReadRule<'r>,
        known: Option<&Numbers>,
        keys: impl Fn(&'r Keys) -> Cow<'r, Pattern>,
    ) -> Self {
        let made = Self::new(read, known, |it| Ok::<_, std::convert::Infallible>(keys(it)));
        let Ok(made) = made;
        made
    }

    fn new<E>(
        read: ReadRule<'r>,
        known: Option<&Numbers>,
        keys: impl Fn(&'r Keys) -> Result<Cow<'r, Pattern>, E>,
    ) -> Result<Self, E> {
        let sides = |sides: &'r [Side]| sides.iter().map(|side| Named::new(side, known)).collect();
        Ok(Self {
            captures: read.rule.captures.len(),
            sources: sides(read.sources()),
            targets: sides(read.targets()),
            unless_source: read.unless_source().iter().map(&keys).collect::<Result<_, _>>()?,
            unless_target: read.unless_target().iter().map(&keys).collect::<Result<_, _>>()?,
            ranges: Vec::new(),
        })
    }

    /// Whether a key is one that a source may take, if the rule's condition holds; what it captures
    /// is left in the bindings.
    pub fn fits(
        &self,
        source: usize,
        key: &str,
        segments: &Segments,
        bindings: &mut Bindings,
    ) -> bool {
        bindings.reset(self.captures);
        let fits = match self.sources.get(source) {
            Some(Named::Pattern(pattern)) => pattern.matches(key, segments, bindings),
            Some(Named::Regex(regex)) => regex_matches(regex, key, bindings),
            Some(Named::Made(_)) | None => false,
        };
        fits && !any_matches(&self.unless_source, key, segments)
            && (self.unless_target.is_empty() || !self.leaves_alone(key, bindings))
    }

    /// Whether what a key would become is something that nothing may become.
    fn leaves_alone(&self, key: &str, bindings: &Bindings) -> bool {
        let mut segments = Segments::default();
        self.targets.iter().filter_map(Named::pattern).any(|target| {
            target.render(key, bindings).is_some_and(|result| {
                segments.split(&result);
                any_matches(&self.unless_target, &result, &segments)
            })
        })
    }

    /// What a rename makes of a key that fits, if there is such a key.
    pub fn renamed(&self, key: &str, bindings: &Bindings) -> Option<String> {
        self.targets.first()?.pattern()?.render(key, bindings)
    }

    /// Whether a key looks like a result, whatever is left alone.
    pub fn gives(&self, key: &str, segments: &Segments) -> bool {
        let mut targets = self.targets.iter().filter_map(Named::pattern);
        targets.any(|target| target.matches(key, segments, &mut Bindings::new(self.captures)))
    }
}

impl Rule {
    /// Gives the first word, number or text to captures that nothing bound, such as those that an
    /// op makes.
    pub(super) fn bind_rest(&self, bindings: &mut Bindings) {
        for (slot, capture) in (0u16..).map(Slot).zip(&self.captures) {
            if *bindings.get(slot) == Binding::Unbound {
                bindings.set(slot, capture.zero());
            }
        }
    }
}

fn regex_matches(regex: &Regex, key: &str, bindings: &mut Bindings) -> bool {
    let Some(captures) = regex.captures(key) else { return false };
    for (slot, group) in (0u16..).zip(captures.iter().skip(1)) {
        let text = group.map_or("", |group| group.as_str());
        bindings.set(Slot(slot), Binding::Owned(text.into()));
    }
    true
}

/// Whether any pattern matches; their captures are their own.
pub fn any_matches(
    patterns: &[impl std::borrow::Borrow<Pattern>],
    key: &str,
    segments: &Segments,
) -> bool {
    patterns.iter().map(std::borrow::Borrow::borrow).any(|pattern: &Pattern| {
        pattern.matches(key, segments, &mut Bindings::new(pattern.slots().len()))
    })
}
