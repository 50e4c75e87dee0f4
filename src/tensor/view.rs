//! [`TensorView`]: a tensor over shared storage.
//!
//! Every view lies inside its storage: constructors check that once, so reading needs no further
//! checks and cannot panic. Elements are little-endian, as in the safetensors format. Dtypes of
//! less than a byte have only contiguous views that begin and end on byte boundaries; anything else
//! is refused with the reason.

use std::fmt;
use std::sync::Arc;

use super::strided;
use super::{Dtype, Shape, TensorInfo};
use crate::error::{Error, ErrorKind, Result};

/// Bytes that views share: a mapped file or a buffer. Cloning shares.
#[derive(Clone)]
pub struct Storage(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Storage {
    /// Storage over anything that holds bytes.
    pub fn new(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        (*self.0).as_ref()
    }

    /// What tells it from every other storage that is there at the same time.
    pub(crate) fn id(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>() as usize
    }

    /// Whether both are the same storage (not merely equal bytes).
    pub fn same(&self, other: &Storage) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A tensor over shared storage: dtype, shape, strides and offset. Owns its storage through an
/// `Arc`; is `Send + Sync`.
#[derive(Clone)]
pub struct TensorView {
    storage: Storage,
    info: TensorInfo,
    /// In elements.
    strides: Vec<u64>,
    /// In bits, from the start of the storage.
    offset_bits: u64,
}

impl fmt::Debug for TensorView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TensorView({}, strides {:?}, offset {} bits)",
            self.info, self.strides, self.offset_bits
        )
    }
}

impl TensorView {
    /// A row-major tensor that begins `offset` bytes into the storage.
    ///
    /// # Errors
    /// If it doesn't fit into the storage, or its size is no whole number of bytes.
    pub fn contiguous(storage: Storage, info: TensorInfo, offset: u64) -> Result<Self> {
        let strides = info.shape.contiguous_strides();
        let bits = offset.checked_mul(8).ok_or_else(|| outside(&info, &storage))?;
        Self::strided(storage, info, strides, bits)
    }

    /// A tensor with strides in elements (0 repeats a dimension) and an offset in bits.
    ///
    /// # Errors
    /// If it leaves the storage, has another number of strides than dimensions, doesn't begin on a
    /// byte boundary, or has a dtype of less than a byte and isn't contiguous.
    pub fn strided(
        storage: Storage,
        info: TensorInfo,
        strides: Vec<u64>,
        offset_bits: u64,
    ) -> Result<Self> {
        let view = Self { storage, info, strides, offset_bits };
        if view.strides.len() != view.info.shape.len() {
            return Err(refused(format!(
                "{} has {} strides for {} dimensions",
                view.info,
                view.strides.len(),
                view.info.shape.len()
            )));
        }
        if !view.offset_bits.is_multiple_of(8) {
            return Err(refused(format!(
                "a view of {} does not begin on a byte boundary",
                view.info
            )));
        }
        if view.info.nbytes().is_none() {
            return Err(refused(format!("{} is no whole number of bytes", view.info)));
        }
        if view.sub_byte() && !view.is_contiguous() {
            return Err(refused(format!(
                "{} has elements of {} bits, which only contiguous views can hold",
                view.info,
                view.bits()
            )));
        }
        let end = view.end_bits().ok_or_else(|| outside(&view.info, &view.storage))?;
        if end > (view.storage.bytes().len() as u64).saturating_mul(8) {
            return Err(outside(&view.info, &view.storage));
        }
        Ok(view)
    }

    /// dtype.
    pub fn dtype(&self) -> Dtype {
        self.info.dtype
    }

    /// Size of each dimension.
    pub fn shape(&self) -> &Shape {
        &self.info.shape
    }

    /// dtype and shape.
    pub fn info(&self) -> &TensorInfo {
        &self.info
    }

    /// Strides, in elements.
    pub fn strides(&self) -> &[u64] {
        &self.strides
    }

