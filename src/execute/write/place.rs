//! Outputs appear whole or not at all: everything is written in a hidden temporary directory beside the output, synced, and renamed into place.
//!
//! The temporary directory is private, but what is made inside it obeys the umask, so the output has the modes that any program would give it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};

/// An output under way. Dropping it leaves nothing behind.
pub(super) struct Staging {
    temporary: tempfile::TempDir,
    /// Where the output will be.
    target: PathBuf,
    parent: PathBuf,
    /// Where the output is written: a directory, or a file not yet made.
    path: PathBuf,
    is_file: bool,
    force: bool,
}

impl Staging {
    /// Begins an output: a file, or a directory (which is made).
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if it is there and `force` doesn't allow replacing it; I/O errors if its parent is missing or can't be written.
    pub(super) fn begin(target: &Path, is_file: bool, force: bool, protected: &[PathBuf]) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| Error::new(ErrorKind::Unsupported, "the output has no name").in_file(target))?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = parent
            .canonicalize()
            .map_err(|error| Error::io("cannot write here, as the directory that the output goes into cannot be found", parent, error))?;
        let resolved = parent.join(name);
        refuse_source(&resolved, protected)?;
        refuse_existing(&resolved, is_file, force)?;
        let prefix = format!(".{}.regraft-", name.to_string_lossy());
        let temporary = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&parent)
            .map_err(|error| Error::io("cannot write in this directory", &parent, error))?;
        let path = temporary.path().join(name);
        if !is_file {
            std::fs::create_dir(&path).map_err(|error| Error::io("cannot make a directory", &path, error))?;
        }
        Ok(Self { temporary, target: resolved, parent, path, is_file, force })
    }

    /// Where a file of the output is written.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        if self.is_file { self.path.clone() } else { self.path.join(name) }
    }

    /// Makes the output appear. Its files have to be synced already.
    ///
    /// # Errors
    /// If something has appeared there meanwhile, or the system fails; then the output isn't there.
    pub(super) fn publish(self) -> Result<()> {
        if !self.is_file {
            sync(&self.path)?;
        }
        match renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.force => self.replace()?,
            Err(Errno::EXIST) => return Err(exists(&self.target)),
            // Not every filesystem has it. The check just before leaves a gap that such a filesystem has no means to close.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                refuse_existing(&self.target, self.is_file, self.force)?;
                self.replace()?;
            }
            Err(error) => return Err(Error::io("cannot put the output in its place", &self.target, error.into())),
        }
        sync(&self.parent)?;
        drop(self.temporary);
        Ok(())
    }

    /// Puts the output in the place of what is there: at once where the system can exchange names. What was there goes with the temporary directory.
    fn replace(&self) -> Result<()> {
        let failed = |error: io::Error| Error::io("cannot replace the output", &self.target, error);
        if self.is_file || self.target.symlink_metadata().is_err() {
            return std::fs::rename(&self.path, &self.target).map_err(failed);
        }
        match renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => std::fs::rename(&self.path, &self.target).map_err(failed),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                let aside = self.temporary.path().join("replaced");
                std::fs::rename(&self.target, &aside).map_err(failed)?;
                std::fs::rename(&self.path, &self.target).map_err(|error| {
                    // Back as it was; if even that fails, the first error is what matters.
                    let _ = std::fs::rename(&aside, &self.target);
                    failed(error)
                })
            }
            Err(error) => Err(failed(error.into())),
        }
    }
}

fn exists(path: &Path) -> Error {
    Error::new(ErrorKind::Exists, "the output is there already").in_file(path).hint("name another output, or replace it with --force")
}

fn refuse_existing(target: &Path, is_file: bool, force: bool) -> Result<()> {
    let Ok(found) = target.symlink_metadata() else { return Ok(()) };
    if !force {
        return Err(exists(target));
    }
    let refuse = |why: &str| Err(Error::new(ErrorKind::Exists, why).in_file(target));
    match (is_file, found.is_dir()) {
        (true, true) => refuse("a directory is there, which a file doesn't replace"),
        (false, false) => refuse("a file is there, which a directory doesn't replace"),
        (true, false) => Ok(()),
        (false, true) => {
            // Forcing replaces a checkpoint, not whatever directory was named by mistake.
            let entries = target.read_dir().map_err(|error| Error::io("cannot list", target, error))?;
            let (mut any, mut checkpoint) = (false, false);
            for entry in entries {
                let entry = entry.map_err(|error| Error::io("cannot list", target, error))?;
                any = true;
                checkpoint |= Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "safetensors");
            }
            if any && !checkpoint { refuse("a directory is there that holds no checkpoint; it is not replaced") } else { Ok(()) }
        }
    }
}

fn refuse_source(target: &Path, protected: &[PathBuf]) -> Result<()> {
    let target = target.canonicalize().unwrap_or_else(|_| target.to_owned());
    for source in protected {
        let Ok(source) = source.canonicalize() else { continue };
        if target.starts_with(&source) || source.starts_with(&target) {
            let message = format!("the output would lie in its own source, {}", source.display());
            return Err(Error::new(ErrorKind::Exists, message).in_file(&target).hint("name an output outside the source"));
        }
    }
    Ok(())
}

/// Makes a file of its final size. Where the filesystem can, its blocks are reserved, so that a full disk shows now.
pub(super) fn create(path: &Path, len: u64) -> Result<File> {
    let file = File::options().write(true).create_new(true).open(path).map_err(|error| Error::io("cannot make", path, error))?;
    if len > 0 {
        let reserved = rustix::io::retry_on_intr(|| rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len));
        match reserved {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                file.set_len(len).map_err(|error| Error::io("cannot make", path, error))?;
            }
            Err(error) => return Err(Error::io("no room for the output", path, error.into())),
        }
    }
    Ok(file)
}

/// Makes a file or directory durable.
pub(super) fn sync(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::io("cannot open", path, error))?;
    match file.sync_all() {
        Ok(()) => Ok(()),
        // Some filesystems can't sync a directory.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        Err(error) => Err(Error::io("cannot sync", path, error)),
    }
}
