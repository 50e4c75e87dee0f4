//! A plan as text: what changes, grouped by rules and by indices; ties, drops, totals.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use indexmap::IndexMap;
use regraft::diagnostic::plain::one_line;
use regraft::execute::{FileLanes, Lane, Lanes};
use regraft::plan::{DropReason, NodeId, Op, Plan, RuleId, Target, Verdict};
use regraft::tensor::{Header, TensorInfo};
use serde::Serialize;

use super::console::rule_line;
use super::lines::Gathered;
use super::related::SourceKeys;
use super::size::Size;

/// Different sources of a target that are named.
const SOURCES: usize = 4;

/// What targets of one line have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct MadeAs {
    pub(super) info: TensorInfo,
    /// The ops, in the order in which they apply.
    pub(super) ops: Vec<String>,
}

/// Files with the same lanes that are named one by one; of more, the first.
const FILES: usize = 3;

/// Which way the bytes will go, and into which files.
pub(super) fn lanes(lanes: &Lanes, all: bool) -> String {
    let mut out = String::new();
    if !lanes.bytes.is_empty() {
        let _ = writeln!(out, "lanes: {}", by_lane(&lanes.bytes));
    }
    if lanes.files.len() > 1 {
        files(&lanes.files, all, &mut out);
    }
    if let Some(stay) = &lanes.in_place {
        let _ = writeln!(out, "with --in-place nothing moves:");
        files(stay, all, &mut out);
    }
    out
}

