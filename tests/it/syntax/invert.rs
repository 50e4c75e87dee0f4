//! Inverses: as a file they mean what reading backwards means, and inverted again they are the file
//! they came from.

use std::sync::Arc;

use regraft::diagnostic::{Diagnostics, SourceText, render_all};
use regraft::plan::{Plan, PlanOptions, Record, Stage, plan};
use regraft::syntax::ast::RuleFile;
use regraft::syntax::{invert, parse, print};
use regraft::tensor::{Header, TensorInfo};
use regraft::{Direction, compile, library};

use crate::corpus::{Case, cases};
use crate::plan::Given;

fn tree(text: &str) -> RuleFile {
    let parsed = parse(Arc::new(SourceText { name: "rules".to_owned(), text: text.to_owned() }));
    assert!(parsed.diagnostics.is_empty());
    parsed.file
}

#[test]
fn every_library_file_has_an_inverse_that_checks() {
    for name in library::names() {
        let inverse = invert(&tree(library::text(name).unwrap()));
        let text = print(&inverse.file);
        if let Err(diagnostics) = compile(&text) {
            panic!("{name}:\n{text}\n{}", render_all(&diagnostics.0, false));
        }
        assert_eq!(print(&tree(&text)), text, "{name}: the inverse is not formatted");
        let again = invert(&inverse.file);
        assert!(again.left_out.is_empty(), "{name}: {:?}", again.left_out);
        let (first, third) = (print(&again.file), print(&invert(&invert(&again.file).file).file));
        assert_eq!(first, third, "{name}: inverting twice changes it");
        if inverse.left_out.is_empty()
            && print(&tree(library::text(name).unwrap())) == library::text(name).unwrap()
        {
            assert_eq!(statements(&first), statements(library::text(name).unwrap()), "{name}");
        }
    }
}

/// The lines of a file without regard to where its examples and settings stand.
fn statements(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn an_inverse_plans_as_reading_backwards_does() {
    let mut compared = 0;
    for file in ["rename", "map", "statements", "ties"] {
        for Case { name, body } in cases("plan", file) {
            let mut sections = body.split("--- ");
            let rules_text = sections.next().unwrap();
            let Ok(rules) = compile(rules_text) else { continue };
            let mut given = Given::read(sections);
            let inverse = invert(&tree(rules_text));
            if !inverse.left_out.is_empty() {
                continue;
            }
            let inverted = compile(&print(&inverse.file)).unwrap();
            // From wherever the case starts, both ways of saying it must agree.
            for direction in [Direction::Forward, Direction::Reverse] {
                let (one, other) =
                    (given.plan(&rules, direction), given.plan(&inverted, direction.opposite()));
                match (one, other) {
                    (Ok(one), Ok(other)) => {
                        assert_eq!(one.to_text(), other.to_text(), "{name}, {direction:?}");
                        compared += 1;
                        if direction == Direction::Forward && given.wanted.is_none() {
                            given.header = Header::from_infos(
                                one.targets
                                    .iter()
                                    .map(|target| (target.key.clone(), one.info(target).clone())),
                            );
                        }
                    }
                    (Err(_), Err(_)) => {}
                    (one, other) => {
                        panic!("{name}, {direction:?}: {} against {}", one.is_ok(), other.is_ok())
                    }
                }
            }
        }
    }
    assert!(compared > 80, "only {compared} plans were compared");
}

/// One-way steps, there and back with the record of the way there: old names come back, and what is
/// refused is what it says was lost.
#[test]
fn with_the_record_only_what_was_lost_is_lossy() {
    let text = "rename \"old.{l}\" -> \"new.{l}\"\ndrop \"freqs\"\ncast \"w\" to BF16 lossy\nrename \"b\" <-> \"c\"\n";
    let rules = compile(text).unwrap();
    let header =
        |keys: &[(&str, &str)]| {
            Header::from_infos(keys.iter().map(|(key, dtype)| {
                ((*key).into(), TensorInfo::new(dtype.parse().unwrap(), vec![4]))
            }))
        };
    let there_and_back = |keys: &[(&str, &str)], allow_lossy: bool| -> Result<Plan, Diagnostics> {
        let stage = |direction| [Stage { rules: &rules, direction, named: false }];
        let there = plan(&stage(Direction::Forward), &header(keys), &PlanOptions::default())?;
        let record =
            Record::of(&there, &stage(Direction::Forward), std::collections::BTreeMap::new());
        let back = Header::from_infos(
            there.targets.iter().map(|target| (target.key.clone(), there.info(target).clone())),
        );
        plan(
            &stage(Direction::Reverse),
            &back,
            &PlanOptions { record: Some(&record), allow_lossy, ..PlanOptions::default() },
        )
    };
    let keys =
        |plan: &Plan| plan.targets.iter().map(|target| target.key.to_string()).collect::<Vec<_>>();
    let codes = |findings: &[regraft::diagnostic::Diagnostic]| {
        findings.iter().map(|one| one.code.to_string()).collect::<Vec<_>>()
    };

    // Nothing was lost: `new.1` was `new.1` before, and there was nothing to drop or to round.
    let plan =
        there_and_back(&[("old.0", "F32"), ("new.1", "F32"), ("b", "F32"), ("w", "BF16")], false)
            .unwrap();
    assert_eq!(keys(&plan), ["b", "new.1", "old.0", "w"]);
    assert_eq!(codes(&plan.findings), ["RG323"]);

    let lossy = [("old.0", "F32"), ("freqs", "F32"), ("b", "F32"), ("w", "F32")];
    let refused = there_and_back(&lossy, false).unwrap_err().0;
    let named: Vec<(String, &[String])> = refused
        .iter()
        .filter(|one| one.is_error())
        .map(|one| (one.code.to_string(), &one.keys[..]))
        .collect();
    assert_eq!(
        named,
        [
            ("RG324".to_owned(), &["w".to_owned()][..]),
            ("RG324".to_owned(), &["freqs".to_owned()][..])
        ]
    );
    let allowed = there_and_back(&lossy, true).unwrap();
    assert_eq!(keys(&allowed), ["b", "old.0", "w"]);
    assert_eq!(codes(&allowed.findings), ["RG323", "RG320", "RG320"]);
}
