//! `regraft apply`: converts a checkpoint into new files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::ValueEnum;
use regraft::conversion::{Output, Planned};
use regraft::diagnostic::Diagnostic;
use regraft::error::{Error, ErrorKind};
use regraft::execute::{PatchOptions, Progress, Report, Ties, WriteOptions};
use regraft::overview::{Size, counted};
use regraft::plan::Verdict;
use regraft::store::{Checkpoint, NamedPath};
use serde_json::json;

use super::console::{Console, has_findings};
use super::conversion::{ConversionArguments, in_order};
use super::inspect::write_values;
use super::source::named_path;
use super::{Exit, Failure, Result, progress};

/// Convert a checkpoint into new files
///
/// Config, tokenizer and other side files are carried along. The output appears whole or not at
/// all; the source is only read.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regraft apply mixtral-8x7b/ -o packed/                       rules by config.json, hub -> model
  regraft apply packed/ -o again/ --from model --to hub        and back
  regraft apply model.safetensors -o renamed.safetensors --rules my.graft --set heads=32
  regraft apply ckpt/ --rules my.graft --in-place              only keys, shapes and metadata change
  mpirun -n 4 regraft apply big/ -o out/                       four processes, a share of the files each
  regraft apply ckpt/ --rules my.graft --dry-run
  regraft apply llama/ -o tp1/ --part '**.{q|k|v}_proj.weight[0, 1/4]' --part '**.o_proj.weight[1, 1/4]'
  RANK=3 regraft apply llama/ -o stage3/ --target s0.json,s1.json,s2.json,s3.json    a pipeline stage reads just its part")]
pub(super) struct Arguments {
    /// A file of safetensors, torch.save or NumPy, a directory, or an index; several count as one
    /// checkpoint, and `NAME=SRC` puts `NAME.` before its keys
    #[arg(required = true, value_name = "[NAME=]SRC", value_parser = named_path(), value_hint = clap::ValueHint::AnyPath)]
    sources: Vec<NamedPath>,

    /// The directory to make; or a file, if its name ends with .safetensors
    #[arg(long, short, value_name = "DST", required_unless_present_any = ["dry_run", "in_place"])]
    output: Option<PathBuf>,

    #[command(flatten)]
    conversion: ConversionArguments,

    /// Whether tied tensors are written once or under each key
    #[arg(long, value_name = "HOW", default_value = "alias", help_heading = "Output")]
    ties: TiesArgument,

    /// Most bytes of tensors in one file [default: 5GB]; the files of ranks are not parted
    #[arg(long, value_name = "SIZE", help_heading = "Output")]
    max_shard_size: Option<Size>,

    /// Replace an output that is there; in place, change linked and read-only files too
    #[arg(long, help_heading = "Output")]
    force: bool,

    /// Change the headers of the files themselves, if no tensor has to move
    #[arg(long, help_heading = "Output", conflicts_with_all = ["output", "resume", "checksums", "rank", "world_size"])]
    in_place: bool,

    /// Continue a run of the same work that was killed: finished files are checked, not written
    /// again
    #[arg(long, help_heading = "Output", conflicts_with_all = ["rank", "world_size"])]
    resume: bool,

    /// Write BLAKE3 checksums of files and tensors beside them, for `regraft verify`
    #[arg(long, help_heading = "Output")]
    checksums: bool,

    /// Don't wait until the output is durable
    #[arg(long, help_heading = "Output")]
    no_sync: bool,

    /// How to show how far the run is
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = "Output")]
    progress: progress::How,

    /// Most memory for buffers
    #[arg(long, value_name = "SIZE", default_value = "64MiB", help_heading = "Output")]
    memory: Size,

    /// Write regraft.json beside the output: with it, the way back restores what rules alone can't
    /// know (old names, prefixes)
    #[arg(long, help_heading = "Output")]
    record: bool,

    /// Write what files of torch.save hold besides tensors (epoch, arguments) as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    values: Option<PathBuf>,

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

