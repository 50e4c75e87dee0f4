//! Which files of a directory without safetensors are its checkpoint: those of `torch.save`, and
//! NumPy's.
//!
//! transformers looks for `pytorch_model.bin`, then for its index. Beside such a file lie others
//! that are no weights, by names that trainers give them.

use std::path::{Path, PathBuf};

use super::open::several_indexes;
use super::variants;
use crate::error::{Error, ErrorKind, Result};

/// Endings of such files.
const ENDINGS: &[&str] = &["bin", "pt", "pth", "ckpt", "pkl", "npz", "npy"];

/// How files begin that trainers write beside weights.
const NO_WEIGHTS: &[&str] = &[
    "training_args",
    "optimizer",
    "optim",
    "scheduler",
    "lr_scheduler",
    "scaler",
    "rng_state",
    "random_states",
    "trainer_state",
    "custom_checkpoint",
    "dataloader",
    "sampler",
];

/// How the file with all weights is called, first come first.
const USUAL: &[&str] = &["pytorch_model.bin", "diffusion_pytorch_model.bin", "adapter_model.bin"];

/// Whether an ending is one of such files.
pub(super) fn is_named_so(extension: &str) -> bool {
    ENDINGS.contains(&extension)
}

/// Whether a name is one of weights, and not of what lies beside them.
fn is_weights(name: &str) -> bool {
    !NO_WEIGHTS.iter().any(|start| name.starts_with(start)) && !name.contains("_optim_states")
}

/// Files that hold the same model again, beside safetensors.
pub(super) fn beside(directory: &Path, names: &[String]) -> Vec<PathBuf> {
    let again = |name: &&String| {
        USUAL.contains(&name.as_str())
            || name.starts_with("pytorch_model")
            || name.starts_with("consolidated")
    };
    names.iter().filter(again).map(|name| directory.join(name)).collect()
}

/// The index that rules.
///
/// # Errors
/// If there are several, and none is the usual one.
pub(super) fn index<'n>(directory: &Path, names: &'n [String]) -> Result<Option<&'n str>> {
    const USUAL: &str = "pytorch_model.bin.index.json";
    let usual = names.iter().find(|name| name.as_str() == USUAL);
    match (names, usual) {
        (_, Some(usual)) => Ok(Some(usual)),
        ([], None) => Ok(None),
        ([one], None) => Ok(Some(one)),
        (several, None) => Err(several_indexes(directory, several)),
    }
}

/// What to do about a directory of several files.
pub(crate) const SEVERAL_FILES: &str = "give the file itself; several that belong together can all be given, those of ranks with a name before each (rank0=FILE) or with rules that say `shards`";

/// The files that are the checkpoint; none if there is none.
///
/// # Errors
/// If there are several, and nothing says which is meant.
pub(super) fn chosen(directory: &Path, names: &[String]) -> Result<Option<Vec<String>>> {
    if let Some(usual) = USUAL.iter().find(|usual| names.iter().any(|name| name == **usual)) {
        return Ok(Some(vec![(*usual).to_owned()]));
    }
    let weights: Vec<&String> = names.iter().filter(|name| is_weights(name)).collect();
    let base = |name: &str| variants::without_count_of(name).map(str::to_owned);
    match weights.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(vec![(*one).clone()])),
        // All of one, counted: `pytorch_model-00001-of-00002.bin`.
        [first, rest @ ..]
            if base(first).is_some() && rest.iter().all(|name| base(name) == base(first)) =>
        {
            Ok(Some(weights.into_iter().cloned().collect()))
        }
        several => {
            let first: Vec<&str> = several.iter().take(4).map(|name| name.as_str()).collect();
            let more = several.len().saturating_sub(first.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let message = format!(
                "the directory has {} files that may be the checkpoint: {}{more}",
                several.len(),
                first.join(", ")
            );
            let error = Error::new(ErrorKind::Unsupported, message).in_file(directory);
            Err(error.hint(SEVERAL_FILES))
        }
    }
}
