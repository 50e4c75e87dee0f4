//! Stages are run over a draft, statement by statement.

use crate::check::reading::in_order;
use crate::check::{Step, StepKind};
use crate::diagnostic::Diagnostic;
use crate::plan::base::{Base, meet_base, restore_base, try_base};
use crate::plan::context::Context;
use crate::plan::draft::Draft;
use crate::plan::load::{check_parameters, check_tie_flag, load, load_aliases};
use crate::plan::verdict::run_stage;
use crate::plan::{Stage, pass};

/// A draft of the checkpoint's own keys, before the first rule.
///
/// `remarks` is what the header looks like by itself, which doesn't depend on what is tried.
pub(super) fn begin(
    context: &Context<'_>,
    stages: &[Stage<'_>],
    remarks: &[Diagnostic],
    base: Option<Base>,
) -> Draft {
    let mut draft = Draft { base, ..Draft::default() };
    load(context, &mut draft);
    load_aliases(context, &mut draft);
    draft.findings.extend_from_slice(remarks);
    check_parameters(context, &mut draft, stages);
    check_tie_flag(context, &mut draft);
    draft
}

/// Runs all stages, one after the other.
pub(super) fn run(context: &Context<'_>, draft: &mut Draft, stages: &[Stage<'_>]) {
    restore_base(context, draft, stages, false);
    for stage in stages {
        if draft.failed() {
            return;
        }
        run_stage(&context.of(stage), draft, stage);
    }
    if !draft.failed() {
        restore_base(context, draft, stages, true);
        meet_base(context, draft);
    }
}

/// Runs statements, in the order of the direction. Strips normalize what comes in, so they come
/// first both ways.
pub(super) fn run_steps(
    context: &Context<'_>,
    draft: &mut Draft,
    steps: &[&Step],
    stage: &Stage<'_>,
) {
    for step in in_order(steps, stage.direction) {
        if draft.failed() {
            return;
        }
        run_step(context, draft, step, stage);
    }
}

fn run_step(context: &Context<'_>, draft: &mut Draft, step: &Step, stage: &Stage<'_>) {
    let Some(scope) = stage.rules.scopes.get(step.scope) else { return };
    if !matches!(step.kind, StepKind::Tie(_) | StepKind::When { .. } | StepKind::Reversed(_)) {
        pass::tie::close_ties(context, draft);
    }
    try_base(context, draft, &step.kind);
    let result = match &step.kind {
        StepKind::Rewrite(rules) => {
            pass::rewrite::rewrite(context, draft, rules, scope, stage.direction)
        }
        StepKind::StripAnywhere { wrappers } => {
            pass::strip::strip_anywhere(draft, step, wrappers, scope)
        }
        StepKind::StripLeading { wrappers, if_wanted } => {
            pass::strip::strip_leading(context, draft, step, wrappers, *if_wanted, scope)
        }
        StepKind::Prefix(prefix) => {
            pass::prefix::prefix(context, draft, step, prefix, scope, stage.direction)
        }
        StepKind::Drop(keys) => {
            pass::select::select(context, draft, step, keys, false, scope, stage.direction)
        }
        StepKind::Keep(keys) => {
            pass::select::select(context, draft, step, keys, true, scope, stage.direction)
        }
        StepKind::Cast { keys, dtype, lossy } => {
            pass::select::cast(context, draft, step, keys, *dtype, *lossy, scope, stage.direction)
        }
        StepKind::Tie(tie) => pass::tie::tie(context, draft, step, tie, scope, stage.direction),
        StepKind::Create { target, made, unless } => {
            pass::select::create(context, draft, step, target, made, unless, scope, stage.direction)
        }
        StepKind::Expect { keys, captures, count } => {
            pass::select::expect_keys(context, draft, step, keys, captures, count.as_ref(), scope)
        }
        StepKind::Reversed(steps) => {
            let other = Stage { direction: stage.direction.opposite(), ..*stage };
            run_steps(context, draft, &steps.iter().collect::<Vec<_>>(), &other);
            Ok(())
        }
        StepKind::When { condition, then, otherwise } => {
            pass::when::when(context, draft, condition, then, otherwise, scope, stage)
        }
    };
    if let Err(diagnostic) = result {
        draft.findings.push(*diagnostic);
    }
}
