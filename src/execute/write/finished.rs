//! What is known of a finished shard, written beside it once it is durable: by this, a later run or
//! another process knows it for whole.
//!
//! A record without its file, that doesn't fit it, or whose checksum doesn't, counts for nothing:
//! the shard is written again.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::shards::Shard;
use super::staging::Staging;
use crate::error::{Error, Result};
use crate::seal::{seal, unseal};
use crate::store::{Opened, open_file};

/// Checksums of one file, in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::execute) struct Sums {
    pub(in crate::execute) file: String,
    pub(in crate::execute) tensors: BTreeMap<String, String>,
}

/// A finished shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finished {
    len: u64,
    /// When its content last changed: seconds and nanoseconds.
    modified: (i64, i64),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sums: Option<Sums>,
    /// Tensors with elements that overflowed while they were computed, and how many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) overflowed: BTreeMap<String, u64>,
}

fn place(staging: &Staging, shard: &Shard) -> PathBuf {
    staging.aside(&format!("{}.done", shard.name))
}

impl Finished {
    /// Of a file as it is now.
    pub(super) fn of(path: &Path, sums: Option<Sums>) -> Result<Self> {
        let metadata = path.metadata().map_err(|error| Error::io("cannot look at", path, error))?;
        Ok(Self {
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            sums,
            overflowed: BTreeMap::new(),
        })
    }

    /// Writes it: at once, so that no half of it is ever read.
    pub(super) fn save(&self, staging: &Staging, shard: &Shard) -> Result<()> {
        let path = place(staging, shard);
        let failed = |error: std::io::Error| Error::io("cannot write", &path, error);
        let text = seal(self, false).map_err(|error| failed(error.into()))?;
        let draft = staging.aside(&format!("{}.draft-{}", shard.name, std::process::id()));
        std::fs::write(&draft, text).map_err(failed)?;
        std::fs::rename(&draft, &path).map_err(failed)
    }

    /// The record of a shard whose file is still as it was, of the right length and with the right
    /// header; and, if there are checksums, with that content.
    pub(super) fn load(staging: &Staging, shard: &Shard, thorough: bool) -> Option<Self> {
        let place = place(staging, shard);
        let text = place
            .symlink_metadata()
            .is_ok_and(|found| found.is_file())
            .then(|| std::fs::read(&place).ok())
            .flatten()?;
        let read = unseal::<Self>(&text).ok()?;
        let known = read.is_sealed.then_some(read.content)?;
        let path = staging.file(&shard.name);
        let now = Self::of(&path, None).ok()?;
        if (now.len, now.modified) != (known.len, known.modified) || known.len != shard.len {
            return None;
        }
        if thorough {
            let file = open_file(&path).ok()?;
            let mut head = vec![0; shard.header.len()];
            file.read(&path, 0, &mut head).ok()?;
            if head != shard.header {
                return None;
            }
            if let Some(sums) = &known.sums
                && sum(&file, &path, 0, file.len()).ok()? != sums.file
            {
                return None;
            }
        }
        Some(known)
    }
}

/// Sums a shard and its tensors, given by key, first byte and length.
pub(super) fn sums(path: &Path, tensors: &[(String, u64, u64)]) -> Result<Sums> {
    let file = open_file(path)?;
    let of =
        |(key, start, len): &(String, u64, u64)| Ok((key.clone(), sum(&file, path, *start, *len)?));
    let tensors: Vec<(String, String)> = tensors.par_iter().map(of).collect::<Result<_>>()?;
    let whole = sum(&file, path, 0, file.len())?;
    Ok(Sums { file: whole, tensors: tensors.into_iter().collect() })
}

/// BLAKE3 of a part of a file, read piece by piece.
pub(in crate::execute) fn sum(file: &Opened, path: &Path, mut at: u64, len: u64) -> Result<String> {
    let most = file.piece();
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; usize::try_from(len).unwrap_or(most).min(most)];
    let mut left = len;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(most).min(most);
        let piece = buffer.get_mut(..take).ok_or_else(crate::execute::fuse::gather::outside)?;
        file.read(path, at, piece)?;
        hasher.update(piece);
        at = at.saturating_add(take as u64);
        left -= take as u64;
    }
    Ok(hasher.finalize().to_hex().to_string())
}
