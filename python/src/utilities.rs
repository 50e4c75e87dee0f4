//! The checkpoint utilities (`regraft_seed`) over facts that Python takes from modules and
//! state dicts.
//!
//! `reference` stands for [`Compat::Reference`]: the behaviour of NeMo AutoModel's functions
//! exactly.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt};
use regraft_seed::dtypes::{self, DtypeOptions, TorchDtype};
use regraft_seed::reference::{self, ModelName, PyNumber, Raised};
use regraft_seed::ties::{self, Found};
use regraft_seed::{
    Compat, DeclaredTies, Device, InputEmbeddings, Layout, Param, PlainStateDict, Tensor,
    TieSupport, Value, names, ranks, sizes, trust,
};

use crate::errors;
use crate::header::Config;

fn compat(reference: bool) -> Compat {
    if reference { Compat::Reference } else { Compat::Strict }
}

/// A tensor's facts: shape, name of the dtype, numbers of the object and of the storage, offset,
/// strides, whether it has bytes, whether strided.
type Facts = (Vec<u64>, String, u64, u64, u64, Vec<i64>, bool, bool);

fn tensor(
    (shape, dtype, object, storage, offset, strides, real, strided): Facts,
) -> PyResult<Tensor> {
    Ok(Tensor {
        shape: shape.into(),
        dtype: torch_dtype(&dtype)?,
        object,
        storage,
        offset,
        strides,
        device: if real { Device::Real } else { Device::Meta },
        layout: if strided { Layout::Strided } else { Layout::Other },
    })
}

fn torch_dtype(name: &str) -> PyResult<TorchDtype> {
    TorchDtype::from_name(name)
        .ok_or_else(|| PyTypeError::new_err(format!("regraft doesn't know the dtype {name}")))
}

/// What a module says of itself.
#[pyclass(frozen, module = "regraft._regraft")]
pub(crate) struct Model {
    model: regraft_seed::Model,
}

#[pymethods]
impl Model {
    #[new]
    fn new(
        params: Vec<(String, Facts)>,
        modules: Vec<String>,
        config: Option<PyRef<'_, Config>>,
        tie_support: Option<&str>,
        declared_ties: Option<Vec<(String, String)>>,
        input_embeddings: Option<String>,
    ) -> PyResult<Self> {
        let params = params
            .into_iter()
            .map(|(name, facts)| Ok(Param { name, tensor: tensor(facts)? }))
            .collect::<PyResult<_>>()?;
        let model = regraft_seed::Model {
            params,
            modules,
            config: config.map(|config| config.config.clone()),
            tie_support: match tie_support {
                Some("both") => Some(TieSupport::Both),
                Some("tied_only") => Some(TieSupport::TiedOnly),
                Some("untied_only") => Some(TieSupport::UntiedOnly),
                _ => None,
            },
            declared_ties: declared_ties.map_or(DeclaredTies::None, DeclaredTies::Map),
            input_embeddings: input_embeddings
                .map_or(InputEmbeddings::Unknown, InputEmbeddings::Module),
        };
        Ok(Self { model })
    }

    fn is_tied(&self, reference: bool) -> bool {
        ties::is_tied_word_embeddings(&self.model, compat(reference))
    }

    /// The head: which parameter, and its normalized name.
    fn lm_head(&self, reference: bool) -> Option<(usize, String)> {
        ties::get_lm_head_weight_and_name(&self.model, compat(reference)).map(found)
    }

    /// The input embedding: which parameter, and its normalized name.
    fn input_embeddings(&self, reference: bool) -> Option<(usize, String)> {
        ties::get_input_embeddings_weight_and_name(&self.model, compat(reference)).map(found)
    }

    fn tied_sources(&self, head: Option<&str>, reference: bool) -> Vec<String> {
        ties::get_tied_lm_head_source_names(&self.model, head, compat(reference))
    }

