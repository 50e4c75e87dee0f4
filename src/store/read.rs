//! What follows from a store's boxes: a tensor's bytes in row-major order, and a tensor as a view.

use super::{Blob, Boxes, Range, Store, range_in};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::TensorView;

/// Reads bytes of a tensor's row-major order.
pub(super) fn row_major<S: Store + ?Sized>(
    store: &S,
    key: &str,
    offset: u64,
    buffer: &mut [u8],
) -> Result<()> {
    let boxes = store.boxes(key)?;
    let outside = || Error::corrupt("the range leaves the tensor");
    let start = range_in(boxes.info().nbytes().unwrap_or(0), offset, buffer.len())?;
    if buffer.is_empty() {
        return Ok(());
    }
    if let Some(run) = boxes.run() {
        let offset = run.offset.checked_add(start).ok_or_else(outside)?;
        return store.read(&mut [Range { blob: run.blob, offset, buffer }]);
    }
    if let Some(view) = shared(store, &boxes)? {
        return view.read_row_major(start, buffer);
    }
    let size = boxes.info().dtype.element();
    let end = start.checked_add(buffer.len() as u64).ok_or_else(outside)?;
    let elements = start / size..end.div_ceil(size);
    if start % size == 0 && end % size == 0 {
        return scattered(store, &boxes, elements, buffer);
    }
    // Elements that are asked for in part are read whole.
    let bytes = |elements: u64| usize::try_from(elements * size).map_err(|_| outside());
    let mut whole = vec![0; bytes(elements.end - elements.start)?];
    let skip = usize::try_from(start % size).map_err(|_| outside())?;
    scattered(store, &boxes, elements, &mut whole)?;
    let asked = whole.get(skip..).and_then(|rest| rest.get(..buffer.len())).ok_or_else(outside)?;
    buffer.copy_from_slice(asked);
    Ok(())
}

/// Reads bytes of a blob, and hands them on buffer by buffer.
pub(super) fn in_pieces<S: Store + ?Sized>(
    store: &S,
    blob: Blob,
    (mut offset, mut left): (u64, u64),
    buffer: &mut [u8],
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..most).filter(|piece| !piece.is_empty());
        let piece = piece.ok_or_else(|| Error::corrupt("a buffer without room"))?;
        store.read(&mut [Range { blob, offset, buffer: &mut *piece }])?;
        take(piece)?;
        offset = offset.saturating_add(most as u64);
        left -= most as u64;
    }
    Ok(())
}

/// Reads whole elements from wherever they lie. What is close together in a blob is one range,
/// with the gaps between read through, so that a tensor with strides isn't read element by element.
fn scattered<S: Store + ?Sized>(
    store: &S,
    boxes: &Boxes,
    elements: std::ops::Range<u64>,
    buffer: &mut [u8],
) -> Result<()> {
    let outside = || Error::corrupt("the range leaves the tensor");
    let size = |bytes: u64| usize::try_from(bytes).map_err(|_| outside());
    let first = elements.start * boxes.info().dtype.element();
    let mut wanted = boxes.stretches(elements);
    wanted.sort_unstable_by_key(|stretch| (stretch.blob, stretch.offset));
    // Per range: which of the wanted it has, and its end in the blob.
    let mut groups: Vec<(std::ops::Range<usize>, u64)> = Vec::new();
    for (at, stretch) in wanted.iter().enumerate() {
        let end = stretch.offset + stretch.len;
        match groups.last_mut() {
            Some((group, last))
                if wanted[group.start].blob == stretch.blob
                    && stretch.offset.saturating_sub(*last) <= store.hints().gap =>
            {
                (group.end, *last) = (at + 1, end.max(*last));
            }
            _ => groups.push((at..at + 1, end)),
        }
    }
    let lengths = groups
        .iter()
        .map(|(group, end)| size(end - wanted[group.start].offset))
        .collect::<Result<Vec<usize>>>()?;
    let mut read = vec![0; lengths.iter().sum()];
    let mut rest = &mut read[..];
    let mut ranges = Vec::with_capacity(groups.len());
    for ((group, _), len) in groups.iter().zip(&lengths) {
        let (now, later) = rest.split_at_mut_checked(*len).ok_or_else(outside)?;
        let stretch = &wanted[group.start];
        ranges.push(Range { blob: stretch.blob, offset: stretch.offset, buffer: now });
        rest = later;
    }
    store.read(&mut ranges)?;
    for ((group, _), range) in groups.iter().zip(&ranges) {
        for stretch in &wanted[group.clone()] {
            let (from, to) = (size(stretch.offset - range.offset)?, size(stretch.at - first)?);
            let len = size(stretch.len)?;
            let from = range.buffer.get(from..).and_then(|rest| rest.get(..len));
            let to = buffer.get_mut(to..).and_then(|rest| rest.get_mut(..len));
            let (Some(from), Some(to)) = (from, to) else { return Err(outside()) };
            to.copy_from_slice(from);
        }
    }
    Ok(())
}

/// A tensor as a view of the storage that it lies in.
pub(super) fn view<S: Store + ?Sized>(store: &S, key: &str) -> Result<TensorView> {
    let boxes = store.boxes(key)?;
    shared(store, &boxes)?.ok_or_else(|| {
        let why = match boxes.len() {
            1 => "the store gives no shared storage",
            _ => "a tensor in several parts has no view",
        };
        Error::new(ErrorKind::Unsupported, why)
    })
}

/// A tensor of one box as a view, if the store shares its storage.
fn shared<S: Store + ?Sized>(store: &S, boxes: &Boxes) -> Result<Option<TensorView>> {
    let (Some(storages), 1, Some(part)) = (store.storages(), boxes.len(), boxes.get(0)) else {
        return Ok(None);
    };
    let offset = part.offset.checked_mul(8);
    let offset = offset.ok_or_else(|| Error::corrupt("an offset exceeds 64 bits"))?;
    let (info, strides) = (boxes.info().clone(), part.strides.to_vec());
    TensorView::strided(storages.storage(part.blob)?, info, strides, offset).map(Some)
}
