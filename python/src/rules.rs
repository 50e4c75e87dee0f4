//! Rules: loaded from the library or a file, or compiled from text.

use std::sync::Arc;

use pyo3::prelude::*;
use regraft::diagnostic::SourceText;
use regraft::overview::Page;

use crate::errors;

/// Checked rules.
#[pyclass(frozen, module = "regraft._regraft")]
pub(crate) struct Rules {
    pub(crate) rules: regraft::Rules,
}

#[pymethods]
impl Rules {
    /// What makes them again in another process: their text, under the name by which `use` finds
    /// what lies beside it.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (String, String))> {
        let again = py.import("regraft._regraft")?.getattr("compile_as")?;
        Ok((again, (self.rules.source.name.clone(), self.rules.source.text.clone())))
    }

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

    /// A part of a page for a notebook.
    fn to_html(&self) -> String {
        Page::of_rules(&self.rules).fragment()
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
    py.detach(|| regraft::load(name))
        .map(|rules| Rules { rules })
        .map_err(|error| errors::load(py, &error))
}

/// Checks rules given as text.
#[pyfunction]
pub(crate) fn compile(py: Python<'_>, text: &str) -> PyResult<Rules> {
    py.detach(|| regraft::compile(text))
        .map(|rules| Rules { rules })
        .map_err(|error| errors::rules(py, &error))
}

/// Checks rules given as text, which stand in a file of this name.
#[pyfunction]
pub(crate) fn compile_as(py: Python<'_>, name: &str, text: &str) -> PyResult<Rules> {
    let source = Arc::new(SourceText { name: name.to_owned(), text: text.to_owned() });
    let made = py.detach(|| regraft::check::check(&source, &regraft::library::Library::default()));
    made.map(|rules| Rules { rules }).map_err(|error| errors::rules(py, &error))
}

/// Names of the embedded rule files.
#[pyfunction]
pub(crate) fn library_names() -> Vec<&'static str> {
    regraft::library::names().collect()
}
