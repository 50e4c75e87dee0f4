//! The archive around a `.bin` checkpoint's pickle: where `data.pkl` lies in the file.
//!
//! Only the directory at the archive's end is read. Source: PKWARE's APPNOTE 6.3; PyTorch stores
//! its entries uncompressed.

use std::fmt;
use std::io::{Read, Seek, SeekFrom};

use super::TorchError;

/// The longest pickle that is read, in bytes: one of a hundred thousand tensors is about as long.
pub const MAX_PICKLE: u64 = 16 << 20;

/// Where a file's pickle lies.
pub(super) enum Place {
    /// In an archive: its first byte, and how many.
    Archive { start: u64, len: u64 },
    /// The file is no archive: it may begin with pickles.
    Stream,
}

/// Why an archive has no pickle that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It is cut off: an archive ends in a record of what it has.
    NoEndRecord,
    /// Its second end record lies outside it.
    EndRecordOutside,
    /// Its directory lies outside it, or is too long.
    DirectoryOutside,
    /// It has no `data.pkl`.
    NoPickle,
    /// Its pickle is compressed, which PyTorch never does.
    Compressed,
    /// Its pickle is longer than [`MAX_PICKLE`].
    LongPickle,
    /// Its pickle lies outside it.
    PickleOutside,
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEndRecord => "the archive has no end record",
            Self::EndRecordOutside => "the archive's end record lies outside it",
            Self::DirectoryOutside => "the archive's directory lies outside it",
            Self::NoPickle => "the archive has no data.pkl",
            Self::Compressed => "data.pkl is compressed",
            Self::LongPickle => "the pickle is too long",
            Self::PickleOutside => "data.pkl lies outside the archive",
        })
    }
}

impl std::error::Error for ArchiveError {}

/// Looks for the pickle in a file of `len` bytes.
pub(super) fn find(file: &mut (impl Read + Seek), len: u64) -> Result<Place, TorchError> {
    let mut read = |start: u64, len: u64| -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| std::io::ErrorKind::InvalidData)?];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    if len < 22 || read(0, 4)? != *b"PK\x03\x04" {
        return Ok(Place::Stream);
    }
    // The end record stands at the end, before a comment of at most 64 KiB.
    let tail_len = len.min(22 + 65_535 + 20);
    let tail = read(len - tail_len, tail_len)?;
    let Some(end) = tail.windows(22).rposition(|window| window.starts_with(b"PK\x05\x06")) else {
        return Err(ArchiveError::NoEndRecord.into());
    };
    let mut directory = (u64::from(u32_at(&tail, end + 12)), u64::from(u32_at(&tail, end + 16)));
    // An archive beyond 4 GiB says so in a second end record, which a locator before the first one
    // gives.
    if let Some(locator) = end.checked_sub(20)
        && tail.get(locator..locator + 4) == Some(b"PK\x06\x07")
    {
        let place = u64_at(&tail, locator + 8);
        if place.checked_add(56).is_none_or(|end| end > len) {
            return Err(ArchiveError::EndRecordOutside.into());
        }
        let record = read(place, 56)?;
        directory = (u64_at(&record, 40), u64_at(&record, 48));
    }
    let (size, start) = directory;
    if size > MAX_PICKLE || start.checked_add(size).is_none_or(|end| end > len) {
        return Err(ArchiveError::DirectoryOutside.into());
    }
    let directory = read(start, size)?;
    let Some(entry) = entries(&directory)
        .find(|entry| entry.name == b"data.pkl" || entry.name.ends_with(b"/data.pkl"))
    else {
        return Err(ArchiveError::NoPickle.into());
    };
    if entry.method != 0 {
        return Err(ArchiveError::Compressed.into());
    }
    if entry.len > MAX_PICKLE {
        return Err(ArchiveError::LongPickle.into());
    }
    if entry.start.checked_add(30).is_none_or(|end| end > len) {
        return Err(ArchiveError::PickleOutside.into());
    }
    let local = read(entry.start, 30)?;
    let start = entry.start + 30 + u64::from(u16_at(&local, 26)) + u64::from(u16_at(&local, 28));
    if start.checked_add(entry.len).is_none_or(|end| end > len) {
        return Err(ArchiveError::PickleOutside.into());
    }
    Ok(Place::Archive { start, len: entry.len })
}

/// An entry of an archive's directory.
struct Entry<'a> {
    name: &'a [u8],
    method: u16,
    len: u64,
    start: u64,
}

fn entries(directory: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = directory;
    std::iter::from_fn(move || {
        if !rest.starts_with(b"PK\x01\x02") {
            return None;
        }
        let (name_len, extra_len, comment_len) =
            (u16_at(rest, 28), u16_at(rest, 30), u16_at(rest, 32));
        let name_end = 46 + usize::from(name_len);
        let extra_end = name_end + usize::from(extra_len);
        let (mut len, mut start) = (u64::from(u32_at(rest, 24)), u64::from(u32_at(rest, 42)));
        // Values beyond 32 bits stand in an extra field of kind 1, in this order, each only if it
        // is needed.
        let mut wide = wide_values(rest.get(name_end..extra_end)?)
            .chunks_exact(8)
            .map(|value| u64_at(value, 0));
        if len == u64::from(u32::MAX) {
            len = wide.next()?;
        }
        if u32_at(rest, 20) == u32::MAX {
            wide.next()?;
        }
        if start == u64::from(u32::MAX) {
            start = wide.next()?;
        }
        let entry = Entry { name: rest.get(46..name_end)?, method: u16_at(rest, 10), len, start };
        rest = rest.get(extra_end + usize::from(comment_len)..)?;
        Some(entry)
    })
}

fn wide_values(mut extra: &[u8]) -> &[u8] {
    while extra.len() >= 4 {
        let end = 4 + usize::from(u16_at(extra, 2));
        if u16_at(extra, 0) == 1 {
            return extra.get(4..end).unwrap_or_default();
        }
        extra = extra.get(end..).unwrap_or_default();
    }
    &[]
}

/// Little-endian numbers; 0 beyond the end, which makes no entry.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
