//! Meaning: from trees to checked [`Rules`]. Names are resolved, every `<->` is shown to have an
//! inverse, and what can't work on any checkpoint is refused here, before one is seen.

mod capture;
mod circle;
mod facts;
mod invertible;
pub mod keys;
mod lower;
mod number;
pub mod op;
mod proof;
pub mod reading;
mod rules;
mod sight;
pub mod takes;
pub mod value;

pub use facts::{Question, What};
pub use keys::Keys;
pub(crate) use lower::check_proven;
pub use lower::{Includes, NoIncludes, NotIncluded, check, check_partly};
pub use number::Calculated;
pub use proof::{Idempotence, Twice, idempotence, repeats_backwards};
pub use rules::{
    Capture, CaptureKind, Direction, Example, Identity, Rule, Rules, Selection, Shards, Side,
    SideItem, Step, Tie, Whole,
};

use std::sync::Arc;

use crate::diagnostic::codes::SYNTAX;
use crate::diagnostic::{Diagnostic, Diagnostics, SourceText};
use crate::key::Pattern;
use crate::syntax::{ast, parse};
use value::Scope;

/// A pattern that is given by itself, outside of any rule file. Its ranges are of numbers.
///
/// # Errors
/// What is no pattern, or can't mean anything.
pub fn pattern_of(text: &str) -> Result<Pattern, Diagnostics> {
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    let kept = format!("keep \"{quoted}\"");
    let source = Arc::new(SourceText { name: "pattern".to_owned(), text: kept });
    let parsed = parse(Arc::clone(&source));
    if !parsed.diagnostics.is_empty() {
        return Err(Diagnostics(parsed.diagnostics));
    }
    let [ast::Statement { kind: ast::StatementKind::Keep(selection), .. }] =
        &parsed.file.statements[..]
    else {
        return Err(no_pattern(text));
    };
    let [pattern] = &selection.patterns[..] else { return Err(no_pattern(text)) };
    let scope = Scope::alone(source);
    resolve_alone(&scope, pattern)
        .and_then(|keys| value::with_nothing(|environment| keys.bind(&scope, environment)))
        .map_err(|finding| Diagnostics(vec![*finding]))
}

fn no_pattern(text: &str) -> Diagnostics {
    Diagnostics(vec![Diagnostic::error(SYNTAX, format!("{text:?} is no pattern of keys"))])
}

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
