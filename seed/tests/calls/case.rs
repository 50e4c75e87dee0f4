//! The recorded calls: read from a file, with their inputs as this crate's plain data.

use std::fs;
use std::path::PathBuf;

use regraft::config::Config;
use regraft_seed::dtypes::TorchDtype;
use regraft_seed::reference::PyNumber;
use regraft_seed::{
    DeclaredTies, Device, InputEmbeddings, Layout, Model, Param, PlainStateDict, Tensor,
    TieSupport, Value,
};
use serde_json::{Map, Value as Json, json};

/// What a call gave.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    Output(Json),
    Raises { kind: String, message: String },
}

/// One recorded call.
pub(super) struct Case {
    pub(super) id: String,
    pub(super) function: String,
    pub(super) input: Map<String, Json>,
    pub(super) recorded: Outcome,
}

pub(super) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The calls of a file of the form of `tests/fixtures/cases.json`.
pub(super) fn read(path: PathBuf) -> Vec<Case> {
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file: Json = serde_json::from_str(&with_big_integers_as_text(&text)).unwrap();
    file["cases"].as_array().unwrap().iter().map(case).collect()
}

fn case(case: &Json) -> Case {
    let text = |name: &str| case[name].as_str().unwrap_or_default().to_owned();
    let recorded = match case.get("raises") {
        Some(kind) => {
            Outcome::Raises { kind: kind.as_str().unwrap().to_owned(), message: text("message") }
        }
        None => Outcome::Output(case["output"].clone()),
    };
    Case {
        id: text("id"),
        function: text("function"),
        input: case["input"].as_object().unwrap().clone(),
        recorded,
    }
}

/// What marks an integer beyond 64 bits, which a JSON value can't hold.
const BIG: &str = "@int:";

/// The text with each integer of more than 18 digits as a marked string.
fn with_big_integers_as_text(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        let (before, token) = rest.split_at(at);
        result.push_str(before);
        let end = if token.starts_with('"') {
            string_end(token)
        } else {
            token.find(|c| !"+-.eE0123456789".contains(c)).unwrap_or(token.len())
        };
        let (token, after) = token.split_at(end);
        if token.len() > 18 && token.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()) {
            result.push_str(&format!("\"{BIG}{token}\""));
        } else {
            result.push_str(token);
        }
        rest = after;
    }
    result + rest
}

fn string_end(token: &str) -> usize {
    let mut escaped = true;
    for (at, byte) in token.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    panic!("a string without an end")
}

/// A number of the file as Python had it.
pub(super) fn number(value: &Json) -> PyNumber {
    match value {
        Json::Bool(value) => PyNumber::Bool(*value),
        Json::Number(number) if number.is_f64() => PyNumber::Float(number.as_f64().unwrap()),
        Json::Number(number) => PyNumber::Int(
            number.as_i64().map_or_else(|| i128::from(number.as_u64().unwrap()), i128::from),
        ),
        Json::String(text) => {
            let digits = text.strip_prefix(BIG).unwrap_or_else(|| panic!("no number: {text:?}"));
            digits.parse().map_or_else(|_| PyNumber::Big(digits.to_owned()), PyNumber::Int)
        }
        other => panic!("no number: {other}"),
    }
}

/// The same the other way.
pub(super) fn number_to_json(number: &PyNumber) -> Json {
    match number {
        PyNumber::Bool(value) => json!(value),
        PyNumber::Float(value) => json!(value),
        PyNumber::Int(value) if value.to_string().len() <= 18 => {
            json!(i64::try_from(*value).unwrap())
        }
        other => json!(format!("{BIG}{other}")),
    }
}

pub(super) fn text<'a>(input: &'a Map<String, Json>, name: &str) -> Option<&'a str> {
    input.get(name)?.as_str()
}

pub(super) fn shape(value: &Json) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|size| size.as_u64().unwrap()).collect()
}

pub(super) fn dtype(value: &Json) -> TorchDtype {
    let name = value.as_str().unwrap();
    TorchDtype::from_name(name).unwrap_or_else(|| panic!("unknown dtype {name:?}"))
}

pub(super) fn device(value: Option<&Json>) -> Device {
    if value.is_some_and(|device| device == "meta") { Device::Meta } else { Device::Real }
}

/// A config as the recorded call saw it. `_no_get_text_config` is a config object without that
/// method: its text config can't be reached.
pub(super) fn config(value: &Json) -> Option<Config> {
    let Json::Object(fields) = value else { return None };
    let mut fields = fields.clone();
    if fields.shift_remove("_no_get_text_config").is_some() {
        fields.shift_remove("text_config");
    }
    Some(Config::from_value(Json::Object(fields)))
}

