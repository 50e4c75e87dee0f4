//! The ops of the language, lowered to primitive nodes: [`Graph::lower`] says of each op in one
//! line what it is made of.

mod dequant;
mod heads;
mod lowrank;
mod packed;
mod pair;
mod shape;

use super::graph::{Fit, Graph};
use super::node::{Arithmetic, NodeId, Op as Primitive};
use crate::check::op::{Argument, Call, OpKind, widens};
use crate::tensor::Dtype;
use dequant::block;
use lowrank::Scaled;

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

/// The arguments of an op, by the names of its row's parameters.
impl Call<Number> {
    fn number(&self, name: &'static str) -> Fit<Number> {
        self.optional(name).ok_or_else(|| self.lacks(name))
    }

    fn flag(&self, name: &'static str) -> Fit<bool> {
        Ok(self.number(name)?.int()? != 0)
    }

    fn optional(&self, name: &'static str) -> Option<Number> {
        match self.argument(name)? {
            Argument::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A list of numbers, or a shape.
    fn numbers(&self, name: &'static str) -> Fit<&[Number]> {
        self.sizes(name).ok_or_else(|| self.lacks(name))
    }

    fn sizes(&self, name: &'static str) -> Option<&[Number]> {
        match self.argument(name)? {
            Argument::Numbers(list) | Argument::Shape(list) => Some(list),
            _ => None,
        }
    }

    fn range(&self, name: &'static str) -> Fit<(Option<Number>, Option<Number>)> {
        match self.argument(name) {
            Some(Argument::Range(start, end)) => Ok((*start, *end)),
            _ => Err(self.lacks(name)),
        }
    }

    fn dtype(&self, name: &'static str) -> Fit<Dtype> {
        self.optional_dtype(name).ok_or_else(|| self.lacks(name))
    }

    fn optional_dtype(&self, name: &'static str) -> Option<Dtype> {
        match self.argument(name)? {
            Argument::Dtype(dtype) => Some(*dtype),
            _ => None,
        }
    }

    fn lacks(&self, name: &str) -> String {
        format!("`{}` has no argument `{name}`", self.kind.row().name)
    }
}

impl Graph {
    /// What an op makes of tensors: of one tensor, of all that it joins, or of the one that it
    /// parts, in `count` unless the op says in how many.
    fn lower(&mut self, op: &Call<Number>, inputs: &[NodeId], count: usize) -> Fit<Vec<NodeId>> {
        let input = *inputs.first().ok_or("nothing to join")?;
        Ok(vec![match op.kind {
            OpKind::Stack => {
                let dim = self.dim(input, op.number("dim")?, 1)?;
                self.stack(inputs.to_vec(), dim)?
            }
            OpKind::Unstack => {
                let dim = self.dim(input, op.number("dim")?, 0)?;
                return self.unstack(input, dim);
            }
            OpKind::Concat | OpKind::ConcatOver => {
                let dim = self.dim(input, op.number("dim")?, 0)?;
                self.join_along(inputs, dim, op.numbers("parts")?)?
            }
            OpKind::Split | OpKind::SplitOver => {
                return self.split(input, op.number("dim")?, op.numbers("parts")?, count);
            }
            // That they are equal, whoever gathers them has seen to.
            OpKind::Same | OpKind::SameOver => input,
            OpKind::Copy | OpKind::CopyOver => return Ok(vec![input; count]),
            OpKind::Transpose => self.transpose(input, op.number("i")?, op.number("j")?)?,
            OpKind::Permute => self.reorder(input, op.numbers("dims")?, op.inverted)?,
            OpKind::Reshape => self.reshaped(input, op.numbers("to")?, op.sizes("from"))?,
            OpKind::Squeeze => self.squeeze(input, op.number("dim")?)?,
            OpKind::Unsqueeze => {
                let dim = self.dim(input, op.number("dim")?, 1)?;
                self.unsqueeze(input, dim)?
            }
            OpKind::Slice => {
                self.slice(input, op.number("dim")?, op.range("range")?, op.optional("of"))?
            }
            OpKind::Pad => {
                self.pad(input, op.number("dim")?, op.number("to")?, op.optional("from"))?
            }
            OpKind::Interleave => self.interleave(input, op.number("dim")?, false)?,
            OpKind::Deinterleave => self.interleave(input, op.number("dim")?, true)?,
            OpKind::RopeHalves => self.rope(input, op.number("heads")?, true)?,
            OpKind::RopePairs => self.rope(input, op.number("heads")?, false)?,
            OpKind::QkvGroup => {
                let heads = op.number("heads")?;
                self.qkv_group(inputs, heads, op.optional("kv_heads").unwrap_or(heads))?
            }
            OpKind::QkvUngroup => {
                let heads = op.number("heads")?;
                let kv_heads = op.optional("kv_heads").unwrap_or(heads);
                return self.qkv_ungroup(input, heads, kv_heads);
            }
            OpKind::Add => self.add(input, op.number("c")?.float())?,
            OpKind::Sub => self.add(input, -op.number("c")?.float())?,
            OpKind::Mul => self.multiply(input, op.number("c")?.float())?,
            OpKind::Div => self.divide(input, op.number("c")?.float())?,
            OpKind::Neg => self.value_op(input, Primitive::Neg)?,
            OpKind::Exp => self.value_op(input, Primitive::Exp)?,
            OpKind::Log => self.value_op(input, Primitive::Log)?,
            OpKind::AddBy => self.by(Arithmetic::Add, inputs)?,
            OpKind::SubBy => self.by(Arithmetic::Sub, inputs)?,
            OpKind::MulBy => self.by(Arithmetic::Mul, inputs)?,
            OpKind::DivBy => self.by(Arithmetic::Div, inputs)?,
            OpKind::Norm => self.norm_along(input, op.numbers("dims")?)?,
            OpKind::WeightNorm => self.weight_norm(inputs, op.number("dim")?)?,
            OpKind::Sum => self.sum(inputs)?,
            OpKind::Mean => self.mean(inputs)?,
            OpKind::AddLowrank => self.add_lowrank(inputs, &Scaled::of(op)?)?,
            OpKind::Cast => self.convert(input, op.dtype("to")?, op.optional_dtype("from"))?,
            OpKind::DequantFp8
            | OpKind::QuantFp8
            | OpKind::QuantFp8By
            | OpKind::DequantInt8
            | OpKind::DequantNvfp4
            | OpKind::DequantMxfp4
            | OpKind::DequantBnb4
            | OpKind::DequantGptq
            | OpKind::DequantAwq
            | OpKind::DequantPacked => return self.quantization(op, inputs, input),
        }])
    }

    /// What an op of quantized tensors makes of them.
    fn quantization(
        &mut self,
        op: &Call<Number>,
        inputs: &[NodeId],
        input: NodeId,
    ) -> Fit<Vec<NodeId>> {
        Ok(vec![match op.kind {
            OpKind::DequantFp8 => {
                let block = block(op.numbers("block")?)?;
                self.dequant_fp8(inputs, block, op.optional_dtype("to"), op.optional_dtype("from"))?
            }
            OpKind::QuantFp8 => {
                let block = block(op.numbers("block")?)?;
                return self.quant_fp8(input, block, op.dtype("to")?, op.optional_dtype("from"));
            }
            OpKind::QuantFp8By => {
                self.quant_fp8_by(inputs, block(op.numbers("block")?)?, op.dtype("to")?)?
            }
            OpKind::DequantInt8 => {
                self.dequant_int8(inputs, op.optional_dtype("to"), op.number("max")?)?
            }
            OpKind::DequantNvfp4 => self.dequant_nvfp4(inputs, op.dtype("to")?)?,
            OpKind::DequantMxfp4 => self.dequant_mxfp4(inputs, op.dtype("to")?)?,
            OpKind::DequantBnb4 => self.dequant_bnb4(inputs, op.optional_dtype("to"))?,
            OpKind::DequantGptq => {
                let coded = (op.number("bits")?, op.number("zero")?);
                self.dequant_gptq(inputs, coded, op.optional_dtype("to"))?
            }
            OpKind::DequantAwq => self.dequant_awq(inputs, op.optional_dtype("to"))?,
            OpKind::DequantPacked => {
                let coded = (op.number("bits")?, op.optional("columns"));
                self.dequant_packed(inputs, coded, op.optional_dtype("to"))?
            }
            other => return Err(format!("`{}` is no op of quantized tensors", other.row().name)),
        }])
    }

    /// An op on one tensor.
    pub(super) fn each(&mut self, input: NodeId, op: &Call<Number>) -> Fit<NodeId> {
        self.one(op, &[input])
    }

    /// An op that joins tensors.
    pub(super) fn join(&mut self, inputs: Vec<NodeId>, op: &Call<Number>) -> Fit<NodeId> {
        self.one(op, &inputs)
    }

    /// The tensors of a capture's values, in order, as one.
    pub(super) fn gather(&mut self, inputs: Vec<NodeId>, op: &Call<Number>) -> Fit<NodeId> {
        self.one(op, &inputs)
    }

    /// An op that parts a tensor in `count`.
    pub(super) fn part(
        &mut self,
        input: NodeId,
        op: &Call<Number>,
        count: usize,
    ) -> Fit<Vec<NodeId>> {
        self.lower(op, &[input], count)
    }

    fn one(&mut self, op: &Call<Number>, inputs: &[NodeId]) -> Fit<NodeId> {
        match self.lower(op, inputs, 1)?[..] {
            [made] => Ok(made),
            _ => Err("this op parts a tensor".to_owned()),
        }
    }

    fn add(&mut self, input: NodeId, value: f64) -> Fit<NodeId> {
        self.value_op(input, Primitive::Add { value })
    }

    fn multiply(&mut self, input: NodeId, value: f64) -> Fit<NodeId> {
        if !value.is_finite() || value == 0.0 {
            return Err("a factor must be finite and not zero".to_owned());
        }
        self.value_op(input, Primitive::Mul { value })
    }

    /// By a number. Where its reciprocal is exact that is a product; any other quotient is rounded
    /// once, as PyTorch's is.
    fn divide(&mut self, input: NodeId, value: f64) -> Fit<NodeId> {
        let exact = value.is_normal() && value.abs().log2().fract() == 0.0;
        if exact || !value.is_finite() || value == 0.0 {
            return self.multiply(input, 1.0 / value);
        }
        self.with_number(Arithmetic::Div, input, value)
    }

    /// To a dtype, from a dtype if it is written.
    fn convert(&mut self, input: NodeId, to: Dtype, from: Option<Dtype>) -> Fit<NodeId> {
        let info = self.info(input);
        if let Some(from) = from
            && info.dtype != from
            && widens(from, to)
        {
            return Err(format!("the dtype before is written {from}, and this is {info}"));
        }
        self.cast(input, to)
    }
}
