//! Pieces are carried out: their operands are gathered from where they lie, values are computed,
//! the result is placed.
//!
//! A leaf is either in memory, and is copied from directly, or is read in stretches: a stretch
//! spans the steps whose gaps are small enough that reading through them costs less than another
//! call. Nothing here holds more than one stretch and the tile it fills.

use std::borrow::Cow;

use super::compile::{Expr, Leaf, Value};
use super::layout::{Course, Cut, MAX_PIECES, Piece, Which, clip};
use crate::error::{Error, Result};
use crate::execute::value::{self, BLOCK, Factor};
use crate::store::Hints;
use crate::tensor::{Dtype, Shape, strided};

/// Where the elements of leaves come from.
pub(in crate::execute) trait Leaves: Sync {
    /// Fills each buffer with bytes of a leaf, from the given byte of it on.
    fn read(&self, leaf: Leaf, ranges: &mut [(u64, &mut [u8])]) -> Result<()>;

    /// The bytes of a leaf that is in memory, from its first element on.
    fn bytes(&self, leaf: Leaf) -> Option<&[u8]>;
}

/// Carries out pieces, with buffers that are used again.
pub(in crate::execute) struct Worker {
    /// The stretch that is read.
    stretch: Vec<u8>,
    /// The elements of operands that something is computed from.
    held: Vec<Vec<u8>>,
    /// Largest stretch, in bytes.
    limit: u64,
    /// How the source likes to be read.
    hints: Hints,
    /// Elements so far that were computed from finite ones and are infinite or NaN.
    pub(in crate::execute) overflowed: u64,
}

impl Worker {
    pub(in crate::execute) fn new(limit: u64, hints: Hints) -> Self {
        Self { stretch: Vec::new(), held: Vec::new(), limit: limit.max(8), hints, overflowed: 0 }
    }

    /// Writes the elements of a piece, of `size` bytes each, to `out`, whose first element is the
    /// piece's first; `strides` are those of the piece's dims in `out`.
    pub(in crate::execute) fn place(
        &mut self,
        piece: &Piece<Value>,
        size: u64,
        leaves: &dyn Leaves,
        out: &mut [u8],
        strides: &[u64],
    ) -> Result<()> {
        if piece.value.is_copy() {
            return self.gather(
                piece.value.leaves[0],
                &piece.operands[0],
                &piece.dims,
                leaves,
                out,
                strides,
            );
        }
        let compact = Shape::from(&piece.dims[..]).contiguous_strides();
        let volume = bytes_of(piece.volume(), 1)?;
        let expr = &*piece.value.expr;
        let lists = expr.lists();
        let read = || piece.value.leaves.iter().zip(&piece.operands).enumerate();
        let mut held = std::mem::take(&mut self.held);
        held.resize_with(held.len().max(piece.operands.len()), Vec::new);
        for (at, (leaf, course)) in read().filter(|(at, _)| !lists.contains(at)) {
            let buffer = sized(&mut held[at], bytes_of(piece.volume(), width(leaf.dtype))?);
            self.gather(*leaf, course, &piece.dims, leaves, buffer, &compact)?;
        }
        let mut operands = Vec::with_capacity(piece.operands.len());
        for (at, (leaf, course)) in read() {
            let bytes = if lists.contains(&at) {
                leaves.bytes(*leaf).ok_or_else(outside)?
            } else {
                &held[at][..bytes_of(piece.volume(), width(leaf.dtype))?]
            };
            let (dtype, width) = (leaf.dtype, bytes_of(1, width(leaf.dtype))?);
            operands.push(Operand { bytes, dtype, width, course, dims: &piece.dims });
        }
        // Where the results follow each other, they are put there; else they are walked once more.
        let size = bytes_of(1, size)?;
        let mut result = Vec::new();
        let is_run = is_run(&piece.dims, &compact, strides);
        for start in (0..volume).step_by(BLOCK) {
            let len = BLOCK.min(volume - start);
            let block = evaluate(expr, &operands, start, len)?;
            if let Some(dtype) = expr.dtype() {
                let counted = overflowed(expr, &operands, start, len, (dtype, &block))?;
                self.overflowed = self.overflowed.saturating_add(counted);
            }
            if is_run {
                let out = out.get_mut(start * size..(start + len) * size).ok_or_else(outside)?;
                let block = block.get(..out.len()).filter(|_| block.len() == out.len());
                out.copy_from_slice(block.ok_or_else(outside)?);
            } else {
                result.extend_from_slice(&block);
            }
        }
        self.held = held;
        if is_run {
            return Ok(());
        }
        strided::copy(&piece.dims, size, &result, &compact, out, strides).ok_or_else(outside)
    }

