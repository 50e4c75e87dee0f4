//! Plans: what rules make of headers.
//!
//! A case of the corpus has, after the rule text, lines `--- keys` (one `key dtype [shape]` a line),
//! and optionally `--- wanted` (the same, or keys alone), `--- config` (JSON), `--- set`
//! (`name=integer`), `--- record`, `--- metadata`, `--- remarks` of files (JSON), `--- options`
//! (words: `reverse`, `allow-lossy`, `not-strict`, `tied`, `untied`, `equal` or `differ` for
//! compared bytes).

mod identity;
mod json;
mod patterns;
mod trace;

use std::convert::Infallible;

use indexmap::IndexMap;
use regraft::check::value::Value;
use regraft::config::Config;
use regraft::diagnostic::{Diagnostics, render_all};
use regraft::key::Key;
use regraft::plan::{Answer, Plan, PlanOptions, Question, Record, Stage, plan_asking};
use regraft::tensor::{Header, TensorInfo, Wanted};
use regraft::{Direction, Rules, compile};

use super::check::shown;
use super::corpus::hold;

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
pub(crate) struct Given {
    pub(crate) header: Header,
    pub(crate) wanted: Option<Wanted>,
    pub(crate) options: PlanOptions<'static>,
    pub(crate) direction: Direction,
    pub(crate) equal: Option<Answer>,
    pub(crate) record: Option<Record>,
}

impl Given {
    pub(crate) fn read<'a>(sections: impl Iterator<Item = &'a str>) -> Self {
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

    pub(crate) fn plan(&self, rules: &Rules, direction: Direction) -> Result<Plan, Diagnostics> {
        let options = PlanOptions {
            wanted: self.wanted.as_ref(),
            record: self.record.as_ref(),
            ..self.options.clone()
        };
        let stages = [Stage { rules, direction, named: true }];
        let answer = |_: &Question| Ok::<_, Infallible>(self.equal.unwrap_or(Answer::Unknown));
        let planned = plan_asking(&stages, &self.header, &options, answer).unwrap();
        if let Ok(plan) = &planned {
            let read: Plan = serde_json::from_str(&serde_json::to_string(plan).unwrap()).unwrap();
            assert_eq!(&read, plan, "as JSON");
        }
        planned
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
fn corpus() {
    hold("plan", |case| run(&case.body));
}
