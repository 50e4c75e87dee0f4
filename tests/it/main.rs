//! One integration binary.
mod syntax;
