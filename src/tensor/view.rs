//! [`TensorView`]: a tensor over shared storage. Placeholder of the contract; see the store.

use std::sync::Arc;

use super::{Dtype, Shape, TensorInfo};

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

    /// Whether both are the same storage (not merely equal bytes).
    pub fn same(&self, other: &Storage) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A tensor over shared storage: dtype, shape, strides and offset. Owns its storage through an `Arc`; is `Send + Sync`.
#[derive(Clone)]
pub struct TensorView {
    storage: Storage,
    info: TensorInfo,
    /// In elements.
    strides: Vec<u64>,
    /// In bits, from the start of the storage.
    offset_bits: u64,
}

impl TensorView {
    /// A row-major tensor whose first byte is `offset_bytes` into the storage.
    ///
    /// # Errors
    /// If the tensor has no whole number of bytes or leaves the storage.
    pub fn contiguous(storage: Storage, info: TensorInfo, offset_bytes: u64) -> Result<TensorView, crate::error::Error> {
        let end = info.nbytes().and_then(|len| offset_bytes.checked_add(len));
        let offset_bits = offset_bytes.checked_mul(8);
        let (Some(end), Some(offset_bits)) = (end, offset_bits) else {
            return Err(crate::error::Error::corrupt(format!("{info} has no size in whole bytes")));
        };
        if end > storage.bytes().len() as u64 {
            return Err(crate::error::Error::corrupt(format!("{info} at byte {offset_bytes} leaves its storage")));
        }
        let strides = info.shape.contiguous_strides();
        Ok(Self { storage, info, strides, offset_bits })
    }

    /// The storage that it shares.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Its bytes in row-major order, if they lie so in the storage.
    pub fn contiguous_bytes(&self) -> Option<&[u8]> {
        let start = usize::try_from(self.offset_bits / 8).ok()?;
        let len = usize::try_from(self.info.nbytes()?).ok()?;
        self.storage.bytes().get(start..start.checked_add(len)?)
    }

    /// dtype.
    pub fn dtype(&self) -> Dtype {
        self.info.dtype
    }

    /// Size of each dimension.
    pub fn shape(&self) -> &Shape {
        &self.info.shape
    }

    /// Strides, in elements.
    pub fn strides(&self) -> &[u64] {
        &self.strides
    }
}
