//! Value ops: what they do to elements, one block of packed little-endian elements at a time.
//!
//! Arithmetic follows PyTorch on a CPU: floats of at most 32 bits compute in `f32` and are rounded
//! to their dtype, nearest even; `F64` stays `F64`; integers are exact. A cast to a float of 16
//! bits or less goes through `f32`; float to integer truncates toward zero (NaN is 0), then wraps
//! like integer to integer does. Integer arithmetic that leaves its dtype is an error, where
//! PyTorch wraps in silence.

mod binary;
mod float8;
mod numbers;
mod overflow;
mod product;
mod reduce;

use crate::error::{Error, ErrorKind, Result};
use crate::plan::{Code, Op};
use crate::tensor::Dtype;

pub(in crate::execute) use binary::{binary, check as check_binary, check_list, lookup};
use float8::power_of_two;
use numbers::{Kind, Numbers};
pub(in crate::execute) use overflow::{any_not_finite, overflowed};
pub(in crate::execute) use product::{Factor, product};
pub(in crate::execute) use reduce::Reducer;

/// Elements computed at once: small enough that all intermediate values stay in the cache.
pub(in crate::execute) const BLOCK: usize = 4096;

/// An element-wise op with one input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::execute) enum Step {
    Cast,
    Add(f64),
    Mul(f64),
    Neg,
    Exp,
    Log,
    OneForZero,
    Decode(Code),
    /// Codes as they are.
    Codes,
}

impl Step {
    /// Of an op of a plan, if it is one.
    pub(in crate::execute) fn of(op: &Op) -> Option<Self> {
        Some(match op {
            Op::Cast => Step::Cast,
            Op::Add { value } => Step::Add(*value),
            Op::Mul { value } => Step::Mul(*value),
            Op::Neg => Step::Neg,
            Op::Exp => Step::Exp,
            Op::Log => Step::Log,
            Op::OneForZero => Step::OneForZero,
            Op::Decode { code } => Step::Decode(*code),
            _ => return None,
        })
    }

    /// The dtype that says which of its inputs are finite: exponents have a code that isn't.
    pub(in crate::execute) fn counts_as(self, from: Dtype) -> Dtype {
        if self == Step::Decode(Code::E8m0) { Dtype::F8_E8M0 } else { from }
    }

    /// Whether it can be done from one dtype to another.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] with the reason.
    pub(in crate::execute) fn check(self, from: Dtype, to: Dtype) -> Result<()> {
        let unsupported = |why: String| Err(Error::new(ErrorKind::Unsupported, why));
        match self {
            Step::Cast if from == to => Ok(()),
            Step::Cast if Kind::of(from).is_none() || Kind::of(to).is_none() => {
                unsupported(format!("cannot cast {from} to {to}"))
            }
            Step::Cast => Ok(()),
            Step::Codes | Step::Decode(_) if from != Dtype::U8 => {
                unsupported(format!("codes are U8, not {from}"))
            }
            Step::Codes => Ok(()),
            Step::Decode(_) if !matches!(Kind::of(to), Some(Kind::F32 | Kind::F64)) => {
                unsupported(format!("codes are floats, not {to}"))
            }
            Step::Decode(_) => Ok(()),
            _ if from != to => Err(Error::corrupt(format!("arithmetic from {from} to {to}"))),
            _ if from == Dtype::Bool => unsupported("no arithmetic on BOOL".to_owned()),
            Step::Add(value) | Step::Mul(value) => match Kind::of(from) {
                None => unsupported(format!("no arithmetic on {from}")),
                Some(Kind::I64 | Kind::U64) if numbers::integer(value).is_none() => {
                    unsupported(format!(
                        "cannot compute {from} with {value}, which is no integer; cast to a float dtype first"
                    ))
                }
                Some(_) => Ok(()),
            },
            Step::Neg if matches!(Kind::of(from), None | Some(Kind::U64)) => {
                unsupported(format!("cannot negate {from}"))
            }
            Step::Neg => Ok(()),
            Step::Exp | Step::Log | Step::OneForZero
                if matches!(Kind::of(from), Some(Kind::F32 | Kind::F64)) =>
            {
                Ok(())
            }
            Step::Exp | Step::Log | Step::OneForZero => {
                unsupported(format!("no exp or log of {from}; cast to a float dtype first"))
            }
        }
    }

