//! Archives around tensors: zip, as `torch.save` and NumPy write it, and tar, as `torch.save` once
//! did.
//!
//! * `directory`: what an archive says that it holds, and where each member lies
//! * `tar`: the members of a tar archive
//! * `packed`: members whose bytes aren't in the file as they are, compressed or of the other byte
//!   order, and the unnamed file that they are unpacked into
//!
//! A name is only ever compared: no member's name is a path. Sizes are the archive's own claims, so
//! each is compared with what is there before anything goes by it.

mod directory;
mod packed;
mod tar;
mod window;

pub(super) use directory::{Archive, Member, u16_at, u32_at, u64_at};
pub(super) use packed::Packed;
pub(super) use tar::{is_tar, members};
pub use window::{ReadAt, Window};
