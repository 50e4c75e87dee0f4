//! One integration binary.

mod seed;
