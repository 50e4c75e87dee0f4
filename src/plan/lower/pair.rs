//! Ops on a tensor and another one that is made as large: as PyTorch broadcasts.

use super::super::graph::{Fit, Graph, is_float, no_dim};
use super::super::node::{Arithmetic, NodeId, Op, Reduction};
use super::Number;
use crate::tensor::{Dtype, Shape, TensorInfo};

impl Graph {
    /// Dimensions of one element repeated up to those of a shape.
    pub(super) fn expand(&mut self, input: NodeId, shape: impl Into<Shape>) -> Fit<NodeId> {
        let (info, shape) = (self.info(input), shape.into());
        if info.shape == shape {
            return Ok(input);
        }
        let fits = |(from, to): (&u64, &u64)| from == to || *from == 1;
        if info.shape.len() != shape.len() || !info.shape.iter().zip(shape.iter()).all(fits) {
            return Err(format!("{info} can't be repeated to {shape}"));
        }
        if info.dtype.bits() < 8 {
            return Err(format!("{info}, of less than a byte each, can't be repeated"));
        }
        let info = TensorInfo::new(info.dtype, shape);
        // Repeated along one dimension and then along another is repeated along both.
        let input = match &self.node(input).op {
            Op::Expand => self.node(input).inputs.first().copied().unwrap_or(input),
            _ => input,
        };
        self.push(Op::Expand, vec![input], info)
    }

    /// Scales of blocks, each repeated for the elements of its block: along each of some dimensions
    /// so many times, of as many as there are elements.
    pub(super) fn blocks(&mut self, scales: NodeId, of: &[(usize, u64, u64)]) -> Fit<NodeId> {
        let shape = self.info(scales).shape.to_vec();
        let (mut apart, mut repeated, mut joined) = (Vec::new(), Vec::new(), Vec::new());
        for (dim, count) in shape.iter().enumerate() {
            apart.push(*count);
            repeated.push(*count);
            joined.push(*count);
            let Some((_, times, size)) = of.iter().find(|(at, ..)| *at == dim) else { continue };
            if *count == 1 {
                // One for all of them.
                repeated.pop();
                repeated.push(*size);
                joined[dim] = *size;
            } else if *times > 1 {
                apart.push(1);
                repeated.push(*times);
                joined[dim] = count.checked_mul(*times).ok_or("the result is too large")?;
            }
        }
        let apart = self.reshape(scales, apart)?;
        let repeated = self.expand(apart, repeated)?;
        let whole = self.reshape(repeated, joined)?;
        of.iter().try_fold(whole, |node, (dim, _, size)| self.narrow(node, *dim, 0, *size))
    }

    /// A tensor as large as another, as PyTorch broadcasts: dimensions are compared from the last.
    pub(super) fn broadcast(&mut self, input: NodeId, to: &Shape) -> Fit<NodeId> {
        let mut shape = self.info(input).shape.to_vec();
        while shape.len() < to.len() {
            shape.insert(0, 1);
        }
        let wrong = format!("{} can't be repeated to {to}", self.info(input));
        let reshaped = self.reshape(input, shape)?;
        self.expand(reshaped, to.clone()).map_err(|_| wrong)
    }

    /// Two tensors of one shape.
    pub(super) fn binary(
        &mut self,
        with: Arithmetic,
        a: NodeId,
        b: NodeId,
        to: Dtype,
    ) -> Fit<NodeId> {
        if !is_float(to) {
            return Err(format!("arithmetic gives F16, BF16, F32 or F64, not {to}"));
        }
        let info = TensorInfo::new(to, self.info(a).shape.clone());
        self.push(Op::Binary { with }, vec![a, b], info)
    }

    /// A tensor and another that is repeated to it. The result has the dtype of the first.
    pub(super) fn pair(&mut self, with: Arithmetic, a: NodeId, b: NodeId) -> Fit<NodeId> {
        let info = self.numbers(a)?.clone();
        self.numbers(b)?;
        let b = self.broadcast(b, &info.shape)?;
        self.binary(with, a, b, info.dtype)
    }

