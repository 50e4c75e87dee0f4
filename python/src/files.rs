//! Checkpoints in files: their headers, and conversion into new files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::IntoRawFd as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};
use rayon::prelude::*;
use regraft::check::Direction;
use regraft::config::Config;
use regraft::conversion::{Conversion, Output, config_beside, record_file, side_files_of};
use regraft::diagnostic::Diagnostic;
use regraft::error::Error;
use regraft::execute::{Progress, Rank, Report, Ties, WriteOptions};
use regraft::key::Key;
use regraft::library::Route;
use regraft::overview::Page;
use regraft::plan::implausible;
use regraft::store::{Blob, Files as _, NamedPath, OpenOptions, Store as _, open_named, pinned};
use regraft::tensor::{Entry, Remark};

use crate::errors;
use crate::header::{Header, Shapes};
use crate::plan::Plan;
use crate::pool::with_threads;
use crate::rules::Rules;

/// A checkpoint in files, of which headers are read.
#[pyclass(frozen, module = "regraft._regraft")]
pub(crate) struct Checkpoint {
    pub(crate) checkpoint: Arc<regraft::store::Checkpoint>,
    sources: Vec<PathBuf>,
    allow_outside: bool,
}

impl Checkpoint {
    /// A conversion of it.
    pub(crate) fn conversion(&self) -> Conversion {
        Conversion::of_checkpoint(Arc::clone(&self.checkpoint), &self.sources, self.allow_outside)
    }

    /// Bytes of a tensor from afar, by one request; a signal ends the wait.
    fn fetch<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        offset: u64,
        count: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let checkpoint = &*self.checkpoint;
        let read = self.waiting(py, |_| {
            let mut bytes = vec![0; count];
            checkpoint.read_at(key, offset, &mut bytes).map(|()| bytes)
        })?;
        Ok(PyBytes::new(py, &read.map_err(|error| errors::world(py, &error))?))
    }

    /// Does what may wait for a server, in which case a signal ends the wait: it is told by what
    /// the work is given.
    pub(crate) fn waiting<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(Option<&AtomicBool>) -> T + Send,
    ) -> PyResult<T> {
        let checkpoint = &*self.checkpoint;
        if checkpoint.is_on_disk() {
            return Ok(py.detach(|| work(None)));
        }
        let seen = Seen::default();
        let work = || work(Some(&seen.cancel));
        watched(py, &seen, None, &|| checkpoint.interrupt(), work)
    }

    /// What a plan would say of the files.
    fn odd(&self) -> Vec<Diagnostic> {
        // A config that can't be read is for those to say who need it.
        let config = config_beside(&self.checkpoint).unwrap_or_else(|_| Config::empty());
        implausible(self.checkpoint.header(), &config, None, false)
    }

    /// Where the only box of a tensor lies; `None` if it has several, or no bytes.
    fn place(&self, key: &str, entry: &Entry) -> Option<Place> {
        if !self.checkpoint.is_on_disk() {
            return None;
        }
        if let Some(place) = entry.location {
            return Some((place.file, place.offset, place.len, None));
        }
        if !self.checkpoint.has_bytes() {
            return None;
        }
        let boxes = self.checkpoint.boxes(key).ok()?;
        let part = boxes.get(0).filter(|_| boxes.len() == 1)?;
        let bits = part.span()?.checked_mul(u64::from(entry.info.dtype.bits()))?;
        let strides = (!part.is_row_major()).then(|| part.strides.to_vec());
        Some((part.blob.0, part.offset, bits.div_ceil(8), strides))
    }
}

/// A blob by its number, which for a file is that of the file; the first byte in it; how many
/// bytes from there to the last element; and strides in elements, unless it is one run.
type Place = (u32, u64, u64, Option<Vec<u64>>);

/// Bytes that a thread reads at once: a multiple of the size of any element.
const STRETCH: usize = 1 << 20;

