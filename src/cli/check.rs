//! `regraft check`: is what rule files say sound?

use std::path::{Path, PathBuf};

use regraft::check::{idempotence, repeats_backwards};
use regraft::diagnostic::{Diagnostic, Severity};
use regraft::error::Error;
use regraft::library::{self, Library};
use regraft::overview::counted;
use serde_json::json;

use super::console::Console;
use super::{Exit, Result};

/// Check rule files: syntax, names, captures, and that every `<->` has an inverse
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regraft check my.graft
  regraft check rules/            every .graft file below
  regraft check mixtral           a built-in one
  regraft check rules/ --proofs   and what is known of applying each twice")]
pub(super) struct Arguments {
    /// Rule files, directories of them, or names of built-in ones
    #[arg(required = true, value_name = "FILE|DIR|NAME", add = super::complete::rules())]
    rules: Vec<PathBuf>,

    /// Say of each file whether applying it to its own output changes nothing: proven, refuted by a
    /// key, or not decided by patterns alone
    #[arg(long)]
    proofs: bool,

    /// Let `use` read rule files outside of the folder of the file that is checked
    #[arg(long)]
    allow_outside: bool,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let files = rule_files(&arguments.rules)?;
    let (mut reports, mut findings) = (Vec::new(), Vec::new());
    for file in &files {
        let (found, proof) =
            match library::prove_with(file, Library { allow_outside: arguments.allow_outside }) {
                Ok(rules) => {
                    let proof = (arguments.proofs || console.json)
                        .then(|| (idempotence(&rules), repeats_backwards(&rules)));
                    (rules.findings, proof)
                }
                Err(regraft::Failure::Rules(diagnostics)) => (diagnostics.0, None),
                Err(regraft::Failure::World(error)) => return Err(error.into()),
            };
        console.findings(&found);
        if console.json {
            reports.push(json!({ "file": file, "findings": found, "idempotent": proof.as_ref().map(|(proof, _)| proof),
                "repeats_backwards": proof.as_ref().and_then(|(_, found)| found.as_ref().ok()?.as_ref()),
                "undecided_backwards": proof.as_ref().and_then(|(_, found)| found.as_ref().err()) }));
        } else if let Some((proof, backwards)) = &proof {
            let again = match backwards {
                Ok(None) => String::new(),
                Ok(Some(found)) => format!("; not so backwards, where {found}"),
                Err(because) => format!("; backwards undecided, as {because}"),
            };
            console.out(&format!("{file}: idempotent: {proof}{again}\n"))?;
        }
        findings.extend(found);
    }
    if console.json {
        console.json(&reports)?;
    }
    let count = |severity| {
        findings.iter().filter(|finding: &&Diagnostic| finding.severity == severity).count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if errors > 0 {
        return Err(super::Failure::Shown(2));
    }
    if !console.json && !console.quiet {
        let warned = if warnings > 0 {
            format!(", with {}", counted(warnings as u64, "warning"))
        } else {
            String::new()
        };
        let what = if files.len() == 1 { "file is" } else { "files are" };
        console.out(&format!("{} rule {what} sound{warned}\n", files.len()))?;
    }
    Ok(Exit::findings(warnings > 0))
}

/// The rule files that arguments mean: a directory stands for every `.graft` file below it, in
/// order.
///
/// # Errors
/// If a directory can't be listed.
pub(super) fn rule_files(arguments: &[PathBuf]) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for argument in arguments {
        if argument.is_dir() {
            let before = files.len();
            below(argument, &mut files, 0)?;
            if files.len() == before {
                let error = Error::new(
                    regraft::error::ErrorKind::Unsupported,
                    "the directory has no .graft file",
                );
                return Err(error.in_file(argument).into());
            }
        } else {
            files.push(argument.to_string_lossy().into_owned());
        }
    }
    Ok(files)
}

/// Directories nested deeper than this are not searched: a link may lead in a circle.
const DEPTH: usize = 16;

fn below(directory: &Path, files: &mut Vec<String>, depth: usize) -> Result<()> {
    let failed = |source| Error::io("cannot list", directory, source);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if depth < DEPTH {
                below(&path, files, depth + 1)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "graft") {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}
