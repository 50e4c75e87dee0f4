//! [`Boxes`]: the parts that make a stored tensor up, and where each lies.
//!
//! A tensor of a safetensors file is one box in row-major order. A tensor in memory, or in a file
//! that keeps views of storages, is one box with strides. A tensor that several processes saved is
//! several boxes in several files. Whoever reads tensors begins from these boxes and needs no other
//! knowledge of a format.

use std::collections::HashMap;

use serde::Serialize;
use smallvec::{SmallVec, smallvec};

use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{Shape, TensorInfo};

/// Where bytes lie: a file, an object of a remote store or a storage in memory, by its number in
/// its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Blob(pub u32);

/// A part of a tensor, and where its elements lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredBox {
    /// Where it begins in the tensor, in elements along each dimension.
    pub start: Shape,
    /// How many elements it has along each dimension.
    pub shape: Shape,
    /// Where its bytes are.
    pub blob: Blob,
    /// Where its first element begins, in bytes from the start of the blob.
    pub offset: u64,
    /// How far one step along each dimension goes, in elements. 0 repeats an element.
    pub strides: Shape,
}

impl StoredBox {
    /// How many elements of the blob lie from its first to its last, both counted; `None` if that
    /// exceeds 64 bits.
    pub fn span(&self) -> Option<u64> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape
            .iter()
            .zip(self.strides.iter())
            .try_fold(1u64, |span, (n, stride)| span.checked_add((n - 1).checked_mul(*stride)?))
    }

    /// Whether its elements follow each other in row-major order.
    pub fn is_row_major(&self) -> bool {
        self.shape.is_row_major(&self.strides)
    }
}

/// The boxes of one tensor. They cover each of its elements exactly once, which is checked when
/// they are put together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Boxes {
    info: TensorInfo,
    boxes: SmallVec<[StoredBox; 1]>,
}

impl Boxes {
    /// A tensor that is one run of bytes.
    ///
    /// # Errors
    /// If its size is no whole number of bytes, or its end exceeds 64 bits.
    pub fn row_major(info: TensorInfo, blob: Blob, offset: u64) -> Result<Self> {
        let strides = Shape::from(info.shape.contiguous_strides());
        Self::strided(info, blob, offset, strides)
    }

    /// A tensor that is one box with strides, in elements.
    ///
    /// # Errors
    /// As [`Boxes::new`].
    pub fn strided(info: TensorInfo, blob: Blob, offset: u64, strides: Shape) -> Result<Self> {
        let start = Shape::zeros(info.shape.len());
        let shape = info.shape.clone();
        let boxes: SmallVec<[StoredBox; 1]> =
            smallvec![StoredBox { start, shape, blob, offset, strides }];
        Self::checked(info, boxes)
    }

    /// A tensor in several boxes, in any order.
    ///
    /// # Errors
    /// If a box leaves the tensor, two have an element in common, an element is in none, or the
    /// dtype has less than a byte and the tensor isn't one run.
    pub fn new(info: TensorInfo, boxes: impl IntoIterator<Item = StoredBox>) -> Result<Self> {
        Self::checked(info, boxes.into_iter().collect())
    }

    fn checked(info: TensorInfo, mut boxes: SmallVec<[StoredBox; 1]>) -> Result<Self> {
        let rank = info.shape.len();
        let bits = u64::from(info.dtype.bits());
        if info.nbytes().is_none() {
            return Err(Error::corrupt(format!("{info} is no whole number of bytes")));
        }
        // A tensor without elements keeps its one box, since it may be viewed where it lies.
        if boxes.len() > 1 {
            boxes.retain(|part| !part.shape.contains(&0));
        }
        for part in &boxes {
            if [&part.start, &part.shape, &part.strides].iter().any(|sizes| sizes.len() != rank) {
                return Err(Error::corrupt(format!("a part of {info} has another rank")));
            }
            let inside =
                part.start.iter().zip(part.shape.iter()).zip(info.shape.iter()).all(
                    |((start, n), size)| start.checked_add(*n).is_some_and(|end| end <= *size),
                );
            let end = part
                .span()
                .and_then(|span| span.checked_mul(bits))
                .and_then(|bits| part.offset.checked_add(bits.div_ceil(8)));
            if !inside || end.is_none() {
                return Err(Error::corrupt(format!("a part of {info} leaves it")));
            }
        }
        let numel = info.numel().unwrap_or(u64::MAX);
        if bits < 8 && numel > 0 && !(boxes.len() == 1 && boxes[0].is_row_major()) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{info} has elements of {bits} bits, which are read as one run only"),
            ));
        }
        if numel > 0 && !cover_once(&info.shape, &boxes)? {
            let why = format!("{} parts of {info} don't cover each element once", boxes.len());
            return Err(Error::corrupt(why));
        }
        Ok(Self { info, boxes })
    }

    /// dtype and shape of the tensor.
    pub fn info(&self) -> &TensorInfo {
        &self.info
    }

    /// The boxes.
    pub fn iter(&self) -> std::slice::Iter<'_, StoredBox> {
        self.boxes.iter()
    }

    /// The box at a place of [`Boxes::iter`].
    pub fn get(&self, at: usize) -> Option<&StoredBox> {
        self.boxes.get(at)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.boxes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.boxes.is_empty()
    }

    /// The only box, if there is one and its elements are one run in row-major order.
    pub fn run(&self) -> Option<&StoredBox> {
        match &self.boxes[..] {
            [part] if part.is_row_major() => Some(part),
            _ => None,
        }
    }

    /// The same boxes, where the numbers of blobs are others.
    #[must_use]
    pub(super) fn moved(mut self, to: impl Fn(Blob) -> Blob) -> Self {
        self.boxes.iter_mut().for_each(|part| part.blob = to(part.blob));
        self
    }

    /// Whether both are the same elements of the same blobs. Tensors without elements lie nowhere.
    pub fn same_place(&self, other: &Boxes) -> bool {
        let step = |n: u64, stride: u64| if n == 1 { 0 } else { stride };
        let same = |a: &StoredBox, b: &StoredBox| {
            (a.blob, a.offset, &a.start, &a.shape) == (b.blob, b.offset, &b.start, &b.shape)
                && a.shape
                    .iter()
                    .zip(a.strides.iter().zip(b.strides.iter()))
                    .all(|(n, (x, y))| step(*n, *x) == step(*n, *y))
        };
        self.info == other.info
            && self.info.numel() != Some(0)
            && self.len() == other.len()
            && self.iter().zip(other.iter()).all(|(a, b)| same(a, b))
    }

    /// The stretches of bytes that some elements of the row-major tensor lie in, each once. The
    /// range is known to lie within the tensor.
    pub(super) fn stretches(&self, elements: std::ops::Range<u64>) -> Vec<Stretch> {
        let size = self.info.dtype.element();
        let along = self.info.shape.contiguous_strides();
        let mut found = Vec::new();
        for part in &self.boxes {
            part.lines(&along, &elements, size, &mut found);
        }
        found
    }
}

