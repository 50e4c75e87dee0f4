//! To files: a sharded directory or a single file, streamed, which appears whole or not at all.
//!
//! Equal plans and sources give equal bytes. The source is only read, and an output inside it is refused.

mod place;
mod shards;
pub(super) mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::compile::compile;
use super::gather::{Leaves, outside};
use super::layout::MAX_PIECES;
use super::{Report, naive};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::plan::{NodeId, Op, Plan, Target};
use crate::store::Store;
use place::{Staging, create, sync};
use shards::{INDEX, Item, lay_out};
use stream::{Output, Pool};

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
}

/// How to write files.
#[derive(Clone)]
pub struct WriteOptions<'a> {
    /// Most bytes of tensors in one file, unless one tensor is larger. Without effect on a single file.
    pub max_shard_size: Option<u64>,
    /// Write one `model.safetensors`, however large. An output whose name ends with `.safetensors` is such a file itself.
    pub single: bool,
    /// What becomes of ties.
    pub ties: Ties,
    /// Replace an output that is there already (a file, or a directory that is empty or holds safetensors files).
    pub force: bool,
    /// More `__metadata__`; what the source says stands.
    pub metadata: BTreeMap<String, String>,
    /// Files to copy into the output directory, under their own names; the index, which is made anew, and names that are written are left out.
    pub side_files: Vec<PathBuf>,
    /// Files and directories that the output must not lie in or contain: the source.
    pub protect: Vec<PathBuf>,
    /// Bytes that all threads together may hold in buffers.
    pub memory: u64,
    /// Is told how far the run is, from any thread.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// Once set, the run stops, cleans up and gives [`ErrorKind::Interrupted`].
    pub cancel: Option<&'a AtomicBool>,
}

impl Default for WriteOptions<'_> {
    fn default() -> Self {
        Self {
            max_shard_size: Some(5_000_000_000),
            single: false,
            ties: Ties::Alias,
            force: false,
            metadata: BTreeMap::new(),
            side_files: Vec::new(),
            protect: Vec::new(),
            memory: 64 << 20,
            progress: None,
            cancel: None,
        }
    }
}

/// Files that are written at the same time.
const OPEN_FILES: usize = 64;

/// Bytes that a thread holds at least, and at most: more would not make it faster.
const LEAST: u64 = 64 << 10;
const MOST: u64 = 8 << 20;

/// Carries out a plan into files: `out` is a directory to be made, or a file if its name ends with `.safetensors`.
///
/// `__metadata__` of the source is kept. A source without any gets `format: pt`, since transformers refuses files without it.
///
/// # Errors
/// [`ErrorKind::Exists`] if the output is there (see [`WriteOptions::force`]) or would lie in its own source; [`ErrorKind::Interrupted`] if
/// cancelled; I/O errors with the file; errors of the plan as in [`views`](super::views). In every case nothing of the output is there.
pub fn write(plan: &Plan, source: &dyn Store, out: &Path, options: &WriteOptions<'_>) -> Result<Report> {
    let is_file = out.extension().is_some_and(|extension| extension == "safetensors");
    let staging = Staging::begin(out, is_file, options.force, &options.protect)?;
    let written: Vec<usize> = (0..plan.targets.len()).filter(|i| !left_out(plan, &plan.targets[*i], options.ties)).collect();
    let mut report = Report::default();
    for target in plan.targets.iter().filter(|target| left_out(plan, target, options.ties)) {
        report.aliased += 1;
        report.bytes_aliased += plan.nodes.get(target.node.0 as usize).and_then(|node| node.info.nbytes()).unwrap_or(0);
    }
    let program = compile(plan, &written, MAX_PIECES)?;

    let mut metadata = options.metadata.clone();
    metadata.extend(source.header().metadata.clone());
    if source.header().metadata.is_empty() {
        metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
    }
    // Two shards could each hold one of two equal keys without either noticing.
    let mut keys = BTreeSet::new();
    if let Some(twice) = plan.targets.iter().find(|target| !keys.insert(&target.key)) {
        return Err(Error::corrupt("the plan is inconsistent: two targets have one key").at_key(twice.key.as_str()));
    }
    let items: Vec<Item<'_>> = written.iter().enumerate().map(|(i, t)| (i, &plan.targets[*t].key, plan.info(&plan.targets[*t]))).collect();
    let limit = if is_file || options.single { None } else { options.max_shard_size };
    let own_name = out.file_name().and_then(|name| name.to_str()).filter(|_| is_file).unwrap_or("model.safetensors");
    let shards = lay_out(&items, limit, &metadata, own_name)?;

    let mut leaves = Sources { plan, source, temporaries: BTreeMap::new(), read: AtomicU64::new(0) };
    check_sources(plan, source, &program.layouts)?;
    for node in &program.temporaries {
        if cancelled(options) {
            return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
        }
        let bytes = naive::evaluate(plan, source, *node)?;
        report.temporaries += 1;
        report.temporary_bytes += bytes.len() as u64;
        leaves.temporaries.insert(*node, bytes);
    }

    let total = program.layouts.iter().fold(0u64, |sum, layout| sum.saturating_add(layout.numel * layout.size));
    let threads = rayon::current_num_threads() as u64;
    let mut pool = Pool::new(&leaves, (options.memory / threads.max(1)).clamp(LEAST, MOST), total);
    (pool.cancel, pool.progress) = (options.cancel, options.progress);
    // Files in order, so that reads and writes are about sequential; and not more at once than any system lets a process open.
    for shards in shards.files.chunks(OPEN_FILES) {
        let mut outputs = Vec::new();
        let mut files = Vec::with_capacity(shards.len());
        for shard in shards {
            let path = staging.file(&shard.name);
            let file = Arc::new((create(&path, shard.len)?, path));
            file.0.write_all_at(&shard.header, 0).map_err(|error| Error::io("cannot write", &file.1, error))?;
            report.bytes_written += shard.header.len() as u64;
            for (item, start) in &shard.tensors {
                let key = items[*item].1.to_string();
                outputs.push(Output { layout: program.layouts[*item].clone(), key, file: file.clone(), start: *start });
            }
            report.files.push(shard.name.clone());
            files.push(file);
        }
        pool.run(&outputs)?;
        for file in &files {
            pool.check()?;
            file.0.sync_all().map_err(|error| Error::io("cannot sync", &file.1, error))?;
        }
    }
    report.bytes_written += pool.written.load(Ordering::Relaxed);
    report.bytes_read = leaves.read.load(Ordering::Relaxed);
    for layout in &program.layouts {
        let bytes = layout.numel * layout.size;
        if layout.is_copy() {
            report.copied += 1;
            report.bytes_copied += bytes;
        } else {
            report.transformed += 1;
            report.bytes_transformed += bytes;
        }
    }
    if let Some(index) = &shards.index {
        let path = staging.file(INDEX);
        let mut file = create(&path, 0)?;
        file.write_all(index.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| Error::io("cannot write", &path, error))?;
        report.bytes_written += index.len() as u64;
        report.files.push(INDEX.to_owned());
    }
    if !is_file {
        copy_side_files(options, &staging, &mut report)?;
    }
    pool.check()?;
    staging.publish()?;
    Ok(report)
}

