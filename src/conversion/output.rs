//! [`Output`]: what is written besides tensors, and how.

use std::path::{Path, PathBuf};

use super::source::ADAPTER_CONFIG;
use crate::error::{Error, Result};
use crate::execute::WriteOptions;
use crate::plan::{RECORD_FILE, Record};
use crate::store::{OpenOptions, directory_of, is_file, side_files};

/// How a conversion is written into files.
#[derive(Clone)]
#[non_exhaustive]
pub struct Output<'a> {
    /// How tensors become files. The source's files are protected besides those that it names.
    pub write: WriteOptions<'a>,
    /// Carry config, tokenizer and other files of the source's directories along. Default: true.
    pub side_files: bool,
    /// Write a record beside the output: with it, the way back restores what rules alone can't
    /// know. Default: false.
    pub record: bool,
}

impl Default for Output<'_> {
    fn default() -> Self {
        Self { write: WriteOptions::default(), side_files: true, record: false }
    }
}

impl<'a> Output<'a> {
    /// With these options for tensors.
    pub fn new(write: WriteOptions<'a>) -> Self {
        Self { write, ..Self::default() }
    }
}

/// The side files of those paths that are directories, but for adapters beside a first one. A record is none: it tells of the conversion
/// that made the source, not of the next one.
///
/// # Errors
/// As [`side_files`].
pub fn side_files_of<P: AsRef<Path>>(paths: &[P], allow_outside: bool) -> Result<Vec<PathBuf>> {
    let options = OpenOptions { allow_outside, ..OpenOptions::default() };
    let mut found = Vec::new();
    for (at, path) in paths.iter().map(AsRef::as_ref).enumerate() {
        // What lies beside an adapter would make one of what it becomes a part of.
        let is_checkpoint = || Ok::<_, Error>(at == 0 || !is_file(&path.join(ADAPTER_CONFIG))?);
        if directory_of(path)? == path && is_checkpoint()? {
            found.extend(side_files(path, &options)?);
        }
    }
    found.retain(|path| path.file_name().is_none_or(|name| name != RECORD_FILE));
    Ok(found)
}

/// A record in a file of its own, which lives as long as this.
pub(super) struct RecordFile {
    folder: tempfile::TempDir,
}

impl RecordFile {
    pub(super) fn write(record: &Record, out: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()
            .map_err(|error| Error::io("cannot make a temporary directory for", out, error))?;
        let file = Self { folder };
        let path = file.path();
        std::fs::write(&path, record.to_bytes()?)
            .map_err(|error| Error::io("cannot write", &path, error))?;
        Ok(file)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join(RECORD_FILE)
    }
}
