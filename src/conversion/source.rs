//! What is converted, and what lies beside it: files, any other store, or a header alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Config, MAX_BYTES};
use crate::error::{Error, ErrorKind, Result};
use crate::key::RankFiles;
use crate::library;
use crate::plan::{RECORD_FILE, Record};
use crate::store::{
    self, Checkpoint, EQUAL_KEYS, NamedPath, OpenOptions, SEVERAL_FILES, Store, directory_of,
    open_named, pinned,
};
use crate::tensor::Header;

/// The longest record that is read, in bytes.
const MAX_RECORD: u64 = 1 << 30;

/// What peft writes beside an adapter.
pub(super) const ADAPTER_CONFIG: &str = "adapter_config.json";

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

    /// The configs of the adapters among its paths, by the names that stand before their keys.
    pub(super) fn adapters(&self) -> Result<Vec<(String, Config)>> {
        let named = match self {
            Given::Source(source) => {
                source.checkpoint().map(Checkpoint::named).unwrap_or_default().to_vec()
            }
            Given::Paths { paths, .. } => {
                let named = paths.iter().filter_map(|one| Some((one.name.clone()?, &one.path)));
                let named = named.map(|(name, path)| Ok((name, directory_of(path)?)));
                named.collect::<Result<_>>()?
            }
        };
        let mut found = Vec::new();
        for (name, directory) in named {
            let file = directory.join(ADAPTER_CONFIG);
            if store::is_file(&file)? {
                found.push((name, read_config(file)?));
            }
        }
        Ok(found)
    }

    /// Opens it; `ranks` is how the files of ranks are called, if there are any.
    pub(super) fn open(self, ranks: Option<&RankFiles>) -> Result<Source> {
        match self {
            Given::Source(source) => Ok(source),
            Given::Paths { paths, options } => {
                let opened = open_named(&paths, ranks, &options).map_err(naming_rank_rules);
                let checkpoint = Arc::new(opened?);
                let paths = paths.into_iter().map(|one| one.path).collect();
                Ok(Source::files(checkpoint, paths, options.allow_outside))
            }
        }
    }
}

/// How many files of a directory are looked at for rules that read them.
const LOOKED_AT: usize = 64;

/// Names the rule files for what are files of ranks by their names, where these hold equal keys or
/// nothing says which of them is meant.
fn naming_rank_rules(error: Error) -> Error {
    let (Some(file), Some(advice)) = (error.file(), error.advice()) else { return error };
    let names: Vec<String> = match advice {
        EQUAL_KEYS => {
            file.file_name().and_then(|name| name.to_str()).map(str::to_owned).into_iter().collect()
        }
        SEVERAL_FILES => store::names(file).unwrap_or_default(),
        _ => return error,
    };
    let mut readers = names.iter().take(LOOKED_AT).map(|name| library::for_rank_file(name));
    let Some(rules) = readers.find(|rules| !rules.is_empty()) else { return error };
    let named: Vec<String> = rules.iter().map(|name| format!("--rules {name}")).collect();
    let (named, reads) = (named.join(" or "), if rules.len() == 1 { "reads" } else { "read" });
    let hint = format!("{named} {reads} files that are called so as those of ranks; {advice}");
    error.hint(hint)
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

/// The config.json of a directory, on a disk or far away; empty if there is none.
///
/// # Errors
/// As [`config_beside`].
pub fn config_in(directory: &Path) -> Result<Config> {
    let path = directory.join("config.json");
    if store::is_file(&path)? { read_config(path) } else { Ok(Config::empty()) }
}

/// The config.json beside a checkpoint that isn't opened yet; empty if there is none.
///
/// # Errors
/// As [`config_beside`].
pub fn config_of(paths: &[NamedPath]) -> Result<Config> {
    let first = paths.first().map(std::slice::from_ref).unwrap_or_default();
    match &pinned(first)?[..] {
        [first] => config_in(&directory_of(&first.path)?),
        _ => Ok(Config::empty()),
    }
}

/// Reads a config, from a disk or from afar: a JSON file, or a directory that holds a
/// `config.json`.
///
/// # Errors
/// As [`Config::read`].
pub fn read_config(path: impl AsRef<Path>) -> Result<Config> {
    let path = path.as_ref();
    if !store::is_remote(path) {
        return Config::read(path);
    }
    let path = store::pinned(&[path.into()])?.remove(0).path;
    let path = match directory_of(&path)? {
        directory if directory == path => path.join("config.json"),
        _ => path,
    };
    let bytes = store::read(&path, MAX_BYTES)?;
    Config::from_json(&bytes).map_err(|error| error.in_file(path))
}

/// The record of the conversion that made a checkpoint, if there is one beside it.
///
/// # Errors
/// If it can't be read, is damaged, or something else has its name.
pub fn record_beside(checkpoint: &Checkpoint) -> Result<Option<Record>> {
    let Some((bytes, path)) = record_file(checkpoint.directory())? else { return Ok(None) };
    Record::from_bytes(&bytes, &path).map(Some)
}

/// The file that such a record lies in, as it is, and its path.
///
/// # Errors
/// If it can't be read, or something else has its name.
pub fn record_file(directory: &Path) -> Result<Option<(Vec<u8>, PathBuf)>> {
    let path = directory.join(RECORD_FILE);
    if !store::is_file(&path)? {
        return Ok(None);
    }
    Ok(Some((store::read(&path, MAX_RECORD)?, path)))
}
