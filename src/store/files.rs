//! The capability of a store that lies in open files: the system can copy from them by itself.

use std::path::Path;

use super::boxes::{Blob, StoredBox};
use crate::error::{Error, Result};
use crate::tensor::Dtype;

/// The capability of a store whose blobs lie in open files.
pub trait Files {
    /// The file that a blob lies in, open for reading; its path for messages; and where in it the
    /// blob begins, in bytes.
    ///
    /// # Errors
    /// If there is no such blob, or the file can't be opened or isn't any more what it was when its
    /// header was read.
    fn file(&self, blob: Blob) -> Result<(&std::fs::File, &Path, u64)>;
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
        let (file, path, start) = files.file(part.blob)?;
        let bits = part.span().and_then(|span| span.checked_mul(u64::from(dtype.bits())));
        let beyond = || Error::corrupt("the offset exceeds 64 bits");
        let len = bits.ok_or_else(beyond)?.div_ceil(8);
        let offset = start.checked_add(part.offset).ok_or_else(beyond)?;
        Ok(Self { file, path, offset, len })
    }
}
