//! The end of planning: the target manifest is met, unused nodes go, and exact cover is shown: every tensor of the checkpoint is used,
//! dropped for a reason, or passes through.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use serde::Serialize;

use super::node::{DropReason, Dropped, Node, NodeId, Op, Plan, Target, Verdict};
use super::state::Entry;
use super::{Planner, counted};
use crate::diagnostic::codes::{MISMATCHED_KEY, MISSING_KEY, SHAPE, UNEXPECTED_KEY};
use crate::diagnostic::{Diagnostic, Diagnostics, Severity, did_you_mean};
use crate::key::{Key, natural_order};

/// How the keys of a plan meet the target manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Keys that the manifest asks for and nothing gives.
    pub missing: Vec<Key>,
    /// Keys that are given and the manifest doesn't know; they are left out.
    pub unexpected: Vec<Key>,
    /// Keys whose shape or dtype is not what the manifest says.
    pub mismatched: Vec<Key>,
}

/// Keys that are searched for one that a person may have meant.
const SEARCHED: usize = 2000;

impl Planner<'_> {
    pub(super) fn finish(mut self) -> Result<Plan, Diagnostics> {
        if self.failed() {
            return Err(Diagnostics(self.findings));
        }
        let mut entries: Vec<Entry> = self.state.iter().map(|(_, entry)| entry.clone()).collect();
        entries.sort_by(|a, b| natural_order(&a.key, &b.key));
        let report = self.meet_wanted(&mut entries);
        if self.failed() {
            return Err(Diagnostics(self.findings));
        }
        let (nodes, numbers) = self.reachable(&entries);
        let targets = name_ties(entries, &numbers);
        let used: HashSet<&str> = nodes
            .iter()
            .filter_map(|node| match &node.op {
                Op::Source { key } => Some(key.as_str()),
                _ => None,
            })
            .collect();
        let mut dropped = Vec::new();
        for key in self.header.tensors.keys().filter(|key| !used.contains(key.as_str())) {
            match self.dropped.get(key) {
                Some(reason) => dropped.push(Dropped { key: key.clone(), reason: reason.clone() }),
                None if self.options.wanted.is_some() => dropped.push(Dropped { key: key.clone(), reason: DropReason::NotWanted }),
                None => {
                    let finding =
                        Diagnostic::error(SHAPE, "a tensor of the checkpoint would be lost: no target uses it and no rule drops it");
                    self.findings.push(finding.keys([key.as_str()]).hint("this is a fault of regraft, please report it"));
                }
            }
        }
        if self.failed() {
            return Err(Diagnostics(self.findings));
        }
        dropped.sort_by(|a, b| natural_order(&a.key, &b.key));
        Ok(Plan {
            nodes,
            targets,
            dropped,
            rules: self.rules,
            verdict: overall(&self.verdicts),
            tied: Some(self.decision),
            renamed: self.renamed,
            report,
            findings: self.findings,
        })
    }

    /// Leaves out what the target manifest doesn't ask for, and reports how it is met.
    fn meet_wanted(&mut self, entries: &mut Vec<Entry>) -> Option<Report> {
        let wanted = self.options.wanted?;
        let mut report = Report::default();
        let given: HashSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        report.missing = wanted.keys.keys().filter(|key| !given.contains(key.as_str())).cloned().collect();
        report.missing.sort_by(|a, b| natural_order(a, b));
        // A tensor that is asked for by another of its keys is not lost.
        let taken: HashSet<NodeId> = entries.iter().filter(|entry| wanted.contains(&entry.key)).map(|entry| entry.node).collect();
        let unexpected = entries.iter().filter(|entry| !wanted.contains(&entry.key) && !taken.contains(&entry.node));
        report.unexpected = unexpected.map(|entry| entry.key.clone()).collect();
        let severity = if self.options.not_strict { Severity::Warning } else { Severity::Error };
        let closest = |keys: &[Key], others: &[Key]| -> Vec<String> {
            keys.iter()
                .take(3)
                .filter_map(|key| {
                    let close = did_you_mean(key, others.iter().take(SEARCHED).map(Key::as_str))?;
                    Some(format!("`{key}`: did you mean `{close}`?"))
                })
                .collect()
        };
        for (code, keys, others, what) in [
            (MISSING_KEY, &report.missing, &report.unexpected, "missing: the target manifest asks for"),
            (UNEXPECTED_KEY, &report.unexpected, &report.missing, "unexpected: the target manifest doesn't know"),
        ] {
            if keys.is_empty() {
                continue;
            }
            let mut finding = Diagnostic::warning(code, format!("{what} {}", counted(keys.len(), "key")));
            finding.severity = severity;
            finding = finding.keys(keys.iter().map(|key| key.as_str()));
            for hint in closest(keys, others) {
                finding = finding.hint(hint);
            }
            if !self.options.not_strict {
                finding = finding.hint("with --no-strict this is a finding, not a stop");
            } else if code == UNEXPECTED_KEY {
                finding = finding.hint("they are left out");
            }
            self.findings.push(finding);
        }
        entries.retain(|entry| wanted.contains(&entry.key));
        for entry in entries.iter() {
            let (Some(wanted), given) = (wanted.get(&entry.key), self.graph.info(entry.node)) else { continue };
            if wanted == given {
                continue;
            }
            report.mismatched.push(entry.key.clone());
            let message = format!("mismatched: `{}` is {given}, and the target manifest says {wanted}", entry.key);
            // A dtype can be converted when it is loaded; a shape can't.
            let mut finding = Diagnostic::error(MISMATCHED_KEY, message).keys([entry.key.as_str()]);
            if wanted.shape == given.shape {
                finding.severity = Severity::Warning;
                finding = finding.hint("a `cast` rule converts it");
            }
            self.findings.push(finding);
        }
        Some(report)
    }

    /// The nodes that the entries need, numbered anew.
    fn reachable(&self, entries: &[Entry]) -> (Vec<Node>, HashMap<NodeId, NodeId>) {
        let mut needed = vec![false; self.graph.nodes.len()];
        let mut open: Vec<NodeId> = entries.iter().map(|entry| entry.node).collect();
        while let Some(id) = open.pop() {
            if !std::mem::replace(&mut needed[id.0 as usize], true) {
                open.extend(&self.graph.node(id).inputs);
            }
        }
        let mut numbers = HashMap::new();
        let mut nodes = Vec::new();
        for (old, node) in (0u32..).map(NodeId).zip(&self.graph.nodes) {
            if !needed[old.0 as usize] {
                continue;
            }
            numbers.insert(old, NodeId(u32::try_from(nodes.len()).unwrap_or(u32::MAX)));
            let mut node = node.clone();
            for input in &mut node.inputs {
                *input = numbers[input];
            }
            nodes.push(node);
        }
        (nodes, numbers)
    }
}

/// Targets with the key that each tied one is one tensor with.
fn name_ties(entries: Vec<Entry>, numbers: &HashMap<NodeId, NodeId>) -> Vec<Target> {
    let mut roots: IndexMap<NodeId, Key> = IndexMap::new();
    for entry in entries.iter().filter(|entry| !entry.tied).chain(entries.iter().filter(|entry| entry.tied)) {
        roots.entry(entry.node).or_insert_with(|| entry.key.clone());
    }
    entries
        .into_iter()
        .map(|entry| {
            let root = roots.get(&entry.node).filter(|root| entry.tied && **root != entry.key).cloned();
            Target { key: entry.key, node: numbers[&entry.node], rules: entry.rules, tied_to: root }
        })
        .collect()
}

fn overall(verdicts: &[Verdict]) -> Option<Verdict> {
    [Verdict::Mixed, Verdict::Converts, Verdict::Already, Verdict::Neither].into_iter().find(|verdict| verdicts.contains(verdict))
}
