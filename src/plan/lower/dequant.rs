//! Ops that turn quantized tensors and their scales into floats, and floats into FP8 and scales.

use super::super::graph::{Fit, Graph, is_float};
use super::super::node::{Arithmetic, Code, NodeId, Op, Reduction};
use super::Number;
use crate::tensor::{Dtype, TensorInfo};

/// What bitsandbytes divides `CB * SCB` by, which is a product with this number. Source:
/// `int8_vectorwise_dequant` of bitsandbytes 0.50.2.
const ONE_OF_127: f64 = 7.874_015_718_698_502e-3;

/// Rows and columns of a block; `None` of one that takes them all.
pub(super) type Block = [Option<u64>; 2];

/// A block size as it is written: rows and columns, -1 for all.
pub(super) fn block(sizes: &[Number]) -> Fit<Block> {
    let size = |number: &Number| match number.int()? {
        -1 => Ok(None),
        _ => number.positive("a block size").map(Some),
    };
    match sizes {
        [rows, columns] => Ok([size(rows)?, size(columns)?]),
        _ => Err("a block has rows and columns, as in [128, 128]".to_owned()),
    }
}

impl Graph {
    /// FP8 and its scales: one for each block, one for each row, or one.
    pub(super) fn dequant_fp8(
        &mut self,
        inputs: &[NodeId],
        block: Block,
        to: Option<Dtype>,
        from: Option<Dtype>,
    ) -> Fit<NodeId> {
        let [weight, scale] = two(inputs)?;
        let (info, scales) = (self.info(weight).clone(), self.info(scale).clone());
        if let Some(from) = from.filter(|from| *from != info.dtype) {
            return Err(format!("the dtype before is written {from}, and this is {info}"));
        }
        if !is_fp8(info.dtype) || !is_scale(scales.dtype) {
            return Err(format!(
                "dequant_fp8 takes F8_E4M3 or F8_E5M2 and scales that are floats, not {} and {}",
                info.dtype, scales.dtype
            ));
        }
        let scale = self.scales(scale, &info, block)?;
        self.binary(Arithmetic::Mul, weight, scale, natural(to, scales.dtype))
    }

    /// Scales, each repeated for what it scales of a tensor.
    pub(super) fn scales(&mut self, scale: NodeId, of: &TensorInfo, block: Block) -> Fit<NodeId> {
        let scales = self.info(scale).clone();
        let rank = of.shape.len();
        if scales.numel() == Some(1) {
            return self.one_scale(scale, of);
        }
        let sizes = |dim: usize| block[dim + 2 - rank].unwrap_or(of.shape[dim]).max(1);
        let last = || (rank.saturating_sub(2)..rank).map(|dim| (dim, sizes(dim), of.shape[dim]));
        let fits = rank >= 2
            && scales.shape.len() == rank
            && scales.shape[..rank - 2] == of.shape[..rank - 2]
            && last().all(|(dim, size, all)| scales.shape[dim] == all.div_ceil(size));
        if fits {
            return self.blocks(scale, &last().collect::<Vec<_>>());
        }
        // One for each row, or for each of the matrices that lie behind each other.
        for kept in [rank.saturating_sub(1), rank.saturating_sub(2)] {
            let mut shape = of.shape[..kept].to_vec();
            if kept > 0
                && scales.shape.iter().filter(|n| **n != 1).eq(shape.iter().filter(|n| **n != 1))
            {
                shape.resize(rank, 1);
                let scale = self.reshape(scale, shape)?;
                return self.expand(scale, of.shape.clone());
            }
        }
        if rank < 2 {
            return Err(format!("scales {scales} don't fit {of}"));
        }
        let grid: Vec<String> =
            last().map(|(_, size, all)| all.div_ceil(size).to_string()).collect();
        let size: Vec<String> = last().map(|(_, size, _)| size.to_string()).collect();
        let size = if size[0] == size[1] { size[0].clone() } else { size.join(" x ") };
        let mut wanted: Vec<String> = of.shape[..rank - 2].iter().map(u64::to_string).collect();
        wanted.extend(grid);
        let rows = of.shape[rank - 2];
        Err(format!(
            "{of} in blocks of {size} needs scales of [{}], one for each of {rows} rows, or one, not {scales}",
            wanted.join(", ")
        ))
    }

    fn one_scale(&mut self, scale: NodeId, of: &TensorInfo) -> Fit<NodeId> {
        let scale = self.reshape(scale, vec![1; of.shape.len()])?;
        self.expand(scale, of.shape.clone())
    }

