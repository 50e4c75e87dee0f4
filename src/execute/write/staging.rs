//! [`Staging`]: an output under way, in a hidden directory beside its place, and how it appears there
//! by a rename.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, XattrFlags, renameat_with};
use rustix::io::Errno;

use super::place::{exists, refuse_existing};
use super::shards::Shard;
use crate::error::{Error, Result};

/// An output under way. Dropping it leaves nothing behind, unless other processes write it too.
pub(super) struct Staging {
    /// Says that somebody is at work here, as long as it is open. Closed before what it guards
    /// goes: with few open files, that needs the one it takes.
    pub(super) _lock: File,
    pub(super) temporary: Temporary,
    /// What is done.
    pub(super) work: String,
    /// Where the output will be.
    pub(super) target: PathBuf,
    pub(super) parent: PathBuf,
    /// Where the output is written: a directory, or a file not yet made.
    pub(super) path: PathBuf,
    pub(super) is_file: bool,
    pub(super) force: bool,
}

/// A hidden directory.
pub(super) enum Temporary {
    Own(PathBuf),
    /// Other processes are at work in it too.
    Common(PathBuf),
}

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        match self {
            Temporary::Own(path) | Temporary::Common(path) => path,
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Temporary::Own(path) = self {
            // What can't be removed now is hidden, and the next run for this output removes it.
            clear(path);
        }
    }
}

/// Removes a directory with no more than one file open at a time: out of open files is when this is
/// asked for, too.
pub(super) fn clear(path: &Path) {
    let entries: Vec<PathBuf> = path
        .read_dir()
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    for entry in entries {
        if entry.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            clear(&entry);
        } else {
            let _ = std::fs::remove_file(&entry);
        }
    }
    let _ = std::fs::remove_dir(path);
}

/// The extended attribute of an output that several processes wrote: what they did. No loader sees
/// it, and it is not part of any file's bytes.
const WROTE: &str = "user.regraft.run";

impl Staging {
    /// A file beside the output, gone when that is in place.
    pub(super) fn aside(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// Of several processes that could put the output in its place, lets one do so: the one that
    /// gets a lock. `None` for the others, and if it is there already.
    pub(super) fn claim(&self) -> Result<Option<File>> {
        if let Temporary::Own(_) = self.temporary {
            return Ok(Some(
                File::open(self.temporary.path())
                    .map_err(|error| Error::io("cannot open", self.temporary.path(), error))?,
            ));
        }
        let path = self.aside("publish");
        match File::options().write(true).create(true).truncate(false).open(&path) {
            Ok(file)
                if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() =>
            {
                // Between this process's last look and the lock, another one may have been done.
                Ok((self.is_file || self.path.exists()).then_some(file))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("cannot make", &path, error)),
        }
    }

    /// Where a file of the output is written.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        if self.is_file { self.path.clone() } else { self.path.join(name) }
    }

    /// Makes a file of the output, of its final size, with its header.
    ///
    /// # Errors
    /// As [`create`], or if writing fails.
    pub(super) fn begin_file(&self, shard: &Shard, reserve: bool) -> Result<(File, PathBuf)> {
        let path = self.file(&shard.name);
        let file = create(&path, shard.len, reserve)?;
        file.write_all_at(&shard.header, 0)
            .map_err(|error| Error::io("cannot write", &path, error))?;
        Ok((file, path))
    }

    /// Leaves the output to other processes; if it is in its place already, what is here is of no
    /// use any more.
    pub(super) fn leave(self) {
        if let Temporary::Common(path) = &self.temporary
            && self.target.symlink_metadata().is_ok()
        {
            let _ = std::fs::remove_dir_all(path);
        }
    }

    /// Makes the output appear. Its files have to be synced already.
    ///
    /// # Errors
    /// If something has appeared there meanwhile, or the system fails; then the output isn't there.
    pub(super) fn publish(self) -> Result<()> {
        if let Temporary::Common(_) = &self.temporary {
            // A process that comes late knows by this that it is done. A filesystem that can't keep
            // it makes that one refuse, which is safe.
            let _ =
                rustix::fs::setxattr(&self.path, WROTE, self.work.as_bytes(), XattrFlags::empty());
        }
        if !self.is_file {
            sync(&self.path)?;
        }
        match renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.force => self.replace()?,
            Err(Errno::EXIST) => return Err(exists(&self.target)),
            // Not every filesystem has it. The check just before leaves a gap that such a
            // filesystem has no means to close.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                refuse_existing(&self.target, self.is_file, self.force)?;
                self.replace()?;
            }
            Err(error) => {
                return Err(Error::io(
                    "cannot put the output in its place",
                    &self.target,
                    error.into(),
                ));
            }
        }
        sync(&self.parent)?;
        if let Temporary::Common(path) = &self.temporary {
            // The output is in place; what is left here is in nobody's way.
            let _ = std::fs::remove_dir_all(path);
        }
        Ok(())
    }

    /// Puts the output in the place of what is there: at once where the system can exchange names.
    /// What was there goes with the temporary directory.
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

/// What an output says that was done to make it.
pub(super) fn wrote(path: &Path) -> Option<Vec<u8>> {
    let mut text = vec![0; 4096];
    let len = rustix::fs::getxattr(path, WROTE, &mut text[..]).ok()?;
    text.truncate(len);
    Some(text)
}

/// Makes a file of its final size, in place of what a killed run left there. Where the filesystem
/// can, its blocks are reserved, so that a full disk shows now, and blocks lie in a row; not where
/// blocks are going to be shared.
pub(super) fn create(path: &Path, len: u64, reserve: bool) -> Result<File> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(|error| Error::io("cannot make", path, error))?;
    if !reserve {
        file.set_len(len).map_err(|error| Error::io("cannot make", path, error))?;
    } else if len > 0 {
        let reserved = rustix::io::retry_on_intr(|| {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len)
        });
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
pub(in crate::execute) fn sync(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::io("cannot open", path, error))?;
    match file.sync_all() {
        Ok(()) => Ok(()),
        // Some filesystems can't sync a directory.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        Err(error) => Err(Error::io("cannot sync", path, error)),
    }
}
