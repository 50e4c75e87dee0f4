//! Checkpoints of `torch.distributed.checkpoint` (DCP): tensors in parts, in the files of several
//! processes.
//!
//! * A directory with `.metadata`: that file says where each part lies, and each part is an archive
//!   of its own in a `.distcp` file.
//! * Safetensors files with `DCP_SHARDING_INFO`: each holds slices, and says where they begin.
//!
//! Both become tensors in boxes. That boxes cover a tensor once is checked when they are put
//! together: PyTorch's own tools fill what is missing with zeros.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use indexmap::{IndexMap, IndexSet};

use super::OpenOptions;
use super::boxes::{Blob, Boxes, StoredBox};
use super::checkpoint::Checkpoint;
use super::format::Format;
use super::place;
use super::sharded::check_inside;
use super::stored::StoredFile;
use super::torch::dcp::SavedTensor;
use super::torch::{alone, dcp, tree};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, natural_order};
use crate::tensor::{Entry, Location, Remark, Shape, TensorInfo};

/// The file that says where everything lies.
const METADATA: &str = ".metadata";

/// Fields of a safetensors file's metadata that say where its slices belong, and in which version.
const SHARDING: &str = "DCP_SHARDING_INFO";
const VERSION: &str = "DCP_VERSION";

/// Whether this is the name of a file of a checkpoint of `torch.distributed.checkpoint`.
pub(super) fn is_part(name: &str) -> bool {
    name == METADATA || Path::new(name).extension().is_some_and(|extension| extension == "distcp")
}

/// The refusal of one file of such a checkpoint.
pub(super) fn one_file(path: &Path, directory: &Path) -> Error {
    let error = Error::new(
        ErrorKind::Unsupported,
        "this is a part of a checkpoint of torch.distributed.checkpoint (DCP)",
    );
    error.in_file(path).hint(format!("give the directory: {}", directory.display()))
}

/// Opens the checkpoint that a directory's `.metadata` describes.
///
/// # Errors
/// If a part is missing, lies outside of the files, isn't what is said of it, or two overlap.
pub(super) fn open(directory: &Path, options: &OpenOptions) -> Result<Checkpoint> {
    let path = directory.join(METADATA);
    if !place::is_file(&path)? {
        let error = Error::new(
            ErrorKind::Corrupt,
            format!("the directory has files of torch.distributed.checkpoint and no {METADATA}"),
        );
        return Err(error.in_file(directory).hint(
            "it is written when all processes are done: the save was interrupted, or each process kept its own",
        ));
    }
    check_inside(directory, METADATA, options)?;
    let file = place::open(&path)?;
    let saved = dcp::read(file.window()).map_err(|error| error.in_file(&path))?;
    let (root, chosen) = choose(&saved, options).map_err(|error| error.in_file(&path))?;
    let tensors: Vec<(String, &SavedTensor)> = chosen.tensors;
    let files = files_of(directory, &tensors, options)?;
    let numbers: IndexMap<&str, u32> =
        files.iter().zip(0..).map(|((name, _), number)| (name.as_str(), number)).collect();
    let stored: Vec<&StoredFile> = files.iter().map(|(_, file)| file).collect();
    let boxes = |(key, tensor): &(String, &SavedTensor)| {
        let boxes = boxes_of(tensor, &numbers, &stored);
        boxes.map_err(|error| error.or_at_key(key).in_file(&path))
    };
    let read = place::beside(directory, &tensors, boxes);
    files.iter().for_each(|(_, file)| file.settle());
    let mut checkpoint = Checkpoint::empty(directory);
    for ((key, _), boxes) in tensors.iter().zip(read) {
        checkpoint.place(Key::from(&**key), boxes?);
    }
    checkpoint.take_files(files);
    checkpoint.header.remarks.extend(remarks(&root, options, chosen.beside, chosen.plain));
    Ok(checkpoint)
}

/// What is taken of a checkpoint.
struct Chosen<'s> {
    /// Tensors by their keys below the root.
    tensors: Vec<(String, &'s SavedTensor)>,
    /// What lies beside, and how many tensors it has.
    beside: Vec<(String, u64)>,
    /// What is no tensor.
    plain: Vec<String>,
}

