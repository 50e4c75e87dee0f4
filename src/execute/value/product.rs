//! Products of matrices, element by element: each a sum along a row of one and a column of the other.
//!
//! A sum begins with zero and takes one product after the other, each multiplied and added with one
//! rounding. So do the libraries that PyTorch multiplies matrices with, as long as rows are short
//! enough to be summed in one go: for the ranks of adapters both give the same bits.

use pulp::Arch;

use crate::error::{Error, Result};
use crate::tensor::Dtype;

/// Where a factor lies: the bytes of all of it; where the row or column of the first element of a
/// box begins, and how far it moves with a step along each dimension of the box; and how far apart
/// the elements are that are summed.
pub(in crate::execute) struct Factor<'a> {
    pub(in crate::execute) bytes: &'a [u8],
    pub(in crate::execute) offset: u64,
    pub(in crate::execute) strides: &'a [u64],
    pub(in crate::execute) step: u64,
}

/// Elements `start..start+len`, in row-major order, of a box of a product; `count` is how many
/// products are summed for each.
///
/// # Errors
/// If a factor is cut, or of a dtype that isn't multiplied.
pub(in crate::execute) fn product(
    dtype: Dtype,
    factors: &[Factor<'_>; 2],
    count: u64,
    dims: &[u64],
    (start, len): (usize, usize),
) -> Result<Vec<u8>> {
    match dtype {
        Dtype::F32 => stretch::<f32, 4>(factors, count, dims, (start, len)),
        Dtype::F64 => stretch::<f64, 8>(factors, count, dims, (start, len)),
        _ => None,
    }
    .ok_or_else(|| Error::corrupt("a factor of a product is cut"))
}

/// A float that is multiplied and added with one rounding.
trait Real<const WIDTH: usize>: Copy + Default {
    fn read(bytes: [u8; WIDTH]) -> Self;
    fn bytes(self) -> [u8; WIDTH];
    fn fused(self, by: Self, onto: Self) -> Self;
}

impl Real<4> for f32 {
    fn read(bytes: [u8; 4]) -> Self {
        Self::from_le_bytes(bytes)
    }
    fn bytes(self) -> [u8; 4] {
        self.to_le_bytes()
    }
    #[inline(always)]
    fn fused(self, by: Self, onto: Self) -> Self {
        self.mul_add(by, onto)
    }
}

impl Real<8> for f64 {
    fn read(bytes: [u8; 8]) -> Self {
        Self::from_le_bytes(bytes)
    }
    fn bytes(self) -> [u8; 8] {
        self.to_le_bytes()
    }
    #[inline(always)]
    fn fused(self, by: Self, onto: Self) -> Self {
        self.mul_add(by, onto)
    }
}

/// Each run along the last dimension, one after the other.
fn stretch<T: Real<WIDTH>, const WIDTH: usize>(
    factors: &[Factor<'_>; 2],
    count: u64,
    dims: &[u64],
    (start, len): (usize, usize),
) -> Option<Vec<u8>> {
    let elements = factors.each_ref().map(|factor| factor.bytes.as_chunks::<WIDTH>().0);
    let count = usize::try_from(count).ok()?;
    let inner = dims.last().copied().unwrap_or(1).max(1);
    let arch = Arch::new();
    let mut sums = vec![T::default(); len];
    let mut done = 0;
    while done < len {
        let (mut outer, at) = ((start + done) as u64 / inner, (start + done) as u64 % inner);
        let mut offsets = factors.each_ref().map(|factor| factor.offset);
        for dim in (0..dims.len()).rev() {
            let step = if dim + 1 == dims.len() { at } else { outer % dims[dim] };
            if dim + 1 < dims.len() {
                outer /= dims[dim];
            }
            for (offset, factor) in offsets.iter_mut().zip(factors) {
                *offset += step * factor.strides.get(dim)?;
            }
        }
        let run = usize::try_from(inner - at).ok()?.min(len - done);
        let lanes = [0, 1].map(|which| {
            let factor = &factors[which];
            let along = factor.strides.last().copied().unwrap_or(0);
            let sizes = [offsets[which], along, factor.step].map(usize::try_from);
            Some(Elements {
                elements: elements[which],
                first: *sizes[0].as_ref().ok()?,
                along: *sizes[1].as_ref().ok()?,
                step: *sizes[2].as_ref().ok()?,
            })
        });
        let [Some(row), Some(column)] = lanes else { return None };
        let sums = &mut sums[done..done + run];
        arch.dispatch(
            #[inline(always)]
            || along_run(&row, &column, count, sums),
        )?;
        done += run;
    }
    Some(sums.into_iter().flat_map(T::bytes).collect())
}

/// Elements of a factor: where the first sum begins, how far apart sums begin, and how far apart
/// their elements are.
struct Elements<'a, const WIDTH: usize> {
    elements: &'a [[u8; WIDTH]],
    first: usize,
    along: usize,
    step: usize,
}

impl<const WIDTH: usize> Elements<'_, WIDTH> {
    #[inline(always)]
    fn get<T: Real<WIDTH>>(&self, sum: usize, at: usize) -> Option<T> {
        self.elements.get(self.first + sum * self.along + at * self.step).copied().map(T::read)
    }
}

