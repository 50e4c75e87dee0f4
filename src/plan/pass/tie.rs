//! `tie`: keys that are one tensor. Loading, a missing one is aliased to its source; saving, one
//! that really is its source goes.
//!
//! Ties that follow each other are one run, in which a chain resolves to its root in whatever order
//! it is written. Bytes are compared only where the answer matters to the part of the target that
//! is asked for.

use std::collections::{BTreeSet, HashMap};

use crate::check::value::Scope;
use crate::check::{Direction, Keys, Step, Tie};
use crate::diagnostic::codes::{TIE_ABSENT, TIE_APPLIED, TIE_DIFFERS, TIE_REFUSED, UNDECIDED};
use crate::diagnostic::{Diagnostic, Place};
use crate::key::{Binding, Bindings, Key, Pattern, Segments};
use crate::plan::context::{Context, truth, with_environment};
use crate::plan::draft::Draft;
use crate::plan::pass::leave_out::{Saving, leave_out, tie_reverse};
use crate::plan::pass::relation::{Relation, differing, is_elsewhere, not_a_candidate, relation};
use crate::plan::state::Current;
use crate::plan::{DropReason, Op, RuleId, TieFact, TieOutcome};
use crate::syntax::ast::{IfAbsent, IfPresent};
use crate::tensor::companion::{self, Role};

/// What ties found, and what a run of `tie` statements left open: a chain of ties may be written in
/// any order.
#[derive(Clone, Debug, Default)]
pub(in crate::plan) struct TieState {
    /// Keys that a tie leaves to the model that holds them.
    pub(in crate::plan) kept: BTreeSet<Key>,
    /// What became of each tie.
    pub(in crate::plan) facts: Vec<TieFact>,
    /// Loading: ties none of whose sources is there, yet; `None` once one came.
    waiting: Vec<Option<Waiting>>,
    /// Which of them wait for a key.
    waiting_for: HashMap<Key, Vec<usize>>,
    /// Keys that ties made, for which some may wait.
    arrived: Vec<Key>,
    /// Saving: the instances of each tie, in the order in which they are read backwards.
    pub(super) saving: Vec<Vec<Saving>>,
}

/// A tie without a source.
#[derive(Clone, Debug)]
struct Waiting {
    place: Place,
    rule: RuleId,
    targets: Vec<Key>,
    sources: Vec<Key>,
    present: IfPresent,
    absent: IfAbsent,
}

pub(in crate::plan) fn tie(
    context: &Context<'_>,
    draft: &mut Draft,
    step: &Step,
    tie: &Tie,
    scope: &Scope,
    direction: Direction,
) -> Result<(), Box<Diagnostic>> {
    let holds = match &tie.condition {
        Some(condition) => truth(context, draft, scope, condition)?,
        None => true,
    };
    let direction = if tie.inverted { direction.opposite() } else { direction };
    // Ties and unties that follow each other are runs of their own.
    let other = match direction {
        Direction::Forward => !draft.ties.saving.is_empty(),
        Direction::Reverse => !draft.ties.waiting.is_empty(),
    };
    if other {
        close_ties(context, draft);
    }
    let rule = draft.rule_id(step.into());
    let (targets_of, sources_of) = with_environment(context, draft, |environment| {
        Ok::<_, Box<Diagnostic>>((
            Keys::bind_all(&tie.targets, scope, environment)?,
            Keys::bind_all(&tie.sources, scope, environment)?,
        ))
    })?;
    let patterns: Vec<&Pattern> = targets_of.iter().chain(&sources_of).collect();
    for (at, bindings) in
        tie_instances(context, draft, tie.slots, &patterns).into_iter().enumerate()
    {
        let render = |patterns: &[Pattern]| -> Vec<Key> {
            patterns
                .iter()
                .filter_map(|pattern| pattern.render("", &bindings).map(Key::from))
                .collect()
        };
        let (targets, sources) = (render(&targets_of), render(&sources_of));
        // Of `head.{i} from head.0`, the first is its own source.
        let targets: Vec<Key> =
            targets.into_iter().filter(|target| !sources.contains(target)).collect();
        if !holds {
            not_tied(draft, rule, &targets, &sources);
            continue;
        }
        match direction {
            Direction::Forward => {
                let missing: Vec<Key> = targets
                    .iter()
                    .filter(|target| !draft.state.contains(target))
                    .cloned()
                    .collect();
                tie_forward(context, draft, step, tie, rule, &targets, &sources)?;
                for target in missing {
                    for (target, source) in along(draft, &target, &sources) {
                        tie_forward(context, draft, step, tie, rule, &[target], &[source])?;
                    }
                }
            }
            Direction::Reverse => {
                let along: Vec<(Key, Key)> =
                    targets.iter().flat_map(|target| along(draft, target, &sources)).collect();
                tie_reverse(draft, step, rule, targets, sources, at == 0);
                along.into_iter().for_each(|(target, source)| {
                    tie_reverse(draft, step, rule, vec![target], vec![source], false)
                });
            }
        }
    }
    Ok(())
}

