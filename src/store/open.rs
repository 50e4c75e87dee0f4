//! What a path means as a checkpoint, and opening it.
//!
//! What a file is, its content decides; its name only where it says `.safetensors`.

use std::path::{Path, PathBuf};

use super::alone::{Content, content_of};
use super::checkpoint::Checkpoint;
use super::json::Kind;
use super::{NamedPath, alone, dcp, numbered, open_named, pickled, place, sharded, variants};
use crate::error::{Error, ErrorKind, Result};
use crate::key::natural_order;

/// How [`open`] judges what is odd.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Whether keys that lie in the shards but not in the index, or in another shard than it says,
    /// are errors. If not, the keys of the shards count and [`Checkpoint::notes`] says so. Default:
    /// true.
    pub strict: bool,
    /// Whether symbolic links may lead out of the checkpoint's directory. The `blobs` of the
    /// Hugging Face cache are always allowed. Default: false.
    pub allow_outside: bool,
    /// Where in a file with dicts in dicts the state dict lies: the names that lead to it, joined
    /// by dots; empty for all of the file. Default: where it usually does.
    pub root: Option<String>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { strict: true, allow_outside: false, root: None }
    }
}

/// Opens a checkpoint: a `.safetensors` file, a directory with or without an index, an index, or a
/// manifest. Only headers are read.
///
/// # Errors
/// If the path isn't there, is of a kind that regraft doesn't read, or breaks a rule of its format.
pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Checkpoint> {
    open_all(&[path], options)
}

pub(super) fn open_one(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    if place::is_directory(path)? {
        return open_directory(path, options);
    }
    match content(path)? {
        Content::Tensors => {
            let (directory, name) = split(path)?;
            Checkpoint::from_files(&directory, vec![name], options)
        }
        Content::Json(Kind::Index, text) => sharded::open(path, &text, options),
        Content::Json(kind @ (Kind::Manifest | Kind::Wrapped), text) => {
            let header = alone::manifest(&text, kind == Kind::Wrapped).map_err(|error| {
                let is_config = ["\"model_type\"", "\"architectures\""]
                    .iter()
                    .any(|field| text.contains(field));
                let error = error.in_file(path);
                if is_config {
                    error
                        .hint("this is a model's configuration; give the directory that it lies in")
                } else {
                    error
                }
            })?;
            Ok(Checkpoint::manifest(header, parent(path)))
        }
        Content::Json(Kind::List, _) | Content::Text(_) => {
            let error = Error::new(
                ErrorKind::Unsupported,
                "not a checkpoint: neither safetensors nor a manifest with dtypes and shapes",
            );
            Err(error.in_file(path).hint("a list of keys serves as a target only"))
        }
    }
}

/// Opens several as one checkpoint. Their keys must differ.
///
/// # Errors
/// As [`open`]; and if two hold the same key, or no path is given.
pub fn open_all<P: AsRef<Path>>(paths: &[P], options: &OpenOptions) -> Result<Checkpoint> {
    open_named(&paths.iter().map(NamedPath::from).collect::<Vec<_>>(), None, options)
}

fn open_directory(directory: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    let listing = Listing::read(directory)?;
    if let Some(index) = listing.index()? {
        // From afar, an index is nearly as much as all headers, and says less than they do where the
        // files of its name are all there.
        let names = numbered::all_of(index, &listing.safetensors);
        let mut checkpoint = match names.filter(|_| place::is_remote(directory)) {
            Some(names) => Checkpoint::from_files(directory, names, options)?,
            None => open_index(&directory.join(index), options)?,
        };
        let unused =
            listing.safetensors.iter().filter(|name| !checkpoint.header.files.contains(name));
        checkpoint.ignored = unused.map(|name| directory.join(name)).collect();
        let others = sharded::listed(directory, &listing.indexes, index);
        let unlisted = numbered::unlisted(&checkpoint, &others, options);
        checkpoint.header.remarks.extend(unlisted);
        checkpoint.ignored.extend(pickled::beside(directory, &listing.pickled));
        return Ok(checkpoint);
    }
    let (names, mut ignored) = listing.split_consolidated();
    if names.is_empty() {
        return open_other(directory, &listing, options);
    }
    for name in &names {
        sharded::check_inside(directory, name, options)?;
    }
    let (names, variants) = variants::split(directory, names);
    ignored.extend(variants);
    let gaps = numbered::gaps(&names);
    let mut checkpoint = Checkpoint::from_files(directory, names.clone(), options)
        .map_err(|error| variants::choose(directory, &names, error))?;
    checkpoint.header.remarks.extend(gaps);
    checkpoint.ignored = ignored.into_iter().map(|name| directory.join(name)).collect();
    checkpoint.ignored.extend(pickled::beside(directory, &listing.pickled));
    Ok(checkpoint)
}

/// The refusal to choose among indexes.
pub(super) fn several_indexes(directory: &Path, names: &[String]) -> Error {
    let what = format!("the directory has {} indexes: {}", names.len(), names.join(", "));
    let error = Error::new(ErrorKind::Unsupported, what).in_file(directory);
    error.hint("give the index itself as the path")
}

