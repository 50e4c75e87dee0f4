//! Numbers of patterns that are calculated: from captures, `let`s and fields of a config.
//!
//! Where a pattern is matched, the number has to tell what its captures hold, so it is a sum of them
//! with factors. Where a key is only made, anything goes that calculates. What factors and summands
//! are may hang on a config, so that it's known only once rules are bound.

use std::collections::BTreeMap;
use std::ops::Range;

use super::value::{Environment, Scope};
use crate::diagnostic::codes::NOT_INVERTIBLE_ARITHMETIC;
use crate::diagnostic::{Diagnostic, Span};
use crate::key::{Arithmetic, Atom, Calculation, Number, Slot, Sum, Term};
use crate::syntax::ast::{BinaryOp, Expr, ExprKind, UnaryOp};

/// A calculated number as it is written.
#[derive(Clone, Debug)]
pub struct Calculated {
    expr: Expr,
    /// Its captures, by name.
    captures: Vec<(String, Slot)>,
    /// Whether it must tell what its captures hold.
    solved: bool,
    span: Span,
}

/// What is wrong with a number whose captures can't be told from it.
const NO_SUM: &str = "this arithmetic can't be inverted";
const NOT_TOLD: &str = "this number doesn't tell what its captures are";

/// A sum of captures with factors.
struct Linear {
    factors: BTreeMap<Slot, i64>,
    add: i64,
}

impl Calculated {
    /// From an expression; `slot` knows which of its names are captures.
    ///
    /// # Errors
    /// One that can't be a number, or that doesn't tell what its captures are where it has to.
    pub(super) fn new(
        expr: Expr,
        span: Span,
        solved: bool,
        slot: &dyn Fn(&str) -> Option<Slot>,
        scope: &Scope,
    ) -> Result<Self, Box<Diagnostic>> {
        let mut captures: Vec<(String, Slot)> = Vec::new();
        expr.walk(&mut |part| {
            if let ExprKind::Name(name) = &part.kind
                && let Some(slot) = slot(name)
                && !captures.iter().any(|(known, _)| known == name)
            {
                captures.push((name.clone(), slot));
            }
        });
        let number = Self { expr, captures, solved, span };
        match number.degree(&number.expr) {
            None => {
                let label = "calculated with `+ - * / %` only";
                Err(Box::new(number.wrong(scope, "this can't be a number of a key", label)))
            }
            Some(2..) if solved => {
                let label = "must be a sum of captures, each with a factor";
                Err(Box::new(number.wrong(scope, NO_SUM, label).hint(
                    "write one of {l}, {l+1}, {2*l+1}, {2*l+j} with {j: 0..2}; only the right side of a `->` rule may calculate anything",
                )))
            }
            _ => Ok(number),
        }
    }

    /// The captures that it is calculated from.
    pub(super) fn slots(&self) -> Box<[Slot]> {
        self.captures.iter().map(|(_, slot)| *slot).collect()
    }

    /// Whether only a config, or a parameter, tells what it is.
    pub(super) fn is_open(&self) -> bool {
        let mut open = false;
        self.expr.walk(&mut |part| {
            open |= match &part.kind {
                ExprKind::Name(name) => self.capture(name).is_none(),
                kind => matches!(
                    kind,
                    ExprKind::Config(_)
                        | ExprKind::Tied
                        | ExprKind::Exists(_)
                        | ExprKind::Size(..)
                        | ExprKind::Count(..)
                ),
            };
        });
        open
    }

    /// What it is where ranges are known, as the `which`th of its pattern.
    ///
    /// # Errors
    /// A part of it that can't be worked out, or captures that its number doesn't tell apart.
    pub(super) fn atom(
        &self,
        which: u16,
        ranges: &[Option<Range<u64>>],
        scope: &Scope,
        environment: &Environment<'_>,
    ) -> Result<Atom, Box<Diagnostic>> {
        let calculated = |number| Atom::Calculated { which, slots: self.slots(), number };
        if !self.solved {
            return Ok(calculated(Number::Calculation(self.calculation(
                &self.expr,
                scope,
                environment,
            )?)));
        }
        let Linear { factors, add } = self.linear(&self.expr, scope, environment)?;
        let range = |slot: Slot| ranges.get(usize::from(slot.0)).cloned().flatten();
        let term = |(slot, factor)| Term { slot, factor, range: range(slot) };
        let terms: Vec<Term> = factors.into_iter().map(term).collect();
        let sum = Sum::new(terms, add).ok_or_else(|| self.not_told(scope))?;
        Ok(match sum.terms() {
            [] if add >= 0 => Atom::Text(add.to_string().into()),
            [Term { slot, factor, range }] => {
                Atom::Index { slot: *slot, mul: *factor, add, range: range.clone() }
            }
            _ => calculated(Number::Sum(sum)),
        })
    }

    fn wrong(&self, scope: &Scope, message: &str, label: &str) -> Diagnostic {
        Diagnostic::error(NOT_INVERTIBLE_ARITHMETIC, message).at(scope.place(self.span), label)
    }

