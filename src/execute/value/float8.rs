//! The 8-bit float dtypes, decoded to and encoded from `f32`.
//!
//! Encoding rounds to nearest, ties to even, and doesn't saturate, as PyTorch's conversions do
//! (c10/util/Float8_e4m3fn.h and its neighbours): what is too large becomes NaN in E4M3 (which has
//! no infinity) and in the FNUZ dtypes (neither), infinity in E5M2.

use std::sync::LazyLock;

/// A format of sign, exponent and mantissa.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Float8 {
    mantissa_bits: u32,
    bias: i32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// As IEEE: the largest exponent holds infinity and NaN.
    Ieee,
    /// Finite values, and NaN where all bits but the sign are set.
    Finite,
    /// Finite values without negative zero, whose code is NaN.
    Unsigned0,
}

pub(crate) const E4M3: Float8 = Float8 { mantissa_bits: 3, bias: 7, kind: Kind::Finite };
pub(crate) const E5M2: Float8 = Float8 { mantissa_bits: 2, bias: 15, kind: Kind::Ieee };
pub(crate) const E4M3FNUZ: Float8 = Float8 { mantissa_bits: 3, bias: 8, kind: Kind::Unsigned0 };
pub(crate) const E5M2FNUZ: Float8 = Float8 { mantissa_bits: 2, bias: 16, kind: Kind::Unsigned0 };

impl Float8 {
    /// The value of a code, exactly.
    pub(crate) fn decode(self, code: u8) -> f32 {
        let sign = if code & 0x80 != 0 { -1.0 } else { 1.0 };
        let magnitude = u32::from(code & 0x7f);
        let (exponent, mantissa) =
            (magnitude >> self.mantissa_bits, magnitude & ((1 << self.mantissa_bits) - 1));
        match self.kind {
            Kind::Ieee if exponent == 31 => {
                return if mantissa == 0 { sign * f32::INFINITY } else { f32::NAN };
            }
            Kind::Finite if magnitude == 0x7f => return f32::NAN,
            Kind::Unsigned0 if code == 0x80 => return f32::NAN,
            _ => {}
        }
        // Subnormals have the exponent of the smallest normals and no implied bit. Both factors are
        // exact, as is their product.
        let (digits, exponent) = if exponent == 0 {
            (mantissa, 1)
        } else {
            (mantissa | 1 << self.mantissa_bits, exponent)
        };
        let power = exponent.cast_signed() - self.bias - self.mantissa_bits.cast_signed();
        sign * digits as f32 * power_of_two(power)
    }

    /// The nearest code, ties to even.
    pub(crate) fn encode(self, value: f32) -> u8 {
        let bits = value.to_bits();
        let sign = (bits >> 24).to_le_bytes()[0] & 0x80;
        let magnitude = bits & 0x7fff_ffff;
        if magnitude > 0x7f80_0000 {
            return if self.kind == Kind::Unsigned0 { 0x80 } else { sign | 0x7f };
        }
        let smallest_normal = (127 + 1 - self.bias).cast_unsigned();
        let exponent = magnitude >> 23;
        let code = if exponent < smallest_normal {
            // A multiple of the smallest subnormal: scaled by powers of two (exact), then rounded
            // to an integer.
            let steps =
                value.abs() * power_of_two(self.bias - 1 + self.mantissa_bits.cast_signed());
            round_to_even(steps)
        } else {
            let dropped = 23 - self.mantissa_bits;
            let odd = (magnitude >> dropped) & 1;
            let rounded = u64::from(magnitude) + (1 << (dropped - 1)) - 1 + u64::from(odd);
            u32::try_from(rounded >> dropped).unwrap_or(u32::MAX)
                - ((smallest_normal - 1) << self.mantissa_bits)
        };
        let largest = match self.kind {
            Kind::Ieee => 0x7b,
            Kind::Finite => 0x7e,
            Kind::Unsigned0 => 0x7f,
        };
        match (self.kind, code) {
            (Kind::Unsigned0, 0) => 0,
            (_, code) if code <= largest => sign | code.to_le_bytes()[0],
            (Kind::Ieee, _) => sign | 0x7c,
            (Kind::Finite, _) => sign | 0x7f,
            (Kind::Unsigned0, _) => 0x80,
        }
    }
}

