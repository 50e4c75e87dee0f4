//! Boxes of a result as candle's tensors on the CPU: read into memory of elements, which becomes
//! the tensor's own.

use candle_core::{DType, Device, Error, Result, Tensor, WithDType};
use half::{bf16, f16};
use regraft::conversion::Planned;
use regraft::execute::Destination;
use regraft::plan::TargetBox;
use regraft::tensor::Dtype;
use zerocopy::{FromBytes, IntoBytes};

/// A box of so many elements of this dtype, and the bytes that were read for it.
///
/// What candle has no dtype for is refused, but for U16, which it widens to U32 itself.
pub(crate) fn read(
    planned: &Planned,
    part: TargetBox,
    dtype: Dtype,
    shape: &[usize],
) -> Result<(Tensor, u64)> {
    match dtype {
        Dtype::U8 => elements::<u8>(planned, part, shape),
        Dtype::U16 => {
            let (narrow, bytes) = filled::<u16>(planned, part, shape)?;
            let wide: Vec<u32> = narrow.into_iter().map(u32::from).collect();
            Ok((Tensor::from_vec(wide, shape, &Device::Cpu)?, bytes))
        }
        Dtype::U32 => elements::<u32>(planned, part, shape),
        Dtype::I16 => elements::<i16>(planned, part, shape),
        Dtype::I32 => elements::<i32>(planned, part, shape),
        Dtype::I64 => elements::<i64>(planned, part, shape),
        Dtype::BF16 => elements::<bf16>(planned, part, shape),
        Dtype::F16 => elements::<f16>(planned, part, shape),
        Dtype::F32 => elements::<f32>(planned, part, shape),
        Dtype::F64 => elements::<f64>(planned, part, shape),
        Dtype::F8_E4M3 => {
            let (codes, bytes) = filled::<u8>(planned, part, shape)?;
            Ok((Tensor::from_raw_buffer(&codes, DType::F8E4M3, shape, &Device::Cpu)?, bytes))
        }
        other => candle_core::bail!(
            "{} is {}, which candle has no tensors of; rules may cast or dequantize it",
            part.key,
            other.name()
        ),
    }
}

fn elements<T: WithDType + FromBytes + IntoBytes>(
    planned: &Planned,
    part: TargetBox,
    shape: &[usize],
) -> Result<(Tensor, u64)> {
    let (elements, bytes) = filled::<T>(planned, part, shape)?;
    Ok((Tensor::from_vec(elements, shape, &Device::Cpu)?, bytes))
}

/// The elements of a box in row-major order.
fn filled<T: FromBytes + IntoBytes>(
    planned: &Planned,
    part: TargetBox,
    shape: &[usize],
) -> Result<(Vec<T>, u64)> {
    let key = part.key.clone();
    let mut elements = T::new_vec_zeroed(shape.iter().product())
        .map_err(|_| Error::msg(format!("there is no memory for {key} of shape {shape:?}")))?;
    let mut wanted = [Destination::row_major(part, elements.as_mut_slice().as_mut_bytes())];
    let report = planned.read_boxes(&mut wanted, None).map_err(Error::wrap)?;
    Ok((elements, report.bytes_read))
}
