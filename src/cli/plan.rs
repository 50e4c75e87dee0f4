//! `regraft plan`: what `apply` would do, from headers alone.

use std::path::PathBuf;

use regraft::execute::WriteOptions;
use regraft::overview::Size;
use regraft::store::NamedPath;

use super::console::{Console, has_findings};
use super::conversion::ConversionArguments;
use super::report::{self, Facts, html_file};
use super::source::named_path;
use super::{Exit, Result, watch};

/// Show what converting a checkpoint would do, without reading a tensor
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regraft plan mixtral-8x7b/                        rules by config.json, hub -> model
  regraft plan header.json --rules deepseek_v3      a manifest (key -> [dtype, shape]) is enough
  regraft plan mixtral-8x7b/ --html plan.html     the same as a page, with the graph
  regraft plan out/ --from model --to hub --compare
  regraft plan llama/ --target stage0.json,stage1.json --rank 1")]
pub(super) struct Arguments {
    /// A file of safetensors, torch.save or NumPy, a directory, an index, or a manifest; several
    /// count as one checkpoint, and `NAME=SRC` puts `NAME.` before its keys
    #[arg(required = true, value_name = "[NAME=]SRC", value_parser = named_path(), value_hint = clap::ValueHint::AnyPath)]
    sources: Vec<NamedPath>,

    #[command(flatten)]
    conversion: ConversionArguments,

    /// Read and compare the bytes of tied tensors, as apply does
    #[arg(long)]
    compare: bool,

    /// Most bytes of tensors in one file, as apply would write them
    #[arg(long, value_name = "SIZE", default_value = "5GB")]
    max_shard_size: Size,

    /// Plan again whenever a rule file that `--rules` names, one beside it, or the `--config` changes, until it is interrupted
    #[arg(long)]
    watch: bool,

    /// List the keys that stay as they are, and each file, too
    #[arg(long)]
    all: bool,

    /// Write all of it as one page, too, to look at and to attach to a pull request
    #[arg(long, value_name = "FILE", value_parser = html_file)]
    html: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    if arguments.watch {
        let files = arguments.conversion.files();
        return watch::run(&files, console, || once(arguments, console));
    }
    once(arguments, console)
}

fn once(arguments: &Arguments, console: Console) -> Result<Exit> {
    let prepared = arguments.conversion.prepare(&arguments.sources, console)?;
    let planned = if arguments.compare { prepared.plan() } else { prepared.plan_by_headers() }?;
    let options = WriteOptions {
        max_shard_size: Some(arguments.max_shard_size.0),
        ..WriteOptions::default()
    };
    let lanes = prepared.has_bytes().then(|| planned.lanes(&options)).transpose()?;
    let findings = &planned.plan.findings;
    if !console.json {
        console.findings(&prepared.findings);
        console.findings(findings);
    }
    if let Some(path) = &arguments.html {
        let facts = Facts { sources: &arguments.sources, planned: &planned, lanes: lanes.as_ref() };
        report::write(path, &report::page(&facts, &prepared.findings, false))?;
    }
    arguments.conversion.show(&planned, lanes.as_ref(), arguments.all, console)?;
    let exit = Exit::findings(has_findings(findings));
    if arguments.watch {
        return Ok(exit);
    }
    // The process ends here: taking a plan of 90,000 keys apart first would be a tenth of the
    // command's time.
    std::mem::forget((prepared, planned));
    Ok(exit)
}
