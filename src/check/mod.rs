//! Meaning: from trees to checked [`Rules`]. Names are resolved, every `<->` is shown to have an
//! inverse, and what can't work on any checkpoint is refused here, before one is seen.

mod capture;
mod circle;
mod invertible;
pub mod keys;
mod lower;
mod number;
pub mod op;
mod proof;
pub mod reading;
mod rules;
mod sight;
pub mod value;

pub use keys::Keys;
pub use lower::{Includes, NoIncludes, NotIncluded, check};
pub use number::Calculated;
pub use proof::{Idempotence, Twice, idempotence, repeats_backwards};
pub use rules::{
    Capture, CaptureKind, Direction, Example, Identity, Rule, Rules, Selection, Shards, Side,
    SideItem, Step, Tie, Whole,
};

use crate::diagnostic::Diagnostic;
use crate::syntax::ast;
use value::Scope;

/// A pattern that stands by itself.
///
/// # Errors
/// A pattern that can't mean anything.
pub fn resolve_alone(scope: &Scope, pattern: &ast::Pattern) -> Result<Keys, Box<Diagnostic>> {
    resolve_within(scope, pattern, &[])
}

/// A pattern in sight of captures, whose names mean those captures in it: they have its first
/// slots.
///
/// # Errors
/// A pattern that can't mean anything, or that has one of these names in another form.
pub fn resolve_within(
    scope: &Scope,
    pattern: &ast::Pattern,
    known: &[Capture],
) -> Result<Keys, Box<Diagnostic>> {
    let mut table = capture::Table::within(scope, known, pattern.span);
    table.declare(pattern, capture::SideOf::Left)?;
    let resolved = table.resolve(pattern, capture::SideOf::Left)?;
    let (captures, numbers) = table.finish();
    Ok(Keys::new(resolved, captures.into(), numbers.into()))
}