/// The values of all codes of a dtype.
pub(crate) type Values = LazyLock<[f32; 256]>;

pub(crate) static E4M3_VALUES: Values = LazyLock::new(|| values(|code| E4M3.decode(code)));
pub(crate) static E5M2_VALUES: Values = LazyLock::new(|| values(|code| E5M2.decode(code)));
pub(crate) static E4M3FNUZ_VALUES: Values = LazyLock::new(|| values(|code| E4M3FNUZ.decode(code)));
pub(crate) static E5M2FNUZ_VALUES: Values = LazyLock::new(|| values(|code| E5M2FNUZ.decode(code)));
pub(crate) static E8M0_VALUES: Values = LazyLock::new(|| values(decode_e8m0));

fn values(of: impl Fn(u8) -> f32) -> [f32; 256] {
    let mut values = [0.0; 256];
    for (code, value) in (0..=u8::MAX).zip(&mut values) {
        *value = of(code);
    }
    values
}

/// An exponent alone, `2^(code - 127)`; 255 is NaN (OCP Microscaling Formats 1.0, 5.4.1).
pub(crate) fn decode_e8m0(code: u8) -> f32 {
    if code == 0xff { f32::NAN } else { power_of_two(i32::from(code) - 127) }
}

/// The nearest power of two; the sign is lost. Infinity and what is too large become NaN. Between a
/// subnormal power and the next a tie goes down, elsewhere up, as in c10/util/Float8_e8m0fnu.h:
/// "even" looks at the implied bit of the `f32`.
pub(crate) fn encode_e8m0(value: f32) -> u8 {
    let bits = value.to_bits() & 0x7fff_ffff;
    let (exponent, fraction) = (bits >> 23, bits & 0x7f_ffff);
    let up = exponent != 0xff && (fraction > 0x40_0000 || (fraction == 0x40_0000 && exponent > 0));
    (exponent + u32::from(up)).to_le_bytes()[0]
}

/// `2^power`, exactly; 0 below the smallest subnormal and infinity above the largest normal.
pub(crate) fn power_of_two(power: i32) -> f32 {
    match power {
        ..=-150 => 0.0,
        -149..=-127 => f32::from_bits(1 << (power + 149)),
        -126..=127 => f32::from_bits((power + 127).cast_unsigned() << 23),
        _ => f32::INFINITY,
    }
}

