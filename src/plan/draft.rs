//! [`Draft`]: everything that a statement may change of a plan, as one value.

use std::collections::{BTreeMap, HashMap};

use indexmap::IndexMap;

use crate::check::{Identity, Rule, Step};
use crate::diagnostic::codes::COLLISION;
use crate::diagnostic::{Diagnostic, Place};
use crate::key::Key;
use crate::plan::base::Base;
use crate::plan::facts::{ShapeFacts, Told};
use crate::plan::graph::Graph;
use crate::plan::node::{DropReason, RuleId, RuleInfo, Verdict};
use crate::plan::pass::strip::Stray;
use crate::plan::pass::{Before, TieState};
use crate::plan::state::{Current, State};
use crate::plan::verdict::Evidence;
use crate::plan::{List, Lost, Renamed};

/// A rule of a `rename` or `map`.
#[derive(Clone, Copy)]
pub(super) struct Rewriter {
    /// It says `alone`: what belongs to its tensors is meant to stay.
    pub(super) alone: bool,
    /// It ships with the library: who uses it can't change it.
    pub(super) built_in: bool,
}

/// What a plan tells of a rule, or of a statement that has none.
#[derive(Clone, Copy)]
pub(super) struct Written<'r> {
    /// Which it is of those of its stage.
    pub(super) id: Identity,
    /// Where it is.
    pub(super) place: &'r Place,
    /// It in one line.
    pub(super) text: &'r str,
}

impl<'r> From<&'r Step> for Written<'r> {
    fn from(step: &'r Step) -> Self {
        Self { id: step.id, place: &step.place, text: &step.text }
    }
}

impl<'r> From<&'r Rule> for Written<'r> {
    fn from(rule: &'r Rule) -> Self {
        Self { id: rule.id, place: &rule.place, text: &rule.text }
    }
}

/// What statements change. A branch that is tried and not taken leaves no trace, since the draft of
/// before it is put back whole: a field that a statement writes belongs here.
#[derive(Clone, Default)]
pub(super) struct Draft {
    pub(super) graph: Graph,
    pub(super) state: State,
    pub(super) rules: Vec<RuleInfo>,
    /// Those of the stage that runs, by which of its rules they are.
    pub(super) of_stage: HashMap<Identity, RuleId>,
    /// The rules of `rename`s and `map`s.
    pub(super) rewrites: BTreeMap<RuleId, Rewriter>,
    /// Where each rule is written.
    pub(super) places: HashMap<RuleId, Place>,
    pub(super) dropped: IndexMap<Key, DropReason>,
    pub(super) renamed: Vec<Renamed>,
    pub(super) lost: Vec<Lost>,
    pub(super) findings: Vec<Diagnostic>,
    /// What ties found, and what those since the last statement of another kind left open.
    pub(super) ties: TieState,
    /// How the stage that runs found the keys.
    pub(super) evidence: Evidence,
    /// What is done to keys before the first rule, until it was.
    pub(super) base: Option<Base>,
    pub(super) verdicts: Vec<Verdict>,
    /// The keys that there were before the statements of a file that says something of itself as a
    /// whole.
    pub(super) before: HashMap<Identity, Before>,
    /// Tensors that can't be read and that no statement dropped, and what each is.
    pub(super) unreadable: Vec<(Key, String)>,
    /// What shapes say to the `let`s of the stage that runs.
    pub(super) facts: ShapeFacts,
    /// What they said in those before.
    pub(super) told: Vec<Told>,
    /// How many stages have run.
    pub(super) stages: usize,
    /// Wrappers that stay because a few keys lack them.
    pub(super) strays: Vec<Stray>,
}

impl Draft {
    pub(super) fn failed(&self) -> bool {
        self.findings.iter().any(Diagnostic::is_error)
    }

    /// The number in this plan of a rule, or a statement, of the stage that runs.
    pub(super) fn rule_id(&mut self, Written { id, place, text }: Written<'_>) -> RuleId {
        let next = RuleId(u32::try_from(self.rules.len()).unwrap_or(u32::MAX));
        let id = *self.of_stage.entry(id).or_insert(next);
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

    pub(super) fn count(&mut self, rule: RuleId, by: u64) {
        if let Some(info) = self.rules.get_mut(rule.0 as usize) {
            info.count += by;
        }
    }

    /// Gives the entries at some places other keys, by one statement. They leave before they come
    /// back, so that keys may change places. Returns each key before and after.
    pub(super) fn rename_all(
        &mut self,
        step: &Step,
        changes: Vec<(usize, String)>,
    ) -> Vec<(Key, Key)> {
        let rule = self.rule_id(step.into());
        self.count(rule, changes.len() as u64);
        self.rename_by(rule, changes)
    }

    /// [`rename_all`](Self::rename_all), by a rule that is counted.
    pub(super) fn rename_by(
        &mut self,
        rule: RuleId,
        changes: Vec<(usize, String)>,
    ) -> Vec<(Key, Key)> {
        let (mut entries, mut renamed) =
            (Vec::with_capacity(changes.len()), Vec::with_capacity(changes.len()));
        for (at, key) in changes {
            let Some(mut entry) = self.state.take(at) else { continue };
            let before = std::mem::replace(&mut entry.key, Key::from(key));
            entry.rules.push(rule);
            self.evidence.follow(&before, &entry.key);
            renamed.push((before, entry.key.clone()));
            entries.push(entry);
        }
        for entry in entries {
            self.put(entry);
        }
        renamed
    }

    /// Puts an entry into the state, or reports that its key is taken.
    pub(super) fn put(&mut self, entry: Current) {
        let put = self.state.insert(entry);
        self.check_name(put);
    }

    /// Reports an entry whose key is taken.
    pub(super) fn check_name(&mut self, named: Result<(), Box<Current>>) {
        let Err(entry) = named else { return };
        let other =
            self.state.get(&entry.key).map(|other| (other.origin.clone(), other.rules.clone()));
        let (origin, rules) = other.unwrap_or_else(|| (entry.key.clone(), List::new()));
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
}
