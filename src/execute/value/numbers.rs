//! [`Numbers`]: a block of elements in the type that they are computed in.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pulp::Arch;

use super::float8::{
    E4M3, E4M3_VALUES, E4M3FNUZ, E4M3FNUZ_VALUES, E5M2, E5M2_VALUES, E5M2FNUZ, E5M2FNUZ_VALUES,
    E8M0_VALUES, Values, encode_e8m0,
};
use crate::tensor::Dtype;

/// The type that a dtype is computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::execute) enum Kind {
    F32,
    F64,
    I64,
    U64,
}

impl Kind {
    /// Of a dtype; `None` for complex numbers and for elements of less than a byte.
    pub(in crate::execute) fn of(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::F8_E5M2
            | Dtype::F8_E4M3
            | Dtype::F8_E8M0
            | Dtype::F8_E4M3FNUZ
            | Dtype::F8_E5M2FNUZ => Kind::F32,
            Dtype::F16 | Dtype::BF16 | Dtype::F32 => Kind::F32,
            Dtype::F64 => Kind::F64,
            Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => Kind::I64,
            Dtype::Bool | Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => Kind::U64,
            Dtype::C64 | Dtype::F4 | Dtype::F6_E2M3 | Dtype::F6_E3M2 => return None,
        })
    }
}

/// A number as an integer, if it is one that 64 bits hold.
pub(in crate::execute) fn integer(value: f64) -> Option<i128> {
    let whole = value.trunc() == value && value.abs() < 2f64.powi(64);
    // Exact: a whole number below 2^64.
    #[allow(clippy::cast_possible_truncation)]
    whole.then_some(value as i128)
}

/// Elements in the type that they are computed in.
#[derive(Clone, Debug)]
pub(in crate::execute) enum Numbers {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    U64(Vec<u64>),
}

fn looked_up(codes: &[u8], values: &Values) -> Vec<f32> {
    let values: &[f32; 256] = values;
    codes.iter().map(|code| values[usize::from(*code)]).collect()
}

fn chunks<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| read(*chunk)).collect())
}

#[inline]
fn packed<const N: usize, T: Copy>(values: &[T], write: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * N];
    for (chunk, value) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *chunk = write(*value);
    }
    bytes
}

/// Many at once: the machine's own conversion is looked up once for all of them.
fn widened<H>(
    bytes: &[u8],
    read: impl Fn([u8; 2]) -> H,
    convert: impl Fn(&[H], &mut [f32]),
) -> Option<Vec<f32>> {
    let halves = chunks(bytes, read)?;
    let mut values = vec![0.0; halves.len()];
    convert(&halves, &mut values);
    Some(values)
}

impl Numbers {
    /// Of packed elements; `None` if the dtype has no [`Kind`] or an element is cut.
    pub(in crate::execute) fn decode(dtype: Dtype, bytes: &[u8]) -> Option<Self> {
        Some(match dtype {
            Dtype::F8_E4M3 => Numbers::F32(looked_up(bytes, &E4M3_VALUES)),
            Dtype::F8_E5M2 => Numbers::F32(looked_up(bytes, &E5M2_VALUES)),
            Dtype::F8_E4M3FNUZ => Numbers::F32(looked_up(bytes, &E4M3FNUZ_VALUES)),
            Dtype::F8_E5M2FNUZ => Numbers::F32(looked_up(bytes, &E5M2FNUZ_VALUES)),
            Dtype::F8_E8M0 => Numbers::F32(looked_up(bytes, &E8M0_VALUES)),
            Dtype::F16 => Numbers::F32(widened(bytes, f16::from_le_bytes, |from, to| {
                from.convert_to_f32_slice(to)
            })?),
            Dtype::BF16 => Numbers::F32(widened(bytes, bf16::from_le_bytes, |from, to| {
                from.convert_to_f32_slice(to)
            })?),
            Dtype::F32 => Numbers::F32(chunks(bytes, f32::from_le_bytes)?),
            Dtype::F64 => Numbers::F64(chunks(bytes, f64::from_le_bytes)?),
            Dtype::I8 => Numbers::I64(chunks(bytes, |b| i8::from_le_bytes(b).into())?),
            Dtype::I16 => Numbers::I64(chunks(bytes, |b| i16::from_le_bytes(b).into())?),
            Dtype::I32 => Numbers::I64(chunks(bytes, |b| i32::from_le_bytes(b).into())?),
            Dtype::I64 => Numbers::I64(chunks(bytes, i64::from_le_bytes)?),
            Dtype::Bool => Numbers::U64(bytes.iter().map(|byte| u64::from(*byte != 0)).collect()),
            Dtype::U8 => Numbers::U64(bytes.iter().map(|byte| u64::from(*byte)).collect()),
            Dtype::U16 => Numbers::U64(chunks(bytes, |b| u16::from_le_bytes(b).into())?),
            Dtype::U32 => Numbers::U64(chunks(bytes, |b| u32::from_le_bytes(b).into())?),
            Dtype::U64 => Numbers::U64(chunks(bytes, u64::from_le_bytes)?),
            Dtype::C64 | Dtype::F4 | Dtype::F6_E2M3 | Dtype::F6_E3M2 => return None,
        })
    }

