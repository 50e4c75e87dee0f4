//! A plan narrowed to boxes of its targets: a rank of a sharded model asks for its part of each
//! tensor, and what nothing in those parts is made of goes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use super::graph::{Fit, Graph};
use super::node::{DropReason, Dropped, NodeId, Op, Plan, Target};
use crate::key::{Key, natural_order};
use crate::tensor::{Shape, TensorInfo};

/// A box of a target: so many elements along each dimension, from a start on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetBox {
    /// The target.
    pub key: Key,
    /// Its first element along each dimension.
    pub start: Shape,
    /// How many elements it has along each dimension.
    pub shape: Shape,
}

impl TargetBox {
    /// A box of a target.
    pub fn new(key: impl Into<Key>, start: impl Into<Shape>, shape: impl Into<Shape>) -> Self {
        Self { key: key.into(), start: start.into(), shape: shape.into() }
    }
}

/// Why a plan has no such box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchBox {
    key: Key,
    what: String,
}

impl NoSuchBox {
    /// The target that was asked for.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Why, without the key.
    pub fn message(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for NoSuchBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key, self.what)
    }
}

impl std::error::Error for NoSuchBox {}

impl Plan {
    /// The plan of some boxes alone, each under the key of its target. What was found while
    /// planning stays said of the whole; sources that no box needs are not wanted.
    ///
    /// # Errors
    /// If there is no such target, a box leaves it or has another rank, two are of one target, or
    /// one would part a byte that holds several elements.
    pub fn narrowed(&self, boxes: &[TargetBox]) -> Result<Plan, NoSuchBox> {
        let Plan { nodes, mut targets, .. } = self.boxed(boxes)?;
        targets.sort_by(|a, b| natural_order(&a.key, &b.key));
        if let Some(pair) = targets.windows(2).find(|pair| pair[0].key == pair[1].key) {
            let what = "two boxes of one target, which a plan has no two keys for".to_owned();
            return Err(NoSuchBox { key: pair[0].key.clone(), what });
        }
        name_ties(self, &mut targets);
        let used: HashSet<&Key> = nodes.iter().filter_map(|node| source(&node.op)).collect();
        let not_wanted = self.nodes.iter().filter_map(|node| source(&node.op));
        let not_wanted = not_wanted
            .filter(|key| !used.contains(key))
            .map(|key| Dropped { key: key.clone(), reason: DropReason::NotWanted });
        let mut dropped: Vec<Dropped> = self.dropped.iter().cloned().chain(not_wanted).collect();
        dropped.sort_by(|a, b| natural_order(&a.key, &b.key));
        Ok(Plan {
            nodes,
            targets,
            dropped,
            rules: self.rules.clone(),
            verdict: self.verdict,
            tied: self.tied.clone(),
            renamed: self.renamed.clone(),
            lost: self.lost.clone(),
            report: self.report.clone(),
            kept: self.kept.clone(),
            ties: self.ties.clone(),
            questions: self.questions.clone(),
            told: self.told.clone(),
            findings: self.findings.clone(),
        })
    }

    /// The nodes of some boxes, and a target for each of them in the order in which they are given,
    /// which need not be that of a plan; boxes of one target may be several. Equal boxes of one
    /// tensor are one node. Takes as long as what the boxes are made of, not as the plan is large.
    pub(crate) fn boxed(&self, boxes: &[TargetBox]) -> Result<Plan, NoSuchBox> {
        let mut wanted = Vec::with_capacity(boxes.len());
        for part in boxes {
            let target = self.target(&part.key).filter(|target| {
                // A plan that was built by hand may name a node that isn't there.
                (target.node.0 as usize) < self.nodes.len()
            });
            let fail = |what| NoSuchBox { key: part.key.clone(), what };
            let target = target.ok_or_else(|| fail("the plan has no such target".to_owned()))?;
            inside(part, self.info(target)).map_err(fail)?;
            wanted.push(target);
        }
        let (mut graph, numbers) = below(self, wanted.iter().map(|target| target.node));
        let mut made: HashMap<(NodeId, &Shape, &Shape), NodeId> = HashMap::new();
        let mut targets = Vec::with_capacity(boxes.len());
        for (part, target) in boxes.iter().zip(wanted) {
            let whole = numbers.get(&target.node).copied().unwrap_or(target.node);
            let node = match made.get(&(whole, &part.start, &part.shape)) {
                Some(node) => *node,
                None => cut(&mut graph, whole, part)
                    .map_err(|what| NoSuchBox { key: part.key.clone(), what })?,
            };
            made.insert((whole, &part.start, &part.shape), node);
            targets.push(Target { node, tied_to: None, ..target.clone() });
        }
        Ok(Plan { nodes: graph.nodes, targets, ..Plan::default() })
    }

