//! The end of planning: the target manifest is met, unused nodes go, and exact cover is shown:
//! every tensor of the checkpoint is used, dropped for a reason, or passes through.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::diagnostic::codes::{
    MISMATCHED_KEY, MISSING_KEY, NO_KEYS, SHAPE, TIE_APPLIED, UNEXPECTED_KEY,
};
use crate::diagnostic::{Diagnostic, Diagnostics, Severity, did_you_mean};
use crate::key::{Key, natural_order};
use crate::plan::behind::Behind;
use crate::plan::blocks::check_blocks;
use crate::plan::context::Context;
use crate::plan::draft::Draft;
use crate::plan::modules::{check_config, check_modules, pairs};
use crate::plan::node::{DropReason, Dropped, Node, NodeId, Plan, Target, Verdict};
use crate::plan::pass::strip::Stray;
use crate::plan::state::Current;
use crate::plan::{Share, counted, sources};
use crate::tensor::TensorInfo;

/// How the keys of a plan meet the target manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Keys that the manifest asks for and nothing gives.
    pub missing: Vec<Key>,
    /// Keys that are given and the manifest doesn't know; they are left out.
    pub unexpected: Vec<Key>,
    /// Keys that are given and belong to another [share](super::Share) of the target; they are left
    /// out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<Key>,
    /// Keys whose shape or dtype is not what the manifest says.
    pub mismatched: Vec<Key>,
}

/// Keys that are searched for one that a person may have meant.
const SEARCHED: usize = 2000;

/// Ways in which keys are mismatched that are told of.
const KINDS: usize = 3;

pub(super) fn finish(context: &Context<'_>, mut draft: Draft) -> Result<Plan, Diagnostics> {
    if draft.failed() {
        return Err(Diagnostics(draft.findings));
    }
    let stays = |key: &&Key| !draft.state.contains(key) && asks_for(context, key);
    let kept: Vec<Key> = draft.ties.kept.iter().filter(stays).cloned().collect();
    let mut entries = draft.state.take_all();
    entries.sort_by(|a, b| natural_order(&a.key, &b.key));
    share(context, &mut draft, &mut entries);
    let report = meet_wanted(context, &mut draft, &mut entries);
    if report.is_none() {
        let strays = std::mem::take(&mut draft.strays);
        draft.findings.extend(strays.into_iter().map(Stray::note));
    }
    if draft.failed() {
        return Err(Diagnostics(draft.findings));
    }
    draft.findings.extend(sources::not_read(context, &draft.unreadable));
    refuse_no_keys(context, &mut draft, &entries, &kept);
    if draft.failed() {
        return Err(Diagnostics(draft.findings));
    }
    let config = &context.options.config;
    // What no statement has touched is beside what belongs to it; only a config may say otherwise.
    let is_asked = entries.iter().any(|entry| !entry.rules.is_empty())
        || config.get(&["quantization_config"]).is_some();
    let pairs = if is_asked { pairs(&draft.graph) } else { Vec::new() };
    let (cut, left_behind) = beside(
        draft.graph.nodes.len(),
        || check_blocks(config, &draft, &entries, &pairs),
        || check_modules(&draft, &entries, &pairs),
    );
    draft.findings.extend(cut);
    if draft.failed() {
        return Err(Diagnostics(draft.findings));
    }
    left_behind.report(&mut draft);
    if draft.failed() {
        return Err(Diagnostics(draft.findings));
    }
    check_config(context, &mut draft, &entries, &pairs);
    let needed = reachable(&draft, &entries);
    let dropped = dropped(context, &mut draft, &needed);
    if draft.failed() {
        return Err(Diagnostics(draft.findings));
    }
    let (nodes, numbers) = retain(draft.graph.nodes, &needed);
    let targets = name_ties(entries, &numbers);
    Ok(Plan {
        nodes,
        targets,
        dropped,
        rules: draft.rules,
        verdict: overall(&draft.verdicts),
        tied: Some(context.decision.clone()),
        renamed: draft.renamed,
        lost: draft.lost,
        report,
        kept,
        ties: draft.ties.facts,
        questions: Vec::new(),
        told: draft.told,
        findings: draft.findings,
    })
}

/// Nodes from which on it pays to look at them in two threads.
const MANY: usize = 10_000;

