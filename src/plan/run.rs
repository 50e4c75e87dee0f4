//! Stages are run over a draft, statement by statement.

use crate::check::reading::{Act, Reading, Statement};
use crate::diagnostic::Diagnostic;
use crate::plan::base::{Base, meet_base, restore_base, try_base};
use crate::plan::context::{Context, with_environment};
use crate::plan::draft::Draft;
use crate::plan::load::{check_parameters, check_tie_flag, load, load_aliases};
use crate::plan::ranks::check_ranks;
use crate::plan::verdict::run_stage;
use crate::plan::{Stage, pass, sources};

/// A draft of the checkpoint's own keys, before the first rule.
///
/// `remarks` is what the header looks like by itself, which doesn't depend on what is tried.
pub(super) fn begin(
    context: &Context<'_>,
    stages: &[Stage<'_>],
    remarks: &[Diagnostic],
    base: Option<Base>,
) -> Draft {
    let unreadable = sources::unreadable(context.header);
    let mut draft = Draft { base, unreadable, ..Draft::default() };
    draft.graph.states = context.options.states.clone();
    load(context, &mut draft);
    load_aliases(context, &mut draft);
    draft.findings.extend_from_slice(remarks);
    check_parameters(context, &mut draft, stages);
    check_ranks(context, &mut draft, stages);
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

/// Runs statements in the order in which they are read.
pub(super) fn run_statements(context: &Context<'_>, draft: &mut Draft, reading: &Reading<'_>) {
    for statement in reading.statements() {
        if draft.failed() {
            return;
        }
        run_statement(context, draft, reading, &statement);
    }
}

/// Before the first statement of a file that isn't a strip, or of one that it uses: the `let`s of
/// the file are told what they ask of the layout that it reads.
fn look(
    context: &Context<'_>,
    draft: &mut Draft,
    reading: &Reading<'_>,
    statement: &Statement<'_>,
) {
    if matches!(
        statement.act,
        Act::StripAnywhere { .. } | Act::StripLeading { .. } | Act::Whole { after: false, .. }
    ) {
        return;
    }
    for scope in reading.users(statement.scope) {
        if draft.facts.has(scope) {
            continue;
        }
        let mut facts = std::mem::take(&mut draft.facts);
        with_environment(context, draft, |environment| {
            facts.look(scope, environment, &|visit| {
                for (_, entry) in draft.state.iter() {
                    visit(&entry.key, &draft.graph.info(entry.node).shape);
                }
            });
        });
        draft.facts = facts;
    }
}

fn run_statement(
    context: &Context<'_>,
    draft: &mut Draft,
    reading: &Reading<'_>,
    statement: &Statement<'_>,
) {
    let Statement { step, scope, direction, .. } = *statement;
    if !matches!(statement.act, Act::Tie(_) | Act::When { .. }) {
        pass::tie::close_ties(context, draft);
    }
    try_base(context, draft, &statement.act);
    look(context, draft, reading, statement);
    let result = match &statement.act {
        Act::Rewrite(rewrite) => pass::rewrite::rewrite(context, draft, *rewrite, scope, direction),
        Act::Whole { whole, after } => {
            pass::whole::whole(draft, step, (*whole, *after), scope, direction)
        }
        Act::StripAnywhere { wrappers } => {
            pass::strip::strip_anywhere(draft, step, wrappers, scope)
        }
        Act::StripLeading { wrappers, if_wanted } => {
            pass::strip::strip_leading(context, draft, step, wrappers, *if_wanted, scope)
        }
        Act::Prefix(prefix) => pass::prefix::prefix(context, draft, step, prefix, scope, direction),
        Act::Drop(keys) => {
            pass::select::select(context, draft, step, keys, false, scope, direction)
        }
        Act::Keep(keys) => pass::select::select(context, draft, step, keys, true, scope, direction),
        Act::Cast { keys, dtype, lossy } => {
            pass::select::cast(context, draft, step, keys, *dtype, *lossy, scope, direction)
        }
        Act::Tie(tie) => pass::tie::tie(context, draft, step, tie, scope, direction),
        Act::Create { target, made, unless } => {
            pass::select::create(context, draft, step, target, made, unless, scope, direction)
        }
        Act::Expect { keys, captures, count } => {
            pass::select::expect_keys(context, draft, step, keys, captures, *count, scope)
        }
        Act::When { condition, then, otherwise } => {
            pass::when::when(context, draft, condition, [then, otherwise], scope, direction)
        }
    };
    if let Err(diagnostic) = result {
        draft.findings.push(*diagnostic);
    }
}
