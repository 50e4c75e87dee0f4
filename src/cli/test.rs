//! `regraft test`: do rule files do what they say? Their `example`s, and snapshots of plans.
//!
//! Beside `NAME.graft`, the directory `NAME.cases` holds manifests: `CASE.json` is planned left to
//! right, `CASE.reverse.json` right to left, each with `CASE.config.json` as its configuration if
//! that is there. The plan's text is kept in `CASE.plan`, or `CASE.reverse.plan`.

use std::path::{Path, PathBuf};

use regraft::config::Config;
use regraft::error::Error;
use regraft::library::{self, Library, Route};
use regraft::overview::counted;
use regraft::plan::PlanOptions;
use regraft::store::{OpenOptions, Store as _, open};
use serde_json::json;
use similar::TextDiff;

use super::check::rule_files;
use super::console::{Console, one_line};
use super::{Exit, Failure, Result};

/// Test rule files: their examples, and plans against snapshots
///
/// Beside NAME.graft, the directory NAME.cases may hold manifests (key -> [dtype, shape]):
/// CASE.json is planned left to right, CASE.reverse.json backwards, with CASE.config.json if it is
/// there. The plan's text is kept in CASE.plan (CASE.reverse.plan).
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regraft test my.graft
  regraft test rules/ --update      write the plans as they are now")]
pub(super) struct Arguments {
    /// Rule files, directories of them, or names of built-in ones
    #[arg(required = true, value_name = "FILE|DIR|NAME", add = super::complete::rules())]
    rules: Vec<PathBuf>,

    /// Write snapshots instead of comparing them
    #[arg(long)]
    update: bool,

    /// Let `use` read rule files outside of the folder of the file that is tested
    #[arg(long)]
    allow_outside: bool,
}

/// What was tested of one file.
#[derive(Default)]
struct Tally {
    examples: usize,
    cases: usize,
    updated: usize,
    failed: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let library = Library { allow_outside: arguments.allow_outside };
    let mut total = Tally::default();
    let mut broken = false;
    for file in rule_files(&arguments.rules)? {
        let rules = match library::load_with(&file, library) {
            Ok(rules) => rules,
            Err(regraft::Failure::Rules(diagnostics)) => {
                console.findings(&diagnostics.0);
                total.failed.push(file.clone());
                broken = true;
                continue;
            }
            Err(regraft::Failure::World(error)) => return Err(error.into()),
        };
        total.examples += rules.examples.len();
        let failed = library::check_examples(&rules);
        console.findings(&failed);
        total.failed.extend(failed.iter().map(|finding| {
            format!("{file}:{}", finding.primary.as_ref().map_or(0, |(place, _)| place.line()))
        }));
        for manifest in manifests(Path::new(&file))? {
            total.cases += 1;
            case(&file, &manifest, library, arguments.update, console, &mut total)?;
        }
    }
    if console.json {
        console.json(&json!({
            "examples": total.examples, "cases": total.cases, "updated": total.updated, "failed": total.failed,
        }))?;
    } else if !console.quiet {
        let updated =
            if total.updated > 0 { format!(", {} updated", total.updated) } else { String::new() };
        let failed = if total.failed.is_empty() {
            String::new()
        } else {
            format!(", {} failed", total.failed.len())
        };
        console.out(&format!(
            "{}, {}{updated}{failed}\n",
            counted(total.examples as u64, "example"),
            counted(total.cases as u64, "case")
        ))?;
    }
    if broken { Err(Failure::Shown(2)) } else { Ok(Exit::findings(!total.failed.is_empty())) }
}

/// The manifests of a rule file's cases, in order.
fn manifests(file: &Path) -> Result<Vec<PathBuf>> {
    let folder = file.with_extension("cases");
    if file.extension().is_none() || !folder.is_dir() {
        return Ok(Vec::new());
    }
    let failed = |source| Error::io("cannot list", &folder, source);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_manifest = path
            .to_str()
            .is_some_and(|name| name.ends_with(".json") && !name.ends_with(".config.json"));
        if is_manifest {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn case(
    file: &str,
    manifest: &Path,
    library: Library,
    update: bool,
    console: Console,
    total: &mut Tally,
) -> Result<()> {
    let now = planned(file, manifest, library)?;
    let kept = manifest.with_extension("plan");
    let before = match std::fs::read_to_string(&kept) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("cannot read", &kept, error).into()),
    };
    if before.as_deref() == Some(now.as_str()) {
        return Ok(());
    }
    if update {
        std::fs::write(&kept, &now).map_err(|error| Error::io("cannot write", &kept, error))?;
        total.updated += 1;
        return Ok(());
    }
    total.failed.push(manifest.display().to_string());
    if console.json {
        return Ok(());
    }
    match before {
        None => console
            .aside(&format!("{}: there is no snapshot yet; --update writes it\n", kept.display())),
        Some(before) => {
            let diff = TextDiff::from_lines(before.as_str(), now.as_str());
            let diff = diff.unified_diff().context_radius(2).header("kept", "now").to_string();
            console.aside(&format!("{}: the plan is another\n{diff}\n", kept.display()));
        }
    }
    Ok(())
}

/// The text that a snapshot keeps: the plan and its findings; or why there is no plan.
fn planned(file: &str, manifest: &Path, library: Library) -> Result<String> {
    let stem = manifest.with_extension("");
    let reverse = stem.extension().is_some_and(|extension| extension == "reverse");
    let config = if reverse {
        stem.with_extension("config.json")
    } else {
        manifest.with_extension("config.json")
    };
    let config = if config.is_file() { Config::read(&config)? } else { Config::empty() };
    let checkpoint = open(manifest, &OpenOptions::default())?;
    let route = Route::named(vec![library::load_with(file, library)?], None, None, reverse)?;
    let options = PlanOptions { config, ..PlanOptions::default() };
    let (mut text, findings) = match regraft::plan(&route.stages(), checkpoint.header(), &options) {
        Ok(plan) => (plan.to_text(), plan.findings),
        Err(diagnostics) => ("no plan\n".to_owned(), diagnostics.0),
    };
    for finding in &findings {
        text.push_str(&one_line(finding));
        text.push('\n');
        if finding.is_error() {
            finding.hints.iter().for_each(|hint| text.push_str(&format!("  help: {hint}\n")));
        }
    }
    // Where the rule file lies is no part of what it means.
    match Path::new(file).parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => Ok(text.replace(&format!("{}/", folder.display()), "")),
        None => Ok(text),
    }
}
