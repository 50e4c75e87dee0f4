//! [`FileLeaves`]: leaves that the system can copy by itself, from file to file.

use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::execute::fuse::compile::Leaf;
use crate::execute::fuse::gather::Leaves;
use crate::execute::leaves::StoreLeaves;
use crate::store::{Blob, Extent, Hints, Range};

/// Leaves that are written to files: some of them lie in files themselves.
pub(in crate::execute) trait FileLeaves: Leaves {
    /// How they like to be read.
    fn hints(&self) -> Hints;

    /// The blob that a leaf lies in, and where in it the leaf begins, in bytes; `None` if it is in
    /// memory.
    fn place(&self, leaf: Leaf) -> Option<(Blob, u64)>;

    /// Reads ranges of blobs.
    fn fetch(&self, ranges: &mut [Range<'_>]) -> Result<()>;

    /// Reads bytes of a blob, of any length, and hands them on as they come.
    fn stream(
        &self,
        blob: Blob,
        stretch: (u64, u64),
        buffer: &mut [u8],
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()>;

    /// Where a leaf lies in a file, from which the system may copy; `None` if it isn't in one.
    fn extent(&self, leaf: Leaf) -> Result<Option<Extent<'_>>>;
}

impl FileLeaves for StoreLeaves<'_> {
    fn hints(&self) -> Hints {
        self.source.hints()
    }

    fn place(&self, leaf: Leaf) -> Option<(Blob, u64)> {
        self.part(leaf).map(|(part, _)| (part.blob, part.offset))
    }

    fn fetch(&self, ranges: &mut [Range<'_>]) -> Result<()> {
        let bytes = ranges.iter().map(|range| range.buffer.len() as u64).sum();
        self.read.fetch_add(bytes, Ordering::Relaxed);
        self.source.read(ranges)
    }

    fn stream(
        &self,
        blob: Blob,
        stretch: (u64, u64),
        buffer: &mut [u8],
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.read.fetch_add(stretch.1, Ordering::Relaxed);
        self.source.stream(blob, stretch, buffer, take)
    }

    fn extent(&self, leaf: Leaf) -> Result<Option<Extent<'_>>> {
        let (Some(files), Some((part, key))) = (self.source.files(), self.part(leaf)) else {
            return Ok(None);
        };
        let dtype = self.plan.node(leaf.node).info.dtype;
        Extent::of(files, part, dtype).map(Some).map_err(|error| error.or_at_key(key))
    }
}
