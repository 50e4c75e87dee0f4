//! Many elements become one: norms and largest magnitudes, of elements that come block by block.

use super::numbers::Numbers;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Reduction;
use crate::tensor::{Dtype, TensorInfo};

/// Sums that are kept side by side and added in the end, half by half.
///
/// Source: the kernel of PyTorch's `_weight_norm` on a CPU, which is compiled for AVX2 whatever the
/// machine has: so many numbers are in a register. Another order of sums rounds otherwise.
const LANES: usize = 8;

/// Takes the elements of a tensor in row-major order, as many at a time as there are.
pub(in crate::execute) struct Reducer {
    take: Reduction,
    /// The dtype that is computed in: F64, or F32 for smaller ones.
    kind: Dtype,
    shape: Vec<u64>,
    /// How far one step along each dimension goes in the result; 0 along those that are reduced.
    strides: Vec<usize>,
    /// Of the next element, where it is.
    at: Vec<u64>,
    /// Elements that each of the result is made of so far.
    counts: Vec<u64>,
    /// Sums of each element of the result: one, or [`LANES`] where neighbours are reduced.
    sums: Vec<f64>,
    lanes: usize,
}

impl Reducer {
    /// Of a tensor along some of its dimensions.
    ///
    /// # Errors
    /// If there is no memory for the result.
    pub(in crate::execute) fn new(
        take: Reduction,
        info: &TensorInfo,
        dims: &[usize],
    ) -> Result<Self> {
        let shape = info.shape.to_vec();
        let mut strides = vec![0; shape.len()];
        let mut numel = 1usize;
        for dim in (0..shape.len()).rev().filter(|dim| !dims.contains(dim)) {
            strides[dim] = numel;
            numel = numel.saturating_mul(usize::try_from(shape[dim]).unwrap_or(usize::MAX));
        }
        let many: u64 = dims.iter().map(|dim| shape[*dim]).product();
        let in_rows = dims.contains(&(shape.len().wrapping_sub(1))) && many >= LANES as u64;
        let lanes = if take == Reduction::Norm && in_rows { LANES } else { 1 };
        let kind = if info.dtype == Dtype::F64 { Dtype::F64 } else { Dtype::F32 };
        let at = vec![0; shape.len()];
        let (counts, sums) = (zeroed(numel, info)?, zeroed(numel.saturating_mul(lanes), info)?);
        Ok(Self { take, kind, shape, strides, at, counts, sums, lanes })
    }

    /// Takes elements that follow those before.
    pub(in crate::execute) fn feed(&mut self, dtype: Dtype, elements: &[u8]) -> Result<()> {
        let cut = || Error::corrupt("a block of elements to reduce is cut");
        let numbers = Numbers::decode(dtype, elements).and_then(|it| it.converted(self.kind));
        match numbers.ok_or_else(cut)? {
            Numbers::F32(values) => self.take(&values, |sum, x| {
                // Exact: the sum is that of an `f32`, and stays one.
                #[allow(clippy::cast_possible_truncation)]
                f64::from(sum as f32 + x * x)
            }),
            Numbers::F64(values) => self.take(&values, |sum, x| sum + x * x),
            _ => return Err(cut()),
        }
        Ok(())
    }

    fn take<T: Copy + Into<f64>>(&mut self, values: &[T], square: impl Fn(f64, T) -> f64) {
        let Some(last) = self.shape.len().checked_sub(1) else { return };
        let mut values = values;
        while !values.is_empty() {
            // What is left of a row, in which places follow each other or are one.
            let left = wide(self.shape[last] - self.at[last]).max(1);
            let (row, rest) = values.split_at(left.min(values.len()));
            let first: usize =
                self.at.iter().zip(&self.strides).map(|(at, step)| wide(*at) * step).sum();
            for (at, value) in row.iter().enumerate() {
                let place = first + at * self.strides[last];
                let lane = wide(self.counts[place]) % self.lanes;
                self.counts[place] += 1;
                let sum = &mut self.sums[place * self.lanes + lane];
                *sum = match self.take {
                    Reduction::Norm => square(*sum, *value),
                    Reduction::AbsMax => {
                        let magnitude: f64 = (*value).into().abs();
                        if magnitude > *sum || magnitude.is_nan() { magnitude } else { *sum }
                    }
                };
            }
            self.at[last] += row.len() as u64;
            for dim in (1..self.shape.len()).rev() {
                if self.at[dim] < self.shape[dim] {
                    break;
                }
                self.at[dim] = 0;
                self.at[dim - 1] += 1;
            }
            values = rest;
        }
    }

