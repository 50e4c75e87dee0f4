//! Every rule file that has layouts, on a header of a model that it is for: there, back, and there
//! once more, and boxes of every target on each way.
//!
//! The headers are in tests/fixtures/headers.json, which `scripts/make_fixtures.py` writes: one
//! from each model's own framework, with small shapes. The data of a key depends on the key, so
//! that no tensor can stand for another one.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use rayon::prelude::*;
use regraft::check::value::Value;
use regraft::check::{Direction, Rules};
use regraft::config::Config;
use regraft::diagnostic::render_all;
use regraft::execute::views;
use regraft::key::Key;
use regraft::library;
use regraft::plan::{
    Answer, DropReason, Op, Plan, PlanOptions, Question, Record, Stage, Verdict, plan_asking,
};
use regraft::store::tensors_equal;
use regraft::store::{StateDict, Store as _};
use regraft::tensor::{Dtype, TensorInfo, Wanted};
use serde::Deserialize;

use super::cases::{floats, same_boxes, state_dict};

/// Files whose conversion doesn't come back to the very bytes or keys, with the reason; each must
/// really not come back.
const ONE_WAY: &[(&str, &str)] = &[
    (
        "qwen3_vl_moe",
        "experts that transformers 4 published are transposed; as transformers does, the way back leaves them so",
    ),
    ("transformers/inkling2", PADDED),
    ("transformers/inkling2_loop", PADDED),
    ("transformers/inkling2_loop_text", PADDED),
    ("transformers/inkling2_text", PADDED),
];

const PADDED: &str =
    "rows that pad a published head go, and come back as zeros, as transformers writes them";

/// Files that do something to their own output, with the reason; each must really do so.
const TWICE: &[(&str, &str)] = &[];

#[derive(Deserialize)]
struct Fixture {
    config: serde_json::Value,
    keys: IndexMap<String, (Dtype, Vec<u64>)>,
    /// What the model asks for, where rules look at it.
    #[serde(default)]
    target: Vec<String>,
    /// Parameters that reading backwards needs.
    #[serde(default)]
    set: BTreeMap<String, serde_json::Value>,
}

fn fixtures() -> BTreeMap<String, Fixture> {
    let path = format!("{}/tests/fixtures/headers.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The keys that one with numbers in braces stands for: `a.{0-2,5}` is a.0, a.1, a.2 and a.5.
fn unfolded(key: &str) -> Vec<String> {
    key.split('.').fold(vec![], |heads: Vec<String>, segment| {
        let segments: Vec<String> = match segment
            .strip_prefix('{')
            .and_then(|inner| inner.strip_suffix('}'))
        {
            None => vec![segment.to_owned()],
            Some(runs) => runs.split(',').flat_map(run).map(|number| number.to_string()).collect(),
        };
        if heads.is_empty() {
            return segments;
        }
        heads
            .iter()
            .flat_map(|head| segments.iter().map(move |segment| format!("{head}.{segment}")))
            .collect()
    })
}

fn run(text: &str) -> std::ops::RangeInclusive<u32> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    first.parse().unwrap()..=last.parse().unwrap()
}

impl Fixture {
    fn source(&self) -> StateDict {
        let mut seen = BTreeSet::new();
        let tensors = self.keys.iter().flat_map(|(folded, (dtype, shape))| {
            let info = TensorInfo::new(*dtype, shape.clone());
            unfolded(folded).into_iter().map(move |key| (key, info.clone()))
        });
        state_dict(tensors.map(|(key, info)| {
            assert!(seen.insert(key.clone()), "{key} is there twice");
            // Bytes are bytes: other dtypes are cut from floats, but no bool is more than 1.
            let mut bytes = floats(&key, &info).repeat(2);
            bytes.truncate(usize::try_from(info.nbytes().unwrap()).unwrap());
            if info.dtype == Dtype::Bool {
                bytes.iter_mut().for_each(|byte| *byte &= 1);
            }
            (key, info, bytes)
        }))
    }
}

/// One way of a file on a checkpoint.
struct Step {
    plan: Plan,
    result: StateDict,
}

/// What a step goes by besides rules and keys.
#[derive(Clone, Copy)]
struct Given<'a> {
    config: &'a Config,
    set: &'a BTreeMap<String, serde_json::Value>,
    wanted: Option<&'a Wanted>,
    record: Option<&'a Record>,
}

