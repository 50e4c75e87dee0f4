//! [`TieFact`]: what became of a tie, as a plan remembers it.

use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::plan::node::RuleId;

/// What became of one key of a `tie`. Keys are as they were when it applied; rules after it may
/// have renamed them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TieFact {
    /// The `tie`.
    pub rule: RuleId,
    /// The key that is tied.
    pub target: Key,
    /// The key that it is tied to.
    pub source: Key,
    /// The checkpoint's tensor behind the target, if it is one as it is.
    pub target_origin: Option<Key>,
    /// The checkpoint's tensor behind the source, if it is one as it is.
    pub source_origin: Option<Key>,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: TieOutcome,
}

/// What became of a tie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum TieOutcome {
    /// The target is one tensor with the source now.
    Made,
    /// Both are there and equal byte for byte, and stay two.
    Equal,
    /// Both are there and differ, and stay two.
    Differs {
        /// How many bytes differ; `None` if dtype or shape do.
        bytes: Option<u64>,
    },
    /// Both are there, and their bytes were not compared.
    Undecided,
    /// The target is missing, and this source can't stand for it.
    Refused {
        /// Why.
        why: String,
    },
    /// The target and every source are missing: what the model holds stays.
    Fallback,
    /// Saving: the target is the source, and was left out.
    LeftOut,
    /// Both are there, and the tie's condition doesn't hold.
    NotTied,
}