/// Does two things, at the same time if a plan has many nodes.
fn beside<A: Send, B: Send>(
    nodes: usize,
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    // Where there are no files there are hardly threads, and a browser would have to load the pool.
    if nodes < MANY || cfg!(not(feature = "files")) { (a(), b()) } else { rayon::join(a, b) }
}

/// Whether the part of the target manifest that counts asks for a key; every key is asked for
/// without a manifest.
fn asks_for(context: &Context<'_>, key: &str) -> bool {
    match (context.options.part, context.options.wanted) {
        (Share::Keys(part), _) => part.contains(key),
        (Share::Whole | Share::Open, Some(wanted)) => wanted.contains(key),
        (Share::Whole | Share::Open, None) => true,
    }
}

/// A result without a key is a mistake, whatever was allowed; but a part that asks for nothing
/// gets nothing, and of a part whose others aren't known, a checkpoint may hold nothing.
fn refuse_no_keys(context: &Context<'_>, draft: &mut Draft, entries: &[Current], kept: &[Key]) {
    let asks_for_nothing = match (context.options.part, context.options.wanted) {
        (Share::Keys(part), _) => part.keys.is_empty(),
        (Share::Open, _) => true,
        _ => false,
    };
    if !entries.is_empty()
        || !kept.is_empty()
        || context.header.tensors.is_empty()
        || asks_for_nothing
    {
        return;
    }
    let all = counted(context.header.tensors.len(), "key");
    let finding = Diagnostic::error(
        NO_KEYS,
        format!("nothing is left: no key of the result comes from the {all} of the checkpoint"),
    );
    let hint = match context.options.wanted {
        Some(_) => "is the target manifest one of this model, and in the layout that comes out?",
        None => "a `drop` or a `keep` took them all",
    };
    let finding =
        finding.keys(context.header.tensors.keys().take(5).map(|key| key.as_str())).hint(hint);
    draft.findings.push(finding);
}

/// What the module that loads holds as one tensor isn't missing where another of its keys is
/// given.
fn share(context: &Context<'_>, draft: &mut Draft, entries: &mut Vec<Current>) {
    if context.options.shared.is_empty() {
        return;
    }
    let given: HashMap<&Key, &Current> = entries.iter().map(|entry| (&entry.key, entry)).collect();
    let mut made: Vec<Current> = Vec::new();
    let mut seen: HashSet<&Key> = HashSet::new();
    for group in context.options.shared {
        let Some(source) = group.iter().find_map(|key| given.get(key)) else { continue };
        for key in
            group.iter().filter(|key| !given.contains_key(key) && !draft.ties.kept.contains(*key))
        {
            if asks_for(context, key) && seen.insert(key) {
                made.push(Current { key: key.clone(), tied: true, ..(*source).clone() });
            }
        }
    }
    if made.is_empty() {
        return;
    }
    let are = if made.len() == 1 {
        "1 key that is missing is".to_owned()
    } else {
        format!("{} keys that are missing are", made.len())
    };
    let message = format!("{are} one tensor with what is given, in the module that loads");
    draft.findings.push(
        Diagnostic::note(TIE_APPLIED, message).keys(made.iter().map(|entry| entry.key.as_str())),
    );
    entries.extend(made);
    entries.sort_by(|a, b| natural_order(&a.key, &b.key));
}

