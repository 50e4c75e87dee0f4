//! [`StateDict`]: tensors in memory.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use crate::key::Key;
use crate::tensor::TensorView;

/// Key -> tensor, in order, with metadata.
#[derive(Clone, Default)]
pub struct StateDict {
    /// The tensors.
    pub tensors: IndexMap<Key, TensorView>,
    /// `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}
