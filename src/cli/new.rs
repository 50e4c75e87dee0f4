//! `regraft new`: a first rule file from a checkpoint and a target.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use regraft::conversion::{Conversion, Goal};
use regraft::error::{Error, ErrorKind};
use regraft::overview::counted;
use regraft::propose::{Proposal, propose};
use regraft::store::{NamedPath, OpenOptions, Store as _, open_named};
use regraft::tensor::Wanted;
use serde_json::json;

use super::console::Console;
use super::source::named_path;
use super::{Exit, Failure, Result};

/// Write a first rule file from a checkpoint and the keys that it should have
///
/// Names, numbers and shapes decide which key becomes which. What they don't decide is a comment in
/// the file, and how much of the target the rules reach is said.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regraft new mine.safetensors --target theirs.safetensors -o mine.graft
  regraft new checkpoint/ --target model_keys.json > mine.graft
  regraft test mine.graft && regraft plan checkpoint/ --rules mine.graft --target model_keys.json")]
pub(super) struct Arguments {
    /// A checkpoint, or a manifest; several count as one checkpoint, and `NAME=SRC` puts `NAME.`
    /// before its keys
    #[arg(required = true, value_name = "[NAME=]SRC", value_parser = named_path(), value_hint = clap::ValueHint::AnyPath)]
    sources: Vec<NamedPath>,

    /// What the result should have: a checkpoint, an index, a manifest, or a list of keys
    #[arg(long, value_name = "FILE", required = true)]
    target: PathBuf,

    /// The file to write [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// The name that the rule file gives itself [default: that of the output]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    if let Some(path) = arguments.output.as_deref().filter(|path| path.exists()) {
        return Err(Error::new(ErrorKind::Exists, "the file is there already")
            .in_file(path)
            .into());
    }
    let options = OpenOptions { strict: false, ..OpenOptions::default() };
    let checkpoint = Arc::new(open_named(&arguments.sources, None, &options)?);
    let wanted = Wanted::read(&arguments.target)?;
    let stem = arguments.output.as_deref().and_then(|path| path.file_stem());
    let stem = stem.map(|stem| stem.to_string_lossy());
    let name = name(arguments.name.as_deref().or(stem.as_deref()).unwrap_or("mine"));
    let proposal = propose(checkpoint.header(), &wanted, &name);
    let paths: Vec<&Path> = arguments.sources.iter().map(|one| one.path.as_path()).collect();
    let conversion = Conversion::of_checkpoint(checkpoint, &paths, false);
    let reached = reached(conversion, &proposal, &wanted)?;
    match &arguments.output {
        Some(path) => std::fs::write(path, &proposal.text)
            .map_err(|error| Error::io("cannot write", path, error))?,
        None if !console.json => console.out(&proposal.text)?,
        None => {}
    }
    if console.json {
        console.json(&json!({
            "text": proposal.text,
            "rules": proposal.rules,
            "unsure": proposal.unsure,
            "reached": reached,
            "wanted": wanted.keys.len(),
            "missing": proposal.missing,
            "left": proposal.left,
        }))?;
    } else {
        console.note(&told(&proposal, reached, wanted.keys.len()));
        console.note("note: names and shapes don't tell whether values were permuted or scaled: compare what both models give once");
    }
    let whole = reached == wanted.keys.len() && proposal.unsure == 0 && proposal.left.is_empty();
    Ok(Exit::findings(!whole))
}

/// A name that a rule file can have.
fn name(wish: &str) -> String {
    let kept: String =
        wish.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if kept.starts_with(|c: char| c.is_ascii_alphabetic()) { kept } else { format!("_{kept}") }
}

/// How many keys of the target the rules make, with its dtypes and shapes.
fn reached(conversion: Conversion, proposal: &Proposal, wanted: &Wanted) -> Result<usize> {
    let rules = regraft::compile(&proposal.text).map_err(Failure::Rules)?;
    let planned = conversion
        .rules([rules])
        .target(Goal::whole(wanted.clone()))
        .strict(false)
        .prepare()?
        .plan_by_headers();
    let planned = match planned {
        Ok(planned) => planned,
        // They don't fit even the checkpoint that they were made from.
        Err(regraft::Failure::Rules(_)) => return Ok(0),
        Err(failure) => return Err(failure.into()),
    };
    let plan = &planned.plan;
    let fits = |key: &str| {
        let Some(target) = plan.target(key) else { return false };
        wanted.get(key).is_none_or(|info| info.shape == plan.info(target).shape)
    };
    Ok(wanted.keys.keys().filter(|key| fits(key.as_str())).count())
}

fn told(proposal: &Proposal, reached: usize, wanted: usize) -> String {
    let mut told = format!(
        "{}: {reached} of {} of the target",
        counted(proposal.rules as u64, "rule"),
        counted(wanted as u64, "key")
    );
    if proposal.unsure > 0 {
        told.push_str(&format!(
            "; {} unsure, marked in the file",
            counted(proposal.unsure as u64, "rule")
        ));
    }
    if !proposal.left.is_empty() {
        told.push_str(&format!("; nothing takes {}", counted(proposal.left.len() as u64, "key")));
    }
    told
}
