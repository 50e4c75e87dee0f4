//! Outputs that several processes write, each the parts of a model that it has in memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use regraft::execute::{Outline, Parted, SourceBox, Ties, WriteOptions};

use crate::boxes::Asked;
use crate::errors;
use crate::files::cancellable;
use crate::header::Header;
use crate::memory::{self, Place};
use crate::plan::Plan;
use crate::pool::with_threads;

/// An output that several processes write: the same in each of them, and begun by one.
#[pyclass(frozen, module = "regraft._regraft")]
pub(crate) struct Output {
    plan: Py<Plan>,
    header: Arc<regraft::tensor::Header>,
    out: PathBuf,
    options: WriteOptions<'static>,
    outline: Outline,
    begun: Mutex<Option<Parted>>,
}

#[pymethods]
impl Output {
    #[new]
    #[pyo3(signature = (plan, header, out, *, max_shard_size, single, materialize_ties, force, metadata, side_files, sync))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        plan: Py<Plan>,
        header: PyRef<'_, Header>,
        out: PathBuf,
        max_shard_size: Option<u64>,
        single: bool,
        materialize_ties: bool,
        force: bool,
        metadata: BTreeMap<String, String>,
        side_files: Vec<PathBuf>,
        sync: bool,
    ) -> PyResult<Self> {
        let options = WriteOptions {
            max_shard_size,
            single,
            ties: if materialize_ties { Ties::Materialize } else { Ties::Alias },
            force,
            metadata,
            side_files,
            sync,
            ..WriteOptions::default()
        };
        let header = Arc::clone(&header.header);
        let outline = Outline::new(&plan.get().planned.plan, &header, &out, &options);
        let outline = outline.map_err(|error| errors::world(py, &error))?;
        Ok(Self { plan, header, out, options, outline, begun: Mutex::new(None) })
    }

    /// Bytes of all tensors.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.outline.bytes()
    }

    /// Makes the files in a hidden place; gives that.
    fn begin(&self, py: Python<'_>) -> PyResult<PathBuf> {
        let plan = &self.plan.get().planned.plan;
        let begin = || self.outline.begin(plan, &self.header, &self.out, &self.options);
        let begun = py.detach(|| with_threads(begin)).map_err(|error| errors::world(py, &error))?;
        let place = begun.place().to_owned();
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
        Ok(place)
    }

    /// A place for what processes tell each other.
    fn aside(&self, py: Python<'_>, name: &str) -> PyResult<PathBuf> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun
            .as_ref()
            .map(|begun| begun.aside(name))
            .ok_or_else(|| errors::fault(py, "the output was not begun"))
    }

    /// Writes boxes of sources into the files that were begun, and with `rest` what is made from
    /// none. Gives what was done as JSON.
    fn write(
        &self,
        py: Python<'_>,
        boxes: Vec<Asked>,
        places: Vec<Place>,
        strides: Vec<Vec<u64>>,
        rest: bool,
        into: PathBuf,
    ) -> PyResult<String> {
        let plan = &self.plan.get().planned.plan;
        let written = py.detach(|| {
            memory::readable(&places, |buffers| {
                let parts: Vec<SourceBox<'_>> = boxes
                    .into_iter()
                    .zip(buffers)
                    .zip(strides)
                    .map(|(((key, start, shape), bytes), strides)| SourceBox {
                        key,
                        start: start.into(),
                        shape: shape.into(),
                        bytes,
                        strides: strides.into(),
                    })
                    .collect();
                with_threads(|| self.outline.write(plan, &self.header, &parts, rest, &into, None))
            })
        });
        let written = written.ok_or_else(|| errors::fault(py, "a tensor lies nowhere"))?;
        errors::report(py, written)
    }

    /// Lets the output appear. Gives what was done as JSON.
    fn finish(&self, py: Python<'_>) -> PyResult<String> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        let begun = begun.ok_or_else(|| errors::fault(py, "the output was not begun"))?;
        errors::report(py, cancellable(py, |cancel| begun.finish(&self.outline, Some(cancel)))?)
    }

    /// Removes what was begun.
    fn abandon(&self) {
        drop(self.begun.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