/// Leaves out what the target manifest doesn't ask for, and reports how it is met.
fn meet_wanted(
    context: &Context<'_>,
    draft: &mut Draft,
    entries: &mut Vec<Current>,
) -> Option<Coverage> {
    let wanted = context.options.wanted?;
    let mut report = Coverage::default();
    let given: HashSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    let part = if let Share::Keys(part) = context.options.part { part } else { wanted };
    let is_missing = |key: &&Key| !given.contains(key.as_str()) && !draft.ties.kept.contains(*key);
    report.missing = part.keys.keys().filter(is_missing).cloned().collect();
    report.missing.sort_by(|a, b| natural_order(a, b));
    // A tensor that is asked for by another of its keys is not lost.
    let taken: HashSet<NodeId> = entries
        .iter()
        .filter(|entry| wanted.contains(&entry.key))
        .map(|entry| entry.node)
        .collect();
    for entry in entries.iter().filter(|entry| !part.contains(&entry.key)) {
        match context.options.part {
            Share::Open => report.elsewhere.push(entry.key.clone()),
            Share::Keys(_) if wanted.contains(&entry.key) => {
                report.elsewhere.push(entry.key.clone())
            }
            _ if taken.contains(&entry.node) => {}
            Share::Whole | Share::Keys(_) => report.unexpected.push(entry.key.clone()),
        }
    }
    report_absent(context, draft, &report);
    entries.retain(|entry| part.contains(&entry.key));
    let mut apart: Vec<Apart<'_>> = Vec::new();
    for entry in entries.iter() {
        let (Some(wanted), given) = (part.get(&entry.key), draft.graph.info(entry.node)) else {
            continue;
        };
        if wanted != given {
            report.mismatched.push(entry.key.clone());
            apart.push(Apart { key: entry.key.clone(), given: given.clone(), wanted });
        }
    }
    // A dtype can be converted when it is loaded; a shape can't.
    let (dtypes, shapes): (Vec<_>, Vec<_>) =
        apart.into_iter().partition(|apart| apart.wanted.shape == apart.given.shape);
    draft.findings.extend(mismatched(&shapes));
    draft.findings.extend(mismatched(&dtypes).map(|mut finding| {
        finding.severity = Severity::Warning;
        finding.hint("a `cast` rule converts it")
    }));
    Some(report)
}

/// Says which keys are missing and which are unexpected, and what sets them apart.
fn report_absent(context: &Context<'_>, draft: &mut Draft, report: &Coverage) {
    let severity = if context.options.not_strict { Severity::Warning } else { Severity::Error };
    let apart = Behind::find(&report.missing, &report.unexpected);
    let strays = std::mem::take(&mut draft.strays);
    let first = if report.missing.is_empty() { UNEXPECTED_KEY } else { MISSING_KEY };
    for (code, keys, others, what) in [
        (MISSING_KEY, &report.missing, &report.unexpected, "missing: the target manifest asks for"),
        (
            UNEXPECTED_KEY,
            &report.unexpected,
            &report.missing,
            "unexpected: the target manifest doesn't know",
        ),
    ] {
        if keys.is_empty() {
            continue;
        }
        let mut finding =
            Diagnostic::warning(code, format!("{what} {}", counted(keys.len(), "key")));
        finding.severity = severity;
        finding = finding.keys(keys.iter().map(|key| key.as_str()));
        let is_missing = code == MISSING_KEY;
        let near: HashSet<&str> =
            if apart.is_some() { others.iter().map(Key::as_str).collect() } else { HashSet::new() };
        // Where a wrapper stays because of a few keys, that is the cause: taking it off by hand
        // would be beside the point.
        let told = |apart: &&Behind| strays.iter().any(|stray| stray.is_of(&apart.prefix));
        let hints = strays
            .iter()
            .filter(|_| code == first)
            .map(Stray::hint)
            .chain(apart.iter().filter(|apart| is_missing && !told(apart)).map(Behind::hint));
        let explained =
            |key: &Key| apart.as_ref().is_some_and(|apart| apart.explains(key, is_missing, &near));
        let closest = keys.iter().filter(|key| !explained(key)).take(3).filter_map(|key| {
            let close = did_you_mean(key, others.iter().take(SEARCHED).map(Key::as_str))?;
            Some(format!("`{key}`: did you mean `{close}`?"))
        });
        for hint in hints.chain(closest) {
            finding = finding.hint(hint);
        }
        if !context.options.not_strict {
            finding = finding.hint("with --no-strict this is a finding, not a stop");
        } else if code == UNEXPECTED_KEY {
            finding = finding.hint("they are left out");
        }
        draft.findings.push(finding);
    }
}

/// Whether each node is needed for the entries.
fn reachable(draft: &Draft, entries: &[Current]) -> Vec<bool> {
    let mut needed = vec![false; draft.graph.nodes.len()];
    let mut open: Vec<NodeId> = entries.iter().map(|entry| entry.node).collect();
    while let Some(id) = open.pop() {
        if !std::mem::replace(&mut needed[id.0 as usize], true) {
            open.extend(&draft.graph.node(id).inputs);
        }
    }
    needed
}

/// A key that isn't as the target manifest says.
struct Apart<'w> {
    key: Key,
    given: TensorInfo,
    wanted: &'w TensorInfo,
}

