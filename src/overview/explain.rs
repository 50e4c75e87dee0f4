//! Why a key is what it is.

use std::fmt::Write as _;

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::{is_stack, op_text, rule_line};
use crate::check::reading::Reading;
use crate::check::value::{Captures, Environment, Scope, Value as Parameter, unknown_layout};
use crate::check::{Direction, SideItem};
use crate::config::Config;
use crate::diagnostic::plain::one_line;
use crate::error::Result;
use crate::execute::{Sharing, sharing};
use crate::key::{Bindings, Part, Reach, Segments};
use crate::plan::{DropReason, Hit, Inquiry, NodeId, Op, Plan, ShapeFacts, Stage, Target, trace};
use crate::syntax::ast;
use crate::tensor::{Header, TensorInfo};

/// Targets of a source that are listed.
const TARGETS: usize = 8;

/// Rules that came near that are listed.
const NEAREST: usize = 3;

/// Inputs of an op that are shown; of more, the first and the last are enough.
const INPUTS: usize = 4;

/// What a plan was made of, and it; empty where the whole can't be planned, for the way of one key
/// can be told without.
#[derive(Clone)]
pub struct Subject<'a> {
    /// The keys of the checkpoint.
    pub header: &'a Header,
    /// The rules, in order.
    pub stages: Vec<Stage<'a>>,
    /// config.json.
    pub config: &'a Config,
    /// Whether word embeddings are tied, if that is said.
    pub tied: Option<bool>,
    /// Values of parameters.
    pub parameters: &'a IndexMap<String, Parameter>,
    /// The plan.
    pub plan: &'a Plan,
}

/// A key, explained: which rules touched it, and how its tensor is made; or why none did.
pub struct Explained<'a> {
    key: &'a str,
    subject: &'a Subject<'a>,
    plan: &'a Plan,
    target: Option<&'a Target>,
    /// The source key whose way is told.
    followed: Option<String>,
    hits: Vec<Hit>,
}

impl<'a> Explained<'a> {
    /// Explains a key of the checkpoint or of its result; `None` if neither has it.
    pub fn of(key: &'a str, subject: &'a Subject<'a>) -> Option<Self> {
        let plan = subject.plan;
        let (source, target) = (subject.header.get(key), plan.target(key));
        if source.is_none() && target.is_none() {
            return None;
        }
        let followed = match (source, target) {
            (Some(_), _) => Some(key.to_owned()),
            (None, Some(target)) => {
                sources(plan, target.node).first().map(|source| (*source).to_owned())
            }
            (None, None) => None,
        };
        let hits = followed.as_deref().map_or_else(Vec::new, |key| follow(subject, key));
        Some(Self { key, subject, plan, target, followed, hits })
    }

    /// As text.
    ///
    /// # Errors
    /// If what the plan says can't be carried out.
    pub fn text(&self) -> Result<String> {
        let mut out = String::new();
        let header = self.subject.header;
        if let Some(info) = header.get(self.key) {
            self.write_source(info, &mut out)?;
        }
        if let Some(target) =
            self.target.filter(|target| header.get(self.key).is_none() || !target.rules.is_empty())
        {
            let _ = writeln!(
                out,
                "{}  {}, in the result{}",
                one_line(&target.key),
                self.plan.info(target),
                self.sharing(target)?
            );
            if let Some(root) = &target.tied_to {
                let _ = writeln!(out, "  is one tensor with {}", one_line(root));
            }
            for rule in &target.rules {
                let _ = writeln!(out, "  by {}", rule_line(self.plan, *rule));
            }
        }
        if !self.hits.is_empty() {
            self.write_way(&mut out);
        } else if self.untouched() {
            let nearest = self.nearest();
            out.push_str(if nearest.is_empty() {
                "\nno rule takes it\n"
            } else {
                "\nno rule takes it; these come nearest:\n"
            });
            for miss in nearest {
                let _ = writeln!(out, "  {}\n    {}", one_line(&miss.rule), one_line(&miss.why));
            }
        }
        if let Some(target) = self
            .target
            .filter(|target| !matches!(self.plan.node(target.node).op, Op::Source { .. }))
        {
            out.push_str("\nmade by:\n");
            self.tree(target.node, 1, &mut out);
        }
        Ok(out)
    }

