//! A plan as people look at it: keys that differ in their indices alone on one line, by the rules
//! that made them; with ties, drops and totals.
//!
//! [`Overview`] is the data, and the only place that gathers it. It prints as text
//! ([`Overview::text`]), as boxes and arrows ([`Drawing`]), and as a page of HTML ([`Page`]). Its
//! size follows how many kinds of keys there are, not how many keys.

mod drawing;
mod explain;
mod lines;
mod made;
mod page;
mod related;
mod size;
mod text;
mod tree;

use indexmap::IndexMap;
use serde::Serialize;

use crate::config::TieDecision;
use crate::diagnostic::plain::one_line;
use crate::execute::Sharing;
use crate::plan::{DropReason, Op, Plan, RuleId, Verdict};
use crate::tensor::{Header, TensorInfo};

pub use drawing::{Arrow, Drawing, DrawnBox, Kind};
pub use explain::{Explained, Subject};
pub use lines::{Gathered, Line};
pub use made::{is_stack, op_text};
pub use page::{Page, Row, STYLE, Section, Tone};
pub use related::SourceKeys;
pub use size::Size;
pub use text::{counted, rule_line, times, verdict_text};
pub use tree::tree;

use made::{MadeAs, Maker};

/// What is to be seen of a plan besides what it changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sights {
    /// The keys that stay as they are, too; else only how many.
    pub unchanged: bool,
    /// What each target is in memory.
    pub sharing: bool,
}

/// A plan, gathered into lines.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Overview {
    /// In which layout the checkpoint was found.
    pub verdict: Option<Verdict>,
    /// Whether word embeddings are tied.
    pub tied_embeddings: Option<TieDecision>,
    /// What rules made, in the order of the rules.
    pub groups: Vec<MadeBy>,
    /// How many keys stay as they are.
    pub unchanged: u64,
    /// Their lines, if [`Sights::unchanged`] asks for them.
    pub unchanged_lines: Vec<Made>,
    /// Keys that are one tensor with another.
    pub tied: Vec<Tied>,
    /// What isn't part of the result.
    pub dropped: Vec<Gone>,
    /// Keys of the target that other stages of a pipeline hold.
    pub elsewhere: u64,
    /// Keys that stay as the model that loads holds them.
    pub kept: Vec<String>,
    /// Keys of the checkpoint, and the bytes of those that are used.
    pub source: Total,
    /// Keys of the result, and their bytes; ties count once.
    pub result: Total,
    /// Bytes of what is dropped.
    pub dropped_bytes: u64,
}

/// How many keys, and how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Total {
    /// Keys.
    pub keys: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What the same rules made.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct MadeBy {
    /// The rules, in the order in which they applied.
    pub rules: Vec<RuleId>,
    /// Each kind of key that they made.
    pub lines: Vec<Made>,
}

/// Keys of the result that are made alike.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Made {
    /// The keys as one pattern: `model.layers.{0..31}.mlp.up_proj.weight`.
    pub keys: String,
    /// The first of them.
    pub first: String,
    /// How many.
    pub count: u64,
    /// dtype and shape of each.
    pub info: TensorInfo,
    /// What each is made of, a kind of key each.
    pub sources: Vec<MadeOf>,
    /// The ops, in the order in which they apply.
    pub ops: Vec<String>,
    /// What it is in memory, if [`Sights::sharing`] asks for it.
    pub sharing: Option<Sharing>,
}

/// Keys of the checkpoint that something is made of.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct MadeOf {
    /// The keys as one pattern.
    pub keys: String,
    /// How many of them go into each key of the line.
    pub count: u64,
}

/// Keys that are one tensor with another.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Tied {
    /// The keys as one pattern.
    pub keys: String,
    /// How many.
    pub count: u64,
    /// The key that stands for them.
    pub with: String,
}

/// Keys of the checkpoint that the result doesn't have.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Gone {
    /// The keys as one pattern.
    pub keys: String,
    /// The first of them.
    pub first: String,
    /// How many.
    pub count: u64,
    /// Why, with the rule if one said so.
    pub why: String,
    /// Why, in a few words.
    pub briefly: &'static str,
}

