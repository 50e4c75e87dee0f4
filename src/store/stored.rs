//! [`StoredFile`]: a file of a checkpoint, opened when its bytes are first asked for.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::archive::Window;
use super::contents::Contents;
use super::format::{self, Format};
use super::place::{self, Bytes, Opened, Version};
use super::remote::Object;
use super::{Hints, OpenOptions, Range};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::Storage;

/// A file of a checkpoint.
pub(super) struct StoredFile {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    pub(super) len: u64,
    pub(super) version: Version,
    pub(super) handle: OnceLock<Bytes>,
    map: OnceLock<Storage>,
}

impl StoredFile {
    pub(super) fn read(path: &Path, options: &OpenOptions) -> Result<(Self, Contents)> {
        let opened = place::open(path)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("the file");
        let read = format::read(name, opened.window(), options.root.as_deref());
        let (format, contents) = read.map_err(|error| error.in_file(path))?;
        opened.settle();
        Ok((Self::found(path, format, opened), contents))
    }

    /// A file of which something else says what it holds.
    pub(super) fn open(path: &Path, format: Format) -> Result<Self> {
        Ok(Self::found(path, format, place::open(path)?))
    }

    /// Of files on a disk there may be more than can be open; one far away isn't asked again who
    /// it is.
    fn found(path: &Path, format: Format, opened: Opened) -> Self {
        let Opened { bytes, len, version } = opened;
        let (handle, map) = (OnceLock::new(), OnceLock::new());
        if matches!(bytes, Bytes::Far(_)) {
            let _ = handle.set(bytes);
        }
        Self { path: path.to_owned(), format, len, version, handle, map }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All of its bytes.
    pub(super) fn window(&self) -> Result<Window<'_>> {
        Ok(Window::new(self.handle()?, self.len))
    }

    /// Whether a file of this length and version is what its header was read of.
    pub(super) fn is_as_read(&self, len: u64, version: &Version) -> bool {
        (len, version) == (self.len, &self.version)
    }

    pub(super) fn changed(&self) -> Error {
        Error::corrupt("the file changed after its header was read").in_file(&self.path)
    }

    fn handle(&self) -> Result<&Bytes> {
        if self.handle.get().is_none() {
            let opened = place::open(&self.path)?;
            if !self.is_as_read(opened.len, &opened.version) {
                return Err(self.changed());
            }
            let _ = self.handle.set(opened.bytes);
        }
        self.handle.get().ok_or_else(|| Error::corrupt("the file is not open").in_file(&self.path))
    }

    /// The open file, if it is on a disk.
    pub(super) fn on_disk(&self) -> Result<&File> {
        match self.handle()? {
            Bytes::Disk(file) => Ok(file),
            Bytes::Far(_) => {
                let what = "the file isn't on a disk";
                Err(Error::new(ErrorKind::Unsupported, what).in_file(&self.path))
            }
        }
    }

    pub(super) fn far(&self) -> Option<&Object> {
        match self.handle.get()? {
            Bytes::Far(object) => Some(object),
            Bytes::Disk(_) => None,
        }
    }

    /// What it holds is known: what was kept of it goes to the cache.
    pub(super) fn settle(&self) {
        self.far().into_iter().for_each(Object::settle);
    }

    /// Reads tensors' bytes.
    pub(super) fn read_exact(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        self.handle()?.read(&self.path, at, buffer)
    }

    pub(super) fn map(&self) -> Result<Storage> {
        if let Some(storage) = self.map.get() {
            return Ok(storage.clone());
        }
        let file = self.on_disk()?;
        // SAFETY: the map is read-only and lives as long as its storage. That no other process
        // changes or truncates the file meanwhile can't be ensured; `Store::view` says so, and
        // conversion of files reads instead.
        let map = unsafe { memmap2::Mmap::map(file) }
            .map_err(|source| Error::io("cannot map", &self.path, source))?;
        if map.len() as u64 != self.len {
            return Err(self.changed());
        }
        // Two threads may map at once; all views must share one storage, so the first stands.
        Ok(self.map.get_or_init(|| Storage::new(map)).clone())
    }
}

/// Reads ranges side by side.
pub(super) fn each(
    ranges: &mut [Range<'_>],
    one: impl Fn(&mut Range<'_>) -> Result<()> + Sync,
) -> Result<()> {
    if let [only] = ranges {
        return one(only);
    }
    let count = Hints::REMOTE.ranges.min(ranges.len());
    let rest = Mutex::new(ranges.iter_mut());
    let next = || rest.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some(range) = next() {
            one(range)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        let panicked = |_| Err(Error::corrupt("a thread that reads has ended"));
        let done = workers.into_iter().map(|worker| worker.join().unwrap_or_else(panicked));
        done.fold(Ok(()), Result::and)
    })
}