    fn has_local_tied(&self, reference: bool) -> bool {
        ties::has_local_tied_lm_head(&self.model, compat(reference))
    }

    /// Ties. `tie_weights` is the model's own way: it is called, and gives the model anew. The
    /// result is whether the model is tied, and which parameter has to become which other one for
    /// that.
    fn ensure_tied(
        &self,
        py: Python<'_>,
        tie_weights: Option<Bound<'_, PyAny>>,
        reference: bool,
    ) -> PyResult<(bool, Option<(usize, usize)>)> {
        let mut model = self.model.clone();
        let before = RefCell::new(model.clone());
        let raised = RefCell::new(None);
        let mut hook = |model: &mut regraft_seed::Model| {
            let Some(tie_weights) = &tie_weights else { return Ok(()) };
            match tie_weights.call0().and_then(|made| Ok(made.cast::<Model>()?.get().model.clone()))
            {
                Ok(made) => {
                    before.replace(made.clone());
                    *model = made;
                    Ok(())
                }
                Err(error) if error.is_instance_of::<PyAttributeError>(py) => {
                    Err(Raised::new("AttributeError", error.to_string()))
                }
                Err(error) => {
                    let shown = Raised::new("Exception", error.to_string());
                    raised.replace(Some(error));
                    Err(shown)
                }
            }
        };
        let way: Option<&mut ties::TieWeights<'_>> =
            if tie_weights.is_some() { Some(&mut hook) } else { None };
        let tied = ties::ensure_tied_lm_head(&mut model, way, compat(reference));
        if let Some(error) = raised.into_inner() {
            return Err(error);
        }
        let tied = tied.map_err(|error| errors::raised(py, &error))?;
        let before = before.into_inner();
        let objects = |model: &regraft_seed::Model| {
            model.params.iter().map(|param| param.tensor.object).collect::<Vec<_>>()
        };
        let (old, new) = (objects(&before), objects(&model));
        let changed = old.iter().zip(&new).position(|(old, new)| old != new);
        let assigned = changed
            .and_then(|at| Some((at, old.iter().position(|object| new.get(at) == Some(object))?)));
        Ok((tied, assigned))
    }

    /// Which source a missing head has: the head's key, and the key of the state dict that it
    /// aliases or `None` for the model's own head. Nothing if no head is to be added.
    fn materialize(
        &self,
        keys: Vec<String>,
        tensors: Vec<Option<Facts>>,
        allow_current: bool,
        reference: bool,
    ) -> PyResult<Option<(String, Option<String>)>> {
        let value = |facts: Option<Facts>| -> PyResult<Value> {
            Ok(facts.map(tensor).transpose()?.map_or(Value::Other, Value::Tensor))
        };
        let mut dict = keys
            .into_iter()
            .zip(tensors)
            .map(|(key, facts)| Ok((key, value(facts)?)))
            .collect::<PyResult<PlainStateDict>>()?;
        let done = ties::materialize_missing_tied_lm_head(
            &mut dict,
            &self.model,
            allow_current,
            compat(reference),
        );
        Ok(match (done.outcome, done.key) {
            (ties::Outcome::Materialized(ties::HeadSource::Key(source)), Some(key)) => {
                Some((key, Some(source)))
            }
            (ties::Outcome::Materialized(ties::HeadSource::CurrentHead), Some(key)) => {
                Some((key, None))
            }
            _ => None,
        })
    }
}

fn found(found: Found<'_>) -> (usize, String) {
    (found.index, found.name)
}

#[pyfunction]
pub(crate) fn same_tensor_storage(left: Facts, right: Facts, reference: bool) -> PyResult<bool> {
    Ok(ties::same_tensor_storage(&tensor(left)?, &tensor(right)?, compat(reference)))
}

#[pyfunction]
pub(crate) fn controlling_tie(config: &Config, reference: bool) -> bool {
    ties::get_controlling_tie_word_embeddings(&config.config, compat(reference))
}