    /// What became of them.
    pub(in crate::execute) fn finish(self, to: Dtype) -> Result<Vec<u8>> {
        let (kind, take) = (self.kind, self.take);
        let numbers = self.sums.chunks_exact(self.lanes).map(|lanes| {
            let mut lanes = lanes.to_vec();
            while lanes.len() > 1 {
                let upper = lanes.split_off(lanes.len() / 2);
                for (lane, other) in lanes.iter_mut().zip(upper) {
                    *lane = rounded(*lane + other, kind);
                }
            }
            let sum = lanes.first().copied().unwrap_or(0.0);
            if take == Reduction::Norm { rounded(rounded(sum, kind).sqrt(), kind) } else { sum }
        });
        Numbers::F64(numbers.collect())
            .converted(to)
            .and_then(|values| values.encode(to))
            .ok_or_else(|| Error::corrupt(format!("cannot encode {to}")))
    }
}

/// As the type that is computed in has it. The sum of two `f32`, and the root of one, are rounded
/// to it through an `f64` as they are without.
#[allow(clippy::cast_possible_truncation)]
fn rounded(value: f64, kind: Dtype) -> f64 {
    if kind == Dtype::F64 { value } else { f64::from(value as f32) }
}

/// So many zeros, if there is memory for them.
fn zeroed<T: Clone + Default>(count: usize, info: &TensorInfo) -> Result<Vec<T>> {
    let mut zeros = Vec::new();
    if zeros.try_reserve_exact(count).is_err() {
        let why = format!("no memory for what becomes of a tensor of {info}");
        return Err(Error::new(ErrorKind::Limit, why));
    }
    zeros.resize(count, T::default());
    Ok(zeros)
}

/// A place within a tensor that is in memory.
fn wide(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduce(take: Reduction, shape: &[u64], dims: &[usize], values: &[f32]) -> Vec<f32> {
        let info = TensorInfo::new(Dtype::F32, shape.to_vec());
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut found = Vec::new();
        for step in [1, 3, values.len().max(1)] {
            let mut reducer = Reducer::new(take, &info, dims).unwrap();
            for block in bytes.chunks(step * 4) {
                reducer.feed(Dtype::F32, block).unwrap();
            }
            found.push(reducer.finish(Dtype::F32).unwrap());
        }
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "blocks of any size");
        found[0].as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn norms_and_largest_magnitudes_along_dimensions() {
        let values = [3.0, -4.0, 0.0, 5.0, -12.0, 8.0];
        assert_eq!(reduce(Reduction::Norm, &[3, 2], &[1], &values), [5.0, 5.0, 208f32.sqrt()]);
        assert_eq!(reduce(Reduction::AbsMax, &[3, 2], &[0], &values), [12.0, 8.0]);
        assert_eq!(reduce(Reduction::AbsMax, &[3, 2], &[0, 1], &values), [12.0]);
        assert!(reduce(Reduction::AbsMax, &[3], &[0], &[1.0, f32::NAN, 2.0])[0].is_nan());
        assert_eq!(reduce(Reduction::Norm, &[2, 0], &[1], &[]), [0.0, 0.0]);
    }

    #[test]
    fn what_no_memory_has_room_for_is_an_error() {
        let info = TensorInfo::new(Dtype::F32, vec![1 << 61, 2]);
        let error = Reducer::new(Reduction::Norm, &info, &[1]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Limit);
    }

    #[test]
    fn eight_sums_are_kept_side_by_side() {
        // The squares are 1 and fifteen times 2^-24. One after the other, each is half of the last
        // bit of the sum, a tie to the even 1. Side by side, they gather before 1 is met.
        let mut values = [2f32.powi(-12); 16];
        values[0] = 1.0;
        let squared = reduce(Reduction::Norm, &[16], &[0], &values)[0].powi(2);
        assert!(squared > 1.0, "{squared}");
        // Of columns they are not.
        assert_eq!(reduce(Reduction::Norm, &[16, 1], &[0], &values), [1.0]);
    }
}
