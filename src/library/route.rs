//! [`Route`]: rule files in order, and which way to read each.

use std::sync::Arc;

use super::{
    ALWAYS_FIRST, HUB, Library, MODEL, NEWEST_MODEL, OLDER_MODEL, Recognized, candidates, embedded,
    is_in_memory, rules,
};
use crate::check::{Direction, Rules, Shards, check};
use crate::config::Config;
use crate::diagnostic::codes::{DUPLICATE, NO_WAY, UNKNOWN_LAYOUT};
use crate::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use crate::key::RankFiles;
use crate::plan::Stage;

/// Rules that every checkpoint ends with when rules are chosen by config.json.
const ALWAYS_LAST: &str = "tied_lm_head";

/// How the names of classes end that have no output head, so nothing to tie: bare models and those
/// that classify.
const HEADLESS: &[&str] = &[
    "Model",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForImageClassification",
];
/// How the names of older classes with an output head end all the same.
const HEADS: &[&str] = &["HeadModel", "HeadsModel"];

/// Rules in order, and which way to read each: what a plan starts from.
#[derive(Clone, Debug, Default)]
pub struct Route {
    stages: Vec<(Arc<Rules>, Direction, bool)>,
}

impl Route {
    /// Rules that a person named, one after the other.
    ///
    /// Each is read so that it leads from `from` towards `to`; left to right if neither of its
    /// layouts is asked for. With `reverse`, all are read backwards, in reverse order.
    ///
    /// # Errors
    /// A layout that none of them has.
    pub fn named(
        rules: Vec<Rules>,
        from: Option<&str>,
        to: Option<&str>,
        reverse: bool,
    ) -> Result<Self, Diagnostics> {
        for layout in [from, to].into_iter().flatten() {
            let known: Vec<&str> = rules
                .iter()
                .filter_map(|rules| rules.layouts.as_ref())
                .flat_map(|(left, right)| [left.as_str(), right.as_str()])
                .collect();
            if !known.contains(&layout) {
                return Err(Diagnostics(vec![unknown_layout(layout, &known)]));
            }
        }
        let mut stages: Vec<(Arc<Rules>, Direction, bool)> = Vec::new();
        for rules in rules {
            let direction = match &rules.layouts {
                Some((left, right)) if to == Some(left) || from == Some(right) => {
                    Direction::Reverse
                }
                _ => Direction::Forward,
            };
            stages.push((Arc::new(rules), direction, true));
        }
        if reverse {
            stages.reverse();
            for (_, direction, _) in &mut stages {
                *direction = direction.opposite();
            }
        }
        Ok(Self { stages })
    }