impl Overview {
    /// Gathers a plan of a checkpoint.
    pub fn of(plan: &Plan, header: &Header, sights: Sights) -> Self {
        let mut maker = Maker::new(plan, sights.sharing);
        let mut by_rules: IndexMap<&[RuleId], Gathered<MadeAs>> = IndexMap::new();
        let (mut unchanged, mut unchanged_lines) = (0, Gathered::new());
        for target in plan.targets.iter().filter(|target| target.tied_to.is_none()) {
            let passes = target.rules.is_empty();
            unchanged += u64::from(passes);
            if passes && !sights.unchanged {
                continue;
            }
            let (shape, sources) = maker.made_as(target);
            let lines = if passes {
                &mut unchanged_lines
            } else {
                by_rules.entry(&target.rules).or_default()
            };
            lines.add_made(&target.key, sources, shape);
        }
        // In the order of the program, not of the keys.
        by_rules.sort_by(|a, _, b, _| a.cmp(b));
        let groups = by_rules
            .iter()
            .map(|(rules, lines)| MadeBy { rules: rules.to_vec(), lines: made(lines) });
        let (dropped, dropped_bytes) = dropped(plan, header);
        let (read, written) = sums(plan);
        Self {
            verdict: plan.verdict,
            tied_embeddings: plan.tied.clone(),
            groups: groups.collect(),
            unchanged,
            unchanged_lines: made(&unchanged_lines),
            tied: tied(plan),
            dropped,
            elsewhere: plan.report.as_ref().map_or(0, |report| report.elsewhere.len() as u64),
            kept: plan.kept.iter().map(|key| one_line(key).into_owned()).collect(),
            source: Total { keys: header.tensors.len() as u64, bytes: read },
            result: Total { keys: plan.targets.len() as u64, bytes: written },
            dropped_bytes,
        }
    }
}

fn made(gathered: &Gathered<MadeAs>) -> Vec<Made> {
    let lines = gathered.lines();
    let made_of = |(keys, count): (String, usize)| MadeOf { keys, count: count as u64 };
    let made = |line: Line<'_, MadeAs>| Made {
        keys: line.text(),
        first: line.first(),
        count: line.count(),
        info: line.shared.info.clone(),
        sources: line.sources().into_iter().map(made_of).collect(),
        ops: line.shared.ops.clone(),
        sharing: line.shared.sharing,
    };
    lines.into_iter().map(made).collect()
}

fn tied(plan: &Plan) -> Vec<Tied> {
    let mut ties = Gathered::new();
    for target in &plan.targets {
        if let Some(root) = &target.tied_to {
            ties.add_made(&target.key, SourceKeys::of(root), ());
        }
    }
    let lines = ties.lines();
    let tied = |line: Line<'_, ()>| {
        let with = line.sources().into_iter().next().map(|(root, _)| root).unwrap_or_default();
        Tied { keys: line.text(), count: line.count(), with }
    };
    lines.into_iter().map(tied).collect()
}

fn dropped(plan: &Plan, header: &Header) -> (Vec<Gone>, u64) {
    let mut drops = Gathered::new();
    let mut bytes = 0u64;
    for dropped in &plan.dropped {
        let why = match &dropped.reason {
            DropReason::Rule(rule) => (format!("by {}", rule_line(plan, *rule)), "dropped"),
            DropReason::TiedTo(key) => {
                (format!("one tensor with {}", one_line(key)), "one tensor with a key that stays")
            }
            DropReason::NotWanted => ("the target does not ask for it".to_owned(), "not asked for"),
        };
        let len = header.get(&dropped.key).and_then(TensorInfo::nbytes).unwrap_or(0);
        bytes = bytes.saturating_add(len);
        drops.add(&dropped.key, why);
    }
    let lines = drops.lines();
    let gone = |line: Line<'_, (String, &'static str)>| Gone {
        keys: line.text(),
        first: line.first(),
        count: line.count(),
        why: line.shared.0.clone(),
        briefly: line.shared.1,
    };
    (lines.into_iter().map(gone).collect(), bytes)
}

/// Bytes that a plan reads and gives: tensors of the checkpoint that are used, and targets, ties
/// counted once.
fn sums(plan: &Plan) -> (u64, u64) {
    let bytes = |info: &TensorInfo| info.nbytes().unwrap_or(0);
    let sources = plan.nodes.iter().filter(|node| matches!(node.op, Op::Source { .. }));
    let targets = plan.targets.iter().filter(|target| target.tied_to.is_none());
    (
        sources.map(|node| bytes(&node.info)).fold(0, u64::saturating_add),
        targets.map(|target| bytes(plan.info(target))).fold(0, u64::saturating_add),
    )
}
