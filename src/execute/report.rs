//! [`Report`]: what carrying out a plan did.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::OVERFLOW;
use crate::key::Key;

/// How bytes of tensors get to where they belong, cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Lane {
    /// They stay: only the header of their file is written anew.
    InPlace,
    /// They stay, but move within their file: the filesystem inserts room for a longer header.
    Grown,
    /// The filesystem shares their blocks between both files.
    Shared,
    /// The system copies them between files.
    Copied,
    /// They are read, put in order or computed, and written.
    Streamed,
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Lane::InPlace => "in place",
            Lane::Grown => "in place, header grown",
            Lane::Shared => "shared blocks",
            Lane::Copied => "copied by the system",
            Lane::Streamed => "streamed",
        })
    }
}

/// What carrying out a plan did. Counts are of targets, sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Targets that share a tensor: in memory, views of a source or of another target; in files,
    /// ties that were not written.
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
    /// Bytes read from the source. Small gaps between elements that are needed are read through,
    /// and counted.
    pub bytes_read: u64,
    /// Bytes written, headers and index included; 0 in memory.
    pub bytes_written: u64,
    /// Nodes that had to be evaluated whole because they could not be fused.
    pub temporaries: u64,
    /// Size of those.
    pub temporary_bytes: u64,
    /// Bytes of tensors by the lane that they took.
    pub lanes: BTreeMap<Lane, u64>,
    /// Targets with elements that were computed from finite ones and are infinite or NaN, and how
    /// many: rounding is no such thing. Of several ranks, each knows those of its share, and the
    /// one that completes the output knows all.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub overflowed: BTreeMap<Key, u64>,
    /// Files that an earlier run had finished, and that were found whole.
    pub kept: u64,
    /// Whether the output is in its place. Of several ranks, only the last to finish puts it there.
    pub complete: bool,
    /// Most memory that the process ever held, in bytes, mapped files included; 0 where the system
    /// doesn't say.
    pub peak_memory: u64,
    /// Files written, by name, in order; a single file by its own name.
    pub files: Vec<String>,
}

impl Report {
    /// Counts a target of so many bytes, whose elements were only moved or were computed.
    pub(super) fn made(&mut self, is_copy: bool, bytes: u64) {
        if is_copy {
            self.copied += 1;
            self.bytes_copied += bytes;
        } else {
            self.transformed += 1;
            self.bytes_transformed += bytes;
        }
    }

    /// Counts elements of a target that overflowed, if any did.
    pub(super) fn overflow(&mut self, key: &Key, elements: u64) {
        if elements > 0 {
            self.overflowed.insert(key.clone(), elements);
        }
    }

    /// What a person should hear of what was done.
    pub fn findings(&self) -> Vec<Diagnostic> {
        if self.overflowed.is_empty() {
            return Vec::new();
        }
        let elements = self.overflowed.values().fold(0u64, |sum, count| sum.saturating_add(*count));
        let plural = |count: u64, what: &str| {
            if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
        };
        let tensors = plural(self.overflowed.len() as u64, "tensor");
        let message = format!(
            "{} of {tensors} overflowed: finite before, infinite or NaN now",
            plural(elements, "element")
        );
        let finding = Diagnostic::warning(OVERFLOW, message)
            .keys(self.overflowed.keys().map(|key| key.as_str()));
        vec![finding.hint("leave these tensors in a dtype of a wider range (BF16 has that of F32): `cast … unless \"that.key\"`")]
    }
}

/// Most memory that this process ever held, in bytes; 0 where the system doesn't say.
pub(super) fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1024)
}