    /// Does it to a block.
    ///
    /// # Errors
    /// As [`check`](Self::check), and where an integer leaves its dtype.
    pub(in crate::execute) fn apply(self, from: Dtype, to: Dtype, input: &[u8]) -> Result<Vec<u8>> {
        self.check(from, to)?;
        match self {
            Step::Cast if from == to => return Ok(input.to_vec()),
            Step::Codes => return Ok(input.to_vec()),
            Step::Decode(code) => return decoded(code, input, to),
            _ => {}
        }
        let overflow =
            || Error::new(ErrorKind::Unsupported, format!("an element of {from} overflows"));
        let mut values = Numbers::decode(from, input)
            .ok_or_else(|| Error::corrupt(format!("a block of {from} is cut")))?;
        values = match self {
            Step::Cast => values
                .converted(to)
                .ok_or_else(|| Error::corrupt(format!("cannot cast to {to}")))?,
            Step::Add(value) => values.added(value, from).ok_or_else(overflow)?,
            Step::Mul(value) => values.multiplied(value, from).ok_or_else(overflow)?,
            Step::Neg => values.negated(from).ok_or_else(overflow)?,
            Step::Exp => values.mapped(f32::exp, f64::exp),
            Step::Log => values.mapped(f32::ln, f64::ln),
            Step::OneForZero => values
                .mapped(|x| if x == 0.0 { 1.0 } else { x }, |x| if x == 0.0 { 1.0 } else { x }),
            // They have returned.
            Step::Codes | Step::Decode(_) => values,
        };
        values.encode(to).ok_or_else(|| Error::corrupt(format!("cannot encode {to}")))
    }
}

/// The values of FP4 (E2M1) codes (OCP Microscaling Formats 1.0, 5.3.3).
const FP4: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// Codes in bytes as the numbers that they stand for.
fn decoded(code: Code, codes: &[u8], to: Dtype) -> Result<Vec<u8>> {
    let value = |byte: &u8| match code {
        Code::E2m1 => FP4[usize::from(byte & 15)],
        Code::E8m0 => power_of_two(i32::from(*byte) - 127),
    };
    Numbers::F32(codes.iter().map(value).collect())
        .converted(to)
        .and_then(|values| values.encode(to))
        .ok_or_else(|| Error::corrupt(format!("cannot encode {to}")))
}