#[pymethods]
impl Checkpoint {
    /// Opens one or several paths as one checkpoint, with a name before the keys of each that has
    /// one; rules may say how the files of ranks are told apart.
    #[new]
    #[pyo3(signature = (paths, strict = true, allow_outside = false, root = None, *, names = None, rules = None, from_layout = None, to_layout = None, reverse = false))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        paths: Vec<PathBuf>,
        strict: bool,
        allow_outside: bool,
        root: Option<String>,
        names: Option<Vec<String>>,
        rules: Option<Vec<PyRef<'_, Rules>>>,
        from_layout: Option<&str>,
        to_layout: Option<&str>,
        reverse: bool,
    ) -> PyResult<Self> {
        let options = OpenOptions { strict, allow_outside, root };
        let ranks = match rules {
            None => None,
            Some(rules) => {
                let rules = rules.iter().map(|rules| rules.rules.clone()).collect();
                Route::named(rules, from_layout, to_layout, reverse)
                    .and_then(|route| Ok(route.rank_files(Direction::Forward)?.cloned()))
                    .map_err(|diagnostics| errors::plan(py, &diagnostics))?
            }
        };
        let mut names = names.unwrap_or_default().into_iter();
        // No name, for keys as they are.
        let mut name = || names.next().filter(|name| !name.is_empty());
        let named: Vec<NamedPath> =
            paths.iter().map(|path| NamedPath { name: name(), path: path.clone() }).collect();
        let opened = py.detach(|| {
            // What is asked of an address later is asked of the same thing.
            let named = pinned(&named)?;
            let opened = with_threads(|| open_named(&named, ranks.as_ref(), &options))?;
            Ok((opened, named.into_iter().map(|one| one.path).collect()))
        });
        let (checkpoint, sources) = opened.map_err(|error: Error| errors::world(py, &error))?;
        Ok(Self { checkpoint: Arc::new(checkpoint), sources, allow_outside })
    }

    /// Columns: keys, names of dtypes, shapes, sizes in bytes (`None` for what no file has), and
    /// places (`None` for what has to be read).
    fn columns<'py>(&self, py: Python<'py>) -> PyResult<[Bound<'py, PyList>; 5]> {
        let header = self.checkpoint.header();
        let columns = std::array::from_fn(|_| PyList::empty(py));
        let [keys, dtypes, shapes, sizes, places] = &columns;
        let mut tuples = Shapes::new(py);
        for (key, entry) in &header.tensors {
            keys.append(key.as_str())?;
            dtypes.append(PyString::intern(py, entry.info.dtype.name()))?;
            shapes.append(tuples.tuple(&entry.info.shape)?)?;
            sizes.append(entry.info.nbytes())?;
            places.append(self.place(key, entry))?;
        }
        Ok(columns)
    }

    /// Bytes of a tensor in row-major order, wherever its parts lie.
    fn read<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        offset: u64,
        count: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        if !self.checkpoint.is_on_disk() {
            return self.fetch(py, key, offset, count);
        }
        let at = |number: usize| offset.saturating_add((number * STRETCH) as u64);
        let read =
            |(number, part): (usize, &mut [u8])| self.checkpoint.read_at(key, at(number), part);
        PyBytes::new_with(py, count, |bytes| {
            let parts = || bytes.par_chunks_mut(STRETCH).enumerate().try_for_each(read);
            py.detach(|| with_threads(parts)).map_err(|error| errors::world(py, &error))
        })
    }

    /// A file in which a blob lies unpacked, as a descriptor for the caller to close, and where in
    /// it the blob begins.
    fn unpacked(&self, py: Python<'_>, blob: u32) -> PyResult<(i32, u64)> {
        let unpacked = py.detach(|| {
            let (file, path, start) = self.checkpoint.file(Blob(blob))?;
            let file = file.try_clone();
            Ok((file.map_err(|error| Error::io("cannot open again", path, error))?, start))
        });
        let (file, start) = unpacked.map_err(|error: Error| errors::world(py, &error))?;
        Ok((file.into_raw_fd(), start))
    }

    /// What a plan starts from, without the files.
    fn as_header(&self) -> Header {
        Header { header: Arc::new(self.checkpoint.header().clone()) }
    }

    #[getter]
    fn metadata(&self) -> BTreeMap<String, String> {
        self.checkpoint.header().metadata.clone()
    }

    #[getter]
    fn directory(&self) -> OsString {
        self.checkpoint.directory().as_os_str().to_owned()
    }

    /// The paths that it was opened from, as they can be opened again: of the same revision.
    #[getter]
    fn sources(&self) -> Vec<OsString> {
        self.sources.iter().map(|path| path.as_os_str().to_owned()).collect()
    }

    /// Whether all files are on a disk, where they can be mapped.
    #[getter]
    fn is_on_disk(&self) -> bool {
        self.checkpoint.is_on_disk()
    }

    /// The files, as places count them.
    #[getter]
    fn paths(&self) -> Vec<OsString> {
        self.checkpoint.paths().map(|path| path.as_os_str().to_owned()).collect()
    }

    /// What is odd about the files but no error, with what a plan would say of them.
    fn notes(&self) -> Vec<String> {
        let found = self.odd();
        let found = found.iter().map(|finding| regraft::diagnostic::render(finding, false));
        self.checkpoint.notes().iter().cloned().chain(found).collect()
    }

    /// A part of a page for a notebook.
    fn to_html(&self, py: Python<'_>) -> String {
        py.detach(|| {
            let title: Vec<String> =
                self.sources.iter().map(|source| source.display().to_string()).collect();
            let (header, notes) = (self.checkpoint.header(), self.checkpoint.notes());
            let mut page = Page::of_header(&title.join(", "), header, notes);
            page.findings = self.odd();
            page.fragment()
        })
    }

    /// Tensors that can't be read: their keys, and what each is.
    fn unreadable(&self) -> Vec<(&str, &str)> {
        let mut found = Vec::new();
        for remark in &self.checkpoint.header().remarks {
            if let Remark::Unreadable { tensors, .. } = remark {
                found.extend(tensors.iter().map(|(key, what)| (key.as_str(), what.as_str())));
            }
        }
        found
    }

    #[getter]
    fn has_bytes(&self) -> bool {
        self.checkpoint.has_bytes()
    }
}

