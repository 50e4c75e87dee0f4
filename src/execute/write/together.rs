//! Portions that are small and lie close together in a store far away: what they are made of comes
//! by one request, and each is made from memory then.

use super::leaves::FileLeaves;
use super::portion::Portion;
use super::stream::Output;
use crate::error::Result;
use crate::execute::fuse::compile::{Leaf, Value};
use crate::execute::fuse::gather::{Leaves, bytes_of, outside, sized, width};
use crate::execute::fuse::layout::Piece;
use crate::store::{Blob, Range};
use crate::tensor::Dtype;

/// Bytes of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) blob: Blob,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// What a portion is made of; `None` if it is better read by itself: it needs several jobs, more
/// than `most` bytes, or what lies between its elements is more than they are.
pub(super) fn spans(
    leaves: &dyn FileLeaves,
    output: &Output,
    portion: &Portion,
    most: u64,
) -> Result<Option<Vec<Span>>> {
    let layout = &output.layout;
    let own = portion.elements(layout).saturating_mul(layout.size);
    if portion.jobs(layout) != 1 || own > most {
        return Ok(None);
    }
    let pieces = match portion {
        Portion::Tiles { piece, .. } => *piece..*piece + 1,
        Portion::Stretches { pieces, .. } => pieces.clone(),
    };
    let (mut found, mut needed) = (Vec::new(), 0u64);
    for piece in layout.pieces.get(pieces).unwrap_or_default() {
        for at in 0..piece.value.leaves.len() {
            let Some((span, bytes)) = span(leaves, piece, at)? else { continue };
            needed = needed.saturating_add(bytes);
            found.push(span);
        }
    }
    let all: u64 = found.iter().map(|span| span.end - span.start).sum();
    Ok((!found.is_empty() && all <= most && all / 2 <= needed).then_some(found))
}

/// The bytes from the first to the last element of an operand of a piece, and how many of them are
/// elements; `None` if it is in memory.
fn span(leaves: &dyn FileLeaves, piece: &Piece<Value>, at: usize) -> Result<Option<(Span, u64)>> {
    let (Some(leaf), Some(lane)) = (piece.value.leaves.get(at), piece.operands.get(at)) else {
        return Ok(None);
    };
    let Some((blob, first)) = leaves.place(*leaf) else { return Ok(None) };
    let steps = piece.dims.iter().zip(&lane.strides);
    let last = lane.offset + steps.map(|(n, stride)| (n - 1) * stride).sum::<u64>();
    // A step of 0 gives one element many times.
    let steps = piece.dims.iter().zip(&lane.strides).filter(|(_, stride)| **stride > 0);
    let elements: u64 = steps.map(|(n, _)| n).product();
    let (start, end, bytes) = match leaf.dtype {
        Dtype::F4 => (lane.offset / 2, last / 2 + 1, elements.div_ceil(2)),
        dtype => {
            let of = |elements: u64| elements.checked_mul(width(dtype)).ok_or_else(outside);
            (of(lane.offset)?, of(last + 1)?, of(elements)?)
        }
    };
    let beyond = |byte: u64| first.checked_add(byte).ok_or_else(outside);
    Ok(Some((Span { blob, start: beyond(start)?, end: beyond(end)? }, bytes)))
}

/// Spans, those that are close together as one.
pub(super) fn joined(mut spans: Vec<Span>, gap: u64) -> Vec<Span> {
    spans.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            Some(last) if last.blob == span.blob && span.start <= last.end.saturating_add(gap) => {
                last.end = last.end.max(span.end);
            }
            _ => joined.push(span),
        }
    }
    joined
}

/// How many bytes spans take.
pub(super) fn total(spans: &[Span]) -> u64 {
    spans.iter().map(|span| span.end - span.start).sum()
}

/// Leaves of which some spans are in memory.
pub(super) struct Held<'a> {
    leaves: &'a dyn FileLeaves,
    spans: &'a [Span],
    bytes: &'a [u8],
}

impl<'a> Held<'a> {
    /// Reads joined spans.
    ///
    /// # Errors
    /// If they can't be read.
    pub(super) fn read(
        leaves: &'a dyn FileLeaves,
        spans: &'a [Span],
        buffer: &'a mut Vec<u8>,
    ) -> Result<Self> {
        let held = sized(buffer, bytes_of(total(spans), 1)?);
        let (mut rest, mut ranges) = (&mut *held, Vec::with_capacity(spans.len()));
        for span in spans {
            let len = bytes_of(span.end - span.start, 1)?;
            let (now, later) = rest.split_at_mut_checked(len).ok_or_else(outside)?;
            ranges.push(Range { blob: span.blob, offset: span.start, buffer: now });
            rest = later;
        }
        leaves.fetch(&mut ranges)?;
        Ok(Self { leaves, spans, bytes: held })
    }

    /// Bytes of a blob, if they are here.
    fn find(&self, blob: Blob, start: u64, len: usize) -> Option<&[u8]> {
        let at = self.spans.partition_point(|span| (span.blob, span.start) <= (blob, start));
        let at = at.checked_sub(1)?;
        let span = self.spans.get(at).filter(|span| span.blob == blob)?;
        let before = total(self.spans.get(..at)?);
        let from = usize::try_from(before + (start - span.start)).ok()?;
        start.checked_add(len as u64).filter(|end| *end <= span.end)?;
        self.bytes.get(from..from.checked_add(len)?)
    }
}

impl Leaves for Held<'_> {
    fn read(&self, leaf: Leaf, ranges: &mut [(u64, &mut [u8])]) -> Result<()> {
        let (blob, first) = self.leaves.place(leaf).ok_or_else(outside)?;
        for (offset, buffer) in ranges {
            let start = first.checked_add(*offset).ok_or_else(outside)?;
            match self.find(blob, start, buffer.len()) {
                Some(found) => buffer.copy_from_slice(found),
                None => self.leaves.read(leaf, &mut [(*offset, &mut **buffer)])?,
            }
        }
        Ok(())
    }

    fn bytes(&self, leaf: Leaf) -> Option<&[u8]> {
        self.leaves.bytes(leaf)
    }
}
