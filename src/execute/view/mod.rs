//! In memory: a target that is one affine view of one source *is* a view of it; only the others are
//! made.

mod sharing;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use indexmap::IndexMap;
use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::execute::fuse::compile::{Layout, Value, compile};
use crate::execute::fuse::gather::{GAP, Leaves, Worker, bytes_of, outside};
use crate::execute::fuse::layout::{Axes, Lane, MAX_PIECES, Piece, Which, refine};
use crate::execute::fuse::tile::tiles;
use crate::execute::{Report, naive, not_cancelled};
use crate::key::{Key, natural_order};
use crate::plan::{NodeId, Op, Plan};
use crate::store::Store;
use crate::tensor::{Dtype, Storage, TensorInfo, TensorView};
pub use sharing::{Sharing, sharing};

/// A plan carried out in memory.
#[derive(Clone, Debug, Default)]
pub struct Views {
    /// Key -> tensor, in the order of the plan's targets.
    pub tensors: IndexMap<Key, TensorView>,
    /// What was done.
    pub report: Report,
}

/// Bytes that one thread gathers at once where values are computed.
const TILE: u64 = 1 << 20;

/// Carries out a plan in memory. Renames, ties, slices, splits along the first dimension,
/// unstacking and transposes share the source's storage and copy nothing; targets of one node are
/// always one tensor; the others are made, in parallel.
///
/// # Errors
/// If the plan doesn't fit the store or is inconsistent, an op isn't defined on its dtype, or a
/// source can't be mapped.
pub fn views(plan: &Plan, source: &dyn Store) -> Result<Views> {
    views_within(plan, source, MAX_PIECES, None)
}

/// As [`views`], until `cancel` is set, from whatever thread: then it stops soon and holds nothing.
///
/// # Errors
/// As [`views`]; and [`ErrorKind::Interrupted`] if cancelled.
pub fn views_until(plan: &Plan, source: &dyn Store, cancel: &AtomicBool) -> Result<Views> {
    views_within(plan, source, MAX_PIECES, Some(cancel))
}

/// As [`views`], for a model that holds tensors already: the keys that a tie with `if absent
/// fallback` leaves as they are ([`Plan::kept`]) are its own, in its own storage.
///
/// # Errors
/// As [`views`]; and if the model doesn't hold such a key.
pub fn views_over(plan: &Plan, source: &dyn Store, model: &dyn Store) -> Result<Views> {
    let mut out = views(plan, source)?;
    for key in &plan.kept {
        let view = model.view(key)?;
        out.report.aliased += 1;
        out.report.bytes_aliased += view.nbytes();
        out.tensors.insert(key.clone(), view);
    }
    out.tensors.sort_by(|a, _, b, _| natural_order(a, b));
    Ok(out)
}

/// As [`views`], with another limit of pieces.
pub(super) fn views_within(
    plan: &Plan,
    source: &dyn Store,
    limit: usize,
    cancel: Option<&AtomicBool>,
) -> Result<Views> {
    let all: Vec<usize> = (0..plan.targets.len()).collect();
    let program = compile(plan, &all, limit)?;
    let mut leaves = Mapped::default();
    let mut report = Report::default();
    for node in &program.temporaries {
        not_cancelled(cancel)?;
        let (bytes, overflowed) = naive::evaluate_counting(plan, source, *node)?;
        report.temporaries += 1;
        report.temporary_bytes += bytes.len() as u64;
        let view = TensorView::contiguous(Storage::new(bytes), plan.node(*node).info.clone(), 0)?;
        leaves.views.insert(*node, view);
        leaves.temporaries.insert(*node, overflowed);
    }
    // One for each node: targets that share a node share the tensor.
    let mut nodes: BTreeMap<NodeId, (Arc<Layout>, &Key)> = BTreeMap::new();
    for (target, layout) in plan.targets.iter().zip(&program.layouts) {
        nodes.entry(target.node).or_insert((layout.clone(), &target.key));
        for leaf in layout.pieces.iter().flat_map(|piece| &piece.value.leaves) {
            if let Op::Source { key } = &plan.node(leaf.node).op
                && !leaves.views.contains_key(&leaf.node)
            {
                leaves
                    .views
                    .insert(leaf.node, source_view(source, key, &plan.node(leaf.node).info)?);
            }
        }
    }
    let made: Vec<(NodeId, Made)> = nodes
        .par_iter()
        .map(|(node, (layout, key))| {
            Ok((
                *node,
                tensor(layout, &leaves, limit, cancel)
                    .map_err(|error| error.at_key(key.as_str()))?,
            ))
        })
        .collect::<Result<_>>()?;
    let made: BTreeMap<NodeId, Made> = made.into_iter().collect();
    for (node, (layout, key)) in &nodes {
        let computed = made.get(node).map_or(0, |made| made.overflowed);
        report
            .overflow(key, computed.saturating_add(layout.overflowed_before(&leaves.temporaries)));
    }
    let mut seen = BTreeSet::new();
    let mut tensors = IndexMap::with_capacity(plan.targets.len());
    for target in &plan.targets {
        let Some(made) = made.get(&target.node) else { continue };
        let bytes = made.view.nbytes();
        if made.aliased || !seen.insert(target.node) {
            report.aliased += 1;
            report.bytes_aliased += bytes;
        } else if made.moved_only {
            report.copied += 1;
            report.bytes_copied += bytes;
            report.bytes_read += made.read;
        } else {
            report.transformed += 1;
            report.bytes_transformed += bytes;
            report.bytes_read += made.read;
        }
        tensors.insert(target.key.clone(), made.view.clone());
    }
    Ok(Views { tensors, report })
}

