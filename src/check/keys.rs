//! [`Keys`]: a pattern as a statement has it, with captures of its own.
//!
//! The bounds of a range are expressions, which only a config or a parameter may decide, and so are
//! numbers that are calculated. So such a pattern can't match a key until it's bound, and every
//! statement that takes patterns binds them here.

use std::ops::Range;
use std::sync::Arc;

use super::number::Calculated;
use super::rules::{Capture, CaptureKind};
use super::value::{Environment, Scope};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::BAD_VALUE;
use crate::key::{Numbers, Pattern};
use crate::syntax::ast::Expr;

/// A pattern whose ranges and calculated numbers are expressions.
#[derive(Clone, Debug)]
pub struct Keys {
    pattern: Pattern,
    captures: Arc<[Capture]>,
    numbers: Arc<[Calculated]>,
}

impl Keys {
    /// From a pattern, its captures by slot, and its calculated numbers.
    pub(super) fn new(
        pattern: Pattern,
        captures: Arc<[Capture]>,
        numbers: Arc<[Calculated]>,
    ) -> Self {
        Self { pattern, captures, numbers }
    }

    /// The captures, by slot. Patterns of one `tie` share theirs.
    pub fn captures(&self) -> &[Capture] {
        &self.captures
    }

    /// Its calculated numbers. Patterns of one `tie` share theirs.
    pub fn numbers(&self) -> &[Calculated] {
        &self.numbers
    }

    /// The pattern without its ranges, which at least the keys that it takes fit.
    pub fn without_ranges(&self) -> &Pattern {
        &self.pattern
    }

    /// Whether a range, or a calculated number, may forbid a key that fits otherwise.
    pub fn has_range(&self) -> bool {
        !self.numbers.is_empty() || self.captures.iter().any(Capture::has_range)
    }

    /// The pattern as it matches keys.
    ///
    /// # Errors
    /// A bound of a range that can't be worked out, or is below zero.
    pub fn bind(
        &self,
        scope: &Scope,
        environment: &Environment<'_>,
    ) -> Result<Pattern, Box<Diagnostic>> {
        if !self.has_range() {
            return Ok(self.pattern.clone());
        }
        Ok(self.pattern.with_numbers(&numbers(&self.captures, &self.numbers, scope, environment)?))
    }

    /// As [`Keys::bind`], with those numbers that can be worked out.
    pub fn known(&self, scope: &Scope, environment: &Environment<'_>) -> Pattern {
        let known = known_numbers(&self.captures, &self.numbers, scope, environment);
        self.pattern.with_numbers(&known)
    }

    /// Binds many.
    ///
    /// # Errors
    /// As [`Keys::bind`].
    pub fn bind_all(
        keys: &[Keys],
        scope: &Scope,
        environment: &Environment<'_>,
    ) -> Result<Vec<Pattern>, Box<Diagnostic>> {
        keys.iter().map(|keys| keys.bind(scope, environment)).collect()
    }
}

/// The range of each capture that has one, and what calculated numbers are.
///
/// # Errors
/// A bound that can't be worked out, or is below zero; a number that can't be worked out.
pub fn numbers(
    captures: &[Capture],
    calculated: &[Calculated],
    scope: &Scope,
    environment: &Environment<'_>,
) -> Result<Numbers, Box<Diagnostic>> {
    let ranges: Vec<Option<Range<u64>>> = captures
        .iter()
        .map(|capture| range(&capture.kind, scope, environment))
        .collect::<Result<_, _>>()?;
    let calculated = (0u16..)
        .zip(calculated)
        .map(|(which, number)| number.atom(which, &ranges, scope, environment).map(Some))
        .collect::<Result<_, _>>()?;
    Ok(Numbers { ranges, calculated })
}

/// As [`numbers`], without what can't be worked out.
pub fn known_numbers(
    captures: &[Capture],
    calculated: &[Calculated],
    scope: &Scope,
    environment: &Environment<'_>,
) -> Numbers {
    let range = |capture: &Capture| range(&capture.kind, scope, environment).ok().flatten();
    let ranges: Vec<Option<Range<u64>>> = captures.iter().map(range).collect();
    let calculated = (0u16..)
        .zip(calculated)
        .map(|(which, number)| number.atom(which, &ranges, scope, environment).ok())
        .collect();
    Numbers { ranges, calculated }
}

fn range(
    kind: &CaptureKind,
    scope: &Scope,
    environment: &Environment<'_>,
) -> Result<Option<Range<u64>>, Box<Diagnostic>> {
    let CaptureKind::Index(Some((start, end))) = kind else { return Ok(None) };
    let bound = |expr: &Expr| {
        let value = environment.int(scope, expr)?;
        u64::try_from(value).map_err(|_| {
            Box::new(
                Diagnostic::error(BAD_VALUE, format!("a range can't go below zero, to {value}"))
                    .at(scope.place(expr.span), "here"),
            )
        })
    };
    Ok(Some(bound(start)?..bound(end)?))
}
