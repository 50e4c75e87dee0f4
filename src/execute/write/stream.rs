//! Tensors are streamed into files: layouts are cut into jobs of bounded size, done by a pool with positioned reads and writes.
//!
//! A piece that nothing else interleaves with, or whose runs in the target are long, is done by tiles, each written run by run. Pieces that interleave
//! finely are assembled: a stretch of the target is put together in a buffer and written at once. No tensor is held whole because of its size.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use super::super::compile::{Layout, Value};
use super::super::gather::{GAP, Leaves, Worker, bytes_of, outside, width};
use super::super::layout::{Cut, MAX_PIECES, Piece, Which, clip};
use super::super::tile;
use super::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::Shape;

/// Runs of a piece in the target that are at least so long, in bytes, are written one by one.
const LONG_RUN: u64 = 64 << 10;

/// A tensor on its way into a file.
pub(in crate::execute) struct Output {
    pub(in crate::execute) layout: Arc<Layout>,
    pub(in crate::execute) key: String,
    pub(in crate::execute) file: Arc<(File, PathBuf)>,
    /// Where in the file it starts, in bytes.
    pub(in crate::execute) start: u64,
}

/// A part of a tensor that is cut into jobs.
enum Part {
    /// A piece, by tiles of these steps.
    Tiles { piece: usize, steps: Vec<u64> },
    /// Elements of the target, assembled from some pieces, so many at a time.
    Stretches { from: u64, to: u64, pieces: std::ops::Range<usize>, chunk: u64 },
}

/// Cuts a layout (its pieces are in the order of the target) into parts.
fn parts(layout: &Layout, budget: u64, long_run: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut first = 0;
    while let Some(piece) = layout.pieces.get(first) {
        // Pieces that lie across each other form a group.
        let (mut reach, mut next) = (piece.end(), first + 1);
        while let Some(piece) = layout.pieces.get(next).filter(|piece| piece.target.offset < reach) {
            reach = reach.max(piece.end());
            next += 1;
        }
        let group = first..next;
        let long = |piece: &Piece<Value>| {
            let runs = piece.dims.last().zip(piece.target.strides.last()).filter(|(_, stride)| **stride == 1).map_or(1, |(n, _)| *n);
            runs * layout.size >= long_run
        };
        if group.len() == 1 || layout.pieces[group.clone()].iter().all(long) {
            for piece in group {
                parts.push(Part::Tiles { piece, steps: tile::tile(&layout.pieces[piece], layout.size, budget) });
            }
        } else {
            let operands = |piece: &Piece<Value>| piece.value.leaves.iter().map(|leaf| width(leaf.dtype)).sum::<u64>();
            let widest = layout.pieces[group.clone()].iter().map(operands).max().unwrap_or(0);
            let chunk = (budget / (2 * layout.size + widest)).max(1);
            parts.push(Part::Stretches { from: piece.target.offset, to: reach, pieces: group, chunk });
        }
        first = next;
    }
    parts
}

impl Part {
    fn jobs(&self, layout: &Layout) -> u64 {
        match self {
            Part::Tiles { piece, steps } => tile::count(&layout.pieces[*piece], steps),
            Part::Stretches { from, to, chunk, .. } => (to - from).div_ceil(*chunk),
        }
    }
}

/// What all jobs of a run share.
pub(in crate::execute) struct Pool<'a> {
    pub(in crate::execute) leaves: &'a dyn Leaves,
    /// Bytes that one thread may hold: half for what is read, half for what is written.
    pub(in crate::execute) budget: u64,
    pub(in crate::execute) cancel: Option<&'a AtomicBool>,
    pub(in crate::execute) progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    pub(in crate::execute) total: u64,
    pub(in crate::execute) gap: u64,
    pub(in crate::execute) long_run: u64,
    pub(in crate::execute) written: AtomicU64,
    workers: Mutex<Vec<(Worker, Vec<u8>)>>,
}

