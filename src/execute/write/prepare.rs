//! The first phase: everything that can be refused is refused, and what each file will hold is laid
//! out. Nothing is written.

use std::collections::HashSet;
use std::path::Path;

use super::WriteOptions;
use super::place::Spot;
use super::shards::{self, Files, Shards, Written, lay_out};
use super::share::{can_share, phases};
use super::tied::{kept, metadata};
use crate::error::{Error, ErrorKind, Result};
use crate::execute::fuse::compile::{AsStored, Program, compile};
use crate::execute::fuse::layout::MAX_PIECES;
use crate::execute::leaves::StoreLeaves;
use crate::key::Key;
use crate::plan::Plan;
use crate::seal::JsonHasher;
use crate::store::{Identity, Store};

/// What is to be written, and where.
pub(super) struct Prepared<'a> {
    pub(super) plan: &'a Plan,
    pub(super) source: &'a dyn Store,
    pub(super) options: &'a WriteOptions<'a>,
    /// What the source is, if that can be known.
    pub(super) identity: Option<Identity>,
    pub(super) spot: Spot,
    /// Whether the output is one file instead of a directory.
    pub(super) is_file: bool,
    pub(super) program: Program,
    /// The tensors that are written; each has the program's layout of its number.
    pub(super) tensors: Vec<Written<'a>>,
    pub(super) shards: Shards,
    /// The files that this process writes.
    pub(super) own: Vec<usize>,
    /// Whether blocks can be shared with the source.
    pub(super) share: bool,
    /// What is done, as text: equal for runs whose results are equal.
    pub(super) work: String,
}

/// Prepares a run.
///
/// # Errors
/// As [`write`](super::write()), all that don't come of reading and writing tensors.
pub(super) fn prepare<'a>(
    plan: &'a Plan,
    source: &'a dyn Store,
    out: &Path,
    options: &'a WriteOptions<'a>,
) -> Result<Prepared<'a>> {
    let is_file = is_file(out);
    let identity = source.identity();
    if options.rank.is_some() && identity.is_none() {
        let error = Error::new(
            ErrorKind::Unsupported,
            "several processes can't write together what they don't know to be one source",
        );
        return Err(error.in_file(out).hint("give each of them the checkpoint's files; tensors in memory are written by one process"));
    }
    if options.rank_files.is_some() && (is_file || options.single) {
        let error =
            Error::new(ErrorKind::Unsupported, "the files of ranks are not written as one file");
        return Err(error.in_file(out).hint("name a directory, in which each rank gets a file"));
    }
    let spot = Spot::find(out, is_file, options.force, &options.protect, options.rank.is_some())?;
    let targets = targets(plan, out, options)?;
    let program = compile(plan, &AsStored(source), &targets, MAX_PIECES)?;
    each_key_once(plan)?;
    let metadata = metadata(plan, source, &options.metadata, options.into());
    let tensors = shards::written(plan, &targets);
    let leaves = StoreLeaves::new(plan, source, &program);
    let share = can_share(&leaves, &program.layouts, spot.parent())?;
    let phases =
        |item: usize| if share { phases(&leaves, program.layouts.get(item)) } else { Vec::new() };
    let into = match &options.rank_files {
        Some(files) => Files::Ranks(files),
        None => sized(out, options),
    };
    let shards = lay_out(&tensors, into, &metadata, &phases)?;
    let own = options
        .rank
        .map_or_else(|| (0..shards.files.len()).collect(), |rank| rank.share(&shards.files));
    let work = work(plan, identity.as_ref(), &shards, options)?;
    Ok(Prepared {
        plan,
        source,
        options,
        identity,
        spot,
        is_file,
        program,
        tensors,
        shards,
        own,
        share,
        work,
    })
}

/// Whether an output is one file instead of a directory.
pub(super) fn is_file(out: &Path) -> bool {
    out.extension().is_some_and(|extension| extension == "safetensors")
}

/// The targets that are written.
///
/// # Errors
/// If there is none.
pub(super) fn targets(plan: &Plan, out: &Path, options: &WriteOptions<'_>) -> Result<Vec<usize>> {
    let targets = kept(plan, options.into());
    if targets.is_empty() {
        let error = Error::new(ErrorKind::Unsupported, "nothing to write: the result has no key");
        return Err(error.in_file(out));
    }
    Ok(targets)
}

/// Files of an output that are as large as the options let them be.
pub(super) fn sized<'a>(out: &'a Path, options: &WriteOptions<'_>) -> Files<'a> {
    let is_file = is_file(out);
    let limit = if is_file || options.single { None } else { options.max_shard_size };
    let name = out.file_name().and_then(|name| name.to_str()).filter(|_| is_file);
    Files::Sized { limit, name: name.unwrap_or("model.safetensors") }
}

/// Two shards could each hold one of two equal keys without either noticing.
fn each_key_once(plan: &Plan) -> Result<()> {
    let mut keys: HashSet<&Key, foldhash::fast::RandomState> = HashSet::default();
    match plan.targets.iter().find(|target| !keys.insert(&target.key)) {
        Some(twice) => Err(Error::corrupt("the plan is inconsistent: two targets have one key")
            .at_key(twice.key.as_str())),
        None => Ok(()),
    }
}

/// What a run does, as text: equal for runs whose results are equal, so that one may continue what
/// the other began.
fn work(
    plan: &Plan,
    identity: Option<&Identity>,
    shards: &Shards,
    options: &WriteOptions<'_>,
) -> Result<String> {
    let mut hasher = JsonHasher::default();
    let failed = |error: serde_json::Error| {
        Error::corrupt(format!("cannot write the plan as JSON: {error}"))
    };
    for target in &plan.targets {
        hasher.add(&(&target.key, target.node)).map_err(failed)?;
    }
    hasher.add(&plan.nodes).map_err(failed)?;
    for shard in &shards.files {
        hasher.add_bytes(shard.name.as_bytes());
        hasher.add_bytes(&shard.header);
    }
    if let Some(identity) = identity {
        hasher.add_bytes(identity.as_bytes());
    }
    // Ranks put one output together, so they have to agree on what is in it; a single run may be
    // continued with checksums or without.
    let together = options.rank.map(|rank| (rank.world_size, options.checksums));
    hasher.add(&(&options.side_files, together)).map_err(failed)?;
    Ok(format!("{{\"regraft\":1,\"work\":\"{}\"}}\n", hasher.finish().to_hex()))
}
