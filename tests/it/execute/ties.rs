//! What ties leave in memory: one storage for a chain, and what a model holds already.

use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::prelude::*;
use regraft::diagnostic::codes;
use regraft::execute::{views, views_over};
use regraft::key::Key;
use regraft::plan::{Answer, Plan, PlanOptions, Question, Stage, TieOutcome, plan, plan_asking};
use regraft::store::{Equality, tensors_equal};
use regraft::store::{StateDict, Store as _};
use regraft::tensor::{Dtype, Storage, TensorInfo, TensorView, Wanted};
use regraft::{Direction, compile};

fn tensor(bytes: Vec<u8>) -> TensorView {
    let len = bytes.len() as u64;
    TensorView::contiguous(Storage::new(bytes), TensorInfo::new(Dtype::U8, vec![len]), 0).unwrap()
}

fn dict(tensors: &[(&str, TensorView)]) -> StateDict {
    StateDict::from_tensors(
        tensors.iter().map(|(key, view)| (Key::from(*key), view.clone())),
        BTreeMap::new(),
    )
}

fn planned(
    rules: &str,
    source: &StateDict,
    wanted: Option<&Wanted>,
    direction: Direction,
) -> Result<Plan, regraft::diagnostic::Diagnostics> {
    let rules = compile(rules).unwrap();
    let answer = |asked: &Question| {
        Ok::<_, regraft::error::Error>(match tensors_equal(source, &asked.a, &asked.b)? {
            Equality::SamePlace | Equality::Equal => Answer::Equal,
            Equality::Different | Equality::OtherInfo => Answer::Differ(1),
        })
    };
    let options = PlanOptions { wanted, ..PlanOptions::default() };
    let stages = [Stage { rules: &rules, direction, named: true }];
    plan_asking(&stages, source.header(), &options, answer).unwrap()
}