/// One finding for all keys that aren't as the target manifest says; those that differ alike are
/// told of once.
fn mismatched(apart: &[Apart<'_>]) -> Option<Diagnostic> {
    let (first, rest) = apart.split_first()?;
    let Apart { key, given, wanted } = first;
    let message = if rest.is_empty() {
        format!("mismatched: `{key}` is {given}, and the target manifest says {wanted}")
    } else {
        format!("mismatched: {} are not as the target manifest says", counted(apart.len(), "key"))
    };
    let mut finding = Diagnostic::error(MISMATCHED_KEY, message)
        .keys(apart.iter().map(|apart| apart.key.as_str()));
    if rest.is_empty() {
        return Some(finding);
    }
    let mut kinds: IndexMap<(&TensorInfo, &TensorInfo), (&Key, usize)> = IndexMap::new();
    for Apart { key, given, wanted } in apart {
        kinds.entry((given, *wanted)).or_insert((key, 0)).1 += 1;
    }
    for ((given, wanted), (key, count)) in kinds.iter().take(KINDS) {
        let more = if *count > 1 { format!(" and {} more", count - 1) } else { String::new() };
        finding = finding.hint(format!("`{key}`{more}: given {given}, asked for {wanted}"));
    }
    if kinds.len() > KINDS {
        finding = finding.hint(format!("and in {} more ways", kinds.len() - KINDS));
    }
    Some(finding)
}

/// What no target uses, and why.
fn dropped(context: &Context<'_>, draft: &mut Draft, needed: &[bool]) -> Vec<Dropped> {
    let mut dropped = Vec::new();
    // Every key of the header became a source when it was loaded.
    for (key, _) in draft.graph.sources().filter(|(_, node)| !needed[node.0 as usize]) {
        match draft.dropped.get(key) {
            Some(reason) => dropped.push(Dropped { key: key.clone(), reason: reason.clone() }),
            None if context.options.wanted.is_some() => {
                dropped.push(Dropped { key: key.clone(), reason: DropReason::NotWanted })
            }
            None => {
                let finding = Diagnostic::error(
                    SHAPE,
                    "a tensor of the checkpoint would be lost: no target uses it and no rule drops it",
                );
                draft.findings.push(
                    finding
                        .keys([key.as_str()])
                        .hint("this is a fault of regraft, please report it"),
                );
            }
        }
    }
    dropped.sort_by(|a, b| natural_order(&a.key, &b.key));
    dropped
}

/// The nodes that are needed, and the new number of each.
fn retain(mut nodes: Vec<Node>, needed: &[bool]) -> (Vec<Node>, Vec<NodeId>) {
    let mut numbers = Vec::with_capacity(needed.len());
    let mut count = 0;
    for needed in needed {
        // What isn't needed has no number; nothing that is asks for it.
        numbers.push(NodeId(count));
        count += u32::from(*needed);
    }
    let mut needed = needed.iter();
    nodes.retain_mut(|node| {
        let keep = needed.next().is_some_and(|needed| *needed);
        if keep {
            for input in &mut node.inputs {
                *input = numbers[input.0 as usize];
            }
        }
        keep
    });
    (nodes, numbers)
}

/// Targets with the key that each tied one is one tensor with.
fn name_ties(entries: Vec<Current>, numbers: &[NodeId]) -> Vec<Target> {
    let tied: HashSet<NodeId> =
        entries.iter().filter(|entry| entry.tied).map(|entry| entry.node).collect();
    let mut roots: HashMap<NodeId, Key> = HashMap::new();
    let of_ties = |is_tied: bool| {
        entries
            .iter()
            .filter(move |entry| entry.tied == is_tied)
            .filter(|entry| tied.contains(&entry.node))
    };
    for entry in of_ties(false).chain(of_ties(true)) {
        roots.entry(entry.node).or_insert_with(|| entry.key.clone());
    }
    entries
        .into_iter()
        .map(|entry| {
            let root =
                roots.get(&entry.node).filter(|root| entry.tied && **root != entry.key).cloned();
            Target {
                key: entry.key,
                node: numbers[entry.node.0 as usize],
                rules: entry.rules,
                tied_to: root,
            }
        })
        .collect()
}

fn overall(verdicts: &[Verdict]) -> Option<Verdict> {
    [Verdict::Mixed, Verdict::Converts, Verdict::Already, Verdict::Neither]
        .into_iter()
        .find(|verdict| verdicts.contains(verdict))
}
