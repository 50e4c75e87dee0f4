//! The command line: wiring, exit codes, bad input, and whole conversions.

mod bad_input;
mod commands;
mod conversion;
mod lsp;
mod names;
mod new;
mod pages;
mod parts;
mod ranks;
mod remote;
mod sandbox;
mod sources;
mod ties;
mod torch;
