//! The recorded calls of NeMo AutoModel's checkpoint utilities, run here: in reference mode every
//! output and raised error agrees; in strict mode each difference is one of those that
//! `docs/seed.md` lists, by rule and by case.
//!
//! `REGRAFT_SEED_CASES` names another file of the same form: its calls are held to the rules, as
//! the docs can't list their ids.
// clippy spares only functions marked as tests, not what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

mod call;
mod case;
mod checkpoints;
mod deviation;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use regraft::config::default_tie;
use regraft::key::Key;
use regraft::plan::Stage;
use regraft::tensor::{Dtype, Header, TensorInfo};
use regraft::{Direction, PlanOptions};
use regraft_seed::{Compat, names};

use case::{Case, Outcome, fixture};
use deviation::Rule;

/// Functions of the file that record facts about libraries, not calls.
const NOT_CALLS: [&str; 1] = ["_upstream_facts"];

fn other_file() -> Option<Vec<Case>> {
    std::env::var_os("REGRAFT_SEED_CASES").map(|path| case::read(path.into()))
}

fn outcome(case: &Case, compat: Compat) -> Option<Outcome> {
    if NOT_CALLS.contains(&case.function.as_str()) {
        return None;
    }
    Some(
        call::call(case, compat)
            .unwrap_or_else(|| panic!("{}: no function {:?}", case.id, case.function)),
    )
}

/// Paths that the file recorded elsewhere, as ours are shown.
fn without_paths(outcome: &Outcome) -> Outcome {
    let Outcome::Raises { kind, message } = outcome else { return outcome.clone() };
    let words = message.split(' ').map(|word| match word.find("/tmp/seed") {
        // `/tmp/seedXXXX/NAME` is the checkpoint; what follows is inside it.
        Some(at) => {
            let (before, path) = word.split_at(at);
            let rest = path.splitn(5, '/').nth(4).map_or_else(
                || {
                    path.rfind('.')
                        .filter(|dot| dot + 1 == path.len())
                        .map_or("", |_| ".")
                        .to_owned()
                },
                |rest| format!("/{rest}"),
            );
            format!("{before}<checkpoint>{rest}")
        }
        None => word.to_owned(),
    });
    Outcome::Raises { kind: kind.clone(), message: words.collect::<Vec<_>>().join(" ") }
}

fn agree_in_reference_mode(cases: &[Case]) {
    let mut wrong = String::new();
    for case in cases {
        let Some(found) = outcome(case, Compat::Reference) else { continue };
        let recorded = without_paths(&case.recorded);
        let same_kind = matches!((&found, &recorded), (Outcome::Raises { kind, .. }, Outcome::Raises { kind: other, .. })
            if kind == other && kind == "SafetensorError");
        if found != recorded && !same_kind {
            let _ = writeln!(wrong, "{}\n  recorded {recorded:?}\n  found    {found:?}", case.id);
        }
    }
    assert!(wrong.is_empty(), "in reference mode:\n{wrong}");
}

/// Rules by which a call's strict outcome differs from the record; empty where it doesn't.
fn differences(case: &Case) -> Result<Vec<&'static Rule>, String> {
    let Some(found) = outcome(case, Compat::Strict) else { return Ok(Vec::new()) };
    let agrees = match (&found, &case.recorded) {
        // The same error, in words of our own.
        (Outcome::Raises { .. }, Outcome::Raises { .. }) => true,
        (found, recorded) => found == recorded,
    };
    if agrees {
        return Ok(Vec::new());
    }
    let rules = deviation::explain(case, &found);
    if rules.is_empty() {
        return Err(format!("{}\n  recorded {:?}\n  found    {found:?}\n", case.id, case.recorded));
    }
    Ok(rules)
}

#[test]
fn reference_mode_agrees_with_every_case() {
    let cases = case::read(fixture("cases.json"));
    assert_eq!(cases.len(), 2319);
    agree_in_reference_mode(&cases);
}

#[test]
fn strict_mode_differs_as_documented() {
    let listed = deviation::listed_in_docs();
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut unknown = String::new();
    for case in case::read(fixture("cases.json")) {
        match differences(&case) {
            Ok(rules) => rules
                .iter()
                .for_each(|rule| found.entry(rule.name).or_default().push(case.id.clone())),
            Err(difference) => unknown += &difference,
        }
    }
    assert!(unknown.is_empty(), "no rule covers these differences in strict mode:\n{unknown}");
    if std::env::var_os("REGRAFT_SEED_LIST").is_some() {
        for rule in deviation::RULES {
            println!(
                "{}\n{}\n",
                rule.name,
                deviation::show(found.get(rule.name).map_or(&[], Vec::as_slice))
            );
        }
    }
    let names: Vec<&str> = deviation::RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(
        listed.keys().map(String::as_str).collect::<Vec<_>>(),
        {
            let mut sorted = names.clone();
            sorted.sort_unstable();
            sorted
        },
        "the rules of docs/seed.md"
    );
    for name in names {
        let mut listed = listed[name].clone();
        let mut found = found.remove(name).unwrap_or_default();
        listed.sort();
        found.sort();
        assert_eq!(
            listed, found,
            "docs/seed.md lists other cases under {name} than differ by it (REGRAFT_SEED_LIST=1 prints them)"
        );
    }
}

#[test]
fn another_file_agrees_too() {
    let Some(cases) = other_file() else { return };
    agree_in_reference_mode(&cases);
    let unknown: String = cases.iter().filter_map(|case| differences(case).err()).collect();
    assert!(unknown.is_empty(), "no rule covers these differences in strict mode:\n{unknown}");
    println!("{} calls of another file agree", cases.len());
}

#[test]
fn the_table_of_defaults_is_that_of_the_config_classes() {
    let text = std::fs::read_to_string(fixture("hf_default_tie.json")).unwrap();
    let table: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(table.len(), 800);
    for (name, facts) in table {
        assert_eq!(default_tie(&name), facts["controlling"].as_bool(), "{name}");
    }
}

/// One truth: a name normalized alone comes out as the engine strips it from a checkpoint's key, by
/// the same rule file.
#[test]
fn names_are_stripped_as_the_engine_strips_keys() {
    let text = regraft::library::text("wrappers").unwrap();
    let anywhere = text
        .lines()
        .filter(|line| line.starts_with("ruleset") || line.starts_with("strip anywhere"))
        .collect::<Vec<_>>()
        .join("\n");
    let rules = regraft::compile(&anywhere).unwrap();
    let stages = [Stage { rules: &rules, direction: Direction::Forward, named: false }];
    let mut stripped = 0;
    for case in case::read(fixture("cases.json")) {
        let Some(name) = case
            .input
            .get("name")
            .and_then(|name| name.as_str())
            .filter(|_| case.function == "normalize_param_name")
        else {
            continue;
        };
        let header = Header::from_infos([(Key::from(name), TensorInfo::new(Dtype::F32, vec![1]))]);
        let plan = regraft::plan(&stages, &header, &PlanOptions::default()).unwrap();
        assert_eq!(
            names::normalize_param_name(name, Compat::Strict),
            plan.targets[0].key.as_str(),
            "{name:?}"
        );
        stripped += usize::from(plan.targets[0].key.as_str() != name);
    }
    assert!(stripped > 40, "{stripped}");
}
