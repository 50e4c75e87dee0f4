//! How one target is made: the keys behind it, its ops, and what it is in memory.

use std::collections::{HashMap, HashSet};

use super::related::SourceKeys;
use crate::execute::{Sharing, sharing};
use crate::plan::{Node, NodeId, Op, Plan, Target};
use crate::tensor::TensorInfo;

/// What targets of one line have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct MadeAs {
    pub(super) info: TensorInfo,
    /// The ops, in the order in which they apply.
    pub(super) ops: Vec<String>,
    pub(super) sharing: Option<Sharing>,
}

/// Looks at one target after the other, and remembers what alike ones are in memory.
pub(super) struct Maker<'p> {
    plan: &'p Plan,
    sharing: bool,
    known: HashMap<Vec<(String, TensorInfo)>, Option<Sharing>>,
}

impl<'p> Maker<'p> {
    pub(super) fn new(plan: &'p Plan, sharing: bool) -> Self {
        Self { plan, sharing, known: HashMap::new() }
    }

    /// The sources and ops behind a target.
    pub(super) fn made_as(&mut self, target: &Target) -> (MadeAs, SourceKeys) {
        let plan = self.plan;
        if let Op::Source { key } = &plan.node(target.node).op {
            let info = plan.info(target).clone();
            let sharing = self.sharing.then(|| self.sharing_of(target, &[target.node])).flatten();
            return (MadeAs { info, ops: Vec::new(), sharing }, SourceKeys::of(key));
        }
        let nodes = behind(plan, target.node);
        let stacked: HashSet<NodeId, foldhash::fast::RandomState> = nodes
            .iter()
            .filter(|id| is_stack(plan, **id))
            .flat_map(|id| plan.node(*id).inputs.iter().copied())
            .collect();
        let (mut sources, mut ops) = (SourceKeys::default(), Vec::<String>::new());
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
        let info = plan.info(target).clone();
        let sharing = self.sharing.then(|| self.sharing_of(target, &nodes)).flatten();
        (MadeAs { info, ops, sharing }, sources)
    }

    /// What a target is in memory: known of one of those that have the same ops over the same
    /// shapes.
    fn sharing_of(&mut self, target: &Target, nodes: &[NodeId]) -> Option<Sharing> {
        let plan = self.plan;
        let step = |id: &NodeId| {
            let Node { op, inputs, info } = plan.node(*id);
            let of = |input: &NodeId| nodes.binary_search(input).unwrap_or(0);
            let of: Vec<usize> = inputs.iter().map(of).collect();
            let name = match op {
                Op::Source { .. } => String::new(),
                _ => format!("{op:?}{of:?}"),
            };
            (name, info.clone())
        };
        let steps = nodes.iter().map(step).collect();
        *self.known.entry(steps).or_insert_with(|| sharing(&alone(plan, target, nodes), 0).ok()?)
    }
}

/// A node and those that it is made of, in order.
fn behind(plan: &Plan, node: NodeId) -> Vec<NodeId> {
    let (mut nodes, mut next) = (vec![node], 0);
    let mut seen = HashSet::<_, foldhash::fast::RandomState>::from_iter([node]);
    while let Some(id) = nodes.get(next) {
        nodes.extend(plan.node(*id).inputs.iter().filter(|input| seen.insert(**input)));
        next += 1;
    }
    nodes.sort_unstable();
    nodes
}

/// The plan of one target by itself, of which these are the nodes.
fn alone(plan: &Plan, target: &Target, nodes: &[NodeId]) -> Plan {
    let renumbered = |id: &NodeId| {
        let at = nodes.binary_search(id).unwrap_or(0);
        NodeId(u32::try_from(at).unwrap_or(u32::MAX))
    };
    let node = |id: &NodeId| {
        let node = plan.node(*id);
        Node { inputs: node.inputs.iter().map(renumbered).collect(), ..node.clone() }
    };
    Plan {
        nodes: nodes.iter().map(node).collect(),
        targets: vec![Target { node: renumbered(&target.node), ..target.clone() }],
        ..Plan::default()
    }
}

/// Whether a node joins tensors along a new dimension: how `stack` lowers.
pub fn is_stack(plan: &Plan, id: NodeId) -> bool {
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
pub fn op_text(plan: &Plan, id: NodeId) -> String {
    let node = plan.node(id);
    match node.op {
        Op::Concat { dim } if is_stack(plan, id) => format!("stack({dim})"),
        _ => node.primitive().to_string(),
    }
}
