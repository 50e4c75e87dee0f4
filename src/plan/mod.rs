//! From checked rules and headers to a [`Plan`]: pure, no I/O.
//!
//! Each statement rewrites the state dict that the one before left, one file under `pass/` for each
//! kind of statement. What can only be known from bytes (is a tied head equal to its source?) is
//! asked of [`PlanOptions::equal`], if there is one.

mod base;
mod behind;
mod bind;
mod blocks;
mod cover;
mod draft;
mod exists;
mod graph;
mod lower;
mod miss;
mod modules;
mod node;
mod pass;
mod print;
mod record;
mod sources;
mod state;
mod tied;
mod trace;
mod verdict;

use indexmap::IndexMap;

pub use cover::Report;
pub use exists::Layout;
pub use node::{DropReason, Dropped, Node, NodeId, Op, Plan, RuleId, RuleInfo, Target, Verdict};
pub use record::{Lost, RECORD_FILE, Record, RecordedRules, Renamed};
pub use sources::implausible;
pub use tied::{TieFact, TieOutcome};

pub use trace::{Hit, Trace, trace};

use crate::check::reading::{Act, Reading, Statement};
use crate::check::value::{Captures, Environment, Scope, Value, unknown_layout};
use crate::check::{Direction, Rules, Step};
use crate::config::{Config, TieDecision, TieReason};
use crate::diagnostic::codes::{COLLISION, LIMIT, RESTORED, TIE_APPLIED, TIE_FLAG, UNKNOWN_NAME};
use crate::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use crate::key::{Key, Segments};
use crate::syntax::ast;
use crate::tensor::{Header, MAX_KEY_LEN, Wanted};
use base::Base;
use draft::Draft;
use state::Entry;

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

/// Whether two tensors of the checkpoint are equal byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Equality {
    /// Every byte.
    Equal,
    /// So many bytes differ.
    Differ(u64),
}

/// Answers whether two keys of the checkpoint are equal byte for byte; `None` if that can't be
/// known (headers only).
pub type EqualFn<'a> = dyn Fn(&str, &str) -> Option<Equality> + 'a;

/// Which part of the target is asked for: a pipeline stage holds some of a model's keys, and reads
/// what it needs for those.
#[derive(Clone, Copy, Debug, Default)]
pub enum Part<'a> {
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
    pub part: Part<'a>,
    /// Wanted keys that are one tensor in the module that loads, in groups: what gives one of them
    /// gives all.
    pub shared: &'a [Vec<Key>],
    /// Missing or unexpected keys are findings, not a stop.
    pub not_strict: bool,
    /// Backwards, steps that can't be undone are left out and noted, where they would be refused.
    pub allow_lossy: bool,
    /// What the conversion that this one undoes did.
    pub record: Option<&'a Record>,
    /// Compares bytes, for ties.
    pub equal: Option<&'a EqualFn<'a>>,
}

/// The most segments a key may have.
const MAX_SEGMENTS: usize = 1024;

/// Plans: applies the stages in order to the keys of a header.
///
/// # Errors
/// Everything because of which this checkpoint can't be converted so.
pub fn plan(
    stages: &[Stage<'_>],
    header: &Header,
    options: &PlanOptions<'_>,
) -> Result<Plan, Diagnostics> {
    let mut planner = Planner::run(stages, header, options, None);
    let mut better: Option<Planner<'_>> = None;
    for base in planner.other_bases() {
        let other = Planner::run(stages, header, options, Some(base));
        let most = better.as_ref().unwrap_or(&planner).met();
        if !other.failed() && other.met() > most {
            better = Some(other);
        } else if !other.failed()
            && other.met() == most
            && better.as_ref().is_some_and(|better| !better.state.same_keys(&other.state))
        {
            // Two that fit equally: no guess, unless a third fits better still.
            better = Some(Planner { undecided: true, ..other });
        }
    }
    if let Some(better) = better.filter(|better| !better.undecided) {
        planner = better;
    }
    let plan = planner.finish()?;
    match sources::unwritable(&plan) {
        None => Ok(plan),
        Some(finding) => Err(Diagnostics(plan.findings.into_iter().chain([finding]).collect())),
    }
}

/// A plan while it is made: what is given, and the [`Draft`] that the statements change.
struct Planner<'a> {
    header: &'a Header,
    options: &'a PlanOptions<'a>,
    decision: TieDecision,
    /// What is done to keys before the first rule.
    base: Option<Base>,
    /// Whether another base prefix fits as well.
    undecided: bool,
    /// Whether the record tells of the stage that runs.
    recorded: bool,
    /// Whether the record says that the stage that runs was applied before.
    repeated: bool,
    verdicts: Vec<Verdict>,
    draft: Draft,
}