/// What a tie takes along from the source that a target is tied to: its scales and the like,
/// which are as much one as their tensors.
fn along(draft: &Draft, target: &Key, sources: &[Key]) -> Vec<(Key, Key)> {
    let node = draft.state.get(target).map(|entry| entry.node);
    let is_one = |source: &&Key| draft.state.get(source).map(|entry| entry.node) == node;
    let source = sources
        .iter()
        .find(is_one)
        .or_else(|| sources.iter().find(|source| draft.state.contains(source)));
    let Some((source, _)) = source.zip(node) else { return Vec::new() };
    let names = companion::side_by_side(target, source).into_iter().flatten();
    let along =
        names.filter(|(_, source, role)| *role != Role::Bias && draft.state.contains(source));
    along.map(|(target, source, _)| (Key::from(target), Key::from(source))).collect()
}

/// A tie whose condition doesn't hold, of keys that are there.
fn not_tied(draft: &mut Draft, rule: RuleId, targets: &[Key], sources: &[Key]) {
    let Some(source) = sources.iter().find(|source| draft.state.contains(source)) else {
        return;
    };
    for target in
        targets.iter().filter(|target| draft.state.contains(target)).cloned().collect::<Vec<Key>>()
    {
        draft.fact(rule, &target, source, TieOutcome::NotTied);
    }
}

/// The end of a run of ties: what has no source now gets none.
pub(in crate::plan) fn close_ties(context: &Context<'_>, draft: &mut Draft) {
    leave_out(context, draft);
    draft.ties.waiting_for.clear();
    draft.ties.arrived.clear();
    for Waiting { place, rule, mut targets, sources, absent, .. } in
        std::mem::take(&mut draft.ties.waiting).into_iter().flatten()
    {
        targets.retain(|target| !draft.state.contains(target));
        let Some(first) = targets.first() else { continue };
        let message = format!("`{first}` is missing, and so is every source it is tied to");
        let keys = targets.iter().chain(&sources).map(|key| key.as_str().to_owned());
        match absent {
            IfAbsent::Skip => {}
            IfAbsent::Fallback => {
                let finding =
                    Diagnostic::warning(TIE_ABSENT, message).at(place, "tied here").keys(keys);
                draft.findings.push(finding.hint("the tensor that the model holds now stays"));
                if let Some(source) = sources.first() {
                    for target in &targets {
                        draft.fact(rule, target, source, TieOutcome::Fallback);
                    }
                }
                draft.ties.kept.extend(targets);
            }
            IfAbsent::Error => draft
                .findings
                .push(Diagnostic::error(TIE_ABSENT, message).at(place, "tied here").keys(keys)),
        }
    }
}

/// The values of the captures for which a target or a source is there or wanted; one, empty, if
/// there are no captures.
fn tie_instances(
    context: &Context<'_>,
    draft: &Draft,
    slots: usize,
    patterns: &[&Pattern],
) -> Vec<Bindings> {
    if slots == 0 {
        return vec![Bindings::new(0)];
    }
    let mut found: BTreeSet<Vec<Binding>> = BTreeSet::new();
    let mut segments = Segments::default();
    let here = draft.state.iter().map(|(_, entry)| &entry.key);
    let wanted = context.options.wanted.iter().flat_map(|wanted| wanted.keys.keys());
    for key in here.chain(wanted) {
        segments.split(key);
        for pattern in patterns {
            let mut bindings = Bindings::new(slots);
            if pattern.slots().len() == slots && pattern.matches(key, &segments, &mut bindings) {
                let values =
                    (0..slots).filter_map(|at| u16::try_from(at).ok()).map(crate::key::Slot);
                found.insert(
                    values
                        .map(|slot| match bindings.text(slot, key) {
                            Some(text) => Binding::Owned(text.into()),
                            None => bindings.get(slot).clone(),
                        })
                        .collect(),
                );
            }
        }
    }
    found
        .into_iter()
        .map(|values| {
            let mut bindings = Bindings::new(values.len());
            for (slot, value) in (0u16..).map(crate::key::Slot).zip(values) {
                bindings.set(slot, value);
            }
            bindings
        })
        .collect()
}

