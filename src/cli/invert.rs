//! `regraft invert`: the inverse of a rule file, as a rule file.

use std::path::Path;
use std::sync::Arc;

use regraft::check::check;
use regraft::diagnostic::{Place, SourceText};
use regraft::library::{self, Library};
use regraft::syntax::{Inverse, LeftOut, invert, parse, print};
use serde_json::json;

use super::console::Console;
use super::{Outcome, Result};

/// Prints the inverse of a rule file: statements in reverse order, each turned round
#[derive(clap::Args)]
#[command(
    after_help = "What has no inverse (`->`, drop, keep, cast, create, prefix) is left out, and named on standard error: exit code 1.

Examples:
  regraft invert mixtral
  regraft invert my.graft > back.graft"
)]
pub(super) struct Arguments {
    /// A rule file, or the name of a built-in one
    #[arg(value_name = "FILE|NAME")]
    rules: String,

    /// Let `use` read rule files outside of the folder of this one
    #[arg(long)]
    allow_outside: bool,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Outcome> {
    // Only rules that are sound have an inverse that means something.
    let library = Library { allow_outside: arguments.allow_outside };
    library::load_with(&arguments.rules, library)?;
    let source = match library::text(&arguments.rules) {
        Some(text) => Arc::new(SourceText { name: arguments.rules.clone(), text: text.to_owned() }),
        None => library::read(Path::new(&arguments.rules))?,
    };
    let Inverse { file, left_out } = invert(&parse(Arc::clone(&source)).file);
    let text = print(&file);
    // In the folder of the file, so that files it uses are found.
    let inverse = Arc::new(SourceText { name: source.name.clone(), text: text.clone() });
    check(&inverse, &library)?;
    let line = |one: &LeftOut| Place { source: Arc::clone(&source), span: one.span }.line();
    if console.json {
        let left_out: Vec<_> = left_out.iter().map(|one| json!({ "line": line(one), "text": one.text, "reason": one.reason })).collect();
        console.json(&json!({ "text": text, "left_out": left_out }))?;
    } else {
        console.out(&text)?;
        for one in &left_out {
            console.aside(&format!("left out: {}:{} {}: {}\n", source.name, line(one), one.text, one.reason));
        }
    }
    Ok(Outcome::findings(!left_out.is_empty()))
}