    /// The rules that config.json asks for: a class name in `architectures` first, then
    /// `model_type`; from one layout to another (`hub` to `model` if not said), through others
    /// where need be; between `wrappers` and, unless the class has no output head, `tied_lm_head`.
    /// `model` is what the version of transformers that config.json names holds, if that has a
    /// layout of its own, else what the newest holds.
    ///
    /// # Errors
    /// A layout that no rule file of this model has.
    pub fn by_config(
        config: &Config,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Self, Diagnostics> {
        let candidates = candidates(config);
        let other = |layout: &str| if is_in_memory(layout) { HUB } else { MODEL };
        let (from, to) = match (from, to) {
            (Some(from), Some(to)) => (from, to),
            (Some(from), None) => (from, other(from)),
            (None, Some(to)) => (other(to), to),
            (None, None) => (HUB, MODEL),
        };
        let older = older_model(config, &candidates);
        let leads_between_versions = [from, to].iter().all(|layout| is_in_memory(layout));
        let meant = |layout| match layout {
            NEWEST_MODEL => MODEL,
            MODEL if !leads_between_versions => older.unwrap_or(MODEL),
            other => other,
        };
        let (from, to) = (meant(from), meant(to));
        let mut stages = Vec::new();
        if let Some(wrappers) = rules(ALWAYS_FIRST) {
            stages.push((Arc::new(wrappers.clone()), Direction::Forward, false));
        }
        let tied =
            rules(ALWAYS_LAST).filter(|_| !headless(config)).map(|rules| Arc::new(rules.clone()));
        let loading = is_in_memory(to);
        let tied = tied.map(|rules| {
            (rules, if loading { Direction::Forward } else { Direction::Reverse }, false)
        });
        let path = path(&candidates, from, to)?;
        if !loading {
            stages.extend(tied.clone());
        }
        stages.extend(
            path.into_iter().map(|(rules, direction)| (Arc::new(rules.clone()), direction, false)),
        );
        if loading {
            stages.extend(tied);
        }
        Ok(Self { stages })
    }

    /// The rules for a checkpoint of which nothing is known, nor what is wanted of it: names stay as
    /// they are, wrappers too, and a head that is missing is tied.
    pub fn of_nothing_known() -> Self {
        let tied = rules(ALWAYS_LAST).map(|rules| Arc::new(rules.clone()));
        Self { stages: tied.into_iter().map(|rules| (rules, Direction::Forward, false)).collect() }
    }

    /// The rules of the layout that a checkpoint was taken for, after `wrappers`: towards `hub`, or on
    /// from there to `model`, by the rules for its config, or for the model types of that layout
    /// where there is none.
    ///
    /// # Errors
    /// If there are several model types, and they go on differently.
    pub fn recognized(found: &Recognized, config: &Config, to: &str) -> Result<Self, Diagnostics> {
        let Some(rules_of) = rules(found.rules) else { return Ok(Self::default()) };
        let towards = match &rules_of.layouts {
            Some((left, _)) if *left != found.layout => Direction::Reverse,
            _ => Direction::Forward,
        };
        let first = rules(ALWAYS_FIRST).cloned();
        let strip = (!found.prefix.is_empty()).then(|| prefix_off(&found.prefix)).transpose()?;
        let mut stages: Vec<_> = first
            .into_iter()
            .chain(strip)
            .map(|rules| (Arc::new(rules), Direction::Forward, false))
            .collect();
        stages.push((Arc::new(rules_of.clone()), towards, false));
        if is_in_memory(to) {
            let rest = match config.is_empty() {
                false => Self::by_config(config, Some(HUB), Some(to))?,
                true => on_to_model(rules_of)?,
            };
            let again = |name: &str| name == ALWAYS_FIRST;
            stages.extend(rest.stages.into_iter().filter(|(rules, ..)| !again(&rules.name)));
        }
        Ok(Self { stages })
    }

    /// The stages, for [`plan`](crate::plan::plan).
    pub fn stages(&self) -> Vec<Stage<'_>> {
        self.stages
            .iter()
            .map(|(rules, direction, named)| Stage { rules, direction: *direction, named: *named })
            .collect()
    }

    /// How the files of ranks are called, as the rules that are read in a direction say: forwards
    /// those that are read, backwards those that are written.
    ///
    /// # Errors
    /// If two of them say different things.
    pub fn rank_files(&self, direction: Direction) -> Result<Option<&RankFiles>, Diagnostics> {
        let mut found: Option<&Shards> = None;
        let read = self.stages.iter().filter(|(_, read, _)| *read == direction);
        for shards in read.filter_map(|(rules, ..)| rules.shards.as_ref()) {
            match found {
                Some(first) if first.files != shards.files => {
                    let finding = Diagnostic::error(
                        DUPLICATE,
                        "two rule files name the files of ranks differently",
                    );
                    let finding = finding.at(shards.place.clone(), "here");
                    let finding = finding.label(first.place.clone(), "and here");
                    return Err(Diagnostics(vec![finding]));
                }
                _ => found = Some(shards),
            }
        }
        Ok(found.map(|shards| &shards.files))
    }

    /// Each rule file's name, and which way it is read.
    pub fn describe(&self) -> Vec<(String, Direction)> {
        self.stages.iter().map(|(rules, direction, _)| (rules.name.clone(), *direction)).collect()
    }
}

/// Whether config.json names classes, and none of them has an output head.
fn headless(config: &Config) -> bool {
    let classes = config.architectures();
    let ends = |class: &str, with: &[&str]| with.iter().any(|end| class.ends_with(end));
    !classes.is_empty() && classes.iter().all(|class| ends(class, HEADLESS) && !ends(class, HEADS))
}

/// The layout of the version of transformers that wrote a config.json, if it holds the model in
/// other names than the newest does.
fn older_model<'r>(config: &Config, candidates: &[&'r Rules]) -> Option<&'r str> {
    let version = config.get(&["transformers_version"])?.as_str()?;
    let mut numbers = version.split('.');
    let layout = format!("{OLDER_MODEL}{}_{}", numbers.next()?, numbers.next()?);
    let layouts = candidates.iter().filter_map(|rules| rules.layouts.as_ref());
    layouts
        .flat_map(|(left, right)| [left, right])
        .map(String::as_str)
        .find(|known| *known == layout)
}