/// Takes the tensors below the root that is asked for, or the usual one.
fn choose<'s>(saved: &'s dcp::Saved, options: &OpenOptions) -> Result<(Vec<String>, Chosen<'s>)> {
    let path_of = |name: &str| {
        let path = saved.paths.get(name).filter(|path| !path.is_empty());
        path.cloned().unwrap_or_else(|| vec![name.to_owned()])
    };
    let paths: Vec<(Vec<String>, &SavedTensor)> =
        saved.tensors.iter().map(|(name, tensor)| (path_of(name), tensor)).collect();
    let root = match options.root.as_deref() {
        Some(root) => root.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        None => usual(&paths),
    };
    let mut chosen = Chosen { tensors: Vec::new(), beside: Vec::new(), plain: Vec::new() };
    let mut beside: IndexMap<String, u64> = IndexMap::new();
    for (path, tensor) in &paths {
        let below = path.strip_prefix(root.as_slice()).filter(|below| !below.is_empty());
        let is_asked = options.root.is_some();
        match below {
            Some(below) if is_asked || below.len() == 1 || !tree::is_beside(&below[0]) => {
                chosen.tensors.push((below.join("."), tensor));
            }
            _ => {
                let shared = path.iter().zip(&root).take_while(|(a, b)| a == b).count();
                *beside.entry(path[..=shared.min(path.len() - 1)].join(".")).or_default() += 1;
            }
        }
    }
    chosen.beside = beside.into_iter().collect();
    chosen.plain = saved.plain.clone();
    if chosen.tensors.is_empty() {
        let there: Vec<String> = chosen.beside.iter().map(|(path, _)| path.clone()).collect();
        let what = match options.root.as_deref() {
            Some(root) => format!("the checkpoint has no tensor at {root:?}"),
            None => "the checkpoint has no state dict with tensors".to_owned(),
        };
        let error = Error::new(ErrorKind::Unsupported, what);
        return Err(if there.is_empty() {
            error
        } else {
            error.hint(format!("it has tensors at {}", tree::listed(&there)))
        });
    }
    Ok((root, chosen))
}

/// Where the state dict usually lies, among the paths of tensors.
fn usual(paths: &[(Vec<String>, &SavedTensor)]) -> Vec<String> {
    let mut root: Vec<String> = Vec::new();
    loop {
        let below = paths.iter().filter_map(|(path, _)| path.strip_prefix(root.as_slice()));
        let mut names: IndexSet<&str> = IndexSet::new();
        let mut direct = false;
        for path in below {
            match path {
                [] => {}
                [_] => direct = true,
                [name, ..] if tree::is_beside(name) => {}
                [name, ..] => drop(names.insert(name)),
            }
        }
        let names: Vec<&str> = names.into_iter().collect();
        match tree::usual_of(&names, direct).and_then(|at| names.get(at)) {
            Some(name) => root.push((*name).to_owned()),
            None => return root,
        }
    }
}

/// What to remark of what was taken.
fn remarks(
    root: &[String],
    options: &OpenOptions,
    trees: Vec<(String, u64)>,
    plain: Vec<String>,
) -> Vec<Remark> {
    let mut found = Vec::new();
    let file = METADATA.to_owned();
    if !root.is_empty() && options.root.is_none() {
        let others = trees.iter().map(|(path, _)| path.clone()).collect();
        found.push(Remark::Root { file: file.clone(), root: root.join("."), others });
    }
    if !(trees.is_empty() && plain.is_empty()) {
        found.push(Remark::LeftOut { file, trees, plain });
    }
    found
}

/// The files in which tensors have parts, by name.
fn files_of(
    directory: &Path,
    tensors: &[(String, &SavedTensor)],
    options: &OpenOptions,
) -> Result<Vec<(String, StoredFile)>> {
    let parts = tensors.iter().flat_map(|(_, tensor)| &tensor.parts);
    let mut names: Vec<&str> =
        parts.map(|part| part.file.as_str()).collect::<IndexSet<_>>().into_iter().collect();
    names.sort_by(|a, b| natural_order(a, b));
    let open = |name: &str| {
        let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !plain || name.contains(['\\', '\0', ':']) {
            let why = format!("it names a file outside of its directory: {name:?}");
            return Err(Error::corrupt(why).in_file(directory.join(METADATA)));
        }
        let path = directory.join(name);
        place::there(&path).map_err(|error| {
            error.hint(format!("{METADATA} says that it has parts of tensors: fetch it"))
        })?;
        check_inside(directory, name, options)?;
        Ok((name.to_owned(), StoredFile::open(&path, Format::Distributed)?))
    };
    names.into_iter().map(open).collect()
}

