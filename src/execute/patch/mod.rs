//! In place: a conversion that only renames keys, reshapes, or changes metadata costs what the
//! headers cost, however large the files are.
//!
//! * Every tensor stays in its file; only headers and the index are written anew. A header that
//!   needs more room than the old one has gets it from the filesystem, which inserts whole blocks
//!   at the start of the file without moving data.
//! * Before the first byte changes, a journal with the old and the new headers is durable beside
//!   the files. Whatever happens then, [`recover`] completes the change or takes it back; until
//!   then no checkpoint with one of these files opens.

mod index;
mod journal;
mod recover;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::report::peak_memory;
use super::write::{Ties, carried, kept};
use super::{FileLanes, Lane, Report, not_cancelled};
use crate::error::{Error, ErrorKind, Result};
use crate::execute::fuse::compile::{Layout, RowMajor, compile};
use crate::execute::fuse::layout::MAX_PIECES;
use crate::key::Key;
use crate::plan::{Op, Plan};
use crate::store::{Checkpoint, Format, MAX_HEADER_LEN, Store as _, placed_header};
use crate::tensor::TensorInfo;
use index::new_index;
use journal::{Journal, Patch};
pub use recover::{Recovery, recover};

/// How to change files in place.
#[derive(Clone, Copy, Debug, Default)]
pub struct PatchOptions<'a> {
    /// Change files that have other names too (hard links, symbolic links), or that are read-only.
    pub insist: bool,
    /// What becomes of ties. A tied tensor that is in a file has to stay there.
    pub ties: Ties,
    /// More `__metadata__`; what the source says stands.
    pub metadata: Option<&'a BTreeMap<String, String>>,
    /// Once set before the journal is there, nothing is done, and that is
    /// [`ErrorKind::Interrupted`]. Afterwards the change is completed: it takes no time.
    pub cancel: Option<&'a AtomicBool>,
}

/// What a file is going to hold: where each tensor begins and ends in its data, and as what.
type Row = (Key, TensorInfo, [u64; 2]);

/// Carries out a plan in the files of its source.
///
/// # Errors
/// [`ErrorKind::Unsupported`] if it would have to move, compute or drop tensors (then it needs an
/// output), or the files are linked or read-only and [`PatchOptions::insist`] isn't set;
/// [`ErrorKind::Exists`] if a journal is there. I/O errors; where files had been changed by then,
/// the journal stays, for [`recover`].
pub fn patch(plan: &Plan, source: &Checkpoint, options: &PatchOptions<'_>) -> Result<Report> {
    if !source.is_on_disk() {
        let error =
            Error::new(ErrorKind::Unsupported, "what isn't on a disk can't be changed in place");
        return Err(error.in_file(source.directory()).hint("write new files: -o"));
    }
    only_safetensors(source)?;
    let paths: Vec<PathBuf> = source.paths().map(Path::to_owned).collect();
    if !source.has_keys_of_files() {
        let error = Error::new(
            ErrorKind::Unsupported,
            "in place, files keep their keys, and these are read with names before them",
        );
        return Err(error.in_file(source.directory()).hint("write new files"));
    }
    let directory = one_directory(&paths)?;
    for path in &paths {
        refuse_shared(path, options.insist)?;
    }
    let mut report = Report::default();
    let kept = kept(plan, options.ties.into());
    let program = compile(plan, &RowMajor, &kept, MAX_PIECES)?;
    let rows = rows(plan, source, &kept, &program.layouts, &mut report)?;
    let metadata = metadata(plan, source, options);
    let mut patches = Vec::new();
    for (path, rows) in paths.iter().zip(&rows) {
        let before = journal::head(path)?;
        let unpadded = placed_header(rows, &metadata)?;
        let len = path.metadata().map_err(|error| Error::io("cannot look at", path, error))?.len();
        let grow = match (unpadded.len() as u64).checked_sub(before.len() as u64) {
            None | Some(0) => 0,
            Some(missing) => missing.next_multiple_of(journal::block(path)?),
        };
        let room = before.len() as u64 + grow;
        if room > MAX_HEADER_LEN {
            return Err(Error::new(ErrorKind::Limit, "the header would exceed the format's limit")
                .in_file(path));
        }
        let mut after = unpadded;
        after.push_str(&" ".repeat(usize::try_from(room).unwrap_or(0).saturating_sub(after.len())));
        let bytes: u64 = rows.iter().map(|(_, _, [begin, end])| end - begin).sum();
        *report.lanes.entry(if grow > 0 { Lane::Grown } else { Lane::InPlace }).or_default() +=
            bytes;
        if after == before {
            continue;
        }
        report.bytes_written += after.len() as u64 + 8;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the file's name is not UTF-8").in_file(path)
        })?;
        report.files.push(name.to_owned());
        patches.push(Patch { name: name.to_owned(), len, grow, before, after });
    }
    let index = new_index(&directory, source, &rows)?;
    if let Some(index) = &index {
        report.bytes_written += index.after.len() as u64;
        report.files.push(index.name.clone());
    }
    // Also against another change in place that has come and gone since the headers were read.
    source.is_as_read()?;
    not_cancelled(options.cancel)?;
    if !patches.is_empty() || index.is_some() {
        Journal::new(patches, index).carry_out(&directory)?;
    }
    report.lanes.retain(|_, bytes| *bytes > 0);
    report.peak_memory = peak_memory();
    report.complete = true;
    Ok(report)
}

