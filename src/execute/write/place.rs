//! Outputs appear whole or not at all: everything is written in a hidden temporary directory beside
//! the output, synced, and renamed into place. Here is where that may be, and how such a directory
//! is come by; [`Staging`] is the rest.
//!
//! The temporary directory is private, but what is made inside it obeys the umask, so the output
//! has the modes that any program would give it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::shards::Shard;
use super::staging::{Staging, Temporary, clear, wrote};
use crate::error::{Error, ErrorKind, Result};

/// Where an output will be, once it is known that it may be there.
pub(super) struct Spot {
    target: PathBuf,
    parent: PathBuf,
    name: String,
    is_file: bool,
    force: bool,
}

/// How the temporary directory is come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A new one.
    Fresh,
    /// What a killed run of the same work left, if there is such.
    Resume,
    /// One that several processes fill.
    Together,
}

/// In each temporary directory: what the run does. Whoever is at work holds a lock on it.
const RUN: &str = "run";

/// How long a temporary directory may lie there without a note, until nobody is thought to be about
/// to write one.
const BARE: std::time::Duration = std::time::Duration::from_secs(600);

impl Spot {
    /// Looks whether an output may be written: a file or a directory.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if it is there and `force` doesn't allow replacing it (one of several
    /// processes may come late, so it asks [`there`](Self::there) later), or it would lie in what
    /// is protected; I/O errors if its parent is missing.
    pub(super) fn find(
        target: &Path,
        is_file: bool,
        force: bool,
        protected: &[PathBuf],
        together: bool,
    ) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the output has no name").in_file(target)
        })?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = parent.canonicalize().map_err(|error| {
            Error::io(
                "cannot write here, as the directory that the output goes into cannot be found",
                parent,
                error,
            )
        })?;
        let resolved = parent.join(name);
        refuse_source(&resolved, protected)?;
        if !together {
            refuse_existing(&resolved, is_file, force)?;
        } else if force {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "several processes don't replace an output",
            )
            .in_file(&resolved)
            .hint("remove it first"));
        }
        Ok(Self {
            target: resolved,
            parent,
            name: name.to_string_lossy().into_owned(),
            is_file,
            force,
        })
    }

    /// Whether the output is there already because the other processes of this run finished it.
    ///
    /// That the files look alike is not enough: an earlier conversion of another source has the
    /// same keys and shapes. So the output has to say that this `work` made it. Where the
    /// filesystem keeps no attributes nothing can be said, and only a process that has no `share`
    /// may take files that look right for its run's: it has nothing to write either way, and those
    /// that have something refuse.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] if something else is there, or it can't be told.
    pub(super) fn there(&self, shards: &[Shard], work: &str, share: bool) -> Result<bool> {
        if self.target.symlink_metadata().is_err() {
            return Ok(false);
        }
        let same = |shard: &Shard| -> Option<bool> {
            let path =
                if self.is_file { self.target.clone() } else { self.target.join(&shard.name) };
            let mut file = File::open(path).ok()?;
            let mut head = vec![0; shard.header.len()];
            io::Read::read_exact(&mut file, &mut head).ok()?;
            Some(file.metadata().ok()?.len() == shard.len && head == shard.header)
        };
        let own = match wrote(&self.target) {
            Some(found) => found == work.as_bytes(),
            None => !share,
        };
        if own && shards.iter().all(|shard| same(shard) == Some(true)) {
            // A rank that was killed right after it put the output in its place left what ranks
            // told each other by.
            let _ = std::fs::remove_dir_all(self.common());
            return Ok(true);
        }
        let error = Error::new(
            ErrorKind::Exists,
            "the output is there already, and not known to be of this run",
        )
        .in_file(&self.target);
        Err(error.hint("if it is whole, nothing is left to do; else remove it, and run all ranks"))
    }

    /// The directory by which ranks tell each other what they have finished.
    fn common(&self) -> PathBuf {
        self.parent.join(format!(".{}.regraft-ranks", self.name))
    }

    /// The directory that the output goes into.
    pub(super) fn parent(&self) -> &Path {
        &self.parent
    }

    /// Begins the output. `work` says what is done, so that only the same work is continued.
    ///
    /// # Errors
    /// If the parent can't be written, or other processes do other work in the common directory.
    pub(super) fn begin(&self, mode: Mode, work: &str) -> Result<Staging> {
        let prefix = format!(".{}.regraft-", self.name);
        let failed =
            |error: io::Error| Error::io("cannot write in this directory", &self.parent, error);
        let mut adopted = None;
        if mode != Mode::Together {
            for (directory, lock) in abandoned(&self.parent, &prefix) {
                let same =
                    std::fs::read_to_string(directory.join(RUN)).is_ok_and(|text| text == work);
                if mode == Mode::Resume && same && adopted.is_none() {
                    adopted = Some((Temporary::Own(directory), lock));
                } else {
                    // Nobody will come back to it. If it can't be removed, it is in nobody's way
                    // either.
                    let _ = std::fs::remove_dir_all(&directory);
                }
            }
        }
        let (temporary, lock) = match (adopted, mode) {
            (Some(found), _) => found,
            (None, Mode::Together) => {
                let path = self.common();
                match std::fs::create_dir(&path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(failed(error));
                    }
                    _ => {}
                }
                if path.join(RUN).symlink_metadata().is_ok_and(|found| !found.is_file()) {
                    return Err(Error::new(ErrorKind::Unsupported, "not a regular file")
                        .in_file(path.join(RUN))
                        .hint("remove the directory"));
                }
                let lock = note(&path, work, true).map_err(failed)?;
                if std::fs::read_to_string(path.join(RUN)).map_err(failed)? != work {
                    let error = Error::new(
                        ErrorKind::Exists,
                        "other work for the same output is under way here, or was left behind",
                    )
                    .in_file(&path);
                    return Err(error
                        .hint("all ranks must be given the same source, rules and options; remove the directory if no rank is running"));
                }
                (Temporary::Common(path), lock)
            }
            (None, _) => {
                let directory = tempfile::Builder::new()
                    .prefix(&prefix)
                    .tempdir_in(&self.parent)
                    .map_err(failed)?
                    .keep();
                let temporary = Temporary::Own(directory);
                let lock = note(temporary.path(), work, false).map_err(failed)?;
                (temporary, lock)
            }
        };
        let path = temporary.path().join(&self.name);
        if !self.is_file {
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("cannot make a directory", &path, error));
                }
                _ => {}
            }
        }
        Ok(Staging {
            temporary,
            _lock: lock,
            work: work.to_owned(),
            target: self.target.clone(),
            parent: self.parent.clone(),
            path,
            is_file: self.is_file,
            force: self.force,
        })
    }
}