#[pyfunction]
pub(crate) fn normalize_param_name(name: &str, reference: bool) -> String {
    names::normalize_param_name(name, compat(reference))
}

#[pyfunction]
pub(crate) fn canonical_parameter_fqn(name: &str, reference: bool) -> String {
    names::canonical_parameter_fqn(name, compat(reference))
}

/// The names that wrappers have in keys, as the rule file `wrappers` lists them.
#[pyfunction]
pub(crate) fn wrappers() -> Vec<&'static str> {
    names::wrappers().collect()
}

#[pyfunction]
pub(crate) fn clean_tensor_name(name: &str, reference: bool) -> String {
    names::clean_tensor_name(name, compat(reference))
}

/// The keys of a state dict without a prefix, each with the number of the key that it was; in the
/// order that the state dict then has.
#[pyfunction]
pub(crate) fn consume_prefix(
    py: Python<'_>,
    keys: Vec<String>,
    prefix: &str,
    reference: bool,
) -> PyResult<Vec<(String, usize)>> {
    let mut dict: IndexMap<String, usize> = keys.into_iter().zip(0..).collect();
    let consumed =
        names::consume_prefix_in_state_dict_if_present(&mut dict, prefix, compat(reference));
    consumed.map_err(|error| errors::raised(py, &error))?;
    Ok(dict.into_iter().collect())
}

#[pyfunction]
pub(crate) fn module_by_normalized_name(
    modules: Vec<String>,
    target: &str,
    reference: bool,
) -> Option<String> {
    names::get_module_by_normalized_name(
        modules.iter().map(String::as_str),
        target,
        compat(reference),
    )
    .map(str::to_owned)
}

/// `None` beyond 64 bits.
#[pyfunction]
pub(crate) fn tensor_bytes(shape: Vec<u64>, dtype: &str) -> PyResult<Option<u64>> {
    Ok(sizes::estimate_tensor_bytes(&shape, torch_dtype(dtype)?))
}

/// A number as Python has it.
fn number(value: &Bound<'_, PyAny>) -> PyResult<PyNumber> {
    if let Ok(value) = value.cast::<PyBool>() {
        return Ok(PyNumber::Bool(value.is_true()));
    }
    if let Ok(value) = value.cast::<PyFloat>() {
        return Ok(PyNumber::Float(value.value()));
    }
    if let Ok(value) = value.cast::<PyInt>() {
        return Ok(match value.extract::<i128>() {
            Ok(value) => PyNumber::Int(value),
            Err(_) => PyNumber::Big(value.str()?.to_cow()?.into_owned()),
        });
    }
    Err(PyTypeError::new_err(format!("a number is asked for, not {}", value.get_type().name()?)))
}

fn unsigned(value: &PyNumber) -> PyResult<u64> {
    match value {
        PyNumber::Int(value) => u64::try_from(*value).ok(),
        _ => None,
    }
    .ok_or_else(|| PyTypeError::new_err("an unsigned integer of 64 bits is asked for"))
}

#[pyfunction]
pub(crate) fn format_bytes(
    py: Python<'_>,
    num_bytes: &Bound<'_, PyAny>,
    reference: bool,
) -> PyResult<String> {
    let value = number(num_bytes)?;
    if reference {
        return reference::format_bytes(&value).map_err(|error| errors::raised(py, &error));
    }
    Ok(sizes::format_bytes(unsigned(&value)?))
}

#[pyfunction]
pub(crate) fn format_output_file_count(
    count: &Bound<'_, PyAny>,
    reference: bool,
) -> PyResult<String> {
    let value = number(count)?;
    if reference {
        return Ok(reference::format_output_file_count(&value));
    }
    Ok(sizes::format_output_file_count(unsigned(&value)?))
}

