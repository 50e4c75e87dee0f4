//! Where tensors come from and go to.

use crate::error::Result;
use crate::tensor::{Header, TensorView};

mod memory;
pub use memory::StateDict;

/// A checkpoint: a header, and bytes by key.
pub trait Store: Send + Sync {
    /// Keys, dtypes, shapes, places, metadata.
    fn header(&self) -> &Header;

    /// Reads `buffer.len()` bytes of a tensor's data from `offset` (bytes, within the tensor).
    ///
    /// # Errors
    /// If the key isn't there, the range leaves the tensor, or reading fails (a truncated file is an error, never a crash).
    fn read_at(&self, key: &str, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// A tensor as a view (mapped or in memory); no byte is copied.
    ///
    /// # Errors
    /// If the key isn't there, or mapping its file fails.
    fn view(&self, key: &str) -> Result<TensorView>;
}
