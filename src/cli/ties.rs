//! `regraft ties`: which tensors are one, by storage, by bytes, by the file's own word and by
//! declaration, and where these disagree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use indexmap::IndexMap;
use regraft::check::Direction;
use regraft::check::value::Value;
use regraft::config::{Config, TieDecision};
use regraft::conversion::{compare, config_of, read_config};
use regraft::diagnostic::plain::one_line;
use regraft::key::Key;
use regraft::library::{HUB, MODEL, Route};
use regraft::overview::{Gathered, Line, Size, SourceKeys, counted, rule_line};
use regraft::plan::{
    Answer, DropReason, Op, Plan, PlanOptions, Question, RuleId, TieOutcome, count_ranks,
    plan_asking,
};
use regraft::store::{Counted, NamedPath, OpenOptions, Store, open_named};
use regraft::store::{Twins, same_place, twins};
use regraft::tensor::Header;
use serde::Serialize;

use super::console::Console;
use super::conversion::named_rules;
use super::source::named_path;
use super::{Exit, Result};

/// Show which tensors are one: by storage, byte for byte, by the file's metadata, and by the rules
/// of the model; and where these disagree
///
/// Names what in config.json decided whether the model is tied, and what loading (hub to model) and
/// saving (model to hub) do with each tie.
#[derive(clap::Args)]
#[command(after_help = "Exit code 1 if storage, bytes and rules disagree.

Only tensors of one dtype and shape are read: a sample of each, and the whole where samples agree.

Examples:
  regraft ties llama-3.2-1b/
  regraft ties model.safetensors --config config.json --tied true
  regraft ties t5.json --config config.json           a manifest, without bytes
  regraft ties t5-small/ --json")]
pub(super) struct Arguments {
    /// A file of safetensors, torch.save or NumPy, a directory, an index, or a manifest; several
    /// count as one checkpoint, and `NAME=SRC` puts `NAME.` before its keys
    #[arg(required = true, value_name = "[NAME=]SRC", value_parser = named_path(), value_hint = clap::ValueHint::AnyPath)]
    sources: Vec<NamedPath>,

    /// Rule files that declare ties: names of built-in ones, or files [default: what config.json
    /// asks for]
    #[arg(long, value_name = "NAME|FILE", value_delimiter = ',')]
    rules: Vec<String>,

    /// The model's configuration [default: config.json beside the checkpoint]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Whether word embeddings are tied [default: what the config says, or the model type's
    /// default]
    #[arg(long, value_name = "BOOL")]
    tied: Option<bool>,

    /// Read no tensor: headers and rules alone
    #[arg(long)]
    no_bytes: bool,

    /// Where in a file with dicts in dicts the state dict lies; empty for the whole file
    #[arg(long, value_name = "PATH")]
    root: Option<String>,

    /// Follow symbolic links out of the checkpoint's directory
    #[arg(long)]
    allow_outside: bool,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let named = named_rules(&arguments.rules, arguments.allow_outside)?;
    let options = OpenOptions {
        strict: false,
        allow_outside: arguments.allow_outside,
        root: arguments.root.clone(),
    };
    let config = match &arguments.config {
        Some(path) => read_config(path)?,
        None => config_of(&arguments.sources)?,
    };
    let routes = match named {
        None => [
            Route::by_config(&config, Some(HUB), Some(MODEL))?,
            Route::by_config(&config, Some(MODEL), Some(HUB))?,
        ],
        Some(named) => [
            Route::named(named.clone(), None, None, false)?,
            Route::named(named, None, None, true)?,
        ],
    };
    let ranks = routes[0].rank_files(Direction::Forward)?;
    let checkpoint = open_named(&arguments.sources, ranks, &options)?;
    let reads = checkpoint.has_bytes() && !arguments.no_bytes;
    let source = Counted::new(&checkpoint);
    // Saving begins from what loading gives, which doesn't say any more how many ranks there are.
    let ranks = count_ranks(&routes[0].stages(), checkpoint.header());
    let facts = Asking { source: &source, config: &config, tied: arguments.tied, ranks, reads };
    let loading = facts.plan(&routes[0], checkpoint.header(), &|key| Some(Key::from(key)))?;
    let loaded = Header::from_infos(
        loading.targets.iter().map(|target| (target.key.clone(), loading.info(target).clone())),
    );
    // Saving starts from what loading gave: keys that are one tensor in memory are one, whatever
    // lies in files.
    let saving = facts.saving(&routes[1], &loading, &loaded)?;
    let bytes = if reads { twins(&source)? } else { Vec::new() };
    let mut found = TiesFound {
        tied: config.tie_policy(arguments.tied),
        rules: routes[0].describe().into_iter().map(|(name, _)| name).collect(),
        storage: same_place(&source)?,
        metadata: metadata(checkpoint.header()),
        bytes_compared: reads,
        bytes,
        declared: declared(&loading, &saving),
        disagreements: Vec::new(),
        gone: gone(&loading),
        bytes_read: source.bytes_read(),
    };
    found.disagree();
    if console.json {
        console.json(&found)?;
    } else {
        console.out(&found.text(checkpoint.has_bytes()))?;
        for note in checkpoint.notes() {
            console.note(&format!("note: {note}"));
        }
    }
    Ok(Exit::findings(!found.disagreements.is_empty()))
}

