//! A plan is carried out: in memory ([`views`]) or to files ([`write()`]), by one fused pass over
//! the sources.
//!
//! Each target compiles to strided boxes over its sources; every element is read where it lies and
//! written where it belongs, with no tensor in between. [`naive`] does the same node by node and is
//! the reference.

mod compile;
mod equal;
mod gather;
mod lanes;
mod layout;
mod memory;
pub mod naive;
mod patch;
mod report;
mod sharing;
mod tile;
mod twins;
mod value;
mod verify;
mod write;

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};
pub use equal::{Equality, differing_bytes, tensors_equal};
pub use lanes::{FileLanes, Lanes, lanes};
pub use memory::{Views, views, views_over, views_until};
pub use patch::{PatchOptions, Recovery, patch, recover};
pub use report::{Lane, Report};
pub use sharing::{Sharing, sharing};
pub use twins::{Twins, same_place, twins};
pub use verify::{CHECKSUMS, Verified, verify};
pub use write::{Progress, Rank, Ties, WriteOptions, write};

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
