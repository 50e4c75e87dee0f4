//! Boxes of a plan's targets, read from files into bytes that Python owns.

use std::sync::atomic::AtomicBool;

use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use regraft::execute::{Destination, Report, read_boxes};
use regraft::plan::TargetBox;

use crate::errors;
use crate::files::Checkpoint;
use crate::memory::{self, Place};
use crate::plan::Plan;
use crate::pool::with_threads;

/// A box: the target's key, its first element and how many along each dimension.
pub(crate) type Asked = (String, Vec<u64>, Vec<u64>);

/// Reads boxes of targets, each from the given byte of what it gives, and with the given number of
/// bytes, in row-major order. Gives the bytes of all, and what was done as JSON.
#[pyfunction]
pub(crate) fn read<'py>(
    py: Python<'py>,
    checkpoint: PyRef<'_, Checkpoint>,
    plan: PyRef<'_, Plan>,
    boxes: Vec<Asked>,
    places: Vec<(usize, usize)>,
    size: usize,
) -> PyResult<(Bound<'py, PyByteArray>, String)> {
    let (source, plan) = (&*checkpoint.checkpoint, &plan.planned.plan);
    let mut done = Ok(Ok(Report::default()));
    let bytes = PyByteArray::new_with(py, size, |bytes| {
        let read = |cancel: Option<&AtomicBool>| {
            let mut wanted = Vec::with_capacity(boxes.len());
            let (mut rest, mut before) = (bytes, 0usize);
            for ((key, start, shape), (at, len)) in boxes.into_iter().zip(places) {
                let outside = || regraft::Error::corrupt("places overlap, or leave the bytes");
                let skip = at.checked_sub(before).ok_or_else(outside)?;
                let (_, from) = rest.split_at_mut_checked(skip).ok_or_else(outside)?;
                let (own, later) = from.split_at_mut_checked(len).ok_or_else(outside)?;
                (rest, before) = (later, at + len);
                wanted.push(Destination::row_major(TargetBox::new(key, start, shape), own));
            }
            with_threads(|| read_boxes(plan, source, &mut wanted, cancel))
        };
        done = checkpoint.waiting(py, read);
        Ok(())
    })?;
    Ok((bytes, errors::report(py, done?)?))
}

/// Reads boxes of targets into memory at addresses: each from the first byte to the last of its
/// elements, with its strides in elements. Gives what was done as JSON.
#[pyfunction]
pub(crate) fn read_into(
    py: Python<'_>,
    checkpoint: PyRef<'_, Checkpoint>,
    plan: PyRef<'_, Plan>,
    boxes: Vec<Asked>,
    places: Vec<Place>,
    strides: Vec<Vec<u64>>,
) -> PyResult<String> {
    let (source, plan) = (&*checkpoint.checkpoint, &plan.planned.plan);
    let done = checkpoint.waiting(py, |cancel| {
        memory::writable(&places, |buffers| {
            let mut wanted: Vec<Destination<'_>> = boxes
                .into_iter()
                .zip(buffers)
                .zip(strides)
                .map(|(((key, start, shape), buffer), strides)| {
                    let part = TargetBox::new(key, start, shape);
                    Destination { part, buffer, strides: Some(strides) }
                })
                .collect();
            with_threads(|| read_boxes(plan, source, &mut wanted, cancel))
        })
    })?;
    let done = done.ok_or_else(|| errors::fault(py, "tensors to read into share memory"))?;
    errors::report(py, done)
}
