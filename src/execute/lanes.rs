//! Which lanes a plan's bytes will take, told before anything is read: by file, from headers alone.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Lane;
use super::patch::{PatchOptions, stay};
use super::write::shards::{Files, grouped, written};
use super::write::{WriteOptions, kept};
use crate::error::Result;
use crate::execute::fuse::compile::{Layout, RowMajor, compile};
use crate::execute::fuse::layout::MAX_PIECES;
use crate::plan::{NodeId, Plan};
use crate::store::Checkpoint;

/// The lanes of a plan, as far as they are known without its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lanes {
    /// Bytes of tensors by lane, if new files are written. Of what the system copies, a filesystem
    /// that can will share the blocks instead; which it is, only the output's place decides.
    pub bytes: BTreeMap<Lane, u64>,
    /// The same for each file that is written, in order.
    pub files: Vec<FileLanes>,
    /// If it can be done in place: the lane of each file that is there, and the bytes that stay in
    /// it. None move.
    pub in_place: Option<Vec<FileLanes>>,
}

/// The lanes of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileLanes {
    /// Its name.
    pub name: String,
    /// Bytes of tensors by lane.
    pub bytes: BTreeMap<Lane, u64>,
}

/// Tells the lanes of a plan. Of the options, those count that say what is written into which file.
///
/// # Errors
/// As [`write()`](super::write()), for inconsistent plans.
pub fn lanes(plan: &Plan, source: &Checkpoint, options: &WriteOptions<'_>) -> Result<Lanes> {
    let kept = kept(plan, options.into());
    let program = compile(plan, &RowMajor, &kept, MAX_PIECES)?;
    let temporary = |node: NodeId| program.temporaries.contains(&node);
    let tensors = written(plan, &kept);
    let limit = if options.single { None } else { options.max_shard_size };
    let mut lanes = Lanes { bytes: BTreeMap::new(), files: Vec::new(), in_place: None };
    let into = match &options.rank_files {
        Some(files) => Files::Ranks(files),
        None => Files::Sized { limit, name: "model.safetensors" },
    };
    for (name, group) in grouped(&tensors, into)? {
        let mut bytes = BTreeMap::new();
        for layout in group.iter().filter_map(|tensor| program.layouts.get(tensor.number)) {
            add(layout, source.is_on_disk(), &temporary, &mut bytes);
        }
        for (lane, more) in &bytes {
            let sum = lanes.bytes.entry(*lane).or_insert(0u64);
            *sum = sum.saturating_add(*more);
        }
        lanes.files.push(FileLanes { name, bytes });
    }
    if source.has_bytes()
        && source.is_on_disk()
        && source.has_keys_of_files()
        && options.rank_files.is_none()
    {
        let patch = PatchOptions { ties: options.ties, ..PatchOptions::default() };
        lanes.in_place = stay(plan, source, &patch, &kept, &program.layouts);
    }
    Ok(lanes)
}

fn add(
    layout: &Layout,
    can_copy: bool,
    temporary: &dyn Fn(NodeId) -> bool,
    bytes: &mut BTreeMap<Lane, u64>,
) {
    for piece in &layout.pieces {
        let made = piece.value.leaves.iter().any(|leaf| temporary(leaf.node));
        let lane = if can_copy && piece.is_run() && piece.value.is_copy() && !made {
            Lane::Copied
        } else {
            Lane::Streamed
        };
        let sum = bytes.entry(lane).or_insert(0);
        *sum = sum.saturating_add(piece.volume().saturating_mul(layout.size));
    }
}