    /// How much of a box one read brings.
    fn stretches(&self, leaf: Leaf, course: &Course, dims: &[u64], strides: &[u64]) -> Stretches {
        let nibbles = leaf.dtype == Dtype::F4;
        let size = width(leaf.dtype);
        // The dims that one stretch spans, narrow ones first; the others are walked. In nibbles, a
        // stretch counts bytes of two.
        let mut order: Vec<usize> = (0..dims.len()).collect();
        order.sort_by_key(|k| course.strides[*k]);
        let limit = if nibbles { self.limit } else { self.limit / size };
        let mut steps = vec![1u64; dims.len()];
        let mut span = 1u64;
        for k in order {
            let stride = course.strides[k];
            if stride.saturating_sub(span).saturating_mul(size) > self.hints.gap {
                break;
            }
            let fit = limit
                .saturating_sub(span)
                .checked_div(stride)
                .map_or(dims[k], |more| dims[k].min(more + 1));
            steps[k] = fit;
            span += (fit - 1) * stride;
            if fit < dims[k] {
                break;
            }
        }
        // Where the stretches don't lie as they are wanted, some are read side by side and put in
        // order together: a line of the cache then gets all of its elements at once, not one from
        // each stretch. And a store that answers many requests at once is asked for many.
        let alone = self.hints.ranges <= 1 && is_run(&steps, &course.strides, strides);
        let beside = match (nibbles, alone) {
            (false, false) => (0..dims.len())
                .filter(|k| steps[*k] == 1 && dims[*k] > 1)
                .min_by_key(|k| strides[*k]),
            _ => None,
        };
        if let Some(k) = beside {
            steps[k] = (limit / span).clamp(1, dims[k]);
        }
        Stretches { steps, beside }
    }

    /// Puts a stretch of a tensor, from one element up to another, together in `out`: what pieces
    /// have of it. The tensor has `numel` elements of `size` bytes.
    pub(in crate::execute) fn assemble(
        &mut self,
        pieces: &[Piece<Value>],
        (numel, size): (u64, u64),
        range: (u64, u64),
        leaves: &dyn Leaves,
        out: &mut [u8],
    ) -> Result<()> {
        let near = |piece: &&Piece<Value>| piece.target.offset < range.1 && piece.end() > range.0;
        for piece in pieces.iter().filter(near) {
            let mut inside = Vec::new();
            let cut = Cut::linear(numel, range);
            clip(piece.clone(), Which::Target, cut, &mut inside, MAX_PIECES).ok_or_else(outside)?;
            for piece in inside {
                let at = bytes_of(piece.target.offset - range.0, size)?;
                let out = out.get_mut(at..).ok_or_else(outside)?;
                self.place(&piece, size, leaves, out, &piece.target.strides)?;
            }
        }
        Ok(())
    }

