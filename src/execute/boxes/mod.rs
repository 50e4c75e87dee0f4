//! Boxes of targets are read into memory that the caller holds, as a rank of a sharded model does
//! with its part of each tensor.
//!
//! Nothing whole is made: a box is compiled to its own pieces, only the bytes that they touch are
//! read, and what is read goes to its place in the caller's memory, wherever that puts it. Each
//! stretch of that memory that nothing else is written to is a [`Region`]; regions are read in
//! the order of the source, many at once ([`batch`]).

mod batch;
mod region;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::execute::fuse::compile::{AsStored, compile};
use crate::execute::fuse::gather::{bytes_of, outside};
use crate::execute::fuse::layout::MAX_PIECES;
use crate::execute::leaves::StoreLeaves;
use crate::execute::{Report, temporary};
use crate::plan::{NodeId, Plan, TargetBox};
use crate::store::{Counted, Store};
use crate::tensor::{TensorInfo, strided};
use region::Region;

/// A box of a target, and where its elements are put.
#[derive(Debug)]
pub struct Destination<'a> {
    /// The box.
    pub part: TargetBox,
    /// Where its first element is put, and what follows.
    pub buffer: &'a mut [u8],
    /// How far one step along each dimension goes in the buffer, in elements; row-major order if
    /// `None`. What lies between stays as it is.
    pub strides: Option<Vec<u64>>,
}

impl<'a> Destination<'a> {
    /// A box in row-major order.
    pub fn row_major(part: TargetBox, buffer: &'a mut [u8]) -> Self {
        Self { part, buffer, strides: None }
    }

    /// Refuses strides that don't fit, or a buffer that is too short; forgets strides that are
    /// those of the row-major order.
    fn check(&mut self, info: &TensorInfo) -> Result<()> {
        let refused = |what: String| Err(Error::new(ErrorKind::Unsupported, what));
        let (shape, bits) = (&info.shape, u64::from(info.dtype.bits()));
        if let Some(strides) = &self.strides {
            if strides.len() != shape.len() {
                return refused(format!("{} strides for a box of {info}", strides.len()));
            }
            if shape.is_row_major(strides) {
                self.strides = None;
            }
        }
        let numel = info.numel().unwrap_or(u64::MAX);
        let Some(strides) = self.strides.as_ref().filter(|_| numel > 0) else {
            return match info.nbytes() {
                Some(bytes) if bytes <= self.buffer.len() as u64 => Ok(()),
                _ => refused(format!("{} bytes are no room for {info}", self.buffer.len())),
            };
        };
        if bits < 8 {
            return refused(format!("{info} has less than a byte an element: no strides fit it"));
        }
        let mut dims: Vec<(u64, u64)> =
            strides.iter().copied().zip(shape.iter().copied()).filter(|(_, n)| *n > 1).collect();
        dims.sort_unstable();
        let mut span = 1u64;
        for (stride, n) in dims {
            if stride < span {
                return refused(format!("strides {strides:?} put elements of {info} in one place"));
            }
            let more = (n - 1).checked_mul(stride);
            span = match more.and_then(|more| span.checked_add(more)) {
                Some(span) => span,
                None => return refused(format!("strides {strides:?} exceed 64 bits")),
            };
        }
        match span.checked_mul(bits / 8) {
            Some(bytes) if bytes <= self.buffer.len() as u64 => Ok(()),
            _ => refused(format!(
                "{} bytes are no room for {info} with strides {strides:?}",
                self.buffer.len()
            )),
        }
    }
}