    /// The first of two tensors, changed by the second.
    pub(super) fn by(&mut self, with: Arithmetic, inputs: &[NodeId]) -> Fit<NodeId> {
        match inputs {
            [a, b] => self.pair(with, *a, *b),
            _ => Err("this op computes with two tensors".to_owned()),
        }
    }

    /// A tensor and a number.
    pub(super) fn with_number(&mut self, with: Arithmetic, a: NodeId, number: f64) -> Fit<NodeId> {
        let info = self.numbers(a)?.clone();
        let computed_in = if info.dtype == Dtype::F64 { Dtype::F64 } else { Dtype::F32 };
        let number = self.fill(number, TensorInfo::new(computed_in, info.shape.clone()))?;
        self.binary(with, a, number, info.dtype)
    }

    /// What is left of some dimensions, each of which stays with one element.
    pub(super) fn reduce(
        &mut self,
        take: Reduction,
        input: NodeId,
        mut dims: Vec<usize>,
        to: Dtype,
    ) -> Fit<NodeId> {
        dims.sort_unstable();
        if dims.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("a dimension is named twice".to_owned());
        }
        let info = self.numbers(input)?;
        let mut shape = info.shape.to_vec();
        for dim in &dims {
            *shape.get_mut(*dim).ok_or_else(|| no_dim(dim, info))? = 1;
        }
        self.push(Op::Reduce { take, dims }, vec![input], TensorInfo::new(to, shape))
    }

    /// The root of the sum of squares along some dimensions.
    pub(super) fn norm(&mut self, input: NodeId, dims: Vec<usize>) -> Fit<NodeId> {
        self.reduce(Reduction::Norm, input, dims, self.info(input).dtype)
    }

    /// The same, along dimensions as they are written.
    pub(super) fn norm_along(&mut self, input: NodeId, dims: &[Number]) -> Fit<NodeId> {
        let dims = dims.iter().map(|dim| self.dim(input, *dim, 0)).collect::<Fit<_>>()?;
        self.norm(input, dims)
    }

    /// `v * (g / norm(v))`, with the norm of each step along a dimension.
    pub(super) fn weight_norm(&mut self, inputs: &[NodeId], dim: Number) -> Fit<NodeId> {
        let [g, v] = <[NodeId; 2]>::try_from(inputs)
            .map_err(|_| "this op joins lengths and directions".to_owned())?;
        let dim = self.dim(v, dim, 0)?;
        let info = self.info(v).clone();
        let dims = (0..info.shape.len()).filter(|other| *other != dim).collect();
        let norm = self.norm(v, dims)?;
        if self.info(g).shape != self.info(norm).shape {
            let (g, norm) = (self.info(g), self.info(norm));
            return Err(format!("the lengths {g} don't fit the directions {info}: {}", norm.shape));
        }
        let factor = self.pair(Arithmetic::Div, g, norm)?;
        self.pair(Arithmetic::Mul, v, factor)
    }

    /// The sum of tensors, one after the other.
    pub(super) fn sum(&mut self, inputs: &[NodeId]) -> Fit<NodeId> {
        let (first, others) = inputs.split_first().ok_or("nothing to join")?;
        let info = self.info(*first).clone();
        let mut sum = *first;
        for other in others {
            if *self.info(*other) != info {
                return Err(format!("{} can't be added to {info}", self.info(*other)));
            }
            sum = self.pair(Arithmetic::Add, sum, *other)?;
        }
        Ok(sum)
    }

    /// Their sum over their number.
    pub(super) fn mean(&mut self, inputs: &[NodeId]) -> Fit<NodeId> {
        let sum = self.sum(inputs)?;
        #[allow(clippy::cast_precision_loss)]
        let count = inputs.len() as f64;
        self.with_number(Arithmetic::Div, sum, count)
    }
}
