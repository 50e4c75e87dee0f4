//! Quantized tensors: two operands, of which one has a stride of 0 inside each block.

use std::sync::Arc;

use super::{Compiler, Expr, Value, whole_leaf};
use crate::execute::fuse::layout::{Axes, Cut, Piece, Which, clip, refine};
use crate::plan::NodeId;
use crate::tensor::{Dtype, TensorInfo};

impl Compiler<'_> {
    /// Scales as one leaf in row-major order: as they are, or as a temporary.
    pub(in crate::execute) fn scales(
        &self,
        id: NodeId,
        pieces: &[Piece<Value>],
        info: &TensorInfo,
    ) -> Piece<Value> {
        match pieces {
            [piece]
                if piece.value.is_copy() && piece.operands[0].strides == piece.target.strides =>
            {
                piece.clone()
            }
            _ => whole_leaf(id, info),
        }
    }

    pub(in crate::execute) fn dequant_blocks(
        &self,
        x: &[Piece<Value>],
        info: &TensorInfo,
        scales: &Piece<Value>,
        scales_info: &TensorInfo,
        block: [u64; 2],
        to: Dtype,
    ) -> Option<Vec<Piece<Value>>> {
        let rank = info.shape.len();
        let (rows, cols) = (info.shape[rank - 2], info.shape[rank - 1]);
        let outer: u64 = info.shape[..rank - 2].iter().product();
        let grid = [rows.div_ceil(block[0]), cols.div_ceil(block[1])];
        let axes = Axes::new(&[outer, rows, cols]);
        // Whole blocks, then the ragged edge: inside each region rows and columns are exact
        // multiples of a block.
        let regions = |size: u64, block: u64| {
            [(0, size / block * block, block), (size / block * block, size, size % block)]
        };
        let mut out = Vec::new();
        for piece in x {
            let mut refined = Vec::new();
            refine(piece.clone(), Which::Target, &axes, &mut refined, self.limit)?;
            for (top, bottom, height) in
                regions(rows, block[0]).into_iter().filter(|(a, b, _)| a < b)
            {
                for (left, right, width) in
                    regions(cols, block[1]).into_iter().filter(|(a, b, _)| a < b)
                {
                    let edges = [(1, (top, bottom)), (2, (left, right))];
                    let region = within(&refined, &axes, edges, self.limit)?;
                    let (high, wide) = (bottom - top, right - left);
                    let blocks = Axes::new(&[outer, high / height, height, wide / width, width]);
                    let first = top / block[0] * grid[1] + left / block[1];
                    for mut piece in region {
                        // The scale's lane first counts the region row by row; in coordinates of
                        // blocks it then becomes the scale's.
                        let shift = |axis, at: u64| match axis {
                            1 => at - top,
                            2 => at - left,
                            _ => at,
                        };
                        let lane = axes.moved(&piece.target, &[high * wide, wide, 1], shift);
                        piece.operands.push(lane);
                        let at = piece.operands.len() - 1;
                        let start = out.len();
                        refine(piece, Which::Operand(at), &blocks, &mut out, self.limit)?;
                        for piece in &mut out[start..] {
                            let mut lane = blocks.moved(
                                &piece.operands[at],
                                &[grid[0] * grid[1], grid[1], 0, 1, 0],
                                |_, at| at,
                            );
                            lane.offset += first + scales.operands[0].offset;
                            piece.operands[at] = lane;
                        }
                    }
                }
            }
        }
        for piece in &mut out {
            let scale = piece.value.leaves.len();
            piece.value.leaves.extend(&scales.value.leaves);
            let x = Box::new(piece.value.expr.as_ref().clone());
            piece.value.expr =
                Arc::new(Expr::Scale { x, from: info.dtype, scale, scales: scales_info.dtype, to });
        }
        Some(out)
    }

    pub(in crate::execute) fn dequant_mxfp4(
        &self,
        blocks: &[Piece<Value>],
        scales: &Piece<Value>,
        to: Dtype,
    ) -> Option<Vec<Piece<Value>>> {
        let expr = Arc::new(Expr::Mxfp4 { codes: 0, scales: 1, to });
        let numel = blocks.iter().map(Piece::volume).sum::<u64>().checked_mul(2)?;
        let axes = Axes::new(&[numel / 32, 32]);
        let mut out = Vec::new();
        for piece in blocks {
            // Every byte is two codes, the low one first: one more dim, and everything else counts
            // twice.
            let mut piece = piece.clone();
            for lane in [&mut piece.target, &mut piece.operands[0]] {
                lane.offset *= 2;
                lane.strides.iter_mut().for_each(|stride| *stride *= 2);
            }
            piece.push_dim(2, &[1, 1]);
            piece.value.leaves[0].dtype = Dtype::F4;
            piece.value.leaves.extend(&scales.value.leaves);
            piece.value.expr = expr.clone();
            piece.operands.push(piece.target.clone());
            refine(piece, Which::Operand(1), &axes, &mut out, self.limit)?;
        }
        for piece in &mut out {
            let mut lane = axes.moved(&piece.operands[1], &[1, 0], |_, at| at);
            lane.offset += scales.operands[0].offset;
            piece.operands[1] = lane;
        }
        Some(out)
    }
}

/// What of some pieces lies between two edges along each of two axes of the target.
fn within(
    pieces: &[Piece<Value>],
    axes: &Axes,
    edges: [(usize, (u64, u64)); 2],
    limit: usize,
) -> Option<Vec<Piece<Value>>> {
    let mut inside = pieces.to_vec();
    for (axis, range) in edges {
        let mut clipped = Vec::new();
        for piece in inside {
            clip(piece, Which::Target, Cut::along(axes, axis, range), &mut clipped, limit)?;
        }
        inside = clipped;
    }
    Some(inside)
}
