//! One integration binary.
// clippy spares only functions marked as tests, not what they call; and casts here are of small
// constants.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

mod cases;
mod check;
mod cli;
mod conversion;
mod corpus;
mod dequant;
mod docs;
mod durability;
mod editors;
mod execute;
mod fixtures;
mod fuzz;
mod hostile;
mod library;
mod plan;
mod propose;
mod store;
mod syntax;
mod tidy;
