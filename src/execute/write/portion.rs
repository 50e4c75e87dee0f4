//! How a tensor is cut into jobs: by pieces where its runs are long, else by stretches of the target.

use crate::execute::fuse::compile::{Layout, Value};
use crate::execute::fuse::gather::width;
use crate::execute::fuse::layout::Piece;
use crate::execute::fuse::tile;

/// A portion of a tensor that is cut into jobs.
pub(super) enum Portion {
    /// A piece, by tiles of these steps.
    Tiles { piece: usize, steps: Vec<u64> },
    /// Elements of the target, assembled from some pieces, so many at a time.
    Stretches { from: u64, to: u64, pieces: std::ops::Range<usize>, chunk: u64 },
}

/// Cuts a layout (its pieces are in the order of the target) into portions.
pub(super) fn portions(layout: &Layout, budget: u64, long_run: u64, is_far: bool) -> Vec<Portion> {
    let mut portions = Vec::new();
    let mut first = 0;
    while let Some(piece) = layout.pieces.get(first) {
        // Pieces that lie across each other form a group.
        let (mut reach, mut next) = (piece.end(), first + 1);
        while let Some(piece) = layout.pieces.get(next).filter(|piece| piece.target.offset < reach)
        {
            reach = reach.max(piece.end());
            next += 1;
        }
        let group = first..next;
        let long = |piece: &Piece<Value>| {
            let runs = piece
                .dims
                .last()
                .zip(piece.target.strides.last())
                .filter(|(_, stride)| **stride == 1)
                .map_or(1, |(n, _)| *n);
            runs * layout.size >= long_run
        };
        if group.len() == 1 || layout.pieces[group.clone()].iter().all(long) {
            for piece in group {
                portions.push(Portion::Tiles {
                    piece,
                    steps: tile::tile(&layout.pieces[piece], layout.size, budget, is_far),
                });
            }
        } else {
            let operands = |piece: &Piece<Value>| {
                piece.value.leaves.iter().map(|leaf| width(leaf.dtype)).sum::<u64>()
            };
            let widest = layout.pieces[group.clone()].iter().map(operands).max().unwrap_or(0);
            let chunk = (budget / (2 * layout.size + widest)).max(1);
            portions.push(Portion::Stretches {
                from: piece.target.offset,
                to: reach,
                pieces: group,
                chunk,
            });
        }
        first = next;
    }
    portions
}

impl Portion {
    pub(super) fn jobs(&self, layout: &Layout) -> u64 {
        match self {
            Portion::Tiles { piece, steps } => tile::count(&layout.pieces[*piece], steps),
            Portion::Stretches { from, to, chunk, .. } => (to - from).div_ceil(*chunk),
        }
    }

    /// Elements of the target.
    pub(super) fn elements(&self, layout: &Layout) -> u64 {
        match self {
            Portion::Tiles { piece, .. } => layout.pieces[*piece].volume(),
            Portion::Stretches { from, to, .. } => to - from,
        }
    }
}
