//! To files: a sharded directory or a single file, streamed, which appears whole or not at all.
//!
//! Equal plans and sources give equal bytes. The source is only read, and an output inside it is
//! refused.

mod copy;
pub(super) mod place;
mod queue;
mod ranks;
pub(super) mod record;
pub(super) mod shards;
pub(super) mod stream;
mod verify;

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::report::peak_memory;
use super::{Lane, Rank, Report, naive, not_cancelled};
use crate::error::{Error, ErrorKind, Result};
use crate::execute::fuse::compile::{Layout, Value, compile};
use crate::execute::fuse::gather::{Leaves, outside};
use crate::execute::fuse::layout::{MAX_PIECES, Piece};
use crate::key::Key;
use crate::plan::{NodeId, Op, Plan, Target};
use crate::store::{Extent, Identity, Store};
use crate::tensor::Header;
use place::{Mode, Spot, Staging, create, sync};
use record::Record;
use shards::{INDEX, Item, Shards, lay_out};
use stream::{OutFile, Output, Pool};
pub use verify::{CHECKSUMS, Verified, verify};

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
    /// Most bytes of tensors in one file, unless one tensor is larger. Without effect on a single
    /// file.
    pub max_shard_size: Option<u64>,
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
    /// checked, not written again. A source that has no [identity](Store::identity), as tensors in
    /// memory, can't be known for the same: then everything is written anew.
    pub resume: bool,
    /// Write [`CHECKSUMS`] beside the files: BLAKE3 of each file and tensor. Without effect on a
    /// single file.
    pub checksums: bool,
    /// Write this process's share only; the last of them to finish puts the output in place. The
    /// source needs an [identity](Store::identity).
    pub rank: Option<Rank>,
    /// Whether the output is durable before it appears. Without, a power cut soon after may leave
    /// it empty.
    pub sync: bool,
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
            resume: false,
            checksums: false,
            rank: None,
            sync: true,
            progress: None,
            cancel: None,
        }
    }
}

/// Files that are written at the same time.
const OPEN_FILES: usize = 64;

/// Bytes that a thread holds at least, and at most: with more than that, runs are long enough that
/// calls hardly count.
const LEAST: u64 = 64 << 10;
const MOST: u64 = 24 << 20;

/// How often it is looked whether so many bytes more of a file have been written that the disk can
/// have them already.
const EARLY: Duration = Duration::from_millis(20);
const MUCH: u64 = 256 << 20;

