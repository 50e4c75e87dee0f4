//! Ops that move elements: dimensions swapped, cut, joined and shaped anew.

use super::super::graph::{Fit, Graph, few, no_dim};
use super::super::node::NodeId;
use super::Number;
use crate::tensor::{Shape, TensorInfo};

impl Graph {
    /// A dimension as written: negative ones count from the end; `extra` more than the rank may be
    /// named.
    pub(super) fn dim(&self, input: NodeId, dim: Number, extra: i64) -> Fit<usize> {
        let info = self.info(input);
        let rank =
            i64::try_from(info.shape.len()).map_err(|_| "too many dimensions".to_owned())? + extra;
        let dim = dim.int()?;
        let at = if dim < 0 { dim + rank } else { dim };
        if (0..rank).contains(&at) {
            usize::try_from(at).map_err(|_| "no such dimension".to_owned())
        } else {
            Err(no_dim(dim, info))
        }
    }

    /// Two dimensions swapped.
    pub(super) fn transpose(&mut self, input: NodeId, i: Number, j: Number) -> Fit<NodeId> {
        let (i, j) = (self.dim(input, i, 0)?, self.dim(input, j, 0)?);
        let mut dims: Vec<usize> = (0..self.info(input).shape.len()).collect();
        dims.swap(i, j);
        self.permute(input, &dims)
    }

    /// Result dimension `i` is input dimension `dims[i]`, or the other way round.
    pub(super) fn reorder(
        &mut self,
        input: NodeId,
        dims: &[Number],
        inverted: bool,
    ) -> Fit<NodeId> {
        let dims = dims.iter().map(|dim| self.dim(input, *dim, 0)).collect::<Fit<Vec<_>>>()?;
        if !inverted {
            return self.permute(input, &dims);
        }
        let inverse = (0..dims.len()).map(|dim| {
            dims.iter()
                .position(|at| *at == dim)
                .ok_or_else(|| format!("dimension {dim} is not named"))
        });
        let inverse = inverse.collect::<Fit<Vec<_>>>()?;
        self.permute(input, &inverse)
    }

    /// To a shape, from a shape if it is written.
    pub(super) fn reshaped(
        &mut self,
        input: NodeId,
        to: &[Number],
        from: Option<&[Number]>,
    ) -> Fit<NodeId> {
        if let Some(from) = from {
            let before = self.resolve_shape(input, from)?;
            let info = self.info(input);
            if *info.shape != before[..] {
                return Err(format!(
                    "the shape before is written {}, and this is {info}",
                    Shape::from(before)
                ));
            }
        }
        let shape = self.resolve_shape(input, to)?;
        self.reshape(input, shape)
    }

    /// Without a dimension of one step.
    pub(super) fn squeeze(&mut self, input: NodeId, dim: Number) -> Fit<NodeId> {
        let dim = self.dim(input, dim, 0)?;
        let info = self.info(input);
        if info.shape[dim] != 1 {
            return Err(format!(
                "dimension {dim} of {info} can't be squeezed, since its size is not 1: `reshape` merges it with another, `slice` takes a part of it"
            ));
        }
        self.without(input, dim)
    }

    /// A part of a dimension, whose whole size may be written.
    pub(super) fn slice(
        &mut self,
        input: NodeId,
        dim: Number,
        (start, end): (Option<Number>, Option<Number>),
        of: Option<Number>,
    ) -> Fit<NodeId> {
        let dim = self.dim(input, dim, 0)?;
        let size = self.info(input).shape[dim];
        if let Some(of) = of
            && of.size()? != size
        {
            return Err(format!(
                "the whole size is written {}, and this is {}",
                of.size()?,
                self.info(input)
            ));
        }
        let start = start.map_or(Ok(0), Number::size)?;
        let end = end.map_or(Ok(size), Number::size)?;
        if end < start {
            return Err(format!("the range {start}..{end} is empty or reversed"));
        }
        self.narrow(input, dim, start, end - start)
    }

    /// Zeros at the end of a dimension, whose size before may be written.
    pub(super) fn pad(
        &mut self,
        input: NodeId,
        dim: Number,
        to: Number,
        from: Option<Number>,
    ) -> Fit<NodeId> {
        let dim = self.dim(input, dim, 0)?;
        let info = self.info(input).clone();
        let (size, to) = (info.shape[dim], to.size()?);
        if let Some(from) = from
            && from.size()? != size
        {
            return Err(format!("the size before is written {}, and this is {info}", from.size()?));
        }
        if to < size {
            return Err(format!("dimension {dim} of {info} is larger than {to} already"));
        }
        if to == size {
            return Ok(input);
        }
        let mut shape = info.shape.to_vec();
        shape[dim] = to - size;
        let zeros = self.fill(0.0, TensorInfo::new(info.dtype, shape))?;
        self.concat(vec![input, zeros], dim)
    }

