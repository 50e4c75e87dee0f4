//! [`RankFiles`]: how the files of ranks are named, which hold equal keys.

use std::fmt;

/// How the files of ranks are named, `consolidated.{r}.pth`: the number of the rank, how it is
/// written, and what stands around it. A name may have more numbers than that,
/// `layer_{l}-model_{r}-model_states.pt`.
///
/// Such files hold the same keys, so the numbers stand before each key, the rank's first:
/// `3.norm.weight` is `norm.weight` of `consolidated.03.pth`, and `1.4.norm.weight` that of
/// `layer_04-model_01-model_states.pt`. What a file holds its content says, so a name with the
/// ending `.safetensors` is as good as the one that is written, which is also how files are named
/// that are made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RankFiles {
    /// The numbers in the order of the name, each with the text before it.
    numbers: Vec<FileNumber>,
    after: String,
}

/// A number in the name of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FileNumber {
    before: String,
    /// At least so many digits are written.
    digits: usize,
    is_rank: bool,
}

/// The ending of files that regraft writes.
const WRITTEN: &str = ".safetensors";

/// Digits of a number that doesn't say how many: what Meta, Megatron and DeepSpeed write.
const DIGITS: usize = 2;

/// Most digits that may be asked for, which every number of a rank fits.
const MOST_DIGITS: usize = 9;

impl RankFiles {
    /// From a name that has `{capture}` once, or `{capture:000}` with as many zeros as the number
    /// has digits at least. Other numbers are written so too, under names of their own.
    ///
    /// # Errors
    /// Why no file can be named so.
    pub fn parse(name: &str, capture: &str) -> Result<Self, NoRankFiles> {
        let numberless = || NoRankFiles::Numberless { capture: capture.to_owned() };
        let (mut numbers, mut names, mut rest) = (Vec::new(), Vec::new(), name);
        while let Some((before, inside)) = rest.split_once('{') {
            let (inside, after) = inside.split_once('}').ok_or_else(numberless)?;
            let (inside, digits) = match inside.split_once(':') {
                Some((inside, zeros)) => (inside.trim(), zeros.trim()),
                None => (inside.trim(), ""),
            };
            let is_word = |text: &str| {
                text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            };
            let unplain = digits.bytes().any(|byte| byte != b'0') || digits.len() > MOST_DIGITS;
            if unplain || before.contains('}') || !is_word(inside) || names.contains(&inside) {
                return Err(numberless());
            }
            names.push(inside);
            let digits = if digits.is_empty() { DIGITS } else { digits.len() };
            let before = before.to_owned();
            numbers.push(FileNumber { before, digits, is_rank: inside == capture });
            rest = after;
        }
        if !names.contains(&capture) || rest.contains('}') {
            return Err(numberless());
        }
        if name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(NoRankFiles::Elsewhere);
        }
        let is_digit = |c: char| c.is_ascii_digit();
        let mut between = numbers.iter().skip(1).map(|number| &number.before);
        let ends = numbers.iter().any(|number| number.before.ends_with(is_digit));
        if ends
            || rest.starts_with(is_digit)
            || between.any(|text| text.is_empty() || text.starts_with(is_digit))
        {
            return Err(NoRankFiles::AmongDigits);
        }
        Ok(Self { numbers, after: rest.to_owned() })
    }

    /// The numbers of the file that is named so, the rank's first.
    pub fn numbers(&self, name: &str) -> Option<Vec<u64>> {
        let (mut rest, mut found) = (name, Vec::with_capacity(self.numbers.len()));
        for number in &self.numbers {
            rest = rest.strip_prefix(number.before.as_str())?;
            let end = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (digits, after) = rest.split_at(end);
            found.insert(if number.is_rank { 0 } else { found.len() }, digits.parse().ok()?);
            rest = after;
        }
        let is_so = rest == self.after || rest.strip_suffix(WRITTEN) == Some(self.stem());
        is_so.then_some(found)
    }

    /// The numbers before a key, and the key that it has in its file; `None` if there are too few.
    pub fn of<'k>(&self, key: &'k str) -> Option<(Vec<u64>, &'k str)> {
        let (mut rest, mut found) = (key, Vec::with_capacity(self.numbers.len()));
        for _ in &self.numbers {
            let (number, after) = rank_of(rest)?;
            found.push(number);
            rest = after;
        }
        Some((found, rest))
    }

    /// The name of a file that is written, of its numbers, the rank's first.
    pub fn name(&self, numbers: &[u64]) -> String {
        let (rank, mut others) = (numbers.first(), numbers.iter().skip(1));
        let mut name = String::new();
        for FileNumber { before, digits, is_rank } in &self.numbers {
            let number = if *is_rank { rank } else { others.next() }.copied().unwrap_or_default();
            name.push_str(&format!("{before}{number:0digits$}"));
        }
        name + self.stem() + WRITTEN
    }

    /// What the keys of a file begin with, of its numbers, the rank's first: what
    /// [`RankFiles::of`] reads.
    pub fn before(numbers: &[u64]) -> String {
        numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
    }

    /// What a key begins with: a zero for each number.
    pub fn example(&self) -> String {
        Self::before(&vec![0; self.numbers.len()])
    }

    /// What follows the numbers, without the ending of the file.
    fn stem(&self) -> &str {
        self.after.rsplit_once('.').map_or("", |(stem, _)| stem)
    }
}

