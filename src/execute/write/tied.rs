//! Tied targets: which of them are written, and what metadata says of those that aren't.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ties, WriteOptions};
use crate::execute::Report;
use crate::key::RankFiles;
use crate::plan::{Plan, Target};
use crate::store::Store;
use crate::tensor::Header;

/// Which tied targets are left out.
#[derive(Clone, Copy)]
pub(in crate::execute) struct Leave<'a> {
    ties: Ties,
    /// How the files of ranks are named, if there are such: nothing may be left out of one for
    /// another's sake.
    ranks: Option<&'a RankFiles>,
}

impl<'a> From<&'a WriteOptions<'_>> for Leave<'a> {
    fn from(options: &'a WriteOptions<'_>) -> Self {
        Self { ties: options.ties, ranks: options.rank_files.as_ref() }
    }
}

impl From<Ties> for Leave<'_> {
    fn from(ties: Ties) -> Self {
        Self { ties, ranks: None }
    }
}

/// `__metadata__` of the output: the source's, and what the options add.
pub(super) fn metadata(
    plan: &Plan,
    source: &dyn Store,
    more: &BTreeMap<String, String>,
    leave: Leave<'_>,
) -> BTreeMap<String, String> {
    let mut metadata = carried(plan, source.header(), more, leave);
    if source.header().metadata.is_empty() {
        metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
    }
    metadata
}

/// What metadata becomes: where it names keys that are one tensor, it names those of the result, as
/// far as they are left out there.
pub(in crate::execute) fn carried(
    plan: &Plan,
    header: &Header,
    more: &BTreeMap<String, String>,
    leave: Leave<'_>,
) -> BTreeMap<String, String> {
    let mut metadata = more.clone();
    metadata.extend(header.metadata.clone());
    let mut says_aliases = !header.shared.is_empty();
    for (alias, kept) in header.aliases() {
        let is_left_out = !header.tensors.contains_key(alias);
        says_aliases |= is_left_out;
        if is_left_out || plan.target(alias).is_none() || plan.target(kept).is_none() {
            metadata.remove(alias);
        }
    }
    if says_aliases {
        for target in &plan.targets {
            if let Some(root) = stands_for(plan, target, leave) {
                metadata.entry(target.key.to_string()).or_insert_with(|| root.key.to_string());
            }
        }
    }
    metadata
}

/// The targets that are written, by their place in the plan.
pub(in crate::execute) fn kept(plan: &Plan, leave: Leave<'_>) -> Vec<usize> {
    (0..plan.targets.len())
        .filter(|at| stands_for(plan, &plan.targets[*at], leave).is_none())
        .collect()
}

/// A report of the targets that aren't written.
pub(super) fn report(plan: &Plan, leave: Leave<'_>) -> Report {
    let mut report = Report::default();
    for target in plan.targets.iter().filter(|target| stands_for(plan, target, leave).is_some()) {
        report.aliased += 1;
        report.bytes_aliased +=
            plan.nodes.get(target.node.0 as usize).and_then(|node| node.info.nbytes()).unwrap_or(0);
    }
    report
}

/// What is written in the place of a target, if that is left out: what it is tied to, at the root of
/// its chain of ties.
fn stands_for<'p>(plan: &'p Plan, target: &'p Target, leave: Leave<'_>) -> Option<&'p Target> {
    let root = root(plan, target).filter(|_| leave.ties == Ties::Alias)?;
    let Some(ranks) = leave.ranks else { return Some(root) };
    let file = |target: &Target| ranks.of(&target.key).map(|(numbers, _)| numbers);
    (file(root) == file(target)).then_some(root)
}

/// What a tied target is one tensor with, at the root of its chain of ties, if that is written.
fn root<'p>(plan: &'p Plan, target: &'p Target) -> Option<&'p Target> {
    let mut seen = BTreeSet::from([&target.key]);
    let mut root = target;
    while let Some(key) = &root.tied_to {
        // A tie to a key that isn't written, or a cycle: then this one is.
        root = plan.target(key).filter(|next| seen.insert(&next.key))?;
    }
    (root.key != target.key).then_some(root)
}