/// One element of a made tensor.
///
/// # Errors
/// If the dtype can't hold numbers, or holds integers and the value is none.
pub(in crate::execute) fn fill(value: f64, to: Dtype) -> Result<Vec<u8>> {
    let unsupported = || {
        Error::new(
            ErrorKind::Unsupported,
            format!("cannot make a tensor of {to} filled with {value}"),
        )
    };
    if to == Dtype::C64 {
        let mut bytes = fill(value, Dtype::F32)?;
        bytes.extend([0; 4]);
        return Ok(bytes);
    }
    let numbers = match Kind::of(to).ok_or_else(unsupported)? {
        Kind::F32 | Kind::F64 => Numbers::F64(vec![value]).converted(to),
        Kind::I64 | Kind::U64 => {
            numbers::integer(value).and_then(|exact| Numbers::exact(exact, to))
        }
    };
    numbers.and_then(|numbers| numbers.encode(to)).ok_or_else(unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn cast(from: Dtype, to: Dtype, input: &[u8]) -> Vec<u8> {
        Step::Cast.apply(from, to, input).unwrap()
    }

    #[test]
    #[allow(clippy::excessive_precision)]
    fn halves_round_to_nearest_even() {
        // bf16 keeps 8 bits: 1 + 2^-8 is half-way between 0x3f80 and 0x3f81, 1 + 3 * 2^-8 between
        // 0x3f81 and 0x3f82.
        let ties = f32s(&[1.00390625, 1.01171875, 1.003906369, 3.4e38, f32::INFINITY, -0.0]);
        assert_eq!(
            cast(Dtype::F32, Dtype::BF16, &ties),
            [0x80, 0x3f, 0x82, 0x3f, 0x81, 0x3f, 0x80, 0x7f, 0x80, 0x7f, 0x00, 0x80]
        );
        // f16 keeps 11: 2049 and 2051 are ties; 65504 is the largest, 65520 the tie above it; 2^-25
        // is half the smallest subnormal.
        let ties = f32s(&[2049.0, 2051.0, 65519.0, 65520.0, 2f32.powi(-25), 2f32.powi(-24)]);
        let halves: Vec<u8> = [0x6800u16, 0x6802, 0x7bff, 0x7c00, 0x0000, 0x0001]
            .iter()
            .flat_map(|half| half.to_le_bytes())
            .collect();
        assert_eq!(cast(Dtype::F32, Dtype::F16, &ties), halves);
        assert_eq!(cast(Dtype::BF16, Dtype::F32, &[0x49, 0x40]), f32s(&[3.140625]));
        assert_eq!(
            cast(Dtype::F16, Dtype::F32, &[0x00, 0x3c, 0x01, 0x00]),
            f32s(&[1.0, 5.960464477539063e-8])
        );
    }

    #[test]
    #[allow(clippy::excessive_precision)]
    fn f64_goes_to_bf16_through_f32() {
        // Just above a bf16 tie in f64, on it in f32: the double rounding that PyTorch does too.
        let value = 1.00390625f64 + 1e-12;
        assert_eq!(cast(Dtype::F64, Dtype::BF16, &value.to_le_bytes()), [0x80, 0x3f]);
        assert_eq!(cast(Dtype::F64, Dtype::F64, &value.to_le_bytes()), value.to_le_bytes());
        assert_eq!(
            cast(Dtype::I64, Dtype::F64, &i64::MIN.to_le_bytes()),
            (-9223372036854775808f64).to_le_bytes()
        );
    }

    #[test]
    fn integers_are_exact_or_wrap() {
        let large = 0x1_0000_0000_0123u64;
        assert_eq!(cast(Dtype::U64, Dtype::I64, &large.to_le_bytes()), large.to_le_bytes());
        assert_eq!(cast(Dtype::U64, Dtype::U8, &large.to_le_bytes()), [0x23]);
        assert_eq!(cast(Dtype::I16, Dtype::I64, &(-2i16).to_le_bytes()), (-2i64).to_le_bytes());
        assert_eq!(cast(Dtype::I8, Dtype::U16, &[0xff]), [0xff, 0xff]);
        assert_eq!(
            cast(Dtype::F32, Dtype::I32, &f32s(&[-1.9, 2.9])),
            [(-1i32).to_le_bytes(), 2i32.to_le_bytes()].concat()
        );
        assert_eq!(cast(Dtype::F32, Dtype::U8, &f32s(&[-1.0, 255.9, f32::NAN])), [255, 255, 0]);
        assert_eq!(cast(Dtype::F32, Dtype::Bool, &f32s(&[0.0, -0.0, 0.3, f32::NAN])), [0, 0, 1, 1]);
        assert_eq!(cast(Dtype::I32, Dtype::Bool, &256i32.to_le_bytes()), [1]);
        assert_eq!(cast(Dtype::Bool, Dtype::F32, &[0, 1]), f32s(&[0.0, 1.0]));
    }

    #[test]
    fn small_floats_compute_in_f32() {
        // 256 + 1 is a tie of bf16 (even: 256); 1 + 1 is exact.
        assert_eq!(
            Step::Add(1.0).apply(Dtype::BF16, Dtype::BF16, &[0x80, 0x43, 0x80, 0x3f]).unwrap(),
            [0x80, 0x43, 0x00, 0x40]
        );
        assert_eq!(
            Step::Mul(0.5).apply(Dtype::F32, Dtype::F32, &f32s(&[3.0])).unwrap(),
            f32s(&[1.5])
        );
        assert_eq!(Step::Neg.apply(Dtype::F16, Dtype::F16, &[0, 0]).unwrap(), [0, 0x80]);
        assert_eq!(Step::Exp.apply(Dtype::F32, Dtype::F32, &f32s(&[0.0])).unwrap(), f32s(&[1.0]));
        assert_eq!(
            Step::Log.apply(Dtype::F64, Dtype::F64, &1f64.to_le_bytes()).unwrap(),
            0f64.to_le_bytes()
        );
        assert_eq!(
            Step::Add(0.1).apply(Dtype::F64, Dtype::F64, &0.2f64.to_le_bytes()).unwrap(),
            (0.1f64 + 0.2).to_le_bytes()
        );
    }

    #[test]
    fn integers_that_overflow_are_an_error() {
        assert_eq!(Step::Add(1.0).apply(Dtype::I8, Dtype::I8, &[126, 0xff]).unwrap(), [127, 0]);
        for (step, dtype, input) in [
            (Step::Add(1.0), Dtype::I8, vec![127]),
            (Step::Add(-1.0), Dtype::U8, vec![0]),
            (Step::Neg, Dtype::I8, vec![0x80]),
            (Step::Neg, Dtype::U8, vec![1]),
            (Step::Mul(2.0), Dtype::U64, u64::MAX.to_le_bytes().to_vec()),
            (Step::Mul(0.5), Dtype::I32, vec![2, 0, 0, 0]),
            (Step::Exp, Dtype::I8, vec![1]),
            (Step::Add(1.0), Dtype::Bool, vec![1]),
            (Step::Add(1.0), Dtype::C64, vec![0; 8]),
            (Step::Neg, Dtype::F4, vec![0]),
        ] {
            assert_eq!(
                step.apply(dtype, dtype, &input).unwrap_err().kind(),
                ErrorKind::Unsupported,
                "{step:?} {dtype}"
            );
        }
        assert!(Step::Cast.apply(Dtype::C64, Dtype::F32, &[0; 8]).is_err());
        assert_eq!(cast(Dtype::C64, Dtype::C64, &[7; 8]), [7; 8]);
        assert!(Step::Cast.apply(Dtype::F32, Dtype::BF16, &[0; 3]).is_err());
    }

    #[test]
    fn codes_are_the_numbers_of_the_formats() {
        let decode =
            |code, codes: &[u8]| Step::Decode(code).apply(Dtype::U8, Dtype::F32, codes).unwrap();
        let codes: Vec<u8> = (0..16).collect();
        // OCP Microscaling Formats 1.0, table 5.
        let expected = [
            0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0,
        ];
        assert_eq!(decode(Code::E2m1, &codes), f32s(&expected));
        let powers = [2f32.powi(-127), 0.5, 1.0, 2.0, 2f32.powi(127), f32::INFINITY];
        assert_eq!(decode(Code::E8m0, &[0, 126, 127, 128, 254, 255]), f32s(&powers));
        let to_an_integer = Step::Decode(Code::E2m1).apply(Dtype::U8, Dtype::I32, &[1]);
        assert!(to_an_integer.is_err());
        assert!(Step::Decode(Code::E2m1).check(Dtype::I8, Dtype::F32).is_err());
        let divisors = Step::OneForZero.apply(Dtype::F32, Dtype::F32, &f32s(&[0.0, -0.0, 2.0]));
        assert_eq!(divisors.unwrap(), f32s(&[1.0, 1.0, 2.0]));
    }

    #[test]
    fn made_elements() {
        assert_eq!(fill(1.0, Dtype::BF16).unwrap(), [0x80, 0x3f]);
        assert_eq!(fill(-1.0, Dtype::I16).unwrap(), [0xff, 0xff]);
        assert_eq!(fill(1.0, Dtype::Bool).unwrap(), [1]);
        assert_eq!(fill(1.0, Dtype::C64).unwrap(), [0, 0, 0x80, 0x3f, 0, 0, 0, 0]);
        for (value, dtype) in [
            (0.5, Dtype::I8),
            (-1.0, Dtype::U8),
            (256.0, Dtype::U8),
            (f64::NAN, Dtype::I64),
            (1.0, Dtype::F4),
        ] {
            assert!(fill(value, dtype).is_err(), "{value} {dtype}");
        }
    }
}
