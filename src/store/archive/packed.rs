//! [`Packed`]: stored bytes that have to be changed before they are a tensor's.

use std::io::{Read as _, Write};

use super::directory::broken;
use super::window::Stream;
use super::{Member, Window};
use crate::error::{Error, ErrorKind, Result};

/// How stored bytes become those of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub(in crate::store) struct How {
    /// They are inflated.
    pub(in crate::store) inflate: bool,
    /// They are in the other byte order: so many are swapped at a time. 1: none.
    pub(in crate::store) swap: u8,
}

/// Bytes of a file that are no tensor's as they are: compressed, or of the other byte order.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(in crate::store) struct Packed {
    /// Of which member, for messages.
    pub(in crate::store) name: String,
    /// First byte, from the start of the file.
    pub(in crate::store) start: u64,
    /// How many bytes it takes there.
    pub(in crate::store) stored: u64,
    /// How many it has.
    pub(in crate::store) len: u64,
    /// CRC-32 of them before any are swapped; 0: none.
    pub(in crate::store) crc: u32,
    /// What is to be done.
    pub(in crate::store) how: How,
}

impl Packed {
    /// A member of an archive.
    pub(in crate::store) fn member(member: &Member, place: Window<'_>, swap: u8) -> Self {
        Self {
            name: member.name.clone(),
            start: place.start(),
            stored: member.stored,
            len: member.len,
            crc: member.crc,
            how: How { inflate: member.deflated, swap },
        }
    }

    /// Bytes that only have to be swapped.
    pub(in crate::store) fn bytes(name: String, start: u64, len: u64, swap: u8) -> Self {
        Self { name, start, stored: len, len, crc: 0, how: How { inflate: false, swap } }
    }

    /// Writes the tensors' bytes, some at a time.
    ///
    /// # Errors
    /// If they are broken, or reading or writing fails.
    pub(in crate::store) fn unpack(&self, file: Window<'_>, out: &mut dyn Write) -> Result<()> {
        let mut crc = flate2::Crc::new();
        let swap = usize::from(self.how.swap.max(1));
        let place = file.part(self.start, self.stored)?;
        let mut each = |bytes: &mut [u8]| {
            crc.update(bytes);
            if swap > 1 {
                bytes.chunks_exact_mut(swap).for_each(<[u8]>::reverse);
            }
            out.write_all(bytes)
                .map_err(|error| Error::new(ErrorKind::Io, format!("cannot unpack: {error}")))
        };
        if self.how.inflate {
            inflated(place, self.len, &mut each)?;
        } else {
            let mut at = 0;
            while at < place.len() {
                let len = (place.len() - at).min(STRETCH as u64);
                each(&mut place.bytes(at, len)?)?;
                at += len;
            }
        }
        if self.crc != 0 && crc.sum() != self.crc {
            return Err(broken(&self.name));
        }
        Ok(())
    }
}

/// Bytes that are unpacked at once: a multiple of the size of any element.
const STRETCH: usize = 64 << 10;

/// Inflates what is known to become `len` bytes into memory.
///
/// # Errors
/// If it becomes more or less, or is no deflated data.
pub(super) fn inflate(stored: Window<'_>, len: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    inflated(stored, len, &mut |part| {
        bytes.extend_from_slice(part);
        Ok(())
    })?;
    Ok(bytes)
}

/// Inflates the first bytes of what has at least so many.
///
/// # Errors
/// If there are fewer, or it is no deflated data.
pub(super) fn inflate_head(stored: Window<'_>, len: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut all = flate2::read::DeflateDecoder::new(Stream::new(stored)).take(len);
    all.read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 == len {
        Ok(bytes)
    } else {
        Err(Error::corrupt(format!("it has fewer than {len} bytes")))
    }
}

/// Why inflating failed.
fn failed(error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::InvalidInput
        | std::io::ErrorKind::InvalidData
        | std::io::ErrorKind::UnexpectedEof => Error::corrupt("it is no deflated data"),
        _ => Error::new(ErrorKind::Io, format!("cannot read: {error}")),
    }
}

/// Inflates, and hands on whole stretches, the last one excepted.
fn inflated(
    stored: Window<'_>,
    len: u64,
    each: &mut dyn FnMut(&mut [u8]) -> Result<()>,
) -> Result<()> {
    // One byte more than there should be shows that there are more.
    let mut bytes = flate2::read::DeflateDecoder::new(Stream::new(stored)).take(len + 1);
    let mut buffer = vec![0; STRETCH];
    let (mut done, mut held) = (0, 0);
    loop {
        let got = bytes.read(&mut buffer[held..]).map_err(|error| failed(&error))?;
        held += got;
        if held == buffer.len() || got == 0 {
            each(&mut buffer[..held])?;
            done += held as u64;
            held = 0;
        }
        if got == 0 {
            break;
        }
    }
    if done == len {
        Ok(())
    } else {
        Err(Error::corrupt(format!("it doesn't become the {len} bytes that it says")))
    }
}
