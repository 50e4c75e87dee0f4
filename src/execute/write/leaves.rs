//! [`StoreLeaves`]: what the pieces of a plan are made of, where it lies.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::execute::fuse::compile::{Leaf, Program};
use crate::execute::fuse::gather::{Leaves, outside};
use crate::key::Key;
use crate::plan::{NodeId, Op, Plan};
use crate::store::{Boxes, Extent, Hints, Range, Store, StoredBox};

/// Leaves that are written to files: some of them lie in files themselves.
pub(in crate::execute) trait FileLeaves: Leaves {
    /// How they like to be read.
    fn hints(&self) -> Hints;

    /// Where a leaf lies in a file, from which the system may copy; `None` if it isn't in one.
    fn extent(&self, leaf: Leaf) -> Result<Option<Extent<'_>>>;
}

/// Leaves in a store, read in stretches; and temporaries, in memory.
pub(super) struct StoreLeaves<'a> {
    plan: &'a Plan,
    source: &'a dyn Store,
    boxes: &'a HashMap<NodeId, Boxes>,
    pub(super) temporaries: BTreeMap<NodeId, Vec<u8>>,
    /// Bytes that were read.
    pub(super) read: AtomicU64,
}

impl<'a> StoreLeaves<'a> {
    /// The leaves of a program, no temporary evaluated yet.
    pub(super) fn new(plan: &'a Plan, source: &'a dyn Store, program: &'a Program) -> Self {
        let (temporaries, read) = (BTreeMap::new(), AtomicU64::new(0));
        Self { plan, source, boxes: &program.boxes, temporaries, read }
    }

    /// The box that a leaf is, and the key of its tensor.
    fn part(&self, leaf: Leaf) -> Option<(&StoredBox, &Key)> {
        let Op::Source { key } = &self.plan.node(leaf.node).op else { return None };
        let boxes = self.boxes.get(&leaf.node)?;
        Some((boxes.get(leaf.part? as usize)?, key))
    }
}

impl FileLeaves for StoreLeaves<'_> {
    fn hints(&self) -> Hints {
        self.source.hints()
    }

    fn extent(&self, leaf: Leaf) -> Result<Option<Extent<'_>>> {
        let (Some(files), Some((part, key))) = (self.source.files(), self.part(leaf)) else {
            return Ok(None);
        };
        let dtype = self.plan.node(leaf.node).info.dtype;
        Extent::of(files, part, dtype).map(Some).map_err(|error| error.or_at_key(key))
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
