//! Where tensors come from: safetensors files, sharded directories, manifests, memory.
//!
//! * A checkpoint is hostile input: no code in it is run, no path in an index leaves the directory,
//!   no header makes regraft allocate without bound.
//! * Nothing here writes; the bytes of a header to be written come from [`safetensors_header`].

use crate::error::{Error, Result};
use crate::tensor::{Header, Storage, TensorView};

mod alone;
mod archive;
mod boxes;
#[cfg(feature = "files")]
mod checkpoint;
mod compare;
mod contents;
mod counted;
#[cfg(feature = "files")]
mod dcp;
#[cfg(feature = "files")]
mod files;
mod format;
mod identity;
#[cfg(feature = "files")]
mod journal;
mod json;
#[cfg(feature = "files")]
mod manifest;
mod memory;
#[cfg(feature = "files")]
mod named;
#[cfg(feature = "files")]
mod numbered;
mod numpy;
#[cfg(feature = "files")]
mod open;
#[cfg(feature = "files")]
mod pickled;
#[cfg(feature = "files")]
mod place;
#[cfg(feature = "remote")]
mod quote;
mod read;
#[cfg(feature = "remote")]
mod remote;
#[cfg(all(feature = "files", not(feature = "remote")))]
#[path = "remote_off.rs"]
mod remote;
mod safetensors;
#[cfg(feature = "files")]
mod sharded;
#[cfg(feature = "files")]
mod side;
#[cfg(feature = "files")]
mod stored;
pub mod torch;
#[cfg(feature = "files")]
mod unpacked;
#[cfg(feature = "files")]
mod variants;

pub use alone::header_of;
pub use archive::{ReadAt, Window};
pub use boxes::{Blob, Boxes, StoredBox};
#[cfg(feature = "files")]
pub use checkpoint::Checkpoint;
#[cfg(feature = "files")]
pub(crate) use checkpoint::EQUAL_KEYS;
pub use compare::{Equality, Twins, differing_bytes, same_place, tensors_equal, twins};
pub use counted::Counted;
#[cfg(feature = "files")]
pub use files::{Extent, Files};
pub use format::Format;
pub use identity::Identity;
pub use memory::StateDict;
#[cfg(feature = "files")]
pub use named::{NamedPath, open_named};
#[cfg(feature = "files")]
pub(crate) use open::directory_of;
#[cfg(feature = "files")]
pub use open::{OpenOptions, open, open_all};
#[cfg(feature = "files")]
pub(crate) use pickled::SEVERAL_FILES;
#[cfg(feature = "files")]
pub(crate) use place::{Opened, copy, is_file, names, open as open_file, read, there};
#[cfg(feature = "files")]
pub use place::{is_remote, pinned, public};
#[cfg(feature = "remote")]
pub use quote::{quoted, unquoted};
#[cfg(feature = "files")]
pub(crate) use remote::Interrupts;
#[cfg(feature = "remote")]
pub use remote::cache_directory;
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

/// A checkpoint: a header, and tensors as boxes of bytes.
///
/// A new kind of store implements the methods without a default: what there is
/// ([`header`](Store::header)), where each tensor lies ([`boxes`](Store::boxes)), and how bytes are
/// read ([`read`](Store::read)). None of these has a default, since a store over another one that
/// forgot to hand a question on would give a wrong answer without a word. What a store can beside
/// reading is a capability ([`storages`](Store::storages), [`files`](Store::files)). The methods
/// with a default follow from the others and stay as they are.
pub trait Store: Send + Sync {
    /// Keys, dtypes, shapes, places, metadata.
    fn header(&self) -> &Header;

    /// The boxes that make a tensor up.
    ///
    /// # Errors
    /// If the key isn't there, or it has no bytes, as in a manifest.
    fn boxes(&self, key: &str) -> Result<Boxes>;

