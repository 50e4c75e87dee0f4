//! Tensors are streamed into files: layouts are cut into jobs of bounded size, done by a pool with
//! positioned reads and writes.
//!
//! A piece that nothing else interleaves with, or whose runs in the target are long, is done by
//! tiles, each written run by run. Pieces that interleave finely are assembled: a stretch of the
//! target is put together in a buffer and written at once. No tensor is held whole because of its
//! size.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use super::Progress;
use super::copy::{Run, join};
use super::flow::{self, Flow};
use super::leaves::FileLeaves;
use super::portion::{Portion, portions};
use super::queue::{Batch, Queue};
use super::together::{Held, Span, joined, spans, total};
use crate::error::{Error, Result};
use crate::execute::fuse::compile::{Layout, Leaf, Value};
use crate::execute::fuse::gather::{Leaves, Worker, bytes_of, outside, sized, width};
use crate::execute::fuse::layout::Piece;
use crate::execute::fuse::tile;
use crate::execute::not_cancelled;
use crate::store::{Blob, Extent, Hints};
use crate::tensor::Shape;

/// Runs of a piece in the target that are at least so long, in bytes, are written one by one.
const LONG_RUN: u64 = 64 << 10;

/// Most bytes that are written by one call. With more, Linux takes pages for the cache in pieces so
/// large that none are at hand.
pub(super) const CALL: usize = 1 << 20;

/// Bytes that a thread holds at least, and at most: with more than that, runs are long enough that
/// calls hardly count.
const LEAST: u64 = 64 << 10;
const MOST: u64 = 24 << 20;

/// What each thread may hold of so many bytes for all of them.
pub(super) fn budget(memory: u64) -> u64 {
    let threads = rayon::current_num_threads() as u64;
    (memory / threads.max(1)).clamp(LEAST, MOST)
}

/// A tensor on its way into a file.
pub(in crate::execute) struct Output {
    pub(in crate::execute) layout: Arc<Layout>,
    pub(in crate::execute) key: String,
    pub(in crate::execute) file: Arc<OutFile>,
    /// Where in the file it starts, in bytes.
    pub(in crate::execute) start: u64,
    /// Elements that were computed from finite ones and are infinite or NaN.
    pub(in crate::execute) overflowed: AtomicU64,
}

/// A file that is being written.
pub(in crate::execute) struct OutFile {
    pub(in crate::execute) file: File,
    pub(in crate::execute) path: PathBuf,
    /// Bytes of tensors that are still to come.
    left: AtomicU64,
    /// Threads that copy into it just now.
    visitors: AtomicU64,
}

/// A thread's time of copying into a file.
pub(super) struct Visit<'a> {
    file: &'a OutFile,
    /// Whether no other thread was at it when it began.
    pub(super) alone: bool,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.file.visitors.fetch_sub(1, Ordering::Relaxed);
    }
}

impl OutFile {
    /// A file that waits for so many bytes of tensors.
    pub(in crate::execute) fn new(file: File, path: PathBuf, left: u64) -> Arc<Self> {
        let [left, visitors] = [left, 0].map(AtomicU64::new);
        Arc::new(Self { file, path, left, visitors })
    }

    /// Waits until the disk has what was written so far.
    pub(super) fn sync(&self) -> Result<()> {
        let synced = self.file.sync_data();
        synced.map_err(|error| Error::io("cannot sync", &self.path, error))
    }

    /// Begins to copy into it.
    pub(super) fn visit(&self) -> Visit<'_> {
        let alone = self.visitors.fetch_add(1, Ordering::Relaxed) == 0;
        Visit { file: self, alone }
    }

    /// Bytes that it waits for.
    pub(super) fn left(&self) -> u64 {
        self.left.load(Ordering::Acquire)
    }
}

