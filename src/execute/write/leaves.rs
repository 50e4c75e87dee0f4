//! [`FileLeaves`]: leaves that the system can copy by itself, from file to file.

use crate::error::Result;
use crate::execute::fuse::compile::Leaf;
use crate::execute::fuse::gather::Leaves;
use crate::execute::leaves::StoreLeaves;
use crate::store::{Extent, Hints};

/// Leaves that are written to files: some of them lie in files themselves.
pub(in crate::execute) trait FileLeaves: Leaves {
    /// How they like to be read.
    fn hints(&self) -> Hints;

    /// Where a leaf lies in a file, from which the system may copy; `None` if it isn't in one.
    fn extent(&self, leaf: Leaf) -> Result<Option<Extent<'_>>>;
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
