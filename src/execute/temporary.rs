//! Nodes that have to be there before what uses them is computed: what many elements became, and
//! what fusing gave up on.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use super::fuse::compile::{AsStored, check, compile, inconsistent};
use super::fuse::gather::{Worker, bytes_of};
use super::fuse::layout::MAX_PIECES;
use super::leaves::StoreLeaves;
use super::value::Reducer;
use super::{Report, naive, not_cancelled};
use crate::error::Result;
use crate::plan::{NodeId, Op, Plan, Reduction};
use crate::store::Store;

/// Elements that are computed at once for what reduces them.
const STRETCH: u64 = 1 << 18;

/// Evaluates nodes, and puts them beside the other leaves. Gives how many elements overflowed in each.
///
/// # Errors
/// If reading or computing fails, or the run is cancelled.
pub(super) fn evaluate_all(
    leaves: &mut StoreLeaves<'_>,
    nodes: impl IntoIterator<Item = NodeId>,
    cancel: Option<&AtomicBool>,
    report: &mut Report,
) -> Result<BTreeMap<NodeId, u64>> {
    let mut before = BTreeMap::new();
    for node in nodes {
        not_cancelled(cancel)?;
        let (bytes, overflowed) = evaluate(leaves.plan, leaves.source, node, cancel)?;
        before.insert(node, overflowed);
        report.temporaries += 1;
        report.temporary_bytes += bytes.len() as u64;
        leaves.temporaries.insert(node, bytes);
    }
    Ok(before)
}

/// Evaluates a node, and counts the elements that were computed from finite ones and are infinite
/// or NaN. What reduces a tensor takes it stretch by stretch, however large it is.
pub(super) fn evaluate(
    plan: &Plan,
    source: &dyn Store,
    node: NodeId,
    cancel: Option<&AtomicBool>,
) -> Result<(Vec<u8>, u64)> {
    let at =
        plan.nodes.get(node.0 as usize).ok_or_else(|| inconsistent("there is no such node"))?;
    match (&at.op, &at.inputs[..]) {
        (Op::Reduce { take, dims }, [input]) => {
            check(plan, node)?;
            reduce(plan, source, (node, *input), (*take, dims), cancel)
        }
        _ => naive::evaluate_counting(plan, source, node),
    }
}

fn reduce(
    plan: &Plan,
    source: &dyn Store,
    (node, input): (NodeId, NodeId),
    (take, dims): (Reduction, &[usize]),
    cancel: Option<&AtomicBool>,
) -> Result<(Vec<u8>, u64)> {
    let info = &plan.node(input).info;
    let mut reducer = Reducer::new(take, info, dims)?;
    let below = plan.of_node(input);
    let program = compile(&below, &AsStored(source), &[0], MAX_PIECES)?;
    let mut leaves = StoreLeaves::new(&below, source, &program);
    let mut overflowed = 0u64;
    for temporary in &program.temporaries {
        not_cancelled(cancel)?;
        let (bytes, more) = naive::evaluate_counting(&below, source, *temporary)?;
        overflowed = overflowed.saturating_add(more);
        leaves.temporaries.insert(*temporary, bytes);
    }
    let mut worker = Worker::new(STRETCH, source.hints());
    let mut buffer = Vec::new();
    for layout in &program.layouts {
        for start in (0..layout.numel).step_by(usize::try_from(STRETCH).unwrap_or(usize::MAX)) {
            not_cancelled(cancel)?;
            let range = (start, layout.numel.min(start.saturating_add(STRETCH)));
            buffer.resize(bytes_of(range.1 - range.0, layout.size)?, 0);
            let whole = (layout.numel, layout.size);
            worker.assemble(&layout.pieces, whole, range, &leaves, &mut buffer)?;
            reducer.feed(info.dtype, &buffer)?;
        }
    }
    Ok((reducer.finish(plan.node(node).info.dtype)?, overflowed.saturating_add(worker.overflowed)))
}
