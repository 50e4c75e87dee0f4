//! Where files are: on a disk, or far away, named by an address. What is asked of either is asked
//! here, so that nothing else has to know which it is.
//!
//! An address stands as a path. It has a scheme before `://`, which no path has that anybody
//! writes.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;

use super::NamedPath;
use super::archive::{ReadAt, Window};
use super::remote::{self, Interrupts, Kind, Object};
use crate::error::{Error, ErrorKind, Result};

/// Schemes of addresses.
const SCHEMES: &[&str] = &["hf", "http", "https", "s3", "gs", "az"];

/// The address that a path is; `None` if it is one of a disk.
fn address(path: &Path) -> Option<&str> {
    let text = path.to_str()?;
    let (scheme, _) = text.split_once("://")?;
    SCHEMES.contains(&scheme).then_some(text)
}

/// Whether a path is the address of something that isn't on a disk.
pub fn is_remote(path: impl AsRef<Path>) -> bool {
    address(path.as_ref()).is_some()
}

/// The same sources, so that whatever is asked of them later is asked of the same thing: a revision
/// of a hub becomes its commit, and what is secret in an address is taken out of it.
///
/// # Errors
/// If a hub can't be asked, or has no such revision.
pub fn pinned(sources: &[NamedPath]) -> Result<Vec<NamedPath>> {
    sources
        .iter()
        .map(|source| {
            let path = pinned_path(&source.path)?;
            Ok(NamedPath { name: source.name.clone(), path })
        })
        .collect()
}

/// A path as everybody may see it: of an address, without passwords and signatures.
pub fn public(path: &Path) -> PathBuf {
    address(path).map_or_else(|| path.to_owned(), |text| PathBuf::from(remote::public(text)))
}

pub(super) fn pinned_path(path: &Path) -> Result<PathBuf> {
    address(path)
        .map_or_else(|| Ok(path.to_owned()), |text| remote::pinned(text).map(PathBuf::from))
}

/// An open file.
pub(super) enum Bytes {
    Disk(File),
    Far(Box<Object>),
}

impl ReadAt for Bytes {
    fn fill(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Disk(file) => file.fill(at, buffer),
            Self::Far(object) => object.fill(at, buffer),
        }
    }

    fn soon(&self, ranges: &mut dyn Iterator<Item = (u64, u64)>) {
        match self {
            Self::Disk(_) => {}
            Self::Far(object) => object.soon(ranges),
        }
    }
}

impl Bytes {
    /// Fills a buffer from a place on, and keeps nothing.
    ///
    /// # Errors
    /// If the file is shorter, or can't be read; the error names it.
    pub(super) fn read(&self, path: &Path, at: u64, buffer: &mut [u8]) -> Result<()> {
        match self {
            Self::Far(object) => object.read_into(at, buffer),
            Self::Disk(file) => file.fill(at, buffer).map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => {
                    Error::corrupt("the file became shorter while it was read").in_file(path)
                }
                _ => Error::io("cannot read", path, source),
            }),
        }
    }
}

/// What tells the content of a file from what it was before or will be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) enum Version {
    /// When it was written, if the system knows.
    Time(Option<SystemTime>),
    /// What the server says, if it does.
    Tag(Option<String>),
}

impl Version {
    /// Of a file on a disk.
    pub(super) fn of(found: &Metadata) -> Self {
        Self::Time(found.modified().ok())
    }

    /// Whether it tells anything.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self, Self::Time(None) | Self::Tag(None))
    }
}

/// A file that was opened, how long it is, and which version.
pub(crate) struct Opened {
    pub(super) bytes: Bytes,
    pub(super) len: u64,
    pub(super) version: Version,
}

impl Opened {
    /// How many bytes it has.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// How many bytes are read at once with profit.
    pub(crate) fn piece(&self) -> usize {
        match &self.bytes {
            Bytes::Disk(_) => 256 << 10,
            Bytes::Far(_) => 8 << 20,
        }
    }

    /// Fills a buffer from a place on, once.
    ///
    /// # Errors
    /// If reading fails; the error names the file.
    pub(crate) fn read(&self, path: &Path, at: u64, buffer: &mut [u8]) -> Result<()> {
        self.bytes.read(path, at, buffer)
    }

    /// Its header is read: what was kept of it goes to the cache.
    pub(super) fn settle(&self) {
        if let Bytes::Far(object) = &self.bytes {
            object.settle();
        }
    }

    /// All of it.
    pub(super) fn window(&self) -> Window<'_> {
        Window::new(&self.bytes, self.len)
    }
}

/// Opens a file; anything else (a pipe, a device) might block or never end.
///
/// # Errors
/// If it isn't there, can't be opened, or is no file.
pub(crate) fn open(path: &Path) -> Result<Opened> {
    open_until(path, &Interrupts::default())
}

