//! dtypes of a checkpoint, key by key, from its headers alone.
//!
//! Which files a directory's checkpoint is, transformers 5.23.0 decides
//! (`_get_resolved_checkpoint_files`): `model.safetensors`, else its index, else
//! `pytorch_model.bin`, else its index, unless the config names a file. Nothing is fetched: a path
//! that isn't there is an error.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Component, Path, PathBuf};

use indexmap::IndexMap;

use super::Compat;
use super::model::{PlainStateDict, Value};
use super::reference::{Json, Raised, decode_utf8, parse, unpickle};
use regraft::error::ErrorKind;
use regraft::store::{OpenOptions, Store, Window, open};
use regraft::tensor::Dtype;

pub use regraft::store::torch::TorchDtype;

/// Which files of a path are its checkpoint.
#[derive(Clone, Debug, Default)]
pub struct DtypeOptions {
    /// The checkpoint is a GGUF file, of which nothing is read.
    pub gguf: bool,
    /// The file or index that config.json names (`transformers_weights`), relative to the
    /// directory.
    pub transformers_weights: Option<String>,
    /// Some(true): safetensors only; Some(false): `.bin` only.
    pub use_safetensors: Option<bool>,
    /// `fp16` for `model.fp16.safetensors`
    pub variant: Option<String>,
    /// The directory of the checkpoint, within the path.
    pub subfolder: Option<String>,
}

/// The dtype of each tensor of a checkpoint, in the order of its files and headers; of a key in
/// several files, the last one's.
///
/// The reference knows fewer dtypes than files have, and raises on the others.
///
/// # Errors
/// Named as the reference names them: `OSError` where there is no checkpoint, `FileNotFoundError`
/// for a missing shard, `ValueError` for a dtype or a config that it doesn't know,
/// `SafetensorError` and `UnpicklingError` for broken files. In strict mode also a shard outside of
/// the directory.
pub fn get_checkpoint_tensor_dtypes(
    path: &Path,
    options: &DtypeOptions,
    compat: Compat,
) -> Result<IndexMap<String, TorchDtype>, Raised> {
    let mut dtypes = IndexMap::new();
    if options.gguf {
        return Ok(dtypes);
    }
    for file in resolve(path, options, compat)? {
        if file.extension().is_some_and(|extension| extension == "safetensors") {
            for (key, dtype) in safetensors_dtypes(&file, compat)? {
                if compat == Compat::Reference && !REFERENCE_DTYPES.contains(&dtype) {
                    return Err(Raised::new(
                        "ValueError",
                        format!("Cannot load safetensors of unknown dtype {dtype}"),
                    ));
                }
                dtypes.insert(key, dtype.into());
            }
        } else {
            let open = File::open(&file).map_err(|error| not_opened(&file, &error))?;
            let len = open.metadata().map_err(|error| not_opened(&file, &error))?.len();
            dtypes.extend(unpickle::state_dict_dtypes(Window::new(&open, len))?);
        }
    }
    Ok(dtypes)
}

/// The dtype of each tensor of a state dict; what is no tensor is left out.
pub fn state_dict_dtypes(state_dict: &PlainStateDict) -> IndexMap<String, TorchDtype> {
    state_dict
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), Value::tensor(value)?.dtype)))
        .collect()
}

/// The dtypes of safetensors files that `load_state_dict` of transformers 5.23.0 knows.
const REFERENCE_DTYPES: [Dtype; 15] = [
    Dtype::Bool,
    Dtype::U8,
    Dtype::I8,
    Dtype::I16,
    Dtype::U16,
    Dtype::F16,
    Dtype::BF16,
    Dtype::I32,
    Dtype::U32,
    Dtype::F32,
    Dtype::F64,
    Dtype::I64,
    Dtype::U64,
    Dtype::F8_E4M3,
    Dtype::F8_E5M2,
];

/// The files of a checkpoint.
fn resolve(path: &Path, options: &DtypeOptions, compat: Compat) -> Result<Vec<PathBuf>, Raised> {
    if let Some(name) = &options.transformers_weights
        && !(name.ends_with(".safetensors")
            || name.ends_with(".safetensors.index.json")
            || name == "adapter_model.bin")
    {
        let message = "The transformers file in the config seems to be incorrect: it is neither a safetensors file (*.safetensors) nor a \
                       safetensors index file (*.safetensors.index.json): ";
        return Err(Raised::new("ValueError", format!("{message}{name}")));
    }
    let directory = options
        .subfolder
        .as_ref()
        .map_or_else(|| path.to_owned(), |subfolder| path.join(subfolder));
    if !path.is_dir() {
        if path.is_file() {
            return Ok(vec![path.to_owned()]);
        }
        return Err(Raised::new("OSError", format!("no file or directory {}", path.display())));
    }
    let named = |name: &str| match &options.variant {
        Some(variant) => with_variant(name, variant),
        None => name.to_owned(),
    };
    if let Some(name) = &options.transformers_weights {
        if !is_inside(name) {
            let message = format!(
                "`transformers_weights` must reference a file inside the model directory, got {name}"
            );
            return Err(Raised::new("ValueError", message));
        }
        let file = directory.join(name);
        return if name.ends_with(".index.json") {
            shards(&file, &directory, path, compat)
        } else {
            Ok(vec![file])
        };
    }
    let safe = options.use_safetensors != Some(false);
    let pickled = options.use_safetensors != Some(true);
    let candidates = [
        (safe, "model.safetensors", false),
        (safe, "model.safetensors.index.json", true),
        (pickled, "pytorch_model.bin", false),
        (pickled, "pytorch_model.bin.index.json", true),
    ];
    for (allowed, name, is_index) in candidates {
        let file = directory.join(named(name));
        if allowed && file.is_file() {
            return if is_index { shards(&file, &directory, path, compat) } else { Ok(vec![file]) };
        }
    }
    let wanted = match options.use_safetensors {
        Some(true) => {
            format!("{} found in directory {}.", named("model.safetensors"), path.display())
        }
        _ => format!(
            "{}, or {}, found in directory {}.",
            named("model.safetensors"),
            named("pytorch_model.bin"),
            path.display()
        ),
    };
    Err(Raised::new("OSError", format!("Error no file named {wanted}")))
}

