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
