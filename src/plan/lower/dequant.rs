//! Ops that turn quantized tensors and their scales into floats.

use super::super::graph::{Fit, Graph};
use super::super::node::{NodeId, Op};
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
        let result = TensorInfo::new(to, info.shape);
        self.push(Op::DequantBlocks { block: [block, block] }, vec![weight, scale], result)
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
        let mut shape = info.shape[..rank - 1].to_vec();
        shape[rank - 2] = shape[rank - 2].checked_mul(32).ok_or("the result is too large")?;
        self.push(Op::DequantMxfp4, vec![blocks, scales], TensorInfo::new(to, shape))
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
