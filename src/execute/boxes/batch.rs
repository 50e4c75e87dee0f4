//! Regions are read in the order of the source: what lies close together in a blob is one range of a
//! request, and a request asks for as many ranges as the store likes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rayon::prelude::*;

use super::region::Region;
use crate::error::{Error, Result};
use crate::execute::fuse::compile::{Leaf, Value};
use crate::execute::fuse::gather::{Leaves, Worker, bytes_of, outside, sized, width};
use crate::execute::fuse::layout::{Course, Piece};
use crate::execute::leaves::StoreLeaves;
use crate::execute::not_cancelled;
use crate::store::{Blob, Range};
use crate::tensor::Dtype;

/// Bytes that all threads together hold, and one at most and at least.
const MEMORY: u64 = 64 << 20;
const MOST: u64 = 8 << 20;
const LEAST: u64 = 256 << 10;

/// Bytes that a thread holds.
pub(super) fn budget() -> u64 {
    (MEMORY / rayon::current_num_threads().max(1) as u64).clamp(LEAST, MOST)
}

/// How a region is read.
enum How {
    /// It is a run of a blob: read to its place.
    Run(Span),
    /// What it is made of is read in one go, and put in its place from there: spans by piece and
    /// operand, `None` of what is in memory.
    Spans(Vec<Vec<Option<Span>>>),
    /// It is too large for that, or has large gaps: piece by piece.
    Walk,
}

/// Bytes of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    blob: Blob,
    start: u64,
    end: u64,
}

/// A region to be read.
struct Job<'a> {
    region: Region<'a>,
    how: How,
    /// Where it is first read; `None` if it isn't.
    place: Option<Span>,
}

/// Reads all regions.
pub(super) fn read(
    leaves: &StoreLeaves<'_>,
    regions: Vec<Region<'_>>,
    budget: u64,
    cancel: Option<&AtomicBool>,
    overflowed: &[AtomicU64],
) -> Result<()> {
    let hints = leaves.source.hints();
    let mut jobs: Vec<Job<'_>> = regions
        .into_iter()
        .map(|region| job(leaves, region, hints.gap, budget))
        .collect::<Result<_>>()?;
    jobs.sort_by_key(|job| job.place);
    let start = || (Worker::new(budget, hints), Vec::new());
    batches(jobs, hints.gap, hints.ranges, budget).into_par_iter().try_for_each_init(
        start,
        |(worker, buffer), batch| {
            not_cancelled(cancel)?;
            for Job { region, .. } in carry_out(leaves, batch, worker, buffer, overflowed)? {
                for piece in region.pieces {
                    not_cancelled(cancel)?;
                    place(worker, &piece, region.size, leaves, region.out)
                        .map_err(|error| error.or_at_key(region.key))?;
                }
                count(worker, overflowed, region.number);
            }
            Ok(())
        },
    )
}

/// Decides how a region is read.
fn job<'a>(
    leaves: &StoreLeaves<'_>,
    mut region: Region<'a>,
    gap: u64,
    budget: u64,
) -> Result<Job<'a>> {
    region.pieces.sort_by_key(|piece| piece.operands.first().map_or(0, |course| course.offset));
    let (mut spans, mut bytes, mut dense) = (Vec::new(), 0u64, true);
    for piece in &region.pieces {
        let mut of = Vec::with_capacity(piece.operands.len());
        for (leaf, course) in piece.value.leaves.iter().zip(&piece.operands) {
            let span = span(leaves, *leaf, course, &piece.dims)?;
            bytes = bytes.saturating_add(span.map_or(0, |span| span.end - span.start));
            dense &= span.is_none() || is_dense(*leaf, course, &piece.dims, gap);
            of.push(span);
        }
        spans.push(of);
    }
    let place = spans.iter().flatten().flatten().next().copied();
    let how = match (&region.pieces[..], place) {
        ([piece], Some(span))
            if piece.is_run()
                && piece.value.is_copy()
                && piece.value.leaves[0].dtype != Dtype::F4
                && span.end - span.start > gap =>
        {
            How::Run(span)
        }
        // A piece's spans may be somewhat more than the piece, by its gaps.
        _ if dense && bytes <= budget.saturating_mul(2) => How::Spans(spans),
        _ => How::Walk,
    };
    Ok(Job { region, how, place })
}