/// What planning asks.
struct Asking<'a> {
    source: &'a Counted<'a>,
    config: &'a Config,
    tied: Option<bool>,
    ranks: IndexMap<String, Value>,
    reads: bool,
}

impl Asking<'_> {
    /// A plan over a header whose keys are tensors of the checkpoint as `origin` says.
    fn plan(
        &self,
        route: &Route,
        header: &Header,
        origin: &dyn Fn(&str) -> Option<Key>,
    ) -> Result<Plan> {
        let answer = |question: &Question| {
            let (Some(a), Some(b)) = (origin(&question.a), origin(&question.b)) else {
                return Ok(Answer::Unknown);
            };
            if a == b {
                return Ok(Answer::Equal);
            }
            let question = Question { a, b };
            if self.reads { compare(self.source, &question) } else { Ok(Answer::Unknown) }
        };
        let options = PlanOptions {
            config: self.config.clone(),
            tied: self.tied,
            parameters: self.ranks.clone(),
            not_strict: true,
            ..PlanOptions::default()
        };
        Ok(plan_asking(&route.stages(), header, &options, answer)??)
    }

    fn saving(&self, route: &Route, loading: &Plan, loaded: &Header) -> Result<Plan> {
        let origin = |key: &str| {
            let target = loading.target(key)?;
            Some(match &loading.node(target.node).op {
                Op::Source { key } => key.clone(),
                // What was made by ops is itself, under any of its keys.
                _ => loading.targets.iter().find(|other| other.node == target.node)?.key.clone(),
            })
        };
        self.plan(route, loaded, &origin)
    }
}

/// A tie that a rule declares, and what becomes of it.
#[derive(Serialize)]
struct Declared {
    /// The key that is tied, in the model's layout.
    target: Key,
    /// What it is tied to.
    source: Key,
    /// The rule file, and the line in it.
    file: String,
    line: usize,
    rule: String,
    /// What loading does.
    #[serde(flatten)]
    loading: TieOutcome,
    /// What saving does, if its rules ask.
    saving: Option<TieOutcome>,
    /// The checkpoint's keys behind both, where they are tensors of it as they are.
    #[serde(skip)]
    origins: [Option<Key>; 2],
    #[serde(skip)]
    line_text: String,
}

/// What the files themselves say: `save_model` of safetensors' torch part leaves keys out, and
/// notes of which tensor each is a name.
fn metadata(header: &Header) -> Vec<[Key; 2]> {
    let left_out = header.aliases().filter(|(alias, _)| !header.tensors.contains_key(*alias));
    left_out.map(|(alias, kept)| [Key::from(alias), kept.clone()]).collect()
}

fn declared(loading: &Plan, saving: &Plan) -> Vec<Declared> {
    let rule = |plan: &Plan, id: RuleId| plan.rules.get(id.0 as usize).cloned();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for fact in &loading.ties {
        let Some(info) = rule(loading, fact.rule) else { continue };
        // Several rules may declare one tie; the first is told.
        if !seen.insert((&fact.target, &fact.source)) {
            continue;
        }
        let saved = saving
            .ties
            .iter()
            .filter(|saved| saved.target == fact.target && rule(saving, saved.rule).is_some());
        found.push(Declared {
            target: fact.target.clone(),
            source: fact.source.clone(),
            line_text: rule_line(loading, fact.rule),
            file: info.file,
            line: info.line,
            rule: info.text,
            loading: fact.outcome.clone(),
            // One rule that leaves it out is enough.
            saving: saved
                .min_by_key(|saved| saved.outcome != TieOutcome::LeftOut)
                .map(|saved| saved.outcome.clone()),
            origins: [fact.target_origin.clone(), fact.source_origin.clone()],
        });
    }
    found
}

/// What loading leaves out, and what stands for it: with `same`, a tensor of another rank.
fn gone(loading: &Plan) -> BTreeMap<Key, Option<Key>> {
    let gone = loading.dropped.iter().map(|dropped| match &dropped.reason {
        DropReason::TiedTo(kept) => (dropped.key.clone(), Some(kept.clone())),
        DropReason::Rule(_) | DropReason::NotWanted => (dropped.key.clone(), None),
    });
    gone.collect()
}

