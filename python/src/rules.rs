//! Rules: loaded from the library or a file, or compiled from text.

use pyo3::prelude::*;

use crate::errors;

/// Checked rules.
#[pyclass(frozen, module = "regraft._regraft")]
pub(crate) struct Rules {
    pub(crate) rules: regraft::Rules,
}

#[pymethods]
impl Rules {
    #[getter]
    fn name(&self) -> &str {
        &self.rules.name
    }

    #[getter]
    fn layouts(&self) -> Option<(String, String)> {
        self.rules.layouts.clone()
    }

    #[getter]
    fn models(&self) -> Vec<String> {
        self.rules.models.clone()
    }

    #[getter]
    fn trust(&self) -> Vec<String> {
        self.rules.trust.clone()
    }

    #[getter]
    fn text(&self) -> &str {
        &self.rules.source.text
    }

    /// Warnings and notes of the check, as JSON.
    #[getter]
    fn findings(&self) -> String {
        errors::json(&self.rules.findings)
    }
}

/// Loads rules by the name of an embedded file, or from a file.
#[pyfunction]
pub(crate) fn load(py: Python<'_>, name: &str) -> PyResult<Rules> {
    py.detach(|| regraft::load(name)).map(|rules| Rules { rules }).map_err(|error| errors::load(py, &error))
}

/// Checks rules given as text.
#[pyfunction]
pub(crate) fn compile(py: Python<'_>, text: &str) -> PyResult<Rules> {
    py.detach(|| regraft::compile(text)).map(|rules| Rules { rules }).map_err(|error| errors::rules(py, &error))
}

/// Names of the embedded rule files.
#[pyfunction]
pub(crate) fn library_names() -> Vec<&'static str> {
    regraft::library::names().collect()
}
