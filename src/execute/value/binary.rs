//! Two tensors, element by element, and elements that are looked up in a list.

use std::ops::{Add, Div, Mul, Sub};

use pulp::Arch;

use super::numbers::{Kind, Numbers};
use crate::error::{Error, ErrorKind, Result};
use crate::execute::value::overflow::Block;
use crate::plan::Arithmetic;
use crate::tensor::Dtype;

fn cut() -> Error {
    Error::corrupt("a block of two tensors is cut")
}

/// `a` and `b`, element by element, rounded once to `to`.
///
/// # Errors
/// As [`check`].
pub(in crate::execute) fn binary(
    with: Arithmetic,
    a: Block<'_>,
    b: Block<'_>,
    to: Dtype,
) -> Result<Vec<u8>> {
    check(a.0, b.0, to)?;
    let kind = computed_in(a.0, b.0, to);
    let values = |(dtype, bytes): Block<'_>| Numbers::decode(dtype, bytes)?.converted(kind);
    let numbers = match (values(a).ok_or_else(cut)?, b) {
        // Scales, nearly always: taken from where they lie.
        (Numbers::F32(a), (Dtype::F32, b)) => {
            let (b, rest) = b.as_chunks();
            let is_whole = rest.is_empty() && a.len() == b.len();
            let b = is_whole.then_some(b).ok_or_else(cut)?;
            Numbers::F32(computed(with, a, b.iter().map(|b| f32::from_le_bytes(*b))))
        }
        (a, b) => match (a, values(b).ok_or_else(cut)?) {
            (Numbers::F32(a), Numbers::F32(b)) => Numbers::F32(computed(with, a, b.into_iter())),
            (Numbers::F64(a), Numbers::F64(b)) => Numbers::F64(computed(with, a, b.into_iter())),
            _ => return Err(cut()),
        },
    };
    numbers.converted(to).and_then(|values| values.encode(to)).ok_or_else(cut)
}

/// By the instructions that the machine has, found when it runs.
fn computed<T>(with: Arithmetic, a: Vec<T>, b: impl Iterator<Item = T>) -> Vec<T>
where
    T: Copy + Add<Output = T> + Sub<Output = T> + Mul<Output = T> + Div<Output = T>,
{
    Arch::new().dispatch(|| match with {
        Arithmetic::Add => pairwise(a, b, T::add),
        Arithmetic::Sub => pairwise(a, b, T::sub),
        Arithmetic::Mul => pairwise(a, b, T::mul),
        Arithmetic::Div => pairwise(a, b, T::div),
    })
}

#[inline]
fn pairwise<T: Copy>(mut a: Vec<T>, b: impl Iterator<Item = T>, of: impl Fn(T, T) -> T) -> Vec<T> {
    for (a, b) in a.iter_mut().zip(b) {
        *a = of(*a, b);
    }
    a
}

fn computed_in(a: Dtype, b: Dtype, to: Dtype) -> Dtype {
    if [a, b, to].contains(&Dtype::F64) { Dtype::F64 } else { Dtype::F32 }
}

/// Whether two tensors of these dtypes can be computed with, into a third.
///
/// # Errors
/// [`ErrorKind::Unsupported`] with the reason.
pub(in crate::execute) fn check(a: Dtype, b: Dtype, to: Dtype) -> Result<()> {
    let is_number = |dtype| Kind::of(dtype).is_some() && dtype != Dtype::Bool;
    let is_float = matches!(Kind::of(to), Some(Kind::F32 | Kind::F64));
    if is_number(a) && is_number(b) && is_float {
        return Ok(());
    }
    let why = format!("cannot compute with {a} and {b} into {to}: numbers give a float");
    Err(Error::new(ErrorKind::Unsupported, why))
}

/// Whether numbers of one dtype can say places in a list of another.
///
/// # Errors
/// [`ErrorKind::Unsupported`] with the reason.
pub(in crate::execute) fn check_list(places: Dtype, list: Dtype) -> Result<()> {
    if Kind::of(places).is_some() && list.bits() >= 8 {
        return Ok(());
    }
    let why = format!("cannot look up {places} in a list of {list}");
    Err(Error::new(ErrorKind::Unsupported, why))
}

