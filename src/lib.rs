//! regraft rewrites state dicts.
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod key;

pub mod config;
pub mod diagnostic;
pub mod error;
pub mod tensor;

pub mod store;
pub mod syntax;

pub mod check;

pub mod plan;

pub mod execute;

pub mod checkpoint;
