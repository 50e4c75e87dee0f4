//! What proofs cost, in steps.

use std::fmt::Write as _;
use std::sync::Arc;

use super::super::rules::{Rule, StepKind};
use super::super::{NoIncludes, check};
use super::effort::Effort;
use super::group;
use crate::diagnostic::SourceText;

/// The rules of one statement.
fn rules(lines: impl Iterator<Item = String>) -> Vec<Rule> {
    let text = lines.fold("rename {\n".to_owned(), |text, line| text + &line + "\n") + "}\n";
    let checked =
        check(&Arc::new(SourceText { name: "rules".to_owned(), text }), &NoIncludes).unwrap();
    match checked.steps.into_iter().next().map(|step| step.kind) {
        Some(StepKind::Rewrite(rules)) => rules,
        other => panic!("{other:?}"),
    }
}

/// Steps for so many rules of a kind.
fn steps(count: usize, line: impl Fn(usize) -> String) -> u64 {
    let rules = rules((0..count).map(line));
    let effort = Effort::of_check();
    assert!(group(&rules, &effort).is_empty());
    effort.used()
}

#[test]
fn rules_that_cannot_meet_are_not_compared() {
    let kinds: [fn(usize) -> String; 4] = [
        |n| format!("\"a{n}.b.weight\" <-> \"c{n}.d.weight\""),
        |n| format!("\"model.layers.{{i}}.a{n}.weight\" <-> \"h.{{i}}.b{n}.weight\""),
        |n| format!("\"**.a{n}\" <-> \"**.b{n}\""),
        |n| format!("\"a{n}.**\" <-> \"b{n}.**\""),
    ];
    for kind in kinds {
        let (few, many) = (steps(100, kind), steps(800, kind));
        let mut said = String::new();
        let _ = write!(said, "{}: {few} steps for 100 rules, {many} for 800", kind(0));
        assert!(many <= 9 * few, "{said}");
        assert!(many < 800 * 200, "{said}");
    }
}
