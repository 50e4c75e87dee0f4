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
use crate::execute::fuse::compile::{AsStored, Layout, Leaf, Program, Value, compile};
use crate::execute::fuse::gather::{Leaves, Worker, bytes_of, outside};
use crate::execute::fuse::layout::{Axes, Course, MAX_PIECES, Piece, Which, refine};
use crate::execute::fuse::tile::tiles;
use crate::execute::{Report, not_cancelled, temporary};
use crate::key::{Key, natural_order};
use crate::plan::{NodeId, Op, Plan};
use crate::store::{Hints, Range, Store};
use crate::tensor::{Storage, TensorView};
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
    let program = compile(plan, &AsStored(source), &all, limit)?;
    let mut report = Report::default();
    let mut leaves = InMemory::of(plan, source, &program)?;
    report.bytes_read = leaves.read;
    for node in &program.temporaries {
        not_cancelled(cancel)?;
        let (bytes, overflowed) = temporary::evaluate(plan, source, *node, cancel)?;
        report.temporaries += 1;
        report.temporary_bytes += bytes.len() as u64;
        let leaf = Leaf { node: *node, part: None, dtype: plan.node(*node).info.dtype };
        leaves.places.insert((leaf.node, leaf.part), (Storage::new(bytes), 0));
        leaves.overflowed.insert(*node, overflowed);
    }
    // One for each node: targets that share a node share the tensor.
    let mut nodes: BTreeMap<NodeId, (Arc<Layout>, &Key)> = BTreeMap::new();
    for (target, layout) in plan.targets.iter().zip(&program.layouts) {
        nodes.entry(target.node).or_insert((layout.clone(), &target.key));
    }
    let made: Vec<(NodeId, Made)> = nodes
        .par_iter()
        .map(|(node, (layout, key))| {
            Ok((
                *node,
                tensor(layout, &leaves, cancel).map_err(|error| error.at_key(key.as_str()))?,
            ))
        })
        .collect::<Result<_>>()?;
    let made: BTreeMap<NodeId, Made> = made.into_iter().collect();
    for (node, (layout, key)) in &nodes {
        let computed = made.get(node).map_or(0, |made| made.overflowed);
        report.overflow(key, computed.saturating_add(layout.overflowed_before(&leaves.overflowed)));
    }
    let mut seen = BTreeSet::new();
    let mut tensors = IndexMap::with_capacity(plan.targets.len());
    for target in &plan.targets {
        let Some(made) = made.get(&target.node) else { continue };
        let bytes = made.view.nbytes();
        if made.aliased || !seen.insert(target.node) {
            report.aliased += 1;
            report.bytes_aliased += bytes;
        } else {
            report.made(made.moved_only, bytes);
            report.bytes_read += made.read;
        }
        tensors.insert(target.key.clone(), made.view.clone());
    }
    Ok(Views { tensors, report })
}

struct Made {
    view: TensorView,
    aliased: bool,
    moved_only: bool,
    read: u64,
    /// Elements that were computed from finite ones and are infinite or NaN.
    overflowed: u64,
}

