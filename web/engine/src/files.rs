//! Files that were dropped on the page, of which bytes are read when they are asked for.

use std::io;

use regraft::store::ReadAt;

#[cfg(target_arch = "wasm32")]
#[link(wasm_import_module = "page")]
unsafe extern "C" {
    /// Writes `len` bytes of a file from a place on to `into`, and says whether they are there.
    fn read_at(file: u32, at: f64, into: *mut u8, len: usize) -> bool;
}

/// A file by its number.
#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
pub(crate) struct Dropped(pub(crate) u32);

#[cfg(target_arch = "wasm32")]
impl ReadAt for Dropped {
    #[allow(clippy::cast_precision_loss)] // Files of a browser are far below 2^53 bytes.
    fn fill(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        // SAFETY: the page writes at most `len` bytes, all of which are the buffer's, and nothing else
        // reads or writes the buffer until the call returns.
        let there = unsafe { read_at(self.0, at as f64, buffer.as_mut_ptr(), buffer.len()) };
        if there { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Outside of a browser nothing is dropped.
#[cfg(not(target_arch = "wasm32"))]
impl ReadAt for Dropped {
    fn fill(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