/// The files beside the weights of source directories: config, tokenizer and the like. Not a
/// record: that tells of another conversion.
#[pyfunction]
pub(crate) fn side_files(
    py: Python<'_>,
    sources: Vec<PathBuf>,
    allow_outside: bool,
) -> PyResult<Vec<OsString>> {
    let found = py.detach(|| side_files_of(&sources, allow_outside));
    let found = found.map_err(|error| errors::world(py, &error))?;
    Ok(found.into_iter().map(PathBuf::into_os_string).collect())
}

/// The record beside a checkpoint's files, as it is, and its path.
#[pyfunction]
pub(crate) fn record_beside<'py>(
    py: Python<'py>,
    directory: PathBuf,
) -> PyResult<Option<(Bound<'py, PyBytes>, OsString)>> {
    let found = py.detach(|| record_file(&directory)).map_err(|error| errors::world(py, &error))?;
    Ok(found.map(|(text, path)| (PyBytes::new(py, &text), path.into_os_string())))
}

/// What a person should hear of tensors in which so many elements overflowed, as it is rendered.
#[pyfunction]
pub(crate) fn overflow_findings(overflowed: BTreeMap<String, u64>) -> Vec<String> {
    let overflowed =
        overflowed.into_iter().map(|(key, count)| (Key::from(key.as_str()), count)).collect();
    let report = Report { overflowed, ..Report::default() };
    report.findings().iter().map(|finding| regraft::diagnostic::render(finding, false)).collect()
}

