//! Ops on integers that are packed into larger ones, with a scale and a zero point for each group of
//! them, and on codes that stand for numbers of a table.

use super::super::graph::{Fit, Graph, is_float};
use super::super::node::{Arithmetic, NodeId, Op};
use super::Number;
use crate::plan::states::State;
use crate::tensor::{Dtype, TensorInfo};

impl Graph {
    /// GPTQ: `(code - zero) * scale`, of a matrix that is stored turned. Source:
    /// `qlinear_cuda.py` of auto-gptq 0.7.1.
    pub(super) fn dequant_gptq(
        &mut self,
        inputs: &[NodeId],
        (bits, zero): (Number, Number),
        to: Option<Dtype>,
    ) -> Fit<NodeId> {
        let (qweight, qzeros, scales, order) = match *inputs {
            [qweight, qzeros, scales] => (qweight, qzeros, scales, None),
            [qweight, qzeros, scales, order] => (qweight, qzeros, scales, Some(order)),
            _ => return Err("dequant_gptq takes three or four tensors".to_owned()),
        };
        self.is_packed([qweight, qzeros], scales)?;
        let bits = bits_of(bits)?;
        let packed = self.unpack(qweight, bits)?;
        let codes = self.permute(packed, &[0, 2, 1])?;
        let codes = self.joined_first(codes)?;
        let zeros = self.unpack(qzeros, bits)?;
        let zeros = self.joined_with_last(zeros)?;
        let zeros = self.cast(zeros, Dtype::F32)?;
        let zeros = self.value_op(zeros, Op::Add { value: zero.float() })?;
        let group = Group { dim: 0, order };
        let weight = self.grouped(codes, (scales, Zero::Each(zeros)), &group, to)?;
        self.permute(weight, &[1, 0])
    }

    /// AWQ: the same, with columns packed in an order of their own. Source: `dequantize_gemm` of
    /// AutoAWQ 0.2.7, whose `AWQ_REVERSE_ORDER` is a transposition of 2 x 4.
    pub(super) fn dequant_awq(&mut self, inputs: &[NodeId], to: Option<Dtype>) -> Fit<NodeId> {
        let [qweight, qzeros, scales] = *inputs else {
            return Err("dequant_awq takes three tensors".to_owned());
        };
        self.is_packed([qweight, qzeros], scales)?;
        let codes = self.awq_columns(qweight)?;
        let zeros = self.awq_columns(qzeros)?;
        let group = Group { dim: 0, order: None };
        let weight = self.grouped(codes, (scales, Zero::Each(zeros)), &group, to)?;
        self.permute(weight, &[1, 0])
    }

    fn awq_columns(&mut self, packed: NodeId) -> Fit<NodeId> {
        let codes = self.unpack(packed, 4)?;
        let [rows, words, _] = *self.info(codes).shape else {
            return Err(format!("{} is no matrix", self.info(packed)));
        };
        let halves = self.reshape(codes, vec![rows, words, 2, 4])?;
        let turned = self.permute(halves, &[0, 1, 3, 2])?;
        let columns = words.checked_mul(8).ok_or("the result is too large")?;
        self.reshape(turned, vec![rows, columns])
    }

    /// compressed-tensors: `(code - zero) * scale`, packed along rows; without zero points, zero is
    /// in the middle. Source: `PackedQuantizationCompressor` of compressed-tensors 0.20.0.
    pub(super) fn dequant_packed(
        &mut self,
        inputs: &[NodeId],
        (bits, columns): (Number, Option<Number>),
        to: Option<Dtype>,
    ) -> Fit<NodeId> {
        let (packed, scales, others) = match inputs {
            [packed, scales, others @ ..] if others.len() <= 2 => (*packed, *scales, others),
            _ => return Err("dequant_packed takes two to four tensors".to_owned()),
        };
        let bits = bits_of(bits)?;
        let (mut zeros, mut order) = (None, None);
        for other in others {
            match self.info(*other).shape.len() {
                1 => order = Some(*other),
                _ => zeros = Some(*other),
            }
        }
        self.is_packed([packed, zeros.unwrap_or(packed)], scales)?;
        let codes = self.unpack(packed, bits)?;
        let mut codes = self.joined_with_last(codes)?;
        if let Some(columns) = columns {
            codes = self.narrow(codes, 1, 0, columns.size()?)?;
        }
        let zero = match zeros {
            Some(zeros) => {
                // These are packed along the rows.
                let rows = self.info(scales).shape[0];
                let codes = self.unpack(zeros, bits)?;
                let turned = self.permute(codes, &[0, 2, 1])?;
                let whole = self.joined_first(turned)?;
                Zero::Each(self.narrow(whole, 0, 0, rows)?)
            }
            None => Zero::All(f64::from(1u32 << (bits - 1))),
        };
        self.grouped(codes, (scales, zero), &Group { dim: 1, order }, to)
    }

