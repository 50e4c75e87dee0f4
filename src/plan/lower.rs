//! The ops of the language, lowered to primitive nodes.

use super::graph::{Fit, Graph, Turned, few, no_dim};
use super::node::{NodeId, Op};
use crate::check::op::{self, widens};
use crate::tensor::{Dtype, Shape, TensorInfo};

/// A number that an op's argument has become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    fn int(self) -> Result<i64, String> {
        match self {
            Number::Int(value) => Ok(value),
            Number::Float(value) => Err(format!("expected a whole number, found {value}")),
        }
    }

    fn positive(self, what: &str) -> Result<u64, String> {
        match self.int()? {
            value if value > 0 => Ok(value.unsigned_abs()),
            value => Err(format!("{what} must be at least 1, not {value}")),
        }
    }

    fn size(self) -> Result<u64, String> {
        u64::try_from(self.int()?).map_err(|_| "a size can't be negative".to_owned())
    }

    #[allow(clippy::cast_precision_loss)]
    fn float(self) -> f64 {
        match self {
            Number::Int(value) => value as f64,
            Number::Float(value) => value,
        }
    }
}

impl Graph {
    /// A dimension as written: negative ones count from the end; `extra` more than the rank may be
    /// named.
    fn dim(&self, input: NodeId, dim: Number, extra: i64) -> Fit<usize> {
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

    /// An op on one tensor.
    pub(super) fn each(&mut self, input: NodeId, op: &op::Op<Number>) -> Fit<NodeId> {
        match op {
            op::Op::Transpose { a, b } => {
                let (a, b) = (self.dim(input, *a, 0)?, self.dim(input, *b, 0)?);
                let mut dims: Vec<usize> = (0..self.info(input).shape.len()).collect();
                dims.swap(a, b);
                self.permute(input, &dims)
            }
            op::Op::Permute { dims, inverted } => {
                let dims =
                    dims.iter().map(|dim| self.dim(input, *dim, 0)).collect::<Fit<Vec<_>>>()?;
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
            op::Op::Reshape { to, from } => {
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
            op::Op::Slice { dim, start, end, of } => {
                let dim = self.dim(input, *dim, 0)?;
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
            op::Op::Pad { dim, to, from } => {
                let dim = self.dim(input, *dim, 0)?;
                let info = self.info(input).clone();
                let (size, to) = (info.shape[dim], to.size()?);
                if let Some(from) = from
                    && from.size()? != size
                {
                    return Err(format!(
                        "the size before is written {}, and this is {info}",
                        from.size()?
                    ));
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
            op::Op::Interleave { dim } => {
                let dim = self.dim(input, *dim, 0)?;
                self.regroup(
                    input,
                    dim,
                    |size| (size % 2 == 0).then_some([2, size / 2]),
                    "an even size",
                )
            }
            op::Op::Deinterleave { dim } => {
                let dim = self.dim(input, *dim, 0)?;
                self.regroup(
                    input,
                    dim,
                    |size| (size % 2 == 0).then_some([size / 2, 2]),
                    "an even size",
                )
            }
            op::Op::RopeHalves { heads } => {
                self.rope(input, heads.positive("the number of heads")?, true)
            }
            op::Op::RopePairs { heads } => {
                self.rope(input, heads.positive("the number of heads")?, false)
            }
            op::Op::Add { value, inverted } => {
                let value = if *inverted { -value.float() } else { value.float() };
                self.value_op(input, Op::Add { value })
            }
            op::Op::Mul { value, inverted } => {
                let value = if *inverted { 1.0 / value.float() } else { value.float() };
                if !value.is_finite() || value == 0.0 {
                    return Err("a factor must be finite and not zero".to_owned());
                }
                self.value_op(input, Op::Mul { value })
            }
            op::Op::Neg => self.value_op(input, Op::Neg),
            op::Op::Exp => self.value_op(input, Op::Exp),
            op::Op::Log => self.value_op(input, Op::Log),
            op::Op::Cast { to, from } => {
                let info = self.info(input);
                if let Some(from) = from
                    && info.dtype != *from
                    && widens(*from, *to)
                {
                    return Err(format!("the dtype before is written {from}, and this is {info}"));
                }
                self.cast(input, *to)
            }
            _ => Err("this op joins or parts tensors".to_owned()),
        }
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
    fn regroup(
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

    fn rope(&mut self, input: NodeId, heads: u64, to_halves: bool) -> Fit<NodeId> {
        let info = self.info(input).clone();
        let Some(rows) = info.shape.first().copied() else {
            return Err(format!("{info} has no dimension that holds heads"));
        };
        if rows % heads != 0 || !(rows / heads).is_multiple_of(2) {
            return Err(format!("dimension 0 of {info} must be {heads} heads of an even size"));
        }
        let half = rows / heads / 2;
        self.turned.push(Turned { heads, size: half * 2 });
        let mut per_head = vec![heads, half * 2];
        per_head.extend_from_slice(&info.shape[1..]);
        let view = self.reshape(input, per_head)?;
        let turned = self.regroup(
            view,
            1,
            |_| Some(if to_halves { [half, 2] } else { [2, half] }),
            "an even size",
        )?;
        self.reshape(turned, info.shape.to_vec())
    }

    /// An op that joins tensors.
    pub(super) fn join(&mut self, inputs: Vec<NodeId>, op: &op::Op<Number>) -> Fit<NodeId> {
        match op {
            op::Op::Concat { dim, parts } => {
                let dim = self.dim(first(&inputs)?, *dim, 0)?;
                if parts.is_empty() {
                    return self.concat(inputs, dim);
                }
                let parts = parts
                    .iter()
                    .map(|part| part.positive("a proportion"))
                    .collect::<Fit<Vec<_>>>()?;
                let sizes: Vec<u64> = inputs
                    .iter()
                    .map(|input| self.info(*input).shape.get(dim).copied().unwrap_or(0))
                    .collect();
                let proportional = sizes.iter().zip(&parts).all(|(size, part)| {
                    u128::from(*size) * u128::from(parts[0])
                        == u128::from(sizes[0]) * u128::from(*part)
                });
                if !proportional {
                    return Err(format!(
                        "sizes {sizes:?} along dimension {dim} are not in the proportion {parts:?}"
                    ));
                }
                self.concat(inputs, dim)
            }
            op::Op::QkvGroup { heads, kv_heads } => {
                self.qkv_group(&inputs, heads.positive("heads")?, kv_heads.positive("kv_heads")?)
            }
            op::Op::DequantFp8 { block, to } => {
                let [weight, scale] = two(&inputs)?;
                let block = block.positive("a block size")?;
                let (info, scales) = (self.info(weight).clone(), self.info(scale).clone());
                let rank = info.shape.len();
                if rank < 2
                    || scales.shape.len() != rank
                    || info.shape[..rank - 2] != scales.shape[..rank - 2]
                {
                    return Err(format!("block scales {scales} don't fit {info}"));
                }
                if (rank - 2..rank).any(|dim| info.shape[dim].div_ceil(block) != scales.shape[dim])
                {
                    return Err(format!(
                        "{info} in blocks of {block} needs scales of {}, not {scales}",
                        blocks(&info, block)
                    ));
                }
                if !matches!(info.dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2)
                    || scales.dtype != Dtype::F32
                {
                    return Err(format!(
                        "dequant_fp8 takes F8_E4M3 or F8_E5M2 and F32 scales, not {} and {}",
                        info.dtype, scales.dtype
                    ));
                }
                let result = TensorInfo::new(*to, info.shape);
                self.push(Op::DequantBlocks { block: [block, block] }, vec![weight, scale], result)
            }
            op::Op::DequantMxfp4 { to } => {
                let [blocks, scales] = two(&inputs)?;
                let (info, scale) = (self.info(blocks).clone(), self.info(scales).clone());
                let rank = info.shape.len();
                if info.dtype != Dtype::U8 || !matches!(scale.dtype, Dtype::U8 | Dtype::F8_E8M0) {
                    return Err(format!(
                        "dequant_mxfp4 takes U8 blocks and U8 scales, not {} and {}",
                        info.dtype, scale.dtype
                    ));
                }
                if rank < 2 || info.shape[rank - 1] != 16 || info.shape[..rank - 1] != *scale.shape
                {
                    return Err(format!(
                        "scales {scale} don't fit blocks {info}: [..., groups, 16] and [..., groups]"
                    ));
                }
                let mut shape = info.shape[..rank - 1].to_vec();
                shape[rank - 2] =
                    shape[rank - 2].checked_mul(32).ok_or("the result is too large")?;
                self.push(Op::DequantMxfp4, vec![blocks, scales], TensorInfo::new(*to, shape))
            }
            _ => Err("this op doesn't join tensors".to_owned()),
        }
    }

    /// An op that parts a tensor in `count`.
    pub(super) fn part(
        &mut self,
        input: NodeId,
        op: &op::Op<Number>,
        count: usize,
    ) -> Fit<Vec<NodeId>> {
        match op {
            op::Op::Split { dim, parts } => {
                let dim = self.dim(input, *dim, 0)?;
                let parts = if parts.is_empty() {
                    vec![1; count]
                } else {
                    parts
                        .iter()
                        .map(|part| part.positive("a proportion"))
                        .collect::<Fit<Vec<_>>>()?
                };
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
            op::Op::SplitOver { dim, .. } => {
                let equal = op::Op::Split { dim: *dim, parts: vec![Number::Int(1); count] };
                self.part(input, &equal, count)
            }
            op::Op::Unstack { dim, .. } => {
                let dim = self.dim(input, *dim, 0)?;
                let size = self.info(input).shape[dim];
                few(size)?;
                (0..size).map(|at| self.select(input, dim, at)).collect()
            }
            op::Op::QkvUngroup { heads, kv_heads } => {
                self.qkv_ungroup(input, heads.positive("heads")?, kv_heads.positive("kv_heads")?)
            }
            _ => Err("this op doesn't part a tensor".to_owned()),
        }
    }

    /// The tensors of a capture's values, in order, as one.
    pub(super) fn gather(&mut self, inputs: Vec<NodeId>, op: &op::Op<Number>) -> Fit<NodeId> {
        match op {
            op::Op::Stack { dim, .. } => {
                let dim = self.dim(first(&inputs)?, *dim, 1)?;
                self.stack(inputs, dim)
            }
            op::Op::ConcatOver { dim, .. } => {
                let dim = self.dim(first(&inputs)?, *dim, 0)?;
                self.concat(inputs, dim)
            }
            _ => Err("this op doesn't gather tensors".to_owned()),
        }
    }

    fn qkv_group(&mut self, inputs: &[NodeId], heads: u64, kv_heads: u64) -> Fit<NodeId> {
        let [q, k, v] = *inputs else { return Err("qkv_group joins q, k and v".to_owned()) };
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!("{heads} heads are no multiple of {kv_heads} key and value heads"));
        }
        let rows = self.info(q).shape.first().copied().unwrap_or(0);
        if rows % heads != 0 {
            return Err(format!("dimension 0 of {} must be {heads} heads", self.info(q)));
        }
        let head = rows / heads;
        let mut grouped = Vec::new();
        for (input, each) in [(q, heads / kv_heads), (k, 1), (v, 1)] {
            let mut shape = self.info(input).shape.to_vec();
            let expected = kv_heads.checked_mul(each).and_then(|rows| rows.checked_mul(head));
            if shape.first().copied() != expected {
                return Err(format!(
                    "dimension 0 of {} must be {} heads of {head}",
                    self.info(input),
                    kv_heads * each
                ));
            }
            shape.splice(0..1, [kv_heads, each * head]);
            grouped.push(self.reshape(input, shape)?);
        }
        let joined = self.concat(grouped, 1)?;
        let mut shape = self.info(joined).shape.to_vec();
        let rows = shape[0].checked_mul(shape[1]).ok_or("the result is too large")?;
        shape.splice(0..2, [rows]);
        self.reshape(joined, shape)
    }

    fn qkv_ungroup(&mut self, input: NodeId, heads: u64, kv_heads: u64) -> Fit<Vec<NodeId>> {
        let info = self.info(input).clone();
        if !heads.is_multiple_of(kv_heads) {
            return Err(format!("{heads} heads are no multiple of {kv_heads} key and value heads"));
        }
        let all = heads
            .checked_add(kv_heads)
            .and_then(|sum| sum.checked_add(kv_heads))
            .ok_or("too many heads")?;
        let rows = info.shape.first().copied().unwrap_or(0);
        if rows == 0 || rows % all != 0 {
            return Err(format!(
                "dimension 0 of {info} must be {all} heads (query, key and value)"
            ));
        }
        let head = rows / all;
        let mut shape = info.shape.to_vec();
        shape.splice(0..1, [kv_heads, (heads / kv_heads + 2) * head]);
        let grouped = self.reshape(input, shape)?;
        let mut start = 0;
        [heads / kv_heads, 1, 1]
            .into_iter()
            .map(|each| {
                let len = each * head;
                start += len;
                let part = self.narrow(grouped, 1, start - len, len)?;
                let mut shape = info.shape.to_vec();
                shape[0] = kv_heads * len;
                self.reshape(part, shape)
            })
            .collect()
    }
}

fn first(inputs: &[NodeId]) -> Fit<NodeId> {
    inputs.first().copied().ok_or_else(|| "nothing to join".to_owned())
}

fn two(inputs: &[NodeId]) -> Fit<[NodeId; 2]> {
    <[NodeId; 2]>::try_from(inputs).map_err(|_| "this op joins two tensors".to_owned())
}

fn blocks(info: &TensorInfo, block: u64) -> Shape {
    let rank = info.shape.len();
    let mut shape = info.shape.to_vec();
    for size in &mut shape[rank - 2..] {
        *size = size.div_ceil(block);
    }
    shape.into()
}
