//! Nodes that have to be there before what uses them is computed: what many elements became, and
//! what fusing gave up on.

use std::sync::atomic::AtomicBool;

use super::fuse::compile::{AsStored, Layout, check, compile, inconsistent};
use super::fuse::gather::{Worker, bytes_of, outside};
use super::fuse::layout::{Cut, MAX_PIECES, Which, clip};
use super::leaves::StoreLeaves;
use super::value::Reducer;
use super::{naive, not_cancelled};
use crate::error::Result;
use crate::plan::{NodeId, Op, Plan, Reduction};
use crate::store::Store;

/// Elements that are computed at once for what reduces them.
const STRETCH: u64 = 1 << 18;

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
            stretch(layout, range, &leaves, &mut worker, &mut buffer)?;
            reducer.feed(info.dtype, &buffer)?;
        }
    }
    Ok((reducer.finish(plan.node(node).info.dtype)?, overflowed.saturating_add(worker.overflowed)))
}

/// Brings elements of a layout to a buffer, in their order.
fn stretch(
    layout: &Layout,
    range: (u64, u64),
    leaves: &StoreLeaves<'_>,
    worker: &mut Worker,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    buffer.resize(bytes_of(range.1 - range.0, layout.size)?, 0);
    let near =
        layout.pieces.iter().filter(|piece| piece.target.offset < range.1 && piece.end() > range.0);
    for piece in near {
        let mut inside = Vec::new();
        let cut = Cut::linear(layout.numel, range);
        clip(piece.clone(), Which::Target, cut, &mut inside, MAX_PIECES).ok_or_else(outside)?;
        for piece in inside {
            let at = bytes_of(piece.target.offset - range.0, layout.size)?;
            let out = buffer.get_mut(at..).ok_or_else(outside)?;
            worker.place(&piece, layout.size, leaves, out, &piece.target.strides)?;
        }
    }
    Ok(())
}