    /// Writes what becomes of the key as one of the checkpoint's.
    fn write_source(&self, info: &TensorInfo, out: &mut String) -> Result<()> {
        let _ = writeln!(out, "{}  {info}, in the checkpoint", one_line(self.key));
        let becomes = self.becomes();
        for target in becomes.iter().take(TARGETS) {
            let how = if *target.key == *self.key { "stays as it is" } else { "becomes" };
            let name = if *target.key == *self.key {
                String::new()
            } else {
                format!(" {}", one_line(&target.key))
            };
            let _ =
                writeln!(out, "  {how}{name}  {}{}", self.plan.info(target), self.sharing(target)?);
        }
        if becomes.len() > TARGETS {
            let _ = writeln!(out, "  and {} more", becomes.len() - TARGETS);
        }
        if let Some(dropped) = self.plan.dropped.iter().find(|dropped| *dropped.key == *self.key) {
            let why = match &dropped.reason {
                DropReason::Rule(rule) => format!("by {}", rule_line(self.plan, *rule)),
                DropReason::TiedTo(key) => {
                    format!("since it is one tensor with {}", one_line(key))
                }
                DropReason::NotWanted => "since the target does not ask for it".to_owned(),
            };
            let _ = writeln!(out, "  is dropped {why}");
        }
        Ok(())
    }

    /// Writes the rules that take the key, one after the other, with what each makes of it.
    fn write_way(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\nthe way of {}:",
            one_line(self.followed.as_deref().unwrap_or(self.key))
        );
        for hit in &self.hits {
            let _ = writeln!(out, "  {}:{}  {}", hit.place.source.name, hit.place.line(), hit.text);
            if !hit.captures.is_empty() {
                let captures: Vec<String> =
                    hit.captures.iter().map(|(name, value)| format!("{name} = {value}")).collect();
                let _ = writeln!(out, "    with {}", one_line(&captures.join(", ")));
            }
            let targets = if hit.targets.is_empty() {
                "nothing that can be named here".to_owned()
            } else {
                hit.targets.join(", ")
            };
            let _ = writeln!(out, "    -> {}", one_line(&targets));
        }
    }

    /// As JSON.
    ///
    /// # Errors
    /// As [`Explained::text`].
    pub fn as_json(&self) -> Result<Value> {
        let header = self.subject.header;
        let hits: Vec<Value> = self
            .hits
            .iter()
            .map(|hit| {
                let captures: serde_json::Map<_, _> =
                    hit.captures.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
                json!({
                    "file": hit.place.source.name, "line": hit.place.line(), "rule": hit.text,
                    "key": hit.key, "captures": captures, "targets": hit.targets,
                })
            })
            .collect();
        let target = match self.target {
            Some(target) => {
                let rules: Vec<_> = target
                    .rules
                    .iter()
                    .filter_map(|rule| self.plan.rules.get(rule.0 as usize))
                    .collect();
                json!({
                    "dtype": self.plan.info(target).dtype, "shape": self.plan.info(target).shape, "rules": rules,
                    "sources": sources(self.plan, target.node), "made_by": self.plan.expression(target.node),
                    "tied_to": target.tied_to, "in_memory": self.place(target).map(|at| sharing(self.plan, at)).transpose()?.flatten(),
                })
            }
            None => Value::Null,
        };
        let nearest: Vec<Value> = if self.hits.is_empty() && self.untouched() {
            self.nearest()
                .into_iter()
                .map(|miss| json!({ "rule": miss.rule, "why": miss.why }))
                .collect()
        } else {
            Vec::new()
        };
        Ok(json!({
            "key": self.key,
            "source": header.get(self.key),
            "becomes": self.becomes().iter().map(|target| target.key.as_str()).collect::<Vec<_>>(),
            "dropped": self.plan.dropped.iter().find(|dropped| *dropped.key == *self.key).map(|dropped| &dropped.reason),
            "target": target,
            "followed": self.followed,
            "way": hits,
            "nearest": nearest,
        }))
    }

    /// Whether nothing happened to it at all.
    fn untouched(&self) -> bool {
        self.target.is_none_or(|target| target.rules.is_empty())
    }

    /// The targets that the source is used for.
    fn becomes(&self) -> Vec<&Target> {
        let mut uses = vec![false; self.plan.nodes.len()];
        for at in 0..self.plan.nodes.len() {
            let node = &self.plan.nodes[at];
            uses[at] = match &node.op {
                Op::Source { key } => **key == *self.key,
                // Inputs come first.
                _ => node
                    .inputs
                    .iter()
                    .any(|input| uses.get(input.0 as usize).copied().unwrap_or(false)),
            };
        }
        self.plan
            .targets
            .iter()
            .filter(|target| uses.get(target.node.0 as usize).copied().unwrap_or(false))
            .collect()
    }

    fn place(&self, target: &Target) -> Option<usize> {
        self.plan.targets.iter().position(|other| other.key == target.key)
    }

    fn sharing(&self, target: &Target) -> Result<&'static str> {
        let Some(at) = self.place(target) else { return Ok("") };
        Ok(match sharing(self.plan, at)? {
            Some(Sharing::View) => ", in memory a view",
            Some(Sharing::Copy) => ", in memory a copy",
            Some(Sharing::Computed) => ", computed",
            None => "",
        })
    }

    /// The ops of a node, one a line.
    fn tree(&self, id: NodeId, depth: usize, out: &mut String) {
        let node = self.plan.node(id);
        let indent = "  ".repeat(depth);
        let _ = writeln!(out, "{indent}{}  {}", op_text(self.plan, id), node.info);
        if depth > 32 {
            return;
        }
        let is_stack = is_stack(self.plan, id);
        for (at, input) in node.inputs.iter().enumerate() {
            let count = node.inputs.len();
            if count > INPUTS && at > 0 && at + 1 < count {
                if at == 1 {
                    let _ = writeln!(out, "{indent}  … {} more", count - 2);
                }
                continue;
            }
            // The new dimension of each part of a stack goes without saying.
            let input = if is_stack {
                self.plan.node(*input).inputs.first().unwrap_or(input)
            } else {
                input
            };
            self.tree(*input, depth + 1, out);
        }
    }

    /// The rules whose source patterns got furthest.
    fn nearest(&self) -> Vec<Miss> {
        let mut misses: Vec<(Reach, Miss)> = Vec::new();
        let mut segments = Segments::default();
        segments.split(self.key);
        for stage in &self.subject.stages {
            let reading = Reading::of(stage.rules, stage.direction);
            collect_misses(&reading, self.key, &segments, &mut misses);
        }
        misses.sort_by_key(|(reach, _)| std::cmp::Reverse(*reach));
        misses.into_iter().map(|(_, miss)| miss).take(NEAREST).collect()
    }
}