/// Carries out a plan into files: `out` is a directory to be made, or a file if its name ends with
/// `.safetensors`.
///
/// `__metadata__` of the source is kept. A source without any gets `format: pt`, since transformers
/// refuses files without it.
///
/// # Errors
/// [`ErrorKind::Exists`] if the output is there (see [`WriteOptions::force`]) or would lie in its
/// own source; [`ErrorKind::Interrupted`] if cancelled; I/O errors with the file; errors of the
/// plan as in [`views`](super::views). In every case nothing of the output is there.
pub fn write(
    plan: &Plan,
    source: &dyn Store,
    out: &Path,
    options: &WriteOptions<'_>,
) -> Result<Report> {
    let is_file = out.extension().is_some_and(|extension| extension == "safetensors");
    let identity = source.identity();
    if options.rank.is_some() && identity.is_none() {
        let error = Error::new(
            ErrorKind::Unsupported,
            "several processes can't write together what they don't know to be one source",
        );
        return Err(error.in_file(out).hint("give each of them the checkpoint's files; tensors in memory are written by one process"));
    }
    let spot = Spot::find(out, is_file, options.force, &options.protect, options.rank.is_some())?;
    let written = kept(plan, options.ties);
    if written.is_empty() {
        return Err(Error::new(ErrorKind::Unsupported, "nothing to write: the result has no key")
            .in_file(out));
    }
    let mut report = Report::default();
    for target in plan.targets.iter().filter(|target| left_out(plan, target, options.ties)) {
        report.aliased += 1;
        report.bytes_aliased +=
            plan.nodes.get(target.node.0 as usize).and_then(|node| node.info.nbytes()).unwrap_or(0);
    }
    let program = compile(plan, &written, MAX_PIECES)?;

    // Two shards could each hold one of two equal keys without either noticing.
    let mut keys = BTreeSet::new();
    if let Some(twice) = plan.targets.iter().find(|target| !keys.insert(&target.key)) {
        return Err(Error::corrupt("the plan is inconsistent: two targets have one key")
            .at_key(twice.key.as_str()));
    }
    check_sources(plan, source, &program.layouts)?;
    let metadata = metadata(plan, source, &options.metadata, options.ties);
    let items: Vec<Item<'_>> = written
        .iter()
        .enumerate()
        .map(|(i, t)| (i, &plan.targets[*t].key, plan.info(&plan.targets[*t])))
        .collect();
    let limit = if is_file || options.single { None } else { options.max_shard_size };
    let own_name = out
        .file_name()
        .and_then(|name| name.to_str())
        .filter(|_| is_file)
        .unwrap_or("model.safetensors");

    let mut leaves =
        Sources { plan, source, temporaries: BTreeMap::new(), read: AtomicU64::new(0) };
    let share = can_share(&leaves, &program.layouts, spot.parent())?;
    let phases =
        |item: usize| if share { phases(&leaves, program.layouts.get(item)) } else { Vec::new() };
    let shards = lay_out(&items, limit, &metadata, own_name, &phases)?;
    let own = options
        .rank
        .map_or_else(|| (0..shards.files.len()).collect(), |rank| rank.share(&shards.files));
    let work = work(plan, identity.as_ref(), &shards, options)?;
    let there = || spot.there(&shards.files, &work, !own.is_empty());
    let mode = match (options.rank, options.resume) {
        (Some(_), _) => Mode::Together,
        // What another run left may be of another source.
        (None, true) if identity.is_some() => Mode::Resume,
        (None, _) => Mode::Fresh,
    };
    let together = mode == Mode::Together;
    let staging = if together && there()? {
        None
    } else {
        match spot.begin(mode, &work) {
            // The last of the others may have put the output in its place, and removed what was
            // common, since that look.
            Err(_) if together && matches!(there(), Ok(true)) => None,
            begun => Some(begun?),
        }
    };
    let Some(staging) = staging else {
        report.kept = shards.files.len() as u64;
        report.complete = true;
        report.peak_memory = peak_memory();
        return Ok(report);
    };

    let (mut todo, mut records) = (Vec::new(), BTreeMap::new());
    for at in own {
        match Record::load(&staging, &shards.files[at], true)
            .filter(|record| record.sums.is_some() || !options.checksums)
        {
            Some(record) if mode != Mode::Fresh => {
                records.insert(at, record);
                report.kept += 1;
            }
            _ => todo.push(at),
        }
    }
    let needed = || {
        todo.iter()
            .flat_map(|at| &shards.files[*at].tensors)
            .map(|(item, _)| &program.layouts[*item])
    };
    let used: BTreeSet<NodeId> = needed()
        .flat_map(|layout| &layout.pieces)
        .flat_map(|piece| &piece.value.leaves)
        .map(|leaf| leaf.node)
        .collect();
    let mut before = BTreeMap::new();
    for node in program.temporaries.intersection(&used) {
        not_cancelled(options.cancel)?;
        let (bytes, overflowed) = naive::evaluate_counting(plan, source, *node)?;
        before.insert(*node, overflowed);
        report.temporaries += 1;
        report.temporary_bytes += bytes.len() as u64;
        leaves.temporaries.insert(*node, bytes);
    }

    let total = needed().fold(0u64, |sum, layout| sum.saturating_add(layout.numel * layout.size));
    let threads = rayon::current_num_threads() as u64;
    let mut pool = Pool::new(&leaves, (options.memory / threads.max(1)).clamp(LEAST, MOST), total);
    (pool.cancel, pool.progress, pool.share) = (options.cancel, options.progress, share);
    // Files in order, so that reads and writes are about sequential; and not more at once than any
    // system lets a process open.
    for group in todo.chunks(OPEN_FILES) {
        let mut outputs = Vec::new();
        let mut files = Vec::with_capacity(group.len());
        for at in group {
            let shard = &shards.files[*at];
            let path = staging.file(&shard.name);
            let file = create(&path, shard.len, !share)?;
            file.write_all_at(&shard.header, 0)
                .map_err(|error| Error::io("cannot write", &path, error))?;
            let file = OutFile::new(file, path, shard.len - shard.header.len() as u64);
            report.bytes_written += shard.header.len() as u64;
            for (item, start) in &shard.tensors {
                let key = items[*item].1.to_string();
                let layout = program.layouts[*item].clone();
                let overflowed = AtomicU64::new(layout.overflowed_before(&before));
                outputs.push(Output { layout, key, file: file.clone(), start: *start, overflowed });
            }
            report.files.push(shard.name.clone());
            files.push((*at, file));
        }
        records.extend(finish(&mut pool, &outputs, &files, &staging, &shards, options, source)?);
    }
    if options.checksums {
        for at in &todo {
            not_cancelled(options.cancel)?;
            let shard = &shards.files[*at];
            let path = staging.file(&shard.name);
            let tensors: Vec<(String, u64, u64)> = shard
                .tensors
                .iter()
                .map(|(item, start)| {
                    (items[*item].1.to_string(), *start, items[*item].2.nbytes().unwrap_or(0))
                })
                .collect();
            let mut record = Record::of(&path, Some(record::sums(&path, &tensors)?))?;
            record.overflowed =
                records.remove(at).map(|record| record.overflowed).unwrap_or_default();
            record.save(&staging, shard)?;
            records.insert(*at, record);
        }
    }
    report.bytes_written += pool.written.load(Ordering::Relaxed);
    report.bytes_read = leaves.read.load(Ordering::Relaxed) + pool.copied.load(Ordering::Relaxed);
    for layout in needed() {
        let bytes = layout.numel * layout.size;
        if layout.is_copy() {
            report.copied += 1;
            report.bytes_copied += bytes;
        } else {
            report.transformed += 1;
            report.bytes_transformed += bytes;
        }
    }
    let (shared, copied) =
        (pool.shared.load(Ordering::Relaxed), pool.copied.load(Ordering::Relaxed));
    let streamed = pool.written.load(Ordering::Relaxed).saturating_sub(shared + copied);
    report.lanes.extend(
        [(Lane::Shared, shared), (Lane::Copied, copied), (Lane::Streamed, streamed)]
            .into_iter()
            .filter(|(_, bytes)| *bytes > 0),
    );
    report.peak_memory = peak_memory();
    not_cancelled(options.cancel)?;
    // Of several processes, only the last has all records to show.
    for (at, shard) in shards.files.iter().enumerate() {
        if let Slot::Vacant(slot) = records.entry(at) {
            match Record::load(&staging, shard, false)
                .filter(|record| record.sums.is_some() || !options.checksums)
            {
                Some(record) => slot.insert(record),
                None => {
                    overflows(&mut report, &records);
                    staging.leave();
                    return Ok(report);
                }
            };
        }
    }
    overflows(&mut report, &records);
    let Some(_claim) = staging.claim()? else { return Ok(report) };
    complete(&shards, &records, &staging, options, is_file, &mut report)?;
    not_cancelled(options.cancel)?;
    staging.publish()?;
    report.complete = true;
    Ok(report)
}

