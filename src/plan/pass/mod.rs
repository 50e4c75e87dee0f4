//! One file for each kind of statement.

mod heads;
mod instance;
mod leave_out;
pub(super) mod lossy;
mod prefix;
mod rewrite;
mod select;
pub(super) mod strip;
mod tie;
mod when;

pub(super) use heads::Heads;
pub(super) use tie::TieState;