/// A rule that didn't take a key.
struct Miss {
    rule: String,
    why: String,
}

fn collect_misses(
    reading: &Reading<'_>,
    key: &str,
    segments: &Segments,
    misses: &mut Vec<(Reach, Miss)>,
) {
    for read in reading.rules() {
        let rule = read.rule;
        for side in read.sources() {
            let SideItem::Pattern(pattern) = &side.item else { continue };
            let matches = pattern.matches(key, segments, &mut Bindings::new(rule.captures.len()));
            let reach = pattern.reach(key, segments, rule.captures.len());
            let least =
                pattern.parts().iter().filter(|part| !matches!(part, Part::Rest(_))).count();
            let why = if matches {
                "its pattern fits, but a `where`, an `unless`, a range or an earlier rule of its group keeps it away".to_owned()
            } else if least > segments.len() {
                format!("it asks for {least} segments at least, and the key has {}", segments.len())
            } else if reach.segment >= segments.len() {
                "it asks for more segments at its end".to_owned()
            } else {
                format!(
                    "it stopped at segment {}, `{}`",
                    reach.segment + 1,
                    segments.get(key, reach.segment)
                )
            };
            let name = format!("{}:{}  {}", rule.place.source.name, rule.place.line(), rule.text);
            misses.push((reach, Miss { rule: name, why }));
        }
    }
}

/// The keys of the checkpoint that a node uses, each once, in order.
fn sources(plan: &Plan, node: NodeId) -> Vec<&str> {
    let (mut open, mut seen, mut found) =
        (vec![node], std::collections::BTreeSet::new(), Vec::new());
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let node = plan.node(id);
        if let Op::Source { key } = &node.op {
            found.push(key.as_str());
        }
        open.extend(node.inputs.iter().rev());
    }
    found
}

/// Follows a key of the checkpoint through all stages.
fn follow(subject: &Subject<'_>, key: &str) -> Vec<Hit> {
    let Subject { header, plan, .. } = subject;
    let contains = |key: &str| header.tensors.contains_key(key);
    let each = |visit: &mut dyn FnMut(&str)| header.tensors.keys().for_each(|key| visit(key));
    let config = subject.config.value();
    let (mut keys, mut hits) = (vec![key.to_owned()], Vec::new());
    for (at, stage) in subject.stages.iter().enumerate() {
        let layout = Inquiry::new(&contains, &each);
        let forward = stage.direction == Direction::Forward;
        let told = ShapeFacts::of_plan(plan, at);
        let facts = |scope: &Scope, at: u32| told.get(scope, at);
        let alone = Environment {
            config: (!config.is_null()).then_some(config),
            tied: Some(subject.config.tie_policy(subject.tied).tied),
            parameters: subject.parameters,
            exists: &unknown_layout,
            facts: &facts,
            captures: Captures::NONE,
        };
        let exists = |scope: &Scope, pattern: &ast::Pattern, captures: Captures<'_>| {
            layout.has(scope, pattern, captures, &alone)
        };
        // A fact about the left layout, which reading backwards only gives.
        let environment = if forward { Environment { exists: &exists, ..alone } } else { alone };
        let traces = trace(stage.rules, stage.direction, &keys, &environment);
        // Of several ways, the one that the plan bears out.
        let known = |keys: &[String]| keys.iter().filter(|key| plan.target(key).is_some()).count();
        let Some(best) = traces.into_iter().rev().max_by_key(|trace| known(&trace.results)) else {
            break;
        };
        hits.extend(best.hits);
        keys = best.results;
    }
    hits
}
