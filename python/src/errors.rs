//! Failures as Python exceptions: classes of `regraft._errors`, or the builtin ones that the
//! checkpoint utilities raise.

use std::path::Path;

use pyo3::prelude::*;
use regraft::diagnostic::{Diagnostic, Diagnostics, render_all};
use regraft::error::{Error, ErrorKind};
use regraft::execute::Report;
use regraft::library::Failure;
use regraft_seed::reference::Raised;

/// An instance of a class of `regraft._errors`; if that fails, why.
fn make<'py>(py: Python<'py>, name: &str, args: impl pyo3::call::PyCallArgs<'py>) -> PyErr {
    match py.import("regraft._errors").and_then(|module| module.getattr(name)?.call1(args)) {
        Ok(instance) => PyErr::from_value(instance),
        Err(error) => error,
    }
}

/// Rules that are wrong.
pub(crate) fn rules(py: Python<'_>, diagnostics: &Diagnostics) -> PyErr {
    make(py, "RulesError", (render_all(&diagnostics.0, false), json(&diagnostics.0)))
}

/// Rules that don't fit a checkpoint.
pub(crate) fn plan(py: Python<'_>, diagnostics: &Diagnostics) -> PyErr {
    make(py, "PlanError", (render_all(&diagnostics.0, false), json(&diagnostics.0)))
}

/// The world failed.
pub(crate) fn world(py: Python<'_>, error: &Error) -> PyErr {
    let name = match error.kind() {
        ErrorKind::Exists => "OutputExistsError",
        ErrorKind::Interrupted => {
            return pyo3::exceptions::PyKeyboardInterrupt::new_err("interrupted");
        }
        _ => "CheckpointError",
    };
    let kind = match error.kind() {
        ErrorKind::Io => "io",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::Limit => "limit",
        ErrorKind::Exists => "exists",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Denied => "denied",
        ErrorKind::NotFound => "not_found",
        ErrorKind::Unavailable => "unavailable",
        _ => "other",
    };
    // An address is no path: a path of Python's would take a slash out of it.
    let file = error.file();
    let (key, advice) = (error.key(), error.advice());
    match file.filter(|file| regraft::store::is_remote(file)) {
        Some(file) => make(py, name, (error.to_string(), kind, file.as_os_str(), key, advice)),
        None => make(py, name, (error.to_string(), kind, file.map(Path::to_path_buf), key, advice)),
    }
}

/// Rules that could not be had.
pub(crate) fn load(py: Python<'_>, error: &Failure) -> PyErr {
    match error {
        Failure::Rules(diagnostics) => rules(py, diagnostics),
        Failure::World(error) => world(py, error),
    }
}

/// An exception that a checkpoint utility raises, by its name in Python.
pub(crate) fn raised(py: Python<'_>, raised: &Raised) -> PyErr {
    make(py, "raised", (raised.kind, raised.message.as_str()))
}

/// Something that only a fault in regraft can cause.
pub(crate) fn fault(py: Python<'_>, what: &str) -> PyErr {
    make(py, "RegraftError", (format!("{what}: this is a fault of regraft, please report it"),))
}

/// What was done, as JSON.
pub(crate) fn report(py: Python<'_>, done: regraft::error::Result<Report>) -> PyResult<String> {
    let report = done.map_err(|error| world(py, &error))?;
    serde_json::to_string(&report).map_err(|_| fault(py, "a report has no JSON form"))
}

/// Diagnostics as JSON, for the structured fields.
pub(crate) fn json(diagnostics: &[Diagnostic]) -> String {
    // Plain data with text keys: it always has a JSON form.
    serde_json::to_string(diagnostics).unwrap_or_else(|_| "[]".to_owned())
}