    /// The plan of one node, under no key.
    pub(crate) fn of_node(&self, node: NodeId) -> Plan {
        let (graph, numbers) = below(self, std::iter::once(node));
        let node = numbers.get(&node).copied().unwrap_or(node);
        let target = Target { key: Key::from(""), node, rules: super::List::new(), tied_to: None };
        Plan { nodes: graph.nodes, targets: vec![target], ..Plan::default() }
    }
}

fn source(op: &Op) -> Option<&Key> {
    match op {
        Op::Source { key } => Some(key),
        _ => None,
    }
}

/// Checks that a box lies in its target.
fn inside(part: &TargetBox, info: &TensorInfo) -> Fit<()> {
    let (start, shape) = (&part.start, &part.shape);
    if start.len() != info.shape.len() || shape.len() != info.shape.len() {
        return Err(format!("{info} has no box of {shape} at {start}: the ranks differ"));
    }
    let ends = start.iter().zip(shape.iter()).zip(info.shape.iter());
    for (dim, ((from, len), size)) in ends.enumerate() {
        if from.checked_add(*len).is_none_or(|end| end > *size) {
            let end = from.saturating_add(*len);
            return Err(format!("elements {from}..{end} leave dimension {dim} of {info}"));
        }
    }
    Ok(())
}

/// What some nodes are made of, they included, and the new number of each.
fn below(plan: &Plan, of: impl Iterator<Item = NodeId>) -> (Graph, HashMap<NodeId, NodeId>) {
    let mut open: Vec<NodeId> = of.collect();
    let mut needed: BTreeSet<NodeId> = BTreeSet::new();
    while let Some(id) = open.pop() {
        if needed.insert(id) {
            // Inputs come before the node; one that doesn't is found when the node is checked.
            open.extend(plan.node(id).inputs.iter().filter(|input| **input < id));
        }
    }
    let numbers: HashMap<NodeId, NodeId> = (0..).map(NodeId).zip(&needed).map(flipped).collect();
    let renumbered = |id: &NodeId| {
        let mut node = plan.node(*id).clone();
        for input in &mut node.inputs {
            *input = numbers.get(input).copied().unwrap_or(NodeId(u32::MAX));
        }
        node
    };
    let mut graph = Graph::default();
    graph.nodes = needed.iter().map(renumbered).collect();
    (graph, numbers)
}

fn flipped((new, old): (NodeId, &NodeId)) -> (NodeId, NodeId) {
    (*old, new)
}

/// Narrows a tensor to a box.
fn cut(graph: &mut Graph, whole: NodeId, part: &TargetBox) -> Fit<NodeId> {
    let mut node = whole;
    for (dim, (start, len)) in part.start.iter().zip(part.shape.iter()).enumerate() {
        node = graph.narrow(node, dim, *start, *len)?;
    }
    Ok(node)
}

/// Targets that were one tensor and still are: the same box of it. The key that the others are tied
/// to may have no box here; then the first that has one takes its place.
fn name_ties(whole: &Plan, targets: &mut [Target]) {
    let mut roots: HashMap<(NodeId, Key), Key> = HashMap::new();
    let root_of = |target: &Target| whole.target(&target.key)?.tied_to.clone();
    // Those that keys were tied to come first, wherever they stand.
    for target in targets.iter().filter(|target| root_of(target).is_none()) {
        roots.insert((target.node, target.key.clone()), target.key.clone());
    }
    for target in targets {
        let Some(root) = root_of(target) else { continue };
        let key = roots.entry((target.node, root)).or_insert_with(|| target.key.clone());
        target.tied_to = (*key != target.key).then(|| key.clone());
    }
}
