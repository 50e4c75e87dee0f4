//! Names of expressions: which ones an expression may use, where it stands.

use super::rules::Capture;
use super::value::{LENGTHS, Scope, names};
use crate::diagnostic::codes::UNKNOWN_NAME;
use crate::diagnostic::{Diagnostic, Place, did_you_mean};
use crate::syntax::ast::Expr;

/// What an expression may name besides the `let`s of its file.
#[derive(Clone, Copy)]
pub(super) enum Sight<'a> {
    /// Nothing.
    Nothing,
    /// It is the condition of a rule or a selection, which binds these.
    Where(&'a [&'a str]),
    /// It is a number of an op, in a rule with these captures; those on both sides of its arrow tell
    /// instances apart, so that each instance may have numbers of its own.
    Numbers {
        /// The captures of the rule.
        captures: &'a [Capture],
        /// Whether there is a tensor whose lengths it may name.
        lengths: bool,
    },
}

impl Sight<'_> {
    fn has(self, name: &str) -> bool {
        match self {
            Sight::Nothing => false,
            Sight::Where(captures) => captures.contains(&name),
            Sight::Numbers { captures, lengths } => {
                lengths && LENGTHS.contains(&name)
                    || captures.iter().any(|one| one.name == name && one.left && one.right)
            }
        }
    }
}

/// A finding for each name that nothing defines.
pub(super) fn undefined(scope: &Scope, expr: &Expr, sight: Sight<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    names(expr, &mut found);
    let captures = if let Sight::Where(captures) = sight { captures } else { &[] };
    found.retain(|(name, _)| !scope.lets.contains_key(*name) && !sight.has(name));
    let finding = |(name, span)| {
        let finding = Diagnostic::error(UNKNOWN_NAME, format!("`{name}` is not defined"))
            .at(scope.place(span), "not found");
        advised(finding, (name, scope.place(span)), scope, captures, sight)
    };
    found.into_iter().map(finding).collect()
}

fn advised(
    finding: Diagnostic,
    (name, place): (&str, Place),
    scope: &Scope,
    captures: &[&str],
    sight: Sight<'_>,
) -> Diagnostic {
    if LENGTHS.contains(&name) {
        return finding.hint("the lengths of a tensor, `dim0` to `dim7`, are known only to its ops, and in the `where` of a `->` rule with one source");
    }
    if let Sight::Numbers { captures: rule, .. } = sight
        && rule.iter().any(|capture| capture.name == name)
    {
        return finding.hint(format!(
            "the capture `{name}` is on one side of the arrow only, so that one instance has many values of it"
        ));
    }
    match did_you_mean(name, scope.lets.keys().map(String::as_str).chain(captures.iter().copied()))
    {
        Some(close) => finding.meant(place, close),
        None if matches!(sight, Sight::Where(_)) => {
            finding.hint(format!("define it with `let {name} = …`, or bind it in a pattern"))
        }
        None => finding.hint(format!("define it with `let {name} = …`")),
    }
}
