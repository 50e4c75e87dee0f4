//! [`Prepared`]: a conversion whose inputs are read, all but tensors.

use indexmap::IndexMap;

use super::part::{TensorPart, narrowed};
use super::planned::Planned;
use super::source::{Given, Source, record_beside};
use super::{Asked, Goal};
use crate::check::Direction;
use crate::check::value::Value;
use crate::config::Config;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::key::RankFiles;
use crate::library::{self, Failure, HUB, MODEL, Recognized, Route};
use crate::plan::{
    Answer, Answers, LONGEST_STATE, Plan, PlanOptions, Question, Record, States, plan, plan_asking,
};
use crate::store::{Checkpoint, Counted, Store, differing_bytes};
use crate::tensor::Header;

/// A conversion whose inputs are read: what decides how keys are rewritten, all of it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Prepared {
    /// Rule files in order, and which way each is read.
    pub route: Route,
    /// How the rules were chosen.
    pub choice: Choice,
    /// The model's configuration; empty if there is none.
    pub config: Config,
    /// Values of the rules' parameters.
    pub parameters: IndexMap<String, Value>,
    /// Whether word embeddings are tied, if the caller said so.
    pub tied: Option<bool>,
    /// The keys that the result must have.
    pub target: Option<Goal>,
    /// What the check of named rules had to remark.
    pub findings: Vec<Diagnostic>,
    pub(super) source: Source,
    /// How files are called, if each rank gets one.
    rank_files: Option<RankFiles>,
    /// What the conversion that made the checkpoint did.
    record: Option<Record>,
    /// The layout that was asked for, where the config chooses the rules.
    asked: Option<String>,
    parts: Vec<TensorPart>,
    not_strict: bool,
    allow_lossy: bool,
    /// What quantized tensors say of themselves.
    states: States,
}

/// How the rules of a conversion were chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// The caller named them.
    Named,
    /// The config asks for them.
    ByConfig,
    /// There is no config: only those apply that normalize every checkpoint.
    NoConfig,
    /// There is no config, and nothing says what is wanted: names stay as they are.
    NothingKnown,
    /// No rule file is for the model type of the config: only those apply that normalize every
    /// checkpoint.
    NoRules {
        /// The model type; `None` if the config has none.
        model_type: Option<String>,
    },
    /// The keys were recognized as a publisher's layout.
    Recognized(Recognized),
}

impl Choice {
    pub(super) fn by(config: &Config, says_what: bool) -> Self {
        if config.is_empty() {
            if says_what { Choice::NoConfig } else { Choice::NothingKnown }
        } else if library::candidates(config).is_empty() {
            Choice::NoRules { model_type: config.model_type().map(str::to_owned) }
        } else {
            Choice::ByConfig
        }
    }
}

impl Prepared {
    pub(super) fn new(given: Given, asked: Asked, choice: Choice) -> Result<Self, Failure> {
        let config = asked.config.unwrap_or_default();
        let (from, to, reverse) = (asked.from.as_deref(), asked.to.as_deref(), asked.reverse);
        let layout = if reverse { from } else { to };
        let layout = layout.filter(|_| asked.rules.is_none()).map(str::to_owned);
        let findings = asked.rules.iter().flatten().flat_map(|rules| rules.findings.clone());
        let findings = findings.collect();
        let looks = asked.rules.is_none() && !reverse && to.is_none_or(library::is_shared);
        let looks = looks && from.is_none_or(|from| !library::is_shared(from));
        let is_known = choice != Choice::NothingKnown;
        let mut choice = choice;
        let by_config = || match is_known {
            true => by_config(&config, from, to, reverse),
            false => Ok(Route::of_nothing_known()),
        };
        let (source, route) = match asked.rules {
            Some(rules) => {
                let route = Route::named(rules, from, to, reverse)?;
                (given.open(route.rank_files(Direction::Forward)?)?, route)
            }
            None => {
                // A layout that the rules for the config don't have may be recognized.
                let route = by_config();
                let ranks = route.as_ref().ok().map(|route| route.rank_files(Direction::Forward));
                let source = given.open(ranks.transpose()?.flatten())?;
                let leads_to =
                    to.filter(|to| route.is_err() && !reverse && !library::is_shared(to));
                let found = match leads_to {
                    Some(to) if from.is_none_or(|from| from == HUB) => {
                        library::recognize_towards(source.header(), &config, to)?
                    }
                    _ if looks => library::recognize(source.header(), &config, from)?,
                    _ => None,
                };
                match found {
                    Some(found) => {
                        let route = Route::recognized(&found, &config, to.unwrap_or(MODEL))?;
                        choice = Choice::Recognized(found);
                        (source, route)
                    }
                    None => (source, route?),
                }
            }
        };
        let rank_files = route.rank_files(Direction::Reverse)?.cloned();
        let record = match (asked.record, source.checkpoint()) {
            (Some(record), _) => Some(record),
            (None, Some(checkpoint)) => record_beside(checkpoint)?,
            (None, None) => None,
        };
        let states = match asked.states {
            Some(states) => states,
            None => states(&source)?,
        };
        Ok(Self {
            route,
            choice,
            config,
            parameters: asked.parameters,
            tied: asked.tied,
            target: asked.target,
            findings,
            source,
            rank_files,
            record,
            asked: layout,
            parts: asked.parts,
            not_strict: asked.not_strict,
            allow_lossy: asked.allow_lossy,
            states,
        })
    }