/// As [`open`]; whatever waits for it, then or later, ends when it is interrupted.
fn open_until(path: &Path, interrupts: &Interrupts) -> Result<Opened> {
    let Some(text) = address(path) else { return on_disk(path) };
    match remote::open(text, interrupts)? {
        Some(remote::Opened::Kept(kept)) => on_disk(&kept),
        Some(remote::Opened::Far(object)) => {
            let (len, version) = (object.len(), Version::Tag(object.tag()));
            Ok(Opened { bytes: Bytes::Far(object), len, version })
        }
        None => Err(nothing(path)),
    }
}

fn on_disk(path: &Path) -> Result<Opened> {
    let failed = |source| Error::io("cannot open", path, source);
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Error::new(ErrorKind::Unsupported, "not a regular file").in_file(path));
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let (len, version) = (metadata.len(), Version::of(&metadata));
    Ok(Opened { bytes: Bytes::Disk(file), len, version })
}

fn nothing(path: &Path) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such file")
        .in_file(path)
        .hint("look at the address")
}

/// Whether a path is a directory.
///
/// # Errors
/// If nothing is there, or that can't be found out.
pub(super) fn is_directory(path: &Path) -> Result<bool> {
    match address(path) {
        Some(text) => match remote::kind(text)? {
            Some(kind) => Ok(kind == Kind::Folder),
            None => Err(nothing(path)),
        },
        None => {
            let found = std::fs::metadata(path);
            Ok(found.map_err(|source| Error::io("cannot open", path, source))?.is_dir())
        }
    }
}

/// Looks whether something is there.
///
/// # Errors
/// If nothing is, or that can't be found out.
pub(crate) fn there(path: &Path) -> Result<()> {
    is_directory(path).map(|_| ())
}

/// Whether a file is there, under this name and none other.
///
/// # Errors
/// If something else is, which would be passed over otherwise without a word; or that can't be
/// found out.
pub(crate) fn is_file(path: &Path) -> Result<bool> {
    if let Some(text) = address(path) {
        return remote::is_file(text);
    }
    if path.symlink_metadata().is_err() {
        return Ok(false);
    }
    if path.is_file() { Ok(true) } else { Err(super::no_file(path)) }
}

/// The names of the files in a directory, and of what else is there on a disk.
///
/// # Errors
/// If it can't be listed.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>> {
    if let Some(text) = address(directory) {
        return remote::names(text);
    }
    let failed = |source| Error::io("cannot list", directory, source);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        // A name that isn't UTF-8 is none that any tool writes.
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    Ok(names)
}

/// Reads a file, if it has at most so many bytes.
///
/// # Errors
/// If it can't be read, or is longer.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let opened = open(path)?;
    if opened.len > most {
        let what = format!("the file has {} bytes; {most} are read", opened.len);
        return Err(Error::new(ErrorKind::Limit, what).in_file(path));
    }
    let bytes = opened.window().head(most).map_err(|error| error.in_file(path))?;
    opened.settle();
    Ok(bytes)
}

/// Copies a file somewhere else; gives how many bytes it has. If it is far away, whatever waits for
/// it ends when it is interrupted.
///
/// # Errors
/// If it can't be read, or not be written there.
pub(crate) fn copy(path: &Path, to: &mut impl io::Write, interrupts: &Interrupts) -> Result<u64> {
    let failed = |error| Error::io("cannot copy", path, error);
    let Opened { bytes, len, .. } = open_until(path, interrupts)?;
    let object = match &bytes {
        Bytes::Disk(file) => return io::copy(&mut &*file, to).map_err(failed),
        Bytes::Far(object) => object,
    };
    // Its beginning came when it was opened.
    let begun = object.begun();
    to.write_all(&begun).map_err(failed)?;
    let at = begun.len() as u64;
    let mut buffer = vec![0; COPIED.min(usize::try_from(len - at).unwrap_or(COPIED))];
    object.stream((at, len - at), &mut buffer, &mut |bytes| to.write_all(bytes).map_err(failed))?;
    Ok(len)
}

/// Bytes that are copied from afar at once.
const COPIED: usize = 1 << 20;

/// Opens each of many files or tensors of a directory: of one far away, many at once, since each
/// waits for an answer.
pub(super) fn beside<I: Sync, T: Send>(
    directory: &Path,
    items: &[I],
    open: impl Fn(&I) -> T + Sync + Send,
) -> Vec<T> {
    let all = || items.par_iter().map(&open).collect();
    if !is_remote(directory) {
        return all();
    }
    let threads = items.len().clamp(1, remote::AT_ONCE);
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(all),
        Err(_) => all(),
    }
}
