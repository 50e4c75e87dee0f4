//! Saving ties: which targets are left out, because loading makes them again.
//!
//! A target goes if it is one tensor with its source, and only if the ties of its run, read
//! forwards over what stays, would make the same tensor of it: another tie of the same key may come
//! first, or another source.

use std::collections::{BTreeMap, HashMap};

use crate::check::Step;
use crate::diagnostic::codes::{TIE_APPLIED, TIE_DIFFERS, UNDECIDED};
use crate::diagnostic::{Diagnostic, Place};
use crate::key::Key;
use crate::plan::context::Context;
use crate::plan::draft::Draft;
use crate::plan::pass::relation::{
    Relation, compared, differing, is_elsewhere, not_a_candidate, relation, without_place,
};
use crate::plan::pass::tie::candidate;
use crate::plan::{DropReason, NodeId, RuleId, TieOutcome};
use crate::tensor::companion;

/// One instance of a tie that is read backwards.
#[derive(Clone, Debug)]
pub(super) struct Saving {
    place: Place,
    rule: RuleId,
    targets: Vec<Key>,
    sources: Vec<Key>,
}

/// Why a target may go.
struct Leaving {
    root: Key,
    rule: RuleId,
}

/// Remembers an instance until its run ends; `first` of its statement.
pub(super) fn tie_reverse(
    draft: &mut Draft,
    step: &Step,
    rule: RuleId,
    targets: Vec<Key>,
    sources: Vec<Key>,
    first: bool,
) {
    let saving = Saving { place: step.place.clone(), rule, targets, sources };
    match draft.ties.saving.last_mut() {
        Some(statement) if !first => statement.push(saving),
        _ => draft.ties.saving.push(vec![saving]),
    }
}

/// The end of a run: targets that are one with their source go.
pub(super) fn leave_out(context: &Context<'_>, draft: &mut Draft) {
    // In the order in which they are read forwards.
    let ties: Vec<Saving> =
        std::mem::take(&mut draft.ties.saving).into_iter().rev().flatten().collect();
    let mut leaving: BTreeMap<Key, Leaving> = BTreeMap::new();
    let mut same: HashMap<(NodeId, NodeId), bool> = HashMap::new();
    for tie in &ties {
        make_source(context, draft, tie);
        for target in &tie.targets {
            // What the target manifest asks for stays, tied or not.
            if !draft.state.contains(target)
                || context.options.wanted.is_some_and(|wanted| wanted.contains(target))
            {
                continue;
            }
            let Some(root) =
                first_source(context, draft, tie, target, |key| draft.state.contains(key)).cloned()
            else {
                continue;
            };
            match relation(context, draft, target, &root, is_elsewhere(context, target, &root)) {
                Relation::Elsewhere => {}
                Relation::Same | Relation::Equal => {
                    if let (Some(a), Some(b)) = (draft.state.get(target), draft.state.get(&root)) {
                        same.insert((a.node, b.node), true);
                    }
                    leaving.entry(target.clone()).or_insert(Leaving { root, rule: tie.rule });
                }
                Relation::Differ(bytes) => {
                    let message = format!(
                        "`{target}` is tied to `{root}` but differs from it{}, so it is kept",
                        differing(bytes)
                    );
                    let finding = Diagnostic::warning(TIE_DIFFERS, message)
                        .at(tie.place.clone(), "tied here");
                    draft.findings.push(finding.keys([target.as_str(), root.as_str()]));
                    draft.fact(tie.rule, target, &root, TieOutcome::Differs { bytes });
                }
                Relation::Unknown => {
                    let message = format!(
                        "`{target}` is left out if it equals `{root}` byte for byte, which is not compared here"
                    );
                    let finding =
                        Diagnostic::note(UNDECIDED, message).at(tie.place.clone(), "tied here");
                    draft.findings.push(finding.keys([target.as_str(), root.as_str()]));
                    draft.fact(tie.rule, target, &root, TieOutcome::Undecided);
                }
            }
        }
    }
    keep_what_is_scaled(draft, &mut leaving);
    keep_what_would_be_lost(context, draft, &ties, &mut leaving, &mut same);
    let mut gone = Vec::with_capacity(leaving.len());
    for (target, Leaving { root, rule }) in &leaving {
        let mut root = root;
        // What it is one with may go too: then it is what that one is.
        for _ in 0..leaving.len() {
            match leaving.get(root) {
                Some(next) => root = &next.root,
                None => break,
            }
        }
        draft.fact(*rule, target, root, TieOutcome::LeftOut);
        let message = format!("`{target}` is left out: it is one tensor with `{root}`");
        draft
            .findings
            .push(Diagnostic::note(TIE_APPLIED, message).keys([target.as_str(), root.as_str()]));
        draft.count(*rule, 1);
        gone.push((target, root));
    }
    for (target, root) in gone {
        if let Some(entry) = draft.state.remove(target) {
            draft.drop_sources(entry.node, &DropReason::TiedTo(root.clone()));
        }
    }
}

