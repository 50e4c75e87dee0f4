//! Where tensors come from: safetensors files, sharded directories, manifests, memory.
//!
//! * A checkpoint is hostile input: no code in it is run, no path in an index leaves the directory,
//!   no header makes regraft allocate without bound.
//! * Nothing here writes; the bytes of a header to be written come from [`safetensors_header`].

use crate::error::{Error, Result};
use crate::tensor::{Header, TensorView};

#[cfg(feature = "files")]
mod checkpoint;
mod compare;
mod counted;
#[cfg(feature = "files")]
mod distributed;
mod identity;
#[cfg(feature = "files")]
mod journal;
mod json;
#[cfg(feature = "files")]
mod manifest;
mod memory;
#[cfg(feature = "files")]
mod numbered;
#[cfg(feature = "files")]
mod open;
mod safetensors;
#[cfg(feature = "files")]
mod sharded;
#[cfg(feature = "files")]
mod side;
pub mod torch;
#[cfg(feature = "files")]
mod variants;

#[cfg(feature = "files")]
pub use checkpoint::Checkpoint;
pub use compare::{Equality, Twins, differing_bytes, same_place, tensors_equal, twins};
pub use counted::Counted;
pub use identity::Identity;
pub use memory::StateDict;
#[cfg(feature = "files")]
pub use open::{OpenOptions, open, open_all};
#[cfg(feature = "files")]
pub(crate) use safetensors::placed_header;
pub use safetensors::{DATA_ALIGNMENT, MAX_HEADER_LEN, safetensors_header};
#[cfg(feature = "files")]
pub(crate) use sharded::indexes_of;
#[cfg(feature = "files")]
pub use side::{no_file, side_files};

/// The name of the journal that lies beside files while they are changed in place. A checkpoint
/// with a file that it names doesn't open.
pub const JOURNAL: &str = ".regraft-journal";

/// A checkpoint: a header, and bytes by key.
///
/// No method has a default: a store over another one that forgot to hand a question on would give a
/// wrong answer without a word.
pub trait Store: Send + Sync {
    /// Keys, dtypes, shapes, places, metadata.
    fn header(&self) -> &Header;

    /// Reads `buffer.len()` bytes of a tensor's data from `offset` (bytes, within the tensor).
    ///
    /// # Errors
    /// If the key isn't there, the range leaves the tensor, or reading fails (a truncated file is
    /// an error, never a crash).
    fn read_at(&self, key: &str, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Where a tensor lies in an open file, so that the system can copy it by itself; `None` if it
    /// isn't in a file.
    ///
    /// # Errors
    /// If its file can't be opened, or isn't any more what it was when its header was read.
    fn extent(&self, key: &str) -> Result<Option<Extent<'_>>>;

    /// What the store is: equal for two runs only if every byte that they read is. `None` where
    /// that can't be known, as of tensors in memory; then nothing that an earlier run or another
    /// process did is ever taken for this one's.
    fn identity(&self) -> Option<Identity>;

    /// Looks whether what was read is still what it was when the header was: asked after reading,
    /// before anything is made of it.
    ///
    /// # Errors
    /// If a file that was read from has been written to since.
    fn unchanged(&self) -> Result<()>;

    /// A tensor as a view (mapped or in memory); no byte is copied.
    ///
    /// A mapped file must not shrink while views of it live: the system ends the process that then
    /// touches them.
    ///
    /// # Errors
    /// If the key isn't there, or mapping its file fails.
    fn view(&self, key: &str) -> Result<TensorView>;
}

/// A tensor's bytes in a file.
#[derive(Clone, Copy, Debug)]
pub struct Extent<'a> {
    /// The file, open for reading.
    pub file: &'a std::fs::File,
    /// Its path, for messages.
    pub path: &'a std::path::Path,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// Checks that `count` bytes from `offset` lie within a tensor of `len` bytes; gives the offset.
fn range_in(len: u64, offset: u64, count: usize) -> Result<u64> {
    match offset.checked_add(count as u64) {
        Some(end) if end <= len => Ok(offset),
        _ => Err(Error::corrupt(format!(
            "{count} bytes from byte {offset} leave the tensor, which has {len}"
        ))),
    }
}