/// The bytes from the first to the last element of a box of a leaf; `None` if it is in memory.
fn span(
    leaves: &StoreLeaves<'_>,
    leaf: Leaf,
    course: &Course,
    dims: &[u64],
) -> Result<Option<Span>> {
    if leaf.part.is_none() {
        return Ok(None);
    }
    let (part, _) = leaves.part(leaf).ok_or_else(outside)?;
    let last =
        course.offset + dims.iter().zip(&course.strides).map(|(n, s)| (n - 1) * s).sum::<u64>();
    let (first, end) = match leaf.dtype {
        Dtype::F4 => (course.offset / 2, last / 2 + 1),
        dtype => {
            let bytes = |elements: u64| elements.checked_mul(width(dtype)).ok_or_else(outside);
            (bytes(course.offset)?, bytes(last + 1)?)
        }
    };
    let at = |byte: u64| part.offset.checked_add(byte).ok_or_else(outside);
    Ok(Some(Span { blob: part.blob, start: at(first)?, end: at(end)? }))
}

/// Whether no step of a box goes over a gap that is better not read.
fn is_dense(leaf: Leaf, course: &Course, dims: &[u64], gap: u64) -> bool {
    let mut steps: Vec<(u64, u64)> =
        course.strides.iter().copied().zip(dims.iter().copied()).collect();
    steps.sort_unstable();
    let mut span = 1u64;
    steps.into_iter().all(|(stride, n)| {
        let between = stride.saturating_sub(span).saturating_mul(width(leaf.dtype));
        span += (n - 1) * stride;
        between <= gap
    })
}

/// Puts together what one request reads. Each batch holds about `budget` bytes at most, and asks
/// for about `ranges` ranges.
fn batches<'a>(jobs: Vec<Job<'a>>, gap: u64, ranges: usize, budget: u64) -> Vec<Vec<Job<'a>>> {
    let mut batches: Vec<Vec<Job<'a>>> = Vec::new();
    // Of the last batch: where it ends, how much it holds, how many ranges it asks for.
    let (mut end, mut held, mut asked) = (None, 0u64, 0usize);
    for job in jobs {
        let held_by = |job: &Job<'_>| match &job.how {
            How::Spans(spans) => {
                spans.iter().flatten().flatten().map(|span| span.end - span.start).sum()
            }
            How::Run(_) | How::Walk => 0,
        };
        let more: u64 = held_by(&job);
        let near = |end: Span| {
            job.place
                .is_some_and(|at| at.blob == end.blob && at.start <= end.end.saturating_add(gap))
                && more > 0
        };
        let range = usize::from(!end.is_some_and(near));
        let fits = asked + range <= ranges.max(1) && held.saturating_add(more) <= budget;
        match batches.last_mut() {
            Some(batch) if fits && !matches!(job.how, How::Walk) => {
                (held, asked) = (held + more, asked + range);
                batch.push(job);
            }
            _ => {
                (held, asked) = (more, 1);
                if matches!(job.how, How::Walk) {
                    // Nothing joins it.
                    asked = usize::MAX / 2;
                }
                batches.push(vec![job]);
            }
        }
        let last = batches.last().and_then(|batch| batch.last());
        // What is read to its place can't be continued by what is not.
        end = last.filter(|job| matches!(job.how, How::Spans(_))).and_then(|job| job.place);
    }
    batches
}

/// Reads a batch with one request, and puts everything in its place. Gives back what is to be read
/// piece by piece.
fn carry_out<'a>(
    leaves: &StoreLeaves<'_>,
    batch: Vec<Job<'a>>,
    worker: &mut Worker,
    buffer: &mut Vec<u8>,
    overflowed: &[AtomicU64],
) -> Result<Vec<Job<'a>>> {
    let key = batch.first().map(|job| job.region.key);
    let key = key.filter(|key| batch.iter().all(|job| job.region.key == *key));
    let at_key = |error: Error| match key {
        Some(key) => error.or_at_key(key),
        None => error,
    };
    let mut spans: Vec<Span> = Vec::new();
    let (mut ranges, mut placed, mut walked) = (Vec::new(), Vec::new(), Vec::new());
    for mut job in batch {
        match &job.how {
            How::Run(span) => ranges.push((*span, std::mem::take(&mut job.region.out))),
            How::Spans(of) => {
                spans.extend(of.iter().flatten().flatten());
                placed.push(job);
            }
            How::Walk => walked.push(job),
        }
    }
    let groups = joined(spans, leaves.source.hints().gap);
    let total = groups.iter().map(|group| group.end - group.start).sum();
    let held = sized(buffer, bytes_of(total, 1)?);
    let mut rest = &mut *held;
    for group in &groups {
        let len = bytes_of(group.end - group.start, 1)?;
        let (now, later) = rest.split_at_mut_checked(len).ok_or_else(outside)?;
        ranges.push((*group, now));
        rest = later;
    }
    let mut asked: Vec<Range<'_>> = ranges
        .into_iter()
        .map(|(span, buffer)| Range { blob: span.blob, offset: span.start, buffer })
        .collect();
    asked.sort_by_key(|range| (range.blob, range.offset));
    if !asked.is_empty() {
        leaves.source.read(&mut asked).map_err(at_key)?;
    }
    drop(asked);
    let held = Held::new(&groups, held);
    for Job { region, how, .. } in placed {
        let How::Spans(spans) = how else { continue };
        for (piece, spans) in region.pieces.into_iter().zip(spans) {
            let (piece, operands) = held.operands(leaves, piece, &spans)?;
            place(worker, &piece, region.size, &operands, region.out)
                .map_err(|error| error.or_at_key(region.key))?;
        }
        count(worker, overflowed, region.number);
    }
    Ok(walked)
}

