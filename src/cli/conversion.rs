//! What `plan`, `apply`, `explain` and `graph` share: their options of a conversion, and how it is
//! shown.

use std::collections::BTreeSet;
use std::path::PathBuf;

use regraft::check::value::Value;
use regraft::check::{Direction, Rules};
use regraft::conversion::{Choice, Conversion, Planned, Prepared, TensorPart, read_config};
use regraft::execute::Lanes;
use regraft::library::{self, Library, Recognized, Route};
use regraft::overview::{Overview, Sights};
use regraft::store::{Checkpoint, NamedPath, OpenOptions};

use super::complete;
use super::console::Console;
use super::target::TargetArguments;
use super::{Failure, Result, summary};

/// Rules and facts of a conversion.
#[derive(clap::Args)]
pub(super) struct ConversionArguments {
    /// Rule files: names of built-in ones, or files; several apply one after the other [default:
    /// what config.json asks for]
    #[arg(long, value_name = "NAME|FILE", value_delimiter = ',', add = complete::rules(), help_heading = "Rules")]
    pub(super) rules: Vec<String>,

    /// The layout that the checkpoint is in
    #[arg(long, value_name = "LAYOUT", help_heading = "Rules")]
    from: Option<String>,

    /// The layout to convert to
    #[arg(long, value_name = "LAYOUT", help_heading = "Rules")]
    to: Option<String>,

    /// Read the rules backwards
    #[arg(long, help_heading = "Rules")]
    reverse: bool,

    /// Read backwards even where steps can't be undone: they are left out, and named
    #[arg(long, help_heading = "Rules")]
    allow_lossy: bool,

    /// The model's configuration [default: config.json beside the checkpoint]
    #[arg(long, value_name = "FILE", help_heading = "Facts")]
    config: Option<PathBuf>,

    /// Give a rule file's parameter a value (a number, true, false, null, a JSON list, or text)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parameter, help_heading = "Facts")]
    set: Vec<(String, Value)>,

    /// Whether word embeddings are tied [default: what the config says, or the model type's
    /// default]
    #[arg(long, value_name = "BOOL", help_heading = "Facts")]
    tied: Option<bool>,

    #[command(flatten)]
    pub(super) target: TargetArguments,

    /// Make a part of each tensor whose key fits, as a rank holds it: the first of 4 along
    /// dimension 1 is `**.o_proj.weight[1, 0/4]`; may be given several times
    #[arg(long, value_name = "PATTERN[DIM, I/N]", help_heading = "Facts")]
    pub(super) part: Vec<TensorPart>,

    /// Where in a file with dicts in dicts the state dict lies, as `ema.model`; empty for the whole
    /// file [default: where it usually does]
    #[arg(long, value_name = "PATH", help_heading = "Facts")]
    root: Option<String>,

    /// Missing and unexpected keys are findings, not a stop
    #[arg(long, help_heading = "Facts")]
    no_strict: bool,

    /// Follow symbolic links out of the checkpoint's directory, and `use` out of the folder of a
    /// rule file
    #[arg(long, help_heading = "Facts")]
    pub(super) allow_outside: bool,
}

impl ConversionArguments {
    /// Files whose change changes a plan: rule files with those in the same folder, which they may use, and the config.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.config.iter().cloned().collect();
        for rules in self.rules.iter().map(PathBuf::from).filter(|rules| rules.exists()) {
            let folder = rules.parent().filter(|folder| !folder.as_os_str().is_empty());
            let beside = std::fs::read_dir(folder.unwrap_or_else(|| std::path::Path::new(".")));
            files.extend(
                beside
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path())
                    .filter(|path| path.extension().is_some_and(|extension| extension == "graft")),
            );
            files.push(rules);
        }
        files
    }

    /// How to open the checkpoint.
    pub(super) fn open_options(&self) -> OpenOptions {
        OpenOptions {
            strict: !self.no_strict,
            allow_outside: self.allow_outside,
            root: self.root.clone(),
        }
    }

    /// Reads everything but tensors.
    pub(super) fn prepare(&self, sources: &[NamedPath], console: Console) -> Result<Prepared> {
        let named = named_rules(&self.rules, self.allow_outside)?;
        let mut conversion = Conversion::open_named(sources.to_vec(), &self.open_options())?
            .reverse(self.reverse)
            .strict(!self.no_strict)
            .allow_lossy(self.allow_lossy)
            .parts(self.part.clone());
        if let Some(path) = &self.config {
            conversion = conversion.config(read_config(path)?);
        }
        if let Some(rules) = named {
            conversion = conversion.rules(rules);
        }
        if let Some(layout) = &self.from {
            conversion = conversion.from(layout);
        }
        if let Some(layout) = &self.to {
            conversion = conversion.to(layout);
        }
        if let Some(tied) = self.tied {
            conversion = conversion.tied(tied);
        }
        if let Some(target) = self.target.read()? {
            conversion = conversion.target(target);
        }
        let mut set = BTreeSet::new();
        for (name, value) in &self.set {
            if !set.insert(name) {
                return Err(Failure::Usage(format!("the parameter `{name}` is set twice")));
            }
            conversion = conversion.set(name, value.clone());
        }
        let prepared = conversion.prepare()?;
        tell_choice(&prepared.choice, console);
        if let Some(checkpoint) = prepared.checkpoint() {
            tell_of(checkpoint, console);
        }
        Ok(prepared)
    }

    /// Prints a plan, and the lanes if its source has bytes.
    pub(super) fn show(
        &self,
        planned: &Planned,
        lanes: Option<&Lanes>,
        all: bool,
        console: Console,
    ) -> Result<()> {
        let plan = &planned.plan;
        if console.json {
            return console.json(&summary::Planned { plan, lanes });
        }
        let stage = self.target.stage_line(planned.rank());
        console.out(&format!("rules: {}\n{stage}\n", in_order(&planned.route)))?;
        let sights = Sights { unchanged: all, sharing: false };
        console.out(&Overview::of(plan, planned.header(), sights).text(plan))?;
        lanes.map_or(Ok(()), |lanes| console.out(&summary::lanes(lanes, all)))
    }
}