/// `__metadata__` of the output: the source's, and what the options add.
pub(super) fn metadata(
    plan: &Plan,
    source: &dyn Store,
    more: &BTreeMap<String, String>,
    ties: Ties,
) -> BTreeMap<String, String> {
    let mut metadata = carried(plan, source.header(), more, ties);
    if source.header().metadata.is_empty() {
        metadata.entry("format".to_owned()).or_insert_with(|| "pt".to_owned());
    }
    metadata
}

/// What metadata becomes: where it names keys that are one tensor, it names those of the result, as
/// far as they are left out there.
pub(super) fn carried(
    plan: &Plan,
    header: &Header,
    more: &BTreeMap<String, String>,
    ties: Ties,
) -> BTreeMap<String, String> {
    let mut metadata = more.clone();
    metadata.extend(header.metadata.clone());
    let mut says_aliases = false;
    for (alias, kept) in header.aliases() {
        let is_left_out = !header.tensors.contains_key(alias);
        says_aliases |= is_left_out;
        if is_left_out || plan.target(alias).is_none() || plan.target(kept).is_none() {
            metadata.remove(alias);
        }
    }
    if says_aliases {
        for target in &plan.targets {
            if let Some(root) = root(plan, target).filter(|_| ties == Ties::Alias) {
                metadata.entry(target.key.to_string()).or_insert_with(|| root.key.to_string());
            }
        }
    }
    metadata
}