/// Spans, those that are close together as one.
fn joined(mut spans: Vec<Span>, gap: u64) -> Vec<Span> {
    spans.sort_unstable();
    let mut groups: Vec<Span> = Vec::new();
    for span in spans {
        match groups.last_mut() {
            Some(last) if last.blob == span.blob && span.start <= last.end.saturating_add(gap) => {
                last.end = last.end.max(span.end);
            }
            _ => groups.push(span),
        }
    }
    groups
}

/// What was read for a batch.
struct Held<'b> {
    /// What was read, and where in `bytes` each begins.
    groups: Vec<(Span, u64)>,
    bytes: &'b [u8],
}

impl<'b> Held<'b> {
    fn new(groups: &[Span], bytes: &'b [u8]) -> Self {
        let mut at = 0;
        let starts = groups.iter().map(|group| {
            at += group.end - group.start;
            (*group, at - (group.end - group.start))
        });
        Self { groups: starts.collect(), bytes }
    }

    fn bytes(&self, span: Span) -> Option<&'b [u8]> {
        let group = self
            .groups
            .partition_point(|(group, _)| (group.blob, group.start) <= (span.blob, span.start));
        let (group, at) = self.groups.get(group.checked_sub(1)?)?;
        let from = usize::try_from(at + (span.start - group.start)).ok()?;
        self.bytes.get(from..)?.get(..usize::try_from(span.end - span.start).ok()?)
    }

    /// A piece whose operands are what was read, each with the number of the operand for its leaf.
    fn operands<'p>(
        &self,
        leaves: &'p StoreLeaves<'_>,
        mut piece: Piece<Value>,
        spans: &[Option<Span>],
    ) -> Result<(Piece<Value>, Operands<'p>)>
    where
        'b: 'p,
    {
        let mut operands = Vec::with_capacity(spans.len());
        for (at, span) in spans.iter().enumerate() {
            let leaf = piece.value.leaves.get_mut(at).ok_or_else(outside)?;
            let course = piece.operands.get_mut(at).ok_or_else(outside)?;
            operands.push(match span {
                Some(span) => {
                    course.offset = if leaf.dtype == Dtype::F4 { course.offset % 2 } else { 0 };
                    self.bytes(*span).ok_or_else(outside)?
                }
                None => leaves.bytes(*leaf).ok_or_else(outside)?,
            });
            leaf.part = Some(u32::try_from(at).map_err(|_| outside())?);
        }
        Ok((piece, Operands(operands)))
    }
}

/// Operands in memory, by their number.
struct Operands<'a>(Vec<&'a [u8]>);

impl Leaves for Operands<'_> {
    fn read(&self, _: Leaf, _: &mut [(u64, &mut [u8])]) -> Result<()> {
        Err(outside())
    }

    fn bytes(&self, leaf: Leaf) -> Option<&[u8]> {
        self.0.get(leaf.part? as usize).copied()
    }
}

/// Puts a piece in its place in a region.
fn place(
    worker: &mut Worker,
    piece: &Piece<Value>,
    size: u64,
    leaves: &dyn Leaves,
    out: &mut [u8],
) -> Result<()> {
    let out = out.get_mut(bytes_of(piece.target.offset, size)?..).ok_or_else(outside)?;
    worker.place(piece, size, leaves, out, &piece.target.strides)
}

fn count(worker: &mut Worker, overflowed: &[AtomicU64], number: usize) {
    let more = std::mem::take(&mut worker.overflowed);
    if let Some(count) = overflowed.get(number) {
        count.fetch_add(more, Ordering::Relaxed);
    }
}