/// A source as a view, which must be what the plan says.
fn source_view(source: &dyn Store, key: &Key, info: &TensorInfo) -> Result<TensorView> {
    naive::matches_header(source, key, info)?;
    source.view(key)
}

struct Made {
    view: TensorView,
    aliased: bool,
    moved_only: bool,
    read: u64,
    /// Elements that were computed from finite ones and are infinite or NaN.
    overflowed: u64,
}

fn tensor(
    layout: &Layout,
    leaves: &Mapped,
    limit: usize,
    cancel: Option<&AtomicBool>,
) -> Result<Made> {
    not_cancelled(cancel)?;
    let mut copies = Mapped::default();
    let pieces = match settle(layout, leaves, limit)? {
        Some(pieces) => {
            if let Some(view) = alias(layout, &pieces, leaves)? {
                // A temporary is nobody's storage but this target's, and as good a home as a copy;
                // but it was made.
                let leaf = pieces.first().map(|piece| piece.value.leaves[0].node);
                let aliased = leaf.is_none_or(|node| !leaves.temporaries.contains_key(&node));
                return Ok(Made { view, aliased, moved_only: aliased, read: 0, overflowed: 0 });
            }
            pieces
        }
        None => {
            // Strides that can't be followed: the sources are made row-major first.
            for leaf in layout.pieces.iter().flat_map(|piece| &piece.value.leaves) {
                let view = leaves.views.get(&leaf.node).ok_or_else(outside)?;
                if let (false, Entry::Vacant(slot)) =
                    (view.is_contiguous(), copies.views.entry(leaf.node))
                {
                    slot.insert(TensorView::contiguous(
                        Storage::new(view.to_vec()),
                        view.info().clone(),
                        0,
                    )?);
                }
            }
            layout.pieces.clone()
        }
    };
    let both = Both(&copies, leaves);
    let mut bytes = Vec::new();
    let len = bytes_of(layout.numel, layout.size)?;
    bytes.try_reserve_exact(len).map_err(|_| {
        Error::new(ErrorKind::Limit, format!("no memory for a tensor of {}", layout.info))
    })?;
    bytes.resize(len, 0);
    let mut worker = Worker::new(TILE, GAP);
    let mut read = 0;
    for piece in &pieces {
        // Moves need no buffer of their own; values are computed tile by tile.
        let parts = if piece.value.is_copy() {
            vec![piece.clone()]
        } else {
            tiles(piece, layout.size, TILE).collect()
        };
        for part in parts {
            not_cancelled(cancel)?;
            read += part
                .value
                .leaves
                .iter()
                .map(|leaf| part.volume() * u64::from(leaf.dtype.bits()) / 8)
                .sum::<u64>();
            let out =
                bytes.get_mut(bytes_of(part.target.offset, layout.size)?..).ok_or_else(outside)?;
            worker.place(&part, layout.size, &both, out, &part.target.strides)?;
        }
    }
    let view = TensorView::contiguous(Storage::new(bytes), layout.info.clone(), 0)?;
    // An empty tensor has nothing to copy.
    Ok(Made {
        view,
        aliased: layout.numel == 0,
        moved_only: layout.is_copy(),
        read,
        overflowed: worker.overflowed,
    })
}

