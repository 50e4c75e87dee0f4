//! Ops that turn quantized tensors and their scales into floats.

use super::super::graph::{Fit, Graph};
use super::super::node::{Arithmetic, Code, NodeId, Op};
use super::Number;
use crate::tensor::{Dtype, Shape, TensorInfo};

impl Graph {
    /// FP8 and its block scales.
    pub(super) fn dequant_fp8(
        &mut self,
        inputs: &[NodeId],
        block: Number,
        to: Dtype,
    ) -> Fit<NodeId> {
        let [weight, scale] = two(inputs)?;
        let block = block.positive("a block size")?;
        let (info, scales) = (self.info(weight).clone(), self.info(scale).clone());
        let rank = info.shape.len();
        if rank < 2
            || scales.shape.len() != rank
            || info.shape[..rank - 2] != scales.shape[..rank - 2]
        {
            return Err(format!("block scales {scales} don't fit {info}"));
        }
        if (rank - 2..rank).any(|dim| info.shape[dim].div_ceil(block) != scales.shape[dim]) {
            return Err(format!(
                "{info} in blocks of {block} needs scales of {}, not {scales}",
                blocks(&info, block)
            ));
        }
        if !matches!(info.dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2) || scales.dtype != Dtype::F32 {
            return Err(format!(
                "dequant_fp8 takes F8_E4M3 or F8_E5M2 and F32 scales, not {} and {}",
                info.dtype, scales.dtype
            ));
        }
        let of = [rank - 2, rank - 1].map(|dim| (dim, block, info.shape[dim]));
        let scale = self.blocks(scale, &of)?;
        self.binary(Arithmetic::Mul, weight, scale, to)
    }

    /// Blocks of two FP4 a byte and their scales.
    pub(super) fn dequant_mxfp4(&mut self, inputs: &[NodeId], to: Dtype) -> Fit<NodeId> {
        let [blocks, scales] = two(inputs)?;
        let (info, scale) = (self.info(blocks).clone(), self.info(scales).clone());
        let rank = info.shape.len();
        if info.dtype != Dtype::U8 || !matches!(scale.dtype, Dtype::U8 | Dtype::F8_E8M0) {
            return Err(format!(
                "dequant_mxfp4 takes U8 blocks and U8 scales, not {} and {}",
                info.dtype, scale.dtype
            ));
        }
        if rank < 2 || info.shape[rank - 1] != 16 || info.shape[..rank - 1] != *scale.shape {
            return Err(format!(
                "scales {scale} don't fit blocks {info}: [..., groups, 16] and [..., groups]"
            ));
        }
        let codes = self.unpack(blocks, 4)?;
        let values = self.decode(codes, Code::E2m1)?;
        let mut grouped = scale.shape.to_vec();
        grouped.push(32);
        let values = self.reshape(values, grouped)?;
        let scales = match scale.dtype {
            Dtype::U8 => self.decode(scales, Code::E8m0)?,
            _ => scales,
        };
        let scales = self.unsqueeze(scales, rank - 1)?;
        let scales = self.blocks(scales, &[(rank - 1, 32, 32)])?;
        let product = self.binary(Arithmetic::Mul, values, scales, to)?;
        let mut shape = info.shape[..rank - 1].to_vec();
        shape[rank - 2] = shape[rank - 2].checked_mul(32).ok_or("the result is too large")?;
        self.reshape(product, shape)
    }

    /// The codes that each element is made of, along a new last dimension.
    pub(super) fn unpack(&mut self, input: NodeId, bits: u32) -> Fit<NodeId> {
        let info = self.info(input);
        let mut shape = info.shape.to_vec();
        if info.dtype.bits() < bits || info.dtype.bits() % 8 != 0 {
            return Err(format!("{info} doesn't hold codes of {bits} bits"));
        }
        shape.push(u64::from(info.dtype.bits() / bits));
        self.push(Op::Unpack { bits }, vec![input], TensorInfo::new(Dtype::U8, shape))
    }

    /// Codes as numbers.
    pub(super) fn decode(&mut self, input: NodeId, code: Code) -> Fit<NodeId> {
        let info = TensorInfo::new(Dtype::F32, self.info(input).shape.clone());
        self.push(Op::Decode { code }, vec![input], info)
    }
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
