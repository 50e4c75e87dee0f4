//! The numbers of an op: those that a config tells are known once its rule is bound, those that hang on
//! captures or on a tensor only where the op is applied.

use std::borrow::Cow;

use crate::check::op::{Arity, Call, OpKind, OpUse};
use crate::check::value::{Captures, Environment, LENGTHS, Scope, Value, names};
use crate::check::{Capture, Rule};
use crate::diagnostic::codes::{BAD_VALUE, NOT_INVERTIBLE};
use crate::diagnostic::{Diagnostic, Place};
use crate::key::{Bindings, Slot};
use crate::plan::bind::value_of;
use crate::plan::lower::Number;
use crate::syntax::ast::{Arrow, Expr};
use crate::syntax::op::ParameterKind;
use crate::tensor::Shape;

/// An op of a rule that is bound to a config and a direction.
pub(super) struct BoundOp<'a> {
    op: Call<Expr>,
    /// Its numbers, if config and shapes of the layout tell them.
    known: Option<Call<Number>>,
    /// Whether it asks for the lengths of its tensor.
    asks_lengths: bool,
    /// Whether the rule can be read the other way.
    two_way: bool,
    pub(super) place: &'a Place,
}

impl<'a> BoundOp<'a> {
    /// Binds an op, or the one that undoes it.
    ///
    /// # Errors
    /// An op that nothing undoes.
    pub(super) fn new(
        used: &'a OpUse<Expr>,
        rule: &Rule,
        inverted: bool,
        scope: &Scope,
        environment: &Environment<'_>,
    ) -> Result<Self, Box<Diagnostic>> {
        let op = if inverted {
            used.op.inverse().map_err(|why| {
                let finding = Diagnostic::error(NOT_INVERTIBLE, why.reason());
                Box::new(finding.at(used.place.clone(), "here"))
            })?
        } else {
            used.op.clone()
        };
        let (mut asks_lengths, mut asks_captures) = (false, false);
        op.try_map(&mut |expr: &Expr| {
            let mut found = Vec::new();
            names(expr, &mut found);
            for (name, _) in found.into_iter().filter(|(name, _)| !scope.lets.contains_key(*name)) {
                asks_lengths |= LENGTHS.contains(&name);
                asks_captures |= rule.captures.iter().any(|capture| capture.name == name);
            }
            Ok::<(), Box<Diagnostic>>(())
        })?;
        // One that can't be had is missed where the op is applied: a part of a checkpoint may lack
        // what tells it, and what needs it.
        let known = match asks_lengths || asks_captures {
            true => None,
            false => evaluated(&op, scope, environment).ok(),
        };
        let two_way = rule.arrow == Arrow::TwoWay;
        Ok(Self { op, known, asks_lengths, two_way, place: &used.place })
    }

    /// Which op it is.
    pub(super) fn kind(&self) -> OpKind {
        self.op.kind
    }

    /// How many tensors it takes and gives.
    pub(super) fn arity(&self) -> Arity {
        self.op.arity()
    }

    /// Its numbers for a tensor of an instance.
    ///
    /// # Errors
    /// A number that can't be had.
    pub(super) fn numbers(
        &self,
        captures: &[Capture],
        bindings: &Bindings,
        shape: &Shape,
        scope: &Scope,
        environment: &Environment<'_>,
    ) -> Result<Cow<'_, Call<Number>>, Box<Diagnostic>> {
        if let Some(known) = &self.known {
            return Ok(Cow::Borrowed(known));
        }
        let value = |name: &str| shown(name, captures, bindings, shape, scope);
        let environment =
            Environment { captures: Captures { known: captures, value: &value }, ..*environment };
        evaluated(&self.op, scope, &environment).map(Cow::Owned)
    }

    /// Whether its numbers must be the same for the tensor that comes out, as reading the other way
    /// asks that one for its lengths.
    pub(super) fn must_keep_numbers(&self) -> bool {
        self.two_way && self.asks_lengths
    }
}

/// What a name of an argument that is no `let` stands for: a length of the tensor, or what a capture
/// of the instance holds.
pub(super) fn shown(
    name: &str,
    captures: &[Capture],
    bindings: &Bindings,
    shape: &Shape,
    scope: &Scope,
) -> Option<Value> {
    if scope.lets.contains_key(name) {
        return None;
    }
    match captures.iter().position(|capture| capture.name == name) {
        Some(at) => value_of(Slot(u16::try_from(at).ok()?), "", bindings, &captures[at]),
        None => length(name, shape),
    }
}

/// The length that a name stands for: null if the tensor has fewer dimensions.
pub(super) fn length(name: &str, shape: &[u64]) -> Option<Value> {
    let dim = LENGTHS.iter().position(|known| *known == name)?;
    Some(
        shape
            .get(dim)
            .and_then(|length| i64::try_from(*length).ok())
            .map_or(Value::Null, Value::Int),
    )
}

fn evaluated(
    op: &Call<Expr>,
    scope: &Scope,
    environment: &Environment<'_>,
) -> Result<Call<Number>, Box<Diagnostic>> {
    let parameters = op.kind.row().parameters;
    let takes_flags = parameters.iter().any(|one| one.kind == ParameterKind::Flag);
    op.try_map(&mut |expr: &Expr| match environment.eval(scope, expr)? {
        Value::Int(value) => Ok(Number::Int(value)),
        Value::Float(value) => Ok(Number::Float(value)),
        Value::Bool(value) if takes_flags => Ok(Number::Int(value.into())),
        other => Err(Box::new(
            Diagnostic::error(BAD_VALUE, format!("expected a number, found {}", other.kind()))
                .at(scope.place(expr.span), "here"),
        )),
    })
}
