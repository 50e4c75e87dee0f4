//! Rules bound to a config and a direction: numbers are known, sources are what is read and targets
//! what is made.

use regex::Regex;

use crate::check::keys::numbers;
use crate::check::op::{Made, OpUse};
use crate::check::value::{Captures, Environment, Scope, Value};
use crate::check::{Capture, CaptureKind, Direction, Keys, Rule, Side, SideItem};
use crate::diagnostic::Diagnostic;
use crate::key::{Binding, Bindings, Pattern, Segments, Slot};
use crate::plan::numbers::{BoundOp, length};
use crate::syntax::ast::Expr;

/// A rule that is ready to apply.
pub(super) struct BoundRule<'a> {
    pub(super) rule: &'a Rule,
    pub(super) sources: Vec<BoundSide<'a>>,
    pub(super) targets: Vec<BoundSide<'a>>,
    /// Between the sources and the targets.
    pub(super) joint: Vec<BoundOp<'a>>,
    /// Source keys that are left alone.
    unless_source: Vec<Pattern>,
    /// Keys that nothing may become.
    unless_target: Vec<Pattern>,
    /// Which captures tell instances apart.
    pub(super) shared: Vec<Slot>,
    /// The range of each index capture that has one.
    pub(super) ranges: Vec<Option<std::ops::Range<u64>>>,
    pub(super) rename: bool,
    /// Its condition asks for keys of the layout that reading backwards gives.
    pub(super) asks_result: bool,
}

/// A key that a rule looks at, with what it has to know of it.
pub(super) struct Looked<'a> {
    pub(super) key: &'a str,
    pub(super) segments: &'a Segments,
    pub(super) shape: &'a [u64],
}

/// A source or target that is ready.
pub(super) struct BoundSide<'a> {
    pub(super) item: BoundItem<'a>,
    /// In the order in which they apply.
    pub(super) ops: Vec<BoundOp<'a>>,
    pub(super) side: &'a Side,
}

pub(super) enum BoundItem<'a> {
    Pattern(Pattern),
    Regex(&'a Regex),
    Made(&'a Made),
}

/// Binds a rule.
///
/// # Errors
/// A number that can't be had, or a range that makes no sense.
pub(super) fn bind<'a>(
    rule: &'a Rule,
    scope: &Scope,
    environment: &Environment<'_>,
    direction: Direction,
) -> Result<BoundRule<'a>, Box<Diagnostic>> {
    let known = numbers(&rule.captures, &rule.numbers, scope, environment)?;
    let reversed = direction == Direction::Reverse;
    let op = |used: &'a OpUse<Expr>| BoundOp::new(used, rule, reversed, scope, environment);
    let side = |side: &'a Side| -> Result<BoundSide<'a>, Box<Diagnostic>> {
        let mut ops = side.ops.iter().map(op).collect::<Result<Vec<_>, _>>()?;
        if reversed {
            ops.reverse();
        }
        let item = match &side.item {
            SideItem::Pattern(pattern) => BoundItem::Pattern(pattern.with_numbers(&known)),
            SideItem::Regex(regex) => BoundItem::Regex(regex),
            SideItem::Made(made) => BoundItem::Made(made),
        };
        Ok(BoundSide { item, ops, side })
    };
    let left = rule.left.iter().map(side).collect::<Result<Vec<_>, _>>()?;
    let right = rule.right.iter().map(side).collect::<Result<Vec<_>, _>>()?;
    let mut joint = rule.joint.iter().map(op).collect::<Result<Vec<_>, _>>()?;
    let (sources, targets, unless_source, unless_target) = if reversed {
        joint.reverse();
        (right, left, &rule.unless_right, &rule.unless_left)
    } else {
        (left, right, &rule.unless_left, &rule.unless_right)
    };
    Ok(BoundRule {
        rule,
        sources,
        targets,
        joint,
        unless_source: Keys::bind_all(unless_source, scope, environment)?,
        unless_target: Keys::bind_all(unless_target, scope, environment)?,
        shared: rule.shared(),
        ranges: known.ranges,
        rename: rule.is_rename(),
        asks_result: reversed
            && rule.condition.as_ref().is_some_and(|condition| {
                condition.asks_layout(&|name| scope.lets.get(name)?.0.as_ref())
            }),
    })
}