/// `model.safetensors` and `fp16` to `model.fp16.safetensors`: the variant stands before the last
/// extension.
fn with_variant(name: &str, variant: &str) -> String {
    let (stem, extension) = name.rfind('.').map_or((name, ""), |at| name.split_at(at));
    format!("{stem}.{variant}{extension}")
}

/// Whether a relative path stays inside the directory that it is relative to.
fn is_inside(name: &str) -> bool {
    let mut depth: usize = 0;
    for component in Path::new(name).components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

/// The shards that an index names, in the order of their names.
fn shards(
    index: &Path,
    directory: &Path,
    path: &Path,
    compat: Compat,
) -> Result<Vec<PathBuf>, Raised> {
    let Ok(bytes) = std::fs::read(index) else {
        let message =
            format!("Can't find a checkpoint index ({}) in {}.", index.display(), path.display());
        return Err(Raised::new("ValueError", message));
    };
    let parsed = parse(decode_utf8(&bytes)?)?.ok_or_else(|| {
        Raised::new("JSONDecodeError", format!("{} is not JSON", index.display()))
    })?;
    let Some(Json::Dict(map)) = parsed.get("weight_map") else {
        return Err(Raised::new("KeyError", "'weight_map'"));
    };
    if compat == Compat::Reference && parsed.get("metadata").is_none() {
        return Err(Raised::new("KeyError", "'metadata'"));
    }
    let mut names = BTreeSet::new();
    for (key, shard) in map {
        let Json::Text(name) = shard else {
            return Err(Raised::new(
                "TypeError",
                format!("the shard of key {key:?} is {}, not text", shard.type_name()),
            ));
        };
        if compat == Compat::Strict && !is_inside(name) {
            return Err(Raised::new(
                "ValueError",
                format!("the index puts key {key:?} into {name:?}, outside of its directory"),
            ));
        }
        names.insert(name.as_str());
    }
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

/// Key and dtype of each tensor of one file.
fn safetensors_dtypes(file: &Path, compat: Compat) -> Result<Vec<(String, Dtype)>, Raised> {
    File::open(file).map_err(|error| not_opened(file, &error))?;
    // What the file is decides its reader, and the path's owner has named it: links out of its
    // directory are followed.
    let options = OpenOptions { allow_outside: true, ..OpenOptions::default() };
    match open(file, &options) {
        Ok(checkpoint) => Ok(checkpoint
            .header()
            .tensors
            .iter()
            .map(|(key, entry)| (key.as_str().to_owned(), entry.info.dtype))
            .collect()),
        Err(error) if error.kind() == ErrorKind::Io => {
            Err(Raised::new("OSError", error.to_string()))
        }
        // What that library makes of a file that ours refuses: it lets more pass, and has its own
        // words.
        Err(_)
            if compat == Compat::Reference
                && file.metadata().is_ok_and(|file| file.len() <= MAX_BROKEN) =>
        {
            let bytes = std::fs::read(file).map_err(|error| not_opened(file, &error))?;
            let broken = |error: safetensors::SafeTensorError| {
                Raised::new("SafetensorError", format!("Error while deserializing header: {error}"))
            };
            let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).map_err(broken)?;
            let dtype =
                |key: String| Some((metadata.info(&key)?.dtype.to_string().parse().ok()?, key));
            Ok(metadata
                .offset_keys()
                .into_iter()
                .filter_map(dtype)
                .map(|(dtype, key)| (key, dtype))
                .collect())
        }
        Err(error) => Err(Raised::new(
            "SafetensorError",
            format!("Error while deserializing header: {error}"),
        )),
    }
}

/// The longest broken file that is read whole to word its error as the reference does, in bytes.
const MAX_BROKEN: u64 = 64 << 20;

fn not_opened(file: &Path, error: &std::io::Error) -> Raised {
    match error.kind() {
        std::io::ErrorKind::NotFound => Raised::new(
            "FileNotFoundError",
            format!("No such file or directory: {}", file.display()),
        ),
        _ => Raised::new("OSError", format!("{}: {error}", file.display())),
    }
}

#[cfg(test)]
mod tests;
