//! [`Archive`]: what a zip archive holds, by the directory at its end.
//!
//! Source: PKWARE's APPNOTE 6.3. What PyTorch writes: stored members, whose sizes stand only in the
//! directory, and whose data begins at a multiple of 64 by an extra field of the *local* header.

use std::collections::HashSet;

use super::Window;
use super::packed::{inflate, inflate_head};
use crate::error::{Error, ErrorKind, Result};

/// A zip archive: its members, by what its directory says.
#[derive(Debug)]
pub(in crate::store) struct Archive<'f> {
    window: Window<'f>,
    members: Vec<Member>,
}

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Member {
    /// Its name. It is never a path.
    pub(in crate::store) name: String,
    /// Whether its bytes are compressed (deflate). If not, they are stored as they are.
    pub(in crate::store) deflated: bool,
    /// How many bytes it takes in the archive.
    pub(in crate::store) stored: u64,
    /// How many bytes it has.
    pub(in crate::store) len: u64,
    /// CRC-32 of its bytes; 0 where the writer left it out.
    pub(in crate::store) crc: u32,
    /// Where its local header begins.
    header: u64,
}

/// Bytes of the record at the end, without its comment.
const END: u64 = 22;
/// Bytes of what says where the second end record is.
const LOCATOR: u64 = 20;
/// The most bytes that a directory may have: that of a million members has about a hundred
/// megabytes.
const MAX_DIRECTORY: u64 = 256 << 20;
/// The most that deflate can make of one byte.
const MAX_RATIO: u64 = 1032;

impl<'f> Archive<'f> {
    /// Reads the directory of the archive that a window is.
    ///
    /// # Errors
    /// If it isn't whole: no end, a directory or members that lie outside or on each other, two
    /// members of one name; or it is of a kind that neither PyTorch nor NumPy writes.
    pub(in crate::store) fn read(window: Window<'f>) -> Result<Self> {
        let (start, size, count) = directory(&window)?;
        let bytes = window.bytes(start, size)?;
        let mut members = Vec::new();
        let mut rest = &bytes[..];
        while rest.starts_with(b"PK\x01\x02") {
            let (member, behind) = member(rest)?;
            if member.header.checked_add(30).is_none_or(|end| end > start) {
                return Err(outside(&member.name));
            }
            members.push(member);
            rest = behind;
        }
        if members.len() as u64 != count {
            let why = format!("its directory says {count} members and names {}", members.len());
            return Err(Error::corrupt(why));
        }
        let mut names = HashSet::with_capacity(members.len());
        if let Some(twice) = members.iter().find(|member| !names.insert(member.name.as_str())) {
            return Err(Error::corrupt(format!("two members are called {:?}", twice.name)));
        }
        apart(&members)?;
        // Where a member's bytes begin, only its own header says.
        window.soon(members.iter().map(|member| (member.header, 30 + member.name.len() as u64)));
        Ok(Self { window: window.part(0, start)?, members })
    }

    /// Its members in the order of the directory.
    pub(in crate::store) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Where the bytes of a member lie, as they are stored.
    ///
    /// # Errors
    /// If its local header says something else than the directory, or its bytes leave the archive.
    pub(in crate::store) fn place(&self, member: &Member) -> Result<Window<'f>> {
        let mut local = [0; 30];
        self.window.fill(member.header, &mut local)?;
        let name_len = u64::from(u16_at(&local, 26));
        let disagree = || {
            let why = format!("its directory and the header of member {:?} disagree", member.name);
            Error::corrupt(why)
        };
        if !local.starts_with(b"PK\x03\x04") || u16_at(&local, 8) != u16::from(member.deflated) * 8
        {
            return Err(disagree());
        }
        let name = self.window.bytes(member.header + 30, name_len)?;
        if name != member.name.as_bytes() {
            return Err(disagree());
        }
        let start = member.header + 30 + name_len + u64::from(u16_at(&local, 28));
        self.window.part(start, member.stored).map_err(|_| outside(&member.name))
    }

    /// The first bytes of a member, unpacked: at most so many.
    ///
    /// # Errors
    /// As [`Archive::place`]; and if what is compressed is broken there.
    pub(in crate::store) fn head(&self, member: &Member, most: u64) -> Result<Vec<u8>> {
        let place = self.place(member)?;
        if member.deflated {
            let head = inflate_head(place, most.min(member.len));
            head.map_err(|error| named(&error, &member.name))
        } else {
            place.head(most)
        }
    }

    /// The bytes of a member, unpacked; at most so many.
    ///
    /// # Errors
    /// If it is longer, broken, or [`Archive::place`] fails.
    pub(in crate::store) fn unpack(&self, member: &Member, most: u64) -> Result<Vec<u8>> {
        if member.len > most {
            let why = format!("member {:?} has {} bytes; {most} are read", member.name, member.len);
            return Err(Error::new(ErrorKind::Limit, why));
        }
        let place = self.place(member)?;
        let bytes = if member.deflated {
            inflate(place, member.len).map_err(|error| named(&error, &member.name))?
        } else {
            place.bytes(0, member.len)?
        };
        let mut crc = flate2::Crc::new();
        crc.update(&bytes);
        if member.crc != 0 && crc.sum() != member.crc {
            return Err(broken(&member.name));
        }
        Ok(bytes)
    }
}

