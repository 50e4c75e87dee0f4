//! What `plan`, `apply` and `explain` share: which checkpoint, which rules, which way, and what
//! decides.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use regraft::check::value::Value;
use regraft::check::{Direction, Rules};
use regraft::config::Config;
use regraft::diagnostic::Diagnostic;
use regraft::error::Error;
use regraft::execute::Lanes;
use regraft::key::Key;
use regraft::library::{self, HUB, Library, MODEL, Route};
use regraft::plan::{Answer, Answers, Plan, PlanOptions, RECORD_FILE, Record, plan_asking};
use regraft::store::differing_bytes;
use regraft::store::{Checkpoint, Counted, OpenOptions, Store, no_file, open_all};

use super::console::Console;
use super::summary::Planned;
use super::target::{Target, TargetArguments};
use super::{Failure, Result, summary};

/// Rules and facts of a conversion.
#[derive(clap::Args)]
pub(super) struct Conversion {
    /// Rule files: names of built-in ones, or files; several apply one after the other [default:
    /// what config.json asks for]
    #[arg(long, value_name = "NAME|FILE", value_delimiter = ',', help_heading = "Rules")]
    rules: Vec<String>,

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
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment, help_heading = "Facts")]
    set: Vec<(String, Value)>,

    /// Whether word embeddings are tied [default: what the config says, or the model type's
    /// default]
    #[arg(long, value_name = "BOOL", help_heading = "Facts")]
    tied: Option<bool>,

    #[command(flatten)]
    pub(super) target: TargetArguments,

    /// Missing and unexpected keys are findings, not a stop
    #[arg(long, help_heading = "Facts")]
    no_strict: bool,

    /// Follow symbolic links out of the checkpoint's directory, and `use` out of the folder of a
    /// rule file
    #[arg(long, help_heading = "Facts")]
    pub(super) allow_outside: bool,
}

/// A conversion whose inputs are read.
pub(super) struct Prepared {
    pub(super) checkpoint: Checkpoint,
    pub(super) route: Route,
    pub(super) config: Config,
    pub(super) parameters: IndexMap<String, Value>,
    pub(super) tied: Option<bool>,
    pub(super) target: Option<Target>,
    /// Bytes that were read to compare ties.
    pub(super) compared: Cell<u64>,
    /// What the check of the named rules, and the reading of the checkpoint, had to remark.
    pub(super) findings: Vec<Diagnostic>,
    /// What the conversion that made the checkpoint did, if it left a record.
    record: Option<Record>,
    /// The layout that was asked for, where config.json chooses the rules.
    asked: Option<String>,
    not_strict: bool,
    allow_lossy: bool,
}

impl Conversion {
    /// How to open the checkpoint.
    pub(super) fn open_options(&self) -> OpenOptions {
        OpenOptions { strict: !self.no_strict, allow_outside: self.allow_outside }
    }

    /// Reads everything but tensors.
    pub(super) fn prepare(&self, sources: &[PathBuf], console: Console) -> Result<Prepared> {
        let named = self
            .rules
            .iter()
            .map(|name| library::load_with(name, Library { allow_outside: self.allow_outside }))
            .collect::<std::result::Result<Vec<Rules>, _>>()?;
        let findings = named.iter().flat_map(|rules| rules.findings.clone()).collect();
        let checkpoint = open_all(sources, &self.open_options())?;
        for note in checkpoint.notes() {
            console.note(&format!("note: {note}"));
        }
        for path in checkpoint.ignored() {
            console.note(&format!("note: {} is no part of the checkpoint", path.display()));
        }
        let config = match &self.config {
            Some(path) => Config::read(path)?,
            None => beside(&checkpoint)?,
        };
        let asked = if self.reverse { &self.from } else { &self.to };
        let asked = asked.clone().filter(|_| named.is_empty());
        let route = self.route(named, &config, console)?;
        let record = record_beside(&checkpoint)?;
        let target = self.target.read()?;
        let mut parameters = IndexMap::new();
        for (name, value) in &self.set {
            if parameters.insert(name.clone(), value.clone()).is_some() {
                return Err(Failure::Usage(format!("the parameter `{name}` is set twice")));
            }
        }
        Ok(Prepared {
            checkpoint,
            route,
            config,
            parameters,
            tied: self.tied,
            target,
            compared: Cell::new(0),
            findings,
            record,
            asked,
            not_strict: self.no_strict,
            allow_lossy: self.allow_lossy,
        })
    }

    fn route(&self, named: Vec<Rules>, config: &Config, console: Console) -> Result<Route> {
        let (from, to) = (self.from.as_deref(), self.to.as_deref());
        if !named.is_empty() {
            return Ok(Route::named(named, from, to, self.reverse)?);
        }
        if config.is_empty() {
            console.note("note: there is no config.json to choose rules by: only `wrappers` and `tied_lm_head` apply");
        } else if library::candidates(config).is_empty() {
            let model = config.model_type().unwrap_or("unknown");
            console.note(&format!("note: no rule file is for the model type {model:?}: only `wrappers` and `tied_lm_head` apply"));
        }
        let (from, to) = match (self.reverse, from, to) {
            (false, from, to) => (from, to),
            (true, None, None) => (Some(MODEL), Some(HUB)),
            (true, from, to) => (to, from),
        };
        Ok(Route::by_config(config, from, to)?)
    }
}

