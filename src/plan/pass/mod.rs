//! One file for each kind of statement.

mod instance;
mod prefix;
mod rewrite;
mod select;
mod strip;
mod tie;
