//! Rules bound to a config and a direction: numbers are known, sources are what is read and targets
//! what is made.

use crate::check::op::OpUse;
use crate::check::reading::ReadRule;
use crate::check::takes::{Named, Takes};
use crate::check::value::{Captures, Environment, Scope, Value};
use crate::check::{Capture, CaptureKind, Direction, Rule, Side};
use crate::diagnostic::Diagnostic;
use crate::key::{Binding, Bindings, Segments, Slot};
use crate::plan::numbers::{BoundOp, length};
use crate::syntax::ast::Expr;

/// A rule that is ready to apply.
pub(super) struct BoundRule<'a> {
    pub(super) rule: &'a Rule,
    /// Which keys it takes and gives.
    pub(super) names: Takes<'a>,
    pub(super) sources: Vec<BoundSide<'a>>,
    pub(super) targets: Vec<BoundSide<'a>>,
    /// Between the sources and the targets.
    pub(super) joint: Vec<BoundOp<'a>>,
    /// Which captures tell instances apart.
    pub(super) shared: Vec<Slot>,
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

/// A source or target that is ready, but for its name.
pub(super) struct BoundSide<'a> {
    /// In the order in which they apply.
    pub(super) ops: Vec<BoundOp<'a>>,
    pub(super) side: &'a Side,
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
    let names = Takes::bound(ReadRule { rule, direction }, scope, environment)?;
    let reversed = direction == Direction::Reverse;
    let op = |used: &'a OpUse<Expr>| BoundOp::new(used, rule, reversed, scope, environment);
    let side = |side: &'a Side| -> Result<BoundSide<'a>, Box<Diagnostic>> {
        let mut ops = side.ops.iter().map(op).collect::<Result<Vec<_>, _>>()?;
        if reversed {
            ops.reverse();
        }
        Ok(BoundSide { ops, side })
    };
    let left = rule.left.iter().map(side).collect::<Result<Vec<_>, _>>()?;
    let right = rule.right.iter().map(side).collect::<Result<Vec<_>, _>>()?;
    let mut joint = rule.joint.iter().map(op).collect::<Result<Vec<_>, _>>()?;
    let (sources, targets) = if reversed {
        joint.reverse();
        (right, left)
    } else {
        (left, right)
    };
    Ok(BoundRule {
        rule,
        names,
        sources,
        targets,
        joint,
        shared: rule.shared(),
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
        self.names.fits(source, looked.key, looked.segments, bindings)
    }

    /// Whether the name of a source says more than how many segments a key has.
    pub(super) fn takes_by_name(&self, source: usize) -> bool {
        let pattern = self.names.sources.get(source).and_then(Named::pattern);
        pattern.is_some_and(|pattern| pattern.literals().next().is_some())
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
