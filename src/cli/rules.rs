//! `regraft rules`: the built-in rule files.

use clap::Subcommand;
use regraft::diagnostic::Diagnostics;
use regraft::library;
use serde_json::json;

use super::console::Console;
use super::{Exit, Result};

/// List the built-in rule files, or show one
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regraft rules                      all of them
  regraft rules --model mixtral      those for a model type or class
  regraft rules show mixtral")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Show>,

    /// Only those for this model type, or class of `architectures`
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
}

#[derive(Subcommand)]
enum Show {
    /// Print the text of a built-in rule file
    Show {
        /// Its name, as `regraft rules` lists it
        #[arg(add = super::complete::names())]
        name: String,
    },
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    match &arguments.command {
        Some(Show::Show { name }) => show(name, console),
        None => list(arguments.model.as_deref(), console),
    }
}

fn show(name: &str, console: Console) -> Result<Exit> {
    let Some(text) = library::text(name) else {
        return Err(unknown(name).into());
    };
    if console.json {
        console.json(&json!({ "name": name, "text": text }))?;
    } else {
        console.exact(text)?;
    }
    Ok(Exit::Done)
}

fn unknown(name: &str) -> Diagnostics {
    use regraft::diagnostic::codes::UNKNOWN_RULES;
    use regraft::diagnostic::{Diagnostic, did_you_mean};
    let finding =
        Diagnostic::error(UNKNOWN_RULES, format!("there is no built-in rule file `{name}`"));
    Diagnostics(vec![match did_you_mean(name, library::names()) {
        Some(close) => finding.hint(format!("did you mean `{close}`?")),
        None => finding.hint("`regraft rules` lists them"),
    }])
}

fn list(model: Option<&str>, console: Console) -> Result<Exit> {
    let rules: Vec<_> = library::names()
        .filter_map(|name| Some((name, library::head(name)?)))
        .filter(|(_, rules)| {
            model.is_none_or(|model| rules.models.iter().any(|known| known == model))
        })
        .collect();
    if console.json {
        let all: Vec<_> = rules
            .iter()
            .map(|(name, rules)| {
                let layouts = rules.layouts.as_ref().map(|(left, right)| [left, right]);
                json!({ "name": name, "layouts": layouts, "models": rules.models, "about": about(name) })
            })
            .collect();
        console.json(&all)?;
        return Ok(Exit::Done);
    }
    let width = rules.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, rules) in rules {
        let layouts = rules
            .layouts
            .as_ref()
            .map_or_else(|| "-".to_owned(), |(left, right)| format!("{left} <-> {right}"));
        let models = rules.models.join(", ");
        out.push_str(format!("{name:<width$}  {layouts:<15}  {models}").trim_end());
        out.push('\n');
    }
    console.out(&out)?;
    Ok(Exit::Done)
}

/// The first line of a rule file's comment: what it is about.
fn about(name: &str) -> Option<&'static str> {
    library::text(name)?.lines().next()?.strip_prefix("##").map(str::trim)
}