    /// bitsandbytes, 4 bits: codes of a table times the largest magnitude of their block, which
    /// may be coded as well. Source: `dequantize_4bit` of bitsandbytes 0.50.2.
    pub(super) fn dequant_bnb4(&mut self, inputs: &[NodeId], to: Option<Dtype>) -> Fit<NodeId> {
        let (packed, absmax, table, described, nested) = match *inputs {
            [packed, absmax, table, described] => (packed, absmax, table, described, None),
            [packed, absmax, table, described, inner, codes] => {
                (packed, absmax, table, described, Some((inner, codes)))
            }
            _ => return Err("dequant_bnb4 takes four tensors, or six".to_owned()),
        };
        let Op::Source { key } = &self.node(described).op else {
            return Err("the description of a quantized tensor must be as it is stored".to_owned());
        };
        let state: State = self.states.of(key)?;
        self.read.push(described);
        let absmax = match nested {
            None => absmax,
            Some((inner, codes)) => {
                let found = self.looked_up(absmax, codes)?;
                let (offset, size) =
                    state.nested.ok_or("its description says nothing of a second level")?;
                let scaled = self.in_row(found, inner, size, Dtype::F32)?;
                self.value_op(scaled, Op::Add { value: offset })?
            }
        };
        let codes = self.unpack(packed, 4)?;
        // The high half comes first.
        let numel = self.info(codes).numel().unwrap_or(0);
        let pairs = self.reshape(codes, vec![numel / 2, 2])?;
        let halves = [1, 0].map(|at| self.narrow(pairs, 1, at, 1));
        let [high, low] = halves;
        let turned = self.concat(vec![high?, low?], 1)?;
        let row = self.reshape(turned, vec![numel])?;
        let count = state.shape.iter().try_fold(1u64, |all, size| all.checked_mul(*size));
        let count = count.filter(|count| *count <= numel && count.div_ceil(2) == numel / 2);
        let count = count.ok_or_else(|| {
            format!("its description says {:?}, and there are {numel} codes", state.shape)
        })?;
        let row = self.narrow(row, 0, 0, count)?;
        let values = self.looked_up(row, table)?;
        let scaled = self.in_row(values, absmax, state.block, to.unwrap_or(state.dtype))?;
        self.reshape(scaled, state.shape)
    }

    /// A row times scales of blocks of it.
    fn in_row(&mut self, row: NodeId, scales: NodeId, block: u64, to: Dtype) -> Fit<NodeId> {
        let (info, of) = (self.info(row).clone(), self.info(scales).clone());
        let size = info.shape[0];
        if of.shape.len() != 1 || !is_float(of.dtype) || of.shape[0] != size.div_ceil(block.max(1))
        {
            return Err(format!("{of} are no scales of {size} elements in blocks of {block}"));
        }
        let scales = self.blocks(scales, &[(0, block, size)])?;
        self.binary(Arithmetic::Mul, row, scales, to)
    }

    /// Whether these are words of packed integers, and scales for groups of them.
    fn is_packed(&self, words: [NodeId; 2], scales: NodeId) -> Fit<()> {
        let found = words.map(|node| self.info(node));
        let scales = self.info(scales);
        let is_words = |info: &TensorInfo| {
            matches!(info.dtype, Dtype::I32 | Dtype::U32) && info.shape.len() == 2
        };
        if found.iter().all(|info| is_words(info))
            && is_float(scales.dtype)
            && scales.shape.len() == 2
        {
            return Ok(());
        }
        Err(format!(
            "this takes matrices of I32, and of floats for scales, not {}, {} and {scales}",
            found[0], found[1]
        ))
    }

