//! `when`: which of its blocks runs. Reading backwards, a question about the layout has no answer
//! yet, so both are tried.

use std::cmp::Ordering;

use crate::check::Direction;
use crate::check::reading::Reading;
use crate::check::value::Scope;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::{MISSING_CONFIG, MISSING_PARAMETER, UNDECIDED};
use crate::plan::context::{Context, truth};
use crate::plan::draft::Draft;
use crate::plan::pass::tie::close_ties;
use crate::plan::run::run_statements;
use crate::syntax::ast::Expr;

pub(in crate::plan) fn when(
    context: &Context<'_>,
    draft: &mut Draft,
    condition: &Expr,
    [then, otherwise]: [&Reading<'_>; 2],
    scope: &Scope,
    direction: Direction,
) -> Result<(), Box<Diagnostic>> {
    let branch = |holds: bool| if holds { then } else { otherwise };
    if direction == Direction::Forward
        || !condition.asks_layout(&|name| scope.lets.get(name)?.0.as_ref())
    {
        let holds = truth(context, draft, scope, condition)?;
        run_statements(context, draft, branch(holds));
        return Ok(());
    }
    close_ties(context, draft);
    // `exists` is a fact about the left layout, which reading backwards only gives: each answer
    // is tried, and the one that the result bears out stands.
    let before = draft.clone();
    let (mut borne_out, mut lacking) = (Vec::new(), None);
    for holds in [true, false] {
        run_statements(context, draft, branch(holds));
        close_ties(context, draft);
        let agrees = !draft.failed() && truth(context, draft, scope, condition)? == holds;
        let after = std::mem::replace(draft, before.clone());
        if agrees {
            borne_out.push(after);
        } else {
            let lacks =
                |found: &&Diagnostic| [MISSING_CONFIG, MISSING_PARAMETER].contains(&found.code);
            lacking = lacking.or_else(|| after.findings.iter().find(lacks).cloned());
        }
    }
    // Where both are, the one whose rules took more keys is meant; the other left what it
    // should have undone.
    if let [first, second] = &borne_out[..] {
        match first.evidence.matched.cmp(&second.evidence.matched) {
            Ordering::Greater => borne_out.truncate(1),
            Ordering::Less => borne_out.swap(0, 1),
            Ordering::Equal if !first.state.same_keys(&second.state) => borne_out.clear(),
            Ordering::Equal => {}
        }
    }
    let Some(chosen) = borne_out.into_iter().next() else {
        // A value that a block lacks may be all that keeps it from being borne out.
        return Err(Box::new(lacking.unwrap_or_else(|| {
            Diagnostic::error(
                UNDECIDED,
                "reading backwards can't tell whether this condition held",
            )
            .at(scope.place(condition.span), "a fact about the left layout")
            .hint("replace it by a parameter (`let name`), given with --set, or by a config field")
        })));
    };
    *draft = chosen;
    Ok(())
}