    /// 8-bit integers and scales, which are for `max`: for 127 they are the largest magnitudes of
    /// rows, as bitsandbytes has them; for 1 what a step is.
    pub(super) fn dequant_int8(
        &mut self,
        inputs: &[NodeId],
        to: Option<Dtype>,
        max: Number,
    ) -> Fit<NodeId> {
        let [weight, scale] = two(inputs)?;
        let (info, scales) = (self.info(weight).clone(), self.info(scale).clone());
        if info.dtype != Dtype::I8 || !is_float(scales.dtype) {
            return Err(format!(
                "dequant_int8 takes I8 and scales that are floats, not {} and {}",
                info.dtype, scales.dtype
            ));
        }
        let (max, to) = (max.positive("what scales are for")?, natural(to, scales.dtype));
        let scale = self.scales(scale, &info, [Some(1), None])?;
        if max == 1 {
            return self.binary(Arithmetic::Mul, weight, scale, to);
        }
        let product = self.binary(Arithmetic::Mul, weight, scale, Dtype::F32)?;
        let step = if max == 127 {
            self.value_op(product, Op::Mul { value: ONE_OF_127 })?
        } else {
            #[allow(clippy::cast_precision_loss)]
            self.with_number(Arithmetic::Div, product, max as f64)?
        };
        self.cast(step, to)
    }

    /// Two FP4 a byte, scales of 16 each, and a scale of all, if it isn't in those already.
    pub(super) fn dequant_nvfp4(&mut self, inputs: &[NodeId], to: Dtype) -> Fit<NodeId> {
        let (packed, scale, whole) = match *inputs {
            [packed, scale] => (packed, scale, None),
            [packed, scale, whole] => (packed, scale, Some(whole)),
            _ => return Err("dequant_nvfp4 takes two or three tensors".to_owned()),
        };
        let (info, scales) = (self.info(packed).clone(), self.info(scale).clone());
        if info.dtype != Dtype::U8 || !is_scale(scales.dtype) {
            return Err(format!(
                "dequant_nvfp4 takes U8 and scales that are floats, not {} and {}",
                info.dtype, scales.dtype
            ));
        }
        let mut scale = scale;
        if let Some(whole) = whole {
            if !is_float(self.info(whole).dtype) {
                return Err(format!("the scale of all is a float, not {}", self.info(whole)));
            }
            let whole = self.scales(whole, &scales, [None, None])?;
            scale = self.binary(Arithmetic::Mul, scale, whole, Dtype::F32)?;
        }
        let values = self.fp4(packed)?;
        let of = self.info(values).clone();
        let rank = of.shape.len();
        if scales.shape.len() != rank
            || scales.shape[..rank - 1] != of.shape[..rank - 1]
            || of.shape[rank - 1] != scales.shape[rank - 1].saturating_mul(16)
        {
            return Err(format!("scales {scales} don't fit {info}: one for each 8 bytes"));
        }
        let scale = self.blocks(scale, &[(rank - 1, 16, of.shape[rank - 1])])?;
        self.binary(Arithmetic::Mul, values, scale, to)
    }

    /// Blocks of two FP4 a byte and their scales.
    pub(super) fn dequant_mxfp4(&mut self, inputs: &[NodeId], to: Dtype) -> Fit<NodeId> {
        let [blocks, scales] = two(inputs)?;
        let (info, scale) = (self.info(blocks).clone(), self.info(scales).clone());
        let rank = scale.shape.len();
        if info.dtype != Dtype::U8 || !matches!(scale.dtype, Dtype::U8 | Dtype::F8_E8M0) {
            return Err(format!(
                "dequant_mxfp4 takes U8 blocks and U8 scales, not {} and {}",
                info.dtype, scale.dtype
            ));
        }
        let apart = info.shape.len() == rank + 1
            && info.shape[..rank] == *scale.shape
            && info.shape[rank] == 16;
        let together = rank > 0
            && info.shape.len() == rank
            && info.shape[..rank - 1] == scale.shape[..rank - 1]
            && scale.shape[rank - 1].checked_mul(16) == Some(info.shape[rank - 1]);
        if rank == 0 || !(apart || together) {
            return Err(format!(
                "scales {scale} don't fit blocks {info}: [..., groups, 16] or [..., groups × 16], and [..., groups]"
            ));
        }
        let values = self.fp4(blocks)?;
        let mut shape = scale.shape.to_vec();
        shape[rank - 1] = shape[rank - 1].checked_mul(32).ok_or("the result is too large")?;
        let values = self.reshape(values, shape.clone())?;
        let scales = match scale.dtype {
            Dtype::U8 => self.decode(scales, Code::E8m0)?,
            _ => scales,
        };
        let scales = self.blocks(scales, &[(rank - 1, 32, shape[rank - 1])])?;
        self.binary(Arithmetic::Mul, values, scales, to)
    }

    /// Two FP4 of each byte, the low one first, along the last dimension.
    fn fp4(&mut self, packed: NodeId) -> Fit<NodeId> {
        let codes = self.unpack(packed, 4)?;
        let values = self.decode(codes, Code::E2m1)?;
        self.joined_with_last(values)
    }

    /// The last dimension and the one before it as one.
    pub(super) fn joined_with_last(&mut self, input: NodeId) -> Fit<NodeId> {
        let mut shape = self.info(input).shape.to_vec();
        let (Some(last), Some(before)) = (shape.pop(), shape.pop()) else {
            return Err("this needs two dimensions".to_owned());
        };
        shape.push(before.checked_mul(last).ok_or("the result is too large")?);
        self.reshape(input, shape)
    }

