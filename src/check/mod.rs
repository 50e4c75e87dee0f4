//! Meaning: from trees to checked [`Rules`]. Names are resolved, every `<->` is shown to have an inverse, and what can't work on any
//! checkpoint is refused here, before one is seen.

mod capture;
mod circle;
mod invertible;
mod lower;
pub mod op;
mod proof;
mod rules;
pub mod value;

pub use lower::{Includes, NoIncludes, NotIncluded, check};
pub use proof::{Idempotence, Twice, idempotence};
pub use rules::{Capture, CaptureKind, Direction, Example, Rule, Rules, Selection, Side, SideItem, Step, StepKind, Tie};

use crate::diagnostic::Diagnostic;
use crate::key::Pattern;
use crate::syntax::ast;
use value::Scope;

/// A pattern that stands by itself, with its captures' names by slot.
///
/// # Errors
/// A pattern that can't mean anything.
pub fn resolve_alone(scope: &Scope, pattern: &ast::Pattern) -> Result<(Pattern, Vec<Capture>), Box<Diagnostic>> {
    let mut table = capture::Table::new(scope);
    table.declare(pattern, capture::SideOf::Left)?;
    let resolved = table.resolve(pattern, capture::SideOf::Left)?;
    Ok((resolved, table.finish()))
}