/// Elements of a list, of `width` bytes each, at places that a block says.
///
/// # Errors
/// If a place is not in the list, or no whole number.
pub(in crate::execute) fn lookup(
    (dtype, places): Block<'_>,
    list: &[u8],
    width: usize,
) -> Result<Vec<u8>> {
    let places = Numbers::decode(dtype, places)
        .and_then(|places| places.converted(Dtype::F64))
        .ok_or_else(cut)?;
    let Numbers::F64(places) = places else { return Err(cut()) };
    let mut out = Vec::with_capacity(places.len().saturating_mul(width));
    for place in places {
        let found = index(place).and_then(|at| {
            let start = at.checked_mul(width)?;
            list.get(start..start.checked_add(width)?)
        });
        out.extend_from_slice(found.ok_or_else(|| {
            Error::corrupt(format!(
                "an index of {place} leaves the {} elements that it is looked up in",
                list.len().checked_div(width).unwrap_or(0)
            ))
        })?);
    }
    Ok(out)
}

// A whole number that isn't negative and that a float holds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn index(place: f64) -> Option<usize> {
    (place >= 0.0 && place.fract() == 0.0 && place < 9e15).then_some(place as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn two_tensors_are_rounded_once() {
        let (a, b) = (f32s(&[3.0, 1.0, 1.0]), f32s(&[0.5, 3.0, 0.0]));
        let of = |with| binary(with, (Dtype::F32, &a), (Dtype::F32, &b), Dtype::F32).unwrap();
        assert_eq!(of(Arithmetic::Add), f32s(&[3.5, 4.0, 1.0]));
        assert_eq!(of(Arithmetic::Sub), f32s(&[2.5, -2.0, 1.0]));
        assert_eq!(of(Arithmetic::Mul), f32s(&[1.5, 3.0, 0.0]));
        assert_eq!(of(Arithmetic::Div), f32s(&[6.0, 1.0 / 3.0, f32::INFINITY]));
        // 0x38 is 1.0 in E4M3, 0x40 is 2.0.
        let codes = (Dtype::F8_E4M3, &[0x38u8, 0x40][..]);
        let scales = f32s(&[0.5, 3.0]);
        let scaled = binary(Arithmetic::Mul, codes, (Dtype::F32, &scales), Dtype::BF16);
        assert_eq!(scaled.unwrap(), [0, 0x3f, 0xc0, 0x40]);
        // Integers are numbers too: -2 * 1.5.
        let scaled =
            binary(Arithmetic::Mul, (Dtype::I8, &[0xfe]), (Dtype::F32, &f32s(&[1.5])), Dtype::F32);
        assert_eq!(scaled.unwrap(), f32s(&[-3.0]));
        // In f64, if one of them is.
        let third = binary(
            Arithmetic::Div,
            (Dtype::F32, &f32s(&[1.0])),
            (Dtype::F64, &3f64.to_le_bytes()),
            Dtype::F64,
        );
        assert_eq!(third.unwrap(), (1.0f64 / 3.0).to_le_bytes());
        for (a, b, to) in [
            (Dtype::F4, Dtype::F32, Dtype::F32),
            (Dtype::F32, Dtype::Bool, Dtype::F32),
            (Dtype::F32, Dtype::F32, Dtype::I8),
            (Dtype::C64, Dtype::F32, Dtype::F32),
        ] {
            assert!(check(a, b, to).is_err(), "{a} {b} {to}");
        }
    }

    #[test]
    fn what_is_looked_up_is_there() {
        let list = f32s(&[0.5, -1.0, 7.0]);
        assert_eq!(lookup((Dtype::U8, &[2, 0]), &list, 4).unwrap(), f32s(&[7.0, 0.5]));
        assert_eq!(lookup((Dtype::F32, &f32s(&[1.0])), &list, 4).unwrap(), f32s(&[-1.0]));
        assert!(lookup((Dtype::U8, &[3]), &list, 4).is_err());
        assert!(lookup((Dtype::I8, &[0xff]), &list, 4).is_err());
        for no_index in [0.5, -1.0, f32::NAN, f32::INFINITY, 3.0] {
            assert!(lookup((Dtype::F32, &f32s(&[no_index])), &list, 4).is_err(), "{no_index}");
        }
    }
}
