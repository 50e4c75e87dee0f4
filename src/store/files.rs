//! The capability of a store that lies in open files: the system can copy from them by itself.

use std::path::Path;

use super::boxes::{Blob, StoredBox};
use crate::error::{Error, Result};
use crate::tensor::Dtype;

/// The capability of a store whose blobs are open files.
pub trait Files {
    /// The file that a blob is, open for reading, and its path for messages.
    ///
    /// # Errors
    /// If there is no such blob, or the file can't be opened or isn't any more what it was when its
    /// header was read.
    fn file(&self, blob: Blob) -> Result<(&std::fs::File, &Path)>;
}

/// Bytes in a file.
#[derive(Clone, Copy, Debug)]
pub struct Extent<'a> {
    /// The file, open for reading.
    pub file: &'a std::fs::File,
    /// Its path, for messages.
    pub path: &'a Path,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

impl<'a> Extent<'a> {
    /// The bytes from the first to the last element of a box.
    ///
    /// # Errors
    /// As [`Files::file`].
    pub fn of(files: &'a dyn Files, part: &StoredBox, dtype: Dtype) -> Result<Self> {
        let (file, path) = files.file(part.blob)?;
        let bits = part.span().and_then(|span| span.checked_mul(u64::from(dtype.bits())));
        let len = bits.ok_or_else(|| Error::corrupt("the offset exceeds 64 bits"))?.div_ceil(8);
        Ok(Self { file, path, offset: part.offset, len })
    }
}
