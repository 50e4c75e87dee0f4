//! To files: a sharded directory or a single file, streamed, which appears whole or not at all.
//!
//! Equal plans and sources give equal bytes. The source is only read, and an output inside it is
//! refused.
//!
//! One run is four phases, a file each: [`prepare`] lays out, [`begin`] makes a hidden place,
//! [`fill`] copies and streams tensors, with [`seal`] beside it, which syncs and records each file,
//! and [`appear`] completes the output and renames it into place.

mod appear;
mod begin;
mod copy;
mod fill;
mod finished;
mod flow;
pub(super) mod leaves;
mod options;
mod partial;
mod parts;
mod place;
mod portion;
mod prepare;
mod queue;
mod ranks;
mod seal;
pub(super) mod shards;
mod share;
pub(super) mod staging;
pub(super) mod stream;
mod tied;
mod together;
mod verify;
mod watch;

use std::path::Path;

use super::report::peak_memory;
use super::{Report, not_cancelled};
use crate::error::Result;
use crate::plan::Plan;
use crate::store::Store;
pub use options::{Progress, Ties, WriteOptions};
pub use parts::{Outline, Parted, SourceBox};
pub(super) use tied::{carried, kept};
pub use verify::{CHECKSUMS, Verified, verify};

/// Carries out a plan into files: `out` is a directory to be made, or a file if its name ends with
/// `.safetensors`.
///
/// `__metadata__` of the source is kept. A source without any gets `format: pt`, since transformers
/// refuses files without it.
///
/// # Errors
/// [`ErrorKind::Exists`](crate::error::ErrorKind::Exists) if the output is there (see [`WriteOptions::force`]) or would lie in its
/// own source; [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted) if cancelled; I/O errors with the file; errors of the
/// plan as in [`views`](super::views). In every case nothing of the output is there.
pub fn write(
    plan: &Plan,
    source: &dyn Store,
    out: &Path,
    options: &WriteOptions<'_>,
) -> Result<Report> {
    let prepared = prepare::prepare(plan, source, out, options)?;
    let mut report = tied::report(plan, options.into());
    let Some(mut begun) = begin::begin(&prepared)? else {
        report.kept = prepared.shards.files.len() as u64;
        report.complete = true;
        report.peak_memory = peak_memory();
        return Ok(report);
    };
    report.kept = begun.finished.len() as u64;
    fill::fill(&prepared, &mut begun, &mut report)?;
    report.peak_memory = peak_memory();
    not_cancelled(options.cancel)?;
    appear::appear(&prepared, begun, &mut report)?;
    Ok(report)
}
