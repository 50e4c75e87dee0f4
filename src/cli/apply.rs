//! `regraft apply`: converts a checkpoint into new files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use regraft::error::Error;
use regraft::execute::{Progress, Report, Ties, WriteOptions, write};
use regraft::plan::{Plan, RECORD_FILE, Verdict};
use regraft::store::{Store as _, side_files};
use serde_json::json;

use super::console::{Console, has_findings};
use super::conversion::{Conversion, Prepared};
use super::size::Size;
use super::summary::counted;
use super::{Failure, Outcome, Result, summary};

/// Convert a checkpoint into new files
///
/// Config, tokenizer and other side files are carried along. The output appears whole or not at all; the source is only read.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regraft apply mixtral-8x7b/ -o packed/                       rules by config.json, hub -> model
  regraft apply packed/ -o again/ --from model --to hub        and back
  regraft apply model.safetensors -o renamed.safetensors --rules my.graft --set heads=32
  regraft apply ckpt/ --rules my.graft --dry-run")]
pub(super) struct Arguments {
    /// A safetensors file, a directory, or an index; several count as one checkpoint
    #[arg(required = true, value_name = "SRC")]
    sources: Vec<PathBuf>,

    /// The directory to make; or a file, if its name ends with .safetensors
    #[arg(long, short, value_name = "DST", required_unless_present = "dry_run")]
    output: Option<PathBuf>,

    #[command(flatten)]
    conversion: Conversion,

    /// Whether tied tensors are written once or under each key
    #[arg(long, value_name = "HOW", default_value = "alias", help_heading = "Output")]
    ties: TiesArgument,

    /// Most bytes of tensors in one file
    #[arg(long, value_name = "SIZE", default_value = "5GB", help_heading = "Output")]
    max_shard_size: Size,

    /// Replace an output that is there
    #[arg(long, help_heading = "Output")]
    force: bool,

    /// Most memory for buffers
    #[arg(long, value_name = "SIZE", default_value = "64MiB", help_heading = "Output")]
    memory: Size,

    /// Write regraft.json beside the output: with it, the way back restores what rules alone can't know (old names, prefixes)
    #[arg(long, help_heading = "Output")]
    record: bool,

    /// Show what would be done, and write nothing
    #[arg(long, help_heading = "Output")]
    dry_run: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum TiesArgument {
    /// Only the source of a tie is written
    Alias,
    /// Each key is written
    Materialize,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Outcome> {
    let start = Instant::now();
    let prepared = arguments.conversion.prepare(&arguments.sources, console)?;
    if !prepared.checkpoint.has_bytes() && !arguments.dry_run {
        return Err(Failure::Usage("a manifest has no tensors to convert; `regraft plan` takes it".to_owned()));
    }
    let plan = prepared.plan(true)?;
    console.findings(&prepared.findings);
    console.findings(&plan.findings);
    let outcome = Outcome::findings(has_findings(&plan.findings));
    let Some(output) = arguments.output.as_deref().filter(|_| !arguments.dry_run) else {
        if console.json {
            console.json(&plan)?;
        } else {
            console.out(&format!("rules: {}\n\n", prepared.rules()))?;
            console.out(&summary::plan(&plan, prepared.checkpoint.header(), false))?;
        }
        return Ok(outcome);
    };
    let report = write_files(arguments, &prepared, &plan, output, console)?;
    let seconds = start.elapsed().as_secs_f64();
    if console.json {
        let rules = prepared.route.describe();
        let rules: Vec<_> = rules.iter().map(|(name, direction)| json!({ "name": name, "direction": direction })).collect();
        console.json(&json!({
            "output": output,
            "rules": rules,
            "verdict": plan.verdict,
            "tied": plan.tied,
            "keys": plan.targets.len(),
            "report": report,
            "keys_report": plan.report,
            "findings": prepared.findings.iter().chain(&plan.findings).collect::<Vec<_>>(),
            "seconds": seconds,
        }))?;
    } else if !console.quiet {
        console.out(&describe(&prepared, &plan, &report, output, seconds))?;
    }
    Ok(outcome)
}

fn write_files(arguments: &Arguments, prepared: &Prepared, plan: &Plan, output: &Path, console: Console) -> Result<Report> {
    let mut side = Vec::new();
    for source in arguments.sources.iter().filter(|source| source.is_dir()) {
        side.extend(side_files(source, &arguments.conversion.open_options())?);
    }
    // A record tells of the conversion that made the source, not of this one.
    side.retain(|path| path.file_name().is_none_or(|name| name != RECORD_FILE));
    let scratch = tempfile::tempdir().map_err(|error| Error::io("cannot make a temporary directory for", output, error))?;
    if arguments.record {
        let path = scratch.path().join(RECORD_FILE);
        std::fs::write(&path, prepared.record(plan)?).map_err(|error| Error::io("cannot write", &path, error))?;
        side.push(path);
    }
    let cancel = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let registered = signal_hook::flag::register(signal, Arc::clone(&cancel));
        registered.map_err(|error| Error::io("cannot watch for signals while writing", output, error))?;
    }
    let bar = console.shows_progress().then(bar);
    let progress = |progress: Progress| {
        if let Some(bar) = &bar {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
    };
    let options = WriteOptions {
        max_shard_size: Some(arguments.max_shard_size.0),
        ties: match arguments.ties {
            TiesArgument::Alias => Ties::Alias,
            TiesArgument::Materialize => Ties::Materialize,
        },
        force: arguments.force,
        side_files: side,
        protect: prepared.protected(&arguments.sources),
        memory: arguments.memory.0,
        progress: Some(&progress),
        cancel: Some(&cancel),
        ..WriteOptions::default()
    };
    let result = write(plan, &prepared.checkpoint, output, &options);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(result?)
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left");
    let bar = ProgressBar::new(0);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// What was done, for people.
fn describe(prepared: &Prepared, plan: &Plan, report: &Report, output: &Path, seconds: f64) -> String {
    let mut lines = vec![format!("rules: {}", prepared.rules())];
    match plan.verdict {
        Some(Verdict::Already) => lines.push("in the target layout already: copied as it is".to_owned()),
        Some(Verdict::Neither) => lines.push("nothing to rewrite: keys pass through".to_owned()),
        Some(Verdict::Converts | Verdict::Mixed) | None => {}
    }
    lines.push(format!(
        "{}: {} copied ({}), {} transformed ({}), {} aliased ({})",
        counted(plan.targets.len() as u64, "key"),
        report.copied,
        Size(report.bytes_copied),
        report.transformed,
        Size(report.bytes_transformed),
        report.aliased,
        Size(report.bytes_aliased)
    ));
    lines.push(format!(
        "{} read, {} written to {} in {}, {seconds:.2} s",
        Size(report.bytes_read),
        Size(report.bytes_written),
        output.display(),
        counted(report.files.len() as u64, "file")
    ));
    lines.join("\n") + "\n"
}