impl BoundRule<'_> {
    /// Matches a key with one of the sources; the bindings are left bound if it fits and nothing
    /// forbids it.
    pub(super) fn matches(
        &self,
        source: usize,
        looked: &Looked<'_>,
        bindings: &mut Bindings,
        scope: &Scope,
        environment: &Environment<'_>,
    ) -> Result<bool, Box<Diagnostic>> {
        Ok(self.fits(source, looked, bindings)
            && self.holds(looked, bindings, scope, environment)?)
    }

    /// Whether a key is one that a source may take, if the condition holds.
    pub(super) fn fits(&self, source: usize, looked: &Looked<'_>, bindings: &mut Bindings) -> bool {
        let Looked { key, segments, .. } = *looked;
        bindings.reset(self.rule.captures.len());
        let fits = match self.sources.get(source).map(|side| &side.item) {
            Some(BoundItem::Pattern(pattern)) => pattern.matches(key, segments, bindings),
            Some(BoundItem::Regex(regex)) => regex_matches(regex, key, bindings),
            Some(BoundItem::Made(_)) | None => false,
        };
        fits && !matches_any(&self.unless_source, key, segments)
            && (self.unless_target.is_empty() || !self.leaves_alone(key, bindings))
    }

    /// Whether the condition holds for what a match of a key has bound.
    pub(super) fn holds(
        &self,
        looked: &Looked<'_>,
        bindings: &Bindings,
        scope: &Scope,
        environment: &Environment<'_>,
    ) -> Result<bool, Box<Diagnostic>> {
        let Some(condition) = &self.rule.condition else { return Ok(true) };
        let lengths = |name: &str| match self.rule.knows_lengths() && !scope.lets.contains_key(name)
        {
            true => length(name, looked.shape),
            false => None,
        };
        truth_of(
            condition,
            &self.rule.captures,
            (looked.key, bindings),
            &lengths,
            scope,
            environment,
        )
    }

    /// What a rename makes of a key that it has matched, if there is such a key.
    pub(super) fn renamed(&self, key: &str, bindings: &Bindings) -> Option<String> {
        match &self.targets.first()?.item {
            BoundItem::Pattern(target) => target.render(key, bindings),
            BoundItem::Regex(_) | BoundItem::Made(_) => None,
        }
    }

    /// Whether what the key would become is something that nothing may become.
    fn leaves_alone(&self, key: &str, bindings: &Bindings) -> bool {
        let mut segments = Segments::default();
        self.targets.iter().any(|target| match &target.item {
            BoundItem::Pattern(pattern) => pattern.render(key, bindings).is_some_and(|result| {
                segments.split(&result);
                matches_any(&self.unless_target, &result, &segments)
            }),
            _ => false,
        })
    }

    /// Whether a key looks like a result of it, whatever its condition says.
    pub(super) fn gives(&self, looked: &Looked<'_>) -> bool {
        let mut bindings = Bindings::new(self.rule.captures.len());
        self.targets.iter().any(|target| match &target.item {
            BoundItem::Pattern(pattern) => {
                pattern.matches(looked.key, looked.segments, &mut bindings)
            }
            _ => false,
        })
    }

    /// The pattern of a source.
    pub(super) fn source_pattern(&self, at: usize) -> Option<&Pattern> {
        match &self.sources.get(at)?.item {
            BoundItem::Pattern(pattern) => Some(pattern),
            _ => None,
        }
    }
}

/// Whether a condition holds for what a match of a key has bound; names that are no captures are
/// asked of `others`.
pub(super) fn truth_of(
    condition: &Expr,
    captures: &[Capture],
    (key, bindings): (&str, &Bindings),
    others: &dyn Fn(&str) -> Option<Value>,
    scope: &Scope,
    environment: &Environment<'_>,
) -> Result<bool, Box<Diagnostic>> {
    let value = |name: &str| match captures.iter().position(|capture| capture.name == name) {
        Some(at) => value_of(Slot(u16::try_from(at).ok()?), key, bindings, &captures[at]),
        None => others(name),
    };
    Environment { captures: Captures { known: captures, value: &value }, ..*environment }
        .truth(scope, condition)
}

pub(super) fn value_of(
    slot: Slot,
    key: &str,
    bindings: &Bindings,
    capture: &Capture,
) -> Option<Value> {
    match bindings.get(slot) {
        Binding::Index(value) => i64::try_from(*value).ok().map(Value::Int),
        Binding::Word(which) => match &capture.kind {
            CaptureKind::Words { left, .. } => {
                left.get(usize::from(*which)).cloned().map(Value::Text)
            }
            _ => None,
        },
        Binding::Text(..) | Binding::Owned(_) => {
            bindings.text(slot, key).map(|text| Value::Text(text.to_owned()))
        }
        Binding::Unbound => None,
    }
}

pub(super) fn regex_matches(regex: &Regex, key: &str, bindings: &mut Bindings) -> bool {
    let Some(captures) = regex.captures(key) else { return false };
    for (slot, group) in (0u16..).zip(captures.iter().skip(1)) {
        let text = group.map_or("", |group| group.as_str());
        bindings.set(Slot(slot), Binding::Owned(text.into()));
    }
    true
}

/// Whether any pattern matches; their captures are their own.
pub(super) fn matches_any(patterns: &[Pattern], key: &str, segments: &Segments) -> bool {
    patterns
        .iter()
        .any(|pattern| pattern.matches(key, segments, &mut Bindings::new(pattern.slots().len())))
}