/// What all jobs of a run share.
pub(in crate::execute) struct Pool<'a> {
    pub(in crate::execute) leaves: &'a dyn FileLeaves,
    /// Bytes that one thread may hold: a stretch of what is read, and a tile of what is written.
    pub(in crate::execute) budget: u64,
    pub(in crate::execute) cancel: Option<&'a AtomicBool>,
    pub(in crate::execute) progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    pub(in crate::execute) total: u64,
    pub(in crate::execute) total_files: u64,
    pub(in crate::execute) hints: Hints,
    pub(in crate::execute) long_run: u64,
    /// Files that are whole.
    files: AtomicU64,
    pub(in crate::execute) written: AtomicU64,
    /// Of those, what the system copied between files.
    pub(in crate::execute) copied: AtomicU64,
    /// And what it shared.
    pub(in crate::execute) shared: AtomicU64,
    /// Whether blocks may be shared with the source.
    pub(in crate::execute) share: bool,
    /// Is given each file whose tensors are all there.
    pub(in crate::execute) finished: Option<Sender<Arc<OutFile>>>,
}

/// Where in the source something lies, to be put in order: the file, if it is on a disk, by the
/// bytes of its path, else the blob; and the first byte.
type Place<'a> = (Option<&'a OsStr>, Blob, u64);

