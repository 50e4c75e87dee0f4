//! Several processes write one output, each what it has in memory of the sources: the parts of a
//! sharded model go to their places in the files at once, and nobody holds a tensor whole.
//!
//! One process begins the output: it makes every file, of its full size, with its header, in a hidden
//! place. All write their parts there. The one that began it lets it appear when all are done, or
//! drops it, and nothing is left.
//!
//! A source is compiled as two kinds of boxes, those that this process has and what is left of it,
//! and of the pieces of a target those are written that only read the first.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::WriteOptions;
use super::appear::{copy_side_files, write_small};
use super::begin::begin;
use super::partial::{Here, Partial};
use super::prepare::{is_file, prepare, sized, targets};
use super::seal::handing_on;
use super::shards::{self, INDEX, Shards, lay_out};
use super::staging::{Staging, sync};
use super::stream::{OutFile, Output, Pool, budget};
use super::tied::metadata;
use crate::error::{Error, ErrorKind, Result};
use crate::execute::fuse::compile::{AsStored, Layout, Leaf, Program, Value, compile};
use crate::execute::fuse::gather::outside;
use crate::execute::fuse::layout::{MAX_PIECES, Piece};
use crate::execute::leaves::StoreLeaves;
use crate::execute::{Report, not_cancelled, temporary};
use crate::key::Key;
use crate::plan::{Node, NodeId, Op, Plan};
use crate::tensor::{Header, Shape};

/// A box of a source that this process has in memory.
#[derive(Clone, Debug)]
pub struct SourceBox<'a> {
    /// The source.
    pub key: String,
    /// Its first element along each dimension.
    pub start: Shape,
    /// How many elements it has along each dimension.
    pub shape: Shape,
    /// The bytes from its first to its last element.
    pub bytes: &'a [u8],
    /// How far one step along each dimension goes in these, in elements.
    pub strides: Shape,
}

/// What an output will be that several processes write: which tensors lie where in which file. Equal
/// in all of them, since it follows from the plan.
pub struct Outline {
    shards: Shards,
    is_file: bool,
    /// By the number of a target of the plan, its file and where it begins there.
    places: HashMap<usize, (usize, u64)>,
    sync: bool,
    memory: u64,
}

/// An output that has been begun, by the process that lets it appear.
pub struct Parted {
    staging: Staging,
    side_files: Vec<PathBuf>,
}

impl Outline {
    /// Lays files out for a plan over sources of which only the header is known.
    ///
    /// # Errors
    /// If there is nothing to write, or a header would exceed the format's limit.
    pub fn new(
        plan: &Plan,
        header: &Header,
        out: &Path,
        options: &WriteOptions<'_>,
    ) -> Result<Self> {
        let targets = targets(plan, out, options)?;
        let nobody = Partial::new(header, &[])?;
        let metadata = metadata(plan, &nobody, &options.metadata, options.into());
        let tensors = shards::written(plan, &targets);
        let shards = lay_out(&tensors, sized(out, options), &metadata, &|_| Vec::new())?;
        let mut places = HashMap::new();
        for (file, shard) in shards.files.iter().enumerate() {
            for (item, start) in &shard.tensors {
                places.insert(*targets.get(*item).ok_or_else(outside)?, (file, *start));
            }
        }
        Ok(Self {
            shards,
            is_file: is_file(out),
            places,
            sync: options.sync,
            memory: options.memory,
        })
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.shards.files.iter().map(|file| file.len - file.header.len() as u64).sum()
    }

    /// Makes the files in a hidden place beside the output.
    ///
    /// # Errors
    /// As [`write`](super::write()), all that don't come of reading tensors.
    pub fn begin(
        &self,
        plan: &Plan,
        header: &Header,
        out: &Path,
        options: &WriteOptions<'_>,
    ) -> Result<Parted> {
        let nobody = Partial::new(header, &[])?;
        let prepared = prepare(plan, &nobody, out, options)?;
        let staging = begin(&prepared)?.ok_or_else(outside)?.staging;
        for shard in &self.shards.files {
            staging.begin_file(shard, true)?;
        }
        Ok(Parted { staging, side_files: options.side_files.clone() })
    }