#[test]
fn what_falls_back_is_the_models_own() {
    let source = dict(&[("norm", tensor(vec![1, 2]))]);
    let head = tensor(vec![3, 4, 5]);
    let model =
        dict(&[("norm", tensor(vec![0, 0])), ("head", head.clone()), ("other", head.clone())]);
    let wanted = Wanted::from_keys(["norm", "head"].map(Key::from));
    let rules = r#"tie "head" from "embed" if absent fallback"#;
    let plan = planned(rules, &source, Some(&wanted), Direction::Forward).unwrap();
    assert_eq!(plan.kept, [Key::from("head")]);
    assert_eq!(plan.report.as_ref().unwrap().missing, Vec::<Key>::new());
    assert_eq!(plan.ties[0].outcome, TieOutcome::Fallback);
    let made = views_over(&plan, &source, &model).unwrap();
    let keys: Vec<&str> = made.tensors.keys().map(Key::as_str).collect();
    assert_eq!(keys, ["head", "norm"]);
    assert!(made.tensors["head"].same_tensor(&head), "not a copy, and not another's");
    assert!(
        made.tensors["norm"].same_tensor(source.get("norm").unwrap()),
        "the checkpoint's, not the model's"
    );
    assert!(!views(&plan, &source).unwrap().tensors.contains_key("head"));
    // A model that doesn't hold it either is an error, and without `fallback` the key is missing.
    assert!(views_over(&plan, &source, &source).is_err());
    let refused = planned(r#"tie "head" from "embed""#, &source, Some(&wanted), Direction::Forward)
        .unwrap_err();
    assert!(refused.0.iter().any(|finding| finding.code == codes::MISSING_KEY));
    // A source that is there comes first.
    let full = dict(&[("norm", tensor(vec![1, 2])), ("embed", tensor(vec![6, 7, 8]))]);
    let wanted = Wanted::from_keys(["norm", "head", "embed"].map(Key::from));
    let plan = planned(rules, &full, Some(&wanted), Direction::Forward).unwrap();
    assert!(plan.kept.is_empty());
    let made = views_over(&plan, &full, &model).unwrap();
    assert!(made.tensors["head"].same_tensor(full.get("embed").unwrap()));
}

/// Whichever way round a chain is written, and whatever of it is there: one storage, and only the
/// root is saved.
#[test]
fn a_chain_is_one_storage_and_saves_its_root() {
    let statements =
        [r#"tie "b" from "a""#, r#"tie "c" from "b" if present alias"#, r#"tie "d" from "c""#];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
        let rules = order.map(|at| statements[at]).join("\n");
        for there in [&["a"][..], &["a", "c"], &["a", "d"]] {
            let source =
                dict(&there.iter().map(|key| (*key, tensor(vec![1, 2, 3]))).collect::<Vec<_>>());
            let plan = planned(&rules, &source, None, Direction::Forward).unwrap();
            let made = views(&plan, &source).unwrap();
            assert_eq!(made.tensors.len(), 4, "{rules} of {there:?}");
            // `d` is kept where it is there, as `if present keep` says.
            let one = if there.contains(&"d") { &["b", "c"][..] } else { &["b", "c", "d"] };
            for key in one {
                assert!(
                    made.tensors[*key].same_tensor(&made.tensors["a"]),
                    "{rules} of {there:?}: {key}"
                );
            }
            let loaded = StateDict::from_tensors(made.tensors, BTreeMap::new());
            let saved = planned(&rules, &loaded, None, Direction::Reverse).unwrap();
            let keys: Vec<&str> = saved.targets.iter().map(|target| target.key.as_str()).collect();
            assert_eq!(keys, ["a"], "{rules} of {there:?}");
        }
    }
}

/// A link that differs is kept, and what hangs on it is its own.
#[test]
fn a_chain_that_differs_in_its_middle_saves_both_ends() {
    for rules in
        ["tie \"b\" from \"a\"\ntie \"c\" from \"b\"", "tie \"c\" from \"b\"\ntie \"b\" from \"a\""]
    {
        let middle = tensor(vec![9, 9]);
        let loaded = dict(&[("a", tensor(vec![1, 2])), ("b", middle.clone()), ("c", middle)]);
        let saved = planned(rules, &loaded, None, Direction::Reverse).unwrap();
        let keys: Vec<&str> = saved.targets.iter().map(|target| target.key.as_str()).collect();
        assert_eq!(keys, ["a", "b"], "{rules}");
        let again = views(&saved, &loaded).unwrap();
        let again = StateDict::from_tensors(again.tensors, BTreeMap::new());
        let plan = planned(rules, &again, None, Direction::Forward).unwrap();
        assert_eq!(views(&plan, &again).unwrap().tensors["c"].to_vec(), [9, 9], "{rules}");
    }
}

/// Over several rule files a circle can't be seen when they are checked; it must not lose the
/// tensor.
#[test]
fn a_circle_over_two_files_keeps_one() {
    let files = [r#"tie "a" from "b""#, r#"tie "b" from "a""#].map(|text| compile(text).unwrap());
    let source = dict(&[("a", tensor(vec![1])), ("b", tensor(vec![1]))]);
    let equal = |_: &Question| Ok::<_, Infallible>(Answer::Equal);
    for direction in [Direction::Forward, Direction::Reverse] {
        let stages: Vec<Stage<'_>> =
            files.iter().map(|rules| Stage { rules, direction, named: true }).collect();
        let options = PlanOptions::default();
        let plan = plan_asking(&stages, source.header(), &options, equal).unwrap().unwrap();
        assert_eq!(plan.targets.len(), if direction == Direction::Forward { 2 } else { 1 });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Whatever is tied to what, in whatever order it is written, and whatever of it is there:
    /// saving what was loaded and loading that again gives the same tensors, and what a tie made is
    /// one tensor with its source.
    #[test]
    fn saving_loses_nothing(
        ties in prop::collection::vec((1..6usize, prop::collection::vec(0..16usize, 1..3), any::<bool>()), 1..6),
        there in prop::collection::vec(prop::option::of(0..2u8), 6),
    ) {
        // A target's sources have smaller numbers, so that there is no circle.
        let statement = |(target, sources, alias): &(usize, Vec<usize>, bool)| {
            let sources: std::collections::BTreeSet<usize> = sources.iter().map(|source| source % target).collect();
            let sources: Vec<String> = sources.iter().rev().map(|source| format!("\"k{source}\"")).collect();
            format!("tie \"k{target}\" from {}{}", sources.join(", "), if *alias { " if present alias" } else { "" })
        };
        let rules = ties.iter().map(statement).collect::<Vec<_>>().join("\n");
        let names: Vec<String> = (0..6).map(|at| format!("k{at}")).collect();
        let tensors: Vec<(&str, TensorView)> =
            names.iter().zip(&there).filter_map(|(name, value)| Some((name.as_str(), tensor(vec![(*value)?, 7])))).collect();
        let source = dict(&tensors);
        let load = |source: &StateDict| {
            let plan = planned(&rules, source, None, Direction::Forward).unwrap();
            let made = views(&plan, source).unwrap();
            for fact in plan.ties.iter().filter(|fact| fact.outcome == TieOutcome::Made) {
                assert!(made.tensors[&fact.target].same_tensor(&made.tensors[&fact.source]), "{rules}: {fact:?}");
            }
            StateDict::from_tensors(made.tensors, BTreeMap::new())
        };
        let bytes = |dict: &StateDict| dict.iter().map(|(key, view)| (key.to_string(), view.to_vec())).collect::<BTreeMap<_, _>>();
        let loaded = load(&source);
        let plan = planned(&rules, &loaded, None, Direction::Reverse).unwrap();
        let saved = StateDict::from_tensors(views(&plan, &loaded).unwrap().tensors, BTreeMap::new());
        prop_assert_eq!(bytes(&load(&saved)), bytes(&loaded), "{}\nsaved {:?}", rules, bytes(&saved));
    }
}

#[test]
fn what_a_module_shares_is_given_by_any_of_its_keys() {
    let source = dict(&[("old", tensor(vec![1, 2])), ("apart", tensor(vec![3, 4]))]);
    let rules = compile(r#"rename "old" <-> "words""#).unwrap();
    let wanted = Wanted::from_keys(["head", "words", "apart", "bias", "other"].map(Key::from));
    let group = |keys: &[&str]| keys.iter().map(|key| Key::from(*key)).collect::<Vec<Key>>();
    // Groups that overlap, name a key that isn't wanted, or have none that is given.
    let shared = [
        group(&["head", "words", "unknown"]),
        group(&["words", "head"]),
        group(&["bias", "other"]),
    ];
    let options = PlanOptions {
        wanted: Some(&wanted),
        shared: &shared,
        not_strict: true,
        ..PlanOptions::default()
    };
    let made = plan(
        &[Stage { rules: &rules, direction: Direction::Forward, named: true }],
        source.header(),
        &options,
    )
    .unwrap();
    let tied: Vec<(&str, Option<&str>)> = made
        .targets
        .iter()
        .map(|target| (target.key.as_str(), target.tied_to.as_ref().map(Key::as_str)))
        .collect();
    assert_eq!(tied, [("apart", None), ("head", Some("words")), ("words", None)]);
    assert_eq!(made.report.unwrap().missing, group(&["bias", "other"]), "nothing gives these");
    let notes = made.findings.iter().filter(|finding| finding.code == codes::TIE_APPLIED);
    assert_eq!(notes.map(|note| note.keys.clone()).collect::<Vec<_>>(), [["head"]]);
}