fn cancelled(options: &WriteOptions<'_>) -> bool {
    options.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed))
}

/// Whether a target is left out because what it is tied to, at the root of its chain of ties, is written.
fn left_out(plan: &Plan, target: &Target, ties: Ties) -> bool {
    if ties == Ties::Materialize {
        return false;
    }
    let mut seen = BTreeSet::from([&target.key]);
    let mut root = target;
    while let Some(key) = &root.tied_to {
        // A tie to a key that isn't written, or a cycle: then this one is.
        let Some(next) = plan.target(key).filter(|next| seen.insert(&next.key)) else { return false };
        root = next;
    }
    root.key != target.key
}

fn check_sources(plan: &Plan, source: &dyn Store, layouts: &[Arc<super::compile::Layout>]) -> Result<()> {
    for leaf in layouts.iter().flat_map(|layout| &layout.pieces).flat_map(|piece| &piece.value.leaves) {
        if let Op::Source { key } = &plan.node(leaf.node).op {
            naive::matches_header(source, key, &plan.node(leaf.node).info)?;
        }
    }
    Ok(())
}

fn copy_side_files(options: &WriteOptions<'_>, staging: &Staging, report: &mut Report) -> Result<()> {
    for side in &options.side_files {
        let Some(name) = side.file_name().and_then(|name| name.to_str()) else {
            return Err(Error::new(ErrorKind::Unsupported, "a side file has no name").in_file(side));
        };
        if name == INDEX || report.files.iter().any(|file| file == name) {
            continue;
        }
        let path = staging.file(name);
        // Not `fs::copy`: modes obey the umask, as those of every other file do.
        let mut from = std::fs::File::open(side).map_err(|error| Error::io("cannot open", side, error))?;
        let mut to = create(&path, 0)?;
        let bytes = std::io::copy(&mut from, &mut to).map_err(|error| Error::io("cannot copy", side, error))?;
        sync(&path)?;
        report.bytes_written += bytes;
        report.files.push(name.to_owned());
    }
    Ok(())
}

/// Leaves in a store, read in stretches; and temporaries, in memory.
struct Sources<'a> {
    plan: &'a Plan,
    source: &'a dyn Store,
    temporaries: BTreeMap<NodeId, Vec<u8>>,
    read: AtomicU64,
}

impl Leaves for Sources<'_> {
    fn read(&self, leaf: NodeId, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let Op::Source { key } = &self.plan.node(leaf).op else { return Err(outside()) };
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.source.read_at(key, offset, buffer).map_err(|error| named(error, key))
    }

    fn bytes(&self, leaf: NodeId) -> Option<&[u8]> {
        self.temporaries.get(&leaf).map(Vec::as_slice)
    }
}

fn named(error: Error, key: &Key) -> Error {
    if error.key().is_some() { error } else { error.at_key(key.as_str()) }
}