/// Writes the data of some files; meanwhile hands what there is to the disk, and records each file
/// as soon as it is whole and durable.
fn finish(
    pool: &mut Pool<'_>,
    outputs: &[Output],
    files: &[(usize, Arc<OutFile>)],
    staging: &Staging,
    shards: &Shards,
    options: &WriteOptions<'_>,
    source: &dyn Store,
) -> Result<Vec<(usize, Record)>> {
    let (sender, receiver) = std::sync::mpsc::channel::<Arc<OutFile>>();
    // A file without bytes is never heard of again.
    for (_, file) in files.iter().filter(|(_, file)| file.left() == 0) {
        let _ = sender.send(Arc::clone(file));
    }
    pool.finished = Some(sender);
    let (wrote, synced) = std::thread::scope(|scope| {
        let syncing = scope.spawn(move || {
            let mut records = Vec::with_capacity(files.len());
            let mut early: Vec<u64> = files.iter().map(|(_, file)| file.left()).collect();
            loop {
                let file = match receiver.recv_timeout(EARLY) {
                    Ok(file) => file,
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {
                        for ((_, file), before) in
                            files.iter().zip(&mut early).filter(|_| options.sync)
                        {
                            let left = file.left();
                            if before.saturating_sub(left) >= MUCH {
                                *before = left;
                                file.file
                                    .sync_data()
                                    .map_err(|error| Error::io("cannot sync", &file.path, error))?;
                            }
                        }
                        continue;
                    }
                };
                if options.sync {
                    file.file
                        .sync_all()
                        .map_err(|error| Error::io("cannot sync", &file.path, error))?;
                }
                let Some((at, _)) = files.iter().find(|(_, other)| Arc::ptr_eq(other, &file))
                else {
                    continue;
                };
                // A shard that is recorded is taken for good by later runs and other ranks.
                source.unchanged()?;
                let mut record = Record::of(&file.path, None)?;
                record.overflowed = overflowed(outputs, &file);
                // With checksums it is finished only when these are known.
                if !options.checksums {
                    record.save(staging, &shards.files[*at])?;
                }
                records.push((*at, record));
            }
            Ok(records)
        });
        let wrote = pool.run(outputs);
        pool.finished = None;
        (wrote, syncing.join())
    });
    wrote?;
    let records = synced.map_err(|_| outside())??;
    if records.len() == files.len() {
        Ok(records)
    } else {
        Err(Error::corrupt("the plan is inconsistent: a file was not written whole"))
    }
}

/// The tensors of a finished file in which elements overflowed.
fn overflowed(outputs: &[Output], file: &Arc<OutFile>) -> BTreeMap<String, u64> {
    let counts = outputs.iter().filter(|output| Arc::ptr_eq(&output.file, file));
    let counts =
        counts.map(|output| (output.key.clone(), output.overflowed.load(Ordering::Relaxed)));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Tells of what overflowed in every file that is known to be finished, by whatever run or rank.
fn overflows(report: &mut Report, records: &BTreeMap<usize, Record>) {
    for (key, count) in records.values().flat_map(|record| &record.overflowed) {
        report.overflow(&Key::from(key.as_str()), *count);
    }
}

/// Adds what is beside the shards: index, side files, checksums.
fn complete(
    shards: &Shards,
    records: &BTreeMap<usize, Record>,
    staging: &Staging,
    options: &WriteOptions<'_>,
    is_file: bool,
    report: &mut Report,
) -> Result<()> {
    let mut small = |name: &str, text: &str| -> Result<()> {
        let path = staging.file(name);
        let mut file = create(&path, 0, true)?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|error| Error::io("cannot write", &path, error))?;
        report.bytes_written += text.len() as u64;
        report.files.push(name.to_owned());
        Ok(())
    };
    if let Some(index) = &shards.index {
        small(INDEX, index)?;
    }
    if options.checksums && !is_file {
        let sums = shards.files.iter().enumerate().filter_map(|(at, shard)| {
            Some((shard.name.as_str(), records.get(&at)?.sums.as_ref()?))
        });
        small(CHECKSUMS, &verify::manifest(sums)?)?;
    }
    if !is_file {
        let names: BTreeSet<&str> = shards.files.iter().map(|shard| shard.name.as_str()).collect();
        copy_side_files(options, staging, &names, report)?;
    }
    Ok(())
}

/// What a run does, as text: equal for runs whose results are equal, so that one may continue what
/// the other began.
fn work(
    plan: &Plan,
    identity: Option<&Identity>,
    shards: &Shards,
    options: &WriteOptions<'_>,
) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let failed = |error: serde_json::Error| {
        Error::corrupt(format!("cannot write the plan as JSON: {error}"))
    };
    for target in &plan.targets {
        serde_json::to_writer(&mut hasher, &(&target.key, target.node)).map_err(failed)?;
    }
    serde_json::to_writer(&mut hasher, &plan.nodes).map_err(failed)?;
    for shard in &shards.files {
        hasher.update(shard.name.as_bytes());
        hasher.update(&shard.header);
    }
    if let Some(identity) = identity {
        hasher.update(identity.as_bytes());
    }
    // Ranks put one output together, so they have to agree on what is in it; a single run may be
    // continued with checksums or without.
    let together = options.rank.map(|rank| (rank.world_size, options.checksums));
    serde_json::to_writer(&mut hasher, &(&options.side_files, together)).map_err(failed)?;
    Ok(format!("{{\"regraft\":1,\"work\":\"{}\"}}\n", hasher.finalize().to_hex()))
}