/// The size that an index records, as Python reads the number.
#[pyfunction]
pub(crate) fn index_total_size<'py>(
    py: Python<'py>,
    path: Option<PathBuf>,
    reference: bool,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    use pyo3::IntoPyObjectExt as _;
    let size = sizes::get_safetensors_index_total_size(path.as_deref(), compat(reference))
        .map_err(|error| errors::raised(py, &error))?;
    size.map(|size| match size {
        PyNumber::Bool(value) => value.into_bound_py_any(py),
        PyNumber::Int(value) => value.into_bound_py_any(py),
        PyNumber::Big(digits) => py.get_type::<PyInt>().call1((digits,)),
        PyNumber::Float(value) => value.into_bound_py_any(py),
    })
    .transpose()
}

#[pyfunction]
pub(crate) fn rank(py: Python<'_>, text: Option<&str>, reference: bool) -> PyResult<i128> {
    ranks::get_rank_safe(text, compat(reference)).map_err(|error| errors::raised(py, &error))
}

#[pyfunction]
pub(crate) fn world_size(py: Python<'_>, text: Option<&str>, reference: bool) -> PyResult<i128> {
    ranks::get_world_size_safe(text, compat(reference)).map_err(|error| errors::raised(py, &error))
}

#[pyfunction]
pub(crate) fn is_rank_0(py: Python<'_>, text: Option<&str>, reference: bool) -> PyResult<bool> {
    ranks::is_rank_0(text, compat(reference)).map_err(|error| errors::raised(py, &error))
}

/// `kind` says what Python has: `text`, `path`, `int`, `bytes`, `falsy` or `other`; `class_name`
/// is the name of its type.
#[pyfunction]
pub(crate) fn trust_remote_code(
    py: Python<'_>,
    kind: &str,
    text: &str,
    class_name: &str,
    patterns: Option<Vec<String>>,
    reference: bool,
) -> PyResult<bool> {
    let is_dir = |path: &Path| path.is_dir();
    if !reference {
        let name = (kind != "falsy").then_some(text);
        let given = patterns.unwrap_or_else(|| {
            trust::REFERENCE_PATTERNS.iter().map(|pattern| (*pattern).to_owned()).collect()
        });
        return match kind {
            "text" | "path" | "falsy" => {
                Ok(trust::resolve_trust_remote_code(name, &given, is_dir, Compat::Strict))
            }
            _ => Err(PyTypeError::new_err(format!(
                "a name or a path is asked for, not {class_name}"
            ))),
        };
    }
    let name = match kind {
        "text" => ModelName::Text(text.to_owned()),
        // Only its form is part of an error, and that is Python's.
        "path" => ModelName::Path(text.into(), "PosixPath"),
        "int" => ModelName::Int(if class_name == "bool" { "bool" } else { "int" }),
        "bytes" => ModelName::Bytes(text.as_bytes().to_vec()),
        "falsy" => ModelName::Falsy,
        _ => ModelName::Other(class_name.to_owned()),
    };
    reference::resolve_trust_remote_code(&name, is_dir).map_err(|error| errors::raised(py, &error))
}

/// Key and name of the dtype of each tensor of a checkpoint, from its headers.
#[pyfunction]
pub(crate) fn checkpoint_tensor_dtypes(
    py: Python<'_>,
    path: PathBuf,
    transformers_weights: Option<String>,
    use_safetensors: Option<bool>,
    variant: Option<String>,
    subfolder: Option<String>,
    reference: bool,
) -> PyResult<Vec<(String, &'static str)>> {
    let options =
        DtypeOptions { gguf: false, transformers_weights, use_safetensors, variant, subfolder };
    let dtypes = py.detach(|| {
        crate::pool::with_threads(|| {
            dtypes::get_checkpoint_tensor_dtypes(&path, &options, compat(reference))
        })
    });
    let dtypes = dtypes.map_err(|error| errors::raised(py, &error))?;
    Ok(dtypes.into_iter().map(|(key, dtype)| (key, dtype.name())).collect())
}