    /// Codes, less a zero and times a scale for each group along a dimension.
    fn grouped(
        &mut self,
        codes: NodeId,
        (scales, zero): (NodeId, Zero),
        group: &Group,
        to: Option<Dtype>,
    ) -> Fit<NodeId> {
        let (of, by) = (self.info(codes).clone(), self.info(scales).clone());
        let other = 1 - group.dim;
        let (size, count) = (of.shape[group.dim], by.shape[group.dim]);
        let wrong = || format!("scales {by} don't fit {} of codes", of.shape);
        if of.shape[other] != by.shape[other] || count == 0 {
            return Err(wrong());
        }
        if group.order.is_none() && !size.is_multiple_of(count) {
            return Err(wrong());
        }
        let apart = match zero {
            Zero::All(value) => {
                let codes = self.cast(codes, Dtype::F32)?;
                self.value_op(codes, Op::Add { value: -value })?
            }
            Zero::Each(zeros) => {
                if self.info(zeros).shape != by.shape {
                    let zeros = self.info(zeros);
                    return Err(format!("zero points {zeros} don't fit scales {by}"));
                }
                let zeros = self.spread(zeros, &of, group)?;
                self.binary(Arithmetic::Sub, codes, zeros, Dtype::F32)?
            }
        };
        let scales = self.spread(scales, &of, group)?;
        self.binary(Arithmetic::Mul, apart, scales, to.unwrap_or(by.dtype))
    }

    /// What there is for each group, for each element: in a row, or as an order says.
    fn spread(&mut self, values: NodeId, of: &TensorInfo, group: &Group) -> Fit<NodeId> {
        let (size, count) = (of.shape[group.dim], self.info(values).shape[group.dim]);
        let Some(order) = group.order else {
            return self.blocks(values, &[(group.dim, size / count, size)]);
        };
        if *self.info(order).shape != [size] {
            return Err(format!("{} is no order of {size}", self.info(order)));
        }
        let width = self.info(values).shape[1];
        let list = self.reshape(
            values,
            vec![count.checked_mul(of.shape[1 - group.dim]).ok_or("the result is too large")?],
        )?;
        // Where in the list an element is: its row there, and its column.
        let (rows, columns) = match group.dim {
            0 => (self.cast(order, Dtype::F64)?, self.count(width)?),
            _ => (self.count(of.shape[0])?, self.cast(order, Dtype::F64)?),
        };
        #[allow(clippy::cast_precision_loss)]
        let rows = self.value_op(rows, Op::Mul { value: width as f64 })?;
        let rows = self.unsqueeze(rows, 1)?;
        let rows = self.expand(rows, of.shape.clone())?;
        let columns = self.unsqueeze(columns, 0)?;
        let columns = self.expand(columns, of.shape.clone())?;
        let places = self.binary(Arithmetic::Add, rows, columns, Dtype::F64)?;
        self.looked_up(places, list)
    }

    fn count(&mut self, size: u64) -> Fit<NodeId> {
        self.push(Op::Count, Vec::new(), TensorInfo::new(Dtype::F64, vec![size]))
    }

    /// The elements of a list at places.
    fn looked_up(&mut self, places: NodeId, list: NodeId) -> Fit<NodeId> {
        let (info, of) = (self.info(places).clone(), self.info(list).clone());
        if of.shape.len() != 1 || !is_float(of.dtype) {
            return Err(format!("{of} is no table of numbers"));
        }
        self.push(Op::Lookup, vec![places, list], TensorInfo::new(of.dtype, info.shape))
    }

    /// The first dimension and the one after it as one.
    fn joined_first(&mut self, input: NodeId) -> Fit<NodeId> {
        let shape = &self.info(input).shape;
        let joined = shape[0].checked_mul(shape[1]).ok_or("the result is too large")?;
        let shape: Vec<u64> = std::iter::once(joined).chain(shape[2..].iter().copied()).collect();
        self.reshape(input, shape)
    }
}

/// What is taken from codes before they are scaled.
enum Zero {
    /// One number.
    All(f64),
    /// One for each group.
    Each(NodeId),
}

/// Which elements share a scale.
struct Group {
    /// Along which dimension they lie.
    dim: usize,
    /// For each of them, the number of its group; if there is none, groups follow each other.
    order: Option<NodeId>,
}

fn bits_of(bits: Number) -> Fit<u32> {
    match bits.int()? {
        4 => Ok(4),
        8 => Ok(8),
        other => Err(format!("codes of {other} bits: they have 4 or 8")),
    }
}