/// Shows that no member lies on another: else a few bytes could be unpacked again and again.
fn apart(members: &[Member]) -> Result<()> {
    let mut order: Vec<&Member> = members.iter().collect();
    order.sort_unstable_by_key(|member| member.header);
    let end = |member: &Member| {
        let name = member.name.len() as u64;
        member.header.checked_add(30 + name).and_then(|end| end.checked_add(member.stored))
    };
    for pair in order.windows(2) {
        if end(pair[0]).is_none_or(|end| end > pair[1].header) {
            let why = format!("members {:?} and {:?} overlap", pair[0].name, pair[1].name);
            return Err(Error::corrupt(why));
        }
    }
    Ok(())
}

/// The error of a member whose checksum is another one.
pub(super) fn broken(name: &str) -> Error {
    Error::corrupt(format!("member {name:?} is damaged: its checksum is another one"))
        .hint("fetch the file again")
}

fn named(error: &Error, name: &str) -> Error {
    Error::new(error.kind(), format!("member {name:?}: {}", error.message()))
}

fn outside(name: &str) -> Error {
    Error::corrupt(format!("member {name:?} leaves the archive"))
        .hint("the file is truncated or damaged: fetch it again")
}

/// Where the directory begins, its bytes and its members, by the record at the end.
fn directory(window: &Window<'_>) -> Result<(u64, u64, u64)> {
    let no_end = || {
        Error::corrupt("a zip archive without its end")
            .hint("the file is truncated: fetch it again")
    };
    let tail_of = |len: u64| window.bytes(window.len().saturating_sub(len), window.len().min(len));
    let end_in = |tail: &[u8]| {
        let mut records = tail.windows(usize::try_from(END).unwrap_or(22));
        records.rposition(|record| record.starts_with(b"PK\x05\x06"))
    };
    // The end record stands before a comment of at most 64 KiB, and nearly always there is none.
    let mut tail = tail_of(END + LOCATOR)?;
    if end_in(&tail).is_none() {
        tail = tail_of(END + 65_535 + LOCATOR)?;
    }
    let end = end_in(&tail).ok_or_else(no_end)?;
    let wide = end.checked_sub(20).filter(|at| tail[*at..].starts_with(b"PK\x06\x07"));
    let (start, size, count) = match wide {
        // An archive beyond 4 GiB says so in a second record, which a locator before the first
        // one gives.
        Some(locator) => {
            let record = window.bytes(u64_at(&tail, locator + 8), 56).map_err(|_| no_end())?;
            if !record.starts_with(b"PK\x06\x06") {
                return Err(no_end());
            }
            (u64_at(&record, 48), u64_at(&record, 40), u64_at(&record, 32))
        }
        None => (
            u64::from(u32_at(&tail, end + 16)),
            u64::from(u32_at(&tail, end + 12)),
            u64::from(u16_at(&tail, end + 10)),
        ),
    };
    if size > MAX_DIRECTORY {
        return Err(Error::new(ErrorKind::Limit, format!("a directory of {size} bytes")));
    }
    window.part(start, size).map_err(|_| {
        Error::corrupt("the archive's directory lies outside of it")
            .hint("the file is truncated or damaged: fetch it again")
    })?;
    Ok((start, size, count))
}

/// The member at the start of a directory, and what follows it.
fn member(entry: &[u8]) -> Result<(Member, &[u8])> {
    let cut = || Error::corrupt("the archive's directory is cut off");
    let name_end = 46 + usize::from(u16_at(entry, 28));
    let extra_end = name_end + usize::from(u16_at(entry, 30));
    let behind = entry.get(extra_end + usize::from(u16_at(entry, 32))..).ok_or_else(cut)?;
    let name = std::str::from_utf8(entry.get(46..name_end).ok_or_else(cut)?)
        .map_err(|_| Error::corrupt("a member's name is not UTF-8"))?
        .to_owned();
    // Values beyond 32 bits stand in an extra field of kind 1, in this order, each only if it is
    // needed.
    let extra = entry.get(name_end..extra_end).ok_or_else(cut)?;
    let mut wide = wide_values(extra).chunks_exact(8).map(|value| u64_at(value, 0));
    let mut value = |at: usize| match u32_at(entry, at) {
        u32::MAX => wide.next().ok_or_else(cut),
        value => Ok(u64::from(value)),
    };
    let (len, stored, header) = (value(24)?, value(20)?, value(42)?);
    let method = u16_at(entry, 10);
    if u16_at(entry, 8) & 1 != 0 || !matches!(method, 0 | 8) {
        let how = if method == 0 || method == 8 {
            "encrypted".to_owned()
        } else {
            format!("compressed by method {method}")
        };
        return Err(Error::new(ErrorKind::Unsupported, format!("member {name:?} is {how}"))
            .hint("neither PyTorch nor NumPy writes such archives; pack it again"));
    }
    let deflated = method == 8;
    let fits = if deflated { len <= stored.saturating_mul(MAX_RATIO) } else { len == stored };
    if !fits {
        let why = format!("member {name:?} says to have {len} bytes, in {stored} of the archive");
        return Err(Error::corrupt(why));
    }
    let crc = u32_at(entry, 16);
    Ok((Member { name, deflated, stored, len, crc, header }, behind))
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

/// Little-endian numbers; what lies beyond the end is 0.
pub(in crate::store) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(from(bytes, at))
}

pub(in crate::store) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(from(bytes, at))
}

pub(in crate::store) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(from(bytes, at))
}

fn from<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut found = [0; N];
    let there = bytes.get(at..).unwrap_or_default();
    found.iter_mut().zip(there).for_each(|(to, byte)| *to = *byte);
    found
}
