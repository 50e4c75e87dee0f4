//! [`StoreLeaves`]: what the pieces of a plan are made of, where it lies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::execute::fuse::compile::{Leaf, Program, SourceBoxes};
use crate::execute::fuse::gather::{Leaves, outside};
use crate::key::Key;
use crate::plan::{NodeId, Op, Plan};
use crate::store::{Range, Store, StoredBox};

/// Leaves in a store, read in stretches; and temporaries, in memory.
pub(in crate::execute) struct StoreLeaves<'a> {
    pub(in crate::execute) plan: &'a Plan,
    pub(in crate::execute) source: &'a dyn Store,
    boxes: &'a SourceBoxes,
    pub(in crate::execute) temporaries: BTreeMap<NodeId, Vec<u8>>,
    /// Bytes that were read.
    pub(in crate::execute) read: AtomicU64,
}

impl<'a> StoreLeaves<'a> {
    /// The leaves of a program, no temporary evaluated yet.
    pub(in crate::execute) fn new(
        plan: &'a Plan,
        source: &'a dyn Store,
        program: &'a Program,
    ) -> Self {
        let (temporaries, read) = (BTreeMap::new(), AtomicU64::new(0));
        Self { plan, source, boxes: &program.boxes, temporaries, read }
    }

    /// The box that a leaf is, and the key of its tensor.
    pub(in crate::execute) fn part(&self, leaf: Leaf) -> Option<(&StoredBox, &Key)> {
        let Op::Source { key } = &self.plan.node(leaf.node).op else { return None };
        let boxes = self.boxes.get(&leaf.node)?;
        Some((boxes.get(leaf.part? as usize)?, key))
    }
}

impl Leaves for StoreLeaves<'_> {
    fn read(&self, leaf: Leaf, ranges: &mut [(u64, &mut [u8])]) -> Result<()> {
        let (part, key) = self.part(leaf).ok_or_else(outside)?;
        let mut asked = Vec::with_capacity(ranges.len());
        for (offset, buffer) in ranges {
            self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            let offset = part.offset.checked_add(*offset).ok_or_else(outside)?;
            asked.push(Range { blob: part.blob, offset, buffer });
        }
        self.source.read(&mut asked).map_err(|error| error.or_at_key(key))
    }

    fn bytes(&self, leaf: Leaf) -> Option<&[u8]> {
        match leaf.part {
            Some(_) => None,
            None => self.temporaries.get(&leaf.node).map(Vec::as_slice),
        }
    }
}
