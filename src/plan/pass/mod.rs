//! What statements do: functions of a context and a draft, by what they have in common.

mod heads;
mod incomplete;
mod instance;
mod leave_out;
pub(super) mod lossy;
mod matching;
pub(super) mod prefix;
mod relation;
pub(super) mod rewrite;
mod same;
pub(super) mod select;
pub(super) mod strip;
pub(super) mod tie;
pub(super) mod when;
pub(super) mod whole;

#[cfg(test)]
mod tests;

pub(super) use heads::Heads;
pub(super) use matching::Taken;
pub(super) use tie::TieState;
pub(super) use whole::Before;