/// The config.json beside a checkpoint; empty if there is none.
pub(super) fn beside(checkpoint: &Checkpoint) -> Result<Config> {
    let path = checkpoint.directory().join("config.json");
    if is_there(&path)? { Ok(Config::read(path)?) } else { Ok(Config::empty()) }
}

/// Whether a file is there.
///
/// # Errors
/// If something else is, which would be passed over otherwise without a word.
fn is_there(path: &Path) -> Result<bool> {
    if path.symlink_metadata().is_err() {
        return Ok(false);
    }
    if path.is_file() { Ok(true) } else { Err(no_file(path).into()) }
}

/// The record of the conversion that made a checkpoint, if there is one beside it.
fn record_beside(checkpoint: &Checkpoint) -> Result<Option<Record>> {
    let path = checkpoint.directory().join(RECORD_FILE);
    if !is_there(&path)? {
        return Ok(None);
    }
    let bytes = std::fs::read(&path)
        .map_err(|source| Error::io("cannot read the record", &path, source))?;
    Ok(Some(Record::from_bytes(&bytes, &path)?))
}

/// Compares what a plan asks about.
///
/// # Errors
/// If reading fails: what could not be compared would look like a tie that was not asked for.
pub(super) fn compared(source: &dyn Store, a: &Key, b: &Key) -> Result<Answer> {
    Ok(differing_bytes(source, a, b)?.map_or(Answer::Unknown, Answer::of_differing))
}

impl Prepared {
    /// The record of a plan of this conversion, as the bytes of its file.
    pub(super) fn record(&self, plan: &Plan) -> Result<Vec<u8>> {
        let parameters =
            self.parameters.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
        let record = Record::of(plan, &self.route.stages(), parameters);
        Ok(record.to_bytes()?)
    }

    /// Plans; with `compare`, bytes are compared where a tie asks for it.
    pub(super) fn plan(&self, compare: bool) -> Result<Plan> {
        let counted = Counted::new(&self.checkpoint);
        let reads = compare && self.checkpoint.has_bytes();
        let options = PlanOptions {
            config: self.config.clone(),
            parameters: self.parameters.clone(),
            tied: self.tied,
            wanted: self.target.as_ref().map(Target::wanted),
            part: self.target.as_ref().map(Target::part).unwrap_or_default(),
            shared: &[],
            not_strict: self.not_strict,
            allow_lossy: self.allow_lossy,
            record: self.record.as_ref(),
            answers: Answers::default(),
        };
        let (stages, header) = (self.route.stages(), self.checkpoint.header());
        let plan = plan_asking(&stages, header, &options, |question| {
            if reads { compared(&counted, &question.a, &question.b) } else { Ok(Answer::Unknown) }
        });
        self.compared.set(counted.bytes_read());
        let mut plan = plan??;
        // A target manifest says itself whether the result is what was asked for.
        if let Some(to) = self.asked.as_ref().filter(|_| self.target.is_none()) {
            plan.findings.extend(library::no_way(self.checkpoint.header(), &plan, to));
        }
        Ok(plan)
    }

    /// Which stage of the target is asked for, as a line; empty for a whole model.
    pub(super) fn stage_line(&self) -> String {
        let stage = self.target.as_ref().and_then(Target::describe);
        stage.map(|stage| format!("stage: {stage}\n")).unwrap_or_default()
    }

    /// Prints a plan, and the lanes if its source has bytes.
    pub(super) fn show(
        &self,
        plan: &Plan,
        lanes: Option<&Lanes>,
        all: bool,
        console: Console,
    ) -> Result<()> {
        if console.json {
            return console.json(&Planned { plan, lanes });
        }
        console.out(&format!("rules: {}\n{}\n", self.rules(), self.stage_line()))?;
        console.out(&summary::plan(plan, self.checkpoint.header(), all))?;
        lanes.map_or(Ok(()), |lanes| console.out(&summary::lanes(lanes, all)))
    }

    /// The rules in order, as people call them.
    pub(super) fn rules(&self) -> String {
        let names: Vec<String> = self
            .route
            .describe()
            .iter()
            .map(|(name, direction)| described(name, *direction))
            .collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// The files that the output must not touch.
    pub(super) fn protected(&self, sources: &[PathBuf]) -> Vec<PathBuf> {
        sources.iter().cloned().chain(self.checkpoint.paths().map(Path::to_owned)).collect()
    }
}

fn described(name: &str, direction: Direction) -> String {
    match direction {
        Direction::Forward => name.to_owned(),
        Direction::Reverse => format!("{name} (backwards)"),
    }
}

/// `name=value`; the value as JSON if it reads as JSON, else as text.
fn assignment(text: &str) -> std::result::Result<(String, Value), String> {
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
        let value = |text| assignment(text).unwrap().1;
        assert_eq!(value("a=32"), Value::Int(32));
        assert_eq!(value("a=0.5"), Value::Float(0.5));
        assert_eq!(value("a=true"), Value::Bool(true));
        assert_eq!(value("a=null"), Value::Null);
        assert_eq!(value("a=\"32\""), Value::Text("32".to_owned()));
        assert_eq!(value("a=x=y"), Value::Text("x=y".to_owned()));
        assert_eq!(value("a="), Value::Text(String::new()));
        for wrong in ["a", "=1", "1a=2", "a b=1", "a={}"] {
            assert!(assignment(wrong).is_err(), "{wrong}");
        }
    }
}