/// Opens the shards of an index.
fn open_index(path: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    match content(path)? {
        Content::Json(Kind::Index, text) => sharded::open(path, &text, options),
        _ => Err(Error::corrupt("not an index: it has no field \"weight_map\"").in_file(path)),
    }
}

/// Opens a directory without safetensors files.
fn open_other(directory: &Path, listing: &Listing, options: &OpenOptions) -> Result<Checkpoint> {
    if listing.distributed {
        return dcp::open(directory, options);
    }
    if let Some(index) = pickled::index(directory, &listing.other_indexes)? {
        return open_index(&directory.join(index), options);
    }
    if let Some(names) = pickled::chosen(directory, &listing.pickled)? {
        for name in &names {
            sharded::check_inside(directory, name, options)?;
        }
        let gaps = numbered::gaps(&names);
        let mut checkpoint = Checkpoint::from_files(directory, names, options)?;
        checkpoint.header.remarks.extend(gaps);
        return Ok(checkpoint);
    }
    let error =
        Error::new(ErrorKind::Unsupported, "the directory has no checkpoint").in_file(directory);
    Err(if listing.pipeline {
        error.hint("it is a pipeline of diffusers: give the folder of one part, as `unet` or `vae`")
    } else {
        error.hint("regraft reads safetensors, what torch.save and torch.distributed.checkpoint write, and NumPy's files")
    })
}

/// The files of a directory that matter here.
pub(super) struct Listing {
    directory: PathBuf,
    /// In natural order.
    pub(super) safetensors: Vec<String>,
    pub(super) indexes: Vec<String>,
    /// Indexes of files of other formats.
    other_indexes: Vec<String>,
    /// Files of other formats, in natural order.
    pickled: Vec<String>,
    /// Whether there is a file of `torch.distributed.checkpoint`.
    distributed: bool,
    /// Whether it is the folder of a diffusers pipeline, whose parts lie in folders of their own.
    pipeline: bool,
}

impl Listing {
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let mut listing = Self {
            directory: directory.to_owned(),
            safetensors: Vec::new(),
            indexes: Vec::new(),
            other_indexes: Vec::new(),
            pickled: Vec::new(),
            distributed: false,
            pipeline: false,
        };
        for name in place::names(directory)? {
            listing.distributed |= dcp::is_part(&name);
            listing.pipeline |= name == "model_index.json";
            if name.starts_with('.') {
                continue;
            }
            let extension = Path::new(&name)
                .extension()
                .and_then(|extension| extension.to_str())
                .unwrap_or_default();
            match extension {
                "safetensors" => listing.safetensors.push(name),
                "json" if name.ends_with(".safetensors.index.json") => listing.indexes.push(name),
                "json" if name.ends_with(".index.json") => listing.other_indexes.push(name),
                _ if pickled::is_named_so(extension) => listing.pickled.push(name),
                _ => {}
            }
        }
        listing.safetensors.sort_by(|a, b| natural_order(a, b));
        listing.indexes.sort_by(|a, b| natural_order(a, b));
        listing.other_indexes.sort_by(|a, b| natural_order(a, b));
        listing.pickled.sort_by(|a, b| natural_order(a, b));
        Ok(listing)
    }

    /// The index that rules: `model.safetensors.index.json`, or the only one.
    pub(super) fn index(&self) -> Result<Option<&str>> {
        const USUAL: &str = "model.safetensors.index.json";
        match self.indexes.as_slice() {
            [] => Ok(None),
            [one] if variants::is_index_of_variant(one, &self.safetensors) => Ok(None),
            [one] => Ok(Some(one)),
            several if several.iter().any(|name| name == USUAL) => Ok(Some(USUAL)),
            several if variants::plain_index(several).is_some() => {
                Ok(variants::plain_index(several))
            }
            several => Err(several_indexes(&self.directory, several)),
        }
    }

    /// The files of a directory without an index: all, but not Mistral's `consolidated*` beside
    /// `model*`, which is the same model again.
    fn split_consolidated(&self) -> (Vec<String>, Vec<String>) {
        let twice = self.safetensors.iter().any(|name| name.starts_with("model"));
        self.safetensors
            .iter()
            .cloned()
            .partition(|name| !(twice && name.starts_with("consolidated")))
    }
}

/// Tells what a file is.
pub(super) fn content(path: &Path) -> Result<Content> {
    let file = place::open(path)?;
    if path.file_name().and_then(|name| name.to_str()).is_some_and(dcp::is_part) {
        return Err(dcp::one_file(path, &parent(path)));
    }
    let content = content_of(path, file.window()).map_err(|error| error.in_file(path))?;
    if !matches!(content, Content::Tensors) {
        file.settle();
    }
    Ok(content)
}

/// The directory of a checkpoint: where config and tokenizer lie.
///
/// # Errors
/// If nothing is there.
pub(crate) fn directory_of(path: &Path) -> Result<PathBuf> {
    Ok(if place::is_directory(path)? { path.to_owned() } else { parent(path) })
}

/// The directory of a file; the current one for a bare name.
pub(super) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn split(path: &Path) -> Result<(PathBuf, String)> {
    match path.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok((parent(path), name.to_owned())),
        None => {
            Err(Error::new(ErrorKind::Unsupported, "the file's name is not UTF-8").in_file(path))
        }
    }
}