    /// Fills every buffer with the bytes of its blob. Many ranges in one call are cheaper than many
    /// calls where a request costs more than its bytes.
    ///
    /// # Errors
    /// If a range leaves its blob, or reading fails (a truncated file is an error, never a crash).
    fn read(&self, ranges: &mut [Range<'_>]) -> Result<()>;

    /// How it likes to be read.
    fn hints(&self) -> Hints;

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

    /// Reads bytes of a blob from `offset` on, and hands them on in order as they come: as many at
    /// once as `buffer` holds, and less at the end. Where requests are waited for it is one, however
    /// long; a store where they aren't has nothing to do.
    ///
    /// # Errors
    /// As [`Store::read`]; and that of `take`.
    fn stream(
        &self,
        blob: Blob,
        (offset, len): (u64, u64),
        buffer: &mut [u8],
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        read::in_pieces(self, blob, (offset, len), buffer, take)
    }

    /// Ends reads that wait for a server: they fail, and later ones go on. A store that never waits
    /// long has nothing to do.
    fn interrupt(&self) {}

    /// The capability of giving its bytes as shared storage, without a copy.
    fn storages(&self) -> Option<&dyn Storages>;

    /// The capability of giving open files, from which the system copies by itself.
    #[cfg(feature = "files")]
    fn files(&self) -> Option<&dyn Files>;

    /// Reads `buffer.len()` bytes of a tensor's row-major order from `offset` (bytes, within the
    /// tensor), whatever its boxes are.
    ///
    /// # Errors
    /// If the key isn't there, the range leaves the tensor, or reading fails.
    fn read_at(&self, key: &str, offset: u64, buffer: &mut [u8]) -> Result<()> {
        read::row_major(self, key, offset, buffer).map_err(|error| error.or_at_key(key))
    }

    /// A tensor as a view (mapped or in memory); no byte is copied.
    ///
    /// A mapped file must not shrink while views of it live: the system ends the process that then
    /// touches them.
    ///
    /// # Errors
    /// If the key isn't there, the store has no shared storage, the tensor is in several boxes, or
    /// mapping its file fails.
    fn view(&self, key: &str) -> Result<TensorView> {
        read::view(self, key).map_err(|error| error.or_at_key(key))
    }
}

/// Bytes of a blob that are asked for, and where they are to be put.
#[derive(Debug)]
pub struct Range<'a> {
    /// Which blob.
    pub blob: Blob,
    /// First byte, from the start of the blob.
    pub offset: u64,
    /// As many bytes as it has are read.
    pub buffer: &'a mut [u8],
}

impl Range<'_> {
    /// Fills it from a blob that is in memory; `None` if it leaves that.
    pub(crate) fn fill_from(&mut self, blob: &[u8]) -> Option<()> {
        let start = usize::try_from(self.offset).ok()?;
        self.buffer.copy_from_slice(blob.get(start..)?.get(..self.buffer.len())?);
        Some(())
    }
}

/// How a store likes to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hints {
    /// Bytes between two ranges that cost less to read and throw away than a request of their own.
    pub gap: u64,
    /// How many ranges one call may ask for with profit.
    pub ranges: usize,
}

impl Hints {
    /// Of files on a local disk and of memory: copying 8 KiB takes about as long as another call,
    /// and ranges are read one after the other.
    pub const LOCAL: Hints = Hints { gap: 8192, ranges: 1 };

    /// Of files far away: a request takes as long as some hundred kilobytes, and most of that is
    /// waiting.
    pub const REMOTE: Hints = Hints { gap: 64 << 10, ranges: 8 };

    /// Of a store that reads through gaps of so many bytes and likes so many ranges at once.
    pub fn new(gap: u64, ranges: usize) -> Self {
        Self { gap, ranges }
    }

    /// Whether it is far away: each request is waited for, and several are waited for side by side.
    pub(crate) fn is_far(self) -> bool {
        self.ranges > 1
    }
}

/// The capability of a store whose bytes are in memory, or are mapped.
pub trait Storages {
    /// A blob as shared storage.
    ///
    /// # Errors
    /// If there is no such blob, or mapping its file fails.
    fn storage(&self, blob: Blob) -> Result<Storage>;
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
