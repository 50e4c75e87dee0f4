//! Members of a tar archive, by the headers before each of them.
//!
//! Source: POSIX.1-2017, `pax`: the ustar format.

use super::Window;
use crate::error::{Error, ErrorKind, Result};

/// A block: headers have one, and members begin at one.
const BLOCK: u64 = 512;

/// Most members that are looked at.
const MAX_MEMBERS: usize = 100_000;

/// How a tar archive is known: where in its first header, and by what.
const MAGIC: (usize, &[u8]) = (257, b"ustar");

/// Whether a file begins as such an archive does.
pub(in crate::store) fn is_tar(head: &[u8]) -> bool {
    head.get(MAGIC.0..).is_some_and(|rest| rest.starts_with(MAGIC.1))
}

/// Its plain files, by name. A name is only compared.
///
/// # Errors
/// If it is cut off, or a header is none.
pub(in crate::store) fn members(file: Window<'_>) -> Result<Vec<(String, Window<'_>)>> {
    let broken = || Error::corrupt("the tar archive is damaged or cut off");
    let (mut at, mut found) = (0, Vec::new());
    while at < file.len() {
        let header = file.bytes(at, BLOCK).map_err(|_| broken())?;
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        if found.len() >= MAX_MEMBERS {
            let why = format!("a tar archive of more than {MAX_MEMBERS} members");
            return Err(Error::new(ErrorKind::Limit, why));
        }
        let text = |from: usize, len: usize| {
            let field = header.get(from..from + len).unwrap_or_default();
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
        };
        if !is_tar(&header) {
            return Err(broken());
        }
        let size = text(124, 12);
        let size = u64::from_str_radix(size.trim(), 8).map_err(|_| broken())?;
        let start = at.checked_add(BLOCK).ok_or_else(broken)?;
        let place = file.part(start, size).map_err(|_| broken())?;
        // Other kinds: folders, links, and headers that say more of the next member.
        if matches!(header.get(156), Some(b'0' | 0)) {
            let name = text(0, 100);
            found.push((name.trim_start_matches("./").to_owned(), place));
        }
        let next = size.checked_next_multiple_of(BLOCK).and_then(|size| start.checked_add(size));
        at = next.ok_or_else(broken)?;
    }
    Ok(found)
}
