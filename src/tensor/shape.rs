//! [`Shape`] and [`TensorInfo`]: sizes with checked arithmetic, since a header is hostile input.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Dtype;

/// The size of each dimension; empty for a zero-dim tensor, which has one element.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(SmallVec<[u64; 4]>);

impl Shape {
    /// The number of elements, or `None` where it exceeds 64 bits.
    pub fn numel(&self) -> Option<u64> {
        self.0.iter().try_fold(1u64, |product, size| product.checked_mul(*size))
    }

    /// Where a tensor of so many dimensions begins.
    pub(crate) fn zeros(rank: usize) -> Self {
        Self(SmallVec::from_elem(0, rank))
    }

    /// The same with a dimension of one step before the dimension `dim`; `None` if there are fewer
    /// than `dim`.
    pub(crate) fn with_dim(&self, dim: usize) -> Option<Self> {
        let mut sizes = self.0.clone();
        (dim <= sizes.len()).then(|| sizes.insert(dim, 1))?;
        Some(Self(sizes))
    }

    /// Whether strides, in elements, step through it in row-major order without gaps. Dimensions of
    /// one element don't matter; where there is no element, every stride does.
    pub(crate) fn is_row_major(&self, strides: &[u64]) -> bool {
        if self.0.contains(&0) {
            return true;
        }
        let mut expected = 1u64;
        self.0.iter().zip(strides).rev().all(|(size, stride)| {
            let fits = *size == 1 || *stride == expected;
            expected = expected.saturating_mul(*size);
            fits
        })
    }

    /// Row-major strides, in elements.
    pub fn contiguous_strides(&self) -> Vec<u64> {
        let mut strides = vec![1u64; self.0.len()];
        for dim in (1..self.0.len()).rev() {
            strides[dim - 1] = strides[dim].saturating_mul(self.0[dim]);
        }
        strides
    }
}

impl Deref for Shape {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.0
    }
}

impl From<Vec<u64>> for Shape {
    fn from(sizes: Vec<u64>) -> Self {
        Self(SmallVec::from_slice(&sizes))
    }
}

impl From<&[u64]> for Shape {
    fn from(sizes: &[u64]) -> Self {
        Self(SmallVec::from_slice(sizes))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, size) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{size}")?;
        }
        f.write_str("]")
    }
}

/// What a header says of a tensor: its dtype and shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorInfo {
    /// What one element is.
    pub dtype: Dtype,
    /// The size of each dimension.
    pub shape: Shape,
}

impl TensorInfo {
    /// From dtype and shape.
    pub fn new(dtype: Dtype, shape: impl Into<Shape>) -> Self {
        Self { dtype, shape: shape.into() }
    }

    /// The number of elements, or `None` where it exceeds 64 bits.
    pub fn numel(&self) -> Option<u64> {
        self.shape.numel()
    }

    /// Size in bytes, or `None` where it exceeds 64 bits or is no whole number of bytes.
    pub fn nbytes(&self) -> Option<u64> {
        let bits = self.numel()?.checked_mul(u64::from(self.dtype.bits()))?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.dtype, self.shape)
    }
}