    /// Brings the elements of a box of a leaf to `out`, with the strides that they have there.
    fn gather(
        &mut self,
        leaf: Leaf,
        course: &Course,
        dims: &[u64],
        leaves: &dyn Leaves,
        out: &mut [u8],
        strides: &[u64],
    ) -> Result<()> {
        if let Some(bytes) = leaves.bytes(leaf) {
            return from_memory(bytes, leaf, course, dims, out, strides);
        }
        let nibbles = leaf.dtype == Dtype::F4;
        let size = width(leaf.dtype);
        if self.hints.is_far() && !nibbles && is_run(dims, &course.strides, strides) {
            return read_run(leaf, course, dims, leaves, out);
        }
        let Stretches { steps, beside } = self.stretches(leaf, course, dims, strides);
        let mut at = vec![0u64; dims.len()];
        loop {
            let part: Vec<u64> = at
                .iter()
                .zip(&steps)
                .zip(dims)
                .map(|((at, step), n)| (*step).min(n - at))
                .collect();
            let from = course.offset
                + at.iter().zip(&course.strides).map(|(at, stride)| at * stride).sum::<u64>();
            let to = at.iter().zip(strides).map(|(at, stride)| at * stride).sum::<u64>();
            let length = |k: usize| (part[k] - 1) * course.strides[k];
            let span = 1 + (0..dims.len()).filter(|k| Some(*k) != beside).map(length).sum::<u64>();
            let out = out.get_mut(bytes_of(to, size)?..).ok_or_else(outside)?;
            if nibbles {
                let (first, last) = (from / 2, (from + span - 1) / 2);
                let stretch = sized(&mut self.stretch, bytes_of(last - first + 1, 1)?);
                leaves.read(leaf, &mut [(first, &mut *stretch)])?;
                let codes = halves(stretch);
                strided::copy(
                    &part,
                    1,
                    &codes[usize::from(from % 2 == 1)..],
                    &course.strides,
                    out,
                    strides,
                )
                .ok_or_else(outside)?;
            } else if let Some(k) = beside {
                let row = bytes_of(span, size)?;
                let block = sized(&mut self.stretch, bytes_of(span * part[k], size)?);
                let rows = (0u64..).zip(block.chunks_exact_mut(row.max(1)));
                let mut rows: Vec<(u64, &mut [u8])> =
                    rows.map(|(i, bytes)| ((from + i * course.strides[k]) * size, bytes)).collect();
                leaves.read(leaf, &mut rows)?;
                let mut compact = course.strides.clone();
                compact[k] = span;
                strided::copy(&part, bytes_of(1, size)?, block, &compact, out, strides)
                    .ok_or_else(outside)?;
            } else if is_run(&part, &course.strides, strides) {
                let out = out.get_mut(..bytes_of(span, size)?).ok_or_else(outside)?;
                leaves.read(leaf, &mut [(from * size, out)])?;
            } else {
                let stretch = sized(&mut self.stretch, bytes_of(span, size)?);
                leaves.read(leaf, &mut [(from * size, &mut *stretch)])?;
                strided::copy(&part, bytes_of(1, size)?, stretch, &course.strides, out, strides)
                    .ok_or_else(outside)?;
            }
            if !advance(&mut at, &steps, dims) {
                return Ok(());
            }
        }
    }
}

/// Reads a box that is one run, in the leaf and where it goes. Far away, a request costs more than
/// its bytes: this is one.
fn read_run(
    leaf: Leaf,
    course: &Course,
    dims: &[u64],
    leaves: &dyn Leaves,
    out: &mut [u8],
) -> Result<()> {
    let size = width(leaf.dtype);
    let out = out.get_mut(..bytes_of(dims.iter().product(), size)?).ok_or_else(outside)?;
    leaves.read(leaf, &mut [(course.offset * size, out)])
}

/// Goes on to the next part of a box, the last dimension first; `false` if that was the last.
fn advance(at: &mut [u64], steps: &[u64], dims: &[u64]) -> bool {
    for k in (0..dims.len()).rev() {
        at[k] += steps[k];
        if at[k] < dims[k] {
            return true;
        }
        at[k] = 0;
    }
    false
}

/// How a box is read: so many steps of each dim at once, of which those of the dim `beside` are
/// ranges of their own.
struct Stretches {
    steps: Vec<u64>,
    beside: Option<usize>,
}

/// The elements of a box of a leaf that is in memory.
fn from_memory(
    bytes: &[u8],
    leaf: Leaf,
    course: &Course,
    dims: &[u64],
    out: &mut [u8],
    strides: &[u64],
) -> Result<()> {
    if leaf.dtype != Dtype::F4 {
        let size = width(leaf.dtype);
        let bytes = bytes.get(bytes_of(course.offset, size)?..).ok_or_else(outside)?;
        return strided::copy(dims, bytes_of(1, size)?, bytes, &course.strides, out, strides)
            .ok_or_else(outside);
    }
    let steps = dims.iter().zip(&course.strides).map(|(n, stride)| (n - 1) * stride);
    let last = course.offset + steps.sum::<u64>();
    let codes = bytes.get(bytes_of(course.offset / 2, 1)?..=bytes_of(last / 2, 1)?);
    let codes = halves(codes.ok_or_else(outside)?);
    let first = usize::from(course.offset % 2 == 1);
    strided::copy(dims, 1, &codes[first..], &course.strides, out, strides).ok_or_else(outside)
}