fn tensor(layout: &Layout, leaves: &InMemory, cancel: Option<&AtomicBool>) -> Result<Made> {
    not_cancelled(cancel)?;
    if let Some(view) = alias(layout, leaves)? {
        // A temporary is nobody's storage but this target's, and as good a home as a copy; but it
        // was made.
        let aliased =
            layout.pieces.first().is_none_or(|piece| piece.value.leaves[0].part.is_some());
        return Ok(Made { view, aliased, moved_only: aliased, read: 0, overflowed: 0 });
    }
    let mut bytes = Vec::new();
    let len = bytes_of(layout.numel, layout.size)?;
    bytes.try_reserve_exact(len).map_err(|_| {
        Error::new(ErrorKind::Limit, format!("no memory for a tensor of {}", layout.info))
    })?;
    bytes.resize(len, 0);
    let mut worker = Worker::new(TILE, Hints::LOCAL);
    let mut read = 0;
    for piece in &layout.pieces {
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
            worker.place(&part, layout.size, leaves, out, &part.target.strides)?;
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

/// The target as a view of its source, if it is one.
fn alias(layout: &Layout, leaves: &InMemory) -> Result<Option<TensorView>> {
    let [piece] = &layout.pieces[..] else { return Ok(None) };
    if !piece.value.is_copy() {
        return Ok(None);
    }
    let leaf = piece.value.leaves[0];
    let (storage, first) = leaves.places.get(&(leaf.node, leaf.part)).ok_or_else(outside)?;
    let Some(Course { offset, strides }) = affine(layout, piece) else { return Ok(None) };
    let size = u64::from(leaf.dtype.bits()).max(8);
    let offset = offset
        .checked_mul(size)
        .and_then(|bits| bits.checked_add(first.checked_mul(8)?))
        .ok_or_else(outside)?;
    TensorView::strided(storage.clone(), layout.info.clone(), strides.into_vec(), offset).map(Some)
}

/// The operand's course with one stride for each dimension of the target's shape, if there is one.
pub(super) fn affine(layout: &Layout, piece: &Piece<Value>) -> Option<Course> {
    let offset = piece.operands[0].offset;
    if layout.info.dtype.bits() < 8 {
        // Counted in bytes, and only as one run.
        let run =
            piece.dims.is_empty() || (piece.dims.len() == 1 && piece.operands[0].strides[0] == 1);
        return run
            .then(|| Course { offset, strides: layout.info.shape.contiguous_strides().into() });
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
    Some(Course { offset, strides: found.into() })
}

/// Leaves that are mapped or in memory.
#[derive(Default)]
struct InMemory {
    /// By node and box: the storage, and the first byte in it.
    places: BTreeMap<(NodeId, Option<u32>), (Storage, u64)>,
    /// Bytes that were read, since the store has no storage to share.
    read: u64,
    /// How many elements overflowed in each temporary.
    overflowed: BTreeMap<NodeId, u64>,
}

impl InMemory {
    /// The boxes of sources that pieces read.
    fn of(plan: &Plan, source: &dyn Store, program: &Program) -> Result<Self> {
        let mut found = Self::default();
        for leaf in program.leaves() {
            let (Op::Source { key }, Some(part)) = (&plan.node(leaf.node).op, leaf.part) else {
                continue;
            };
            let Entry::Vacant(place) = found.places.entry((leaf.node, leaf.part)) else { continue };
            let boxes = program.boxes.get(&leaf.node).ok_or_else(outside)?;
            let part = boxes.get(part as usize).ok_or_else(outside)?;
            let at = |error: Error| error.at_key(key.as_str());
            match source.storages() {
                Some(storages) => {
                    place.insert((storages.storage(part.blob).map_err(at)?, part.offset));
                }
                // Nothing to share: the box is read, from its first to its last element.
                None => {
                    let span = part.span().ok_or_else(outside)?;
                    let bits = span.checked_mul(u64::from(boxes.info().dtype.bits()));
                    let mut bytes = vec![0; bytes_of(bits.ok_or_else(outside)?.div_ceil(8), 1)?];
                    let range = Range { blob: part.blob, offset: part.offset, buffer: &mut bytes };
                    source.read(&mut [range]).map_err(at)?;
                    found.read = found.read.saturating_add(bytes.len() as u64);
                    place.insert((Storage::new(bytes), 0));
                }
            }
        }
        Ok(found)
    }
}

impl Leaves for InMemory {
    fn read(&self, _: Leaf, _: &mut [(u64, &mut [u8])]) -> Result<()> {
        Err(outside())
    }

    fn bytes(&self, leaf: Leaf) -> Option<&[u8]> {
        let (storage, first) = self.places.get(&(leaf.node, leaf.part))?;
        storage.bytes().get(usize::try_from(*first).ok()?..)
    }
}
