//! [`StoreLeaves`]: what the pieces of a plan are made of, where it lies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::execute::fuse::gather::{Leaves, outside};
use crate::key::Key;
use crate::plan::{NodeId, Op, Plan};
use crate::store::{Extent, Store};

/// Leaves in a store, read in stretches; and temporaries, in memory.
pub(super) struct StoreLeaves<'a> {
    plan: &'a Plan,
    source: &'a dyn Store,
    pub(super) temporaries: BTreeMap<NodeId, Vec<u8>>,
    /// Bytes that were read.
    pub(super) read: AtomicU64,
}

impl<'a> StoreLeaves<'a> {
    /// The leaves of a plan, no temporary evaluated yet.
    pub(super) fn new(plan: &'a Plan, source: &'a dyn Store) -> Self {
        Self { plan, source, temporaries: BTreeMap::new(), read: AtomicU64::new(0) }
    }
}

impl Leaves for StoreLeaves<'_> {
    fn read(&self, leaf: NodeId, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let Op::Source { key } = &self.plan.node(leaf).op else { return Err(outside()) };
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.source.read_at(key, offset, buffer).map_err(|error| named(error, key))
    }

    fn extent(&self, leaf: NodeId) -> Result<Option<Extent<'_>>> {
        match &self.plan.node(leaf).op {
            Op::Source { key } => self.source.extent(key).map_err(|error| named(error, key)),
            _ => Ok(None),
        }
    }

    fn bytes(&self, leaf: NodeId) -> Option<&[u8]> {
        self.temporaries.get(&leaf).map(Vec::as_slice)
    }
}

fn named(error: Error, key: &Key) -> Error {
    if error.key().is_some() { error } else { error.at_key(key.as_str()) }
}