/// Writes what is done into a temporary directory, and locks it; it never lies there unlocked while
/// its maker lives.
fn note(directory: &Path, work: &str, common: bool) -> io::Result<File> {
    use std::io::Write as _;
    let lock = if common { FlockOperation::LockShared } else { FlockOperation::LockExclusive };
    let mut made = tempfile::Builder::new().prefix("run-").tempfile_in(directory)?;
    made.write_all(work.as_bytes())?;
    made.as_file().sync_all()?;
    rustix::fs::flock(made.as_file(), lock)?;
    match made.persist_noclobber(directory.join(RUN)) {
        Ok(file) => Ok(file),
        Err(error) if common && error.error.kind() == io::ErrorKind::AlreadyExists => {
            let file = File::open(directory.join(RUN))?;
            rustix::fs::flock(&file, lock)?;
            Ok(file)
        }
        Err(error) => Err(error.error),
    }
}

/// Temporary directories whose makers are dead, in order, each with its lock.
fn abandoned(parent: &Path, prefix: &str) -> Vec<(PathBuf, File)> {
    let mut paths: Vec<PathBuf> = parent
        .read_dir()
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    paths.retain(|path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(prefix) && !name.ends_with("-ranks"))
    });
    paths.sort();
    // One without a note was left by a run that died before it wrote any; or is of one that is
    // about to.
    let is_old = |path: &Path| {
        let since = path
            .symlink_metadata()
            .ok()
            .filter(std::fs::Metadata::is_dir)
            .and_then(|found| found.modified().ok()?.elapsed().ok());
        since.is_some_and(|since| since > BARE)
    };
    for path in
        paths.iter().filter(|path| path.join(RUN).symlink_metadata().is_err() && is_old(path))
    {
        clear(path);
    }
    let locked = |path: &Path| {
        if !path.join(RUN).is_file() {
            return None;
        }
        let lock = File::open(path.join(RUN)).ok()?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(lock)
    };
    paths.into_iter().filter_map(|path| locked(&path).map(|lock| (path, lock))).collect()
}

pub(super) fn exists(path: &Path) -> Error {
    Error::new(ErrorKind::Exists, "the output is there already")
        .in_file(path)
        .hint("name another output, or replace it with --force")
}

pub(super) fn refuse_existing(target: &Path, is_file: bool, force: bool) -> Result<()> {
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
            let entries =
                target.read_dir().map_err(|error| Error::io("cannot list", target, error))?;
            let (mut any, mut checkpoint) = (false, false);
            for entry in entries {
                let entry = entry.map_err(|error| Error::io("cannot list", target, error))?;
                any = true;
                checkpoint |= Path::new(&entry.file_name())
                    .extension()
                    .is_some_and(|extension| extension == "safetensors");
            }
            if any && !checkpoint {
                refuse("a directory is there that holds no checkpoint; it is not replaced")
            } else {
                Ok(())
            }
        }
    }
}

fn refuse_source(target: &Path, protected: &[PathBuf]) -> Result<()> {
    let target = target.canonicalize().unwrap_or_else(|_| target.to_owned());
    for source in protected {
        let Ok(source) = source.canonicalize() else { continue };
        if target.starts_with(&source) || source.starts_with(&target) {
            let message = format!("the output would lie in its own source, {}", source.display());
            return Err(Error::new(ErrorKind::Exists, message)
                .in_file(&target)
                .hint("name an output outside the source"));
        }
    }
    Ok(())
}