    /// The codes that each element is made of, along a new last dimension.
    pub(super) fn unpack(&mut self, input: NodeId, bits: u32) -> Fit<NodeId> {
        let info = self.info(input);
        let mut shape = info.shape.to_vec();
        if !matches!(bits, 4 | 8)
            || info.dtype.bits() < bits
            || !info.dtype.bits().is_multiple_of(8)
        {
            return Err(format!("codes of {bits} bits in {info}: they have 4 or 8"));
        }
        shape.push(u64::from(info.dtype.bits() / bits));
        self.push(Op::Unpack { bits }, vec![input], TensorInfo::new(Dtype::U8, shape))
    }

    /// Codes as numbers.
    fn decode(&mut self, input: NodeId, code: Code) -> Fit<NodeId> {
        let info = TensorInfo::new(Dtype::F32, self.info(input).shape.clone());
        self.push(Op::Decode { code }, vec![input], info)
    }

    /// FP8, and scales by which each block's largest magnitude is the largest that FP8 has. A block
    /// of zeros has the scale one.
    pub(super) fn quant_fp8(
        &mut self,
        input: NodeId,
        block: Block,
        to: Dtype,
        from: Option<Dtype>,
    ) -> Fit<Vec<NodeId>> {
        let info = self.info(input).clone();
        if let Some(from) = from.filter(|from| *from != info.dtype) {
            return Err(format!("the dtype before is written {from}, and this is {info}"));
        }
        let largest = largest(to)?;
        let rank = info.shape.len();
        if rank < 2 || !is_float(info.dtype) {
            return Err(format!("quant_fp8 takes a matrix of floats, not {info}"));
        }
        let mut padded = input;
        let (mut apart, mut grid) = (info.shape[..rank - 2].to_vec(), info.shape.to_vec());
        for (dim, size) in (rank - 2..rank).zip(block) {
            let size = size.unwrap_or(info.shape[dim]).max(1);
            let count = info.shape[dim].div_ceil(size);
            let whole = count.checked_mul(size).and_then(|whole| i64::try_from(whole).ok());
            let whole = Number::Int(whole.ok_or("the result is too large")?);
            padded = self.pad(padded, Number::Int(i64::try_from(dim).unwrap_or(0)), whole, None)?;
            apart.extend([count, size]);
            grid[dim] = count;
        }
        let apart = self.reshape(padded, apart)?;
        let found = self.reduce(Reduction::AbsMax, apart, vec![rank - 1, rank + 1], Dtype::F32)?;
        let found = self.with_number(Arithmetic::Div, found, largest)?;
        let scales = self.value_op(found, Op::OneForZero)?;
        let scales = self.reshape(scales, grid)?;
        let quantized = self.quantized(input, scales, block, to)?;
        let scales = match block {
            [None, None] if rank == 2 => self.reshape(scales, vec![1])?,
            _ => scales,
        };
        Ok(vec![quantized, scales])
    }

    /// FP8 by scales that there are.
    pub(super) fn quant_fp8_by(
        &mut self,
        inputs: &[NodeId],
        block: Block,
        to: Dtype,
    ) -> Fit<NodeId> {
        let [input, scales] = two(inputs)?;
        for info in [self.info(input), self.info(scales)] {
            if !is_float(info.dtype) {
                return Err(format!("quant_fp8_by takes floats, and scales of floats, not {info}"));
            }
        }
        largest(to)?;
        self.quantized(input, scales, block, to)
    }

    fn quantized(&mut self, input: NodeId, scales: NodeId, block: Block, to: Dtype) -> Fit<NodeId> {
        let info = self.info(input).clone();
        let scales = self.scales(scales, &info, block)?;
        let quotient = self.binary(Arithmetic::Div, input, scales, Dtype::F32)?;
        self.cast(quotient, to)
    }
}

/// The dtype of what is dequantized: as it is said, else as a model's scales tell its own.
fn natural(to: Option<Dtype>, scales: Dtype) -> Dtype {
    to.unwrap_or(if scales == Dtype::F16 { Dtype::F16 } else { Dtype::BF16 })
}

/// The largest number of a dtype of 8 bits.
fn largest(to: Dtype) -> Fit<f64> {
    match to {
        Dtype::F8_E4M3 => Ok(448.0),
        Dtype::F8_E5M2 => Ok(57_344.0),
        _ => Err(format!("FP8 is F8_E4M3 or F8_E5M2, not {to}")),
    }
}

fn is_fp8(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2)
}

/// Whether scales may have this dtype: a float, or one of 8 bits.
fn is_scale(dtype: Dtype) -> bool {
    is_float(dtype) || matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E8M0)
}

pub(super) fn two(inputs: &[NodeId]) -> Fit<[NodeId; 2]> {
    <[NodeId; 2]>::try_from(inputs).map_err(|_| "this op joins two tensors".to_owned())
}