/// What two of storage, bytes and declaration say otherwise.
#[derive(Serialize)]
struct Disagreement {
    keys: Vec<Key>,
    what: String,
}

#[derive(Serialize)]
struct TiesFound {
    /// Whether word embeddings are tied, and what decided.
    tied: TieDecision,
    /// Rule files that were asked.
    rules: Vec<String>,
    /// Keys of one place.
    storage: Vec<Vec<Key>>,
    /// Keys that were left out when the file was saved, and what stands for each.
    metadata: Vec<[Key; 2]>,
    bytes_compared: bool,
    /// Keys of equal bytes.
    bytes: Vec<Twins>,
    declared: Vec<Declared>,
    disagreements: Vec<Disagreement>,
    /// What loading leaves out, and what stands for it, if anything does.
    #[serde(skip)]
    gone: BTreeMap<Key, Option<Key>>,
    /// Bytes of tensors that were read for this.
    bytes_read: u64,
}

impl TiesFound {
    fn disagree(&mut self) {
        let mut found = Vec::new();
        for tie in &self.declared {
            let keys = vec![tie.target.clone(), tie.source.clone()];
            match &tie.loading {
                TieOutcome::Differs { bytes } => {
                    let differ = match bytes {
                        Some(bytes) => format!("differ in {}", counted(*bytes, "byte")),
                        None => "differ in dtype or shape".to_owned(),
                    };
                    found.push(Disagreement {
                        keys,
                        what: format!("declared one, but they {differ}: both are kept"),
                    });
                }
                TieOutcome::Refused { why } => {
                    found.push(Disagreement {
                        keys,
                        what: format!(
                            "declared one, but the source can't stand for the other: {why}"
                        ),
                    });
                }
                TieOutcome::NotTied if self.holds(&tie.origins) => {
                    found.push(Disagreement {
                        keys,
                        what: "equal byte for byte, but the tie's condition says that they are two"
                            .to_owned(),
                    });
                }
                _ => {}
            }
        }
        for group in self.bytes.iter().filter(|group| !group.constant) {
            // Keys that rules tie are left out but for one of each group that they make.
            let is_declared = |key: &Key, other: &Key| {
                self.goes(key, other)
                    || self.declared.iter().any(|tie| {
                        let [target, source] = &tie.origins;
                        let both = [target.as_ref(), source.as_ref()];
                        both == [Some(key), Some(other)] || both == [Some(other), Some(key)]
                    })
            };
            let undeclared: Vec<&Key> = group
                .keys
                .iter()
                .enumerate()
                .filter(|(at, key)| {
                    *at > 0 && !group.keys.iter().take(*at).any(|other| is_declared(key, other))
                })
                .map(|(_, key)| key)
                .collect();
            if let (Some(first), false) = (group.keys.first(), undeclared.is_empty()) {
                let keys = std::iter::once(first).chain(undeclared).cloned().collect();
                found.push(Disagreement {
                    keys,
                    what: "equal byte for byte, but no rule ties them".to_owned(),
                });
            }
        }
        for group in &self.storage {
            let all = |keys: &[Option<Key>; 2]| {
                keys.iter().all(|key| key.as_ref().is_some_and(|key| group.contains(key)))
            };
            if !self.declared.iter().any(|tie| all(&tie.origins))
                && self.bytes.iter().all(|twins| twins.keys != *group)
            {
                found.push(Disagreement {
                    keys: group.clone(),
                    what: "one storage, but no rule ties them".to_owned(),
                });
            }
        }
        self.disagreements = found;
    }

    /// Whether a key need not be tied to another, as one of them goes for a reason of its own.
    fn goes(&self, key: &Key, other: &Key) -> bool {
        let stands = |gone: &Key, kept: &Key| match self.gone.get(gone) {
            Some(Some(found)) => found == kept,
            Some(None) => true,
            None => false,
        };
        stands(key, other) || stands(other, key)
    }

    /// Whether both are known to be equal byte for byte, and that says something.
    fn holds(&self, origins: &[Option<Key>; 2]) -> bool {
        let [Some(a), Some(b)] = origins else { return false };
        self.bytes
            .iter()
            .any(|group| !group.constant && group.keys.contains(a) && group.keys.contains(b))
    }