/// Jobs that follow each other.
enum Work<'a> {
    Copy(Run<'a>),
    Flow(Flow<'a>),
    Portion(&'a Output, Portion),
    /// Small ones that are read by one request, and what is read.
    Together(Vec<(&'a Output, Portion)>, Vec<Span>),
}

impl Work<'_> {
    fn batch(&self) -> Batch {
        match self {
            Work::Copy(run) => Batch { jobs: run.jobs(), bytes: run.from.len },
            Work::Flow(flow) => Batch { jobs: flow.jobs(), bytes: flow.span.end - flow.span.start },
            Work::Portion(Output { layout, .. }, portion) => Batch {
                jobs: portion.jobs(layout),
                bytes: portion.elements(layout).saturating_mul(layout.size),
            },
            Work::Together(_, spans) => Batch { jobs: 1, bytes: total(spans) },
        }
    }
}

impl<'a> Pool<'a> {
    pub(in crate::execute) fn new(leaves: &'a dyn FileLeaves, budget: u64, total: u64) -> Self {
        let [written, files, copied, shared] = [0; 4].map(AtomicU64::new);
        let (hints, long_run) = (leaves.hints(), LONG_RUN);
        Self {
            leaves,
            budget,
            cancel: None,
            progress: None,
            total,
            total_files: 0,
            hints,
            long_run,
            written,
            files,
            copied,
            shared,
            share: false,
            finished: None,
        }
    }

    /// Writes the data of all tensors.
    pub(in crate::execute) fn run(&self, outputs: &[Output]) -> Result<()> {
        let work = self.work(outputs)?;
        let batches: Vec<Batch> = work.iter().map(Work::batch).collect();
        let mut firsts: Vec<(u64, &Work<'_>)> = Vec::with_capacity(work.len());
        let mut jobs = 0u64;
        for (work, batch) in work.iter().zip(&batches) {
            firsts.push((jobs, work));
            jobs = jobs.saturating_add(batch.jobs);
        }
        let workers = (rayon::current_num_threads() as u64).min(jobs);
        let (queue, failed) = (&Queue::new(&batches, workers), &Mutex::new(None));
        rayon::scope(|scope| {
            for at in 0..usize::try_from(workers).unwrap_or(usize::MAX) {
                let firsts = &firsts;
                scope.spawn(move |_| {
                    if let Err(error) = self.worker(firsts, queue, at) {
                        queue.stop();
                        // The first failure is told; a lock is only poisoned by a panic, which the
                        // scope passes on.
                        if let Ok(mut failed) = failed.lock() {
                            failed.get_or_insert(error);
                        }
                    }
                });
            }
        });
        failed.lock().map_err(|_| outside())?.take().map_or(Ok(()), Err)
    }

    /// Does jobs until there are none.
    fn worker(&self, firsts: &[(u64, &Work<'_>)], queue: &Queue, own: usize) -> Result<()> {
        let (mut worker, mut buffer) = (Worker::new(stretch(self.budget), self.hints), Vec::new());
        let mut held = Vec::new();
        while let Some(job) = queue.next(own) {
            not_cancelled(self.cancel)?;
            let at = firsts.partition_point(|(first, ..)| *first <= job);
            let (first, work) =
                at.checked_sub(1).and_then(|at| firsts.get(at)).ok_or_else(outside)?;
            match work {
                Work::Copy(run) => {
                    let buffer = sized(&mut buffer, self.call());
                    let done = run.copy(job - first, self.share, buffer)?;
                    self.copied.fetch_add(done.copied, Ordering::Relaxed);
                    self.shared.fetch_add(done.shared, Ordering::Relaxed);
                    self.count(run.to, done.copied + done.shared);
                }
                Work::Flow(flow) => {
                    let buffer = sized(&mut buffer, self.call());
                    flow.run(job - first, self.leaves, buffer, &mut |file, bytes| {
                        self.count(file, bytes);
                        not_cancelled(self.cancel)
                    })?;
                }
                Work::Portion(output, portion) => {
                    let part = (*output, portion, job - first);
                    self.job(self.leaves, part, &mut worker, &mut buffer)?;
                }
                Work::Together(parts, spans) => {
                    let held = Held::read(self.leaves, spans, &mut held)?;
                    for (output, portion) in parts {
                        self.job(&held, (*output, portion, 0), &mut worker, &mut buffer)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Bytes that are written by one call.
    fn call(&self) -> usize {
        usize::try_from(self.budget).unwrap_or(CALL).min(CALL)
    }

    /// What there is to do, in the order of the source.
    fn work<'b>(&'b self, outputs: &'b [Output]) -> Result<Vec<Work<'b>>> {
        let (tile, is_far) = (self.budget - stretch(self.budget), self.hints.is_far());
        let (mut runs, mut landings, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for output in outputs {
            for portion in portions(&output.layout, tile, self.long_run, is_far) {
                let moved = match &portion {
                    Portion::Tiles { piece, .. } => moved(output, &output.layout.pieces[*piece])?,
                    Portion::Stretches { .. } => None,
                };
                let Some(moved) = moved else {
                    rest.push((output, portion));
                    continue;
                };
                if let Some(from) = self.leaves.extent(moved.leaf)? {
                    runs.push(moved.run(output, from)?);
                } else if let (true, Some(place)) = (is_far, self.leaves.place(moved.leaf)) {
                    landings.push((moved.landing(output, place)?, (output, portion)));
                } else {
                    rest.push((output, portion));
                }
            }
        }
        let gap = self.hints.gap;
        let (flows, short) = flow::flows(landings, gap, rayon::current_num_threads());
        rest.extend(short);
        let mut others = Vec::new();
        if !flows.is_empty() {
            for (output, portion) in &rest {
                others.extend(spans(self.leaves, output, portion, u64::MAX)?.unwrap_or_default());
            }
        }
        let mut work: Vec<(Option<Place<'b>>, Work<'b>)> = Vec::new();
        for (output, portion) in rest {
            work.push((self.place(output, &portion)?, Work::Portion(output, portion)));
        }
        work.extend(
            flow::bridged(flows, others, gap)
                .into_iter()
                .map(|flow| (Some((None, flow.span.blob, flow.span.start)), Work::Flow(flow))),
        );
        work.extend(join(runs).into_iter().map(|run| {
            (Some((Some(run.from.path.as_os_str()), Blob(0), run.from.offset)), Work::Copy(run))
        }));
        work.sort_by_key(|(place, _)| *place);
        let work = work.into_iter().map(|(_, work)| work);
        if is_far { self.together(work, tile) } else { Ok(work.collect()) }
    }

    /// Puts small portions together, as far as a buffer of so many bytes holds what they are made
    /// of.
    fn together<'b>(
        &'b self,
        work: impl Iterator<Item = Work<'b>>,
        most: u64,
    ) -> Result<Vec<Work<'b>>> {
        let small = stretch(self.budget);
        let mut all: Vec<Work<'b>> = Vec::new();
        for one in work {
            let Work::Portion(output, portion) = one else {
                all.push(one);
                continue;
            };
            let Some(more) = spans(self.leaves, output, &portion, small)? else {
                all.push(Work::Portion(output, portion));
                continue;
            };
            // What is in different files is waited for side by side.
            let is_beside = |held: &[Span]| {
                more.iter().all(|span| held.iter().all(|other| other.blob == span.blob))
            };
            if let Some(Work::Together(parts, held)) = all.last_mut()
                && is_beside(held)
            {
                let both = joined(held.iter().chain(&more).copied().collect(), self.hints.gap);
                if total(&both) <= most && both.len() <= self.hints.ranges {
                    parts.push((output, portion));
                    *held = both;
                    continue;
                }
            }
            all.push(Work::Together(vec![(output, portion)], joined(more, self.hints.gap)));
        }
        Ok(all)
    }

    /// Where in the source a portion begins to read.
    fn place<'b>(&'b self, output: &Output, portion: &Portion) -> Result<Option<Place<'b>>> {
        let piece = match portion {
            Portion::Tiles { piece, .. } => *piece,
            Portion::Stretches { pieces, .. } => pieces.start,
        };
        let Some(piece) = output.layout.pieces.get(piece) else { return Ok(None) };
        let Some((leaf, lane)) = piece.value.leaves.first().zip(piece.operands.first()) else {
            return Ok(None);
        };
        let into = lane.offset.saturating_mul(width(leaf.dtype));
        if let Some(extent) = self.leaves.extent(*leaf)? {
            let start = extent.offset.saturating_add(into);
            return Ok(Some((Some(extent.path.as_os_str()), Blob(0), start)));
        }
        let place = self.leaves.place(*leaf);
        Ok(place.map(|(blob, offset)| (None, blob, offset.saturating_add(into))))
    }

    fn job(
        &self,
        leaves: &dyn Leaves,
        (output, portion, job): (&Output, &Portion, u64),
        worker: &mut Worker,
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        let done = self.try_job(leaves, (output, portion, job), worker, buffer);
        done.map_err(|error| error.or_at_key(&output.key))
    }

    fn try_job(
        &self,
        leaves: &dyn Leaves,
        (output, portion, job): (&Output, &Portion, u64),
        worker: &mut Worker,
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        // Counted before the bytes are: whoever hears that the file is whole sees it.
        let overflowed = |worker: &mut Worker| {
            output.overflowed.fetch_add(std::mem::take(&mut worker.overflowed), Ordering::Relaxed)
        };
        let layout = &output.layout;
        match portion {
            Portion::Tiles { piece, steps } => {
                let piece = tile::nth(&layout.pieces[*piece], steps, job);
                let strides = Shape::from(&piece.dims[..]).contiguous_strides();
                let bytes = sized(buffer, bytes_of(piece.volume(), layout.size)?);
                worker.place(&piece, layout.size, leaves, bytes, &strides)?;
                overflowed(worker);
                self.scatter(output, &piece, bytes)
            }
            Portion::Stretches { from, to, pieces, chunk } => {
                let range = (from + job * chunk, (from + (job + 1) * chunk).min(*to));
                let bytes = sized(buffer, bytes_of(range.1 - range.0, layout.size)?);
                let pieces = &layout.pieces[pieces.clone()];
                worker.assemble(pieces, (layout.numel, layout.size), range, leaves, bytes)?;
                overflowed(worker);
                self.write(output, range.0, bytes)
            }
        }
    }

    /// Writes a tile, compact in `bytes`, run by run.
    fn scatter(&self, output: &Output, piece: &Piece<Value>, bytes: &[u8]) -> Result<()> {
        let mut run = 1u64;
        let mut outer = piece.dims.len();
        while outer > 0 && piece.target.strides[outer - 1] == run {
            outer -= 1;
            run *= piece.dims[outer];
        }
        let len = bytes_of(run, output.layout.size)?;
        let mut at = vec![0u64; outer];
        for run in bytes.chunks_exact(len.max(1)) {
            let offset = piece.target.offset
                + at.iter().zip(&piece.target.strides).map(|(at, stride)| at * stride).sum::<u64>();
            self.write(output, offset, run)?;
            for k in (0..outer).rev() {
                at[k] += 1;
                if at[k] < piece.dims[k] {
                    break;
                }
                at[k] = 0;
            }
        }
        Ok(())
    }

    /// Writes bytes that begin at an element of the target.
    fn write(&self, output: &Output, element: u64, bytes: &[u8]) -> Result<()> {
        let OutFile { file, path, .. } = &*output.file;
        let offset = element
            .checked_mul(output.layout.size)
            .and_then(|at| at.checked_add(output.start))
            .ok_or_else(outside)?;
        for (portion, at) in bytes.chunks(CALL).zip((offset..).step_by(CALL)) {
            file.write_all_at(portion, at)
                .map_err(|error| Error::io("cannot write", path, error))?;
        }
        self.count(&output.file, bytes.len() as u64);
        Ok(())
    }

    fn count(&self, file: &Arc<OutFile>, bytes: u64) {
        // Released by each writer and acquired by the last, so that all that was written is there
        // when the file is passed on.
        if bytes > 0 && file.left.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            self.files.fetch_add(1, Ordering::Relaxed);
            if let Some(finished) = &self.finished {
                // If nobody listens any more, the run has failed.
                let _ = finished.send(Arc::clone(file));
            }
        }
        let done = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(progress) = self.progress {
            let files = self.files.load(Ordering::Relaxed);
            let (total, total_files) = (self.total, self.total_files);
            progress(Progress { done, total, files, total_files });
        }
    }
}

/// Bytes of a leaf that are the same in an output.
struct Moved {
    leaf: Leaf,
    /// Where they begin in the leaf, and how many they are.
    from: u64,
    len: u64,
    /// Where they go in the output's file.
    at: u64,
}

/// What a piece is, if it is the same bytes on both sides.
fn moved(output: &Output, piece: &Piece<Value>) -> Result<Option<Moved>> {
    let (Some(leaf), Some(lane), true) = (
        piece.value.leaves.first(),
        piece.operands.first(),
        piece.is_run() && piece.value.is_copy(),
    ) else {
        return Ok(None);
    };
    let size = output.layout.size;
    if leaf.dtype == crate::tensor::Dtype::F4 || width(leaf.dtype) != size {
        return Ok(None);
    }
    let bytes = |elements: u64| elements.checked_mul(size).ok_or_else(outside);
    let at = bytes(piece.target.offset)?.checked_add(output.start).ok_or_else(outside)?;
    let (from, len) = (bytes(lane.offset)?, bytes(piece.volume())?);
    Ok(Some(Moved { leaf: *leaf, from, len, at }))
}

impl Moved {
    /// As a run of the leaf's file.
    fn run<'a>(&self, output: &'a Output, from: Extent<'a>) -> Result<Run<'a>> {
        if self.from.checked_add(self.len).is_none_or(|end| end > from.len) {
            return Err(outside());
        }
        let from = Extent { offset: from.offset + self.from, len: self.len, ..from };
        Ok(Run { key: &output.key, from, to: &output.file, at: self.at })
    }

    /// As bytes of the blob in which the leaf begins at a place.
    fn landing<'a>(
        &self,
        output: &'a Output,
        (blob, first): (Blob, u64),
    ) -> Result<flow::Landing<'a>> {
        let start = first.checked_add(self.from).ok_or_else(outside)?;
        let end = start.checked_add(self.len).ok_or_else(outside)?;
        let span = Span { blob, start, end };
        Ok(flow::Landing { span, key: &output.key, to: &output.file, at: self.at })
    }
}

/// Bytes of a budget that hold what is read; what is written takes the rest, as long runs are
/// dearer there.
fn stretch(budget: u64) -> u64 {
    (budget / 2).min(2 << 20)
}
