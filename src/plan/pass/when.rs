//! `when`: which of its blocks runs. Reading backwards, a question about the layout has no answer
//! yet, so both are tried.

use std::cmp::Ordering;

use crate::check::value::Scope;
use crate::check::{Direction, Step};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::UNDECIDED;
use crate::plan::Stage;
use crate::plan::context::{Context, truth};
use crate::plan::draft::Draft;
use crate::plan::pass::tie::close_ties;
use crate::plan::run::run_steps;
use crate::syntax::ast::Expr;

pub(in crate::plan) fn when(
    context: &Context<'_>,
    draft: &mut Draft,
    condition: &Expr,
    then: &[Step],
    otherwise: &[Step],
    scope: &Scope,
    stage: &Stage<'_>,
) -> Result<(), Box<Diagnostic>> {
    let branch = |holds: bool| -> Vec<&Step> {
        if holds { then.iter().collect() } else { otherwise.iter().collect() }
    };
    if stage.direction == Direction::Forward
        || !condition.asks_layout(&|name| scope.lets.get(name)?.0.as_ref())
    {
        let holds = truth(context, draft, scope, condition)?;
        run_steps(context, draft, &branch(holds), stage);
        return Ok(());
    }
    close_ties(context, draft);
    // `exists` is a fact about the left layout, which reading backwards only gives: each answer
    // is tried, and the one that the result bears out stands.
    let before = draft.clone();
    let mut borne_out = Vec::new();
    for holds in [true, false] {
        run_steps(context, draft, &branch(holds), stage);
        close_ties(context, draft);
        let agrees = !draft.failed() && truth(context, draft, scope, condition)? == holds;
        let after = std::mem::replace(draft, before.clone());
        if agrees {
            borne_out.push(after);
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
        return Err(Box::new(
            Diagnostic::error(
                UNDECIDED,
                "reading backwards can't tell whether this condition held",
            )
            .at(scope.place(condition.span), "a fact about the left layout")
            .hint("replace it by a parameter (`let name`), given with --set, or by a config field"),
        ));
    };
    *draft = chosen;
    Ok(())
}
