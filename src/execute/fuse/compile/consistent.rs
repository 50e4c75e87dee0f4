//! A plan is plain data that may come from anywhere: each node is checked against its inputs before
//! anything is made of it.

use crate::error::{Error, Result};
use crate::execute::value::{self, Step};
use crate::plan::{NodeId, Op, Plan};
use crate::tensor::{Dtype, TensorInfo};

pub(in crate::execute) fn inconsistent(what: &str) -> Error {
    Error::corrupt(format!("the plan is inconsistent: {what}"))
}

/// Checks a node against its inputs, so that nothing later can leave a tensor.
pub(in crate::execute) fn check(plan: &Plan, id: NodeId) -> Result<()> {
    let node = plan.node(id);
    let infos: Vec<&TensorInfo> = node.inputs.iter().map(|input| &plan.node(*input).info).collect();
    let fits = match (&node.op, &infos[..]) {
        (Op::Source { .. } | Op::Fill { .. }, []) => true,
        (Op::Sinusoids, []) => node.info.shape.len() == 2,
        (Op::Narrow { dim, start, len }, [x]) => {
            let inside = x
                .shape
                .get(*dim)
                .is_some_and(|size| start.checked_add(*len).is_some_and(|end| end <= *size));
            inside
                && node.info.dtype == x.dtype
                && node.info.shape[..] == *replaced(&x.shape, *dim, *len)
        }
        (Op::Permute { dims }, [x]) => {
            let mut sorted = dims.clone();
            sorted.sort_unstable();
            sorted.into_iter().eq(0..x.shape.len())
                && node.info.dtype == x.dtype
                && node.info.shape.iter().copied().eq(dims.iter().map(|dim| x.shape[*dim]))
        }
        (Op::Reshape, [x]) => node.info.dtype == x.dtype && node.info.numel() == x.numel(),
        (Op::Concat { dim }, [first, ..]) => {
            let total = infos.iter().try_fold(0u64, |sum, x| sum.checked_add(*x.shape.get(*dim)?));
            total.is_some_and(|total| node.info.shape[..] == *replaced(&first.shape, *dim, total))
                && infos.iter().all(|x| x.dtype == node.info.dtype)
                && infos
                    .iter()
                    .all(|x| replaced(&x.shape, *dim, 0) == replaced(&first.shape, *dim, 0))
        }
        (Op::DequantBlocks { block }, [x, scales]) => {
            let rank = x.shape.len();
            value::check_scale(x.dtype, scales.dtype, node.info.dtype)?;
            rank >= 2 && !block.contains(&0) && x.shape == node.info.shape && {
                let mut grid = x.shape.to_vec();
                grid[rank - 2] = grid[rank - 2].div_ceil(block[0]);
                grid[rank - 1] = grid[rank - 1].div_ceil(block[1]);
                scales.shape[..] == *grid
            }
        }
        (Op::DequantMxfp4, [blocks, scales]) => {
            value::check_scale(node.info.dtype, node.info.dtype, node.info.dtype)?;
            let mut shape = scales.shape.to_vec();
            shape.push(16);
            blocks.dtype == Dtype::U8
                && matches!(scales.dtype, Dtype::U8 | Dtype::F8_E8M0)
                && blocks.shape[..] == *shape
                && blocks.numel().and_then(|numel| numel.checked_mul(2)) == node.info.numel()
        }
        (op, [x]) => {
            let step = Step::of(op)
                .ok_or_else(|| inconsistent("a node has the wrong number of inputs"))?;
            step.check(x.dtype, node.info.dtype)?;
            x.shape == node.info.shape
        }
        _ => false,
    };
    let countable = node
        .info
        .numel()
        .is_some_and(|numel| numel.checked_mul(node.info.dtype.bits().into()).is_some());
    if fits && countable {
        Ok(())
    } else {
        Err(inconsistent(&format!("{:?} cannot give {}", node.op, node.info)))
    }
}

fn replaced(shape: &[u64], dim: usize, size: u64) -> Vec<u64> {
    let mut shape = shape.to_vec();
    if let Some(slot) = shape.get_mut(dim) {
        *slot = size;
    }
    shape
}
