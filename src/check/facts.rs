//! What `let`s ask of the shapes and keys of the layout that is read: `size` and `count`.

use super::resolve_alone;
use super::{Keys, value::Scope};
use crate::diagnostic::codes::{NOT_SUPPORTED, UNKNOWN_NAME};
use crate::diagnostic::{Diagnostic, Span, did_you_mean};
use crate::key::Slot;
use crate::syntax::ast::{Expr, ExprKind};

/// A `size` or `count` of a `let`.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where it is asked.
    pub span: Span,
    /// Of which keys.
    pub keys: Keys,
    /// What.
    pub what: What,
}

/// What is asked of the keys that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// How long this dimension of their tensors is.
    Size(u64),
    /// How many values this capture has.
    Count(Slot),
}

/// The questions of a `let`; what is wrong with others.
pub(super) fn questions(scope: &Scope, value: &Expr, found: &mut Vec<Question>) -> Vec<Diagnostic> {
    let mut failed = Vec::new();
    value.walk(&mut |part| match question(scope, part) {
        Ok(question) => found.extend(question),
        Err(finding) => failed.push(*finding),
    });
    failed
}

fn question(scope: &Scope, expr: &Expr) -> Result<Option<Question>, Box<Diagnostic>> {
    let span = expr.span;
    match &expr.kind {
        ExprKind::Size(pattern, dim) => {
            let keys = resolve_alone(scope, pattern)?;
            Ok(Some(Question { span, keys, what: What::Size(*dim) }))
        }
        ExprKind::Count(pattern, capture) => {
            let keys = resolve_alone(scope, pattern)?;
            let named = (0u16..).zip(keys.captures()).find(|(_, one)| one.name == capture.text);
            let Some((slot, _)) = named else {
                let message = format!("the pattern has no capture `{}`", capture.text);
                let (finding, place) =
                    (Diagnostic::error(UNKNOWN_NAME, message), scope.place(capture.span));
                let finding = finding.at(place.clone(), "not in it");
                let names = keys.captures().iter().filter(|one| one.is_named());
                let close = did_you_mean(&capture.text, names.map(|one| one.name.as_str()));
                return Err(Box::new(match close {
                    Some(close) => finding.meant(place, close),
                    None => finding,
                }));
            };
            Ok(Some(Question { span, keys, what: What::Count(Slot(slot)) }))
        }
        _ => Ok(None),
    }
}

/// A finding where something else than a `let` asks: what shapes say has a name, so that who
/// converts can give another value.
pub(super) fn misplaced(scope: &Scope, expr: &Expr) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    expr.walk(&mut |part| {
        let word = match part.kind {
            ExprKind::Size(..) => "size",
            ExprKind::Count(..) => "count",
            _ => return,
        };
        let message = format!("`{word}` stands in a `let` only");
        let finding = Diagnostic::error(NOT_SUPPORTED, message).at(scope.place(part.span), "here");
        found.push(finding.hint("name it with `let name = …`, so that --set can give its value"));
    });
    found
}
