//! regraft rewrites state dicts: rules say once how the keys and tensors of one checkpoint layout
//! correspond to those of another, and the engine checks them, plans them against a checkpoint's
//! headers, and applies them, to files or in memory, in either direction.
//!
//! Modules are listed in reading order; each uses only those above it.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]
// Some private parts serve files only. What serves nothing, the build with files tells.
#![cfg_attr(not(feature = "files"), allow(dead_code))]

#[cfg(all(feature = "files", not(unix)))]
compile_error!(
    "the feature `files` needs Unix: positioned reads and atomic renames; without it \
     (`default-features = false`) regraft builds anywhere"
);

pub mod key;

pub mod config;
pub mod diagnostic;
pub mod error;
mod seal;
pub mod tensor;

pub mod store;
pub mod syntax;

pub mod check;

pub mod plan;

pub mod execute;

pub mod library;

pub mod propose;

pub mod editor;

pub mod overview;

#[cfg(feature = "files")]
pub mod conversion;

pub use check::{Direction, Rules};
#[cfg(feature = "files")]
pub use conversion::Conversion;
pub use error::Error;
pub use library::{Failure, Route, compile, load};
pub use plan::{Plan, PlanOptions, plan};

/// README's program is compiled and run.
#[cfg(all(doctest, feature = "files"))]
#[doc = include_str!("../README.md")]
mod readme {}

/// And so is the one on parts of tensors.
#[cfg(all(doctest, feature = "files"))]
#[doc = include_str!("../docs/sharded.md")]
mod sharded {}
