//! The command line: arguments in, exit code out. One file for each subcommand; nothing else in the
//! crate prints.
//!
//! Exit codes: 0 done, 1 findings about a checkpoint, 2 usage or bad rules, 3 the world failed
//! (I/O, corrupt files), 130 interrupted.

mod apply;
mod check;
mod complete;
mod completions;
mod console;
mod conversion;
mod detect;
mod diff;
mod explain;
mod fmt;
mod graph;
mod inspect;
mod invert;
mod lsp;
mod new;
mod plan;
mod progress;
mod recover;
mod report;
mod rules;
mod source;
mod summary;
mod target;
mod test;
mod ties;
mod verify;
mod watch;

use std::process::ExitCode;

use anstream::ColorChoice;
use clap::{Parser, Subcommand, ValueEnum};
use regraft::diagnostic::{Diagnostic, Diagnostics, codes};
use regraft::error::{Error, ErrorKind};
use serde_json::json;

use console::Console;

/// Converts safetensors checkpoints between key layouts by rules that read both ways.
#[derive(Parser)]
#[command(name = "regraft", version, about, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 done, 1 findings, 2 usage or bad rules, 3 I/O or a corrupt file, 130 interrupted."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    global: Global,
}

#[derive(clap::Args)]
struct Global {
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    json: bool,

    /// Print no notes, no progress and no summary
    #[arg(long, short, global = true)]
    quiet: bool,

    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Colour,
}

#[derive(Clone, Copy, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
enum Command {
    Inspect(inspect::Arguments),
    Plan(plan::Arguments),
    Apply(apply::Arguments),
    Explain(explain::Arguments),
    Diff(diff::Arguments),
    Graph(graph::Arguments),
    Detect(detect::Arguments),
    Check(check::Arguments),
    Fmt(fmt::Arguments),
    Invert(invert::Arguments),
    Ties(ties::Arguments),
    Test(test::Arguments),
    Rules(rules::Arguments),
    New(new::Arguments),
    Verify(verify::Arguments),
    Recover(recover::Arguments),
    Completions(completions::Arguments),
    Lsp(lsp::Arguments),
}

/// How a command ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Nothing to remark.
    Done,
    /// There is something to look at.
    Findings,
}

impl Exit {
    fn findings(found: bool) -> Self {
        if found { Exit::Findings } else { Exit::Done }
    }
}

/// Why a command could not do its work.
#[derive(Debug)]
enum Failure {
    /// The world failed.
    World(Error),
    /// Rules are wrong, or don't fit the checkpoint.
    Rules(Diagnostics),
    /// The arguments make no sense together.
    Usage(String),
    /// Standard output can't be written.
    Output(std::io::Error),
    /// What is wrong has been said already; the exit code remains.
    Shown(u8),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::World(error)
    }
}

impl From<Diagnostics> for Failure {
    fn from(diagnostics: Diagnostics) -> Self {
        Failure::Rules(diagnostics)
    }
}

