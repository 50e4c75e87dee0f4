//! Tensors without their bytes: dtype, shape, strides, header; and [`TensorView`], a tensor over
//! shared storage.

pub mod companion;
mod dtype;
mod header;
mod shape;
pub(crate) mod strided;
mod view;
mod wanted;

pub use dtype::{Dtype, UnknownDtype, widens};
pub use header::{Entry, Header, Location, Remark};
pub(crate) use header::{MAX_KEY_LEN, MAX_RANK, METADATA};
pub use shape::{Shape, TensorInfo};
pub use view::{Storage, TensorView};
pub use wanted::{Disagreement, Wanted};