pub(super) fn tie_support(value: Option<&Json>) -> Option<TieSupport> {
    match value?.as_str()? {
        "both" => Some(TieSupport::Both),
        "tied_only" => Some(TieSupport::TiedOnly),
        "untied_only" => Some(TieSupport::UntiedOnly),
        other => panic!("unknown tie support {other:?}"),
    }
}

pub(super) fn model(value: &Json) -> Model {
    let id = |name: &Json| name.as_str().unwrap()[1..].parse::<u64>().unwrap();
    let param = |param: &Json| {
        let mut tensor =
            Tensor::contiguous(shape(&param["shape"]), dtype(&param["dtype"]), id(&param["param"]));
        tensor.storage = id(&param["storage"]);
        tensor.offset = param["offset"].as_u64().unwrap();
        tensor.device = device(param.get("device"));
        Param { name: param["name"].as_str().unwrap().to_owned(), tensor }
    };
    let texts = |list: &Json| {
        list.as_array()
            .unwrap()
            .iter()
            .map(|text| text.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let declared_ties = match &value["tied_weights_keys"] {
        // JSON has made text of keys that were numbers, which the reference passes over.
        Json::Object(ties) => DeclaredTies::Map(
            ties.iter()
                .filter(|(target, _)| target.parse::<i64>().is_err())
                .filter_map(|(target, source)| Some((target.clone(), source.as_str()?.to_owned())))
                .collect(),
        ),
        targets @ Json::Array(_) => DeclaredTies::Targets(texts(targets)),
        _ => DeclaredTies::None,
    };
    let input_embeddings = match value["input_embeddings"].as_str() {
        None | Some("absent" | "raises" | "noncallable") => InputEmbeddings::Unknown,
        Some(module) => InputEmbeddings::Module(module.to_owned()),
    };
    Model {
        params: value["params"].as_array().unwrap().iter().map(param).collect(),
        modules: texts(&value["modules"]),
        config: config(&value["config"]),
        tie_support: tie_support(value.get("tie_support")),
        declared_ties,
        input_embeddings,
    }
}

/// A model's parameters in the file's form, storages and objects numbered as they come.
pub(super) fn params(model: &Model) -> Json {
    let number = |seen: &mut Vec<u64>, id: u64| {
        seen.iter().position(|known| *known == id).unwrap_or_else(|| {
            seen.push(id);
            seen.len() - 1
        })
    };
    let (mut storages, mut objects) = (Vec::new(), Vec::new());
    let param = |param: &Param| {
        let tensor = &param.tensor;
        json!({
            "name": param.name,
            "shape": tensor.shape,
            "dtype": tensor.dtype.name(),
            "storage": format!("s{}", number(&mut storages, tensor.storage)),
            "offset": tensor.offset,
            "param": format!("p{}", number(&mut objects, tensor.object)),
            "device": if tensor.device == Device::Meta { "meta" } else { "cpu" },
        })
    };
    model.params.iter().map(param).collect()
}

/// A state dict of `{"fill": 3.0, "shape": …}` entries, each a storage of its own. Storages count
/// from far above a model's.
pub(super) fn filled_state_dict(value: &Json) -> PlainStateDict {
    let entry = |(id, (key, value)): (u64, (&String, &Json))| {
        let Json::Object(fields) = value else { return (key.clone(), Value::Other) };
        let sizes = fields.get("shape").map_or_else(|| vec![6, 4], shape);
        let dtype = fields.get("dtype").map_or(TorchDtype::Float32, dtype);
        let mut tensor = Tensor::contiguous(sizes, dtype, id);
        tensor.device = device(fields.get("device"));
        (key.clone(), Value::Tensor(tensor))
    };
    (1000..).zip(value.as_object().unwrap()).map(entry).collect()
}

/// A state dict of `[shape, dtype]` entries; text stands for a value that is no tensor.
pub(super) fn sized_state_dict(value: &Json) -> PlainStateDict {
    let entry = |(id, (key, value)): (u64, (&String, &Json))| {
        let tensor =
            value.as_array().map(|pair| Tensor::contiguous(shape(&pair[0]), dtype(&pair[1]), id));
        (key.clone(), tensor.map_or(Value::Other, Value::Tensor))
    };
    (0..).zip(value.as_object().unwrap()).map(entry).collect()
}

/// One side of `same_tensor_storage`, as an object and a storage of its own.
pub(super) fn side(value: &Json, id: u64) -> Tensor {
    let mut tensor = Tensor::contiguous(shape(&value["shape"]), dtype(&value["dtype"]), id);
    if value["layout"] == "strided" {
        tensor.strides = value["stride"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stride| stride.as_i64().unwrap())
            .collect();
        tensor.offset = value["storage_offset"].as_u64().unwrap();
    } else {
        tensor.layout = Layout::Other;
    }
    tensor.device = device(value.get("device"));
    tensor
}