/// Whether the source's blocks can be shared with the output: one filesystem, that can.
fn can_share(leaves: &Sources<'_>, layouts: &[Arc<Layout>], parent: &Path) -> Result<bool> {
    let first = layouts
        .iter()
        .flat_map(|layout| &layout.pieces)
        .flat_map(|piece| &piece.value.leaves)
        .next();
    let Some(extent) = first.map(|leaf| leaves.extent(leaf.node)).transpose()?.flatten() else {
        return Ok(false);
    };
    let device =
        |metadata: std::io::Result<std::fs::Metadata>| metadata.map(|metadata| metadata.dev()).ok();
    Ok(device(extent.file.metadata()).is_some_and(|own| Some(own) == device(parent.metadata()))
        && copy::shares_blocks(parent))
}

/// Where within a block each straight run of a tensor would have to begin to share the source's
/// blocks, as if the tensor began at 0; and its length.
fn phases(leaves: &Sources<'_>, layout: Option<&Arc<Layout>>) -> Vec<(u64, u64)> {
    let Some(layout) = layout else { return Vec::new() };
    let run = |piece: &Piece<Value>| {
        let (leaf, lane) = (piece.value.leaves.first()?, piece.operands.first()?);
        let extent = leaves
            .extent(leaf.node)
            .ok()
            .flatten()
            .filter(|_| piece.is_run() && piece.value.is_copy())?;
        let from = extent.offset.checked_add(lane.offset.checked_mul(layout.size)?)?;
        let to = piece.target.offset.checked_mul(layout.size)?;
        Some((
            (from % copy::BLOCK + copy::BLOCK - to % copy::BLOCK) % copy::BLOCK,
            piece.volume().checked_mul(layout.size)?,
        ))
    };
    layout.pieces.iter().filter_map(run).collect()
}

/// The targets that are written, by their place in the plan.
pub(super) fn kept(plan: &Plan, ties: Ties) -> Vec<usize> {
    (0..plan.targets.len()).filter(|at| !left_out(plan, &plan.targets[*at], ties)).collect()
}

/// Whether a target is left out because what it is tied to, at the root of its chain of ties, is
/// written.
pub(super) fn left_out(plan: &Plan, target: &Target, ties: Ties) -> bool {
    ties == Ties::Alias && root(plan, target).is_some()
}

/// What a tied target is one tensor with, at the root of its chain of ties, if that is written.
fn root<'p>(plan: &'p Plan, target: &'p Target) -> Option<&'p Target> {
    let mut seen = BTreeSet::from([&target.key]);
    let mut root = target;
    while let Some(key) = &root.tied_to {
        // A tie to a key that isn't written, or a cycle: then this one is.
        root = plan.target(key).filter(|next| seen.insert(&next.key))?;
    }
    (root.key != target.key).then_some(root)
}

fn check_sources(
    plan: &Plan,
    source: &dyn Store,
    layouts: &[Arc<crate::execute::fuse::compile::Layout>],
) -> Result<()> {
    for leaf in
        layouts.iter().flat_map(|layout| &layout.pieces).flat_map(|piece| &piece.value.leaves)
    {
        if let Op::Source { key } = &plan.node(leaf.node).op {
            naive::matches_header(source, key, &plan.node(leaf.node).info)?;
        }
    }
    Ok(())
}

fn copy_side_files(
    options: &WriteOptions<'_>,
    staging: &Staging,
    shards: &BTreeSet<&str>,
    report: &mut Report,
) -> Result<()> {
    for side in &options.side_files {
        let Some(name) = side.file_name().and_then(|name| name.to_str()) else {
            return Err(Error::new(ErrorKind::Unsupported, "a side file has no name").in_file(side));
        };
        // What says something of the source's files is not true of the output's.
        if name == INDEX
            || name == CHECKSUMS
            || shards.contains(name)
            || report.files.iter().any(|file| file == name)
        {
            continue;
        }
        let path = staging.file(name);
        // Not `fs::copy`: modes obey the umask, as those of every other file do.
        let mut from =
            std::fs::File::open(side).map_err(|error| Error::io("cannot open", side, error))?;
        let mut to = create(&path, 0, true)?;
        let bytes = std::io::copy(&mut from, &mut to)
            .map_err(|error| Error::io("cannot copy", side, error))?;
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
