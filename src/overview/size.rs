//! Sizes in bytes, as people write and read them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. Reads `5GB` (10^9) and `5GiB` (2^30); prints in decimal units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(
    /// Bytes.
    pub u64,
);

impl Size {
    /// Most bytes of tensors in one file, unless something else is said.
    pub const SHARD: Size = Size(5_000_000_000);
}

const UNITS: &[(&str, u64)] = &[
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("b", 1),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, bytes)| Some((lower.strip_suffix(name)?.trim_end(), *bytes)))
            .unwrap_or((lower.as_str(), 1));
        let wrong = || format!("{text:?} is no size; write 500MB, 5GB or 4GiB");
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty()
            || !digits(whole)
            || !digits(fraction)
            || fraction.len() > 9
            || (number.contains('.') && fraction.is_empty())
        {
            return Err(wrong());
        }
        let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| wrong())?);
        let scaled: u128 = format!("{whole}{fraction}").parse().map_err(|_| wrong())?;
        let bytes = scaled.checked_mul(u128::from(unit)).ok_or_else(wrong)? / scale;
        match u64::try_from(bytes) {
            Ok(0) | Err(_) => Err(wrong()),
            Ok(bytes) => Ok(Size(bytes)),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut unit = ("B", 1);
        for next in
            [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000u64)]
        {
            if self.0 >= next.1 {
                unit = next;
            }
        }
        if unit.1 == 1 {
            return f.pad(&format!("{} B", self.0));
        }
        // Three digits tell enough; the exact number is in --json.
        #[allow(clippy::cast_precision_loss)]
        let value = self.0 as f64 / unit.1 as f64;
        let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
        f.pad(&format!("{value:.digits$} {}", unit.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_decimal_and_binary_units() {
        for (text, bytes) in [
            ("5GB", 5_000_000_000),
            ("5 gib", 5 << 30),
            ("1.5MB", 1_500_000),
            ("7", 7),
            ("2k", 2000),
            ("0.5GiB", 1 << 29),
            ("12B", 12),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in ["", "GB", "-1GB", "0", "0GB", "1e9", "5 XB", "1.GB", ".5GB", "99999999999TB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn prints_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345, "12.3 kB"),
            (671_000_000_000, "671 GB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
