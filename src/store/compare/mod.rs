//! Which tensors of a checkpoint are the same, by place or by bytes.

mod equal;
mod twins;

pub use equal::{Equality, differing_bytes, tensors_equal};
pub use twins::{Twins, same_place, twins};
