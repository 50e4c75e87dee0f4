//! [`Window`]: a part of a file that is looked at as if it were one.

use std::fmt;
use std::io;

use crate::error::{Error, ErrorKind, Result};

/// Bytes that can be read at any place: an open file, or bytes in memory.
pub trait ReadAt: Sync {
    /// Fills a buffer from a place on.
    ///
    /// # Errors
    /// Of kind `UnexpectedEof` if there are less bytes; or whatever the system says.
    fn fill(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Is told which ranges (place, length) are going to be asked for, so that where each request
    /// is waited for, they can be made side by side.
    fn soon(&self, _ranges: &mut dyn Iterator<Item = (u64, u64)>) {}
}

impl ReadAt for &[u8] {
    fn fill(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(at).ok().and_then(|at| self.get(at..)?.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[cfg(feature = "files")]
impl ReadAt for std::fs::File {
    fn fill(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, at)
    }
}

/// Bytes from one place to another: all of a file, or what lies inside of a larger one, as the
/// archives in a file of `torch.distributed.checkpoint` do.
#[derive(Clone, Copy)]
pub struct Window<'f> {
    bytes: &'f dyn ReadAt,
    start: u64,
    len: u64,
}

impl<'f> Window<'f> {
    /// All of so many bytes.
    pub fn new(bytes: &'f dyn ReadAt, len: u64) -> Self {
        Self { bytes, start: 0, len }
    }

    /// A part of it.
    ///
    /// # Errors
    /// If it leaves the window.
    pub(in crate::store) fn part(&self, start: u64, len: u64) -> Result<Self> {
        let end = start.checked_add(len).filter(|end| *end <= self.len);
        let begin = end.and_then(|_| self.start.checked_add(start));
        let start = begin.ok_or_else(|| {
            let all = self.len;
            Error::corrupt(format!("{len} bytes from byte {start} leave the {all} that are there"))
        })?;
        Ok(Self { start, len, ..*self })
    }

    /// How many bytes it has.
    pub(in crate::store) fn len(&self) -> u64 {
        self.len
    }

    /// Its first byte, from the start of the file.
    pub(in crate::store) fn start(&self) -> u64 {
        self.start
    }

    /// Fills a buffer from a place in the window.
    ///
    /// # Errors
    /// If that leaves the window, or reading fails.
    pub(in crate::store) fn fill(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let part = self.part(at, buffer.len() as u64)?;
        self.bytes.fill(part.start, buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Error::corrupt("the file became shorter while it was read")
            }
            _ => match error.downcast::<Error>() {
                Ok(own) => own,
                Err(error) => Error::new(ErrorKind::Io, format!("cannot read: {error}")),
            },
        })
    }

    /// Tells which ranges of it are going to be read.
    pub(in crate::store) fn soon(&self, ranges: impl Iterator<Item = (u64, u64)>) {
        self.bytes.soon(&mut ranges.map(|(at, len)| (self.start.saturating_add(at), len)));
    }

    /// Some of its bytes.
    ///
    /// # Errors
    /// As [`Window::fill`]. Nothing is allocated for bytes that aren't there.
    pub(in crate::store) fn bytes(&self, at: u64, len: u64) -> Result<Vec<u8>> {
        let part = self.part(at, len)?;
        let len = usize::try_from(len).map_err(|_| Error::corrupt("more bytes than fit"))?;
        let mut bytes = vec![0; len];
        part.fill(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Its bytes up to some number, or all.
    ///
    /// # Errors
    /// If reading fails.
    pub(in crate::store) fn head(&self, most: u64) -> Result<Vec<u8>> {
        self.bytes(0, self.len.min(most))
    }
}

impl fmt::Debug for Window<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Window({}..{})", self.start, self.start.saturating_add(self.len))
    }
}

/// A window that is read from its start on, some at a time.
pub(in crate::store) struct Stream<'f> {
    window: Window<'f>,
    at: u64,
    buffer: Vec<u8>,
    /// Where in the buffer the next byte is.
    next: usize,
}

/// Bytes that are read at once.
const STRETCH: u64 = 64 << 10;

impl<'f> Stream<'f> {
    pub(in crate::store) fn new(window: Window<'f>) -> Self {
        Self { window, at: 0, buffer: Vec::new(), next: 0 }
    }
}

impl io::Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.next == self.buffer.len() {
            let len = (self.window.len - self.at).min(STRETCH);
            self.buffer.resize(usize::try_from(len).unwrap_or(0), 0);
            self.window.bytes.fill(self.window.start + self.at, &mut self.buffer)?;
            (self.at, self.next) = (self.at + len, 0);
        }
        let found = self.buffer.get(self.next..).unwrap_or_default();
        let len = found.len().min(into.len());
        into[..len].copy_from_slice(&found[..len]);
        self.next += len;
        Ok(len)
    }
}