impl<'a> Planner<'a> {
    fn new(header: &'a Header, options: &'a PlanOptions<'a>) -> Self {
        Self {
            header,
            options,
            decision: options.config.tie_policy(options.tied),
            base: None,
            undecided: false,
            recorded: false,
            repeated: false,
            verdicts: Vec::new(),
            draft: Draft::default(),
        }
    }

    /// All stages, one after the other; `base` before the first rule.
    fn run(
        stages: &[Stage<'_>],
        header: &'a Header,
        options: &'a PlanOptions<'a>,
        base: Option<Base>,
    ) -> Self {
        let mut planner = Self::new(header, options);
        planner.base = base;
        planner.load();
        planner.load_aliases();
        planner.findings.extend(implausible(
            header,
            &options.config,
            options.wanted,
            !options.not_strict,
        ));
        planner.check_parameters(stages);
        planner.check_tie_flag();
        planner.restore_base(stages, false);
        for stage in stages {
            if planner.failed() {
                return planner;
            }
            planner.stage(stage);
        }
        if !planner.failed() {
            planner.restore_base(stages, true);
            planner.meet_base();
        }
        planner
    }

    fn failed(&self) -> bool {
        self.findings.iter().any(Diagnostic::is_error)
    }

    /// Every tensor of the checkpoint becomes an entry.
    fn load(&mut self) {
        let mut segments = Segments::default();
        let count = self.header.tensors.len();
        self.graph.reserve(count);
        self.state.reserve(count);
        for (key, entry) in &self.header.tensors {
            segments.split(key);
            if segments.len() > MAX_SEGMENTS {
                self.findings.push(
                    Diagnostic::error(
                        LIMIT,
                        format!("a key has more than {MAX_SEGMENTS} segments"),
                    )
                    .keys([key.as_str()]),
                );
                continue;
            }
            match self.graph.source(key, &entry.info) {
                Ok(node) => {
                    let entry = Entry {
                        key: key.clone(),
                        node,
                        origin: key.clone(),
                        rules: Vec::new(),
                        tied: false,
                    };
                    // Keys of a header are different from each other.
                    let _ = self.state.insert(entry);
                }
                Err(why) => self.findings.push(
                    Diagnostic::error(crate::diagnostic::codes::SHAPE, why).keys([key.as_str()]),
                ),
            }
        }
    }

    /// Keys that were left out when the file was saved, as its metadata says: each is one tensor
    /// with the key that it names.
    fn load_aliases(&mut self) {
        let mut made = Vec::new();
        for (alias, kept) in self.header.aliases() {
            let is_key = alias.len() <= MAX_KEY_LEN
                && alias.split('.').count() <= MAX_SEGMENTS
                && !alias.is_empty();
            let (Some(node), false) =
                (self.state.get(kept).map(|entry| entry.node), self.state.contains(alias))
            else {
                continue;
            };
            if is_key {
                let entry = Entry {
                    key: Key::from(alias),
                    node,
                    origin: kept.clone(),
                    rules: Vec::new(),
                    tied: true,
                };
                let _ = self.state.insert(entry);
                made.push(alias);
            }
        }
        if !made.is_empty() {
            let are = if made.len() == 1 {
                "1 key that it leaves out is".to_owned()
            } else {
                format!("{} keys that it leaves out are", made.len())
            };
            let message =
                format!("the file's metadata says that {are} one tensor with keys that it has");
            self.findings.push(Diagnostic::note(TIE_APPLIED, message).keys(made));
        }
    }

    /// A flag that is no boolean decides nothing, and a person who wrote it thinks that it does.
    fn check_tie_flag(&mut self) {
        if let TieReason::NotBoolean { path, found } = &self.decision.because {
            let finding = Diagnostic::warning(
                TIE_FLAG,
                format!(
                    "the config field `{path}` is {found}, which is no boolean: taken as untied"
                ),
            );
            let hint = "write true or false there, or say it for this run: --tied true";
            self.draft.findings.push(finding.keys([path.as_str()]).hint(hint));
        }
    }

    /// A parameter that no rule file declares is a typo.
    fn check_parameters(&mut self, stages: &[Stage<'_>]) {
        let known: Vec<&str> = stages
            .iter()
            .flat_map(|stage| &stage.rules.scopes)
            .flat_map(|scope| scope.lets.keys().map(String::as_str))
            .collect();
        for name in self.options.parameters.keys() {
            if known.contains(&name.as_str()) {
                continue;
            }
            let mut diagnostic = Diagnostic::error(
                UNKNOWN_NAME,
                format!("no rule file declares the parameter `{name}`"),
            );
            diagnostic = match did_you_mean(name, known.iter().copied()) {
                Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
                None => diagnostic.hint(format!(
                    "a rule file declares it with `let {name}` or `let {name} = default`"
                )),
            };
            self.findings.push(diagnostic);
        }
    }

    /// Runs statements in the order in which they are read.
    fn run_all(&mut self, reading: &Reading<'_>) {
        for statement in reading.statements() {
            if self.failed() {
                return;
            }
            self.statement(&statement);
        }
    }

    fn statement(&mut self, statement: &Statement<'_>) {
        let Statement { step, scope, direction, .. } = *statement;
        if !matches!(statement.act, Act::Tie(_) | Act::When { .. }) {
            self.close_ties();
        }
        self.try_base(&statement.act);
        let result = match &statement.act {
            Act::Rewrite(rewrite) => self.rewrite(*rewrite, scope, direction),
            Act::StripAnywhere { wrappers } => self.strip_anywhere(step, wrappers, scope),
            Act::StripLeading { wrappers, if_wanted } => {
                self.strip_leading(step, wrappers, *if_wanted, scope)
            }
            Act::Prefix(prefix) => self.prefix(step, prefix, scope, direction),
            Act::Drop(keys) => self.select(step, keys, false, scope, direction),
            Act::Keep(keys) => self.select(step, keys, true, scope, direction),
            Act::Cast { keys, dtype, lossy } => {
                self.cast(step, keys, *dtype, *lossy, scope, direction)
            }
            Act::Tie(tie) => self.tie(step, tie, scope, direction),
            Act::Create { target, made, unless } => {
                self.create(step, target, made, unless, scope, direction)
            }
            Act::Expect { keys, captures, count } => {
                self.expect_keys(step, keys, captures, *count, scope)
            }
            Act::When { condition, then, otherwise } => {
                self.when(condition, [then, otherwise], scope, direction)
            }
        };
        if let Err(diagnostic) = result {
            self.findings.push(*diagnostic);
        }
    }

    /// Evaluates with the environment of this plan.
    fn with_environment<T>(&self, ask: impl FnOnce(&Environment<'_>) -> T) -> T {
        let contains = |key: &str| self.state.contains(key);
        let each = |visit: &mut dyn FnMut(&str)| {
            self.state.iter().for_each(|(_, entry)| visit(&entry.key))
        };
        let layout = Layout::new(&contains, &each);
        let config = self.options.config.value();
        let alone = Environment {
            config: (!config.is_null()).then_some(config),
            tied: Some(self.decision.tied),
            parameters: &self.options.parameters,
            exists: &unknown_layout,
            captures: Captures::NONE,
        };
        let exists = |scope: &Scope, pattern: &ast::Pattern, captures: Captures<'_>| {
            layout.has(scope, pattern, captures, &alone)
        };
        ask(&Environment { exists: &exists, ..alone })
    }

    fn truth(&self, scope: &Scope, condition: &ast::Expr) -> Result<bool, Box<Diagnostic>> {
        self.with_environment(|environment| environment.truth(scope, condition))
    }

    /// The number of a rule in this plan; `at` counts the rules of a statement.
    fn rule_id(&mut self, place: &crate::diagnostic::Place, at: usize, text: &str) -> RuleId {
        let file = std::sync::Arc::as_ptr(&place.source) as usize;
        let next = RuleId(u32::try_from(self.rules.len()).unwrap_or(u32::MAX));
        let id = *self.rule_ids.entry((file, place.span.start, at)).or_insert(next);
        if id.0 as usize >= self.rules.len() {
            self.places.insert(id, place.clone());
            self.rules.push(RuleInfo {
                file: place.source.name.clone(),
                line: place.line(),
                text: text.to_owned(),
                count: 0,
            });
        }
        id
    }

    fn count(&mut self, rule: RuleId, by: u64) {
        if let Some(info) = self.rules.get_mut(rule.0 as usize) {
            info.count += by;
        }
    }

    /// Gives the entries at some places other keys, by one statement. They leave before they come
    /// back, so that keys may change places. Returns each key before and after.
    fn rename_all(&mut self, step: &Step, changes: Vec<(usize, String)>) -> Vec<(Key, Key)> {
        let rule = self.rule_id(&step.place, 0, &step.text);
        self.count(rule, changes.len() as u64);
        self.rename_by(rule, changes)
    }

    /// [`rename_all`](Self::rename_all), by a rule that is counted.
    fn rename_by(&mut self, rule: RuleId, changes: Vec<(usize, String)>) -> Vec<(Key, Key)> {
        let (mut entries, mut renamed) =
            (Vec::with_capacity(changes.len()), Vec::with_capacity(changes.len()));
        for (at, key) in changes {
            let Some(mut entry) = self.state.take(at) else { continue };
            let before = std::mem::replace(&mut entry.key, Key::from(key));
            entry.rules.push(rule);
            if self.evidence.made.contains(&before) {
                self.evidence.made.insert(entry.key.clone());
            }
            renamed.push((before, entry.key.clone()));
            entries.push(entry);
        }
        for entry in entries {
            self.put(entry);
        }
        renamed
    }

    /// Puts an entry into the state, or reports that its key is taken.
    fn put(&mut self, entry: Entry) {
        let Err(entry) = self.state.insert(entry) else { return };
        let other =
            self.state.get(&entry.key).map(|other| (other.origin.clone(), other.rules.clone()));
        let (origin, rules) = other.unwrap_or_else(|| (entry.key.clone(), Vec::new()));
        let by = |rules: &[RuleId]| match rules.last().and_then(|id| self.rules.get(id.0 as usize))
        {
            Some(rule) => format!("by {}:{} {}", rule.file, rule.line, rule.text),
            None => "as it is".to_owned(),
        };
        let message = format!(
            "two sources give the key `{}`: `{}` ({}) and `{}` ({})",
            entry.key,
            origin,
            by(&rules),
            entry.origin,
            by(&entry.rules)
        );
        let mut finding =
            Diagnostic::error(COLLISION, message).keys([origin.as_str(), entry.origin.as_str()]);
        finding = finding.hint("exclude one of them with `unless`, or drop it first");
        // The first collision is told whole; of thousands, the keys are enough.
        match self.findings.iter_mut().find(|finding| finding.code == COLLISION) {
            Some(first) => first.keys.extend(finding.keys),
            None => self.findings.push(finding),
        }
    }

    /// Turns back, reading backwards, what a statement did that only the record knows. Says whether
    /// there was anything.
    fn restore(&mut self, place: &crate::diagnostic::Place, text: &str) -> bool {
        let Some(record) = self.options.record else { return false };
        let rule = self.rule_id(place, 0, text);
        let mut restored = Vec::new();
        for renamed in record.renamed.iter().filter(|renamed| renamed.is_by(place, text)) {
            if let Some(mut entry) = self.state.remove(&renamed.to) {
                entry.key = renamed.from.clone();
                entry.rules.push(rule);
                restored.push(entry);
            }
        }
        if restored.is_empty() {
            return false;
        }
        self.count(rule, restored.len() as u64);
        let finding = Diagnostic::note(
            RESTORED,
            format!("turned back {}, as the record says", counted(restored.len(), "key")),
        );
        self.findings.push(
            finding
                .at(place.clone(), "one way by itself")
                .keys(restored.iter().map(|entry| entry.key.as_str())),
        );
        for entry in restored {
            self.put(entry);
        }
        true
    }
}

/// `1 key`, `2 keys`
fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