/// The boxes of a tensor, one for each part.
fn boxes_of(
    tensor: &SavedTensor,
    numbers: &IndexMap<&str, u32>,
    files: &[&StoredFile],
) -> Result<Boxes> {
    let mut shape = tensor.shape.clone();
    let mut boxes = Vec::with_capacity(tensor.parts.len());
    let mut dtype = tensor.dtype.safetensors().ok_or_else(|| {
        let what = format!("its dtype is {}, which safetensors doesn't have", tensor.dtype);
        Error::new(ErrorKind::Unsupported, what)
    })?;
    for part in &tensor.parts {
        let number = numbers.get(part.file.as_str()).copied().unwrap_or(u32::MAX);
        let file = files.get(number as usize).copied();
        let file = file.ok_or_else(|| Error::corrupt(format!("no file {:?}", part.file)))?;
        let here = |error: Error| error.in_file(file.path());
        let window = file.window().and_then(|all| all.part(part.offset, part.len));
        let (info, offset, strides) = window.and_then(alone).map_err(here)?;
        // PyTorch counts pairs of elements where these have less than a byte.
        let pairs = u64::from(info.dtype.bits() < 8) + 1;
        let (start, size) = (in_elements(&part.start, pairs)?, in_elements(&part.shape, pairs)?);
        if info.dtype != dtype || info.shape[..] != size[..] {
            let why = format!(
                "{METADATA} says that a part is {dtype} {:?}, and it is {info}",
                part.shape
            );
            return Err(Error::corrupt(why).in_file(file.path()));
        }
        dtype = info.dtype;
        boxes.push(StoredBox {
            start: start.into(),
            shape: info.shape,
            blob: Blob(number),
            offset,
            strides,
        });
    }
    if dtype.bits() < 8 {
        shape = in_elements(&shape, 2)?;
    }
    let info = TensorInfo::new(dtype, shape);
    if boxes.is_empty() && info.numel() == Some(0) {
        return Boxes::row_major(info, Blob(0), 0);
    }
    Boxes::new(info, boxes).map_err(|error| {
        error.hint(
            "files of a process are missing, or of another save: PyTorch would give zeros there",
        )
    })
}

/// Sizes in elements, where the last one counts so many at a time.
fn in_elements(sizes: &[u64], at_once: u64) -> Result<Vec<u64>> {
    let mut sizes = sizes.to_vec();
    if let Some(last) = sizes.last_mut() {
        *last =
            last.checked_mul(at_once).ok_or_else(|| Error::corrupt("a size exceeds 64 bits"))?;
    }
    Ok(sizes)
}

impl Checkpoint {
    /// Puts a tensor under a key that is not there yet.
    fn place(&mut self, key: Key, boxes: Boxes) {
        let info = boxes.info().clone();
        // One run is told by its place, as in any other file.
        let location = boxes.run().and_then(|run| {
            let len = info.nbytes()?;
            Some(Location { file: run.blob.0, offset: run.offset, len })
        });
        if location.is_none() {
            self.parts.insert(key.clone(), boxes);
        }
        self.header.tensors.insert(key, Entry { info, location });
    }
}

/// Slices of tensors, of several safetensors files.
#[derive(Default)]
pub(super) struct Slices {
    tensors: IndexMap<Key, Vec<(StoredBox, TensorInfo)>>,
    /// Shapes that the files say of whole tensors.
    whole: BTreeMap<Key, Vec<u64>>,
    names: Vec<String>,
}