/// Only these files have a header that can be changed.
fn only_safetensors(source: &Checkpoint) -> Result<()> {
    let other = source.paths().zip(source.formats()).find(|(_, it)| *it != Format::Safetensors);
    let Some((path, format)) = other else { return Ok(()) };
    let what = format!("this is a file of {format}; only safetensors files are changed in place");
    let error = Error::new(ErrorKind::Unsupported, what).in_file(path);
    Err(error.hint("give an output: -o"))
}

fn metadata(
    plan: &Plan,
    source: &Checkpoint,
    options: &PatchOptions<'_>,
) -> BTreeMap<String, String> {
    carried(
        plan,
        source.header(),
        &options.metadata.cloned().unwrap_or_default(),
        options.ties.into(),
    )
}

/// The lane of each file and the bytes that stay in it, if [`patch`] would carry the plan out as
/// far as headers, names and the index say.
pub(super) fn stay(
    plan: &Plan,
    source: &Checkpoint,
    options: &PatchOptions<'_>,
    kept: &[usize],
    layouts: &[Arc<Layout>],
) -> Option<Vec<FileLanes>> {
    only_safetensors(source).ok()?;
    let paths: Vec<PathBuf> = source.paths().map(Path::to_owned).collect();
    let directory = one_directory(&paths).ok()?;
    paths.iter().try_for_each(|path| refuse_shared(path, options.insist)).ok()?;
    let rows = rows(plan, source, kept, layouts, &mut Report::default()).ok()?;
    new_index(&directory, source, &rows).ok()?;
    let metadata = metadata(plan, source, options);
    let file = |(at, rows): (usize, &Vec<Row>)| {
        let after = placed_header(rows, &metadata)
            .ok()
            .filter(|after| after.len() as u64 <= MAX_HEADER_LEN)?;
        // Data follows the header and the eight bytes of its length. Where there is none, there may
        // be room or not.
        let data = source
            .header()
            .tensors
            .values()
            .filter_map(|entry| entry.location)
            .filter(|l| l.file as usize == at)
            .map(|l| l.offset)
            .min();
        let grows = data.is_some_and(|data| data < after.len() as u64 + 8);
        let bytes = rows.iter().map(|(_, _, [begin, end])| end - begin).sum();
        let lane = if grows { Lane::Grown } else { Lane::InPlace };
        Some(FileLanes {
            name: source.header().files.get(at)?.clone(),
            bytes: BTreeMap::from([(lane, bytes)]),
        })
    };
    rows.iter().enumerate().map(file).collect()
}

/// All files lie in one directory, where the journal goes.
fn one_directory(paths: &[PathBuf]) -> Result<PathBuf> {
    let parent = |path: &PathBuf| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let directory = paths
        .first()
        .map(parent)
        .ok_or_else(|| Error::new(ErrorKind::Unsupported, "a manifest has no files to change"))?;
    match paths.iter().find(|path| parent(path) != directory) {
        Some(other) => Err(Error::new(
            ErrorKind::Unsupported,
            "in place, all files have to lie in one directory",
        )
        .in_file(other)),
        None => Ok(directory),
    }
}