    /// Element by element from two halves, or into them.
    pub(super) fn interleave(&mut self, input: NodeId, dim: Number, back: bool) -> Fit<NodeId> {
        let dim = self.dim(input, dim, 0)?;
        self.regroup(
            input,
            dim,
            |size| (size % 2 == 0).then_some(if back { [size / 2, 2] } else { [2, size / 2] }),
            "an even size",
        )
    }

    /// One after the other, in a proportion if there is one.
    pub(super) fn join_along(
        &mut self,
        inputs: &[NodeId],
        dim: usize,
        parts: &[Number],
    ) -> Fit<NodeId> {
        let parts = proportions(parts)?;
        if let Some(one) = parts.first() {
            as_many(&parts, inputs.len())?;
            let sizes: Vec<u64> = inputs
                .iter()
                .map(|input| self.info(*input).shape.get(dim).copied().unwrap_or(0))
                .collect();
            let proportional = sizes.iter().zip(&parts).all(|(size, part)| {
                u128::from(*size) * u128::from(*one) == u128::from(sizes[0]) * u128::from(*part)
            });
            if !proportional {
                return Err(format!(
                    "sizes {sizes:?} along dimension {dim} are not in the proportion {parts:?}"
                ));
            }
        }
        self.concat(inputs.to_vec(), dim)
    }

    /// Parts in a proportion, or so many equal ones.
    pub(super) fn split(
        &mut self,
        input: NodeId,
        dim: Number,
        parts: &[Number],
        count: usize,
    ) -> Fit<Vec<NodeId>> {
        let dim = self.dim(input, dim, 0)?;
        let parts = if parts.is_empty() { vec![1; count] } else { proportions(parts)? };
        as_many(&parts, count)?;
        let size = self.info(input).shape[dim];
        let whole = parts
            .iter()
            .try_fold(0u64, |sum, part| sum.checked_add(*part))
            .ok_or("the proportions are too large")?;
        if !size.is_multiple_of(whole) {
            return Err(format!(
                "dimension {dim} of {} can't be split {parts:?}: {size} is not a multiple of {whole}",
                self.info(input)
            ));
        }
        let mut start = 0;
        parts
            .into_iter()
            .map(|part| {
                let len = part * (size / whole);
                start += len;
                self.narrow(input, dim, start - len, len)
            })
            .collect()
    }

    /// Each step of a dimension by itself.
    pub(super) fn unstack(&mut self, input: NodeId, dim: usize) -> Fit<Vec<NodeId>> {
        let size = self.info(input).shape[dim];
        few(size)?;
        (0..size).map(|at| self.select(input, dim, at)).collect()
    }

    fn resolve_shape(&self, input: NodeId, sizes: &[Number]) -> Fit<Vec<u64>> {
        let numel = self.info(input).numel().ok_or("the tensor is too large")?;
        let mut known: u64 = 1;
        let mut shape = Vec::with_capacity(sizes.len());
        let mut open = None;
        for (at, size) in sizes.iter().enumerate() {
            match size.int()? {
                -1 if open.is_none() => {
                    open = Some(at);
                    shape.push(1);
                }
                -1 => return Err("only one size of a shape can be -1".to_owned()),
                size => {
                    let size = u64::try_from(size).map_err(|_| format!("{size} is no size"))?;
                    known = known.checked_mul(size).ok_or("the shape is too large")?;
                    shape.push(size);
                }
            }
        }
        if let Some(at) = open {
            if known == 0 || numel % known != 0 {
                return Err(format!(
                    "{} can't be shaped so: {numel} elements, not a multiple of {known}",
                    self.info(input)
                ));
            }
            shape[at] = numel / known;
        }
        Ok(shape)
    }

    /// Views one dimension as two, swaps them and merges them again.
    pub(super) fn regroup(
        &mut self,
        input: NodeId,
        dim: usize,
        parts: impl Fn(u64) -> Option<[u64; 2]>,
        needs: &str,
    ) -> Fit<NodeId> {
        let info = self.info(input).clone();
        let size = info.shape[dim];
        let parts =
            parts(size).ok_or_else(|| format!("dimension {dim} of {info} must have {needs}"))?;
        let mut split = info.shape.to_vec();
        split.splice(dim..=dim, parts);
        let split = self.reshape(input, split)?;
        let mut dims: Vec<usize> = (0..=info.shape.len()).collect();
        dims.swap(dim, dim + 1);
        let swapped = self.permute(split, &dims)?;
        self.reshape(swapped, info.shape.to_vec())
    }
}

/// Proportions are as many as the tensors that they are of.
fn as_many(parts: &[u64], count: usize) -> Fit<()> {
    if parts.len() == count {
        return Ok(());
    }
    Err(format!(
        "the proportion {parts:?} is one of {}, and here there are {count} tensors",
        parts.len()
    ))
}

fn proportions(parts: &[Number]) -> Fit<Vec<u64>> {
    parts.iter().map(|part| part.positive("a proportion")).collect()
}