impl TiesArgument {
    fn ties(self) -> Ties {
        match self {
            TiesArgument::Alias => Ties::Alias,
            TiesArgument::Materialize => Ties::Materialize,
        }
    }
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let start = Instant::now();
    if arguments.record && !arguments.conversion.part.is_empty() {
        let why = "a record is of whole tensors: what --part leaves out can't be turned back";
        return Err(Failure::Usage(why.to_owned()));
    }
    let prepared = arguments.conversion.prepare(&arguments.sources, console)?;
    if !prepared.has_bytes() && !arguments.dry_run {
        return Err(Failure::Usage(
            "a manifest has no tensors to convert; `regraft plan` takes it".to_owned(),
        ));
    }
    let planned = prepared.plan()?;
    console.findings(&prepared.findings);
    console.findings(&planned.plan.findings);
    let exit = Exit::findings(has_findings(&planned.plan.findings));
    if let (Some(files), Some(_)) = (planned.rank_files(), arguments.max_shard_size) {
        let why = format!("each rank's file is one ({files}), so --max-shard-size can't part it");
        return Err(Failure::Usage(why));
    }
    if arguments.dry_run {
        dry_run(arguments, &planned, prepared.has_bytes(), console)?;
        return Ok(exit);
    }
    if let Some(path) = arguments.values.as_deref().filter(|path| path.exists()) {
        return Err(Error::new(ErrorKind::Exists, "the file is there already")
            .in_file(path)
            .into());
    }
    let directory = prepared.checkpoint().map(Checkpoint::directory).unwrap_or(Path::new("."));
    let cancel = cancel(arguments.output.as_deref().unwrap_or(directory))?;
    let report = match arguments.output.as_deref() {
        Some(output) => write_files(arguments, &planned, output, &cancel, console)?,
        None => planned.patch(&PatchOptions {
            insist: arguments.force,
            ties: arguments.ties.ties(),
            metadata: None,
            cancel: Some(&cancel),
        })?,
    };
    if let (Some(path), Some(checkpoint)) = (&arguments.values, prepared.checkpoint()) {
        write_values(checkpoint, path, console)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    // What only the values could tell.
    let found = report.findings();
    let exit = if found.is_empty() { exit } else { Exit::findings(true) };
    if console.json {
        let findings = prepared.findings.iter().chain(&planned.plan.findings).chain(&found);
        console.json(&as_json(arguments, &planned, &report, findings.collect(), seconds))?;
    } else if !console.quiet {
        console.out(&describe(arguments, &planned, &report, seconds))?;
    }
    console.findings(&found);
    Ok(exit)
}

/// Shows what would be done.
fn dry_run(
    arguments: &Arguments,
    planned: &Planned,
    has_bytes: bool,
    console: Console,
) -> Result<()> {
    let output = arguments.output.as_deref().and_then(Path::extension);
    let options = WriteOptions {
        max_shard_size: Some(arguments.max_shard_size.unwrap_or(Size::SHARD).0),
        single: output.is_some_and(|extension| extension == "safetensors"),
        ties: arguments.ties.ties(),
        ..WriteOptions::default()
    };
    let lanes = has_bytes.then(|| planned.lanes(&options)).transpose()?;
    arguments.conversion.show(planned, lanes.as_ref(), false, console)
}

/// What was done, for programs.
fn as_json(
    arguments: &Arguments,
    planned: &Planned,
    report: &Report,
    findings: Vec<&Diagnostic>,
    seconds: f64,
) -> serde_json::Value {
    let rules = planned.route.describe();
    let rules: Vec<_> = rules
        .iter()
        .map(|(name, direction)| json!({ "name": name, "direction": direction }))
        .collect();
    json!({
        "output": arguments.output,
        "rules": rules,
        "verdict": planned.plan.verdict,
        "tied": planned.plan.tied,
        "keys": planned.plan.targets.len(),
        "report": report,
        "bytes_compared": planned.bytes_compared,
        "bytes_fetched": planned.bytes_fetched(),
        "keys_report": planned.plan.report,
        "findings": findings,
        "seconds": seconds,
    })
}

/// What Ctrl-C and SIGTERM set instead of ending the process.
fn cancel(place: &Path) -> Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let registered = signal_hook::flag::register(signal, Arc::clone(&cancel));
        registered
            .map_err(|error| Error::io("cannot watch for signals while writing", place, error))?;
    }
    Ok(cancel)
}

fn write_files(
    arguments: &Arguments,
    planned: &Planned,
    output: &Path,
    cancel: &AtomicBool,
    console: Console,
) -> Result<Report> {
    let display = progress::Display::new(arguments.progress, console);
    let progress = |progress: Progress| display.update(progress);
    let mut options = Output::new(WriteOptions {
        max_shard_size: Some(arguments.max_shard_size.unwrap_or(Size::SHARD).0),
        ties: arguments.ties.ties(),
        force: arguments.force,
        memory: arguments.memory.0,
        resume: arguments.resume,
        checksums: arguments.checksums,
        sync: !arguments.no_sync,
        rank: arguments.conversion.target.share()?,
        progress: Some(&progress),
        cancel: Some(cancel),
        ..WriteOptions::default()
    });
    options.record = arguments.record;
    let result = planned.write_with(output, options);
    display.finish();
    Ok(result?)
}

/// What was done, for people.
fn describe(arguments: &Arguments, planned: &Planned, report: &Report, seconds: f64) -> String {
    let plan = &planned.plan;
    let mut lines = vec![format!("rules: {}", in_order(&planned.route))];
    let stage = arguments.conversion.target.stage_line(planned.rank());
    lines.extend(stage.lines().map(str::to_owned));
    match plan.verdict {
        Some(Verdict::Already) => {
            lines.push("in the target layout already: copied as it is".to_owned())
        }
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
    if let Some(report) = plan.report.as_ref().filter(|report| !report.elsewhere.is_empty()) {
        lines.push(format!(
            "{} left to other stages",
            counted(report.elsewhere.len() as u64, "key")
        ));
    }
    let compared = match planned.bytes_compared {
        0 => String::new(),
        bytes => format!(" ({} to compare)", Size(bytes)),
    };
    let place = match &arguments.output {
        Some(output) => format!("to {}", output.display()),
        None => "in place".to_owned(),
    };
    lines.push(format!(
        "{} read{compared}, {} written {place} in {}, {seconds:.2} s",
        Size(report.bytes_read.saturating_add(planned.bytes_compared)),
        Size(report.bytes_written),
        counted(report.files.len() as u64, "file")
    ));
    let lanes: Vec<String> =
        report.lanes.iter().map(|(lane, bytes)| format!("{} {lane}", Size(*bytes))).collect();
    if !lanes.is_empty() {
        lines.push(format!("{}; at most {} of memory", lanes.join(", "), Size(report.peak_memory)));
    }
    if planned.bytes_fetched() > 0 {
        lines.push(format!(
            "{} fetched, headers and what was tried again included",
            Size(planned.bytes_fetched())
        ));
    }
    if report.kept > 0 {
        lines.push(format!("{} found finished already", counted(report.kept, "file")));
    }
    if !report.complete {
        lines.push(
            "other ranks are still at work: the last to finish puts the output in its place"
                .to_owned(),
        );
    }
    lines.join("\n") + "\n"
}