fn refuse_shared(path: &Path, insist: bool) -> Result<()> {
    let found =
        path.symlink_metadata().map_err(|error| Error::io("cannot look at", path, error))?;
    let why = if found.file_type().is_symlink() {
        "a symbolic link: the file it leads to is others' too"
    } else if found.nlink() > 1 {
        "the file has other names (hard links), under which it would change too"
    } else if found.permissions().readonly() {
        "the file is read-only"
    } else {
        return Ok(());
    };
    if insist {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, why)
        .in_file(path)
        .hint("write to an output instead, or insist with --force"))
}

/// What each file is going to hold.
fn rows(
    plan: &Plan,
    source: &Checkpoint,
    kept: &[usize],
    layouts: &[Arc<Layout>],
    report: &mut Report,
) -> Result<Vec<Vec<Row>>> {
    let needs = |key: &str, why: &str| {
        let error = Error::new(ErrorKind::Unsupported, format!("not in place: {why}")).at_key(key);
        error.hint("name an output; in place, only keys, shapes and metadata change")
    };
    let header = source.header();
    let mut rows: Vec<Vec<Row>> = header.files.iter().map(|_| Vec::new()).collect();
    let mut starts = vec![u64::MAX; rows.len()];
    for location in header.tensors.values().filter_map(|entry| entry.location) {
        if let Some(start) = starts.get_mut(location.file as usize) {
            *start = (*start).min(location.offset);
        }
    }
    let mut used = BTreeSet::new();
    for (at, layout) in kept.iter().zip(layouts) {
        let target = &plan.targets[*at];
        let key = straight(plan, target.node, layout)
            .ok_or_else(|| needs(&target.key, "its elements would have to be moved or computed"))?;
        let entry = header
            .tensors
            .get(key)
            .ok_or_else(|| Error::corrupt("the checkpoint has no such key").at_key(key.as_str()))?;
        let location = entry.location.ok_or_else(|| needs(key, "a manifest has no bytes"))?;
        let info = plan.info(target);
        if info.nbytes() != Some(location.len) {
            return Err(needs(&target.key, "its elements would have to be moved or computed"));
        }
        if !used.insert(key) {
            return Err(needs(&target.key, "one tensor would be written under two keys"));
        }
        let (Some(rows), Some(start)) =
            (rows.get_mut(location.file as usize), starts.get(location.file as usize))
        else {
            return Err(Error::corrupt("a tensor lies in no file").at_key(key.as_str()));
        };
        let begin = location
            .offset
            .checked_sub(*start)
            .ok_or_else(|| Error::corrupt("a tensor lies before the data").at_key(key.as_str()))?;
        rows.push((target.key.clone(), info.clone(), [begin, begin + location.len]));
        report.aliased += 1;
        report.bytes_aliased += location.len;
    }
    if let Some(key) = header.tensors.keys().find(|key| !used.contains(key)) {
        return Err(needs(key, "it would be dropped, and a file has no holes"));
    }
    for rows in &mut rows {
        rows.sort_by_key(|(.., span)| *span);
    }
    Ok(rows)
}

/// The source of which a target is the same bytes.
fn straight<'a>(plan: &'a Plan, node: crate::plan::NodeId, layout: &Layout) -> Option<&'a Key> {
    let leaf = match &layout.pieces[..] {
        // Without elements, by whatever way it came.
        [] => {
            let mut node = node;
            while let [input] = plan.node(node).inputs[..] {
                node = input;
            }
            node
        }
        [piece] => {
            let lane = piece.operands.first()?;
            let whole = lane.offset == 0 && piece.target.offset == 0 && piece.is_run();
            (whole && piece.value.is_copy()).then_some(piece.value.leaves.first()?.node)?
        }
        _ => return None,
    };
    match &plan.node(leaf).op {
        Op::Source { key } => Some(key),
        _ => None,
    }
}