/// Why files of ranks can't be named so; as text, what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoRankFiles {
    /// The name hasn't the number in it, once and as numbers are written.
    Numberless {
        /// The capture that stands for it.
        capture: String,
    },
    /// It names a file of another directory, or a hidden one.
    Elsewhere,
    /// A number stands beside other digits, or another number.
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
            Self::AmongDigits => f.write_str(
                "part numbers from each other and from other digits, or they can't be told apart",
            ),
        }
    }
}

impl std::error::Error for NoRankFiles {}

impl fmt::Display for RankFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.numbers.iter().try_for_each(|number| write!(f, "{}{{…}}", number.before))?;
        f.write_str(&self.after)
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
            assert_eq!(meta.numbers(name), rank.map(|rank| vec![rank]), "{name}");
        }
        assert_eq!(meta.name(&[0]), "consolidated.00.safetensors");
        assert_eq!(meta.name(&[123]), "consolidated.123.safetensors");
        for (text, name) in [
            ("mp_rank_{r}_model_states.pt", "mp_rank_03_model_states.safetensors"),
            ("rank{ r: 0 }.safetensors", "rank3.safetensors"),
            ("{r:000}.pt", "003.safetensors"),
            ("shard-{r}", "shard-03.safetensors"),
        ] {
            let files = RankFiles::parse(text, "r").unwrap();
            assert_eq!(files.name(&[3]), name);
            assert_eq!(files.numbers(name), Some(vec![3]), "{text}");
        }
    }

    #[test]
    fn a_name_may_have_several_numbers_and_the_ranks_comes_first() {
        let files = RankFiles::parse("layer_{l}-model_{r:000}-model_states.pt", "r").unwrap();
        for (name, numbers) in [
            ("layer_04-model_01-model_states.pt", Some(vec![1, 4])),
            ("layer_4-model_012-model_states.safetensors", Some(vec![12, 4])),
            ("layer_04-model_01-optim_states.pt", None),
            ("layer_04-model_-model_states.pt", None),
            ("mp_rank_01_model_states.pt", None),
        ] {
            assert_eq!(files.numbers(name), numbers, "{name}");
        }
        assert_eq!(files.name(&[1, 4]), "layer_04-model_001-model_states.safetensors");
        assert_eq!(files.of("1.4.norm.weight"), Some((vec![1, 4], "norm.weight")));
        assert_eq!(files.of("1.norm.weight"), None);
        assert_eq!(files.to_string(), "layer_{…}-model_{…}-model_states.pt");
        assert_eq!(files.example(), "0.0");
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
            "{l}{r}.pth",
            "{l}1{r}.pth",
            "{l}1x{r}.pth",
            "{l}-{l}-{r}.pth",
            "{0}-{r}.pth",
            "}{r}.pth",
            "{r}}.pth",
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
