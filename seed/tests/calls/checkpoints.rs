//! Checkpoints for `get_checkpoint_tensor_dtypes`: the file records only a tag for each, so they
//! are made here from what the tag says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use regraft::key::Key;
use regraft::store::safetensors_header;
use regraft::tensor::{Dtype, TensorInfo};
use regraft_seed::dtypes::TorchDtype;
use serde_json::{Value as Json, json};

use super::case::{Case, Outcome, text};

/// A checkpoint and what the call is told of it.
pub(super) struct Made {
    pub(super) path: PathBuf,
    pub(super) gguf: bool,
    pub(super) transformers_weights: Option<String>,
}

pub(super) fn make(dir: &Path, case: &Case) -> Made {
    let mut made = Made { path: dir.to_owned(), gguf: false, transformers_weights: None };
    // What the call gave, where it gave something: key and dtype.
    let recorded: Vec<(String, TorchDtype)> = match &case.recorded {
        Outcome::Output(Json::Object(dtypes)) => dtypes
            .iter()
            .map(|(key, name)| {
                (key.clone(), TorchDtype::from_name(name.as_str().unwrap()).unwrap())
            })
            .collect(),
        _ => Vec::new(),
    };
    let files: Vec<(String, Dtype)> = recorded
        .iter()
        .filter_map(|(key, dtype)| Some((key.clone(), dtype.safetensors()?)))
        .collect();
    match text(&case.input, "tag").unwrap_or_default() {
        "gguf" => made.gguf = true,
        "empty_dir" => {}
        "bin" => fs::copy(
            super::case::fixture("../../../tests/fixtures/torch/pytorch_model.bin"),
            dir.join("pytorch_model.bin"),
        )
        .map(drop)
        .unwrap(),
        "missing_shard" => {
            let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
            write(&dir.join(shards[0]), &[("a".to_owned(), Dtype::F32)]);
            let index = json!({"metadata": {"total_size": 8}, "weight_map": {"a": shards[0], "b": shards[1]}});
            fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
        }
        "explicit_filename_via_config" => {
            made.transformers_weights = Some("other.safetensors".into());
            write(&dir.join("other.safetensors"), &[("a".to_owned(), Dtype::F8_E8M0)]);
        }
        tag if tag.contains("shard") || tag.contains("index") => {
            let mut map = serde_json::Map::new();
            let half = files.len().div_ceil(2).max(1);
            for (i, shard) in files.chunks(half).enumerate() {
                let name = format!("model-{:05}-of-00002.safetensors", i + 1);
                write(&dir.join(&name), shard);
                map.extend(shard.iter().map(|(key, _)| (key.clone(), json!(name))));
            }
            let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
            fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
        }
        // Contents that the tag doesn't tell: the error decides which, and its words are not
        // compared.
        _ if matches!(&case.recorded, Outcome::Raises { kind, .. } if kind == "SafetensorError") => {
            fs::write(dir.join("model.safetensors"), b"not a safetensors file").unwrap();
        }
        tag => {
            // A dtype that the reference refuses stands in its message.
            let refused = match &case.recorded {
                Outcome::Raises { message, .. } => {
                    message.rsplit(' ').next().and_then(|word| word.parse::<Dtype>().ok())
                }
                Outcome::Output(_) => None,
            };
            let files = refused.map_or(files, |dtype| vec![("a".to_owned(), dtype)]);
            let name = if tag.contains("file") && !tag.contains("config") {
                "single.safetensors"
            } else {
                "model.safetensors"
            };
            write(&dir.join(name), &files);
            if name == "single.safetensors" {
                made.path = dir.join(name);
            }
        }
    }
    made
}

/// A file of tensors of one byte, or as few as the dtype allows, all zero.
fn write(path: &Path, tensors: &[(String, Dtype)]) {
    let info = |dtype: Dtype| TensorInfo::new(dtype, vec![if dtype.bits() < 8 { 8 } else { 1 }]);
    let entries: Vec<(Key, TensorInfo)> =
        tensors.iter().map(|(key, dtype)| (Key::from(key.as_str()), info(*dtype))).collect();
    let (mut bytes, _) = safetensors_header(&entries, &BTreeMap::new()).unwrap();
    bytes.extend(
        entries
            .iter()
            .flat_map(|(_, info)| vec![0; usize::try_from(info.nbytes().unwrap()).unwrap()]),
    );
    fs::write(path, bytes).unwrap();
}
