//! [`Context`]: everything that a statement may look at and not change.

use crate::check::Identity;
use crate::check::value::{Captures, Environment, Scope, unknown_layout};
use crate::config::TieDecision;
use crate::diagnostic::{Diagnostic, Place};
use crate::plan::asked::Asked;
use crate::plan::draft::Draft;
use crate::plan::exists::Inquiry;
use crate::plan::pass::lossy::{is_recorded, is_repeated};
use crate::plan::survey::Notes;
use crate::plan::{NodeId, PlanOptions, Stage};
use crate::syntax::ast;
use crate::tensor::Header;

/// What is given, the same for every statement of a stage. What statements change is the
/// [`Draft`]; a pass is a function of both.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) header: &'a Header,
    pub(super) options: &'a PlanOptions<'a>,
    /// Whether word embeddings are tied, and why so.
    pub(super) decision: &'a TieDecision,
    /// What was asked of bytes and isn't known.
    pub(super) asked: &'a Asked,
    /// Where to take note of what statements take, if someone wants to know.
    pub(super) survey: Option<&'a Notes>,
    /// Whether the record tells of this stage.
    pub(super) recorded: bool,
    /// Whether the record says that this stage was applied before.
    pub(super) repeated: bool,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        header: &'a Header,
        options: &'a PlanOptions<'a>,
        decision: &'a TieDecision,
        asked: &'a Asked,
    ) -> Self {
        Self { header, options, decision, asked, survey: None, recorded: false, repeated: false }
    }

    /// Takes note of the tensors that an op of a rule gave.
    pub(super) fn note_shapes(
        &self,
        draft: &Draft,
        rule: Identity,
        place: &Place,
        families: impl Iterator<Item = impl Iterator<Item = NodeId>>,
    ) {
        if let Some(survey) = self.survey {
            survey.borrow_mut().note_shapes(draft, rule, place, families);
        }
    }

    /// The same for one stage.
    pub(super) fn of(&self, stage: &Stage<'_>) -> Self {
        Self { recorded: is_recorded(self, stage), repeated: is_repeated(self, stage), ..*self }
    }
}

/// Evaluates with the environment of this plan.
pub(super) fn with_environment<T>(
    context: &Context<'_>,
    draft: &Draft,
    ask: impl FnOnce(&Environment<'_>) -> T,
) -> T {
    let contains = |key: &str| draft.state.contains(key);
    let each =
        |visit: &mut dyn FnMut(&str)| draft.state.iter().for_each(|(_, entry)| visit(&entry.key));
    let layout = Inquiry::new(&contains, &each);
    let config = context.options.config.value();
    let facts = |scope: &Scope, at: u32| draft.facts.get(scope, at);
    let alone = Environment {
        config: (!config.is_null()).then_some(config),
        tied: Some(context.decision.tied),
        parameters: &context.options.parameters,
        exists: &unknown_layout,
        facts: &facts,
        captures: Captures::NONE,
    };
    let exists = |scope: &Scope, pattern: &ast::Pattern, captures: Captures<'_>| {
        layout.has(scope, pattern, captures, &alone)
    };
    ask(&Environment { exists: &exists, ..alone })
}

pub(super) fn truth(
    context: &Context<'_>,
    draft: &Draft,
    scope: &Scope,
    condition: &ast::Expr,
) -> Result<bool, Box<Diagnostic>> {
    with_environment(context, draft, |environment| environment.truth(scope, condition))
}
