//! The journal of a change in place: what files hold before and after it, written and synced before
//! the first byte changes.
//!
//! Every step can be done again: room is inserted only where a file is not yet longer, a header is
//! written whole, the index is replaced by a rename. So whether a change was killed before, in or
//! after a step doesn't matter, going on and going back alike.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::execute::write::staging::sync;
use crate::seal::seal;
use crate::store::{JOURNAL, MAX_HEADER_LEN};

/// A file's header, without its length field, before and after.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    pub(super) name: String,
    /// Length of the whole file before.
    pub(super) len: u64,
    /// Bytes to be inserted at its start.
    pub(super) grow: u64,
    pub(super) before: String,
    pub(super) after: String,
}

/// A text file that is replaced.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Replaced {
    pub(super) name: String,
    pub(super) before: String,
    pub(super) after: String,
}

/// All of a change.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    pub(super) version: u32,
    pub(super) patches: Vec<Patch>,
    pub(super) index: Option<Replaced>,
}

/// The version that is written, and the one before it.
pub(super) const VERSION: u32 = 2;
pub(super) const UNSEALED: u32 = 1;

/// The header of a file, as text.
pub(super) fn head(path: &Path) -> Result<String> {
    let file = File::open(path).map_err(|error| Error::io("cannot open", path, error))?;
    let failed = |error| Error::io("cannot read the header", path, error);
    let mut len = [0; 8];
    file.read_exact_at(&mut len, 0).map_err(failed)?;
    let len = u64::from_le_bytes(len);
    let len = usize::try_from(len)
        .ok()
        .filter(|_| len <= MAX_HEADER_LEN)
        .ok_or_else(|| Error::corrupt("the header is too long").in_file(path))?;
    let mut text = vec![0; len];
    file.read_exact_at(&mut text, 8).map_err(failed)?;
    String::from_utf8(text).map_err(|_| Error::corrupt("the header is not UTF-8").in_file(path))
}

/// What room that a filesystem inserts is a multiple of, in bytes. At least a page, so that data
/// stays aligned as it was.
pub(super) fn block(path: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(path)
        .map_err(|error| Error::io("cannot look at the filesystem of", path, error.into()))?;
    Ok(found.f_bsize.max(4096))
}

impl Journal {
    pub(super) fn new(patches: Vec<Patch>, index: Option<Replaced>) -> Self {
        Self { version: VERSION, patches, index }
    }

    /// Writes the journal, changes the files, and removes the journal.
    pub(super) fn carry_out(&self, directory: &Path) -> Result<()> {
        self.can_be_written(directory)?;
        self.save(directory)?;
        // From here on no other change can begin; one that ended just before has to be noticed.
        if let Err(error) = self.is_as_before(directory) {
            remove(directory)?;
            return Err(error);
        }
        match self.complete(directory) {
            Ok(()) => remove(directory),
            // Room is inserted before anything is overwritten. If the filesystem can't, all is as
            // it was, or can be made so.
            Err(error) => {
                let error = if self.patches.iter().any(|patch| patch.grow > 0)
                    && error.kind() == ErrorKind::Unsupported
                {
                    error.hint("name an output: the new header is longer than the old one")
                } else {
                    error
                };
                if self.roll_back(directory).and_then(|()| remove(directory)).is_err() {
                    return Err(error.hint(format!(
                        "the files are half changed; run `regraft recover {}`",
                        directory.display()
                    )));
                }
                Err(error)
            }
        }
    }

    /// Opens each file for writing before anything happens.
    fn can_be_written(&self, directory: &Path) -> Result<()> {
        for patch in &self.patches {
            open(directory, patch)?;
        }
        Ok(())
    }

    fn is_as_before(&self, directory: &Path) -> Result<()> {
        for patch in &self.patches {
            let path = directory.join(&patch.name);
            let len =
                path.metadata().map_err(|error| Error::io("cannot look at", &path, error))?.len();
            if len != patch.len || head(&path)? != patch.before {
                return Err(
                    Error::corrupt("the file changed after its header was read").in_file(&path)
                );
            }
        }
        if let Some(index) = &self.index {
            let path = directory.join(&index.name);
            if std::fs::read_to_string(&path)
                .map_err(|error| Error::io("cannot read the index", &path, error))?
                != index.before
            {
                return Err(Error::corrupt("the index changed after it was read").in_file(&path));
            }
        }
        Ok(())
    }

    fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join(JOURNAL);
        let failed = |error| Error::io("cannot write the journal", &path, error);
        let mut draft = tempfile::Builder::new()
            .prefix(".regraft-journal-")
            .tempfile_in(directory)
            .map_err(failed)?;
        let text = seal(self, false).map_err(|error| failed(error.into()))?;
        draft.write_all(&text).and_then(|()| draft.as_file().sync_all()).map_err(failed)?;
        draft.persist_noclobber(&path).map_err(|error| match error.error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::new(ErrorKind::Exists, "a change in place is under way, or was interrupted")
                    .in_file(&path)
                    .hint("run `regraft recover`")
            }
            _ => failed(error.error),
        })?;
        sync(directory)
    }

    pub(super) fn complete(&self, directory: &Path) -> Result<()> {
        // All room first: it is what a filesystem may refuse.
        for patch in self.patches.iter().filter(|patch| patch.grow > 0) {
            let (file, path, len) = open(directory, patch)?;
            if len == patch.len {
                room(&file, &path, FallocateFlags::INSERT_RANGE, patch.grow)?;
            }
        }
        for patch in &self.patches {
            let (file, path, len) = open(directory, patch)?;
            patch.expect(len, &path, patch.grow)?;
            write_head(&file, &path, &patch.after)?;
        }
        self.index.as_ref().map_or(Ok(()), |index| replace(directory, &index.name, &index.after))
    }

    pub(super) fn roll_back(&self, directory: &Path) -> Result<()> {
        for patch in &self.patches {
            let (file, path, len) = open(directory, patch)?;
            if patch.grow > 0 && len != patch.len {
                patch.expect(len, &path, patch.grow)?;
                room(&file, &path, FallocateFlags::COLLAPSE_RANGE, patch.grow)?;
            }
            write_head(&file, &path, &patch.before)?;
        }
        self.index.as_ref().map_or(Ok(()), |index| replace(directory, &index.name, &index.before))
    }
}

impl Patch {
    pub(super) fn expect(&self, len: u64, path: &Path, grown: u64) -> Result<()> {
        if Some(len) == self.len.checked_add(grown) {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "the file has {len} bytes; the journal knows it with {}",
            self.len
        ))
        .in_file(path))
    }
}

/// A file that is to change, with its path and length.
pub(super) fn open(directory: &Path, patch: &Patch) -> Result<(File, PathBuf, u64)> {
    let path = directory.join(&patch.name);
    let file = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|error| Error::io("cannot open for writing", &path, error))?;
    let len = file.metadata().map_err(|error| Error::io("cannot look at", &path, error))?.len();
    Ok((file, path, len))
}

/// Inserts or removes room at the start of a file.
fn room(file: &File, path: &Path, what: FallocateFlags, len: u64) -> Result<()> {
    match rustix::io::retry_on_intr(|| fallocate(file, what, 0, len)) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {
            Err(Error::new(
                ErrorKind::Unsupported,
                "this filesystem can't insert room at the start of a file",
            )
            .in_file(path))
        }
        Err(error) => Err(Error::io("cannot insert room at the start of", path, error.into())),
    }
}

fn write_head(file: &File, path: &Path, text: &str) -> Result<()> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    file.write_all_at(&bytes, 0)
        .and_then(|()| file.sync_all())
        .map_err(|error| Error::io("cannot write the header", path, error))
}

fn replace(directory: &Path, name: &str, text: &str) -> Result<()> {
    let path = directory.join(name);
    let failed = |error| Error::io("cannot replace the index", &path, error);
    // Taking back a change for which there was no room must not need any.
    if std::fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
        return sync(directory);
    }
    let mode = path.metadata().map_err(failed)?.permissions();
    let mut draft = tempfile::Builder::new()
        .prefix(".regraft-index-")
        .tempfile_in(directory)
        .map_err(failed)?;
    draft.write_all(text.as_bytes()).map_err(failed)?;
    draft
        .as_file()
        .set_permissions(mode)
        .and_then(|()| draft.as_file().sync_all())
        .map_err(failed)?;
    draft.persist(&path).map_err(|error| failed(error.error))?;
    sync(directory)
}

/// Removes the journal: the change is settled.
pub(super) fn remove(directory: &Path) -> Result<()> {
    let path = directory.join(JOURNAL);
    std::fs::remove_file(&path)
        .map_err(|error| Error::io("cannot remove the journal", &path, error))?;
    sync(directory)
}
