//! Base prefixes: a base model's checkpoint for a class with a head, and the other way round,
//! without a rule that says so.
//!
//! As the library that owns these classes loads them: after all rules, a key that the target
//! manifest doesn't know is tried without the base prefix, then with it. Rules of nested models may
//! be written for keys that carry it (or don't), so where keys are missing afterwards, the rules
//! run once more over keys that were given it (or lost it) first. What meets more of the target
//! stands, and the rules alone if nothing meets more. Only prefixes that the model type uses are
//! tried, and never on a key that the manifest knows.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::check::reading::Act;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::{NEITHER_LAYOUT, PREFIX_CHANGED};
use crate::key::Key;
use crate::plan::context::Context;
use crate::plan::draft::Draft;
use crate::plan::pass::lossy::is_recorded;
use crate::plan::{Renamed, RuleId, RuleInfo, Share, Stage, counted};

/// What plans and records call these steps, in the place of a rule file.
const FILE: &str = "base prefix";

/// What is done to keys before any rule sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// They get a prefix.
    Add(&'static str),
    /// They lose it.
    Strip(&'static str),
}

impl Base {
    fn prefix(self) -> &'static str {
        match self {
            Base::Add(prefix) | Base::Strip(prefix) => prefix,
        }
    }
}

/// A key without a prefix, if it carries it and something is left.
fn without<'k>(key: &'k str, prefix: &str) -> Option<&'k str> {
    key.strip_prefix(prefix)?.strip_prefix('.').filter(|rest| !rest.is_empty())
}

/// What a statement that did this would be.
fn statement(prefix: &str, first: bool) -> String {
    if first {
        format!("prefix \"{prefix}\", before the rules")
    } else {
        format!("prefix \"{prefix}\"")
    }
}

/// The draft that meets most of the target: `plain`, for which nothing was done to keys before the
/// rules, or one of those that `run` gives for a base prefix.
pub(super) fn with_better_base(
    context: &Context<'_>,
    plain: Draft,
    run: impl Fn(Base) -> Draft,
) -> Draft {
    let mut better: Option<Draft> = None;
    // Whether two fit equally: no guess, unless a third fits better still.
    let mut undecided = false;
    for base in other_bases(context, &plain) {
        let other = run(base);
        if other.failed() {
            continue;
        }
        let most = met(context, better.as_ref().unwrap_or(&plain));
        match met(context, &other).cmp(&most) {
            Ordering::Greater => (better, undecided) = (Some(other), false),
            Ordering::Equal => {
                undecided |=
                    better.as_ref().is_some_and(|better| !better.state.same_keys(&other.state));
            }
            Ordering::Less => {}
        }
    }
    better.filter(|_| !undecided).unwrap_or(plain)
}

/// What is worth trying before the rules, now that they ran: nothing if every key is met, or if
/// this failed for another reason than that no rule fits.
pub(super) fn other_bases(context: &Context<'_>, draft: &Draft) -> Vec<Base> {
    let Some(wanted) = context.options.wanted else { return Vec::new() };
    if draft.findings.iter().any(|finding| finding.is_error() && finding.code != NEITHER_LAYOUT)
        || met(context, draft) == asked(context)
    {
        return Vec::new();
    }
    let (mut ways, given) = (Vec::new(), || context.header.tensors.keys());
    for prefix in context.options.config.base_prefixes() {
        if wanted.keys.keys().any(|key| without(key, prefix).is_some())
            && given().any(|key| without(key, prefix).is_none())
        {
            ways.push(Base::Add(prefix));
        }
        if given().any(|key| without(key, prefix).is_some()) {
            ways.push(Base::Strip(prefix));
        }
    }
    ways
}

/// How many keys the target asks for here.
fn asked(context: &Context<'_>) -> usize {
    match (context.options.part, context.options.wanted) {
        (Share::Keys(part), _) => part.keys.len(),
        (_, wanted) => wanted.map_or(0, |wanted| wanted.keys.len()),
    }
}

/// How many of them are there.
pub(super) fn met(context: &Context<'_>, draft: &Draft) -> usize {
    let part = if let Share::Keys(part) = context.options.part {
        Some(part)
    } else {
        context.options.wanted
    };
    let there = |key: &&Key| draft.state.contains(key) || draft.ties.kept.contains(*key);
    part.map_or(0, |part| part.keys.keys().filter(there).count())
}

/// The first statement that isn't a strip has its turn: keys get the base prefix that is tried,
/// or lose it.
pub(super) fn try_base(context: &Context<'_>, draft: &mut Draft, act: &Act<'_>) {
    if matches!(act, Act::StripAnywhere { .. } | Act::StripLeading { .. } | Act::Whole { .. }) {
        return;
    }
    let (Some(base), Some(wanted)) = (draft.base.take(), context.options.wanted) else { return };
    let prefix = base.prefix();
    let change = |key: &str| -> Option<String> {
        let other = match base {
            _ if wanted.contains(key) => return None,
            Base::Add(_) if without(key, prefix).is_some() => return None,
            Base::Add(_) => format!("{prefix}.{key}"),
            Base::Strip(_) => without(key, prefix)?.to_owned(),
        };
        (!draft.state.contains(&other)).then_some(other)
    };
    let changes =
        draft.state.iter().filter_map(|(at, entry)| Some((at, change(&entry.key)?))).collect();
    change_prefix(draft, prefix, changes, true);
}