impl Slices {
    /// Takes the tensors of a file that holds slices; leaves those of any other.
    ///
    /// # Errors
    /// If what the file says of them can't be read.
    pub(super) fn take(
        &mut self,
        name: &str,
        number: u32,
        contents: &mut super::contents::Contents,
    ) -> Result<()> {
        let Some(sharding) = contents.metadata.remove(SHARDING) else { return Ok(()) };
        contents.metadata.remove(VERSION);
        let broken = || Error::corrupt(format!("its metadata has no readable {SHARDING}"));
        let sharding: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(&sharding).map_err(|_| broken())?;
        let numbers = |value: Option<&serde_json::Value>| {
            let numbers = value?.as_array()?.iter().map(serde_json::Value::as_u64);
            numbers.collect::<Option<Vec<u64>>>()
        };
        for (key, (info, [offset, _])) in std::mem::take(&mut contents.tensors) {
            let said = sharding.get(key.as_str());
            // A tensor of which nothing is said is whole.
            let start = match said {
                Some(said) => numbers(said.get("saved_offsets")).ok_or_else(broken)?,
                None => vec![0; info.shape.len()],
            };
            if start.len() != info.shape.len() {
                let why = format!("{SHARDING} gives it {} offsets", start.len());
                return Err(Error::corrupt(why).at_key(key.as_str()));
            }
            if let Some(whole) = numbers(said.and_then(|said| said.get("global_shape"))) {
                self.whole.insert(key.clone(), whole);
            }
            let strides = Shape::from(info.shape.contiguous_strides());
            let (start, shape) = (Shape::from(start), info.shape.clone());
            let part = StoredBox { start, shape, blob: Blob(number), offset, strides };
            self.tensors.entry(key).or_default().push((part, info));
        }
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Puts the slices together.
    ///
    /// # Errors
    /// If they leave a hole, overlap, have other dtypes, or a file of another process lies beside
    /// and wasn't given.
    pub(super) fn put_into(self, checkpoint: &mut Checkpoint) -> Result<()> {
        if let Some(name) = sibling(&checkpoint.directory, &self.names) {
            let error = Error::new(
                ErrorKind::Unsupported,
                format!("the file holds slices of tensors, and {name} beside it others"),
            );
            let first = self.names.first().cloned().unwrap_or_default();
            return Err(error
                .in_file(checkpoint.directory.join(first))
                .hint("give the directory, or all of its files"));
        }
        for (key, slices) in self.tensors {
            let boxes = whole_of(&key, slices, self.whole.get(&key));
            let boxes = boxes.map_err(|error| {
                error.at_key(key.as_str()).in_file(&checkpoint.directory).hint(
                    "files of other processes are missing: they hold the rest of such tensors",
                )
            })?;
            if checkpoint.header.tensors.contains_key(&key) {
                return Err(Error::corrupt("a whole tensor has the key of slices")
                    .at_key(key.as_str())
                    .in_file(&checkpoint.directory));
            }
            checkpoint.place(key, boxes);
        }
        Ok(())
    }
}

/// A tensor of slices. Its shape is what the files say, or as far as the slices reach.
fn whole_of(
    key: &Key,
    slices: Vec<(StoredBox, TensorInfo)>,
    said: Option<&Vec<u64>>,
) -> Result<Boxes> {
    let Some((_, first)) = slices.first() else {
        return Err(Error::corrupt(format!("{key} has no slice")));
    };
    let (dtype, rank) = (first.dtype, first.shape.len());
    let mut shape = vec![0u64; rank];
    for (part, info) in &slices {
        if info.dtype != dtype || info.shape.len() != rank {
            return Err(Error::corrupt(format!("slices of it are {first} and {info}")));
        }
        for (dim, size) in shape.iter_mut().enumerate() {
            let end = part.start[dim].checked_add(part.shape[dim]);
            *size = (*size).max(end.ok_or_else(|| Error::corrupt("a slice exceeds 64 bits"))?);
        }
    }
    let shape = said.cloned().unwrap_or(shape);
    let mut parts: Vec<StoredBox> = slices.into_iter().map(|(part, _)| part).collect();
    // A tensor that several processes hold whole may be in the file of each.
    parts.dedup_by(|a, b| a.start == b.start && a.shape == b.shape && a.blob == b.blob);
    Boxes::new(TensorInfo::new(dtype, shape), parts)
}

/// A file of another process beside these: `shard-00002-…` beside `shard-00001-…`.
fn sibling(directory: &Path, names: &[String]) -> Option<String> {
    let is_shard = |name: &str| {
        name.strip_prefix("shard-")
            .and_then(|rest| rest.split_once('-'))
            .is_some_and(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if !names.iter().any(|name| is_shard(name)) {
        return None;
    }
    let entries = std::fs::read_dir(directory).ok()?;
    let there = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut others: Vec<String> = there
        .filter(|name| is_shard(name) && !names.contains(name))
        .filter(|name| Path::new(name).extension().is_some_and(|it| it == "safetensors"))
        .collect();
    others.sort();
    others.into_iter().next()
}
