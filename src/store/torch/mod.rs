//! What `torch.save` writes: where a file's pickle lies, what it says, and which tensors that
//! means.
//!
//! * `container`: the archive of PyTorch 1.6 and later, the stream before, and where each storage
//!   lies in them
//! * `tar`: the archive of its first year
//! * `pickle`: the machine, which turns a pickle into [`Values`] and runs nothing of it
//! * `value`: these values, each by its number
//! * `tensor`: what PyTorch means by the few names that it writes: storages and tensors
//! * `dtype`: its dtypes
//! * `plain`: what is no tensor, as JSON
//! * `tree`: dicts in dicts, the state dict among them, and what isn't of it
//! * `contents`: the tensors of a state dict as keys with boxes
//! * `dcp`: the pickle that says where `torch.distributed.checkpoint` put the parts of tensors
//!
//! A tensor's elements are never looked at here, and memory is bounded by the length of the pickle,
//! and that by [`MAX_PICKLE`].

mod container;
mod contents;
#[cfg(feature = "files")]
pub(super) mod dcp;
mod dtype;
mod pickle;
mod plain;
mod tar;
mod tensor;
#[cfg(test)]
mod tests;
pub(super) mod tree;
mod value;

pub(super) use container::Container;
pub use container::{MAX_PICKLE, Saved, read};
#[cfg(feature = "files")]
pub(super) use contents::alone;
pub(super) use contents::contents;
pub use dtype::TorchDtype;
pub use pickle::{MAX_VALUES, PickleError};
pub use plain::PlainValues;
pub use tensor::{Meaning, Meanings, TorchStorage, TorchTensor, Unknown};
pub use value::{Call, Id, Span, Value, Values};