fn by_lane(bytes: &BTreeMap<Lane, u64>) -> String {
    let part = |(lane, bytes): (&Lane, &u64)| match lane {
        Lane::Copied => {
            format!("{} {lane} (shared blocks instead, if the filesystem can)", Size(*bytes))
        }
        _ => format!("{} {lane}", Size(*bytes)),
    };
    if bytes.is_empty() {
        "no bytes".to_owned()
    } else {
        bytes.iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

/// Files, those that follow each other in one set of lanes together.
fn files(files: &[FileLanes], all: bool, out: &mut String) {
    let same = |a: &FileLanes, b: &FileLanes| a.bytes.keys().eq(b.bytes.keys());
    for run in files.chunk_by(same) {
        if all || run.len() <= FILES {
            for file in run {
                let _ = writeln!(out, "  {}: {}", one_line(&file.name), by_lane(&file.bytes));
            }
            continue;
        }
        let mut bytes: BTreeMap<Lane, u64> = BTreeMap::new();
        for (lane, more) in run.iter().flat_map(|file| &file.bytes) {
            let sum = bytes.entry(*lane).or_default();
            *sum = sum.saturating_add(*more);
        }
        let first = one_line(run.first().map_or("", |file| file.name.as_str()));
        let _ = writeln!(
            out,
            "  {first} and {} after it: {}",
            counted(run.len() as u64 - 1, "file"),
            by_lane(&bytes)
        );
    }
}

/// A plan as JSON, with its lanes if its source has bytes.
#[derive(Serialize)]
pub(super) struct Planned<'a> {
    #[serde(flatten)]
    pub(super) plan: &'a Plan,
    pub(super) lanes: Option<&'a Lanes>,
}

/// The body of a plan: everything but its findings.
pub(super) fn plan(plan: &Plan, header: &Header, all: bool) -> String {
    let mut out = String::new();
    let mut by_rules: IndexMap<&[RuleId], Gathered<MadeAs>> = IndexMap::new();
    let mut unchanged = (Gathered::new(), 0u64);
    for target in &plan.targets {
        if target.tied_to.is_some() {
            continue;
        }
        if target.rules.is_empty() {
            unchanged.1 += 1;
            if all {
                unchanged.0.add(&target.key, plan.info(target));
            }
            continue;
        }
        let (shape, sources) = made_as(plan, target);
        by_rules.entry(&target.rules).or_insert_with(Gathered::new).add_made(
            &target.key,
            sources,
            shape,
        );
    }
    // In the order of the program, not of the keys.
    by_rules.sort_by(|a, _, b, _| a.cmp(b));
    for (rules, groups) in &by_rules {
        let lines = groups.lines();
        for rule in *rules {
            let _ = writeln!(out, "{}", rule_line(plan, *rule));
        }
        for line in &lines {
            let shape = line.shared;
            let _ = writeln!(out, "  {}  {}{}", line.text(), shape.info, times(line.count()));
            let sources = line.sources();
            let mut from: Vec<String> = sources
                .iter()
                .take(SOURCES)
                .map(|(source, count)| format!("{source}{}", times(*count as u64)))
                .collect();
            if sources.len() > SOURCES {
                from.push(format!("{} more kinds", sources.len() - SOURCES));
            }
            if sources.is_empty() {
                from.push("made".to_owned());
            }
            let ops = if shape.ops.is_empty() {
                String::new()
            } else {
                format!("  [{}]", shape.ops.join(", "))
            };
            let _ = writeln!(out, "    <- {}{ops}", from.join(" + "));
        }
        out.push('\n');
    }
    if unchanged.1 > 0 {
        let _ = writeln!(out, "unchanged: {}", counted(unchanged.1, "key"));
        for line in unchanged.0.lines() {
            let _ = writeln!(out, "  {}  {}{}", line.text(), line.shared, times(line.count()));
        }
    }
    ties(plan, &mut out);
    drops(plan, header, &mut out);
    totals(plan, header, &mut out);
    out
}

fn ties(plan: &Plan, out: &mut String) {
    let mut ties = Gathered::new();
    for target in &plan.targets {
        if let Some(root) = &target.tied_to {
            ties.add_made(&target.key, SourceKeys::of(root), ());
        }
    }
    if !ties.is_empty() {
        out.push_str("tied:\n");
        for line in ties.lines() {
            let root = line.sources().into_iter().next().map(|(root, _)| root).unwrap_or_default();
            let _ = writeln!(out, "  {} = {root}{}", line.text(), times(line.count()));
        }
    }
}

fn drops(plan: &Plan, header: &Header, out: &mut String) {
    let mut drops = Gathered::new();
    let mut bytes = 0u64;
    for dropped in &plan.dropped {
        let why = match &dropped.reason {
            DropReason::Rule(rule) => format!("by {}", rule_line(plan, *rule)),
            DropReason::TiedTo(key) => format!("one tensor with {}", one_line(key)),
            DropReason::NotWanted => "the target does not ask for it".to_owned(),
        };
        bytes = bytes
            .saturating_add(header.get(&dropped.key).and_then(TensorInfo::nbytes).unwrap_or(0));
        drops.add(&dropped.key, why);
    }
    if !drops.is_empty() {
        let _ = writeln!(
            out,
            "dropped: {}, {}",
            counted(plan.dropped.len() as u64, "key"),
            Size(bytes)
        );
        for line in drops.lines() {
            let _ = writeln!(out, "  {}{}  {}", line.text(), times(line.count()), line.shared);
        }
    }
}

/// Totals of a plan, in bytes.
pub(super) struct Totals {
    /// Tensors of the checkpoint that are used.
    pub(super) read: u64,
    /// Targets, ties counted once.
    pub(super) written: u64,
}

/// How much a plan reads and gives.
pub(super) fn sum(plan: &Plan) -> Totals {
    let bytes = |info: &TensorInfo| info.nbytes().unwrap_or(0);
    let read = plan
        .nodes
        .iter()
        .filter(|node| matches!(node.op, Op::Source { .. }))
        .map(|node| bytes(&node.info));
    let written = plan
        .targets
        .iter()
        .filter(|target| target.tied_to.is_none())
        .map(|target| bytes(plan.info(target)));
    Totals {
        read: read.fold(0, u64::saturating_add),
        written: written.fold(0, u64::saturating_add),
    }
}

fn totals(plan: &Plan, header: &Header, out: &mut String) {
    let totals = sum(plan);
    let verdict = plan.verdict.map(|verdict| match verdict {
        Verdict::Converts => "converts",
        Verdict::Already => "in the target layout already",
        Verdict::Mixed => "mixed: keys of both layouts",
        Verdict::Neither => "nothing to rewrite",
    });
    if let Some(verdict) = verdict {
        let _ = writeln!(out, "verdict: {verdict}");
    }
    if let Some(tied) = &plan.tied {
        let _ = writeln!(
            out,
            "tied embeddings: {} ({})",
            if tied.tied { "yes" } else { "no" },
            tied.because
        );
    }
    if let Some(report) = plan.report.as_ref().filter(|report| !report.elsewhere.is_empty()) {
        let _ = writeln!(
            out,
            "left to other stages: {}",
            counted(report.elsewhere.len() as u64, "key")
        );
    }
    if !plan.kept.is_empty() {
        let _ = writeln!(
            out,
            "left as the model holds them: {}",
            plan.kept.iter().map(|key| one_line(key)).collect::<Vec<_>>().join(", ")
        );
    }
    let _ = writeln!(
        out,
        "{} ({} used) -> {} ({})",
        counted(header.tensors.len() as u64, "key"),
        Size(totals.read),
        counted(plan.targets.len() as u64, "key"),
        Size(totals.written)
    );
}

/// The sources and ops behind a target.
pub(super) fn made_as(plan: &Plan, target: &Target) -> (MadeAs, SourceKeys) {
    let mut nodes = vec![target.node];
    let mut seen = HashSet::from([target.node]);
    let mut next = 0;
    while let Some(id) = nodes.get(next) {
        nodes.extend(plan.node(*id).inputs.iter().filter(|input| seen.insert(**input)));
        next += 1;
    }
    nodes.sort_unstable();
    let mut sources = SourceKeys::default();
    let mut ops: Vec<String> = Vec::new();
    let stacked: HashSet<NodeId> = nodes
        .iter()
        .filter(|id| is_stack(plan, **id))
        .flat_map(|id| plan.node(*id).inputs.iter().copied())
        .collect();
    // Inputs have smaller numbers, so this is the order in which ops apply.
    for id in &nodes {
        match &plan.node(*id).op {
            Op::Source { key } => sources.add(key),
            Op::Reshape if stacked.contains(id) => {}
            _ => {
                let text = op_text(plan, *id);
                if !ops.contains(&text) {
                    ops.push(text);
                }
            }
        }
    }
    (MadeAs { info: plan.info(target).clone(), ops }, sources)
}

/// Whether a node joins tensors along a new dimension: how `stack` lowers.
pub(super) fn is_stack(plan: &Plan, id: NodeId) -> bool {
    let node = plan.node(id);
    let Op::Concat { dim } = node.op else { return false };
    node.inputs.iter().all(|input| {
        let part = plan.node(*input);
        let Some(whole) = part.inputs.first().map(|input| &plan.node(*input).info.shape) else {
            return false;
        };
        let Some((before, [1, after @ ..])) = part.info.shape.split_at_checked(dim) else {
            return false;
        };
        part.op == Op::Reshape && whole.strip_prefix(before) == Some(after)
    })
}

/// An op of a node, as people write it.
pub(super) fn op_text(plan: &Plan, id: NodeId) -> String {
    let node = plan.node(id);
    match node.op {
        Op::Concat { dim } if is_stack(plan, id) => format!("stack({dim})"),
        _ => node.primitive().to_string(),
    }
}

fn times(count: u64) -> String {
    if count == 1 { String::new() } else { format!("  x {count}") }
}

/// `1 key`, `2 keys`
pub(super) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