/// The shortest way from one layout to another. Where no rule file tells `hub` and `model` apart, a
/// model has the same keys in both.
fn path(
    candidates: &[&'static Rules],
    from: &str,
    to: &str,
) -> Result<Vec<(&'static Rules, Direction)>, Diagnostics> {
    let mut known: Vec<&str> = vec![HUB, MODEL];
    known.extend(
        candidates
            .iter()
            .filter_map(|rules| rules.layouts.as_ref())
            .flat_map(|(left, right)| [left.as_str(), right.as_str()]),
    );
    for layout in [from, to] {
        if !known.contains(&layout) {
            return Err(Diagnostics(vec![unknown_layout(layout, &known)]));
        }
    }
    let alike = |layout: &str| match known.iter().find(|known| **known == layout) {
        Some(&HUB) => vec![HUB, MODEL],
        Some(&MODEL) => vec![MODEL, HUB],
        other => other.copied().into_iter().collect(),
    };
    let ends = alike(from)
        .into_iter()
        .flat_map(|start| alike(to).into_iter().map(move |end| (start, end)));
    let way = ends.into_iter().find_map(|(start, end)| shortest(candidates, start, end));
    way.ok_or_else(|| {
        Diagnostics(vec![Diagnostic::error(
            NO_WAY,
            format!("no rule file leads from `{from}` to `{to}`"),
        )])
    })
}

/// The fewest rule files that lead from one layout to another.
fn shortest(
    candidates: &[&'static Rules],
    from: &str,
    to: &str,
) -> Option<Vec<(&'static Rules, Direction)>> {
    let mut reached: Vec<(&str, Vec<(&'static Rules, Direction)>)> = vec![(from, Vec::new())];
    let mut at = 0;
    while let Some((layout, way)) = reached.get(at).cloned() {
        if layout == to {
            return Some(way);
        }
        for rules in candidates {
            let Some((left, right)) = &rules.layouts else { continue };
            for (start, end, direction) in
                [(left, right, Direction::Forward), (right, left, Direction::Reverse)]
            {
                if start == layout && reached.iter().all(|(known, _)| known != end) {
                    let mut way = way.clone();
                    way.push((*rules, direction));
                    reached.push((end.as_str(), way));
                }
            }
        }
        at += 1;
    }
    None
}

fn unknown_layout(layout: &str, known: &[&str]) -> Diagnostic {
    let finding =
        Diagnostic::error(UNKNOWN_LAYOUT, format!("no rule file here has the layout `{layout}`"));
    match did_you_mean(layout, known.iter().copied()) {
        Some(close) => finding.hint(format!("did you mean `{close}`?")),
        None => {
            let mut known = known.to_vec();
            known.sort_unstable();
            known.dedup();
            finding.hint(format!("the layouts here are {}", known.join(", ")))
        }
    }
}

/// Rules that take segments off the front of every key.
fn prefix_off(prefix: &[String]) -> Result<Rules, Diagnostics> {
    let escaped = |segment: &String| {
        let special = |c: char| matches!(c, '{' | '}' | '"' | '\\' | '*');
        segment.chars().fold(String::new(), |mut text, c| {
            if special(c) {
                text.push('\\');
            }
            text.push(c);
            text
        })
    };
    let segments: Vec<String> = prefix.iter().map(escaped).collect();
    check(
        &embedded("prefix", &format!("rename \"{}.**\" -> \"**\"\n", segments.join("."))),
        &Library::default(),
    )
}

/// The rules that lead from `hub` to `model`, for the model types of a file.
fn on_to_model(rules: &Rules) -> Result<Route, Diagnostics> {
    let mut routes: Vec<Route> = Vec::new();
    for model in &rules.models {
        let config = Config::from_value(serde_json::json!({ "model_type": model }));
        let route = Route::by_config(&config, Some(HUB), Some(MODEL))?;
        if routes.iter().all(|known| known.describe() != route.describe()) {
            routes.push(route);
        }
    }
    if routes.len() > 1 {
        let message = format!(
            "the keys are of {}, which go on to `{MODEL}` differently",
            rules.models.join(" or ")
        );
        let finding = Diagnostic::error(NO_WAY, message);
        return Err(Diagnostics(vec![
            finding.hint("a --config with the `model_type` says which; or ask for --to hub"),
        ]));
    }
    match routes.pop() {
        Some(route) => Ok(route),
        None => Route::by_config(&Config::empty(), Some(HUB), Some(MODEL)),
    }
}
