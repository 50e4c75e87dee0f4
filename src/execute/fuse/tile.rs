//! Large boxes are cut into tiles that fit a buffer, so that runs are long on the side that reads
//! and on the side that writes.

use super::compile::Value;
use super::gather::width;
use super::layout::Piece;

/// Lengths, in bytes, that runs on both sides should reach, one after the other and the target's
/// first, while there is room. Reading in pieces of 2 KiB costs little, and gaps between them are
/// read through where they are small; writing in pieces costs much more: the system then keeps a
/// file in single pages.
const GOALS: [u64; 3] = [2 << 10, 1 << 20, u64::MAX];

/// Steps of each dim in a tile of at most about `budget` bytes, its operands included. Of a source
/// that is far away, runs are as long as they can be: what is read through there is waited for.
pub(in crate::execute) fn tile(
    piece: &Piece<Value>,
    size: u64,
    budget: u64,
    is_far: bool,
) -> Vec<u64> {
    let operands: u64 = if piece.value.is_copy() {
        0
    } else {
        piece.value.leaves.iter().map(|leaf| width(leaf.dtype)).sum()
    };
    let mut room = (budget / (size + operands)).max(1);
    let mut steps = vec![1u64; piece.dims.len()];
    // Each side prefers its own order: the dims with the smallest strides first.
    let order = |strides: &[u64]| {
        let mut order: Vec<usize> = (0..strides.len()).collect();
        order.sort_by_key(|k| strides[*k]);
        order
    };
    let mut sides = vec![order(&piece.target.strides)];
    sides.extend(piece.operands.first().map(|lane| order(&lane.strides)));
    let mut goals = &GOALS[..];
    if is_far {
        sides.reverse();
        goals = &GOALS[2..];
    }
    for goal in goals {
        let goal = (goal / size).max(1);
        for side in &sides {
            let mut run = 1u64;
            for k in side {
                let wanted = goal.div_ceil(run).min(piece.dims[*k]);
                if wanted > steps[*k] {
                    let possible = wanted.min(steps[*k].saturating_mul(room));
                    room = (room * steps[*k] / possible).max(1);
                    steps[*k] = possible;
                }
                run = run.saturating_mul(steps[*k]);
                if steps[*k] < piece.dims[*k] || run >= goal {
                    break;
                }
            }
        }
    }
    // Tiles of one size: a last one that is narrow would cost as many calls as a whole one.
    steps.iter().zip(&piece.dims).map(|(step, n)| n.div_ceil(n.div_ceil(*step))).collect()
}

/// How many tiles of these steps a piece has.
pub(in crate::execute) fn count(piece: &Piece<Value>, steps: &[u64]) -> u64 {
    piece.dims.iter().zip(steps).map(|(n, step)| n.div_ceil(*step)).product()
}

/// One of the tiles, counted in the order of the target.
pub(in crate::execute) fn nth(piece: &Piece<Value>, steps: &[u64], index: u64) -> Piece<Value> {
    let mut index = index;
    let mut part = piece.clone();
    for k in (0..piece.dims.len()).rev() {
        let tiles = piece.dims[k].div_ceil(steps[k]);
        let at = index % tiles * steps[k];
        index /= tiles;
        part = part.slice(k, at, steps[k].min(piece.dims[k] - at));
    }
    part
}

/// All tiles of a piece.
pub(in crate::execute) fn tiles(
    piece: &Piece<Value>,
    size: u64,
    budget: u64,
) -> impl Iterator<Item = Piece<Value>> {
    let steps = tile(piece, size, budget, false);
    (0..count(piece, &steps)).map(move |index| nth(piece, &steps, index))
}