/// The rules that arguments name; `None` if they name none.
pub(super) fn named_rules(names: &[String], allow_outside: bool) -> Result<Option<Vec<Rules>>> {
    let library = Library { allow_outside };
    let rules = names.iter().map(|name| library::load_with(name, library));
    let rules = rules.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok((!rules.is_empty()).then_some(rules))
}

/// Says what is odd about the files of a checkpoint, but no error.
fn tell_of(checkpoint: &Checkpoint, console: Console) {
    for note in checkpoint.notes() {
        console.note(&format!("note: {note}"));
    }
    for path in checkpoint.ignored() {
        console.note(&format!("note: {} is no part of the checkpoint", path.display()));
    }
}

/// Says how rules were chosen, where that is not what one may think.
fn tell_choice(choice: &Choice, console: Console) {
    const ONLY: &str = "only `wrappers` and `tied_lm_head` apply";
    match choice {
        Choice::NoConfig => {
            console.note(&format!("note: there is no config.json to choose rules by: {ONLY}"));
        }
        Choice::NothingKnown => {
            console.note("note: there is no config.json to choose rules by: names stay, only `tied_lm_head` applies");
        }
        Choice::NoRules { model_type } => {
            let model = model_type.as_deref().unwrap_or("unknown");
            console.note(&format!("note: no rule file is for the model type {model:?}: {ONLY}"));
        }
        Choice::Recognized(found) => {
            let Recognized { rules, layout, spoken, keys, .. } = found;
            console.note(&format!(
                "note: recognized the layout `{layout}` of `{rules}`, which speaks of {spoken} of {keys} keys; --rules names others"
            ));
        }
        _ => {}
    }
}

/// The rules in order, as people call them.
pub(super) fn in_order(route: &Route) -> String {
    let names: Vec<String> =
        route.describe().iter().map(|(name, direction)| described(name, *direction)).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn described(name: &str, direction: Direction) -> String {
    match direction {
        Direction::Forward => name.to_owned(),
        Direction::Reverse => format!("{name} (backwards)"),
    }
}

/// `name=value`; the value as JSON if it reads as JSON, else as text.
pub(super) fn parameter(text: &str) -> std::result::Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !valid {
        return Err(format!("{name:?} is no parameter's name"));
    }
    let value = match serde_json::from_str::<serde_json::Value>(value) {
        Ok(serde_json::Value::Object(_)) => return Err("a parameter is no object".to_owned()),
        Ok(json) => Value::from_json(&json),
        Err(_) => Value::Text(value.to_owned()),
    };
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_as_json_or_text() {
        let value = |text| parameter(text).unwrap().1;
        assert_eq!(value("a=32"), Value::Int(32));
        assert_eq!(value("a=0.5"), Value::Float(0.5));
        assert_eq!(value("a=true"), Value::Bool(true));
        assert_eq!(value("a=null"), Value::Null);
        assert_eq!(value("a=\"32\""), Value::Text("32".to_owned()));
        assert_eq!(value("a=x=y"), Value::Text("x=y".to_owned()));
        assert_eq!(value("a="), Value::Text(String::new()));
        for wrong in ["a", "=1", "1a=2", "a b=1", "a={}"] {
            assert!(parameter(wrong).is_err(), "{wrong}");
        }
    }
}
