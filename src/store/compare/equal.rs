//! Are two tensors of a checkpoint equal, byte for byte? Streamed, so that size doesn't matter.

use crate::error::{Error, Result};
use crate::store::Store;

/// How two tensors compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Equality {
    /// They lie in the same place: one tensor under two keys.
    SamePlace,
    /// Same dtype, shape and bytes, in two places.
    Equal,
    /// Same dtype and shape, other bytes.
    Different,
    /// Another dtype or shape.
    OtherInfo,
}

impl Equality {
    /// Whether one can stand for the other.
    pub fn is_equal(self) -> bool {
        matches!(self, Equality::SamePlace | Equality::Equal)
    }
}

const STRETCH: u64 = 1 << 20;

/// Compares two tensors byte for byte, up to the first difference. NaNs are equal if their bytes
/// are, zeros of either sign are not.
///
/// # Errors
/// If a key isn't there, or reading fails.
pub fn tensors_equal(source: &dyn Store, a: &str, b: &str) -> Result<Equality> {
    match places(source, a, b)? {
        Ok(len) => {
            let mut equal = true;
            compare(source, a, b, len, |x, y| {
                equal = x == y;
                equal
            })?;
            Ok(if equal { Equality::Equal } else { Equality::Different })
        }
        Err(known) => Ok(known),
    }
}

/// How many bytes of two tensors of one dtype and shape differ; `None` if dtype or shape do.
///
/// # Errors
/// If a key isn't there, or reading fails.
pub fn differing_bytes(source: &dyn Store, a: &str, b: &str) -> Result<Option<u64>> {
    match places(source, a, b)? {
        Ok(len) => {
            let mut count = 0u64;
            compare(source, a, b, len, |x, y| {
                count += x.iter().zip(y).filter(|(x, y)| x != y).count() as u64;
                true
            })?;
            Ok(Some(count))
        }
        Err(Equality::OtherInfo) => Ok(None),
        Err(_) => Ok(Some(0)),
    }
}

/// The length of both in bytes, or what is known without reading.
fn places(source: &dyn Store, a: &str, b: &str) -> Result<std::result::Result<u64, Equality>> {
    let entry = |key: &str| {
        let found = source.header().tensors.get(key);
        found.ok_or_else(|| Error::corrupt("no such key in the checkpoint").at_key(key))
    };
    let (x, y) = (entry(a)?, entry(b)?);
    if x.info != y.info {
        return Ok(Err(Equality::OtherInfo));
    }
    if a == b || source.boxes(a)?.same_place(&source.boxes(b)?) {
        return Ok(Err(Equality::SamePlace));
    }
    let len = x.info.nbytes().ok_or_else(|| {
        Error::corrupt(format!("{} is no whole number of bytes", x.info)).at_key(a)
    })?;
    Ok(Ok(len))
}

/// Shows both in stretches, until `see` has seen enough.
fn compare(
    source: &dyn Store,
    a: &str,
    b: &str,
    len: u64,
    mut see: impl FnMut(&[u8], &[u8]) -> bool,
) -> Result<()> {
    let room = usize::try_from(len.min(STRETCH)).unwrap_or(0);
    let (mut x, mut y) = (vec![0; room], vec![0; room]);
    let mut offset = 0;
    while offset < len {
        let count = usize::try_from((len - offset).min(STRETCH)).unwrap_or(room);
        source.read_at(a, offset, &mut x[..count])?;
        source.read_at(b, offset, &mut y[..count])?;
        if !see(&x[..count], &y[..count]) {
            break;
        }
        offset += count as u64;
    }
    Ok(())
}