    fn not_told(&self, scope: &Scope) -> Box<Diagnostic> {
        let finding = self.wrong(scope, NOT_TOLD, "two choices of them may give one number");
        Box::new(finding.hint(
            "bound the capture of the smaller factor, so that it adds less than the greater factor: {2*i+j} with {j: 0..2}",
        ))
    }

    fn capture(&self, name: &str) -> Option<Slot> {
        self.captures.iter().find(|(known, _)| known == name).map(|(_, slot)| *slot)
    }

    fn has_capture(&self, expr: &Expr) -> bool {
        let mut has = false;
        expr.walk(&mut |part| {
            has |= matches!(&part.kind, ExprKind::Name(name) if self.capture(name).is_some());
        });
        has
    }

    /// 0 for a number, 1 for a sum of captures, 2 for other arithmetic; `None` for anything else.
    fn degree(&self, expr: &Expr) -> Option<u8> {
        if !self.has_capture(expr) {
            return Some(0);
        }
        match &expr.kind {
            ExprKind::Name(_) => Some(1),
            ExprKind::Paren(inner) | ExprKind::Unary(UnaryOp::Neg, inner) => self.degree(inner),
            ExprKind::Binary(op, left, right) => {
                let (left, right) = (self.degree(left)?, self.degree(right)?);
                match op {
                    BinaryOp::Add | BinaryOp::Sub => Some(left.max(right)),
                    BinaryOp::Mul => Some((left + right).min(2)),
                    BinaryOp::Div | BinaryOp::Rem => Some(2),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// As a sum of captures with factors.
    fn linear(
        &self,
        expr: &Expr,
        scope: &Scope,
        environment: &Environment<'_>,
    ) -> Result<Linear, Box<Diagnostic>> {
        let of = |expr: &Expr| self.linear(expr, scope, environment);
        let too_large = || Box::new(self.wrong(scope, "this overflows", "too large"));
        match &expr.kind {
            _ if !self.has_capture(expr) => {
                Ok(Linear { factors: BTreeMap::new(), add: environment.int(scope, expr)? })
            }
            ExprKind::Name(name) => {
                let factors = self.capture(name).map(|slot| (slot, 1)).into_iter().collect();
                Ok(Linear { factors, add: 0 })
            }
            ExprKind::Paren(inner) => of(inner),
            ExprKind::Unary(UnaryOp::Neg, inner) => of(inner)?.scaled(-1).ok_or_else(too_large),
            ExprKind::Binary(BinaryOp::Add, left, right) => {
                of(left)?.plus(of(right)?).ok_or_else(too_large)
            }
            ExprKind::Binary(BinaryOp::Sub, left, right) => {
                let (left, right) = (of(left)?, of(right)?.scaled(-1));
                right.and_then(|right| left.plus(right)).ok_or_else(too_large)
            }
            ExprKind::Binary(BinaryOp::Mul, left, right) => {
                let (left, right) = (of(left)?, of(right)?);
                let (factor, other) =
                    if left.factors.is_empty() { (left.add, right) } else { (right.add, left) };
                other.scaled(factor).ok_or_else(too_large)
            }
            // Its degree was looked at.
            _ => Err(Box::new(self.wrong(scope, NO_SUM, "here"))),
        }
    }

    /// As steps from captures to a number.
    fn calculation(
        &self,
        expr: &Expr,
        scope: &Scope,
        environment: &Environment<'_>,
    ) -> Result<Calculation, Box<Diagnostic>> {
        let of = |expr: &Expr| self.calculation(expr, scope, environment);
        let both =
            |arithmetic, left, right| Ok(Calculation::Both(arithmetic, Box::new([left, right])));
        match &expr.kind {
            _ if !self.has_capture(expr) => Ok(Calculation::Number(environment.int(scope, expr)?)),
            ExprKind::Paren(inner) => of(inner),
            ExprKind::Unary(UnaryOp::Neg, inner) => {
                both(Arithmetic::Subtract, Calculation::Number(0), of(inner)?)
            }
            ExprKind::Binary(op, left, right) => {
                let arithmetic = match op {
                    BinaryOp::Add => Arithmetic::Add,
                    BinaryOp::Sub => Arithmetic::Subtract,
                    BinaryOp::Mul => Arithmetic::Multiply,
                    BinaryOp::Div => Arithmetic::Divide,
                    _ => Arithmetic::Remainder,
                };
                both(arithmetic, of(left)?, of(right)?)
            }
            ExprKind::Name(name) => {
                let slot = self.capture(name);
                slot.map(Calculation::Capture)
                    .ok_or_else(|| Box::new(self.wrong(scope, "not a capture", "here")))
            }
            // Its degree was looked at.
            _ => Err(Box::new(self.wrong(scope, "this can't be a number of a key", "here"))),
        }
    }
}

impl Linear {
    fn scaled(mut self, factor: i64) -> Option<Self> {
        for one in self.factors.values_mut() {
            *one = one.checked_mul(factor)?;
        }
        Some(Self { add: self.add.checked_mul(factor)?, ..self })
    }

    fn plus(mut self, other: Self) -> Option<Self> {
        for (slot, factor) in other.factors {
            let one = self.factors.entry(slot).or_insert(0);
            *one = one.checked_add(factor)?;
        }
        Some(Self { add: self.add.checked_add(other.add)?, ..self })
    }
}
