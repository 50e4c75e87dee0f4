//! What a target is in memory, told from the plan alone: a view of its source, a copy, or computed.

use serde::Serialize;

use super::affine;
use crate::error::Result;
use crate::execute::fuse::compile::{RowMajor, compile};
use crate::execute::fuse::layout::MAX_PIECES;
use crate::plan::Plan;

/// What a target is when a plan is carried out in memory over contiguous sources, as those of files
/// are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// It shares its source's storage.
    View,
    /// Its elements are moved into a storage of its own.
    Copy,
    /// Its elements are computed.
    Computed,
}

/// What the target at a place of [`Plan::targets`] is in memory; `None` if there is no such place.
///
/// # Errors
/// If the plan is inconsistent.
pub fn sharing(plan: &Plan, target: usize) -> Result<Option<Sharing>> {
    if target >= plan.targets.len() {
        return Ok(None);
    }
    let program = compile(plan, &RowMajor, &[target], MAX_PIECES)?;
    let Some(layout) = program.layouts.first() else { return Ok(None) };
    let is_view = match &layout.pieces[..] {
        [piece] => piece.value.is_copy() && affine(layout, piece).is_some(),
        _ => false,
    };
    Ok(Some(if is_view {
        Sharing::View
    } else if layout.is_copy() && program.temporaries.is_empty() {
        Sharing::Copy
    } else {
        Sharing::Computed
    }))
}