fn step(
    rules: &Rules,
    direction: Direction,
    source: &StateDict,
    given: Given<'_>,
) -> Result<Step, String> {
    let Given { config, set, wanted, record } = given;
    let answer = |asked: &Question| {
        let equal = tensors_equal(source, &asked.a, &asked.b)?.is_equal();
        Ok::<_, regraft::error::Error>(if equal { Answer::Equal } else { Answer::Differ(1) })
    };
    let options = PlanOptions {
        config: config.clone(),
        parameters: set.iter().map(|(name, set)| (name.clone(), Value::from_json(set))).collect(),
        wanted,
        not_strict: true,
        record,
        ..PlanOptions::default()
    };
    let stages = [Stage { rules, direction, named: false }];
    let plan = plan_asking(&stages, source.header(), &options, answer)
        .map_err(|error| error.to_string())?
        .map_err(|found| render_all(&found.0, false))?;
    let made = views(&plan, source).map_err(|error| error.to_string())?;
    same_boxes(&format!("{} {direction:?}", rules.name), &plan, source, &made);
    Ok(Step { plan, result: StateDict::from_tensors(made.tensors, BTreeMap::new()) })
}

/// How two state dicts differ, if they do; `gone` are keys that the second may lack.
fn differing(before: &StateDict, after: &StateDict, gone: &BTreeSet<Key>) -> Option<String> {
    let mut wrong = Vec::new();
    for (key, view) in before.iter() {
        match after.get(key) {
            None if gone.contains(key) => {}
            None => wrong.push(format!("{key} is missing")),
            Some(_) if gone.contains(key) => wrong.push(format!("{key} was dropped and is back")),
            Some(other) if other.info() != view.info() => {
                wrong.push(format!("{key} is {}, was {}", other.info(), view.info()))
            }
            Some(other) if other.to_vec() != view.to_vec() => {
                wrong.push(format!("{key} has other bytes"))
            }
            Some(_) => {}
        }
    }
    wrong.extend(
        after.keys().filter(|key| before.get(key).is_none()).map(|key| format!("{key} is new")),
    );
    (!wrong.is_empty()).then(|| {
        format!(
            "{} keys: {}",
            wrong.len(),
            wrong.iter().take(3).cloned().collect::<Vec<_>>().join("; ")
        )
    })
}

/// What a plan would do to a checkpoint that needs nothing done.
fn moved(plan: &Plan) -> Option<String> {
    let moved = plan.targets.iter().filter(|target| {
        let own = matches!(&plan.node(target.node).op, Op::Source { key } if *key == target.key);
        !own && target.tied_to.is_none()
    });
    let mut said: Vec<String> = moved.take(3).map(|target| target.key.to_string()).collect();
    said.extend(plan.dropped.iter().take(3).map(|dropped| format!("{} dropped", dropped.key)));
    if !matches!(plan.verdict, None | Some(Verdict::Already | Verdict::Neither)) {
        said.push(format!("{:?}", plan.verdict));
    }
    (!said.is_empty()).then(|| said.join(", "))
}

fn with_layouts() -> impl Iterator<Item = (&'static str, &'static Rules)> {
    library::names()
        .map(|name| (name, library::rules(name).unwrap()))
        .filter(|(_, rules)| rules.layouts.is_some())
}

#[test]
fn every_file_with_layouts_has_a_fixture() {
    let fixtures = fixtures();
    let files: BTreeSet<&str> = with_layouts().map(|(name, _)| name).collect();
    // Publishers' layouts have theirs in tests/fixtures/layouts, with what real converters made.
    let layouts = crate::library::layouts::layouts();
    let lacking: Vec<&&str> = files
        .iter()
        .filter(|name| !fixtures.contains_key(**name) && !layouts.contains_key(**name))
        .collect();
    assert!(lacking.is_empty(), "scripts/make_fixtures.py has not made fixtures for {lacking:?}");
    let stale: Vec<&String> =
        fixtures.keys().filter(|name| !files.contains(name.as_str())).collect();
    assert!(stale.is_empty(), "no rule file is for the fixtures {stale:?}");
}

