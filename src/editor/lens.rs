//! Code lenses: what stands above rules and examples, of the checkpoint at hand.

use std::collections::BTreeMap;

use super::hover::grouped;
use super::{Document, Outcome, walk};
use crate::check::Direction;
use crate::diagnostic::{Diagnostic, Span};
use crate::plan::Tensors;
use crate::syntax::ast::StatementKind;

/// A line of text above a stretch of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lens {
    /// What it is about.
    pub span: Span,
    /// What it says.
    pub title: String,
}

/// A few words after a stretch of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inlay {
    /// Where they stand.
    pub offset: u32,
    /// The words.
    pub text: String,
}

/// Kinds of tensors that are listed.
const KINDS: usize = 4;

/// `[8, 64]`, `2 × [64]`, `[8], [4]`
fn listed(tensors: &[Tensors]) -> String {
    let one = |tensors: &Tensors| match tensors.count {
        1 => tensors.info.shape.to_string(),
        count => format!("{count} × {}", tensors.info.shape),
    };
    let mut shown: Vec<String> = tensors.iter().take(KINDS).map(one).collect();
    if tensors.len() > KINDS {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}

impl Document {
    /// The shapes that ops gave, each after its op.
    pub fn inlays(&self, outcome: &Outcome) -> Vec<Inlay> {
        let mine = outcome.survey.shapes.iter().filter(|(place, _)| self.is_mine(&place.source));
        let mut inlays: Vec<Inlay> = mine
            .map(|(place, tensors)| Inlay { offset: place.span.end, text: listed(tensors) })
            .collect();
        inlays.sort_by_key(|inlay| inlay.offset);
        inlays
    }

    /// What is to say above rules and examples: how many keys each took, and whether it holds.
    /// `examples` is what is wrong with those, if that is known.
    pub fn lenses(&self, outcome: Option<&Outcome>, examples: Option<&[Diagnostic]>) -> Vec<Lens> {
        let mut lenses = Vec::new();
        let by_source: BTreeMap<u32, u64> = outcome
            .map(|outcome| {
                let takes = self.takes(outcome).into_iter();
                takes.map(|takes| (takes.place.span.start, takes.count)).collect()
            })
            .unwrap_or_default();
        let backwards = match outcome.map(|outcome| outcome.direction) {
            Some(Direction::Reverse) => ", backwards",
            _ => "",
        };
        walk::statements(&self.parsed.file.statements, &mut |statement| {
            for rule in walk::rules(&statement.kind) {
                let sides = rule.sources.iter().chain(&rule.targets);
                let counts: Vec<u64> =
                    sides.filter_map(|side| by_source.get(&side.span.start).copied()).collect();
                if counts.is_empty() {
                    continue;
                }
                let title = match counts.iter().sum() {
                    1u64 => format!("1 key matches{backwards}"),
                    count => format!("{} keys match{backwards}", grouped(count)),
                };
                lenses.push(Lens { span: rule.span, title });
            }
            let is_example = matches!(statement.kind, StatementKind::Example { .. });
            if let Some(examples) = examples.filter(|_| is_example) {
                let fails = examples.iter().any(|finding| {
                    finding.primary.as_ref().is_some_and(|(place, _)| {
                        self.is_mine(&place.source) && place.span.start == statement.span.start
                    })
                });
                let title = if fails { "does not hold" } else { "holds" };
                lenses.push(Lens { span: statement.span, title: title.to_owned() });
            }
        });
        lenses
    }
}
