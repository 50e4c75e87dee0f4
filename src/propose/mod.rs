//! A first rule file from two lists of keys: which of one layout become which of the other, by
//! their words, numbers and shapes.
//!
//! Keys are gathered into families (`family`): those that differ in numbers alone. A family of
//! the one side fits one of the other if numbers and shapes allow it (`fit`); of those that fit,
//! words and neighbours decide (`pair`). What was decided by little is said in a comment
//! (`text`): shapes can't tell a permutation, or two square matrices apart.

mod family;
mod fit;
mod join;
mod pair;
mod text;
mod words;

use pair::Found;

use crate::key::Key;
use crate::tensor::{Header, Wanted};

/// Most families of one side that are compared with those of the other.
const MOST: usize = 600;

/// A rule file that was put together from two lists of keys.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Proposal {
    /// The rules, formatted, with a comment on what isn't sure.
    pub text: String,
    /// How many rules there are.
    pub rules: usize,
    /// How many of them were decided by little.
    pub unsure: usize,
    /// Keys of the checkpoint that no rule takes and the target doesn't have.
    pub left: Vec<Key>,
    /// Keys of the target that nothing becomes.
    pub missing: Vec<Key>,
}

/// Puts rules together that rewrite the keys of a checkpoint to those of a target. `name` is that
/// of the rule file.
pub fn propose(header: &Header, target: &Wanted, name: &str) -> Proposal {
    let (mut sources, mut targets) = (family::of_header(header), family::of_wanted(target));
    let mut found = Found::default();
    pair::named_alike(&mut sources, &mut targets, &mut found);
    // What numbers tell of is looked at first as lists, then one by one.
    for _ in 0..2 {
        pair::pairs(&mut sources, &mut targets, &mut found);
        join::joins(&mut sources, &mut targets, &mut found);
        sources.tell_apart();
        targets.tell_apart();
    }
    text::proposal(&sources, &targets, &found, name)
}
