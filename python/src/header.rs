//! What a plan starts from, as Python has it: keys with dtypes and shapes, a config, the keys of a
//! target.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple, PyType};
use regraft::conversion::Goal;
use regraft::key::Key;
use regraft::tensor::{Dtype, Shape, TensorInfo};

use crate::errors;

/// Keys with dtypes and shapes.
#[pyclass(frozen, module = "regraft._regraft")]
pub(crate) struct Header {
    pub(crate) header: Arc<regraft::tensor::Header>,
}

#[pymethods]
impl Header {
    /// From columns of one length: keys, names of dtypes, shapes; and, if it is of files, their
    /// metadata, the keys that lie in one place, and what is odd about them, as JSON.
    #[new]
    #[pyo3(signature = (keys, dtypes, shapes, metadata = BTreeMap::new(), shared = Vec::new(), remarks = None))]
    fn new(
        keys: &Bound<'_, PyList>,
        dtypes: &Bound<'_, PyList>,
        shapes: &Bound<'_, PyList>,
        metadata: BTreeMap<String, String>,
        shared: Vec<Vec<String>>,
        remarks: Option<&str>,
    ) -> PyResult<Self> {
        let mut header = of_columns(keys, dtypes, shapes)?;
        (header.metadata, header.shared) = (metadata, to_keys(&shared));
        if let Some(remarks) = remarks {
            let read = serde_json::from_str(remarks);
            header.remarks =
                read.map_err(|error| PyValueError::new_err(format!("no remarks: {error}")))?;
        }
        Ok(Self { header: Arc::new(header) })
    }

    /// What makes it again in another process.
    #[allow(clippy::type_complexity)]
    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(
        Bound<'py, PyType>,
        (
            Bound<'py, PyList>,
            Bound<'py, PyList>,
            Bound<'py, PyList>,
            BTreeMap<String, String>,
            Vec<Vec<String>>,
            Option<String>,
        ),
    )> {
        let (keys, dtypes, shapes) = (PyList::empty(py), PyList::empty(py), PyList::empty(py));
        for (key, entry) in &self.header.tensors {
            keys.append(key.as_str())?;
            let (dtype, shape) = column(py, &entry.info)?;
            dtypes.append(dtype)?;
            shapes.append(shape)?;
        }
        let remarks = serde_json::to_string(&self.header.remarks).ok();
        let (metadata, shared) = (self.header.metadata.clone(), to_texts(&self.header.shared));
        Ok((py.get_type::<Self>(), (keys, dtypes, shapes, metadata, shared, remarks)))
    }
}

/// A header from columns of one length: keys, names of dtypes, shapes.
pub(crate) fn of_columns(
    keys: &Bound<'_, PyList>,
    dtypes: &Bound<'_, PyList>,
    shapes: &Bound<'_, PyList>,
) -> PyResult<regraft::tensor::Header> {
    if keys.len() != dtypes.len() || keys.len() != shapes.len() {
        return Err(PyValueError::new_err("the columns of a header have one length"));
    }
    let mut header = regraft::tensor::Header::default();
    header.tensors.reserve(keys.len());
    for ((key, dtype), shape) in keys.iter().zip(dtypes.iter()).zip(shapes.iter()) {
        let entry = regraft::tensor::Entry { info: info(&dtype, &shape)?, location: None };
        header.tensors.insert(text_key(&key)?, entry);
    }
    Ok(header)
}

/// Groups of keys, from texts.
fn to_keys(groups: &[Vec<String>]) -> Vec<Vec<Key>> {
    let keys = |group: &Vec<String>| group.iter().map(|key| Key::from(key.as_str())).collect();
    groups.iter().map(keys).collect()
}

/// Groups of keys, as texts.
fn to_texts(groups: &[Vec<Key>]) -> Vec<Vec<String>> {
    groups.iter().map(|group| group.iter().map(ToString::to_string).collect()).collect()
}

/// Makes tuples of shapes. Tensors that follow each other often have one shape, and share its tuple.
pub(crate) struct Shapes<'py, 'a> {
    py: Python<'py>,
    last: Option<(&'a Shape, Bound<'py, PyTuple>)>,
}

impl<'py, 'a> Shapes<'py, 'a> {
    pub(crate) fn new(py: Python<'py>) -> Self {
        Self { py, last: None }
    }

    pub(crate) fn tuple(&mut self, shape: &'a Shape) -> PyResult<Bound<'py, PyTuple>> {
        if let Some((last, tuple)) = &self.last
            && *last == shape
        {
            return Ok(tuple.clone());
        }
        let tuple = PyTuple::new(self.py, shape.iter())?;
        self.last = Some((shape, tuple.clone()));
        Ok(tuple)
    }
}

/// dtype and shape as columns have them.
fn column<'py>(
    py: Python<'py>,
    info: &TensorInfo,
) -> PyResult<(Bound<'py, PyString>, Bound<'py, PyTuple>)> {
    Ok((PyString::intern(py, info.dtype.name()), PyTuple::new(py, info.shape.iter())?))
}

