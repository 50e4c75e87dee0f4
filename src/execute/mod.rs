//! A plan is carried out: in memory ([`views`]) or to files ([`write()`]), by one fused pass over the sources.
//!
//! Each target compiles to strided boxes over its sources; every element is read where it lies and written where it belongs, with no tensor in
//! between. [`naive`] does the same node by node and is the reference.

mod compile;
mod equal;
mod gather;
mod layout;
mod memory;
pub mod naive;
mod report;
mod sharing;
mod tile;
mod value;
mod write;

pub use equal::{Equality, differing_bytes, tensors_equal};
pub use memory::{Views, views};
pub use report::Report;
pub use sharing::{Sharing, sharing};
pub use write::{Progress, Ties, WriteOptions, write};

#[cfg(test)]
mod tests;
