//! What `torch.distributed.checkpoint` writes: told by name and refused, since a file of it holds
//! parts of tensors.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, ErrorKind};

/// The field of a safetensors file's metadata that says where its slices belong.
const SHARDING: &str = "DCP_SHARDING_INFO";

/// Whether this is the name of a file of a checkpoint of `torch.distributed.checkpoint`.
pub(super) fn is_part(name: &str) -> bool {
    name == ".metadata"
        || Path::new(name).extension().is_some_and(|extension| extension == "distcp")
}

/// The refusal of such a checkpoint, or of a file of one.
pub(super) fn refused(path: &Path, directory: &Path) -> Error {
    let what = if path == directory { "a checkpoint" } else { "part of a checkpoint" };
    let error = Error::new(
        ErrorKind::Unsupported,
        format!(
            "this is {what} of torch.distributed.checkpoint (DCP), whose files hold parts of tensors"
        ),
    );
    error.in_file(path).hint(format!(
        "make one file of it with `python -m torch.distributed.checkpoint.format_utils dcp_to_torch {} whole.pt`, then save the state dict \
         in that as safetensors",
        directory.display()
    ))
}

/// The refusal of a safetensors file that holds slices of tensors, as
/// `HuggingFaceStorageWriter(save_distributed=True)` writes them. `again`: whether a key of it is
/// in another file too.
pub(super) fn sliced(
    directory: &Path,
    name: &str,
    metadata: &BTreeMap<String, String>,
    again: bool,
) -> Option<Error> {
    let sharding = metadata.get(SHARDING)?;
    if !again && !is_elsewhere(sharding) && !has_siblings(directory, name) {
        return None;
    }
    let error = Error::new(
        ErrorKind::Unsupported,
        "the file holds slices of tensors: its metadata has DCP_SHARDING_INFO of torch.distributed.checkpoint",
    );
    Some(error.in_file(directory.join(name)).hint(
        "make whole tensors of all its files with `consolidate_safetensors_files` of torch.distributed.checkpoint.\
         _consolidate_hf_safetensors, or save with `enable_consolidation=True`",
    ))
}

/// Whether a slice begins anywhere but at the start of its tensor. What can't be read says nothing.
fn is_elsewhere(sharding: &str) -> bool {
    let Ok(serde_json::Value::Object(tensors)) = serde_json::from_str(sharding) else {
        return false;
    };
    let offsets = tensors.values().filter_map(|tensor| tensor.get("saved_offsets")?.as_array());
    offsets.flatten().any(|offset| offset.as_u64() != Some(0))
}

/// Whether files of other ranks lie beside this one: `shard-00002-…` beside `shard-00001-…`.
fn has_siblings(directory: &Path, name: &str) -> bool {
    let number = |name: &str| {
        name.strip_prefix("shard-")
            .and_then(|rest| rest.split_once('-'))
            .map(|(number, _)| number.to_owned())
    };
    let Some(mine) = number(name) else { return false };
    let Ok(entries) = std::fs::read_dir(directory) else { return false };
    entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok()).any(
        |other| {
            Path::new(&other).extension().is_some_and(|extension| extension == "safetensors")
                && number(&other).is_some_and(|other| other != mine)
        },
    )
}