/// The pieces of a layout, which address row-major sources, with the strides that the sources have.
/// `None` if that takes too many pieces.
fn settle(layout: &Layout, leaves: &Mapped, limit: usize) -> Result<Option<Vec<Piece<Value>>>> {
    let mut out = Vec::with_capacity(layout.pieces.len());
    for piece in &layout.pieces {
        let mut settled = vec![piece.clone()];
        for (operand, leaf) in piece.value.leaves.iter().enumerate() {
            let view = leaves.views.get(&leaf.node).ok_or_else(outside)?;
            if view.is_contiguous() {
                continue;
            }
            let axes = Axes::new(view.shape());
            let mut refined = Vec::new();
            // Half bytes are counted in other steps than their source.
            let half = leaf.dtype == Dtype::F4;
            let refine = |piece: Piece<Value>| {
                refine(piece, Which::Operand(operand), &axes, &mut refined, limit)
            };
            if half || settled.into_iter().try_for_each(refine).is_none() {
                return Ok(None);
            }
            for piece in &mut refined {
                piece.operands[operand] =
                    axes.moved(&piece.operands[operand], view.strides(), |_, at| at);
                piece.coalesce();
            }
            settled = refined;
        }
        out.extend(settled);
    }
    Ok(Some(out))
}

/// The target as a view of its source, if it is one.
fn alias(layout: &Layout, pieces: &[Piece<Value>], leaves: &Mapped) -> Result<Option<TensorView>> {
    let [piece] = pieces else { return Ok(None) };
    if !piece.value.is_copy() {
        return Ok(None);
    }
    let leaf = piece.value.leaves[0];
    let view = leaves.views.get(&leaf.node).ok_or_else(outside)?;
    let Some(Lane { offset, strides }) = affine(layout, piece) else { return Ok(None) };
    let size = u64::from(leaf.dtype.bits()).max(8);
    let offset = offset
        .checked_mul(size)
        .and_then(|bits| bits.checked_add(view.offset_bits()))
        .ok_or_else(outside)?;
    TensorView::strided(view.storage().clone(), layout.info.clone(), strides, offset).map(Some)
}

/// The operand's lane with one stride for each dimension of the target's shape, if there is one.
pub(super) fn affine(layout: &Layout, piece: &Piece<Value>) -> Option<Lane> {
    let offset = piece.operands[0].offset;
    if layout.info.dtype.bits() < 8 {
        // Counted in bytes, and only as one run.
        let run =
            piece.dims.is_empty() || (piece.dims.len() == 1 && piece.operands[0].strides[0] == 1);
        return run.then(|| Lane { offset, strides: layout.info.shape.contiguous_strides() });
    }
    let axes = Axes::new(&layout.info.shape);
    let mut refined = Vec::new();
    refine(piece.clone(), Which::Target, &axes, &mut refined, layout.info.shape.len() + 2)?;
    let [piece] = &refined[..] else { return None };
    let mut strides: Vec<Option<u64>> = vec![None; layout.info.shape.len()];
    for (k, stride) in piece.target.strides.iter().enumerate() {
        let slot = strides.get_mut(axes.owner(*stride)?)?;
        if slot.replace(piece.operands[0].strides[k]).is_some() {
            return None;
        }
    }
    // Dimensions of one element get the stride that a row-major tensor would have there.
    let mut step = 1u64;
    let mut found = vec![0; strides.len()];
    for dim in (0..strides.len()).rev() {
        found[dim] = strides[dim].unwrap_or(step);
        step = found[dim].saturating_mul(layout.info.shape[dim]);
    }
    Some(Lane { offset, strides: found })
}

/// Leaves that are mapped or in memory.
#[derive(Default)]
struct Mapped {
    views: BTreeMap<NodeId, TensorView>,
    /// Which of them were made here, and how many elements overflowed in making them.
    temporaries: BTreeMap<NodeId, u64>,
}

struct Both<'a>(&'a Mapped, &'a Mapped);

impl Leaves for Both<'_> {
    fn read(&self, _: NodeId, _: u64, _: &mut [u8]) -> Result<()> {
        Err(outside())
    }

    fn bytes(&self, leaf: NodeId) -> Option<&[u8]> {
        let view = self.0.views.get(&leaf).or_else(|| self.1.views.get(&leaf))?;
        view.storage().bytes().get(usize::try_from(view.offset_bits() / 8).ok()?..)
    }
}