    fn text(&self, has_bytes: bool) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "tied embeddings: {} ({})",
            if self.tied.tied { "yes" } else { "no" },
            self.tied.because
        );
        self.show_facts(has_bytes, &mut out);
        self.show_metadata(&mut out);
        self.show_declared(&mut out);
        let none = if self.disagreements.is_empty() { " none" } else { "" };
        let _ = writeln!(out, "\ndisagreements:{none}");
        for one in &self.disagreements {
            let _ = writeln!(out, "  {}\n    {}", joined(&one.keys, ", "), one.what);
        }
        let _ = writeln!(out, "\n{} read", Size(self.bytes_read));
        out
    }

    /// What storage and bytes say.
    fn show_facts(&self, has_bytes: bool, out: &mut String) {
        let none = if self.storage.is_empty() { " none" } else { "" };
        let _ = writeln!(out, "\none by storage:{none}");
        for group in &self.storage {
            let _ = writeln!(out, "  {}", joined(group, " = "));
        }
        let equal: Vec<&Twins> = self.bytes.iter().filter(|group| !group.constant).collect();
        let none = match (self.bytes_compared, has_bytes) {
            (false, true) => " not compared",
            (false, false) => " a manifest has none",
            (true, _) if equal.is_empty() => " none",
            (true, _) => "",
        };
        let _ = writeln!(out, "\nequal byte for byte:{none}");
        for group in equal {
            let _ = writeln!(out, "  {}  {}", joined(&group.keys, " = "), group.info);
        }
        let constant: usize =
            self.bytes.iter().filter(|group| group.constant).map(|group| group.keys.len()).sum();
        if constant > 0 {
            let _ = writeln!(
                out,
                "  and {} whose elements all have one value, as in fresh norms",
                counted(constant as u64, "tensor")
            );
        }
    }

    /// What the files themselves say.
    fn show_metadata(&self, out: &mut String) {
        let none = if self.metadata.is_empty() { " nothing" } else { "" };
        let _ = writeln!(out, "\nsaid by the metadata:{none}");
        let mut groups = Gathered::new();
        for [alias, kept] in &self.metadata {
            groups.add_made(alias, SourceKeys::of(kept), ());
        }
        for line in groups.lines() {
            let _ = writeln!(out, "  {}", equation(&line));
        }
    }

    /// What the rules say, and what becomes of it.
    fn show_declared(&self, out: &mut String) {
        let none = if self.declared.is_empty() { " none of keys that are there" } else { "" };
        let _ = writeln!(out, "\ndeclared by the rules ({}):{none}", self.rules.join(", "));
        let mut groups = Gathered::new();
        for tie in &self.declared {
            let saving = tie.saving.as_ref().map_or("stays", |saving| saved(saving));
            groups.add_made(
                &tie.target,
                SourceKeys::of(&tie.source),
                (tie.line_text.clone(), loaded(&tie.loading), saving),
            );
        }
        for line in groups.lines() {
            let (rule, loading, saving) = line.shared;
            let _ = writeln!(out, "  {}", equation(&line));
            let _ = writeln!(out, "    by {rule}\n    loading: {loading}\n    saving: {saving}");
        }
    }
}

/// Keys in one line.
fn joined(keys: &[Key], between: &str) -> String {
    keys.iter().map(|key| one_line(key)).collect::<Vec<_>>().join(between)
}

/// Keys that are each one tensor with another, and how many they are.
fn equation<S>(line: &Line<'_, S>) -> String {
    let source = line.sources().into_iter().next().map(|(source, _)| source).unwrap_or_default();
    let times = if line.count() > 1 { format!("  x {}", line.count()) } else { String::new() };
    format!("{} = {source}{times}", line.text())
}

fn loaded(outcome: &TieOutcome) -> String {
    match outcome {
        TieOutcome::Made => "one tensor".to_owned(),
        TieOutcome::Equal => "equal, kept as two tensors".to_owned(),
        TieOutcome::Differs { bytes: Some(bytes) } => {
            format!("kept, as it differs in {}", counted(*bytes, "byte"))
        }
        TieOutcome::Differs { bytes: None } => "kept, as it differs in dtype or shape".to_owned(),
        TieOutcome::Undecided => "kept; whether they are equal was not compared".to_owned(),
        TieOutcome::Refused { why } => format!("stays missing: {why}"),
        TieOutcome::Fallback => "stays as the model holds it".to_owned(),
        TieOutcome::LeftOut => "left out".to_owned(),
        TieOutcome::NotTied => "kept, as the tie's condition doesn't hold".to_owned(),
    }
}

fn saved(outcome: &TieOutcome) -> &'static str {
    match outcome {
        TieOutcome::LeftOut | TieOutcome::Made => "left out, as it is one with its source",
        TieOutcome::Differs { .. } => "written, as it differs",
        TieOutcome::NotTied => "written, as the tie's condition doesn't hold",
        TieOutcome::Undecided => "left out if equal byte for byte",
        TieOutcome::Equal | TieOutcome::Refused { .. } | TieOutcome::Fallback => "written",
    }
}