    /// The storage.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Where its first element lies, in bits from the start of the storage; a multiple of 8.
    pub fn offset_bits(&self) -> u64 {
        self.offset_bits
    }

    /// Number of elements.
    pub fn numel(&self) -> u64 {
        // Construction has shown that it fits.
        self.info.numel().unwrap_or(0)
    }

    /// Size in bytes when it is row-major (of its elements, not of what it spans).
    pub fn nbytes(&self) -> u64 {
        self.info.nbytes().unwrap_or(0)
    }

    /// Whether its elements lie in row-major order without gaps. Dimensions of one element don't
    /// matter; an empty tensor is.
    pub fn is_contiguous(&self) -> bool {
        self.info.shape.is_row_major(&self.strides)
    }

    /// Whether both lie in one storage (maybe in different places of it).
    pub fn same_storage(&self, other: &TensorView) -> bool {
        self.storage.same(&other.storage)
    }

    /// Whether both are one tensor: same storage, offset, dtype, shape and strides (those of
    /// dimensions of one element aside).
    pub fn same_tensor(&self, other: &TensorView) -> bool {
        let strides = |view: &TensorView| -> Vec<u64> {
            view.info
                .shape
                .iter()
                .zip(&view.strides)
                .filter(|(size, _)| **size != 1)
                .map(|(_, stride)| *stride)
                .collect()
        };
        self.same_storage(other)
            && self.offset_bits == other.offset_bits
            && self.info == other.info
            && strides(self) == strides(other)
    }

    /// Address of its first byte.
    pub fn data_ptr(&self) -> *const u8 {
        self.tail().as_ptr()
    }

    /// Its bytes where they lie, if it is contiguous.
    pub fn bytes(&self) -> Option<&[u8]> {
        if !self.is_contiguous() {
            return None;
        }
        self.tail().get(..usize::try_from(self.nbytes()).ok()?)
    }

