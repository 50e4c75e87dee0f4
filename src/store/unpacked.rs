//! [`Unpacked`]: what lies packed in a file, unpacked when it is first asked for.
//!
//! It goes into one unnamed file in the directory for temporary files, so that memory stays
//! bounded whatever its size; the system takes that file away with the process.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::archive::Packed;
use super::range_in;
use super::stored::StoredFile;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::Storage;

/// The unnamed file, and how much of it is given away.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    file: OnceLock<File>,
    len: AtomicU64,
}

impl Scratch {
    fn file(&self) -> io::Result<&File> {
        if self.file.get().is_none() {
            let _ = self.file.set(tempfile::tempfile()?);
        }
        self.file.get().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Packed bytes of a file, and their place in the unnamed one.
pub(super) struct Unpacked {
    file: u32,
    bytes: Packed,
    scratch: Arc<Scratch>,
    start: u64,
    is_there: Mutex<bool>,
    map: OnceLock<Storage>,
}

/// What mapped bytes of the unnamed file begin at a multiple of, so that elements are aligned.
const ALIGNMENT: u64 = 64;

impl Unpacked {
    /// Packed bytes of a file, by its number.
    ///
    /// # Errors
    /// If there are more than fit.
    pub(super) fn new(file: u32, bytes: Packed, scratch: &Arc<Scratch>) -> Result<Self> {
        let len = bytes.len.checked_next_multiple_of(ALIGNMENT);
        let start = len.and_then(|len| {
            let grown = |start: u64| start.checked_add(len).filter(|end| *end <= 1 << 62);
            scratch.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).ok()
        });
        let start = start.ok_or_else(|| {
            Error::new(ErrorKind::Limit, "packed members that are too large together")
        })?;
        let (is_there, map) = (Mutex::new(false), OnceLock::new());
        Ok(Self { file, bytes, scratch: Arc::clone(scratch), start, is_there, map })
    }

    /// The same, where so many files stand before.
    pub(super) fn after(mut self, files: u32) -> Self {
        self.file = self.file.saturating_add(files);
        self
    }

    /// The number of the file that it is of.
    pub(super) fn file(&self) -> usize {
        usize::try_from(self.file).unwrap_or(usize::MAX)
    }

    /// What is packed, and where.
    pub(super) fn bytes(&self) -> &Packed {
        &self.bytes
    }

    /// The unnamed file with the bytes in it, and where they begin.
    ///
    /// # Errors
    /// If they are broken, or reading or writing fails.
    pub(super) fn file_of(&self, stored: &StoredFile) -> Result<(&File, u64)> {
        let scratch = self.scratch.file().map_err(|error| {
            Error::io("cannot make a temporary file to unpack into, for", &stored.path, error)
        })?;
        // A thread that failed has left nothing that the next one would trust.
        let mut is_there = self.is_there.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_there {
            let mut out = Behind { file: scratch, at: self.start };
            let unpacked = self.bytes.unpack(stored.window()?, &mut out);
            unpacked.map_err(|error| error.in_file(&stored.path))?;
            *is_there = true;
        }
        Ok((scratch, self.start))
    }

    /// Reads some of the bytes.
    ///
    /// # Errors
    /// As [`Unpacked::file_of`]; and if they leave what is packed.
    pub(super) fn read(&self, stored: &StoredFile, at: u64, buffer: &mut [u8]) -> Result<()> {
        range_in(self.bytes.len, at, buffer.len())?;
        let (scratch, start) = self.file_of(stored)?;
        scratch
            .read_exact_at(buffer, start.saturating_add(at))
            .map_err(|error| Error::io("cannot read what was unpacked of", &stored.path, error))
    }

    /// All of the bytes, mapped.
    ///
    /// # Errors
    /// As [`Unpacked::file_of`]; and if mapping fails.
    pub(super) fn map(&self, stored: &StoredFile) -> Result<Storage> {
        if let Some(storage) = self.map.get() {
            return Ok(storage.clone());
        }
        let (scratch, start) = self.file_of(stored)?;
        let len = usize::try_from(self.bytes.len)
            .map_err(|_| Error::new(ErrorKind::Limit, "more bytes than fit into memory"))?;
        // SAFETY: the map is read-only, and nobody else knows of the unnamed file, whose bytes are
        // written once, before.
        let map = unsafe { memmap2::MmapOptions::new().offset(start).len(len).map(scratch) }
            .map_err(|source| Error::io("cannot map what was unpacked of", &stored.path, source))?;
        Ok(self.map.get_or_init(|| Storage::new(map)).clone())
    }
}

/// A place in a file behind which bytes are written.
struct Behind<'f> {
    file: &'f File,
    at: u64,
}

impl Write for Behind<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