fn tie_forward(
    context: &Context<'_>,
    draft: &mut Draft,
    step: &Step,
    tie: &Tie,
    rule: RuleId,
    targets: &[Key],
    sources: &[Key],
) -> Result<(), Box<Diagnostic>> {
    let (present, missing): (Vec<&Key>, Vec<&Key>) =
        targets.iter().partition(|key| draft.state.contains(key));
    if !sources.iter().any(|source| draft.state.contains(source))
        && !tie_back(context, draft, step, rule, &present, &missing, sources)
    {
        let absent = if present.is_empty() { tie.absent } else { IfAbsent::Skip };
        let (place, targets, sources) = (step.place.clone(), targets.to_vec(), sources.to_vec());
        let at = draft.ties.waiting.len();
        for source in &sources {
            draft.ties.waiting_for.entry(source.clone()).or_default().push(at);
        }
        draft.ties.waiting.push(Some(Waiting {
            place,
            rule,
            targets,
            sources,
            present: tie.present,
            absent,
        }));
        return settle_waiting(context, draft);
    }
    // Each for itself: a head with a vocabulary of its own has other candidates than an
    // encoder's embedding.
    for target in missing {
        if let Some(source) = candidate(context, draft, &step.place, rule, target, sources) {
            draft.alias(rule, target, &source, true);
        }
    }
    ties_present(
        context,
        draft,
        &step.place,
        tie.present,
        rule,
        present.into_iter().cloned().collect(),
        sources,
    )?;
    settle_waiting(context, draft)
}

/// The other way round: a source that is missing and wanted is one tensor with a target that is
/// there; and where no source is wanted, a target that is. Whether a source is there now.
fn tie_back(
    context: &Context<'_>,
    draft: &mut Draft,
    step: &Step,
    rule: RuleId,
    present: &[&Key],
    missing: &[&Key],
    sources: &[Key],
) -> bool {
    let wanted = |key: &&Key| context.options.wanted.is_some_and(|wanted| wanted.contains(key));
    let from: Vec<Key> = present.iter().copied().cloned().collect();
    if from.is_empty() {
        return false;
    }
    if let Some(source) = sources.iter().find(wanted) {
        let Some(target) = candidate(context, draft, &step.place, rule, source, &from) else {
            return false;
        };
        draft.alias(rule, source, &target, false);
        if let Some(entry) = draft.state.get_mut(&target) {
            entry.tied = true;
        }
        return true;
    }
    let wanted: Vec<Key> = missing.iter().copied().filter(wanted).cloned().collect();
    for target in wanted {
        if let Some(other) = candidate(context, draft, &step.place, rule, &target, &from) {
            draft.alias(rule, &target, &other, true);
        }
    }
    false
}

/// The first source that can stand for a missing key; why others can't is reported.
pub(super) fn candidate(
    context: &Context<'_>,
    draft: &mut Draft,
    place: &Place,
    rule: RuleId,
    target: &Key,
    sources: &[Key],
) -> Option<Key> {
    for source in sources {
        if !draft.state.contains(source) {
            continue;
        }
        let Some(why) = not_a_candidate(context, draft, source, Some(target)) else {
            return Some(source.clone());
        };
        draft.fact(rule, target, source, TieOutcome::Refused { why: why.clone() });
        let finding = Diagnostic::warning(
            TIE_REFUSED,
            format!("`{source}` is no candidate for `{target}`: {why}"),
        );
        draft
            .findings
            .push(finding.at(place.clone(), "tied here").keys([source.as_str(), target.as_str()]));
    }
    None
}

/// Ties that wait for a source which is there now.
fn settle_waiting(context: &Context<'_>, draft: &mut Draft) -> Result<(), Box<Diagnostic>> {
    while let Some(key) = draft.ties.arrived.pop() {
        for at in draft.ties.waiting_for.remove(&key).unwrap_or_default() {
            let Some(tie) = draft.ties.waiting.get_mut(at).and_then(Option::take) else {
                continue;
            };
            let Waiting { place, rule, targets, sources, present, .. } = tie;
            let (there, missing): (Vec<Key>, Vec<Key>) =
                targets.into_iter().partition(|target| draft.state.contains(target));
            for target in missing {
                if let Some(source) = candidate(context, draft, &place, rule, &target, &sources) {
                    draft.alias(rule, &target, &source, true);
                }
            }
            ties_present(context, draft, &place, present, rule, there, &sources)?;
        }
    }
    Ok(())
}

