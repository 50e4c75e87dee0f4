//! [`RankFiles`]: how the files of ranks are named, which hold equal keys.

use std::fmt;

/// How the files of ranks are named, `consolidated.{r}.pth`: what stands before the number of the
/// rank, how it is written, and what follows.
///
/// Such files hold the same keys, so the number stands before each key: `3.norm.weight` is
/// `norm.weight` of `consolidated.03.pth`. What a file holds its content says, so a name with the
/// ending `.safetensors` is as good as the one that is written, which is also how files are named
/// that are made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RankFiles {
    before: String,
    after: String,
    /// At least so many digits are written.
    digits: usize,
}

/// The ending of files that regraft writes.
const WRITTEN: &str = ".safetensors";

/// Digits of a number that doesn't say how many: what Meta, Megatron and DeepSpeed write.
const DIGITS: usize = 2;

/// Most digits that may be asked for, which every number of a rank fits.
const MOST_DIGITS: usize = 9;

impl RankFiles {
    /// From a name that has `{capture}` once, or `{capture:000}` with as many zeros as the number
    /// has digits at least.
    ///
    /// # Errors
    /// Why no file can be named so.
    pub fn parse(name: &str, capture: &str) -> Result<Self, NoRankFiles> {
        let numberless = || NoRankFiles::Numberless { capture: capture.to_owned() };
        let (before, rest) = name.split_once('{').ok_or_else(numberless)?;
        let (inside, after) = rest.split_once('}').ok_or_else(numberless)?;
        let (inside, digits) = match inside.split_once(':') {
            Some((inside, zeros)) => (inside, zeros.trim()),
            None => (inside, ""),
        };
        let unplain = digits.bytes().any(|byte| byte != b'0') || digits.len() > MOST_DIGITS;
        if inside.trim() != capture || unplain || after.contains(['{', '}']) {
            return Err(numberless());
        }
        if name.contains(['/', '\\']) || before.starts_with('.') {
            return Err(NoRankFiles::Elsewhere);
        }
        let is_digit = |c: char| c.is_ascii_digit();
        if before.ends_with(is_digit) || after.starts_with(is_digit) {
            return Err(NoRankFiles::AmongDigits);
        }
        let digits = if digits.is_empty() { DIGITS } else { digits.len() };
        Ok(Self { before: before.to_owned(), after: after.to_owned(), digits })
    }

    /// The number of the rank whose file is named so.
    pub fn rank(&self, name: &str) -> Option<u64> {
        let rest = name.strip_prefix(self.before.as_str())?;
        let end = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = rest.split_at(end);
        if rest != self.after && rest.strip_suffix(WRITTEN) != Some(self.stem()) {
            return None;
        }
        number.parse().ok()
    }

    /// The name of a rank's file that is written.
    pub fn name(&self, rank: u64) -> String {
        format!("{}{rank:0digits$}{}{WRITTEN}", self.before, self.stem(), digits = self.digits)
    }

    /// What follows the number, without the ending of the file.
    fn stem(&self) -> &str {
        self.after.rsplit_once('.').map_or("", |(stem, _)| stem)
    }
}

/// Why files of ranks can't be named so; as text, what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoRankFiles {
    /// The name hasn't the number in it, once and as it is written.
    Numberless {
        /// The capture that stands for it.
        capture: String,
    },
    /// It names a file of another directory, or a hidden one.
    Elsewhere,
    /// The number stands beside other digits.
    AmongDigits,
}

impl fmt::Display for NoRankFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numberless { capture } => {
                write!(f, "write `{{{capture}}}` once, as in `consolidated.{{{capture}}}.pth`")
            }
            Self::Elsewhere => {
                f.write_str("name a file of the directory itself, which doesn't begin with a dot")
            }
            Self::AmongDigits => {
                f.write_str("part the number from other digits, which can't be told from it")
            }
        }
    }
}

impl std::error::Error for NoRankFiles {}

impl fmt::Display for RankFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{{…}}{}", self.before, self.after)
    }
}

/// The number before a key, as a pattern's index reads it, and what follows.
pub fn rank_of(key: &str) -> Option<(u64, &str)> {
    let (number, rest) = key.split_once('.')?;
    let plain = number.bytes().all(|byte| byte.is_ascii_digit())
        && (number == "0" || !number.starts_with('0'));
    Some((number.parse().ok().filter(|_| plain)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_give_numbers_and_numbers_names() {
        let meta = RankFiles::parse("consolidated.{r}.pth", "r").unwrap();
        for (name, rank) in [
            ("consolidated.00.pth", Some(0)),
            ("consolidated.7.pth", Some(7)),
            ("consolidated.0012.safetensors", Some(12)),
            ("consolidated.00.bin", None),
            ("consolidated..pth", None),
            ("consolidated.x.pth", None),
            ("consolidated.1", None),
            ("consolidated.-1.pth", None),
            ("xconsolidated.00.pth", None),
            ("consolidated.00.pth.safetensors", None),
            ("consolidated.99999999999999999999.pth", None),
        ] {
            assert_eq!(meta.rank(name), rank, "{name}");
        }
        assert_eq!(meta.name(0), "consolidated.00.safetensors");
        assert_eq!(meta.name(123), "consolidated.123.safetensors");
        for (text, name) in [
            ("mp_rank_{r}_model_states.pt", "mp_rank_03_model_states.safetensors"),
            ("rank{ r: 0 }.safetensors", "rank3.safetensors"),
            ("{r:000}.pt", "003.safetensors"),
            ("shard-{r}", "shard-03.safetensors"),
        ] {
            let files = RankFiles::parse(text, "r").unwrap();
            assert_eq!(files.name(3), name);
            assert_eq!(files.rank(name), Some(3), "{text}");
        }
    }

    #[test]
    fn what_names_no_file_is_refused() {
        for text in [
            "",
            "consolidated.pth",
            "consolidated.{x}.pth",
            "{r}.{r}",
            "a{r",
            "a{r:1}",
            "a{r:0000000000}",
            "a/{r}.pth",
            "..\\{r}.pth",
            ".{r}.pth",
            "a1{r}.pth",
            "{r}1.pth",
        ] {
            assert!(RankFiles::parse(text, "r").is_err(), "{text}");
        }
    }

    #[test]
    fn the_number_of_a_key_is_plain() {
        assert_eq!(rank_of("3.norm.weight"), Some((3, "norm.weight")));
        assert_eq!(rank_of("0.a"), Some((0, "a")));
        for key in ["03.a", "a.3", "3", ".a", "-1.a", "99999999999999999999.a"] {
            assert_eq!(rank_of(key), None, "{key}");
        }
    }
}