    /// Writes what the targets have of some boxes of sources into the files that were begun in
    /// `into`. One process of all says `rest`, and writes what is made from no source, too.
    ///
    /// # Errors
    /// If a value is computed from elements that this process has and others that it doesn't, the
    /// plan is inconsistent, or writing fails. The output is then not to appear.
    pub fn write(
        &self,
        plan: &Plan,
        header: &Header,
        parts: &[SourceBox<'_>],
        rest: bool,
        into: &Path,
        cancel: Option<&AtomicBool>,
    ) -> Result<Report> {
        let source = Partial::new(header, parts)?;
        let fed = fed(plan, parts, rest);
        let mut targets: Vec<usize> = self
            .places
            .keys()
            .copied()
            .filter(|at| fed.contains(&plan.targets[*at].node))
            .collect();
        targets.sort_unstable();
        let program = compile(plan, &AsStored(&source), &targets, MAX_PIECES)?;
        let mut leaves = StoreLeaves::new(plan, &source, &program);
        let mut report = Report::default();
        let owners = owners(plan, &program, &source, rest);
        let whole_here =
            owners.iter().filter(|(_, owner)| **owner == Owner::This).map(|(node, _)| *node);
        let before = temporary::evaluate_all(&mut leaves, whole_here, cancel, &mut report)?;
        let mut files = BTreeMap::new();
        let (mut whole, mut partly) = (Vec::new(), Vec::new());
        for (target, layout) in targets.iter().zip(&program.layouts) {
            let key = &plan.targets[*target].key;
            let own =
                own(&leaves, layout, &owners, rest).map_err(|error| error.at_key(key.as_str()))?;
            if own.is_empty() {
                continue;
            }
            let (file, start) = *self.places.get(target).ok_or_else(outside)?;
            let file = self.open(file, into, &mut files)?;
            let is_whole = own.len() == layout.pieces.len();
            let layout = Arc::new(Layout { pieces: own, ..Layout::clone(layout) });
            let overflowed = AtomicU64::new(layout.overflowed_before(&before));
            let output = Output { layout, key: key.to_string(), file, start, overflowed };
            if is_whole { whole.push(output) } else { partly.push(output) }
        }
        let files: Vec<Arc<OutFile>> = files.into_values().collect();
        let mut pool = Pool::new(&leaves, budget(self.memory), 0);
        pool.cancel = cancel;
        let mut run = || {
            pool.run(&whole)?;
            // What lies between the elements of a part is another process's: it isn't written over.
            pool.long_run = 0;
            pool.run(&partly)
        };
        if self.sync {
            handing_on(&files, run)?
        } else {
            run()?
        }
        for output in whole.iter().chain(&partly) {
            let target = output.key.as_str().into();
            report.overflow(&target, output.overflowed.load(Ordering::Relaxed));
            let bytes = output.layout.pieces.iter().map(Piece::volume).sum::<u64>();
            report.made(output.layout.is_copy(), bytes.saturating_mul(output.layout.size));
        }
        report.bytes_written = pool.written.load(Ordering::Relaxed);
        if self.sync {
            files.iter().try_for_each(|file| file.sync())?;
        }
        Ok(report)
    }

    fn open(
        &self,
        number: usize,
        into: &Path,
        files: &mut BTreeMap<usize, Arc<OutFile>>,
    ) -> Result<Arc<OutFile>> {
        if let Some(file) = files.get(&number) {
            return Ok(Arc::clone(file));
        }
        let shard = self.shards.files.get(number).ok_or_else(outside)?;
        let path = if self.is_file { into.to_owned() } else { into.join(&shard.name) };
        let opened = std::fs::File::options().read(true).write(true).open(&path);
        let file = opened.map_err(|error| Error::io("cannot open", &path, error))?;
        let mut header = vec![0; shard.header.len()];
        let read = file.read_exact_at(&mut header, 0);
        if read.is_err() || header != shard.header {
            let error = Error::corrupt("the file was begun for other tensors than these");
            return Err(error
                .in_file(&path)
                .hint("all processes must have the same model, rules and options"));
        }
        let file = OutFile::new(file, path, u64::MAX);
        files.insert(number, Arc::clone(&file));
        Ok(file)
    }
}

impl Parted {
    /// Where the files are that all processes write to.
    pub fn place(&self) -> &Path {
        &self.staging.path
    }

    /// A place for what the processes tell each other, which goes with the hidden place.
    pub fn aside(&self, name: &str) -> PathBuf {
        self.staging.aside(name)
    }