/// A checkpoint may hold a target alone: where every source is missing and one is asked for,
/// that is one tensor with the target.
fn make_source(context: &Context<'_>, draft: &mut Draft, tie: &Saving) {
    if tie.sources.iter().any(|source| draft.state.contains(source)) {
        return;
    }
    let Some(source) = tie
        .sources
        .iter()
        .find(|source| context.options.wanted.is_some_and(|wanted| wanted.contains(source)))
    else {
        return;
    };
    if let Some(target) = candidate(context, draft, &tie.place, tie.rule, source, &tie.targets) {
        draft.alias(tie.rule, source, &target, false);
    }
}

/// Takes from `leaving` each tensor whose scales, or what else belongs to it, stay; and then
/// those of its companions that would go alone.
fn keep_what_is_scaled(draft: &Draft, leaving: &mut BTreeMap<Key, Leaving>) {
    let needed = |key: &Key| {
        companion::names_of(key)
            .into_iter()
            .filter(|(_, role)| role.is_needed())
            .map(|(name, _)| name)
    };
    let stays = |leaving: &BTreeMap<Key, Leaving>, name: &str| {
        draft.state.contains(name) && !leaving.contains_key(name)
    };
    let kept: Vec<Key> = leaving
        .keys()
        .filter(|key| needed(key).any(|name| stays(leaving, &name)))
        .cloned()
        .collect();
    for key in &kept {
        leaving.remove(key);
        for (name, _) in companion::names_of(key) {
            leaving.remove(name.as_str());
        }
    }
}

/// Takes from `leaving` what the ties wouldn't make again, as it was, from what stays; until
/// they would.
fn keep_what_would_be_lost(
    context: &Context<'_>,
    draft: &Draft,
    ties: &[Saving],
    leaving: &mut BTreeMap<Key, Leaving>,
    same: &mut HashMap<(NodeId, NodeId), bool>,
) {
    while !leaving.is_empty() {
        let made = load_again(context, draft, ties, leaving);
        let before = leaving.len();
        leaving.retain(|target, _| {
            let was = draft.state.get(target).map(|entry| entry.node);
            let (Some(was), Some(is)) = (was, made.get(target).copied()) else { return false };
            was == is
                || *same.entry((was, is)).or_insert_with(|| {
                    matches!(compared(context, draft, was, is, 0), Relation::Same | Relation::Equal)
                })
        });
        if leaving.len() == before {
            return;
        }
    }
}

/// The nodes that the ties make of the keys that leave.
fn load_again(
    context: &Context<'_>,
    draft: &Draft,
    ties: &[Saving],
    leaving: &BTreeMap<Key, Leaving>,
) -> HashMap<Key, NodeId> {
    let stays = |key: &Key| {
        draft.state.get(key).filter(|_| !leaving.contains_key(key)).map(|entry| entry.node)
    };
    let mut made: HashMap<Key, NodeId> = HashMap::new();
    let mut waiting: HashMap<&Key, Vec<&Saving>> = HashMap::new();
    for tie in ties {
        let mut ready = vec![tie];
        while let Some(tie) = ready.pop() {
            let mut waits = false;
            for target in tie.targets.iter().filter(|target| leaving.contains_key(*target)) {
                if made.contains_key(target) {
                    continue;
                }
                let source = first_source(context, draft, tie, target, |key| {
                    stays(key).is_some() || made.contains_key(key)
                });
                match source.and_then(|source| stays(source).or_else(|| made.get(source).copied()))
                {
                    Some(node) => {
                        made.insert(target.clone(), node);
                        ready.extend(waiting.remove(target).into_iter().flatten());
                    }
                    None => waits = true,
                }
            }
            if waits {
                for source in &tie.sources {
                    waiting.entry(source).or_default().push(tie);
                }
            }
        }
    }
    made
}

/// The source that loading takes, of those that are there.
fn first_source<'t>(
    context: &Context<'_>,
    draft: &Draft,
    tie: &'t Saving,
    target: &Key,
    there: impl Fn(&Key) -> bool,
) -> Option<&'t Key> {
    let fits = |source: &Key| {
        not_a_candidate(context, draft, source, None).is_none()
            && without_place(draft, source, target).is_none()
    };
    tie.sources.iter().find(|source| *source != target && there(source) && fits(source))
}