    /// Packed elements of a dtype whose kind this is; `None` if it is another.
    pub(in crate::execute) fn encode(&self, dtype: Dtype) -> Option<Vec<u8>> {
        Some(match (self, dtype) {
            (Numbers::F32(v), Dtype::F8_E4M3) => v.iter().map(|x| E4M3.encode(*x)).collect(),
            (Numbers::F32(v), Dtype::F8_E5M2) => v.iter().map(|x| E5M2.encode(*x)).collect(),
            (Numbers::F32(v), Dtype::F8_E4M3FNUZ) => {
                v.iter().map(|x| E4M3FNUZ.encode(*x)).collect()
            }
            (Numbers::F32(v), Dtype::F8_E5M2FNUZ) => {
                v.iter().map(|x| E5M2FNUZ.encode(*x)).collect()
            }
            (Numbers::F32(v), Dtype::F8_E8M0) => v.iter().map(|x| encode_e8m0(*x)).collect(),
            (Numbers::F32(v), Dtype::F16) => {
                let mut halves = vec![f16::ZERO; v.len()];
                halves.convert_from_f32_slice(v);
                packed(&halves, f16::to_le_bytes)
            }
            // By the instructions that the machine has, found when it runs.
            (Numbers::F32(v), Dtype::BF16) => {
                Arch::new().dispatch(|| packed(v, |x| to_bf16(x).to_le_bytes()))
            }
            (Numbers::F32(v), Dtype::F32) => packed(v, f32::to_le_bytes),
            (Numbers::F64(v), Dtype::F64) => packed(v, f64::to_le_bytes),
            (Numbers::U64(v), Dtype::Bool) => v.iter().map(|x| u8::from(*x != 0)).collect(),
            // The low bytes of an integer are that integer, wrapped.
            (Numbers::I64(v), Dtype::I8) => packed(v, |x| low::<1>(x.to_le_bytes())),
            (Numbers::I64(v), Dtype::I16) => packed(v, |x| low::<2>(x.to_le_bytes())),
            (Numbers::I64(v), Dtype::I32) => packed(v, |x| low::<4>(x.to_le_bytes())),
            (Numbers::I64(v), Dtype::I64) => packed(v, i64::to_le_bytes),
            (Numbers::U64(v), Dtype::U8) => packed(v, |x| low::<1>(x.to_le_bytes())),
            (Numbers::U64(v), Dtype::U16) => packed(v, |x| low::<2>(x.to_le_bytes())),
            (Numbers::U64(v), Dtype::U32) => packed(v, |x| low::<4>(x.to_le_bytes())),
            (Numbers::U64(v), Dtype::U64) => packed(v, u64::to_le_bytes),
            _ => return None,
        })
    }

