//! Runs a recorded call through this crate.

use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use regraft::config::default_tie;
use regraft_seed::dtypes::{self, DtypeOptions};
use regraft_seed::reference::{ModelName, PyNumber, Raised};
use regraft_seed::ties::{self, Found};
use regraft_seed::{Compat, Device, Model, Tensor, Value, names, ranks, reference, sizes, trust};
use serde_json::{Map, Value as Json, json};

use super::case::{self, Case, Outcome, text};
use super::checkpoints;

type Input = Map<String, Json>;

impl From<Result<Json, Raised>> for Outcome {
    fn from(result: Result<Json, Raised>) -> Self {
        match result {
            Ok(output) => Outcome::Output(output),
            Err(raised) => {
                Outcome::Raises { kind: raised.kind.to_owned(), message: raised.message }
            }
        }
    }
}

/// What the call gives here. `None` for a function that isn't one of the crate's.
pub(super) fn call(case: &Case, compat: Compat) -> Option<Outcome> {
    let input = &case.input;
    let result = match case.function.as_str() {
        "normalize_param_name" => Ok(json!(names::normalize_param_name(name(input), compat))),
        "canonical_parameter_fqn" => Ok(json!(names::canonical_parameter_fqn(name(input), compat))),
        "torch.clean_tensor_name" => Ok(json!(names::clean_tensor_name(name(input), compat))),
        "torch.consume_prefix_in_state_dict_if_present" => consume_prefix(input, compat),
        "get_module_by_normalized_name" => {
            let modules =
                input["modules"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
            Ok(json!(names::get_module_by_normalized_name(
                modules,
                input["target"].as_str().unwrap(),
                compat
            )))
        }
        "get_controlling_tie_word_embeddings" => {
            let config = case::config(&input["config"]).unwrap_or_default();
            Ok(json!(ties::get_controlling_tie_word_embeddings(&config, compat)))
        }
        "hf_default_tie" => return Some(default(input, &case.recorded)),
        "is_tied_word_embeddings" => {
            let model = Model {
                config: case::config(&input["config"]),
                tie_support: case::tie_support(input.get("tie_support")),
                ..Model::default()
            };
            Ok(json!(ties::is_tied_word_embeddings(&model, compat)))
        }
        "get_lm_head_weight_and_name" => {
            let model = case::model(&input["model"]);
            Ok(found(&model, ties::get_lm_head_weight_and_name(&model, compat)))
        }
        "get_input_embeddings_weight_and_name" => {
            let model = case::model(&input["model"]);
            Ok(found(&model, ties::get_input_embeddings_weight_and_name(&model, compat)))
        }
        "has_local_tied_lm_head" => {
            Ok(json!(ties::has_local_tied_lm_head(&case::model(&input["model"]), compat)))
        }
        "get_tied_lm_head_source_names" => {
            let model = case::model(&input["model"]);
            Ok(json!(ties::get_tied_lm_head_source_names(
                &model,
                text(input, "lm_head_param_name"),
                compat
            )))
        }
        "ensure_tied_lm_head" => ensure(input, compat),
        "materialize_missing_tied_lm_head" => Ok(materialize(input, compat)),
        "same_tensor_storage" => same_storage(case, compat),
        "estimate_tensor_bytes" => Ok(json!(sizes::estimate_tensor_bytes(
            &case::shape(&input["shape"]),
            case::dtype(&input["dtype"])
        ))),
        "estimate_state_dict_bytes" => Ok(json!(sizes::estimate_state_dict_bytes(
            &case::sized_state_dict(&input["state_dict"])
        ))),
        "format_bytes" => format_bytes(&case::number(&input["num_bytes"]), compat),
        "format_output_file_count" => file_count(&case::number(&input["count"]), compat),
        "get_safetensors_index_total_size" => index_total_size(input, compat),
        "resolve_trust_remote_code" => resolve_trust(input, compat),
        "get_rank_safe" => ranks::get_rank_safe(text(input, "RANK"), compat)
            .map(|rank| case::number_to_json(&PyNumber::Int(rank))),
        "is_rank_0" => ranks::is_rank_0(text(input, "RANK"), compat).map(|main| json!(main)),
        "get_world_size_safe" => ranks::get_world_size_safe(text(input, "WORLD_SIZE"), compat)
            .map(|size| case::number_to_json(&PyNumber::Int(size))),
        "get_checkpoint_tensor_dtypes" => checkpoint_dtypes(case, compat),
        _ => return None,
    };
    Some(result.into())
}

fn name(input: &Input) -> &str {
    input["name"].as_str().unwrap()
}

fn consume_prefix(input: &Input, compat: Compat) -> Result<Json, Raised> {
    let keys = input["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned());
    let mut dict: IndexMap<String, usize> = keys.enumerate().map(|(i, key)| (key, i)).collect();
    names::consume_prefix_in_state_dict_if_present(
        &mut dict,
        input["prefix"].as_str().unwrap(),
        compat,
    )?;
    Ok(json!(dict))
}

fn default(input: &Input, recorded: &Outcome) -> Outcome {
    // The table has what a config class says; a type that the reference can't make has no row.
    match (text(input, "model_type").and_then(default_tie), recorded) {
        (None, raises @ Outcome::Raises { .. }) => raises.clone(),
        (tied, Outcome::Output(Json::Object(facts))) => {
            let mut facts = facts.clone();
            facts.insert("controlling".into(), json!(tied));
            Outcome::Output(Json::Object(facts))
        }
        (tied, _) => Outcome::Output(json!(tied)),
    }
}

fn found(model: &Model, found: Option<Found<'_>>) -> Json {
    match found {
        None => json!({"name": null, "raw": null}),
        Some(found) => {
            json!({"name": found.name, "raw": model.first_name(found.tensor), "shape": found.tensor.shape})
        }
    }
}

fn ensure(input: &Input, compat: Compat) -> Result<Json, Raised> {
    let mut model = case::model(&input["model"]);
    let behaviour = input["model"]["tie_weights"].as_str();
    let mut tie_weights = |model: &mut Model| match behaviour {
        Some("ties") => {
            let embedding = model
                .params
                .iter()
                .find(|param| param.name == "model.embed_tokens.weight")
                .unwrap()
                .tensor
                .clone();
            model.params.iter_mut().find(|param| param.name == "lm_head.weight").unwrap().tensor =
                embedding;
            Ok(())
        }
        Some("noop") => Ok(()),
        Some("attrerror") => Err(Raised::new("AttributeError", "boom")),
        Some("runtimeerror") => Err(Raised::new("RuntimeError", "boom")),
        other => panic!("unknown behaviour of tie_weights: {other:?}"),
    };
    let hook: Option<&mut ties::TieWeights<'_>> =
        if behaviour.is_some() { Some(&mut tie_weights) } else { None };
    let returned = ties::ensure_tied_lm_head(&mut model, hook, compat)?;
    let local = ties::has_local_tied_lm_head(&model, compat);
    Ok(json!({"returned": returned, "after": case::params(&model), "has_local_after": local}))
}

fn materialize(input: &Input, compat: Compat) -> Json {
    let model = case::model(&input["model"]);
    let mut dict = case::filled_state_dict(&input["state_dict"]);
    let fallback = input["allow_current_lm_head_fallback"].as_bool().unwrap();
    let before = dict.len();
    let done = ties::materialize_missing_tied_lm_head(&mut dict, &model, fallback, compat);
    let keys: Vec<&String> = dict.keys().collect();
    // Aliases are found from the storages, not from what the call says it did; a tensor without
    // bytes aliases nothing.
    let new = (dict.len() > before).then(|| {
        let (key, value) = dict.last().unwrap();
        let tensor = value.tensor().unwrap();
        let aliases = |other: &Tensor| tensor.device == Device::Real && other.storage == tensor.storage && other.offset == tensor.offset;
        let source = dict.iter().take(before).find(|(_, value)| value.tensor().is_some_and(aliases)).map(|(key, _)| key);
        let objects: Vec<u64> =
            dict.values().take(before).filter_map(Value::tensor).chain(model.params.iter().map(|p| &p.tensor)).map(|t| t.object).collect();
        json!({
            "key": key,
            "aliases_state_dict_key": source,
            "aliases_model_lm_head": ties::get_lm_head_weight_and_name(&model, compat).is_some_and(|head| aliases(head.tensor)),
            "shape": tensor.shape,
            "dtype": tensor.dtype.name(),
            // A detached tensor is an object of its own, and so no parameter.
            "is_parameter": objects.contains(&tensor.object),
            "requires_grad": objects.contains(&tensor.object),
        })
    });
    json!({"returned": done.is_materialized(), "keys_after": keys, "new": new})
}

/// The file records the two tensors but not whether they share: the tag says how they were made.
fn same_storage(case: &Case, compat: Compat) -> Result<Json, Raised> {
    let (left, right) = (case::side(&case.input["left"], 0), case::side(&case.input["right"], 1));
    let shared = Tensor { storage: left.storage, ..right.clone() };
    let same = |right: &Tensor| json!(ties::same_tensor_storage(&left, right, compat));
    let empty = |tensor: &Tensor| tensor.shape.contains(&0);
    Ok(match text(&case.input, "tag").unwrap_or_default() {
        "same_object" => same(&Tensor { object: left.object, ..shared }),
        "slice_same_offset" | "slice_other_offset" | "dtype_view" | "parameter_vs_data"
        | "unbind_first" | "frombuffer_shared" => same(&shared),
        "clone" | "equal_value_other_storage" | "negated_stride_flip" => same(&right),
        // PyTorch gives storages without bytes the address 0.
        "both_empty" => same(&shared),
        _ if left.device == Device::Meta
            || right.device == Device::Meta
            || case.input["left"]["layout"] != case.input["right"]["layout"] =>
        {
            same(&right)
        }
        // A tag that says nothing to us: the record must fit one way of making the two, and decides
        // which.
        _ => {
            let made = [right.clone(), shared.clone(), Tensor { object: left.object, ..shared }];
            let recorded = |right: &&Tensor| {
                case.recorded
                    == Outcome::Output(json!(ties::same_tensor_storage(
                        &left,
                        right,
                        Compat::Reference
                    )))
            };
            assert!(
                !(empty(&left) && empty(&right))
                    || compat == Compat::Strict
                    || case.recorded == Outcome::Output(json!(true))
            );
            made.iter().find(recorded).map_or(Json::Null, same)
        }
    })
}

fn format_bytes(number: &PyNumber, compat: Compat) -> Result<Json, Raised> {
    match compat {
        Compat::Reference => reference::format_bytes(number).map(|text| json!(text)),
        Compat::Strict => unsigned(number).map(|number| json!(sizes::format_bytes(number))),
    }
}

fn file_count(number: &PyNumber, compat: Compat) -> Result<Json, Raised> {
    match compat {
        Compat::Reference => Ok(json!(reference::format_output_file_count(number))),
        Compat::Strict => {
            unsigned(number).map(|number| json!(sizes::format_output_file_count(number)))
        }
    }
}

/// What the typed functions take; a caller that has anything else can't make the call.
fn unsigned(number: &PyNumber) -> Result<u64, Raised> {
    match number {
        PyNumber::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
    .ok_or_else(|| Raised::new("TypeError", "not an unsigned integer of 64 bits"))
}

fn index_total_size(input: &Input, compat: Compat) -> Result<Json, Raised> {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = match text(input, "content_latin1") {
        Some(content) => content.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect(),
        None => br#"{"metadata": {"total_size": 123}}"#.to_vec(),
    };
    let write = |name: &str| {
        fs::write(dir.path().join(name), &bytes).unwrap();
        dir.path().join(name)
    };
    let path = match input["path"].as_str() {
        None => None,
        Some("missing_file") => Some(dir.path().join("nothing.json")),
        Some("dir_without_index") => Some(dir.path().to_owned()),
        Some("dir") => {
            write(sizes::INDEX_NAME);
            Some(dir.path().to_owned())
        }
        Some("other_name") => Some(write("other.json")),
        Some(_) => Some(write(sizes::INDEX_NAME)),
    };
    let size = sizes::get_safetensors_index_total_size(path.as_deref(), compat)?;
    Ok(size.map_or(Json::Null, |size| case::number_to_json(&size)))
}

fn resolve_trust(input: &Input, compat: Compat) -> Result<Json, Raised> {
    // The call was made where this was a directory; that place was a directory under /tmp.
    let here = tempfile::tempdir().unwrap();
    if let Some(dir) = text(input, "cwd_has_dir") {
        fs::create_dir_all(here.path().join(dir)).unwrap();
    }
    let is_dir = |path: &Path| match path.strip_prefix("/tmp") {
        Ok(below) => here.path().join(below.components().skip(1).collect::<PathBuf>()).is_dir(),
        Err(_) => here.path().join(path).is_dir(),
    };
    let resolve = |name: Option<&str>| {
        Ok(json!(trust::resolve_trust_remote_code(name, trust::REFERENCE_PATTERNS, is_dir, compat)))
    };
    let Some(repr) = text(input, "name_repr") else { return resolve(text(input, "name")) };
    let name = match repr {
        "Path existing dir" => ModelName::Path("/tmp".into(), "PosixPath"),
        repr if repr.starts_with("Path") => ModelName::Path("nvidia/not-there".into(), "PosixPath"),
        repr if repr.starts_with("int 0") || ["None", "False", "''", "[]"].contains(&repr) => {
            ModelName::Falsy
        }
        repr if repr.starts_with("b'") || repr.starts_with("bytes") => {
            ModelName::Bytes(b"nvidia/not-there".to_vec())
        }
        repr if repr.starts_with("int") => ModelName::Int("int"),
        "True" | "bool True" => ModelName::Int("bool"),
        repr => ModelName::Other(repr.split([' ', '(']).next().unwrap_or_default().to_owned()),
    };
    match (compat, &name) {
        (Compat::Reference, name) => {
            reference::resolve_trust_remote_code(name, is_dir).map(|trusted| json!(trusted))
        }
        (Compat::Strict, ModelName::Path(path, _)) => resolve(path.to_str()),
        (Compat::Strict, ModelName::Falsy) => resolve(None),
        // No text: the call can't be made.
        (Compat::Strict, _) => Err(Raised::new("TypeError", "not text")),
    }
}

fn checkpoint_dtypes(case: &Case, compat: Compat) -> Result<Json, Raised> {
    let dir = tempfile::tempdir().unwrap();
    let made = checkpoints::make(dir.path(), case);
    let options = DtypeOptions {
        gguf: made.gguf,
        transformers_weights: made.transformers_weights,
        ..DtypeOptions::default()
    };
    let dtypes = dtypes::get_checkpoint_tensor_dtypes(&made.path, &options, compat).map_err(
        |mut raised| {
            raised.message = raised.message.replace(made.path.to_str().unwrap(), "<checkpoint>");
            raised
        },
    )?;
    Ok(dtypes
        .into_iter()
        .map(|(key, dtype)| (key, json!(dtype.name())))
        .collect::<Map<_, _>>()
        .into())
}