    /// A copy of its elements in row-major order, little-endian.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.nbytes()).unwrap_or(0)];
        // The length fits by construction.
        let copied = self.copy_into(&mut bytes);
        debug_assert!(copied.is_ok());
        bytes
    }

    /// Copies its elements in row-major order, little-endian.
    ///
    /// # Errors
    /// If `buffer` isn't [`nbytes`](Self::nbytes) long.
    pub fn copy_into(&self, buffer: &mut [u8]) -> Result<()> {
        if buffer.len() as u64 != self.nbytes() {
            return Err(refused(format!(
                "a buffer of {} bytes for {} bytes of {}",
                buffer.len(),
                self.nbytes(),
                self.info
            )));
        }
        if let Some(bytes) = self.bytes() {
            buffer.copy_from_slice(bytes);
            return Ok(());
        }
        let size = usize::try_from(self.bits() / 8).unwrap_or(0);
        let strides = self.info.shape.contiguous_strides();
        strided::copy(&self.info.shape, size, self.tail(), &self.strides, buffer, &strides)
            .ok_or_else(|| outside(&self.info, &self.storage))
    }

    /// Reads bytes of its row-major order from `offset`; the range is known to lie within.
    pub(crate) fn read_row_major(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let outside = || Error::corrupt("the range leaves the tensor");
        if buffer.is_empty() {
            return Ok(());
        }
        if let Some(bytes) = self.bytes() {
            let start = usize::try_from(offset).map_err(|_| outside())?;
            let part =
                bytes.get(start..).and_then(|rest| rest.get(..buffer.len())).ok_or_else(outside)?;
            buffer.copy_from_slice(part);
            return Ok(());
        }
        // Not contiguous, so of at least one dimension and not empty. Whole rows are copied at once; of
        // the first and the last, parts may be asked.
        let rows = self.shape().first().copied().unwrap_or(1);
        let row = self.nbytes().checked_div(rows).filter(|row| *row > 0).ok_or_else(outside)?;
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let (first, skip) = (at / row, at % row);
            let whole = rest.len() as u64 / row;
            let part = if skip == 0 && whole > 0 {
                whole * row
            } else {
                (row - skip).min(rest.len() as u64)
            };
            let (now, later) = rest
                .split_at_mut_checked(usize::try_from(part).map_err(|_| outside())?)
                .ok_or_else(outside)?;
            if skip == 0 && whole > 0 {
                self.narrow(0, first, whole)?.copy_into(now)?;
            } else {
                self.select(0, first)?.read_row_major(skip, now)?;
            }
            at += part;
            rest = later;
        }
        Ok(())
    }

    /// Elements `start..start+len` of a dimension.
    ///
    /// # Errors
    /// If there are no such elements, or the dtype is of less than a byte and the cut is inside
    /// one.
    pub fn narrow(&self, dim: usize, start: u64, len: u64) -> Result<TensorView> {
        let size = self.info.shape.get(dim).copied().ok_or_else(|| self.no_dim(dim))?;
        if start.checked_add(len).is_none_or(|end| end > size) {
            return Err(refused(format!(
                "cannot take {len} elements from {start} of dimension {dim} of {}",
                self.info
            )));
        }
        let mut shape = self.info.shape.to_vec();
        shape[dim] = len;
        self.moved(dim, start, shape, self.strides.clone())
    }

    /// One element of a dimension, which goes away.
    ///
    /// # Errors
    /// As [`narrow`](Self::narrow).
    pub fn select(&self, dim: usize, index: u64) -> Result<TensorView> {
        let size = self.info.shape.get(dim).copied().ok_or_else(|| self.no_dim(dim))?;
        if index >= size {
            return Err(refused(format!("no element {index} in dimension {dim} of {}", self.info)));
        }
        let mut shape = self.info.shape.to_vec();
        let mut strides = self.strides.clone();
        shape.remove(dim);
        strides.remove(dim);
        self.moved(dim, index, shape, strides)
    }

    /// Dimensions in another order: result dim `i` is dim `dims[i]`.
    ///
    /// # Errors
    /// If `dims` isn't a permutation, or the dtype is of less than a byte and elements would move.
    pub fn permute(&self, dims: &[usize]) -> Result<TensorView> {
        let mut sorted = dims.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..self.info.shape.len()) {
            return Err(refused(format!(
                "{dims:?} is no permutation of the dimensions of {}",
                self.info
            )));
        }
        let shape: Vec<u64> = dims.iter().map(|dim| self.info.shape[*dim]).collect();
        let strides = dims.iter().map(|dim| self.strides[*dim]).collect();
        Self::strided(
            self.storage.clone(),
            TensorInfo::new(self.info.dtype, shape),
            strides,
            self.offset_bits,
        )
    }

    /// The same elements in row-major order under another shape, where that is a view; `None` if
    /// elements would have to be copied, or their number differs. The rule is that of
    /// `torch.Tensor.view`.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Option<TensorView> {
        let shape = shape.into();
        if shape.numel()? != self.info.numel()? {
            return None;
        }
        let strides = if self.is_contiguous() {
            shape.contiguous_strides()
        } else {
            self.reshaped_strides(&shape)?
        };
        Self::strided(
            self.storage.clone(),
            TensorInfo { dtype: self.info.dtype, shape },
            strides,
            self.offset_bits,
        )
        .ok()
    }

    /// Strides under a new shape: runs of dimensions that step as one may be cut anew, and a cut
    /// never spans two runs.
    fn reshaped_strides(&self, shape: &Shape) -> Option<Vec<u64>> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (size, stride) in
            self.info.shape.iter().zip(&self.strides).filter(|(size, _)| **size != 1)
        {
            match runs.last_mut() {
                Some((len, last)) if *last == stride.checked_mul(*size)? => {
                    (*len, *last) = (len.checked_mul(*size)?, *stride)
                }
                _ => runs.push((*size, *stride)),
            }
        }
        let mut strides = vec![1u64; shape.len()];
        let (mut left, mut step) = (1u64, 1u64);
        for (dim, size) in shape.iter().enumerate().rev() {
            if *size == 1 {
                strides[dim] = step;
                continue;
            }
            if left == 1 {
                (left, step) = runs.pop()?;
            }
            if !left.is_multiple_of(*size) {
                return None;
            }
            strides[dim] = step;
            left /= size;
            step = step.checked_mul(*size)?;
        }
        Some(strides)
    }

    fn moved(&self, dim: usize, by: u64, shape: Vec<u64>, strides: Vec<u64>) -> Result<TensorView> {
        let info = TensorInfo::new(self.info.dtype, shape);
        let offset = by
            .checked_mul(self.strides[dim])
            .and_then(|elements| elements.checked_mul(self.bits()));
        let offset = offset
            .and_then(|bits| self.offset_bits.checked_add(bits))
            .ok_or_else(|| outside(&info, &self.storage))?;
        // An empty view has no first element; it stays at a place that exists.
        let offset = if info.numel() == Some(0) { self.offset_bits } else { offset };
        Self::strided(self.storage.clone(), info, strides, offset)
    }

    /// One past its last bit, from the start of the storage.
    fn end_bits(&self) -> Option<u64> {
        if self.info.numel()? == 0 {
            return Some(self.offset_bits);
        }
        let sizes = self.info.shape.iter().zip(&self.strides);
        let last = sizes.into_iter().try_fold(0u64, |sum, (size, stride)| {
            sum.checked_add((size - 1).checked_mul(*stride)?)
        })?;
        self.offset_bits.checked_add(last.checked_add(1)?.checked_mul(self.bits())?)
    }

    fn bits(&self) -> u64 {
        u64::from(self.info.dtype.bits())
    }

    fn sub_byte(&self) -> bool {
        self.bits() < 8
    }

    fn tail(&self) -> &[u8] {
        let start = usize::try_from(self.offset_bits / 8).unwrap_or(usize::MAX);
        self.storage.bytes().get(start..).unwrap_or(&[])
    }

    fn no_dim(&self, dim: usize) -> Error {
        refused(format!("no dimension {dim} in {}", self.info))
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

fn outside(info: &TensorInfo, storage: &Storage) -> Error {
    Error::corrupt(format!(
        "a tensor of {info} leaves its storage of {} bytes",
        storage.bytes().len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(shape: &[u64]) -> TensorView {
        let numel: u64 = shape.iter().product();
        let bytes: Vec<u8> =
            (0..numel).flat_map(|i| u16::try_from(i).unwrap().to_le_bytes()).collect();
        TensorView::contiguous(Storage::new(bytes), TensorInfo::new(Dtype::U16, shape), 0).unwrap()
    }

    fn values(view: &TensorView) -> Vec<u16> {
        view.to_vec().chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    #[test]
    fn slices_select_and_permute_share_storage() {
        let whole = counting(&[2, 3, 4]);
        let cut = whole.narrow(1, 1, 2).unwrap();
        assert_eq!(values(&cut), [4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23]);
        assert!(!cut.is_contiguous() && cut.bytes().is_none());
        let row = whole.select(0, 1).unwrap().select(0, 2).unwrap();
        assert_eq!(values(&row), [20, 21, 22, 23]);
        assert_eq!(row.data_ptr(), whole.data_ptr().wrapping_add(40));
        let turned = row.reshape(vec![2, 2]).unwrap().permute(&[1, 0]).unwrap();
        assert_eq!(values(&turned), [20, 22, 21, 23]);
        assert!(turned.same_storage(&whole) && !turned.same_tensor(&whole));
    }

    #[test]
    fn reshape_is_a_view_only_where_strides_allow() {
        let cut = counting(&[4, 6]).narrow(1, 0, 4).unwrap();
        assert_eq!(cut.reshape(vec![2, 2, 2, 2]).unwrap().strides(), [12, 6, 2, 1]);
        assert_eq!(values(&cut.reshape(vec![2, 2, 4]).unwrap()), values(&cut));
        assert!(cut.reshape(vec![16]).is_none());
        assert!(cut.reshape(vec![17]).is_none());
        let turned = counting(&[2, 3]).permute(&[1, 0]).unwrap();
        assert!(turned.reshape(vec![6]).is_none());
        assert_eq!(values(&turned.reshape(vec![3, 1, 2]).unwrap()), [0, 3, 1, 4, 2, 5]);
        assert_eq!(values(&counting(&[]).reshape(vec![1, 1]).unwrap()), [0]);
        assert_eq!(
            counting(&[0, 3]).permute(&[1, 0]).unwrap().reshape(vec![5, 0]).unwrap().nbytes(),
            0
        );
    }

    #[test]
    fn a_view_never_leaves_its_storage() {
        let storage = Storage::new(vec![0u8; 8]);
        let info = TensorInfo::new(Dtype::F32, vec![2]);
        assert!(TensorView::contiguous(storage.clone(), info.clone(), 0).is_ok());
        for offset in [1, 4, u64::MAX, u64::MAX / 8] {
            assert_eq!(
                TensorView::contiguous(storage.clone(), info.clone(), offset).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
        }
        assert!(TensorView::strided(storage.clone(), info.clone(), vec![2], 0).is_err());
        assert!(TensorView::strided(storage.clone(), info.clone(), vec![0], 32).is_ok());
        assert!(TensorView::strided(storage.clone(), info.clone(), vec![1, 1], 0).is_err());
        assert!(TensorView::strided(storage.clone(), info, vec![0], 4).is_err());
        assert!(
            TensorView::contiguous(
                storage.clone(),
                TensorInfo::new(Dtype::U8, vec![u64::MAX, 2]),
                0
            )
            .is_err()
        );
        let whole = counting(&[4]);
        assert!(
            whole.narrow(0, 3, 2).is_err()
                && whole.narrow(1, 0, 0).is_err()
                && whole.narrow(0, u64::MAX, 2).is_err()
        );
        assert!(whole.select(0, 4).is_err() && whole.permute(&[0, 0]).is_err());
        assert!(whole.narrow(0, 4, 0).unwrap().to_vec().is_empty());
    }

    #[test]
    fn sub_byte_views_are_cut_on_byte_boundaries_or_refused() {
        let storage = Storage::new(vec![0x21u8, 0x43, 0x65]);
        let view =
            TensorView::contiguous(storage.clone(), TensorInfo::new(Dtype::F4, vec![3, 2]), 0)
                .unwrap();
        assert_eq!(view.narrow(0, 1, 2).unwrap().to_vec(), [0x43, 0x65]);
        assert!(view.narrow(1, 0, 1).is_err());
        assert!(view.permute(&[1, 0]).is_err());
        assert!(view.reshape(vec![6]).unwrap().narrow(0, 1, 2).is_err());
        assert!(view.reshape(vec![6]).unwrap().narrow(0, 0, 3).is_err());
        let six =
            TensorView::contiguous(storage.clone(), TensorInfo::new(Dtype::F6_E2M3, vec![4]), 0)
                .unwrap();
        assert_eq!(six.nbytes(), 3);
        assert!(TensorView::contiguous(storage, TensorInfo::new(Dtype::F4, vec![3]), 0).is_err());
    }

    #[test]
    fn one_tensor_is_more_than_one_storage() {
        let whole = counting(&[4, 4]);
        assert!(whole.same_tensor(&whole.clone()));
        assert!(!whole.same_tensor(&counting(&[4, 4])));
        assert!(!whole.same_tensor(&whole.permute(&[1, 0]).unwrap()));
        assert!(!whole.same_tensor(&whole.reshape(vec![16]).unwrap()));
        assert!(whole.narrow(0, 0, 2).unwrap().same_tensor(&whole.narrow(0, 0, 2).unwrap()));
    }
}