/// Bytes that an element of a leaf takes once gathered.
pub(in crate::execute) fn width(dtype: Dtype) -> u64 {
    dtype.element()
}

/// Bytes of some elements, as this machine counts memory.
pub(in crate::execute) fn bytes_of(elements: u64, size: u64) -> Result<usize> {
    let bytes = elements.checked_mul(size).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| {
        Error::new(
            crate::error::ErrorKind::Limit,
            "a tensor is larger than this machine's memory can be",
        )
    })
}

pub(in crate::execute) fn outside() -> Error {
    Error::corrupt("a piece of a tensor leaves its source")
}

/// So many bytes of a buffer that is used again; what they hold is left over.
pub(in crate::execute) fn sized(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    &mut buffer[..len]
}

fn halves(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]).collect()
}

/// Whether both sides step through a box as one run.
fn is_run(dims: &[u64], a: &[u64], b: &[u64]) -> bool {
    let mut steps: Vec<(u64, u64, u64)> = dims
        .iter()
        .zip(a)
        .zip(b)
        .filter(|((n, _), _)| **n > 1)
        .map(|((n, a), b)| (*a, *b, *n))
        .collect();
    steps.sort_unstable();
    let mut expected = 1;
    steps.iter().all(|(a, b, n)| {
        let run = *a == expected && *b == expected;
        expected = expected.saturating_mul(*n);
        run
    })
}

/// The elements of an operand, or a list as a whole.
struct Operand<'l> {
    bytes: &'l [u8],
    dtype: Dtype,
    width: usize,
    /// Where it lies, and the box that it is walked in.
    course: &'l Course,
    dims: &'l [u64],
}

/// How many elements of a block were computed from finite ones and are infinite or NaN.
fn overflowed(
    expr: &Expr,
    operands: &[Operand<'_>],
    start: usize,
    len: usize,
    block: (Dtype, &[u8]),
) -> Result<u64> {
    if !value::any_not_finite(block) {
        return Ok(0);
    }
    let mut inputs = Vec::new();
    for (input, seen_as) in expr.inputs() {
        let own = match input {
            Expr::Operand(at) => operands.get(*at).map(|operand| operand.dtype),
            _ => None,
        };
        let dtype = seen_as.or(own).ok_or_else(outside)?;
        inputs.push((dtype, evaluate(input, operands, start, len)?));
    }
    Ok(value::overflowed(inputs.iter().map(|(dtype, bytes)| (*dtype, &bytes[..])), block))
}

/// Elements `start..start+len` of an expression.
fn evaluate<'l>(
    expr: &Expr,
    operands: &'l [Operand<'l>],
    start: usize,
    len: usize,
) -> Result<Cow<'l, [u8]>> {
    let of = |expr: &Expr| evaluate(expr, operands, start, len);
    match expr {
        Expr::Operand(at) => {
            let Operand { bytes, width, .. } = operands.get(*at).ok_or_else(outside)?;
            let bytes = bytes.get(start * width..(start + len) * width);
            bytes.map(Cow::Borrowed).ok_or_else(outside)
        }
        Expr::Constant(element) => Ok(element.repeat(len).into()),
        Expr::Step { step, from, to, input } => Ok(step.apply(*from, *to, &of(input)?)?.into()),
        Expr::Binary { with, inputs, from, to } => {
            let (a, b) = (of(&inputs[0])?, of(&inputs[1])?);
            Ok(value::binary(*with, (from[0], &a), (from[1], &b), *to)?.into())
        }
        Expr::Lookup { codes, from, list, .. } => {
            let Operand { bytes, width, .. } = operands.get(*list).ok_or_else(outside)?;
            Ok(value::lookup((*from, &of(codes)?), bytes, *width)?.into())
        }
        Expr::Product { factors, count, step, to } => {
            let [a, b] = factors.map(|at| operands.get(at).ok_or_else(outside));
            let (a, b) = (a?, b?);
            let factor = |of: &'l Operand<'l>, step| Factor {
                bytes: of.bytes,
                offset: of.course.offset,
                strides: &of.course.strides,
                step,
            };
            let factors = [factor(a, 1), factor(b, *step)];
            Ok(value::product(*to, &factors, *count, a.dims, (start, len))?.into())
        }
    }
}