    /// Adds what is beside the files, and lets the output appear, unless `cancel` is set by then:
    /// what was begun goes then.
    ///
    /// # Errors
    /// If something has appeared in its place meanwhile, it is cancelled, or the system fails.
    pub fn finish(self, outline: &Outline, cancel: Option<&AtomicBool>) -> Result<Report> {
        let mut report = Report::default();
        if outline.sync {
            for shard in &outline.shards.files {
                sync(&self.staging.file(&shard.name))?;
            }
        }
        if let Some(index) = &outline.shards.index {
            write_small(&self.staging, INDEX, index, &mut report)?;
        }
        let names = outline.shards.files.iter().map(|shard| shard.name.as_str());
        if !outline.is_file {
            let names: BTreeSet<&str> = names.clone().collect();
            copy_side_files(&self.side_files, &names, &self.staging, &mut report, cancel)?;
        }
        report.files.splice(0..0, names.map(ToOwned::to_owned));
        report.bytes_written +=
            outline.shards.files.iter().map(|shard| shard.header.len() as u64).sum::<u64>();
        not_cancelled(cancel)?;
        self.staging.publish()?;
        report.complete = true;
        Ok(report)
    }
}

/// The nodes that are made from these sources, and with `rest` those that are made from none.
fn fed(plan: &Plan, parts: &[SourceBox<'_>], rest: bool) -> HashSet<NodeId> {
    let own: HashSet<&str> = parts.iter().map(|part| part.key.as_str()).collect();
    let (mut fed, mut sourced) = (HashSet::new(), HashSet::new());
    for (node, id) in plan.nodes.iter().zip((0..).map(NodeId)) {
        let is_source = source_of(node).is_some();
        let is_own = source_of(node).is_some_and(|key| own.contains(key.as_str()));
        let of = |set: &HashSet<NodeId>| node.inputs.iter().any(|input| set.contains(input));
        if is_source || of(&sourced) {
            sourced.insert(id);
        }
        // What is partly made from none may have such elements, as a padded tensor has.
        if is_own || of(&fed) || (rest && !is_source && !of(&sourced)) {
            fed.insert(id);
        }
    }
    fed
}

/// The source that a node is; one without elements is none, since nobody has any of it.
fn source_of(node: &Node) -> Option<&Key> {
    match &node.op {
        Op::Source { key } if !node.info.shape.contains(&0) => Some(key),
        _ => None,
    }
}

/// Who has what something is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    This,
    Others,
    /// Several processes have some of it, this one among them.
    Several,
}

/// Who evaluates each temporary: the process that has all of what it is made of.
fn owners(
    plan: &Plan,
    program: &Program,
    source: &Partial<'_>,
    rest: bool,
) -> HashMap<NodeId, Owner> {
    let mut owners = HashMap::new();
    for node in &program.temporaries {
        let below = plan.of_node(*node);
        let mut found: Option<Here> = None;
        for key in below.nodes.iter().filter_map(source_of) {
            let here = source.here(key.as_str());
            found = match found {
                Some(before) if before != here => Some(Here::Partly),
                _ => Some(here),
            };
        }
        let owner = match found {
            None if rest => Owner::This,
            None | Some(Here::Nothing) => Owner::Others,
            Some(Here::All) => Owner::This,
            Some(Here::Partly) => Owner::Several,
        };
        owners.insert(*node, owner);
    }
    owners
}

/// The pieces of a layout that this process writes.
fn own(
    leaves: &StoreLeaves<'_>,
    layout: &Layout,
    owners: &HashMap<NodeId, Owner>,
    rest: bool,
) -> Result<Vec<Piece<Value>>> {
    let owner = |leaf: &Leaf| match leaf.part {
        None => owners.get(&leaf.node).copied().ok_or_else(outside),
        Some(_) => {
            let (part, _) = leaves.part(*leaf).ok_or_else(outside)?;
            Ok(if Partial::has(part.blob) { Owner::This } else { Owner::Others })
        }
    };
    let mut own = Vec::new();
    for piece in &layout.pieces {
        let mut found = None;
        for leaf in &piece.value.leaves {
            let next = owner(leaf)?;
            if *found.get_or_insert(next) != next || next == Owner::Several {
                return Err(mixed());
            }
        }
        let default = if rest { Owner::This } else { Owner::Others };
        if found.unwrap_or(default) == Owner::This {
            own.push(piece.clone());
        }
    }
    Ok(own)
}

fn mixed() -> Error {
    let error = Error::new(
        ErrorKind::Unsupported,
        "its values are computed from elements that several processes hold",
    );
    error.hint("what is computed element by element from one tensor can be saved from shards; gather this one, or leave the step out")
}
