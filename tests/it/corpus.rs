//! Cases over the language's meaning: rule texts and what is said of them, rule texts with headers
//! and the plans they give.
//!
//! A corpus file holds cases that start with `### name`. A check case is rule text. A plan case
//! has, after the rule text, lines `--- keys` (one `key dtype [shape]` a line), and optionally `---
//! wanted` (the same, or keys alone), `--- config` (JSON), `--- set` (`name=integer`), `---
//! record`, `--- metadata`, `--- remarks` of files (JSON), `--- options` (words: `reverse`,
//! `allow-lossy`, `not-strict`, `tied`, `untied`, `equal` or `differ` for compared bytes).

use std::convert::Infallible;
use std::fmt::Write as _;

use indexmap::IndexMap;
use regraft::check::value::Value;
use regraft::config::Config;
use regraft::diagnostic::{Diagnostic, Diagnostics, render_all};
use regraft::key::Key;
use regraft::plan::{Answer, Plan, PlanOptions, Question, Record, Stage, plan_asking};
use regraft::tensor::{Header, TensorInfo, Wanted};
use regraft::{Direction, Rules, compile};

pub(super) fn cases(text: &str) -> Vec<(&str, &str)> {
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
                Ok(rules) => {
                    format!("{}{:?}\n", shown(&rules.findings), regraft::check::idempotence(&rules))
                }
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
            let Some((start, shape)) = line.split_once(" [") else {
                return (Key::from(line), None);
            };
            let (key, dtype) = start.rsplit_once(' ').unwrap();
            let shape: Vec<u64> = serde_json::from_str(&format!("[{shape}")).unwrap();
            (Key::from(key), Some(TensorInfo::new(dtype.parse().unwrap(), shape)))
        })
        .collect()
}

/// What a plan case gives: a header and options.
#[derive(Default)]
pub(super) struct Given {
    pub(super) header: Header,
    pub(super) wanted: Option<Wanted>,
    pub(super) options: PlanOptions<'static>,
    pub(super) direction: Direction,
    pub(super) equal: Option<Answer>,
    pub(super) record: Option<Record>,
}

impl Given {
    pub(super) fn read<'a>(sections: impl Iterator<Item = &'a str>) -> Self {
        let mut given = Self::default();
        for section in sections {
            let (name, body) = section.split_once('\n').unwrap();
            match name.trim() {
                "keys" => {
                    given.header = Header::from_infos(
                        infos(body).into_iter().map(|(key, info)| (key, info.unwrap())),
                    )
                }
                "wanted" => given.wanted = Some(Wanted { keys: infos(body) }),
                "record" => given.record = Some(serde_json::from_str(body).unwrap()),
                "remarks" => given.header.remarks = serde_json::from_str(body).unwrap(),
                "metadata" => given.header.metadata = serde_json::from_str(body).unwrap(),
                "config" => {
                    given.options.config = Config::from_value(serde_json::from_str(body).unwrap())
                }
                "set" => {
                    let pairs = body.split_whitespace().map(|pair| pair.split_once('=').unwrap());
                    given.options.parameters = pairs
                        .map(|(name, value)| (name.to_owned(), Value::Int(value.parse().unwrap())))
                        .collect();
                }
                "options" => body.split_whitespace().for_each(|word| given.option(word)),
                other => panic!("unknown section {other}"),
            }
        }
        given
    }

    fn option(&mut self, word: &str) {
        match word {
            "reverse" => self.direction = Direction::Reverse,
            "allow-lossy" => self.options.allow_lossy = true,
            "not-strict" => self.options.not_strict = true,
            "tied" => self.options.tied = Some(true),
            "untied" => self.options.tied = Some(false),
            "equal" => self.equal = Some(Answer::Equal),
            "differ" => self.equal = Some(Answer::Differ(3)),
            other => panic!("unknown option {other}"),
        }
    }

    pub(super) fn plan(&self, rules: &Rules, direction: Direction) -> Result<Plan, Diagnostics> {
        let options = PlanOptions {
            wanted: self.wanted.as_ref(),
            record: self.record.as_ref(),
            ..self.options.clone()
        };
        let stages = [Stage { rules, direction, named: true }];
        let answer = |_: &Question| Ok::<_, Infallible>(self.equal.unwrap_or(Answer::Unknown));
        plan_asking(&stages, &self.header, &options, answer).unwrap()
    }
}

fn run(body: &str) -> String {
    let mut sections = body.split("--- ");
    let rules = match compile(sections.next().unwrap()) {
        Ok(rules) => rules,
        Err(diagnostics) => return render_all(&diagnostics.0, false),
    };
    let given = Given::read(sections);
    match given.plan(&rules, given.direction) {
        Ok(plan) => {
            let verdict =
                plan.verdict.map_or_else(String::new, |verdict| format!("verdict {verdict:?}\n"));
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
