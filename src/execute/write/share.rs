//! Whether an output can share blocks with its source, and where tensors would have to begin for it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use super::copy;
use super::leaves::FileLeaves as _;
use crate::error::Result;
use crate::execute::fuse::compile::{Layout, Value};
use crate::execute::fuse::layout::Piece;
use crate::execute::leaves::StoreLeaves;

/// Whether the source's blocks can be shared with the output: one filesystem, that can.
pub(super) fn can_share(
    leaves: &StoreLeaves<'_>,
    layouts: &[Arc<Layout>],
    parent: &Path,
) -> Result<bool> {
    let first = layouts
        .iter()
        .flat_map(|layout| &layout.pieces)
        .flat_map(|piece| &piece.value.leaves)
        .next();
    let Some(extent) = first.map(|leaf| leaves.extent(*leaf)).transpose()?.flatten() else {
        return Ok(false);
    };
    let device =
        |metadata: std::io::Result<std::fs::Metadata>| metadata.map(|metadata| metadata.dev()).ok();
    Ok(device(extent.file.metadata()).is_some_and(|own| Some(own) == device(parent.metadata()))
        && copy::shares_blocks(parent))
}

/// Where within a block each straight run of a tensor would have to begin to share the source's
/// blocks, as if the tensor began at 0; and its length.
pub(super) fn phases(leaves: &StoreLeaves<'_>, layout: Option<&Arc<Layout>>) -> Vec<(u64, u64)> {
    let Some(layout) = layout else { return Vec::new() };
    let run = |piece: &Piece<Value>| {
        let (leaf, lane) = (piece.value.leaves.first()?, piece.operands.first()?);
        let extent = leaves
            .extent(*leaf)
            .ok()
            .flatten()
            .filter(|_| piece.is_run() && piece.value.is_copy())?;
        let from = extent.offset.checked_add(lane.offset.checked_mul(layout.size)?)?;
        let to = piece.target.offset.checked_mul(layout.size)?;
        Some((
            (from % copy::BLOCK + copy::BLOCK - to % copy::BLOCK) % copy::BLOCK,
            piece.volume().checked_mul(layout.size)?,
        ))
    };
    layout.pieces.iter().filter_map(run).collect()
}