/// Targets that are there beside a source.
fn ties_present(
    context: &Context<'_>,
    draft: &mut Draft,
    place: &Place,
    policy: IfPresent,
    rule: RuleId,
    present: Vec<Key>,
    sources: &[Key],
) -> Result<(), Box<Diagnostic>> {
    let fits = |source: &&Key| {
        draft.state.contains(source) && not_a_candidate(context, draft, source, None).is_none()
    };
    let Some(root) = sources.iter().find(fits) else { return Ok(()) };
    present
        .iter()
        .try_for_each(|target| tie_present(context, draft, place, policy, rule, target, root))
}

/// Remembers how a target that is there stands to its source.
fn outcome(draft: &mut Draft, rule: RuleId, target: &Key, root: &Key, relation: Relation) {
    match relation {
        Relation::Elsewhere => {}
        Relation::Same => draft.fact(rule, target, root, TieOutcome::Made),
        Relation::Equal => draft.fact(rule, target, root, TieOutcome::Equal),
        Relation::Differ(bytes) => draft.fact(rule, target, root, TieOutcome::Differs { bytes }),
        Relation::Unknown => draft.fact(rule, target, root, TieOutcome::Undecided),
    }
}

/// A target that is there beside its source.
fn tie_present(
    context: &Context<'_>,
    draft: &mut Draft,
    place: &Place,
    policy: IfPresent,
    rule: RuleId,
    target: &Key,
    root: &Key,
) -> Result<(), Box<Diagnostic>> {
    let elsewhere = policy != IfPresent::Require && is_elsewhere(context, target, root);
    let relation = relation(context, draft, target, root, elsewhere);
    match (relation, policy) {
        (Relation::Equal, IfPresent::Alias | IfPresent::Require) => {
            draft.fact(rule, target, root, TieOutcome::Made)
        }
        _ => outcome(draft, rule, target, root, relation),
    }
    match (relation, policy) {
        (Relation::Same | Relation::Elsewhere, _) => {}
        (Relation::Equal, IfPresent::Alias | IfPresent::Require) => {
            let node = draft.state.get(root).map(|entry| entry.node);
            let old = draft.state.get(target).map(|entry| entry.node);
            if let (Some(node), Some(old)) = (node, old) {
                // What was one tensor with the target still is.
                draft.state.replace_node(old, node);
                if let Some(entry) = draft.state.get_mut(target) {
                    entry.rules.push(rule);
                }
                draft.drop_sources(old, &DropReason::TiedTo(root.clone()));
                draft.count(rule, 1);
            }
        }
        (Relation::Equal, IfPresent::Keep) => {}
        (Relation::Unknown, _) => {
            let finding = Diagnostic::note(
                UNDECIDED,
                format!(
                    "`{target}` and `{root}` are both there; their bytes are not compared here"
                ),
            );
            draft.findings.push(
                finding.at(place.clone(), "tied here").keys([target.as_str(), root.as_str()]),
            );
        }
        (Relation::Differ(bytes), present) => {
            let message =
                format!("`{target}` is tied to `{root}` but differs from it{}", differing(bytes));
            let finding =
                if present == IfPresent::Require { Diagnostic::error } else { Diagnostic::warning };
            let finding = finding(TIE_DIFFERS, message)
                .at(place.clone(), "tied here")
                .keys([target.as_str(), root.as_str()]);
            let finding =
                finding.hint("it is kept as it is: dropping it would lose a trained tensor");
            if present == IfPresent::Require {
                return Err(Box::new(finding));
            }
            draft.findings.push(finding);
        }
    }
    Ok(())
}

impl Draft {
    /// Remembers what became of a tie.
    pub(super) fn fact(&mut self, rule: RuleId, target: &Key, source: &Key, outcome: TieOutcome) {
        let origin = |key: &Key| match &self.graph.node(self.state.get(key)?.node).op {
            Op::Source { key } => Some(key.clone()),
            _ => None,
        };
        let fact = TieFact {
            rule,
            target_origin: origin(target),
            source_origin: origin(source),
            target: target.clone(),
            source: source.clone(),
            outcome,
        };
        self.ties.facts.push(fact);
    }

    /// Makes `key` one tensor with `of`.
    pub(super) fn alias(&mut self, rule: RuleId, key: &Key, of: &Key, tied: bool) {
        let Some(source) = self.state.get(of) else { return };
        let mut entry = Current { key: key.clone(), tied, given: false, ..source.clone() };
        entry.rules.push(rule);
        self.count(rule, 1);
        self.findings.push(
            Diagnostic::note(TIE_APPLIED, format!("`{key}` is one tensor with `{of}`"))
                .keys([key.as_str(), of.as_str()]),
        );
        self.put(entry);
        self.ties.arrived.push(key.clone());
        self.fact(rule, key, of, TieOutcome::Made);
    }
}
