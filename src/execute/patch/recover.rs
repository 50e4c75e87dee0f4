//! Recovery of a change in place that was interrupted: its journal is read, believed only as far as
//! the files bear it out, and carried to one side or the other.

use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use super::journal::{Journal, Patch, UNSEALED, VERSION, open, remove};
use crate::error::{Error, ErrorKind, Result};
use crate::seal::{Broken, unseal};
use crate::store::JOURNAL;

/// Which way [`recover`] goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// The change is completed.
    #[default]
    Complete,
    /// The files become what they were.
    RollBack,
}

/// Completes or takes back a change in place that was interrupted. Gives whether there was one.
///
/// # Errors
/// If the journal can't be read, files are not what it says, or they can't be written; the journal
/// stays then.
pub fn recover(path: &Path, way: Recovery) -> Result<bool> {
    let directory = match path.metadata() {
        Ok(found) if found.is_dir() => path.to_owned(),
        _ => path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .to_owned(),
    };
    let place = directory.join(JOURNAL);
    let Some(journal) = read(&place)? else { return Ok(false) };
    // A journal is a file like any other: it may be made up.
    names_are_plain(&journal, &place)?;
    for patch in &journal.patches {
        fits_its_file(patch, &directory)?;
    }
    match way {
        Recovery::Complete => journal.complete(&directory)?,
        Recovery::RollBack => journal.roll_back(&directory)?,
    }
    remove(&directory)?;
    Ok(true)
}

/// Reads a journal and its checksum; `None` if there is none.
fn read(place: &PathBuf) -> Result<Option<Journal>> {
    // A pipe would be waited for, a device read without end.
    if place.symlink_metadata().is_ok_and(|found| !found.is_file()) {
        return Err(Error::new(ErrorKind::Unsupported, "not a regular file, so no journal")
            .in_file(place)
            .hint("remove it"));
    }
    let text = match std::fs::read(place) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("cannot read the journal", place, error)),
    };
    let damaged = || {
        let error = Error::corrupt(
            "the journal is damaged: its checksum doesn't fit what it says, so nothing was touched",
        )
        .in_file(place);
        error.hint("fetch the files that it names anew, or restore them from a copy; then remove the journal")
    };
    let read = unseal::<Journal>(&text).map_err(|broken| match broken {
        Broken::Damaged => damaged(),
        Broken::Foreign(why) => Error::corrupt(format!("no journal: {why}")).in_file(place),
    })?;
    // The first version had no checksum; its files are looked at all the more.
    match (read.content.version, read.is_sealed) {
        (UNSEALED, false) | (VERSION, true) => Ok(Some(read.content)),
        (UNSEALED | VERSION, _) => Err(damaged()),
        (version, _) => {
            let why = format!("a journal of version {version}");
            Err(Error::new(ErrorKind::Unsupported, why).in_file(place))
        }
    }
}

/// The journal names only files beside it that a checkpoint has.
fn names_are_plain(journal: &Journal, place: &Path) -> Result<()> {
    let patched = journal.patches.iter().map(|patch| &patch.name);
    for name in patched.chain(journal.index.iter().map(|index| &index.name)) {
        let plain =
            matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
        if !plain || !(name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json"))
        {
            return Err(Error::corrupt(format!(
                "the journal names a file that is no part of a checkpoint: {name:?}"
            ))
            .in_file(place));
        }
    }
    Ok(())
}

/// The file has one of the two lengths that it can have, and room for both headers.
fn fits_its_file(patch: &Patch, directory: &Path) -> Result<()> {
    let (file, path, len) = open(directory, patch)?;
    drop(file);
    let grown = if len == patch.len { 0 } else { patch.grow };
    patch.expect(len, &path, grown)?;
    let before = patch.before.len() as u64;
    let within = before.checked_add(8).is_some_and(|end| end <= len);
    let same_room = before.checked_add(patch.grow) == Some(patch.after.len() as u64);
    let headers = patch.before.starts_with('{') && patch.after.starts_with('{');
    if within && same_room && headers {
        return Ok(());
    }
    Err(Error::corrupt("the journal does not fit the file").in_file(&path))
}