/// The sums of a run. Where they share a row, each of its elements goes to all of them at once,
/// which changes nothing for any of them.
#[inline(always)]
fn along_run<T: Real<WIDTH>, const WIDTH: usize>(
    row: &Elements<'_, WIDTH>,
    column: &Elements<'_, WIDTH>,
    count: usize,
    sums: &mut [T],
) -> Option<()> {
    if row.along == 0 && column.along == 1 {
        for at in 0..count {
            let by: T = row.get(0, at)?;
            let first = column.first + at * column.step;
            let others = column.elements.get(first..first + sums.len())?;
            for (sum, other) in sums.iter_mut().zip(others) {
                *sum = by.fused(T::read(*other), *sum);
            }
        }
        return Some(());
    }
    for (which, sum) in sums.iter_mut().enumerate() {
        for at in 0..count {
            *sum = row.get::<T>(which, at)?.fused(column.get(which, at)?, *sum);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn of(a: &[f32], b: &[f32], [m, k, n]: [u64; 3], range: (usize, usize)) -> Vec<u8> {
        let (a, b) = (f32s(a), f32s(b));
        let factors = [
            Factor { bytes: &a, offset: 0, strides: &[k, 0], step: 1 },
            Factor { bytes: &b, offset: 0, strides: &[0, 1], step: n },
        ];
        product(Dtype::F32, &factors, k, &[m, n], range).unwrap()
    }

    #[test]
    fn rows_times_columns() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
        let whole = [21.0, 24.0, 27.0, 47.0, 54.0, 61.0];
        assert_eq!(of(&a, &b, [2, 2, 3], (0, 6)), f32s(&whole));
        assert_eq!(of(&a, &b, [2, 2, 3], (2, 3)), f32s(&whole[2..5]));
        // Sums of nothing.
        assert_eq!(of(&[], &[], [1, 0, 2], (0, 2)), f32s(&[0.0, 0.0]));
    }

    #[test]
    fn a_product_is_added_unrounded() {
        // (1 + 2^-12)^2 is 1 + 2^-11 + 2^-24: rounded, the last is lost before 1 + 2^-11 is taken off.
        let one = 1.0 + 2f32.powi(-12);
        let lost = -(1.0 + 2f32.powi(-11));
        let found = of(&[1.0, one], &[lost, one], [1, 2, 1], (0, 1));
        assert_eq!(found, f32s(&[2f32.powi(-24)]));
    }

    #[test]
    fn a_cut_factor_is_an_error() {
        let (a, b) = (f32s(&[1.0]), f32s(&[1.0, 2.0]));
        let factors = [
            Factor { bytes: &a, offset: 0, strides: &[2, 0], step: 1 },
            Factor { bytes: &b, offset: 0, strides: &[0, 1], step: 1 },
        ];
        assert!(product(Dtype::F32, &factors, 2, &[1, 1], (0, 1)).is_err());
        assert!(product(Dtype::F16, &factors, 1, &[1, 1], (0, 1)).is_err());
    }
}
