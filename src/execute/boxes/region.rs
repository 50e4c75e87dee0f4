//! A destination is divided into regions: stretches of memory, each with all that is written to it,
//! so that many threads fill them.

use crate::error::{Error, ErrorKind, Result};
use crate::execute::boxes::Destination;
use crate::execute::fuse::compile::{Layout, Value};
use crate::execute::fuse::gather::{bytes_of, outside, width};
use crate::execute::fuse::layout::{Axes, MAX_PIECES, Piece, Which, refine};
use crate::execute::fuse::tile;
use crate::key::Key;

/// A stretch of a destination, and the pieces that fill it.
pub(super) struct Region<'a> {
    pub(super) out: &'a mut [u8],
    /// Their targets count in elements from the first of `out`, with the destination's strides.
    pub(super) pieces: Vec<Piece<Value>>,
    /// Bytes of an element.
    pub(super) size: u64,
    /// The target, and the number of its box.
    pub(super) key: &'a Key,
    pub(super) number: usize,
}

/// Divides a destination; no piece needs much more than `budget` bytes to be made.
pub(super) fn regions<'a>(
    layout: &Layout,
    wanted: &'a mut Destination<'_>,
    budget: u64,
    (key, number): (&'a Key, usize),
) -> Result<Vec<Region<'a>>> {
    let size = layout.size;
    let mut tiles = Vec::new();
    for piece in placed(layout, wanted.strides.as_deref())? {
        let steps = steps(&piece, size, budget);
        tiles.extend((0..tile::count(&piece, &steps)).map(|at| tile::nth(&piece, &steps, at)));
    }
    tiles.sort_by_key(|piece| piece.target.offset);
    let mut regions: Vec<Region<'a>> = Vec::new();
    let (mut rest, mut before) = (&mut *wanted.buffer, 0);
    let mut tiles = tiles.into_iter().peekable();
    while let Some(first) = tiles.next() {
        // Pieces that lie across each other are one region.
        let (start, mut end) = (first.target.offset, first.end());
        let mut pieces = vec![first];
        while let Some(next) = tiles.next_if(|next| next.target.offset < end) {
            end = end.max(next.end());
            pieces.push(next);
        }
        for piece in &mut pieces {
            piece.target.offset -= start;
        }
        let (_, from) =
            rest.split_at_mut_checked(bytes_of(start - before, size)?).ok_or_else(outside)?;
        let (out, later) =
            from.split_at_mut_checked(bytes_of(end - start, size)?).ok_or_else(outside)?;
        (rest, before) = (later, end);
        regions.push(Region { out, pieces, size, key, number });
    }
    Ok(regions)
}

/// The pieces of a box, where they go in its destination.
fn placed(layout: &Layout, strides: Option<&[u64]>) -> Result<Vec<Piece<Value>>> {
    let Some(strides) = strides.filter(|_| layout.numel > 0) else {
        return Ok(layout.pieces.clone());
    };
    let axes = Axes::new(&layout.info.shape);
    let mut out = Vec::new();
    for piece in &layout.pieces {
        refine(piece.clone(), Which::Target, &axes, &mut out, MAX_PIECES).ok_or_else(|| {
            Error::new(
                ErrorKind::Limit,
                format!("a box of {} is more than {MAX_PIECES} pieces with strides", layout.info),
            )
            .hint("read it in row-major order")
        })?;
    }
    for piece in &mut out {
        piece.target = axes.moved(&piece.target, strides, |_, at| at);
        piece.coalesce();
    }
    Ok(out)
}

/// Steps of a tile of a piece, chosen by where it is read alone: memory is written in any order, and
/// what tiles read lies side by side, not across each other.
fn steps(piece: &Piece<Value>, size: u64, budget: u64) -> Vec<u64> {
    let operands: u64 = match piece.value.is_copy() {
        true => 0,
        false => piece.value.leaves.iter().map(|leaf| width(leaf.dtype)).sum(),
    };
    let mut room = (budget / (size + operands)).max(1);
    let lane = piece.operands.first().unwrap_or(&piece.target);
    let mut order: Vec<usize> = (0..piece.dims.len()).collect();
    order.sort_by_key(|k| lane.strides[*k]);
    let mut steps = vec![1; piece.dims.len()];
    for k in order {
        steps[k] = piece.dims[k].min(room);
        room /= steps[k];
        if steps[k] < piece.dims[k] || room == 0 {
            break;
        }
    }
    steps
}
