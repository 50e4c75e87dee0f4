//! Checksums of a checkpoint, and whether its files still fit them.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::finished::{Sums, sum};
use super::shards::key_within;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{self, OpenOptions, Store as _, open, open_file, pinned};

/// The name of the file that holds checksums, beside the shards.
pub const CHECKSUMS: &str = "model.safetensors.checksums.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    algorithm: String,
    files: BTreeMap<String, String>,
    tensors: BTreeMap<String, String>,
}

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Files that were compared.
    pub files: u64,
    /// Tensors that were compared: those of files that differ.
    pub tensors: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What differs, in a sentence each, in order.
    pub findings: Vec<String>,
}

/// The text of a manifest.
pub(super) fn manifest<'a>(shards: impl Iterator<Item = (&'a str, &'a Sums)>) -> Result<String> {
    let mut manifest = Manifest {
        algorithm: "blake3".to_owned(),
        files: BTreeMap::new(),
        tensors: BTreeMap::new(),
    };
    for (name, sums) in shards {
        manifest.files.insert(name.to_owned(), sums.file.clone());
        manifest.tensors.extend(sums.tensors.clone());
    }
    let mut text = serde_json::to_string_pretty(&manifest)
        .map_err(|error| Error::corrupt(format!("cannot write the checksums: {error}")))?;
    text.push('\n');
    Ok(text)
}

/// Holds the files of a directory to its [`CHECKSUMS`]. Where a file differs, its tensors are told
/// apart.
///
/// # Errors
/// If there are no checksums, they can't be read or name files elsewhere, or a file can't be read.
pub fn verify(directory: &Path) -> Result<Verified> {
    const MOST: u64 = 1 << 30;
    let directory = &pinned(&[directory.into()])?.remove(0).path;
    let path = directory.join(CHECKSUMS);
    let text = store::read(&path, MOST).map_err(|error| match error.kind() {
        ErrorKind::Io | ErrorKind::NotFound => error.hint("`--checksums` writes them"),
        _ => error,
    })?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| Error::corrupt(format!("no checksums: {error}")).in_file(&path))?;
    if manifest.algorithm != "blake3" {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("checksums by {:?}; regraft knows blake3", manifest.algorithm),
        )
        .in_file(&path));
    }
    if let Some(name) = manifest.files.keys().find(|name| {
        !matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)])
    }) {
        return Err(Error::corrupt(format!(
            "the checksums name a file outside their directory: {name:?}"
        ))
        .in_file(&path));
    }
    let compared: Vec<(&String, Result<(bool, u64)>)> = manifest
        .files
        .par_iter()
        .map(|(name, expected)| {
            let path = directory.join(name);
            let compared = open_file(&path)
                .and_then(|file| Ok((sum(&file, &path, 0, file.len())? == *expected, file.len())));
            (name, compared)
        })
        .collect();
    let mut verified = Verified::default();
    let mut differing = Vec::new();
    for (name, same) in compared {
        verified.files += 1;
        verified.bytes += same.as_ref().map_or(0, |(_, len)| *len);
        match same {
            Ok((true, _)) => {}
            Ok((false, _)) => differing.push(name.as_str()),
            Err(error) => verified.findings.push(error.to_string()),
        }
    }
    for name in differing {
        verified.findings.push(format!("{name}: differs from its checksum"));
        tensors(directory, name, &manifest, &mut verified)?;
    }
    Ok(verified)
}

/// Says which tensors of a file differ.
fn tensors(
    directory: &Path,
    name: &str,
    manifest: &Manifest,
    verified: &mut Verified,
) -> Result<()> {
    let path = directory.join(name);
    let checkpoint = match open(&path, &OpenOptions::default()) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            verified.findings.push(error.to_string());
            return Ok(());
        }
    };
    let file = open_file(&path)?;
    for (key, entry) in &checkpoint.header().tensors {
        let Some(location) = entry.location else { continue };
        verified.tensors += 1;
        let known = manifest.tensors.get(key.as_str());
        match known.or_else(|| manifest.tensors.get(&key_within(name, key))) {
            None => {
                verified.findings.push(format!("{name}: key {:?} has no checksum", key.as_str()))
            }
            Some(expected) if *expected != sum(&file, &path, location.offset, location.len)? => {
                verified
                    .findings
                    .push(format!("{name}: key {:?} differs from its checksum", key.as_str()));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
