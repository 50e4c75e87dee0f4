//! [`Report`]: what carrying out a plan did.

use serde::Serialize;

/// What carrying out a plan did. Counts are of targets, sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Targets that share a tensor: in memory, views of a source or of another target; in files, ties that were not written.
    pub aliased: u64,
    /// Targets whose elements were only moved.
    pub copied: u64,
    /// Targets whose elements were computed.
    pub transformed: u64,
    /// Size of the targets that share.
    pub bytes_aliased: u64,
    /// Size of the targets that were moved.
    pub bytes_copied: u64,
    /// Size of the targets that were computed.
    pub bytes_transformed: u64,
    /// Bytes read from the source. Small gaps between elements that are needed are read through, and counted.
    pub bytes_read: u64,
    /// Bytes written, headers and index included; 0 in memory.
    pub bytes_written: u64,
    /// Nodes that had to be evaluated whole because they could not be fused.
    pub temporaries: u64,
    /// Size of those.
    pub temporary_bytes: u64,
    /// Files written, by name, in order; a single file by its own name.
    pub files: Vec<String>,
}
