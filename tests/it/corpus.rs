//! Cases over the language's meaning: rule texts and what is said of them, rule texts with headers and the plans they give.
//!
//! A corpus file holds cases that start with `### name`. A check case is rule text. A plan case has, after the rule text, lines
//! `--- keys` (one `key dtype [shape]` a line), and optionally `--- wanted` (the same, or keys alone), `--- config` (JSON),
//! `--- set` (`name=integer`), `--- options` (words: `reverse`, `not-strict`, `tied`, `untied`, `equal` or `differ` for compared bytes).

use std::fmt::Write as _;

use indexmap::IndexMap;
use regraft::check::value::Value;
use regraft::config::Config;
use regraft::diagnostic::{Diagnostic, render_all};
use regraft::key::Key;
use regraft::plan::{Equality, PlanOptions, Stage, plan};
use regraft::tensor::{Header, TensorInfo, Wanted};
use regraft::{Direction, compile};

fn cases(text: &str) -> Vec<(&str, &str)> {
    text.split("### ")
        .skip(1)
        .map(|case| {
            let (name, body) = case.split_once('\n').unwrap_or((case, ""));
            (name.trim(), body)
        })
        .collect()
}

fn shown(findings: &[Diagnostic]) -> String {
    if findings.is_empty() { "(nothing)\n".to_owned() } else { render_all(findings, false) }
}

#[test]
fn check_corpus() {
    insta::glob!("../corpus", "check/*.graft", |path| {
        let text = std::fs::read_to_string(path).unwrap();
        let mut out = String::new();
        for (name, body) in cases(&text) {
            let findings = match compile(body) {
                Ok(rules) => rules.findings,
                Err(diagnostics) => diagnostics.0,
            };
            writeln!(out, "### {name}\n{}", shown(&findings)).unwrap();
        }
        insta::assert_snapshot!(out);
    });
}

#[test]
fn proof_corpus() {
    insta::glob!("../corpus", "proof/*.graft", |path| {
        let text = std::fs::read_to_string(path).unwrap();
        let mut out = String::new();
        for (name, body) in cases(&text) {
            let said = match compile(body) {
                Ok(rules) => format!("{}{:?}\n", shown(&rules.findings), regraft::check::idempotence(&rules)),
                Err(diagnostics) => shown(&diagnostics.0),
            };
            writeln!(out, "### {name}\n{said}").unwrap();
        }
        insta::assert_snapshot!(out);
    });
}

fn infos(text: &str) -> IndexMap<Key, Option<TensorInfo>> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let Some((start, shape)) = line.split_once(" [") else { return (Key::from(line), None) };
            let (key, dtype) = start.rsplit_once(' ').unwrap();
            let shape: Vec<u64> = serde_json::from_str(&format!("[{shape}")).unwrap();
            (Key::from(key), Some(TensorInfo::new(dtype.parse().unwrap(), shape)))
        })
        .collect()
}

fn run(body: &str) -> String {
    let mut sections = body.split("--- ");
    let rules = match compile(sections.next().unwrap()) {
        Ok(rules) => rules,
        Err(diagnostics) => return render_all(&diagnostics.0, false),
    };
    let (mut header, mut wanted, mut options, mut direction, mut equal) =
        (Header::default(), None, PlanOptions::default(), Direction::Forward, None);
    for section in sections {
        let (name, body) = section.split_once('\n').unwrap();
        match name.trim() {
            "keys" => header = Header::from_infos(infos(body).into_iter().map(|(key, info)| (key, info.unwrap()))),
            "wanted" => wanted = Some(Wanted { keys: infos(body) }),
            "config" => options.config = Config::from_value(serde_json::from_str(body).unwrap()),
            "set" => {
                let pairs = body.split_whitespace().map(|pair| pair.split_once('=').unwrap());
                options.parameters = pairs.map(|(name, value)| (name.to_owned(), Value::Int(value.parse().unwrap()))).collect();
            }
            "options" => {
                for word in body.split_whitespace() {
                    match word {
                        "reverse" => direction = Direction::Reverse,
                        "not-strict" => options.not_strict = true,
                        "tied" => options.tied = Some(true),
                        "untied" => options.tied = Some(false),
                        "equal" => equal = Some(Equality::Equal),
                        "differ" => equal = Some(Equality::Differ(3)),
                        other => panic!("unknown option {other}"),
                    }
                }
            }
            other => panic!("unknown section {other}"),
        }
    }
    options.wanted = wanted.as_ref();
    let compare = |_: &str, _: &str| equal;
    options.equal = Some(&compare);
    match plan(&[Stage { rules: &rules, direction, named: true }], &header, &options) {
        Ok(plan) => {
            let verdict = plan.verdict.map_or_else(String::new, |verdict| format!("verdict {verdict:?}\n"));
            format!("{verdict}{}{}", plan.to_text(), shown(&plan.findings))
        }
        Err(diagnostics) => render_all(&diagnostics.0, false),
    }
}

#[test]
fn plan_corpus() {
    insta::glob!("../corpus", "plan/*.graft", |path| {
        let text = std::fs::read_to_string(path).unwrap();
        let mut out = String::new();
        for (name, body) in cases(&text) {
            writeln!(out, "### {name}\n{}", run(body)).unwrap();
        }
        insta::assert_snapshot!(out);
    });
}
