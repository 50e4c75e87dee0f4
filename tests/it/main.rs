//! One integration binary.
// clippy spares only functions marked as tests, not what they call; and casts here are of small
// constants.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

mod cases;
mod cli;
mod conversion;
mod corpus;
mod costly;
mod detect;
mod docs;
mod durability;
mod exclusion;
mod execute;
mod fixtures;
mod fuzz;
mod hostile;
mod invert;
mod library;
mod ops;
mod patterns;
mod proofs;
mod ranks;
mod stages;
mod store;
mod syntax;
mod tidy;
mod ties;
mod trace;
mod wrappers;
