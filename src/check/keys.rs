//! [`Keys`]: a pattern as a statement has it, with captures of its own.
//!
//! The bounds of a range are expressions, which only a config or a parameter may decide. So such a
//! pattern can't match a key until it's bound, and every statement that takes patterns binds them
//! here.

use std::ops::Range;
use std::sync::Arc;

use super::rules::{Capture, CaptureKind};
use super::value::{Environment, Scope};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::BAD_VALUE;
use crate::key::Pattern;
use crate::syntax::ast::Expr;

/// A pattern whose ranges are expressions.
#[derive(Clone, Debug)]
pub struct Keys {
    pattern: Pattern,
    captures: Arc<[Capture]>,
}

impl Keys {
    /// From a pattern and its captures by slot.
    pub(super) fn new(pattern: Pattern, captures: Arc<[Capture]>) -> Self {
        Self { pattern, captures }
    }

    /// The captures, by slot. Patterns of one `tie` share theirs.
    pub fn captures(&self) -> &[Capture] {
        &self.captures
    }

    /// The pattern without its ranges, which at least the keys that it takes fit.
    pub fn without_ranges(&self) -> &Pattern {
        &self.pattern
    }

    /// Whether a range may forbid a key that fits otherwise.
    pub fn has_range(&self) -> bool {
        self.captures.iter().any(Capture::has_range)
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
        Ok(self.pattern.with_ranges(&ranges(&self.captures, scope, environment)?))
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

/// The range of each capture that has one.
///
/// # Errors
/// A bound that can't be worked out, or is below zero.
pub fn ranges(
    captures: &[Capture],
    scope: &Scope,
    environment: &Environment<'_>,
) -> Result<Vec<Option<Range<u64>>>, Box<Diagnostic>> {
    captures.iter().map(|capture| range(&capture.kind, scope, environment)).collect()
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