/// A small non-negative value as the nearest integer.
fn round_to_even(value: f32) -> u32 {
    // Adding 2^23 leaves no bits for a fraction, so the sum is rounded to an integer; its low bits
    // are that integer.
    (value + 8_388_608.0).to_bits() & 0x7f_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Value by the definition of the formats, in f64 and by powers: an independent path.
    fn by_definition(code: u8, exponent_bits: u32, bias: i32) -> f64 {
        let mantissa_bits = 7 - exponent_bits;
        let (s, rest) = (code >> 7, u32::from(code & 0x7f));
        let (e, m) = (
            rest >> mantissa_bits,
            f64::from(rest % (1 << mantissa_bits)) / f64::from(1 << mantissa_bits),
        );
        let value = if e == 0 {
            m * 2f64.powi(1 - bias)
        } else {
            (1.0 + m) * 2f64.powi(i32::try_from(e).unwrap() - bias)
        };
        if s == 1 { -value } else { value }
    }

    #[test]
    fn every_code_decodes_by_definition_and_encodes_back() {
        for code in 0..=255u8 {
            for (format, exponent_bits, bias, special) in [
                (E4M3, 4, 7, code & 0x7f == 0x7f),
                (E5M2, 5, 15, code & 0x7f >= 0x7c),
                (E4M3FNUZ, 4, 8, code == 0x80),
                (E5M2FNUZ, 5, 16, code == 0x80),
            ] {
                let value = format.decode(code);
                if special {
                    assert!(!value.is_finite(), "{format:?} {code:#x}");
                    assert_eq!(value.is_infinite(), format.bias == 15 && code & 0x7f == 0x7c);
                } else {
                    assert_eq!(
                        f64::from(value),
                        by_definition(code, exponent_bits, bias),
                        "{format:?} {code:#x}"
                    );
                    assert_eq!(format.encode(value), code, "{format:?} {code:#x}");
                }
            }
        }
    }

    #[test]
    fn every_midpoint_goes_to_the_even_code_and_its_neighbours_to_the_nearer() {
        for (format, last) in [(E4M3, 0x7eu8), (E5M2, 0x7b), (E4M3FNUZ, 0x7f), (E5M2FNUZ, 0x7f)] {
            for code in 0..last {
                let (a, b) = (format.decode(code), format.decode(code + 1));
                let middle = (a + b) / 2.0;
                assert_eq!(format.encode(middle), code + code % 2, "{format:?} {code:#x}");
                assert_eq!(format.encode(middle.next_down()), code);
                assert_eq!(format.encode(middle.next_up()), code + 1);
            }
        }
    }

    #[test]
    fn overflow_is_not_saturated() {
        // E4M3: 448 is the largest; 464 lies half-way to the code of NaN and goes to the even 448.
        assert_eq!(E4M3.encode(464.0), 0x7e);
        assert_eq!(E4M3.encode(464.1), 0x7f);
        assert_eq!(E4M3.encode(-1e9), 0xff);
        assert_eq!(E4M3.encode(f32::INFINITY), 0x7f);
        assert_eq!(E4M3.encode(f32::NAN), 0x7f);
        // E5M2: 57344 is the largest; 61440 lies half-way to 65536, which is even.
        assert_eq!(E5M2.encode(61439.0), 0x7b);
        assert_eq!(E5M2.encode(61440.0), 0x7c);
        assert_eq!(E5M2.encode(f32::NEG_INFINITY), 0xfc);
        assert_eq!(E5M2.encode(f32::NAN), 0x7f);
        // FNUZ: 240 and 57344 are the largest, and one code is NaN.
        for (value, code) in [
            (247.9, 0x7f),
            (248.0, 0x80),
            (-248.0, 0x80),
            (f32::INFINITY, 0x80),
            (f32::NAN, 0x80),
            (-0.0, 0),
            (-1e-9, 0),
        ] {
            assert_eq!(E4M3FNUZ.encode(value), code, "{value}");
        }
        assert_eq!(E5M2FNUZ.encode(1e9), 0x80);
        assert_eq!(E4M3.encode(-0.0), 0x80);
        assert_eq!(E5M2.encode(f32::from_bits(1)), 0);
    }

    #[test]
    fn exponents_alone() {
        for code in 0..255u8 {
            assert_eq!(f64::from(decode_e8m0(code)), 2f64.powi(i32::from(code) - 127));
            assert_eq!(encode_e8m0(decode_e8m0(code)), code);
        }
        assert!(decode_e8m0(255).is_nan());
        assert_eq!(encode_e8m0(0.0), 0);
        assert_eq!(encode_e8m0(-3.1), 129);
        assert_eq!(encode_e8m0(1.49), 127);
        assert_eq!(encode_e8m0(1.5), 128);
        assert_eq!(encode_e8m0(f32::INFINITY), 255);
        assert_eq!(encode_e8m0(f32::MAX), 255);
        // 1.5 times the smallest subnormal power is no tie of theirs: 2^-127 is the lowest code.
        assert_eq!(encode_e8m0(f32::from_bits(0x40_0000)), 0);
        assert_eq!(encode_e8m0(f32::from_bits(0x40_0001)), 1);
    }

    #[test]
    fn powers_of_two() {
        for power in -149..=127 {
            assert_eq!(f64::from(power_of_two(power)), 2f64.powi(power), "{power}");
        }
        assert_eq!((power_of_two(-150), power_of_two(128)), (0.0, f32::INFINITY));
    }
}
