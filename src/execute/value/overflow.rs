//! Finite values that became infinite or NaN: rounding is meant by a lossy cast, this is not.

use super::numbers::Numbers;
use crate::tensor::Dtype;

/// A block of packed elements and their dtype.
pub(in crate::execute) type Block<'a> = (Dtype, &'a [u8]);

/// Which bits of an element tell an infinity or a NaN: where all of them are set.
enum Pattern {
    One(u8),
    Two(u16),
    Four(u32),
    Eight(u64),
    /// One code, whatever its other bits would be.
    Code(u8),
}

/// `None` for dtypes whose every element is a finite number, and for those that nothing is computed
/// in.
fn pattern(dtype: Dtype) -> Option<Pattern> {
    Some(match dtype {
        Dtype::F8_E4M3 => Pattern::One(0x7f),
        Dtype::F8_E5M2 => Pattern::One(0x7c),
        Dtype::F8_E4M3FNUZ | Dtype::F8_E5M2FNUZ => Pattern::Code(0x80),
        Dtype::F8_E8M0 => Pattern::Code(0xff),
        Dtype::F16 => Pattern::Two(0x7c00),
        Dtype::BF16 => Pattern::Two(0x7f80),
        Dtype::F32 => Pattern::Four(0x7f80_0000),
        Dtype::F64 => Pattern::Eight(0x7ff0_0000_0000_0000),
        _ => return None,
    })
}

/// Whether any element of a block is infinite or NaN: one look at bits that are in the cache, without
/// a branch for each.
pub(in crate::execute) fn any_not_finite((dtype, bytes): Block<'_>) -> bool {
    let Some(pattern) = pattern(dtype) else { return false };
    match pattern {
        Pattern::One(bits) => bytes.iter().fold(false, |any, byte| any | (byte & bits == bits)),
        Pattern::Code(code) => bytes.iter().fold(false, |any, byte| any | (*byte == code)),
        Pattern::Two(bits) => bytes
            .as_chunks()
            .0
            .iter()
            .fold(false, |any, e| any | (u16::from_le_bytes(*e) & bits == bits)),
        Pattern::Four(bits) => bytes
            .as_chunks()
            .0
            .iter()
            .fold(false, |any, e| any | (u32::from_le_bytes(*e) & bits == bits)),
        Pattern::Eight(bits) => bytes
            .as_chunks()
            .0
            .iter()
            .fold(false, |any, e| any | (u64::from_le_bytes(*e) & bits == bits)),
    }
}

/// Which elements are finite.
fn finite(dtype: Dtype, bytes: &[u8]) -> Option<Vec<bool>> {
    Some(match Numbers::decode(dtype, bytes)? {
        Numbers::F32(values) => values.into_iter().map(f32::is_finite).collect(),
        Numbers::F64(values) => values.into_iter().map(f64::is_finite).collect(),
        Numbers::I64(values) => vec![true; values.len()],
        Numbers::U64(values) => vec![true; values.len()],
    })
}

/// How many elements of a result are infinite or NaN though they were computed from finite ones.
pub(in crate::execute) fn overflowed<'a>(
    inputs: impl Iterator<Item = Block<'a>>,
    result: Block<'_>,
) -> u64 {
    if !any_not_finite(result) {
        return 0;
    }
    let Some(result) = finite(result.0, result.1) else { return 0 };
    let mut lost: Vec<bool> = result.into_iter().map(|finite| !finite).collect();
    for (dtype, bytes) in inputs {
        // What has no numbers of its own (codes of half a byte) can't be the reason.
        let Some(input) = finite(dtype, bytes) else { continue };
        lost.iter_mut().zip(input).for_each(|(lost, finite)| *lost &= finite);
    }
    lost.into_iter().filter(|lost| *lost).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_a_non_finite_element_agrees_with_its_value() {
        for dtype in
            [Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::F8_E4M3FNUZ, Dtype::F8_E5M2FNUZ, Dtype::F8_E8M0]
        {
            for code in 0..=255u8 {
                let finite = finite(dtype, &[code]).unwrap()[0];
                assert_eq!(any_not_finite((dtype, &[code])), !finite, "{dtype} {code:#x}");
            }
        }
        for code in 0..=u16::MAX {
            for dtype in [Dtype::F16, Dtype::BF16] {
                let bytes = code.to_le_bytes();
                assert_eq!(
                    any_not_finite((dtype, &bytes)),
                    !finite(dtype, &bytes).unwrap()[0],
                    "{dtype} {code:#x}"
                );
            }
        }
        for value in
            [0.0, 1.0, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]
        {
            assert_eq!(any_not_finite((Dtype::F64, &value.to_le_bytes())), !value.is_finite());
        }
        for value in
            [0.0, 1.0, f32::MAX, f32::MIN_POSITIVE, f32::INFINITY, f32::NEG_INFINITY, f32::NAN]
        {
            assert_eq!(any_not_finite((Dtype::F32, &value.to_le_bytes())), !value.is_finite());
        }
        assert!(
            !any_not_finite((Dtype::I32, &[0xff; 8]))
                && !any_not_finite((Dtype::U8, &[0xff; 8]))
                && !any_not_finite((Dtype::F4, &[0xff; 8]))
        );
    }

    #[test]
    fn only_what_was_finite_counts() {
        let f32s = |values: &[f32]| {
            values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()
        };
        let input = f32s(&[1e6, f32::INFINITY, f32::NAN, 1.0, -1e6]);
        let halves: Vec<u8> = [0x7c00u16, 0x7c00, 0x7e00, 0x3c00, 0xfc00]
            .iter()
            .flat_map(|half| half.to_le_bytes())
            .collect();
        assert_eq!(overflowed([(Dtype::F32, &input[..])].into_iter(), (Dtype::F16, &halves)), 2);
        // One of two that are multiplied was infinite already.
        let scales = f32s(&[f32::INFINITY, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(
            overflowed(
                [(Dtype::F32, &input[..]), (Dtype::F32, &scales)].into_iter(),
                (Dtype::F16, &halves)
            ),
            1
        );
    }
}