impl From<regraft::Failure> for Failure {
    fn from(failure: regraft::Failure) -> Self {
        match failure {
            regraft::Failure::Rules(diagnostics) => Failure::Rules(diagnostics),
            regraft::Failure::World(error) => Failure::World(error),
        }
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// How many files the process may have open, if the system lets it.
const OPEN_FILES: u64 = 1 << 16;

/// Raises the limit of open files as far as this process may: each shard of a checkpoint is one,
/// and where the usual limit is 256 there are checkpoints with more.
fn open_more_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if current.is_some_and(|current| current < wanted) {
        // If it can't be, whoever needs more says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    clap_complete::CompleteEnv::with_factory(<Arguments as clap::CommandFactory>::command)
        .var(completions::VARIABLE)
        .complete();
    let Arguments { command, global } = Arguments::parse();
    open_more_files();
    let colour = match global.color {
        Colour::Auto => ColorChoice::Auto,
        Colour::Always => ColorChoice::Always,
        Colour::Never => ColorChoice::Never,
    };
    let console = Console { colour, quiet: global.quiet, json: global.json };
    let result = match command {
        Command::Inspect(arguments) => inspect::run(&arguments, console),
        Command::Plan(arguments) => plan::run(&arguments, console),
        Command::Apply(arguments) => apply::run(&arguments, console),
        Command::Explain(arguments) => explain::run(&arguments, console),
        Command::Diff(arguments) => diff::run(&arguments, console),
        Command::Detect(arguments) => detect::run(&arguments, console),
        Command::Graph(arguments) => graph::run(&arguments, console),
        Command::Invert(arguments) => invert::run(&arguments, console),
        Command::Check(arguments) => check::run(&arguments, console),
        Command::Fmt(arguments) => fmt::run(&arguments, console),
        Command::Ties(arguments) => ties::run(&arguments, console),
        Command::Test(arguments) => test::run(&arguments, console),
        Command::Rules(arguments) => rules::run(&arguments, console),
        Command::New(arguments) => new::run(&arguments, console),
        Command::Verify(arguments) => verify::run(&arguments, console),
        Command::Recover(arguments) => recover::run(&arguments, console),
        Command::Completions(arguments) => completions::run(&arguments, console),
        Command::Lsp(arguments) => lsp::run(&arguments, console),
    };
    match result {
        Ok(Exit::Done) => ExitCode::SUCCESS,
        Ok(Exit::Findings) => ExitCode::from(1),
        Err(failure) => report(&failure, console),
    }
}

/// Says why a command failed; gives the exit code.
fn report(failure: &Failure, console: Console) -> ExitCode {
    let code = exit_code(failure);
    if console.json && !matches!(failure, Failure::Output(_) | Failure::Shown(_)) {
        // A reader that is gone doesn't miss it.
        let _ = console.json(&as_json(failure));
        return ExitCode::from(code);
    }
    match failure {
        Failure::World(error) => {
            console.line(&format!("error: {error}"));
            if let Some(advice) = error.advice() {
                console.line(&format!("  help: {advice}"));
            }
        }
        Failure::Rules(diagnostics) => console.findings(&diagnostics.0),
        Failure::Usage(message) => console.line(&format!("error: {message}")),
        Failure::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        Failure::Shown(_) => {}
        Failure::Output(error) => {
            console.aside(&format!("error: cannot write to standard output: {error}\n"))
        }
    }
    ExitCode::from(code)
}

fn exit_code(failure: &Failure) -> u8 {
    match failure {
        Failure::World(error) if error.kind() == ErrorKind::Interrupted => 130,
        Failure::World(_) => 3,
        Failure::Rules(diagnostics) if diagnostics.0.iter().any(is_about_rules) => 2,
        Failure::Rules(_) => 1,
        Failure::Usage(_) => 2,
        // Whoever closed the pipe has what it wanted.
        Failure::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Failure::Output(_) => 3,
        Failure::Shown(code) => *code,
    }
}

/// Whether an error says that rules are wrong, rather than that they don't fit a checkpoint: codes
/// 1xx and 2xx.
fn is_about_rules(finding: &Diagnostic) -> bool {
    finding.is_error() && finding.code < codes::COLLISION
}

fn as_json(failure: &Failure) -> serde_json::Value {
    match failure {
        Failure::World(error) => json!({ "error": {
            "kind": format!("{:?}", error.kind()).to_lowercase(),
            "message": error.to_string(),
            "file": error.file(),
            "key": error.key(),
            "hint": error.advice(),
        } }),
        Failure::Rules(diagnostics) => {
            json!({ "error": { "kind": "rules" }, "findings": diagnostics })
        }
        Failure::Usage(message) => json!({ "error": { "kind": "usage", "message": message } }),
        Failure::Shown(_) => serde_json::Value::Null,
        Failure::Output(error) => {
            json!({ "error": { "kind": "io", "message": error.to_string() } })
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn exit_codes_tell_rules_from_checkpoints() {
        let failure = |code| Failure::Rules(Diagnostics(vec![Diagnostic::error(code, "x")]));
        assert_eq!(exit_code(&failure(codes::SYNTAX)), 2);
        assert_eq!(exit_code(&failure(codes::TIE_CYCLE)), 2);
        assert_eq!(exit_code(&failure(codes::COLLISION)), 1);
        assert_eq!(exit_code(&Failure::World(Error::corrupt("x"))), 3);
        assert_eq!(exit_code(&Failure::World(Error::new(ErrorKind::Interrupted, "x"))), 130);
    }
}