/// How often progress is told and signals are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Carries out a plan of a checkpoint in files into new files; gives the report as JSON.
///
/// The engine runs in a thread of its own. This one waits, tells progress and looks for signals; an
/// exception of either stops the engine, which then leaves nothing behind.
#[pyfunction]
#[pyo3(signature = (plan, out, *, max_shard_size, single, materialize_ties, force, metadata, side_files, write_record, memory, resume, checksums, rank, progress))]
#[allow(clippy::too_many_arguments)]
pub(crate) fn write(
    py: Python<'_>,
    plan: PyRef<'_, Plan>,
    out: PathBuf,
    max_shard_size: Option<u64>,
    single: bool,
    materialize_ties: bool,
    force: bool,
    metadata: BTreeMap<String, String>,
    side_files: bool,
    write_record: bool,
    memory: Option<u64>,
    resume: bool,
    checksums: bool,
    rank: Option<(u32, u32)>,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<String> {
    let seen = Seen::default();
    let see = |progress: Progress| seen.note(progress);
    let mut options = WriteOptions {
        max_shard_size,
        single,
        ties: if materialize_ties { Ties::Materialize } else { Ties::Alias },
        force,
        metadata,
        resume,
        checksums,
        rank: rank
            .map(|(rank, of)| Rank::new(rank, of))
            .transpose()
            .map_err(|why| PyValueError::new_err(why.to_string()))?,
        progress: Some(&see),
        cancel: Some(&seen.cancel),
        ..WriteOptions::default()
    };
    options.memory = memory.unwrap_or(options.memory);
    let mut output = Output::new(options);
    (output.side_files, output.record) = (side_files, write_record);
    let planned = &plan.planned;
    let write = || with_threads(|| planned.write_with(&out, output));
    errors::report(py, watched(py, &seen, progress.as_ref(), &|| planned.interrupt(), write)?)
}

/// How far the engine is, and whether it should stop.
#[derive(Default)]
struct Seen {
    done: AtomicU64,
    total: AtomicU64,
    cancel: AtomicBool,
}

impl Seen {
    fn note(&self, progress: Progress) {
        self.total.store(progress.total, Ordering::Relaxed);
        self.done.fetch_max(progress.done, Ordering::Relaxed);
    }

    /// Tells how far the engine is, if that is news since `last`; gives what was told.
    fn tell(&self, progress: Option<&Bound<'_, PyAny>>, last: u64) -> PyResult<u64> {
        let now = self.done.load(Ordering::Relaxed);
        if let Some(progress) = progress
            && now != last
        {
            progress.call1((now, self.total.load(Ordering::Relaxed)))?;
        }
        Ok(now)
    }
}

/// Runs work that a signal may cancel; gives what came of it, or what the signal raised.
pub(crate) fn cancellable<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&AtomicBool) -> T + Send,
) -> PyResult<T> {
    let seen = Seen::default();
    watched(py, &seen, None, &|| {}, || work(&seen.cancel))
}

/// Runs work in a thread of its own, and meanwhile tells progress and looks for signals, which may
/// stop it, which `interrupt` tells those who wait for a server. Gives what came of it. What stopped
/// it says more than that it was interrupted; what was finished meanwhile stays.
fn watched<T: Send>(
    py: Python<'_>,
    seen: &Seen,
    progress: Option<&Bound<'_, PyAny>>,
    interrupt: &dyn Fn(),
    work: impl FnOnce() -> T + Send,
) -> PyResult<T> {
    let (finished, wait) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let result = work();
            drop(finished);
            result
        });
        let mut stopped = Ok(());
        let mut last = 0;
        // The channel never carries anything: that it closes says that the engine is done, in
        // whatever way.
        let mut wait = wait;
        loop {
            let (state, back) = py.detach(move || (wait.recv_timeout(TICK), wait));
            wait = back;
            if state != Err(mpsc::RecvTimeoutError::Timeout) {
                break;
            }
            if stopped.is_ok() {
                stopped = py
                    .check_signals()
                    .and_then(|()| seen.tell(progress, last))
                    .map(|now| last = now);
                if stopped.is_err() {
                    seen.cancel.store(true, Ordering::Relaxed);
                }
            }
            if stopped.is_err() {
                interrupt();
            }
        }
        if stopped.is_ok() {
            stopped = seen.tell(progress, last).map(|_| ());
        }
        let done = py.detach(|| worker.join());
        stopped?;
        done.map_err(|_| errors::fault(py, "the engine stopped unexpectedly"))
    })
}
