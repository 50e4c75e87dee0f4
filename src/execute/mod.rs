//! A plan is carried out: in memory ([`views`]) or to files ([`write()`]), by one fused pass over
//! the sources.
//!
//! Each target compiles to strided boxes over its sources; every element is read where it lies and
//! written where it belongs, with no tensor in between. [`naive`] does the same node by node and is
//! the reference.

mod boxes;
mod fuse;
#[cfg(feature = "files")]
mod lanes;
mod leaves;
pub mod naive;
#[cfg(feature = "files")]
mod patch;
mod rank;
mod report;
mod temporary;
mod value;
mod view;
#[cfg(feature = "files")]
mod write;

use std::sync::atomic::{AtomicBool, Ordering};

pub use boxes::{Destination, read_boxes};

use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "files")]
pub use lanes::{FileLanes, Lanes, lanes};
#[cfg(feature = "files")]
pub use patch::{PatchOptions, Recovery, patch, recover};
pub use rank::{Rank, RankError};
pub use report::{Lane, Report};
pub use view::{Sharing, sharing};
pub use view::{Views, views, views_over, views_until};
#[cfg(feature = "files")]
pub use write::{CHECKSUMS, Verified, verify};
#[cfg(feature = "files")]
pub use write::{Outline, Parted, Progress, SourceBox, Ties, WriteOptions, write};

/// Whether to go on: an error if not.
fn not_cancelled(cancel: Option<&AtomicBool>) -> Result<()> {
    match cancel {
        Some(cancel) if cancel.load(Ordering::Relaxed) => {
            Err(Error::new(ErrorKind::Interrupted, "interrupted"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
