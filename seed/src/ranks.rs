//! Rank and world size of a distributed run, from the environment: `RANK` and `WORLD_SIZE`, as
//! `torchrun` sets them.
//!
//! There is no process group to ask: what the environment says stands. Values are taken as text, so
//! that a test or a command line can give them. This is what a reference does; which process
//! regraft itself is, [`Rank::resolve`](regraft::execute::Rank::resolve) decides.

use super::Compat;
use super::reference::{Raised, int};

/// The rank that the text of `RANK` gives; 0 where it isn't set.
///
/// # Errors
/// In strict mode unless the text is decimal digits; the reference takes whatever Python's `int`
/// does, negative ranks too.
pub fn get_rank_safe(rank: Option<&str>, compat: Compat) -> Result<i128, Raised> {
    number("RANK", rank, 0, compat)
}

/// The world size that the text of `WORLD_SIZE` gives; 1 where it isn't set.
///
/// # Errors
/// As [`get_rank_safe`]; in strict mode for 0, too.
pub fn get_world_size_safe(world_size: Option<&str>, compat: Compat) -> Result<i128, Raised> {
    match number("WORLD_SIZE", world_size, 1, compat) {
        Ok(0) if compat == Compat::Strict => {
            Err(Raised::new("ValueError", "WORLD_SIZE is 0: at least one process is running"))
        }
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

fn number(name: &str, text: Option<&str>, default: u64, compat: Compat) -> Result<i128, Raised> {
    match (compat, text) {
        (Compat::Reference, Some(text)) => int(text),
        _ => strict(name, text, default).map(i128::from),
    }
}

fn strict(name: &str, text: Option<&str>, default: u64) -> Result<u64, Raised> {
    let Some(text) = text else { return Ok(default) };
    let number =
        if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None };
    number
        .ok_or_else(|| Raised::new("ValueError", format!("{name} is {text:?}, not a whole number")))
}

#[cfg(test)]
mod tests {
    use super::*;

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