/// What became of one file: why it doesn't come back, and what it does to its own output.
struct Outcome {
    name: &'static str,
    fires: bool,
    round_trip: Result<(), String>,
    again: Result<(), String>,
}

fn outcome(name: &'static str, rules: &Rules, fixture: &Fixture) -> Result<Outcome, String> {
    let config = Config::from_value(fixture.config.clone());
    let source = fixture.source();
    let wanted =
        Wanted::from_keys(fixture.target.iter().flat_map(|key| unfolded(key)).map(Key::from));
    let forward = Given {
        config: &config,
        set: &fixture.set,
        wanted: (!fixture.target.is_empty()).then_some(&wanted),
        record: None,
    };
    let there = step(rules, Direction::Forward, &source, forward)?;
    let fires = there.plan.rules.iter().any(|rule| rule.count > 0);
    let stage = Stage { rules, direction: Direction::Forward, named: false };
    let record = Record::of(&there.plan, &[stage], BTreeMap::new());
    let back = |record| {
        step(rules, Direction::Reverse, &there.result, Given { wanted: None, record, ..forward })
            .map(|step| step.result)
    };
    let by_rule =
        there.plan.dropped.iter().filter(|dropped| matches!(dropped.reason, DropReason::Rule(_)));
    let gone: BTreeSet<Key> = by_rule.map(|dropped| dropped.key.clone()).collect();
    let round_trip = match back(None) {
        Err(why) => Err(why),
        Ok(came) => match differing(&source, &came, &gone) {
            None => Ok(()),
            // Only where a step is one-way by itself may the record be asked.
            Some(why) if there.plan.renamed.is_empty() => Err(why),
            Some(_) => back(Some(&record))
                .and_then(|came| differing(&source, &came, &gone).map_or(Ok(()), Err)),
        },
    };
    let again =
        step(rules, Direction::Forward, &there.result, forward).and_then(|step| {
            match moved(&step.plan) {
                Some(why) => Err(why),
                None => {
                    differing(&there.result, &step.result, &BTreeSet::new()).map_or(Ok(()), Err)
                }
            }
        });
    Ok(Outcome { name, fires, round_trip, again })
}

#[test]
fn there_and_back_is_the_identity_and_there_again_moves_nothing() {
    let fixtures = fixtures();
    let files: Vec<_> = with_layouts()
        .filter_map(|(name, rules)| Some((name, rules, fixtures.get(name)?)))
        .collect();
    let outcomes: Vec<_> = files
        .par_iter()
        .map(|(name, rules, fixture)| outcome(name, rules, fixture).map_err(|why| (*name, why)))
        .collect();
    let mut wrong = Vec::new();
    for outcome in outcomes {
        match outcome {
            Err((name, why)) => wrong.push(format!("{name} doesn't apply: {why}")),
            Ok(outcome) => {
                let Outcome { name, fires, round_trip, again } = outcome;
                if !fires {
                    wrong.push(format!("{name}: no rule fires"));
                }
                wrong.extend(judged(name, "doesn't come back", round_trip, ONE_WAY));
                wrong.extend(judged(name, "applied again", again, TWICE));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} files:\n{}", wrong.len(), files.len(), wrong.join("\n"));
}

/// What is wrong with a result, given the files that are known to fail.
fn judged(
    name: &str,
    what: &str,
    result: Result<(), String>,
    known: &[(&str, &str)],
) -> Option<String> {
    let reason = known.iter().find(|(file, _)| *file == name).map(|(_, reason)| reason);
    match (result, reason) {
        (Err(why), None) => Some(format!("{name} {what}: {why}")),
        (Ok(()), Some(reason)) => Some(format!("{name} is listed ({reason}), and needn't be")),
        _ => None,
    }
}
