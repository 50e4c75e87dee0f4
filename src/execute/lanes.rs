//! Which lanes a plan's bytes will take, told before anything is read.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Lane;
use super::compile::compile;
use super::layout::MAX_PIECES;
use super::patch::{PatchOptions, can_patch};
use super::write::{Ties, left_out};
use crate::error::Result;
use crate::plan::Plan;
use crate::store::Checkpoint;

/// The lanes of a plan, as far as they are known without its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lanes {
    /// Bytes of tensors by lane, if new files are written. What the system copies, a filesystem that can will share instead.
    pub bytes: BTreeMap<Lane, u64>,
    /// Whether it can be done in place: only headers change.
    pub in_place: bool,
}

/// Tells the lanes of a plan.
///
/// # Errors
/// As [`write()`](super::write()), for inconsistent plans.
pub fn lanes(plan: &Plan, source: &Checkpoint, ties: Ties) -> Result<Lanes> {
    let kept: Vec<usize> = (0..plan.targets.len()).filter(|at| !left_out(plan, &plan.targets[*at], ties)).collect();
    let program = compile(plan, &kept, MAX_PIECES)?;
    let mut bytes = BTreeMap::new();
    for layout in &program.layouts {
        for piece in &layout.pieces {
            let temporary = piece.value.leaves.iter().any(|leaf| program.temporaries.contains(&leaf.node));
            let lane = if piece.is_run() && piece.value.is_copy() && !temporary { Lane::Copied } else { Lane::Streamed };
            let lane = bytes.entry(lane).or_insert(0u64);
            *lane = lane.saturating_add(piece.volume().saturating_mul(layout.size));
        }
    }
    let in_place = source.has_bytes() && can_patch(plan, source, &PatchOptions { ties, ..PatchOptions::default() });
    Ok(Lanes { bytes, in_place })
}
