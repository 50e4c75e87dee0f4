//! `regraft invert`: the inverse of a rule file, as a rule file.

use std::path::Path;
use std::sync::Arc;

use regraft::check::{Step, StepKind, check};
use regraft::diagnostic::{Place, SourceText};
use regraft::library::{self, Library};
use regraft::syntax::ast::Arrow;
use regraft::syntax::{Inverse, LeftOut, invert, parse, print};
use serde_json::json;

use super::console::Console;
use super::{Exit, Result};

/// Prints the inverse of a rule file: statements in reverse order, each turned round
#[derive(clap::Args)]
#[command(
    after_help = "What has no inverse (`->`, drop, keep, cast, create, prefix) is left out, and named on standard error: exit code 1. So are such
steps of files that it uses: reading backwards refuses them where they matter for the keys at hand (--allow-lossy).

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

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    // Only rules that are sound have an inverse that means something.
    let library = Library { allow_outside: arguments.allow_outside };
    let rules = library::load_with(&arguments.rules, library)?;
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
    let mut lossy = Vec::new();
    in_used_files(&rules.steps, false, &rules.source, &mut lossy);
    if console.json {
        let left_out: Vec<_> = left_out
            .iter()
            .map(|one| json!({ "line": line(one), "text": one.text, "reason": one.reason }))
            .collect();
        let lossy: Vec<_> = lossy
            .iter()
            .map(|(place, text, reason)| json!({ "file": place.source.name, "line": place.line(), "text": text, "reason": reason }))
            .collect();
        console.json(&json!({ "text": text, "left_out": left_out, "in_used_files": lossy }))?;
    } else {
        console.out(&text)?;
        for one in &left_out {
            console.aside(&format!(
                "left out: {}:{} {}: {}\n",
                source.name,
                line(one),
                one.text,
                one.reason
            ));
        }
        for (place, text, reason) in &lossy {
            console.aside(&format!(
                "lossy, in a used file: {}:{} {text}: {reason}\n",
                place.source.name,
                place.line()
            ));
        }
    }
    Ok(Exit::findings(!left_out.is_empty() || !lossy.is_empty()))
}

/// Steps of used files that the inverse reads backwards, and that can't be: where they stand, what
/// they say, and why.
fn in_used_files<'r>(
    steps: &'r [Step],
    reversed: bool,
    own: &SourceText,
    found: &mut Vec<(&'r Place, &'r str, &'static str)>,
) {
    for step in steps {
        let mut say = |place: &'r Place, text: &'r str, reason| {
            if !reversed && *place.source != *own {
                found.push((place, text, reason));
            }
        };
        match &step.kind {
            StepKind::Rewrite(rules) => {
                rules
                    .iter()
                    .filter(|rule| rule.arrow == Arrow::OneWay)
                    .for_each(|rule| say(&rule.place, &rule.text, "it is one-way"));
            }
            StepKind::Drop(_) | StepKind::Keep(_) => {
                say(&step.place, &step.text, "what is dropped doesn't come back")
            }
            StepKind::Cast { .. } => {
                say(&step.place, &step.text, "which dtypes were there before isn't known")
            }
            StepKind::Prefix(_) => say(
                &step.place,
                &step.text,
                "whether the prefix was there is known only from the checkpoint it came from",
            ),
            StepKind::Reversed(steps) => in_used_files(steps, !reversed, own, found),
            StepKind::When { then, otherwise, .. } => {
                in_used_files(then, reversed, own, found);
                in_used_files(otherwise, reversed, own, found);
            }
            _ => {}
        }
    }
}
