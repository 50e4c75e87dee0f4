//! Names of expressions: which ones an expression may use, where it stands.

use super::rules::Capture;
use super::value::{LENGTHS, Scope, names};
use crate::diagnostic::codes::UNKNOWN_NAME;
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::syntax::ast::Expr;

/// What an expression may name besides the `let`s of its file.
#[derive(Clone, Copy)]
pub(super) enum Sight<'a> {
    /// Nothing.
    Nothing,
    /// It is the condition of a rule or a selection, which binds these.
    Where(&'a [&'a str]),
    /// It is a number of an op, in a rule with these captures: they are nothing that a number could
    /// depend on.
    Numbers(&'a [Capture]),
}

/// A finding for each name that nothing defines.
pub(super) fn undefined(scope: &Scope, expr: &Expr, sight: Sight<'_>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    names(expr, &mut found);
    let captures = if let Sight::Where(captures) = sight { captures } else { &[] };
    found.retain(|(name, _)| !scope.lets.contains_key(*name) && !captures.contains(name));
    let finding = |(name, span)| {
        let finding = Diagnostic::error(UNKNOWN_NAME, format!("`{name}` is not defined"))
            .at(scope.place(span), "not found");
        finding.hint(hint(name, scope, captures, sight))
    };
    found.into_iter().map(finding).collect()
}

fn hint(name: &str, scope: &Scope, captures: &[&str], sight: Sight<'_>) -> String {
    if LENGTHS.contains(&name) {
        let shown = "the lengths of a tensor, `dim0` to `dim7`, are known only in the `where` of a `->` rule with one source";
        return match sight {
            Sight::Numbers(_) => format!("{shown}: an op takes numbers, config fields and `let`s"),
            _ => shown.to_owned(),
        };
    }
    if let Sight::Numbers(rule) = sight
        && rule.iter().any(|capture| capture.name == name)
    {
        return format!(
            "the capture `{name}` is known only in `where`: an op takes numbers, config fields and `let`s"
        );
    }
    match did_you_mean(name, scope.lets.keys().map(String::as_str).chain(captures.iter().copied()))
    {
        Some(close) => format!("did you mean `{close}`?"),
        None if matches!(sight, Sight::Where(_)) => {
            format!("define it with `let {name} = …`, or bind it in a pattern")
        }
        None => format!("define it with `let {name} = …`"),
    }
}
