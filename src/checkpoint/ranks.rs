//! Rank and world size of a distributed run, from the environment: `RANK` and `WORLD_SIZE`, as `torchrun` sets them.
//!
//! There is no process group to ask: what the environment says stands. Values are taken as text, so that a test or a command line can give them.

use super::Compat;
use super::reference::{Raised, int};
use crate::error::{Error, ErrorKind};

/// A place in a distributed run: `rank` of `world_size` processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which process, from 0.
    pub rank: u64,
    /// How many there are, at least 1.
    pub world_size: u64,
}

impl Place {
    /// From what the caller says, else from the environment, else the only process there is.
    ///
    /// # Errors
    /// If a variable is no whole number, there are no processes, or the rank is beyond the last.
    pub fn resolve(rank: Option<u64>, world_size: Option<u64>) -> Result<Self, Error> {
        let (rank_text, size_text) = (variable("RANK")?, variable("WORLD_SIZE")?);
        Self::from_values(rank, world_size, rank_text.as_deref(), size_text.as_deref())
    }

    fn from_values(rank: Option<u64>, world_size: Option<u64>, rank_text: Option<&str>, size_text: Option<&str>) -> Result<Self, Error> {
        let known = |raised: Raised| Error::new(ErrorKind::Unsupported, raised.message);
        let rank = rank.map_or_else(|| strict("RANK", rank_text, 0), Ok).map_err(known)?;
        let world_size = world_size.map_or_else(|| strict("WORLD_SIZE", size_text, 1), Ok).map_err(known)?;
        if rank >= world_size {
            let message = format!("rank {rank} is beyond a world of {world_size}: ranks count from 0");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Ok(Self { rank, world_size })
    }

    /// Whether it is the main process.
    pub fn is_rank_0(self) -> bool {
        self.rank == 0
    }
}

/// The rank that the text of `RANK` gives; 0 where it isn't set. [`variable`] reads it.
///
/// # Errors
/// In strict mode unless the text is decimal digits; the reference takes whatever Python's `int` does, negative ranks too.
pub fn get_rank_safe(rank: Option<&str>, compat: Compat) -> Result<i128, Raised> {
    number("RANK", rank, 0, compat)
}

/// The world size that the text of `WORLD_SIZE` gives; 1 where it isn't set.
///
/// # Errors
/// As [`get_rank_safe`]; in strict mode for 0, too.
pub fn get_world_size_safe(world_size: Option<&str>, compat: Compat) -> Result<i128, Raised> {
    match number("WORLD_SIZE", world_size, 1, compat) {
        Ok(0) if compat == Compat::Strict => Err(Raised::new("ValueError", "WORLD_SIZE is 0: at least one process is running")),
        other => other,
    }
}

/// Whether [`get_rank_safe`] gives 0.
///
/// # Errors
/// As [`get_rank_safe`].
pub fn is_rank_0(rank: Option<&str>, compat: Compat) -> Result<bool, Raised> {
    get_rank_safe(rank, compat).map(|rank| rank == 0)
}

/// A variable of the environment; `None` where it isn't set.
///
/// # Errors
/// If it is no Unicode.
pub fn variable(name: &str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Error::new(ErrorKind::Unsupported, format!("{name} is not Unicode"))),
    }
}

fn number(name: &str, text: Option<&str>, default: u64, compat: Compat) -> Result<i128, Raised> {
    match (compat, text) {
        (Compat::Reference, Some(text)) => int(text),
        _ => strict(name, text, default).map(i128::from),
    }
}

fn strict(name: &str, text: Option<&str>, default: u64) -> Result<u64, Raised> {
    let Some(text) = text else { return Ok(default) };
    let number = if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None };
    number.ok_or_else(|| Raised::new("ValueError", format!("{name} is {text:?}, not a whole number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_caller_says_comes_first() {
        let place = Place::from_values(Some(2), None, Some("1"), Some("4")).unwrap();
        assert_eq!(place, Place { rank: 2, world_size: 4 });
        assert_eq!(Place::from_values(None, None, None, None).unwrap(), Place { rank: 0, world_size: 1 });
    }

    #[test]
    fn a_place_is_in_its_world() {
        for (rank, size) in [("1", "1"), ("0", "0"), ("-1", "2"), ("", "2"), ("0", "two"), ("99999999999999999999", "2")] {
            assert!(Place::from_values(None, None, Some(rank), Some(size)).is_err(), "{rank:?} of {size:?}");
        }
    }

    #[test]
    fn strict_ranks_are_digits() {
        for text in [" 3 ", "1_0", "+2", "-1", "٣"] {
            assert!(get_rank_safe(Some(text), Compat::Strict).is_err(), "{text:?}");
            assert!(get_rank_safe(Some(text), Compat::Reference).is_ok(), "{text:?}");
        }
        assert_eq!(get_world_size_safe(None, Compat::Strict), Ok(1));
        assert_eq!(get_world_size_safe(Some("0"), Compat::Reference), Ok(0));
        assert!(get_world_size_safe(Some("0"), Compat::Strict).is_err());
        assert_eq!(is_rank_0(Some("007"), Compat::Strict), Ok(false));
    }
}