/// After all rules: keys that the manifest doesn't know are tried without each base prefix,
/// then with it.
pub(super) fn meet_base(context: &Context<'_>, draft: &mut Draft) {
    let Some(wanted) = context.options.wanted else { return };
    let prefixes = context.options.config.base_prefixes();
    let free = |key: &str| wanted.contains(key) && !draft.state.contains(key);
    // The one key that all prefixes make of a key, and which; no guess between two.
    let other = |key: &str| -> Option<(usize, String)> {
        let tried = prefixes.iter().enumerate().filter_map(|(at, prefix)| {
            let shorter = without(key, prefix).filter(|key| free(key)).map(str::to_owned);
            let longer = || Some(format!("{prefix}.{key}")).filter(|key| free(key));
            Some((at, shorter.or_else(longer)?))
        });
        let mut tried = tried.collect::<Vec<_>>().into_iter();
        let first = tried.next()?;
        tried.all(|(_, key)| key == first.1).then_some(first)
    };
    let unknown = draft.state.iter().filter(|(_, entry)| !wanted.contains(&entry.key));
    let changes: Vec<(usize, (usize, String))> =
        unknown.filter_map(|(at, entry)| Some((at, other(&entry.key)?))).collect();
    let mut results: HashMap<&str, usize> = HashMap::new();
    for (_, (_, key)) in &changes {
        *results.entry(key).or_default() += 1;
    }
    let alone: Vec<bool> =
        changes.iter().map(|(_, (_, key))| results.get(key.as_str()) == Some(&1)).collect();
    let mut by_prefix: Vec<Vec<(usize, String)>> = vec![Vec::new(); prefixes.len()];
    for ((place, (at, key)), _) in changes.into_iter().zip(alone).filter(|(_, alone)| *alone) {
        by_prefix[at].push((place, key));
    }
    for (prefix, changes) in prefixes.iter().zip(by_prefix) {
        change_prefix(draft, prefix, changes, false);
    }
}

fn change_prefix(draft: &mut Draft, prefix: &str, changes: Vec<(usize, String)>, first: bool) {
    if changes.is_empty() {
        return;
    }
    let text = statement(prefix, first);
    let rule = RuleId(u32::try_from(draft.rules.len()).unwrap_or(u32::MAX));
    draft.rules.push(RuleInfo {
        file: FILE.to_owned(),
        line: 1,
        text: text.clone(),
        count: changes.len() as u64,
    });
    let (mut added, mut stripped) = (0usize, 0usize);
    for (from, to) in draft.rename_by(rule, changes) {
        *(if to.len() > from.len() { &mut added } else { &mut stripped }) += 1;
        draft.renamed.push(Renamed { file: FILE.to_owned(), rule: text.clone(), from, to });
    }
    draft.findings.push(prefix_changed(prefix, added, stripped));
}

/// Turns back, reading backwards, what was done to prefixes by a conversion of which the record
/// tells: what came last comes first.
pub(super) fn restore_base(
    context: &Context<'_>,
    draft: &mut Draft,
    stages: &[Stage<'_>],
    first: bool,
) {
    let Some(record) = context.options.record else { return };
    if !stages.iter().any(|stage| is_recorded(context, stage)) || context.options.wanted.is_some() {
        return;
    }
    let made_by = |renamed: &&Renamed| {
        renamed.file == FILE && renamed.rule.ends_with("before the rules") == first
    };
    let mut changes = Vec::new();
    for renamed in record.renamed.iter().filter(made_by) {
        if let Some(at) = draft.state.place(&renamed.to) {
            changes.push((at, renamed.from.as_str().to_owned()));
        }
    }
    if changes.is_empty() {
        return;
    }
    let rule = RuleId(u32::try_from(draft.rules.len()).unwrap_or(u32::MAX));
    draft.rules.push(RuleInfo {
        file: FILE.to_owned(),
        line: 1,
        text: "turned back".to_owned(),
        count: changes.len() as u64,
    });
    let restored = draft.rename_by(rule, changes);
    let message = format!("turned back {}, as the record says", counted(restored.len(), "key"));
    let finding = Diagnostic::note(crate::diagnostic::codes::RESTORED, message);
    draft.findings.push(finding.keys(restored.iter().map(|(_, key)| key.as_str())));
}

/// What is said of a prefix that was added or taken off.
pub(super) fn prefix_changed(prefix: &str, added: usize, stripped: usize) -> Diagnostic {
    let what: Vec<String> = [(added, "added to"), (stripped, "stripped from")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{what} {}", counted(count, "key")))
        .collect();
    Diagnostic::note(
        PREFIX_CHANGED,
        format!("the prefix `{prefix}` was {}, as the target manifest asks", what.join(" and ")),
    )
}
