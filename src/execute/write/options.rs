//! How files are written: options, and what a run tells while it goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use crate::execute::Rank;
use crate::key::RankFiles;

/// What becomes of ties in files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// A target that is tied to another one is not written if that one is: what publishers do.
    #[default]
    Alias,
    /// Every target is written.
    Materialize,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of tensors written so far.
    pub done: u64,
    /// Bytes of tensors to be written.
    pub total: u64,
    /// Files whose tensors are all written.
    pub files: u64,
    /// Files to be written.
    pub total_files: u64,
}

/// How to write files.
#[derive(Clone)]
pub struct WriteOptions<'a> {
    /// Most bytes of tensors in one file, unless one tensor is larger. Without effect on a single
    /// file.
    pub max_shard_size: Option<u64>,
    /// Write a file for each rank, without an index: the number before a key says which, and is no
    /// part of the key there. A rank's file is never parted, however large.
    pub rank_files: Option<RankFiles>,
    /// Write one `model.safetensors`, however large. An output whose name ends with `.safetensors`
    /// is such a file itself.
    pub single: bool,
    /// What becomes of ties.
    pub ties: Ties,
    /// Replace an output that is there already (a file, or a directory that is empty or holds
    /// safetensors files).
    pub force: bool,
    /// More `__metadata__`; what the source says stands.
    pub metadata: BTreeMap<String, String>,
    /// Files to copy into the output directory, under their own names; the index, which is made
    /// anew, and names that are written are left out.
    pub side_files: Vec<PathBuf>,
    /// Files and directories that the output must not lie in or contain: the source.
    pub protect: Vec<PathBuf>,
    /// Bytes that all threads together may hold in buffers.
    pub memory: u64,
    /// Continue what a killed run of the same work left beside the output: finished files are
    /// checked, not written again. A source that has no [identity](crate::store::Store::identity), as tensors in
    /// memory, can't be known for the same: then everything is written anew.
    pub resume: bool,
    /// Write [`CHECKSUMS`](super::CHECKSUMS) beside the files: BLAKE3 of each file and tensor. Without effect on a
    /// single file.
    pub checksums: bool,
    /// Write this process's share only; the last of them to finish puts the output in place. The
    /// source needs an [identity](crate::store::Store::identity).
    pub rank: Option<Rank>,
    /// Whether the output is durable before it appears. Without, a power cut soon after may leave
    /// it empty.
    pub sync: bool,
    /// Is told how far the run is, from any thread.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// Once set, the run stops, cleans up and gives [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted).
    pub cancel: Option<&'a AtomicBool>,
}

impl Default for WriteOptions<'_> {
    fn default() -> Self {
        Self {
            max_shard_size: Some(5_000_000_000),
            rank_files: None,
            single: false,
            ties: Ties::Alias,
            force: false,
            metadata: BTreeMap::new(),
            side_files: Vec::new(),
            protect: Vec::new(),
            memory: 64 << 20,
            resume: false,
            checksums: false,
            rank: None,
            sync: true,
            progress: None,
            cancel: None,
        }
    }
}