fn text_key(key: &Bound<'_, PyAny>) -> PyResult<Key> {
    Ok(Key::from(&*key.cast::<PyString>()?.to_cow()?))
}

fn info(dtype: &Bound<'_, PyAny>, shape: &Bound<'_, PyAny>) -> PyResult<TensorInfo> {
    let name = dtype.cast::<PyString>()?.to_cow()?;
    let dtype: Dtype = name.parse().map_err(|_| {
        PyValueError::new_err(format!("no dtype of the safetensors format is called {name:?}"))
    })?;
    let shape = shape
        .cast::<PyTuple>()?
        .iter()
        .map(|size| size.extract())
        .collect::<PyResult<Vec<u64>>>()?;
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

    /// What makes it again in another process.
    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyType>, (String,)) {
        (py.get_type::<Self>(), (self.config.value().to_string(),))
    }

    /// Reads the config.json of a directory; empty if there is none.
    #[staticmethod]
    fn beside(py: Python<'_>, directory: PathBuf) -> PyResult<Self> {
        let read = py.detach(|| regraft::conversion::config_in(&directory));
        read.map(|config| Self { config }).map_err(|error| errors::world(py, &error))
    }

    /// Reads a JSON file, or a directory's config.json.
    #[staticmethod]
    fn read(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let read = py.detach(|| regraft::conversion::read_config(&path));
        read.map(|config| Self { config }).map_err(|error| errors::world(py, &error))
    }
}

/// The keys that a target asks for.
#[pyclass(frozen, module = "regraft._regraft")]
pub(crate) struct Wanted {
    pub(crate) wanted: regraft::tensor::Wanted,
    /// Whether the order of its keys says something, as that of a module's does and that of a
    /// file's doesn't.
    pub(crate) in_order: bool,
    /// Keys that are one tensor in the module that loads.
    pub(crate) shared: Vec<Vec<Key>>,
}

impl Wanted {
    /// What a conversion is for: all of it, or a part, whose neighbours are not known.
    pub(crate) fn target(&self, part: bool) -> Goal {
        let wanted = self.wanted.clone();
        let target = if part { Goal::stage(wanted) } else { Goal::whole(wanted) };
        target.shared(self.shared.clone())
    }
}

#[pymethods]
impl Wanted {
    /// From columns of one length: keys; names of dtypes and shapes, `None` where only the key is
    /// known.
    #[new]
    #[pyo3(signature = (keys, dtypes, shapes, in_order = true, shared = Vec::new()))]
    fn new(
        keys: &Bound<'_, PyList>,
        dtypes: &Bound<'_, PyList>,
        shapes: &Bound<'_, PyList>,
        in_order: bool,
        shared: Vec<Vec<String>>,
    ) -> PyResult<Self> {
        if keys.len() != dtypes.len() || keys.len() != shapes.len() {
            return Err(PyValueError::new_err("the columns of a target have one length"));
        }
        let mut wanted = regraft::tensor::Wanted::default();
        for ((key, dtype), shape) in keys.iter().zip(dtypes.iter()).zip(shapes.iter()) {
            let info = if dtype.is_none() { None } else { Some(info(&dtype, &shape)?) };
            wanted.keys.insert(text_key(&key)?, info);
        }
        Ok(Self { wanted, in_order, shared: to_keys(&shared) })
    }

    /// What makes it again in another process.
    #[allow(clippy::type_complexity)]
    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(
        Bound<'py, PyType>,
        (Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyList>, bool, Vec<Vec<String>>),
    )> {
        let (keys, dtypes, shapes) = (PyList::empty(py), PyList::empty(py), PyList::empty(py));
        for (key, info) in &self.wanted.keys {
            keys.append(key.as_str())?;
            match info {
                Some(info) => {
                    let (dtype, shape) = column(py, info)?;
                    dtypes.append(dtype)?;
                    shapes.append(shape)?;
                }
                None => {
                    dtypes.append(py.None())?;
                    shapes.append(py.None())?;
                }
            }
        }
        let shared = to_texts(&self.shared);
        Ok((py.get_type::<Self>(), (keys, dtypes, shapes, self.in_order, shared)))
    }

    /// Reads a checkpoint, an index, a manifest, or a list of keys.
    #[staticmethod]
    fn read(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let read = py.detach(|| crate::pool::with_threads(|| regraft::tensor::Wanted::read(&path)));
        read.map(|wanted| Self { wanted, in_order: false, shared: Vec::new() })
            .map_err(|error| errors::world(py, &error))
    }
}