/// Reads boxes of a plan's targets from the checkpoint that it was made for, in parallel.
///
/// What the boxes don't touch isn't read, but for gaps that are cheaper read through than read
/// around, as the store says ([`Store::hints`]). Equal boxes of tied keys are read once. If it fails,
/// what is in the buffers is no tensor.
///
/// # Errors
/// If the plan has no such target or box, a buffer is too short or its strides put two elements in
/// one place, the plan doesn't fit the store, an op isn't defined on its dtype, reading fails, or
/// `cancel` is set from another thread.
pub fn read_boxes(
    plan: &Plan,
    source: &dyn Store,
    wanted: &mut [Destination<'_>],
    cancel: Option<&AtomicBool>,
) -> Result<Report> {
    read_within(plan, source, wanted, (batch::budget(), MAX_PIECES), cancel)
}

/// As [`read_boxes`], with so many bytes for each thread, and another limit of pieces.
pub(super) fn read_within(
    plan: &Plan,
    source: &dyn Store,
    wanted: &mut [Destination<'_>],
    (budget, limit): (u64, usize),
    cancel: Option<&AtomicBool>,
) -> Result<Report> {
    let boxes: Vec<TargetBox> = wanted.iter().map(|wanted| wanted.part.clone()).collect();
    let narrowed = plan.boxed(&boxes).map_err(|why| {
        Error::new(ErrorKind::Unsupported, why.message()).at_key(why.key().as_str())
    })?;
    for (wanted, target) in wanted.iter_mut().zip(&narrowed.targets) {
        let checked = wanted.check(narrowed.info(target));
        checked.map_err(|error| error.at_key(target.key.as_str()))?;
    }
    let source = Counted::new(source);
    let all: Vec<usize> = (0..narrowed.targets.len()).collect();
    let program = compile(&narrowed, &AsStored(&source), &all, limit)?;
    let mut report = Report::default();
    let mut leaves = StoreLeaves::new(&narrowed, &source, &program);
    let temporaries = program.temporaries.iter().copied();
    let before = temporary::evaluate_all(&mut leaves, temporaries, cancel, &mut report)?;
    // Of destinations for one and the same box, the first is read into, the others copy it.
    let mut first: HashMap<NodeId, usize> = HashMap::new();
    let firsts: Vec<usize> = (0..)
        .zip(&narrowed.targets)
        .map(|(at, target)| *first.entry(target.node).or_insert(at))
        .collect();
    let overflowed: Vec<AtomicU64> = program
        .layouts
        .iter()
        .map(|layout| AtomicU64::new(layout.overflowed_before(&before)))
        .collect();
    let mut regions: Vec<Region<'_>> = Vec::new();
    for (at, wanted) in wanted.iter_mut().enumerate().filter(|(at, _)| firsts[*at] == *at) {
        let target = &narrowed.targets[at];
        let made = region::regions(&program.layouts[at], wanted, budget, (&target.key, at));
        regions.extend(made.map_err(|error| error.at_key(target.key.as_str()))?);
    }
    batch::read(&leaves, regions, budget, cancel, &overflowed)?;
    source.unchanged()?;
    for at in (0..wanted.len()).filter(|at| firsts[*at] != *at) {
        let (before, from) = wanted.split_at_mut(at);
        let to = from.first_mut().ok_or_else(outside)?;
        again(narrowed.info(&narrowed.targets[at]), &before[firsts[at]], to)?;
    }
    for (at, layout) in program.layouts.iter().enumerate() {
        let bytes = layout.numel.saturating_mul(layout.size);
        if firsts[at] != at {
            report.aliased += 1;
            report.bytes_aliased += bytes;
        } else {
            report.made(layout.is_copy(), bytes);
        }
        report.overflow(&narrowed.targets[at].key, overflowed[at].load(Ordering::Relaxed));
    }
    report.bytes_read = source.bytes_read();
    Ok(report)
}

/// Copies a box that was read to another destination of the same.
fn again(info: &TensorInfo, from: &Destination<'_>, to: &mut Destination<'_>) -> Result<()> {
    let bits = u64::from(info.dtype.bits());
    if bits < 8 {
        let len = bytes_of(info.nbytes().unwrap_or(0), 1)?;
        let (from, to) = (from.buffer.get(..len), to.buffer.get_mut(..len));
        to.ok_or_else(outside)?.copy_from_slice(from.ok_or_else(outside)?);
        return Ok(());
    }
    let row_major = info.shape.contiguous_strides();
    strided::copy(
        &info.shape,
        bytes_of(bits / 8, 1)?,
        from.buffer,
        from.strides.as_deref().unwrap_or(&row_major),
        to.buffer,
        to.strides.as_deref().unwrap_or(&row_major),
    )
    .ok_or_else(outside)
}
