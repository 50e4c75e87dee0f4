//! Biases have a number for each row of their tensor: rows that are put into another order, and a
//! bias that isn't, are a module converted by half.
//!
//! A bias is looked at as scales of blocks of one row are. What can't be followed, as rows that are
//! joined with others without a bias, is not held against anyone.

use std::cell::{Cell, RefCell};

use smallvec::SmallVec;

use crate::plan::blocks::follow::{Blocks, ByNode, Quantized, Sizes, follow};
use crate::plan::blocks::{Check, Walks};
use crate::plan::draft::Draft;
use crate::plan::graph::Graph;
use crate::plan::node::{NodeId, Op};
use crate::plan::state::Current;

/// A tensor of the checkpoint with its bias, and what both became.
pub(in crate::plan) struct Biased<'e> {
    pub(in crate::plan) tensor: NodeId,
    pub(in crate::plan) bias: NodeId,
    pub(in crate::plan) moved: &'e Current,
    pub(in crate::plan) beside: &'e Current,
}

/// Those of which the rows are in another order than the numbers of the bias.
pub(in crate::plan) fn out_of_order<'e>(draft: &Draft, biased: Vec<Biased<'e>>) -> Vec<Biased<'e>> {
    let mut walks = Walks::default();
    let mut turns = |node: NodeId| {
        let mut found = false;
        walks.walk(&draft.graph, node, |_, node| {
            found |= matches!(node.op, Op::Permute { .. });
            !found
        });
        found
    };
    let mut rows = ByNode::default();
    let mut asked = Vec::new();
    for one in biased {
        if !turns(one.moved.node) && !turns(one.beside.node) {
            continue;
        }
        if let Some(block) = rows_of(&draft.graph, one.tensor, one.bias) {
            rows.insert(one.tensor, Quantized { scales: one.bias, block });
            asked.push(one);
        }
    }
    if asked.is_empty() {
        return Vec::new();
    }
    let (blocks, from) = follow(&draft.graph, &rows);
    let check = Check {
        graph: &draft.graph,
        blocks,
        from,
        quantized: rows,
        steps: Cell::new(0),
        seen: RefCell::default(),
    };
    asked.retain(|one| {
        let (rows, bias) = (check.unconverted(one.moved.node), check.unconverted(one.beside.node));
        matches!(check.blocks[rows.0 as usize], Blocks::Of(_)) && check.differ(rows, bias)
    });
    asked
}

impl Check<'_> {
    /// Whether rows and the numbers of a bias can be followed, and lie in different orders.
    fn differ(&self, rows: NodeId, bias: NodeId) -> bool {
        let few = self.graph.info(bias).numel().is_some_and(|count| count <= super::COMPARED);
        if !few || self.mirrors(rows, bias, 0) {
            return false;
        }
        let order = self.blocks_in_order(rows, 0).zip(self.scales_in_order(bias, 0));
        order.is_some_and(|((_, rows), (_, bias))| rows != bias)
    }
}

/// Blocks of one row each: the first dimension that is as long as the bias.
fn rows_of(graph: &Graph, tensor: NodeId, bias: NodeId) -> Option<Sizes> {
    let [count] = *graph.info(bias).shape else { return None };
    let shape = &graph.info(tensor).shape;
    let row = shape.iter().position(|size| *size == count)?;
    let block: SmallVec<_> = shape
        .iter()
        .enumerate()
        .map(|(at, size)| if at == row { 1 } else { (*size).max(1) })
        .collect();
    (shape.len() > 1).then_some(block)
}
