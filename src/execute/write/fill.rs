//! The third phase: files are made, and every tensor is copied or streamed into them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::begin::Begun;
use super::finished::{self, Finished};
use super::prepare::Prepared;
use super::seal::seal;
use super::staging::Staging;
use super::stream::{OutFile, Output, Pool, budget};
use super::watch::watching;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::fuse::compile::Layout;
use crate::execute::leaves::StoreLeaves;
use crate::execute::{Lane, Report, not_cancelled, temporary};
use crate::plan::NodeId;

/// Files that are written at the same time.
const OPEN_FILES: usize = 64;

/// Writes the files that are still to be written, and records each.
///
/// # Errors
/// If reading, computing or writing fails, or the run is cancelled.
pub(super) fn fill(prepared: &Prepared<'_>, begun: &mut Begun, report: &mut Report) -> Result<()> {
    let source = prepared.source;
    let readers = source.hints().ranges;
    if readers <= rayon::current_num_threads() {
        return fill_here(prepared, begun, report);
    }
    // Far away, each waits for its own answer most of the time.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(readers).build();
    let pool = pool.map_err(|error| {
        Error::new(ErrorKind::Io, format!("cannot begin threads that read: {error}"))
    })?;
    watching(prepared.options.cancel, &|| source.interrupt(), || {
        pool.install(|| fill_here(prepared, begun, report))
    })
}

fn fill_here(prepared: &Prepared<'_>, begun: &mut Begun, report: &mut Report) -> Result<()> {
    let Prepared { options, shards, .. } = prepared;
    let mut leaves = StoreLeaves::new(prepared.plan, prepared.source, &prepared.program);
    let before = evaluate(prepared, &begun.todo, &mut leaves, report)?;
    let total = needed(prepared, &begun.todo)
        .fold(0u64, |sum, layout| sum.saturating_add(layout.numel * layout.size));
    let mut pool = Pool::new(&leaves, budget(options.memory), total);
    pool.total_files = begun.todo.len() as u64;
    (pool.cancel, pool.progress, pool.share) = (options.cancel, options.progress, prepared.share);
    // Files in order, so that reads and writes are about sequential; and not more at once than any
    // system lets a process open.
    for group in begun.todo.chunks(OPEN_FILES) {
        let opened = open(prepared, &begun.staging, group, &before)?;
        for at in group {
            report.bytes_written += shards.files[*at].header.len() as u64;
            report.files.push(shards.files[*at].name.clone());
        }
        begun.finished.extend(seal(prepared, &begun.staging, &opened, &mut pool)?);
    }
    if options.checksums {
        add_sums(prepared, begun)?;
    }
    count(prepared, &begun.todo, &pool, report);
    report.bytes_read = leaves.read.load(Ordering::Relaxed) + pool.copied.load(Ordering::Relaxed);
    Ok(())
}

/// The layouts of the tensors of some shards.
fn needed<'p>(
    prepared: &'p Prepared<'_>,
    shards: &'p [usize],
) -> impl Iterator<Item = &'p Arc<Layout>> {
    shards
        .iter()
        .flat_map(|at| &prepared.shards.files[*at].tensors)
        .map(|(item, _)| &prepared.program.layouts[*item])
}

/// Evaluates the nodes that some shards need whole. Gives how many elements overflowed in each.
fn evaluate(
    prepared: &Prepared<'_>,
    shards: &[usize],
    leaves: &mut StoreLeaves<'_>,
    report: &mut Report,
) -> Result<BTreeMap<NodeId, u64>> {
    let used: BTreeSet<NodeId> = needed(prepared, shards)
        .flat_map(|layout| &layout.pieces)
        .flat_map(|piece| &piece.value.leaves)
        .filter(|leaf| leaf.part.is_none())
        .map(|leaf| leaf.node)
        .collect();
    let nodes = prepared.program.temporaries.intersection(&used).copied();
    temporary::evaluate_all(leaves, nodes, prepared.options.cancel, report)
}

/// Files that are written at the same time, and the tensors that go into them.
pub(super) struct Opened {
    /// Each with the number of its shard.
    pub(super) files: Vec<(usize, Arc<OutFile>)>,
    pub(super) outputs: Vec<Output>,
}

/// Makes the files of some shards, with their headers.
fn open(
    prepared: &Prepared<'_>,
    staging: &Staging,
    group: &[usize],
    overflowed_before: &BTreeMap<NodeId, u64>,
) -> Result<Opened> {
    let mut opened = Opened { files: Vec::with_capacity(group.len()), outputs: Vec::new() };
    for at in group {
        let shard = &prepared.shards.files[*at];
        let (file, path) = staging.begin_file(shard, !prepared.share)?;
        let file = OutFile::new(file, path, shard.len - shard.header.len() as u64);
        for (item, start) in &shard.tensors {
            let key = prepared.tensors[*item].key.to_string();
            let layout = prepared.program.layouts[*item].clone();
            let overflowed = AtomicU64::new(layout.overflowed_before(overflowed_before));
            let (file, start) = (Arc::clone(&file), *start);
            opened.outputs.push(Output { layout, key, file, start, overflowed });
        }
        opened.files.push((*at, file));
    }
    Ok(opened)
}

/// Sums the files that were written, and records them: with checksums a file is finished only when
/// these are known.
fn add_sums(prepared: &Prepared<'_>, begun: &mut Begun) -> Result<()> {
    let all = &prepared.tensors;
    for at in &begun.todo {
        not_cancelled(prepared.options.cancel)?;
        let shard = &prepared.shards.files[*at];
        let path = begun.staging.file(&shard.name);
        let tensors: Vec<(String, u64, u64)> = shard
            .tensors
            .iter()
            .map(|(item, start)| {
                let key = shard.key_for_sums(all[*item].key, prepared.options.rank_files.as_ref());
                (key, *start, all[*item].info.nbytes().unwrap_or(0))
            })
            .collect();
        let mut finished = Finished::of(&path, Some(finished::sums(&path, &tensors)?))?;
        finished.overflowed =
            begun.finished.remove(at).map(|known| known.overflowed).unwrap_or_default();
        finished.save(&begun.staging, shard)?;
        begun.finished.insert(*at, finished);
    }
    Ok(())
}

/// Counts what was done, by target and by lane.
fn count(prepared: &Prepared<'_>, shards: &[usize], pool: &Pool<'_>, report: &mut Report) {
    report.bytes_written += pool.written.load(Ordering::Relaxed);
    for layout in needed(prepared, shards) {
        report.made(layout.is_copy(), layout.numel * layout.size);
    }
    let (shared, copied) =
        (pool.shared.load(Ordering::Relaxed), pool.copied.load(Ordering::Relaxed));
    let streamed = pool.written.load(Ordering::Relaxed).saturating_sub(shared + copied);
    report.lanes.extend(
        [(Lane::Shared, shared), (Lane::Copied, copied), (Lane::Streamed, streamed)]
            .into_iter()
            .filter(|(_, bytes)| *bytes > 0),
    );
}
