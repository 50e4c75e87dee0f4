//! Python's `int(text)`: base 10, with blanks around, a sign, single underscores, and the digits of
//! any script.
//!
//! Source: the Python language reference, `int` and the grammar of integer literals; digits are the
//! Unicode category Nd, version 14.

use super::Raised;
use super::text::repr;

/// The zeros of Unicode's decimal digits; each begins a run of ten.
#[rustfmt::skip]
const ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6, 0xE50, 0xED0, 0xF20, 0x1040, 0x1090,
    0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0,
    0xFF10, 0x104A0, 0x10D30, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0, 0x11730, 0x118E0, 0x11950,
    0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0, 0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
];

/// `int(text)`.
///
/// # Errors
/// A `ValueError` where Python raises one, and an `OverflowError`, which Python doesn't raise,
/// beyond 128 bits.
pub fn int(text: &str) -> Result<i128, Raised> {
    let invalid = || {
        Raised::new(
            "ValueError",
            format!("invalid literal for int() with base 10: {}", repr(text, 200)),
        )
    };
    let trimmed = text.trim_matches(char::is_whitespace);
    let (negative, digits) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let mut value: i128 = 0;
    let mut after_digit = false;
    for c in digits.chars() {
        match digit(c) {
            Some(digit) => {
                let digit = i128::from(digit);
                let next = value.checked_mul(10).and_then(|value| {
                    if negative { value.checked_sub(digit) } else { value.checked_add(digit) }
                });
                value =
                    next.ok_or_else(|| Raised::new("OverflowError", "an integer beyond 128 bits"))?;
                after_digit = true;
            }
            None if c == '_' && after_digit => after_digit = false,
            None => return Err(invalid()),
        }
    }
    // Also false after a trailing underscore.
    if after_digit { Ok(value) } else { Err(invalid()) }
}

fn digit(c: char) -> Option<u32> {
    let code = u32::from(c);
    let run = ZEROS.partition_point(|zero| *zero <= code);
    let zero = ZEROS.get(run.checked_sub(1)?)?;
    (code - zero < 10).then_some(code - zero)
}
