//! From checked rules and headers to a [`Plan`]: pure, no I/O.

mod node;

pub use node::{DropReason, Dropped, Node, NodeId, Op, Plan, RuleId, RuleInfo, Target};
