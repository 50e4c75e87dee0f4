//! From checked rules and headers to a [`Plan`]: pure, no I/O.
//!
//! Each statement rewrites the state dict that the one before left, one file under `pass/` for each
//! kind of statement. What can only be known from bytes (is a tied head equal to its source?) is a
//! [`Question`], which [`plan_asking`] puts to its caller.

mod asked;
mod base;
mod behind;
mod bind;
mod blocks;
mod consistent;
mod context;
mod cover;
mod draft;
mod exists;
mod facts;
mod graph;
mod list;
mod load;
mod lower;
mod miss;
mod modules;
mod narrow;
mod node;
mod numbers;
mod pass;
mod primitive;
mod print;
mod ranks;
mod record;
mod run;
mod sources;
mod state;
mod states;
mod survey;
mod table;
mod tied;
mod trace;
mod verdict;

use indexmap::IndexMap;

pub use asked::{Answer, Answers, Question};
#[cfg(feature = "files")]
pub(crate) use blocks::block_of;
pub use consistent::Inconsistent;
pub use cover::Coverage;
pub use exists::Inquiry;
pub use facts::{ShapeFacts, Told};
pub use list::List;
pub use narrow::{NoSuchBox, TargetBox};
pub use node::{
    Arithmetic, Code, DropReason, Dropped, Node, NodeId, Op, Plan, Reduction, RuleId, RuleInfo,
    Target, Verdict,
};
pub use primitive::{Argument, Primitive};
pub use ranks::count_ranks;
pub use record::{Lost, RECORD_FILE, Record, RecordedRules, Renamed};
pub use sources::implausible;
pub use states::{LONGEST as LONGEST_STATE, States};
pub use tied::{TieFact, TieOutcome};

pub use survey::{Survey, Takes, Tensors};
pub use trace::{Hit, Trace, trace};

use crate::check::value::Value;
use crate::check::{Direction, Rules};
use crate::config::Config;
use crate::diagnostic::Diagnostics;
use crate::key::Key;
use crate::tensor::{Header, Wanted};
use asked::Asked;
use base::{Base, with_better_base};
use context::Context;
use cover::finish;
use run::begin;
use survey::Notes;

/// A rule file and which way to read it.
#[derive(Clone, Copy)]
pub struct Stage<'a> {
    /// The rules.
    pub rules: &'a Rules,
    /// Which way.
    pub direction: Direction,
    /// Whether a person named these rules: then rules that match nothing are findings.
    pub named: bool,
}

/// Which part of the target is asked for: a pipeline stage holds some of a model's keys, and reads
/// what it needs for those.
#[derive(Clone, Copy, Debug, Default)]
pub enum Share<'a> {
    /// All of it: a key that the target manifest doesn't know is unexpected.
    #[default]
    Whole,
    /// The target manifest is that of a part; the keys of the others are not known, and no key is
    /// unexpected.
    Open,
    /// These keys of the target manifest, which is that of all parts together; only what no part
    /// knows is unexpected.
    Keys(&'a Wanted),
}

/// What a plan depends on besides rules and headers.
#[derive(Clone, Default)]
pub struct PlanOptions<'a> {
    /// config.json.
    pub config: Config,
    /// `--set name=value`.
    pub parameters: IndexMap<String, Value>,
    /// Whether word embeddings are tied; what config.json or the model type's default says if
    /// `None`.
    pub tied: Option<bool>,
    /// The keys that the result should have.
    pub wanted: Option<&'a Wanted>,
    /// Which part of them is asked for here, as of a pipeline stage.
    pub part: Share<'a>,
    /// Wanted keys that are one tensor in the module that loads, in groups: what gives one of them
    /// gives all.
    pub shared: &'a [Vec<Key>],
    /// Missing or unexpected keys are findings, not a stop.
    pub not_strict: bool,
    /// Backwards, steps that can't be undone are left out and noted, where they would be refused.
    pub allow_lossy: bool,
    /// What the conversion that this one undoes did.
    pub record: Option<&'a Record>,
    /// What is known of the checkpoint's bytes, for ties.
    pub answers: Answers,
    /// What quantized tensors say of themselves in bytes.
    pub states: States,
}

/// Plans: applies the stages in order to the keys of a header.
///
/// What only bytes can tell and [`PlanOptions::answers`] doesn't is taken as not known, and is in
/// [`Plan::questions`].
///
/// # Errors
/// Everything because of which this checkpoint can't be converted so.
pub fn plan(
    stages: &[Stage<'_>],
    header: &Header,
    options: &PlanOptions<'_>,
) -> Result<Plan, Diagnostics> {
    attempt(stages, header, options, None).0
}

/// Plans, and tells what each statement took, whether there is a plan or not.
pub fn plan_surveyed(
    stages: &[Stage<'_>],
    header: &Header,
    options: &PlanOptions<'_>,
) -> (Result<Plan, Diagnostics>, Survey) {
    let notes = Notes::default();
    let (plan, _) = attempt(stages, header, options, Some(&notes));
    (plan, notes.into_inner())
}

/// Plans, and plans again while `answer` knows what the plan asks of the checkpoint's bytes.
///
/// # Errors
/// The outer error is that of `answer`: without an answer that it should have had, no plan is made.
/// The inner one is that of [`plan`].
pub fn plan_asking<E>(
    stages: &[Stage<'_>],
    header: &Header,
    options: &PlanOptions<'_>,
    mut answer: impl FnMut(&Question) -> Result<Answer, E>,
) -> Result<Result<Plan, Diagnostics>, E> {
    let (mut result, mut questions) = attempt(stages, header, options, None);
    if questions.is_empty() {
        return Ok(result);
    }
    let mut options = options.clone();
    while !questions.is_empty() {
        for question in questions {
            let known = answer(&question)?;
            options.answers.insert(question, known);
        }
        (result, questions) = attempt(stages, header, &options, None);
    }
    Ok(result)
}

/// One plan, and the questions that it leaves open.
fn attempt(
    stages: &[Stage<'_>],
    header: &Header,
    options: &PlanOptions<'_>,
    survey: Option<&Notes>,
) -> (Result<Plan, Diagnostics>, Vec<Question>) {
    let options = &*ranks::with_count(stages, header, options);
    let decision = options.config.tie_policy(options.tied);
    let asked = Asked::default();
    let context = Context { survey, ..Context::new(header, options, &decision, &asked) };
    let remarks = implausible(header, &options.config, options.wanted, !options.not_strict);
    let run = |base: Option<Base>| {
        // What was tried before isn't what is taken.
        survey.iter().for_each(|survey| *survey.borrow_mut() = Survey::default());
        let mut draft = begin(&context, stages, &remarks, base);
        run::run(&context, &mut draft, stages);
        survey.iter().for_each(|survey| survey.borrow_mut().close(&draft));
        draft
    };
    let draft = with_better_base(&context, run(None), |base| run(Some(base)));
    let plan = finish(&context, draft);
    let questions = asked.take();
    let plan = plan.and_then(|mut plan| {
        plan.questions.clone_from(&questions);
        match sources::unwritable(&plan) {
            None => Ok(plan),
            Some(finding) => Err(Diagnostics(plan.findings.into_iter().chain([finding]).collect())),
        }
    });
    (plan, questions)
}

/// `1 key`, `2 keys`
fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
