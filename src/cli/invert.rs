//! `regraft invert`: the inverse of a rule file, as a rule file.

use std::path::Path;
use std::sync::Arc;

use regraft::check::reading::{Act, Reading};
use regraft::check::{Direction, Rules, Whole, check};
use regraft::diagnostic::{Place, SourceText};
use regraft::library::{self, Library};
use regraft::syntax::ast::Arrow;
use regraft::syntax::{Inverse, LeftOut, invert, parse, print};
use serde_json::json;

use super::console::Console;
use super::{Exit, Result};

/// Print the inverse of a rule file: statements in reverse order, each turned round
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
    #[arg(value_name = "FILE|NAME", add = super::complete::rules())]
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
    let line = |one: &LeftOut| Place::new(Arc::clone(&source), one.span).line();
    let lossy = in_used_files(&rules);
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
fn in_used_files(rules: &Rules) -> Vec<(&Place, &str, &'static str)> {
    let mut found = Vec::new();
    for statement in Reading::of(rules, Direction::Forward).everywhere() {
        let step = statement.step;
        // What is read backwards already, the inverse reads forwards.
        if statement.direction == Direction::Reverse || *step.place.source == *rules.source {
            continue;
        }
        let reason = match statement.act {
            Act::Rewrite(rewrite) => {
                let one_way = rewrite.rules().filter(|read| read.rule.arrow == Arrow::OneWay);
                found.extend(
                    one_way.map(|read| (&read.rule.place, &*read.rule.text, "it is one-way")),
                );
                continue;
            }
            Act::Drop(_) | Act::Keep(_) => "what is dropped doesn't come back",
            Act::Cast { .. } => "which dtypes were there before isn't known",
            Act::Prefix(_) => {
                "whether the prefix was there is known only from the checkpoint it came from"
            }
            // Strips normalize both ways, ties turn round, what is created is dropped; the
            // statements of a `when` come after it.
            Act::Whole { whole: Whole::Separator(_), after: false } => {
                "it says how keys of its left layout are split"
            }
            Act::Whole { .. }
            | Act::StripAnywhere { .. }
            | Act::StripLeading { .. }
            | Act::Tie(_)
            | Act::Create { .. }
            | Act::Expect { .. }
            | Act::When { .. } => continue,
        };
        found.push((&step.place, &*step.text, reason));
    }
    found
}