    /// The checkpoint's keys, dtypes and shapes.
    pub fn header(&self) -> &Header {
        self.source.header()
    }

    /// The checkpoint's files, if it is of files.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.source.checkpoint()
    }

    /// Whether there are tensors, and not headers alone.
    pub fn has_bytes(&self) -> bool {
        self.source.bytes().is_some()
    }

    /// Plans. Bytes are read only where a tie has to be decided by them, and there are any.
    ///
    /// # Errors
    /// Everything because of which the checkpoint can't be converted so; or that bytes could not be
    /// read.
    pub fn plan(&self) -> Result<Planned, Failure> {
        let Some(store) = self.source.bytes() else { return self.plan_by_headers() };
        let counted = Counted::new(store);
        let mut planned = self.plan_answering(|question| compare(&counted, question))??;
        planned.bytes_compared = counted.bytes_read();
        Ok(planned)
    }

    /// Plans without a look at bytes: what only they could decide stays undecided, and the plan
    /// says so.
    ///
    /// # Errors
    /// Everything because of which the checkpoint can't be converted so.
    pub fn plan_by_headers(&self) -> Result<Planned, Failure> {
        let mut made = plan(&self.route.stages(), self.header(), &self.options())?;
        // They have their answer: nobody looks.
        let questions = std::mem::take(&mut made.questions).into_iter();
        let compared = questions.map(|question| (question, Answer::Unknown)).collect();
        Ok(self.planned(made, compared)?)
    }

    /// Plans; `answer` says what bytes would, as of tensors that only the caller holds.
    ///
    /// # Errors
    /// The outer error is that of `answer`. The inner one is everything because of which the
    /// checkpoint can't be converted so.
    pub fn plan_answering<E>(
        &self,
        mut answer: impl FnMut(&Question) -> Result<Answer, E>,
    ) -> Result<Result<Planned, Diagnostics>, E> {
        let mut compared = Vec::new();
        let made = plan_asking(&self.route.stages(), self.header(), &self.options(), |question| {
            let found = answer(question)?;
            compared.push((question.clone(), found));
            Ok(found)
        })?;
        Ok(made.and_then(|plan| self.planned(plan, compared)))
    }

    fn options(&self) -> PlanOptions<'_> {
        PlanOptions {
            config: self.config.clone(),
            parameters: self.parameters.clone(),
            tied: self.tied,
            wanted: self.target.as_ref().map(Goal::wanted),
            part: self.target.as_ref().map(Goal::part).unwrap_or_default(),
            shared: self.target.as_ref().map_or(&[], Goal::shared_keys),
            not_strict: self.not_strict,
            allow_lossy: self.allow_lossy,
            record: self.record.as_ref(),
            answers: Answers::default(),
            states: self.states.clone(),
        }
    }

    fn planned(
        &self,
        mut plan: Plan,
        compared: Vec<(Question, Answer)>,
    ) -> Result<Planned, Diagnostics> {
        // A target says itself whether the result is what was asked for.
        if let Some(layout) = self.asked.as_ref().filter(|_| self.target.is_none()) {
            plan.findings.extend(library::no_way(self.header(), &plan, layout));
        }
        if self.choice == Choice::NothingKnown {
            plan.findings.extend(library::wrapped(self.header()));
        }
        if !self.parts.is_empty() {
            plan = narrowed(&plan, &self.parts)?;
        }
        let parameters =
            self.parameters.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        Ok(Planned {
            plan,
            route: self.route.clone(),
            compared,
            bytes_compared: 0,
            rank: self.target.as_ref().and_then(Goal::rank),
            rank_files: self.rank_files.clone(),
            parameters,
            source: self.source.clone(),
        })
    }
}

/// What quantized tensors say of themselves, as far as there are bytes.
fn states(source: &Source) -> crate::error::Result<States> {
    let Some(store) = source.bytes() else { return Ok(States::default()) };
    let mut found = Vec::new();
    for (key, entry) in source.header().tensors.iter().filter(|(key, _)| States::is_one(key)) {
        let Some(len) = entry.info.nbytes().filter(|len| *len <= LONGEST_STATE) else { continue };
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        store.read_at(key, 0, &mut bytes)?;
        found.push((key.clone(), bytes));
    }
    Ok(States::of_bytes(found.into_iter()))
}

/// Answers what a plan asks of the bytes of a store.
///
/// # Errors
/// If reading fails: what could not be compared would look like a tie that was not asked for.
pub fn compare(store: &dyn Store, question: &Question) -> crate::error::Result<Answer> {
    let differing = differing_bytes(store, &question.a, &question.b)?;
    Ok(differing.map_or(Answer::Unknown, Answer::of_differing))
}

/// The rules that a config asks for. Backwards, layouts change places.
fn by_config(
    config: &Config,
    from: Option<&str>,
    to: Option<&str>,
    reverse: bool,
) -> Result<Route, Diagnostics> {
    let (from, to) = match (reverse, from, to) {
        (false, from, to) => (from, to),
        (true, None, None) => (Some(MODEL), Some(HUB)),
        (true, from, to) => (to, from),
    };
    Route::by_config(config, from, to)
}
