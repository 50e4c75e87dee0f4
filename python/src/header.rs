//! What a plan starts from, as Python has it: keys with dtypes and shapes, a config, the keys of a target.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};
use regraft::key::Key;
use regraft::tensor::{Dtype, TensorInfo};

use crate::errors;

/// Keys with dtypes and shapes.
#[pyclass(frozen, module = "regraft._regraft")]
pub(crate) struct Header {
    pub(crate) header: Arc<regraft::tensor::Header>,
}

#[pymethods]
impl Header {
    /// From columns of one length: keys, names of dtypes, shapes.
    #[new]
    pub(crate) fn new(keys: &Bound<'_, PyList>, dtypes: &Bound<'_, PyList>, shapes: &Bound<'_, PyList>) -> PyResult<Self> {
        if keys.len() != dtypes.len() || keys.len() != shapes.len() {
            return Err(PyValueError::new_err("the columns of a header have one length"));
        }
        let mut header = regraft::tensor::Header::default();
        header.tensors.reserve(keys.len());
        for ((key, dtype), shape) in keys.iter().zip(dtypes.iter()).zip(shapes.iter()) {
            let entry = regraft::tensor::Entry { info: info(&dtype, &shape)?, location: None };
            header.tensors.insert(text_key(&key)?, entry);
        }
        Ok(Self { header: Arc::new(header) })
    }
}

fn text_key(key: &Bound<'_, PyAny>) -> PyResult<Key> {
    Ok(Key::from(&*key.cast::<PyString>()?.to_cow()?))
}

fn info(dtype: &Bound<'_, PyAny>, shape: &Bound<'_, PyAny>) -> PyResult<TensorInfo> {
    let name = dtype.cast::<PyString>()?.to_cow()?;
    let dtype: Dtype =
        name.parse().map_err(|()| PyValueError::new_err(format!("no dtype of the safetensors format is called {name:?}")))?;
    let shape = shape.cast::<PyTuple>()?.iter().map(|size| size.extract()).collect::<PyResult<Vec<u64>>>()?;
    Ok(TensorInfo::new(dtype, shape))
}

/// A model's configuration.
#[pyclass(frozen, module = "regraft._regraft")]
pub(crate) struct Config {
    pub(crate) config: regraft::config::Config,
}

#[pymethods]
impl Config {
    /// From JSON text.
    #[new]
    fn new(text: &str) -> PyResult<Self> {
        match serde_json::from_str(text) {
            Ok(value @ (serde_json::Value::Object(_) | serde_json::Value::Null)) => {
                Ok(Self { config: regraft::config::Config::from_value(value) })
            }
            Ok(_) => Err(PyValueError::new_err("a config is a mapping")),
            Err(error) => Err(PyValueError::new_err(format!("not a config: {error}"))),
        }
    }

    /// Reads a JSON file, or a directory's config.json.
    #[staticmethod]
    fn read(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let read = py.detach(|| regraft::config::Config::read(&path));
        read.map(|config| Self { config }).map_err(|error| errors::world(py, &error))
    }
}

/// The keys that a target asks for.
#[pyclass(frozen, module = "regraft._regraft")]
pub(crate) struct Wanted {
    pub(crate) wanted: regraft::tensor::Wanted,
}

#[pymethods]
impl Wanted {
    /// From columns of one length: keys; names of dtypes and shapes, `None` where only the key is known.
    #[new]
    fn new(keys: &Bound<'_, PyList>, dtypes: &Bound<'_, PyList>, shapes: &Bound<'_, PyList>) -> PyResult<Self> {
        if keys.len() != dtypes.len() || keys.len() != shapes.len() {
            return Err(PyValueError::new_err("the columns of a target have one length"));
        }
        let mut wanted = regraft::tensor::Wanted::default();
        for ((key, dtype), shape) in keys.iter().zip(dtypes.iter()).zip(shapes.iter()) {
            let info = if dtype.is_none() { None } else { Some(info(&dtype, &shape)?) };
            wanted.keys.insert(text_key(&key)?, info);
        }
        Ok(Self { wanted })
    }

    /// Reads a checkpoint, an index, a manifest, or a list of keys.
    #[staticmethod]
    fn read(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let read = py.detach(|| crate::pool::with_threads(|| regraft::tensor::Wanted::read(&path)));
        read.map(|wanted| Self { wanted }).map_err(|error| errors::world(py, &error))
    }
}