impl<'a> Pool<'a> {
    pub(in crate::execute) fn new(leaves: &'a dyn Leaves, budget: u64, total: u64) -> Self {
        let written = AtomicU64::new(0);
        Self { leaves, budget, cancel: None, progress: None, total, gap: GAP, long_run: LONG_RUN, written, workers: Mutex::new(Vec::new()) }
    }

    /// Writes the data of all tensors.
    pub(in crate::execute) fn run(&self, outputs: &[Output]) -> Result<()> {
        let half = self.budget / 2;
        let parts: Vec<Vec<Part>> = outputs.iter().map(|output| parts(&output.layout, half, self.long_run)).collect();
        // Jobs are numbered in the order of the target, not listed: a terabyte has very many. A tiny tensor is a job of its own.
        let mut firsts: Vec<(u64, &Output, &Part)> = Vec::new();
        let mut jobs = 0u64;
        for (output, parts) in outputs.iter().zip(&parts) {
            for part in parts {
                firsts.push((jobs, output, part));
                jobs = jobs.saturating_add(part.jobs(&output.layout));
            }
        }
        (0..jobs).into_par_iter().try_for_each(|job| {
            self.check()?;
            let at = firsts.partition_point(|(first, ..)| *first <= job);
            let (first, output, part) = at.checked_sub(1).and_then(|at| firsts.get(at)).ok_or_else(outside)?;
            let idle = self.workers.lock().map_err(|_| outside())?.pop();
            let (mut worker, mut buffer) = idle.unwrap_or_else(|| (Worker::new(half, self.gap), Vec::new()));
            let done = self.job(output, part, job - first, &mut worker, &mut buffer);
            self.workers.lock().map_err(|_| outside())?.push((worker, buffer));
            done.map_err(|error| if error.key().is_some() { error } else { error.at_key(output.key.as_str()) })
        })
    }

    /// Whether to go on.
    pub(in crate::execute) fn check(&self) -> Result<()> {
        match self.cancel {
            Some(cancel) if cancel.load(Ordering::Relaxed) => Err(Error::new(ErrorKind::Interrupted, "interrupted")),
            _ => Ok(()),
        }
    }

    fn job(&self, output: &Output, part: &Part, job: u64, worker: &mut Worker, buffer: &mut Vec<u8>) -> Result<()> {
        let layout = &output.layout;
        match part {
            Part::Tiles { piece, steps } => {
                let piece = tile::nth(&layout.pieces[*piece], steps, job);
                let strides = Shape::from(&piece.dims[..]).contiguous_strides();
                let bytes = sized(buffer, bytes_of(piece.volume(), layout.size)?);
                worker.place(&piece, layout.size, self.leaves, bytes, &strides)?;
                self.scatter(output, &piece, bytes)
            }
            Part::Stretches { from, to, pieces, chunk } => {
                let range = (from + job * chunk, (from + (job + 1) * chunk).min(*to));
                let bytes = sized(buffer, bytes_of(range.1 - range.0, layout.size)?);
                let near = |piece: &&Piece<Value>| piece.target.offset < range.1 && piece.end() > range.0;
                for piece in layout.pieces[pieces.clone()].iter().filter(near) {
                    let mut inside = Vec::new();
                    let cut = Cut::linear(layout.numel, range);
                    clip(piece.clone(), Which::Target, cut, &mut inside, MAX_PIECES).ok_or_else(outside)?;
                    for piece in inside {
                        let at = bytes_of(piece.target.offset - range.0, layout.size)?;
                        let bytes = bytes.get_mut(at..).ok_or_else(outside)?;
                        worker.place(&piece, layout.size, self.leaves, bytes, &piece.target.strides)?;
                    }
                }
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
            let offset = piece.target.offset + at.iter().zip(&piece.target.strides).map(|(at, stride)| at * stride).sum::<u64>();
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
        let (file, path) = &*output.file;
        let offset = element.checked_mul(output.layout.size).and_then(|at| at.checked_add(output.start)).ok_or_else(outside)?;
        file.write_all_at(bytes, offset).map_err(|error| Error::io("cannot write", path, error))?;
        let done = self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
        if let Some(progress) = self.progress {
            progress(Progress { done, total: self.total });
        }
        Ok(())
    }
}

fn sized(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}