/// Bytes of a blob, and where they belong in a tensor's row-major order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// In bytes from the start of the tensor.
    pub(super) at: u64,
    /// In bytes.
    pub(super) len: u64,
    pub(super) blob: Blob,
    /// In bytes from the start of the blob.
    pub(super) offset: u64,
}

impl StoredBox {
    /// Its lines along the last dimension, as far as they lie within some elements of the tensor.
    /// `along` are the tensor's row-major strides.
    fn lines(
        &self,
        along: &[u64],
        wanted: &std::ops::Range<u64>,
        size: u64,
        found: &mut Vec<Stretch>,
    ) {
        let Some((&length, outer)) = self.shape.split_last() else {
            if wanted.contains(&0) {
                found.push(Stretch { at: 0, len: size, blob: self.blob, offset: self.offset });
            }
            return;
        };
        let step = self.strides.last().copied().unwrap_or(1);
        let count: u64 = outer.iter().product();
        // Where a line begins: in the tensor and in the blob, in elements.
        let line = |mut number: u64| {
            let (mut at, mut from) = (self.start.last().copied().unwrap_or(0), 0);
            for dim in (0..outer.len()).rev() {
                let index = number % outer[dim];
                number /= outer[dim];
                at += (self.start[dim] + index) * along[dim];
                from += index * self.strides[dim];
            }
            (at, from)
        };
        // Lines come in the order of the tensor, so the first that reaches the range is searched.
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            if line(middle).0 + length <= wanted.start {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        for number in low..count {
            let (at, from) = line(number);
            if at >= wanted.end {
                break;
            }
            let first = wanted.start.saturating_sub(at).min(length);
            let last = (wanted.end - at).min(length);
            let mut push = |index: u64, elements: u64| {
                found.push(Stretch {
                    at: (at + index) * size,
                    len: elements * size,
                    blob: self.blob,
                    offset: self.offset + (from + index * step) * size,
                });
            };
            if step == 1 {
                push(first, last - first);
            } else {
                (first..last).for_each(|index| push(index, 1));
            }
        }
    }
}

/// Most corners of boxes that are looked at: four million, as of half a million boxes in three
/// dimensions.
const MAX_CORNERS: usize = 1 << 22;

/// Whether boxes, each inside the tensor, cover every element exactly once.
///
/// A sum of boxes is known by its corners: count each corner of each box, those at an odd number of
/// ends negative, and what is left are the corners of the whole, if the boxes are exactly that.
/// So this costs what the corners cost, however the boxes lie.
///
/// # Errors
/// If there are too many corners.
fn cover_once(shape: &[u64], boxes: &[StoredBox]) -> Result<bool> {
    // Nearly every tensor is one box.
    if let [part] = boxes {
        return Ok(part.shape[..] == *shape);
    }
    // Dimensions that no box cuts have the same ends in all.
    let cut: Vec<usize> = (0..shape.len())
        .filter(|dim| boxes.iter().any(|part| part.shape[*dim] != shape[*dim]))
        .collect();
    let corners = u32::try_from(cut.len()).ok().and_then(|dims| 1usize.checked_shl(dims));
    let corners = corners.filter(|n| n.checked_mul(boxes.len()).is_some_and(|n| n <= MAX_CORNERS));
    let corners = corners.ok_or_else(|| {
        Error::new(ErrorKind::Limit, format!("a tensor in {} parts", boxes.len()))
    })?;
    let mut left: HashMap<SmallVec<[u64; 4]>, i64> = HashMap::new();
    let mut count = |start: &dyn Fn(usize) -> (u64, u64), by: i64| {
        for corner in 0..corners {
            let at = |(bit, dim): (usize, &usize)| {
                let (start, len) = start(*dim);
                if corner >> bit & 1 == 1 { start + len } else { start }
            };
            let place = cut.iter().enumerate().map(at).collect();
            let sign = if corner.count_ones() % 2 == 1 { -by } else { by };
            *left.entry(place).or_default() += sign;
        }
    };
    for part in boxes {
        count(&|dim| (part.start[dim], part.shape[dim]), 1);
    }
    count(&|dim| (0, shape[dim]), -1);
    Ok(left.values().all(|count| *count == 0))
}