    /// In the kind of another dtype; `None` if it has none.
    // Conversions truncate and round on purpose: this is the cast.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    pub(in crate::execute) fn converted(self, to: Dtype) -> Option<Self> {
        let kind = Kind::of(to)?;
        if to == Dtype::Bool {
            return Some(Numbers::U64(match self {
                Numbers::F32(v) => v.into_iter().map(|x| u64::from(x != 0.0)).collect(),
                Numbers::F64(v) => v.into_iter().map(|x| u64::from(x != 0.0)).collect(),
                Numbers::I64(v) => v.into_iter().map(|x| u64::from(x != 0)).collect(),
                Numbers::U64(v) => v.into_iter().map(|x| u64::from(x != 0)).collect(),
            }));
        }
        Some(match (self, kind) {
            (Numbers::F32(v), Kind::F32) => Numbers::F32(v),
            (Numbers::F32(v), Kind::F64) => Numbers::F64(v.into_iter().map(f64::from).collect()),
            (Numbers::F32(v), Kind::I64) => Numbers::I64(v.into_iter().map(|x| x as i64).collect()),
            (Numbers::F32(v), Kind::U64) => {
                Numbers::U64(v.into_iter().map(|x| unsigned(f64::from(x))).collect())
            }
            (Numbers::F64(v), Kind::F32) => Numbers::F32(v.into_iter().map(|x| x as f32).collect()),
            (Numbers::F64(v), Kind::F64) => Numbers::F64(v),
            (Numbers::F64(v), Kind::I64) => Numbers::I64(v.into_iter().map(|x| x as i64).collect()),
            (Numbers::F64(v), Kind::U64) => Numbers::U64(v.into_iter().map(unsigned).collect()),
            (Numbers::I64(v), Kind::F32) => Numbers::F32(v.into_iter().map(|x| x as f32).collect()),
            (Numbers::I64(v), Kind::F64) => Numbers::F64(v.into_iter().map(|x| x as f64).collect()),
            (Numbers::I64(v), Kind::I64) => Numbers::I64(v),
            (Numbers::I64(v), Kind::U64) => {
                Numbers::U64(v.into_iter().map(i64::cast_unsigned).collect())
            }
            (Numbers::U64(v), Kind::F32) => Numbers::F32(v.into_iter().map(|x| x as f32).collect()),
            (Numbers::U64(v), Kind::F64) => Numbers::F64(v.into_iter().map(|x| x as f64).collect()),
            (Numbers::U64(v), Kind::I64) => {
                Numbers::I64(v.into_iter().map(u64::cast_signed).collect())
            }
            (Numbers::U64(v), Kind::U64) => Numbers::U64(v),
        })
    }

    /// One integer, if the dtype can hold it.
    pub(in crate::execute) fn exact(value: i128, to: Dtype) -> Option<Self> {
        match Kind::of(to)? {
            Kind::I64 => within(value, to)
                .map(|value| i64::try_from(value).ok())
                .map(|value| Some(Numbers::I64(vec![value?])))?,
            Kind::U64 => within(value, to)
                .map(|value| u64::try_from(value).ok())
                .map(|value| Some(Numbers::U64(vec![value?])))?,
            Kind::F32 | Kind::F64 => None,
        }
    }

    pub(in crate::execute) fn mapped(
        self,
        small: impl Fn(f32) -> f32,
        large: impl Fn(f64) -> f64,
    ) -> Self {
        match self {
            Numbers::F32(v) => Numbers::F32(v.into_iter().map(small).collect()),
            Numbers::F64(v) => Numbers::F64(v.into_iter().map(large).collect()),
            integers => integers,
        }
    }

    /// `None` where an integer leaves the dtype.
    // A factor is rounded to the type that is computed in, as PyTorch rounds a scalar.
    #[allow(clippy::cast_possible_truncation)]
    pub(in crate::execute) fn added(self, value: f64, dtype: Dtype) -> Option<Self> {
        match self {
            Numbers::F32(_) | Numbers::F64(_) => {
                Some(self.mapped(|x| x + value as f32, |x| x + value))
            }
            integers => integers.exactly(dtype, |x| x.checked_add(integer(value)?)),
        }
    }

    /// `None` where an integer leaves the dtype.
    // As `added`.
    #[allow(clippy::cast_possible_truncation)]
    pub(in crate::execute) fn multiplied(self, value: f64, dtype: Dtype) -> Option<Self> {
        match self {
            Numbers::F32(_) | Numbers::F64(_) => {
                Some(self.mapped(|x| x * value as f32, |x| x * value))
            }
            integers => integers.exactly(dtype, |x| x.checked_mul(integer(value)?)),
        }
    }

    /// `None` where an integer leaves the dtype.
    pub(in crate::execute) fn negated(self, dtype: Dtype) -> Option<Self> {
        match self {
            Numbers::F32(_) | Numbers::F64(_) => Some(self.mapped(|x| -x, |x| -x)),
            integers => integers.exactly(dtype, i128::checked_neg),
        }
    }

    fn exactly(self, dtype: Dtype, op: impl Fn(i128) -> Option<i128>) -> Option<Self> {
        let checked = |x: i128| within(op(x)?, dtype);
        Some(match self {
            Numbers::I64(v) => Numbers::I64(
                v.into_iter()
                    .map(|x| i64::try_from(checked(x.into())?).ok())
                    .collect::<Option<_>>()?,
            ),
            Numbers::U64(v) => Numbers::U64(
                v.into_iter()
                    .map(|x| u64::try_from(checked(x.into())?).ok())
                    .collect::<Option<_>>()?,
            ),
            floats => floats,
        })
    }
}

/// The value, if the integer dtype can hold it.
fn within(value: i128, dtype: Dtype) -> Option<i128> {
    let bits = dtype.bits();
    let (low, high) = match (Kind::of(dtype)?, dtype) {
        (_, Dtype::Bool) => (0, 1),
        (Kind::U64, _) => (0, (1i128 << bits) - 1),
        _ => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
    };
    (low..=high).contains(&value).then_some(value)
}

/// The bits of the nearest `bf16`, ties to even; a NaN stays one, quiet. As `half` does it, without
/// a branch, so that many are converted at once.
#[inline]
fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let kept = if value.is_nan() { bits >> 16 | 0x40 } else { rounded };
    // The upper half of 32 bits.
    #[allow(clippy::cast_possible_truncation)]
    {
        kept as u16
    }
}

/// Toward zero; a negative number wraps as a signed one would.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn unsigned(value: f64) -> u64 {
    if value < 0.0 { (value as i64).cast_unsigned() } else { value as u64 }
}

fn low<const N: usize>(bytes: [u8; 8]) -> [u8; N] {
    std::array::from_fn(|i| bytes[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_rounded_as_half_does() {
        // Every upper half, with lower halves below, at and above the middle.
        for upper in 0..=u16::MAX {
            for lower in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let value = f32::from_bits(u32::from(upper) << 16 | lower);
                assert_eq!(to_bf16(value), bf16::from_f32(value).to_bits(), "{value:?}");
            }
        }
    }
}
