//! Patterns mean the same in every statement that takes them: each is asked which of ten keys it
//! takes, with the same range, written as numbers, as a `let` and as a parameter, and all must take
//! those that lie in it.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use regraft::check::value::Value;
use regraft::key::Key;
use regraft::plan::{Op, Plan, PlanOptions, Stage, plan};
use regraft::tensor::{Dtype, Header, TensorInfo};
use regraft::{Direction, compile};

const KEYS: u64 = 10;

/// Which numbers `i` a plan treated as taken.
type Taken = fn(&Plan, u64) -> bool;

fn has(plan: &Plan, key: &str) -> bool {
    plan.target(key).is_some()
}

/// Statements with `RANGE` where a range is written; how to see of a number whether its key was
/// taken.
const STATEMENTS: &[(&str, &str, Taken)] = &[
    ("rename", r#"rename "a.{i: RANGE}.w" <-> "b.{i}.w" optional"#, |plan, i| {
        has(plan, &format!("b.{i}.w"))
    }),
    ("map", r#"map "a.{i: RANGE}.w" <-> "b.{i}.w" via neg optional"#, |plan, i| {
        has(plan, &format!("b.{i}.w"))
    }),
    ("unless", r#"rename "a.{i}.w" -> "b.{i}.w" unless "a.{i: RANGE}.w" optional"#, |plan, i| {
        has(plan, &format!("a.{i}.w"))
    }),
    (
        "unless target",
        r#"rename "a.{i}.w" -> "b.{i}.w" unless target "b.{i: RANGE}.w" optional"#,
        |plan, i| has(plan, &format!("a.{i}.w")),
    ),
    (
        "where exists",
        r#"rename "a.{i}.w" -> "b.{i}.w" where exists("a.{i: RANGE}.w") optional"#,
        |plan, i| has(plan, &format!("b.{i}.w")),
    ),
    ("drop", r#"drop "a.{i: RANGE}.w" optional"#, |plan, i| !has(plan, &format!("a.{i}.w"))),
    ("drop unless", r#"drop "a.{i}.w" unless "a.{i: RANGE}.w" optional"#, |plan, i| {
        has(plan, &format!("a.{i}.w"))
    }),
    ("keep", "keep \"a.{i: RANGE}.w\", \"other\" optional", |plan, i| {
        has(plan, &format!("a.{i}.w"))
    }),
    ("cast", r#"cast "a.{i: RANGE}.w" to F64 optional"#, |plan, i| {
        plan.target(&format!("a.{i}.w"))
            .is_some_and(|target| plan.node(target.node).info.dtype == Dtype::F64)
    }),
    ("cast unless", r#"cast "a.{i}.w" to F64 unless "a.{i: RANGE}.w" optional"#, |plan, i| {
        plan.target(&format!("a.{i}.w"))
            .is_some_and(|target| matches!(plan.node(target.node).op, Op::Source { .. }))
    }),
    ("tie, its target", r#"tie "t.{i: RANGE}" from "a.{i}.w""#, |plan, i| {
        has(plan, &format!("t.{i}"))
    }),
    ("tie, its source", r#"tie "t.{i}" from "a.{i: RANGE}.w""#, |plan, i| {
        has(plan, &format!("t.{i}"))
    }),
];

fn header() -> Header {
    let keys = (0..KEYS).map(|i| format!("a.{i}.w")).chain(["other".to_owned()]);
    Header::from_infos(keys.map(|key| (Key::from(key), TensorInfo::new(Dtype::F32, vec![2]))))
}

fn planned(text: &str, parameters: &[(&str, u64)]) -> Plan {
    let rules = compile(text).unwrap_or_else(|found| panic!("{text}\n{found}"));
    let parameters: IndexMap<String, Value> = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), Value::Int(i64::try_from(*value).unwrap())))
        .collect();
    let options = PlanOptions { parameters, ..PlanOptions::default() };
    plan(
        &[Stage { rules: &rules, direction: Direction::Forward, named: true }],
        &header(),
        &options,
    )
    .unwrap_or_else(|found| panic!("{text}\n{found}"))
}

#[test]
fn a_range_counts_in_every_statement() {
    for (name, statement, taken) in STATEMENTS {
        for (start, end) in [(0, KEYS), (1, 3), (0, 1), (4, 10), (3, 3), (9, 40), (12, 14)] {
            let expected: BTreeSet<u64> = (0..KEYS).filter(|i| (start..end).contains(i)).collect();
            let written = statement.replace("RANGE", &format!("{start}..{end}"));
            let by_let = format!(
                "let s = {start}\nlet e = s + {}\n{}",
                end - start,
                statement.replace("RANGE", "s..e")
            );
            let by_parameter = format!("let s\nlet e = 99\n{}", statement.replace("RANGE", "s..e"));
            for plan in [
                planned(&written, &[]),
                planned(&by_let, &[]),
                planned(&by_parameter, &[("s", start), ("e", end)]),
            ] {
                let found: BTreeSet<u64> = (0..KEYS).filter(|i| taken(&plan, *i)).collect();
                assert_eq!(found, expected, "{name}: {start}..{end}");
                assert!(has(&plan, "other"), "{name}");
            }
        }
    }
}

/// Statements whose answer isn't of one key: a count, a condition on the whole, a key that is made.
#[test]
fn a_range_counts_where_keys_are_counted() {
    let fails = |text: &str| {
        let rules = compile(text).unwrap();
        plan(
            &[Stage { rules: &rules, direction: Direction::Forward, named: true }],
            &header(),
            &PlanOptions::default(),
        )
        .is_err()
    };
    for (start, end) in [(0, KEYS), (1, 3), (9, 40), (12, 14)] {
        let count = (0..KEYS).filter(|i| (start..end).contains(i)).count();
        assert!(
            !fails(&format!("expect \"a.{{i: {start}..{end}}}.w\" count {count}")),
            "{start}..{end}"
        );
        assert!(
            fails(&format!("expect \"a.{{i: {start}..{end}}}.w\" count {}", count + 1)),
            "{start}..{end}"
        );
        assert_eq!(
            fails(&format!("expect \"a.{{i: {start}..{end}}}.w\"")),
            count == 0,
            "{start}..{end}"
        );
        let when = planned(
            &format!("when exists(\"a.{{i: {start}..{end}}}.w\") {{ drop \"a.0.w\" }}"),
            &[],
        );
        assert_eq!(has(&when, "a.0.w"), count == 0, "{start}..{end}");
        let made = planned(
            &format!("create \"a.7.x\" = zeros([1], F32) unless \"a.{{i: {start}..{end}}}.x\""),
            &[],
        );
        assert_eq!(has(&made, "a.7.x"), !(start..end).contains(&7), "{start}..{end}");
    }
}
