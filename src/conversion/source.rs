//! What is converted, and what lies beside it: files, any other store, or a header alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::key::RankFiles;
use crate::plan::{RECORD_FILE, Record};
use crate::store::{Checkpoint, NamedPath, OpenOptions, Store, directory_of, no_file, open_named};
use crate::tensor::Header;

/// What is going to be converted. Files are opened when the rules are known, which may say how the
/// files of ranks are told apart.
#[derive(Clone)]
pub(super) enum Given {
    Paths { paths: Vec<NamedPath>, options: OpenOptions },
    Source(Source),
}

impl Given {
    /// The config.json beside it; empty if there is none.
    pub(super) fn config(&self) -> Result<Config> {
        match self {
            Given::Paths { paths, .. } => config_of(paths),
            Given::Source(source) => {
                source.checkpoint().map_or_else(|| Ok(Config::empty()), config_beside)
            }
        }
    }

    /// Opens it; `ranks` is how the files of ranks are called, if there are any.
    pub(super) fn open(self, ranks: Option<&RankFiles>) -> Result<Source> {
        match self {
            Given::Source(source) => Ok(source),
            Given::Paths { paths, options } => {
                let checkpoint = Arc::new(open_named(&paths, ranks, &options)?);
                let paths = paths.into_iter().map(|one| one.path).collect();
                Ok(Source::files(checkpoint, paths, options.allow_outside))
            }
        }
    }
}

/// What is converted.
#[derive(Clone)]
pub(super) struct Source {
    kind: Kind,
    /// As the caller named them.
    pub(super) paths: Vec<PathBuf>,
    /// Whether links may lead out of the checkpoint's directory.
    pub(super) allow_outside: bool,
}

#[derive(Clone)]
enum Kind {
    Files(Arc<Checkpoint>),
    Store(Arc<dyn Store>),
    Header(Arc<Header>),
}

impl Source {
    pub(super) fn files(
        checkpoint: Arc<Checkpoint>,
        paths: Vec<PathBuf>,
        allow_outside: bool,
    ) -> Self {
        Self { kind: Kind::Files(checkpoint), paths, allow_outside }
    }

    pub(super) fn store(store: Arc<dyn Store>) -> Self {
        Self { kind: Kind::Store(store), paths: Vec::new(), allow_outside: false }
    }

    pub(super) fn header_alone(header: Arc<Header>) -> Self {
        Self { kind: Kind::Header(header), paths: Vec::new(), allow_outside: false }
    }

    pub(super) fn header(&self) -> &Header {
        match &self.kind {
            Kind::Files(checkpoint) => checkpoint.header(),
            Kind::Store(store) => store.header(),
            Kind::Header(header) => header,
        }
    }

    pub(super) fn checkpoint(&self) -> Option<&Checkpoint> {
        match &self.kind {
            Kind::Files(checkpoint) => Some(checkpoint),
            Kind::Store(_) | Kind::Header(_) => None,
        }
    }

    /// The store to read tensors from; `None` where there are none.
    pub(super) fn bytes(&self) -> Option<&dyn Store> {
        match &self.kind {
            Kind::Files(checkpoint) => checkpoint.has_bytes().then_some(&**checkpoint as _),
            Kind::Store(store) => Some(&**store),
            Kind::Header(_) => None,
        }
    }

    /// The store to carry a plan out over.
    ///
    /// # Errors
    /// If there are no tensors.
    pub(super) fn tensors(&self) -> Result<&dyn Store> {
        self.bytes().ok_or_else(|| {
            let error = match self.paths.first() {
                Some(path) => {
                    Error::new(ErrorKind::Unsupported, "a manifest has no bytes").in_file(path)
                }
                None => Error::new(ErrorKind::Unsupported, "a header has no bytes"),
            };
            error.hint("give the checkpoint itself; headers serve for planning only")
        })
    }

    /// What an output must not touch.
    pub(super) fn protected(&self) -> Vec<PathBuf> {
        let files = self.checkpoint().into_iter().flat_map(|checkpoint| checkpoint.paths());
        self.paths.iter().cloned().chain(files.map(Path::to_owned)).collect()
    }
}

/// The config.json beside a checkpoint; empty if there is none.
///
/// # Errors
/// If it can't be read, or something else has its name.
pub fn config_beside(checkpoint: &Checkpoint) -> Result<Config> {
    config_in(checkpoint.directory())
}

/// The config.json beside a checkpoint that isn't opened yet; empty if there is none.
///
/// # Errors
/// As [`config_beside`].
pub fn config_of(paths: &[NamedPath]) -> Result<Config> {
    paths.first().map_or_else(|| Ok(Config::empty()), |first| config_in(&directory_of(&first.path)))
}

fn config_in(directory: &Path) -> Result<Config> {
    let path = directory.join("config.json");
    if is_there(&path)? { Config::read(path) } else { Ok(Config::empty()) }
}

/// The record of the conversion that made a checkpoint, if there is one beside it.
///
/// # Errors
/// If it can't be read, is damaged, or something else has its name.
pub fn record_beside(checkpoint: &Checkpoint) -> Result<Option<Record>> {
    let path = checkpoint.directory().join(RECORD_FILE);
    if !is_there(&path)? {
        return Ok(None);
    }
    let bytes = std::fs::read(&path)
        .map_err(|source| Error::io("cannot read the record", &path, source))?;
    Record::from_bytes(&bytes, &path).map(Some)
}

/// Whether a file is there.
///
/// # Errors
/// If something else is, which would be passed over otherwise without a word.
fn is_there(path: &Path) -> Result<bool> {
    if path.symlink_metadata().is_err() {
        return Ok(false);
    }
    if path.is_file() { Ok(true) } else { Err(no_file(path)) }
}
