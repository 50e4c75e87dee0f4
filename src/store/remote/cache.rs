//! Headers that were read before, on this disk: what was read of a file until its tensors were
//! known, by its address and content.
//!
//! It may be deleted at any time. What can't be read or written is as if it weren't there, and a
//! file that doesn't fit its own checksum too. No secret is in it: addresses are without.

use std::io::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::object::{KEPT, Version};
use super::site::Site;

/// Bytes of a file, by where they begin.
pub(super) type Pieces = Vec<(u64, Vec<u8>)>;

/// What is known of a file.
pub(super) type Known = (Version, Pieces);

/// How a file of the cache begins.
const MAGIC: &[u8] = b"regraft header 1\n";

/// What stands before the bytes.
#[derive(Serialize, Deserialize)]
struct Head {
    name: String,
    version: Version,
    /// Where each piece begins, and how long it is.
    pieces: Vec<(u64, u64)>,
}

/// The directory of what can be had again: `REGRAFT_CACHE`, else a place of its own in that of the
/// user. `None` if there is none, as where `REGRAFT_CACHE` is empty.
pub fn directory() -> Option<PathBuf> {
    let own = std::env::var_os("REGRAFT_CACHE").map(PathBuf::from);
    if let Some(own) = own {
        return Some(own).filter(|own| !own.as_os_str().is_empty());
    }
    let all =
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    all.or_else(|| Some(std::env::home_dir()?.join(".cache"))).map(|all| all.join("regraft"))
}

fn place(site: &Site) -> Option<PathBuf> {
    let name = blake3::hash(site.name().as_bytes()).to_hex();
    Some(directory()?.join("headers").join(name.get(..2)?).join(name.get(2..)?))
}

/// What is known of a file.
pub(super) fn load(site: &Site) -> Option<Known> {
    let bytes = std::fs::read(place(site)?).ok()?;
    let (sum, text) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<32>()?;
    if blake3::hash(text) != *sum {
        return None;
    }
    let end = text.iter().position(|byte| *byte == b'\n')?;
    let (head, mut rest) = (text.get(..end)?, text.get(end + 1..)?);
    let head: Head = serde_json::from_slice(head).ok()?;
    if head.name != site.name() {
        return None;
    }
    let mut pieces = Vec::with_capacity(head.pieces.len());
    for (start, len) in head.pieces {
        let (piece, later) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        pieces.push((start, piece.to_vec()));
        rest = later;
    }
    Some((head.version, pieces))
}

/// Keeps what was read of a file.
pub(super) fn save(site: &Site, version: &Version, pieces: &[(u64, Vec<u8>)]) {
    let count: u64 = pieces.iter().map(|(_, piece)| piece.len() as u64).sum();
    if count > KEPT || count == 0 || (version.tag.is_none() && !site.is_immutable()) {
        return;
    }
    let same = |(known, there): Known| known == *version && there.len() == pieces.len();
    if load(site).is_some_and(same) {
        return;
    }
    // What can't be kept is read again.
    let _ = try_save(site, version, pieces);
}

fn try_save(site: &Site, version: &Version, pieces: &[(u64, Vec<u8>)]) -> Option<()> {
    let place = place(site)?;
    let lengths = pieces.iter().map(|(start, piece)| (*start, piece.len() as u64)).collect();
    let head = Head { name: site.name(), version: version.clone(), pieces: lengths };
    let mut text = serde_json::to_vec(&head).ok()?;
    text.push(b'\n');
    for (_, piece) in pieces {
        text.extend_from_slice(piece);
    }
    let folder = place.parent()?;
    std::fs::create_dir_all(folder).ok()?;
    let mut file = tempfile::NamedTempFile::new_in(folder).ok()?;
    file.write_all(MAGIC).ok()?;
    file.write_all(blake3::hash(&text).as_bytes()).ok()?;
    file.write_all(&text).ok()?;
    file.persist(place).ok()?;
    Some(())
}

/// Forgets a file whose content is another one.
pub(super) fn forget(site: &Site) {
    if let Some(place) = place(site) {
        let _ = std::fs::remove_file(place);
    }
}
