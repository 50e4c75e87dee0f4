//! `regraft detect`: which rule file and layout explain a checkpoint's keys best.

use std::path::PathBuf;

use regraft::conversion::{config_beside, read_config};
use regraft::library::{Detection, detect};
use regraft::store::{NamedPath, OpenOptions, Store as _, open_named};

use super::console::Console;
use super::source::named_path;
use super::{Exit, Result};

/// Name the rule files and layouts that explain a checkpoint's keys, the best first
#[derive(clap::Args)]
#[command(after_help = "Exit code 1 if no rule file explains the keys.

Examples:
  regraft detect mixtral-8x7b/
  regraft detect header.json --config config.json --top 20")]
pub(super) struct Arguments {
    /// A file of safetensors, torch.save or NumPy, a directory, an index, or a manifest; several
    /// count as one checkpoint, and `NAME=SRC` puts `NAME.` before its keys
    #[arg(required = true, value_name = "[NAME=]SRC", value_parser = named_path(), value_hint = clap::ValueHint::AnyPath)]
    sources: Vec<NamedPath>,

    /// The model's configuration [default: config.json beside the checkpoint]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// How many to name
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    top: usize,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let checkpoint = open_named(&arguments.sources, None, &OpenOptions::default())?;
    let config = match &arguments.config {
        Some(path) => read_config(path)?,
        None => config_beside(&checkpoint)?,
    };
    let mut found = detect(checkpoint.header(), &config);
    found.truncate(arguments.top);
    if console.json {
        console.json(&found)?;
    } else if found.is_empty() {
        console.out("no rule file explains these keys: they are the same in every layout, or the model is not in the library\n")?;
    } else {
        let (mut text, mut notes) = (String::new(), String::new());
        for wrapper in found.first().into_iter().flat_map(|one| &one.wrappers) {
            let around = if wrapper.keys == found[0].keys {
                "every key".to_owned()
            } else {
                format!("{} of {} keys", wrapper.keys, found[0].keys)
            };
            notes.push_str(&format!(
                "note: `{}` wraps {around}, and was looked through\n",
                wrapper.name
            ));
        }
        for (row, one) in table(&found).into_iter().zip(&found) {
            text.push_str(&row);
            text.push_str(&words("met", &one.evidence));
            text.push_str(&words("not met", &one.missing));
        }
        text.push_str(&notes);
        console.fitted(&text)?;
    }
    Ok(Exit::findings(found.is_empty()))
}

/// A line for each: the rule file, the layout and where it leads, how many keys are explained, and
/// what else there is to say. The name ends at a colon, for scripts.
fn table(found: &[Detection]) -> Vec<String> {
    let cells = |one: &Detection| {
        let ways = format!("{} -> {}", one.layout, one.leads_to);
        let keys = format!("{} of {} keys", one.explained, one.keys);
        let against = (one.against > 0).then(|| format!("{} speak against it", one.against));
        let asked = one.by_config.then(|| "config.json asks for it".to_owned());
        let sure = one.sure.then(|| "surely".to_owned());
        let said: Vec<String> = [sure, asked, against].into_iter().flatten().collect();
        [format!("{}:", one.rules), ways, keys, said.join(", ")]
    };
    let rows: Vec<[String; 4]> = found.iter().map(cells).collect();
    let widths = [0, 1, 2].map(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0));
    let line = |[rules, ways, keys, said]: &[String; 4]| {
        let [a, b, c] = widths;
        format!("{rules:<a$}  {ways:<b$}  {keys:>c$}  {said}").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A line of words that were found in keys, or weren't.
fn words(what: &str, words: &[String]) -> String {
    match words.is_empty() {
        true => String::new(),
        false => format!("  {what}: {}\n", words.join(", ")),
    }
}
