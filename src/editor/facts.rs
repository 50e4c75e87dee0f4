//! [`Facts`]: what is known of a checkpoint that a rule file is written for, and where its text says
//! which it is.

use std::cell::RefCell;
use std::sync::Arc;

use indexmap::IndexMap;

use super::Document;
use super::keys::KeyShapes;
use crate::check::Direction;
use crate::check::value::{Captures, Environment, Scope, Value, unknown_facts, unknown_layout};
use crate::config::Config;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::plan::{Plan, PlanOptions, ShapeFacts, Stage, Survey, Verdict, plan_surveyed};
use crate::syntax::TokenKind;
use crate::tensor::Header;

/// What a text says about the checkpoint that it is written for, in comments:
/// `# checkpoint: PATH`, `# config: PATH`, `# set: name=value`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Pins {
    /// A checkpoint, or a manifest of its keys.
    pub checkpoint: Option<(Span, String)>,
    /// A config.json, where none lies beside the checkpoint.
    pub config: Option<(Span, String)>,
    /// Values of parameters.
    pub set: Vec<(Span, String)>,
}

/// What is known of a checkpoint. Without one, nothing is.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its keys, with what each is.
    header: Option<Arc<Header>>,
    /// Its keys without the numbers in them, for completion.
    pub(super) shapes: KeyShapes,
    config: Config,
    parameters: IndexMap<String, Value>,
}

/// What rules do to a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What each statement took.
    pub survey: Survey,
    /// Which way the rules were read: the way in which they fit the checkpoint.
    pub direction: Direction,
    /// What the plan finds.
    pub findings: Vec<Diagnostic>,
    /// The plan, if there is one.
    pub plan: Option<Plan>,
}

impl Facts {
    /// From a header, its config, and values of parameters.
    pub fn new(
        header: Option<Arc<Header>>,
        config: Config,
        parameters: IndexMap<String, Value>,
    ) -> Self {
        let shapes = header.as_deref().map(KeyShapes::of).unwrap_or_default();
        Self { header, shapes, config, parameters }
    }

    /// The keys of the checkpoint.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_deref()
    }

    /// Its config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Asks with what is known.
    pub(super) fn ask<T>(&self, work: impl FnOnce(&Environment<'_>) -> T) -> T {
        let config = self.config.value();
        let known = !self.config.is_empty();
        let alone = Environment {
            config: known.then_some(config),
            tied: known.then(|| self.config.tie_policy(None).tied),
            parameters: &self.parameters,
            exists: &unknown_layout,
            facts: &unknown_facts,
            captures: Captures::NONE,
        };
        let shapes = RefCell::new(ShapeFacts::default());
        let facts = |scope: &Scope, at: u32| {
            let header = self.header.as_deref()?;
            let mut shapes = shapes.borrow_mut();
            if !shapes.has(scope) {
                *shapes = ShapeFacts::of(std::slice::from_ref(scope), header, &alone);
            }
            shapes.get(scope, at)
        };
        work(&Environment { facts: &facts, ..alone })
    }

    /// Plans the rules of a document over the checkpoint: left to right, unless only right to left
    /// they fit it.
    pub fn outcome(&self, document: &Document) -> Option<Outcome> {
        let header = self.header.as_deref()?;
        let read = |direction| {
            let stage = Stage { rules: document.rules(), direction, named: true };
            let options = PlanOptions {
                config: self.config.clone(),
                parameters: self.parameters.clone(),
                allow_lossy: direction == Direction::Reverse,
                ..PlanOptions::default()
            };
            let (plan, survey) = plan_surveyed(&[stage], header, &options);
            let (plan, findings) = match plan {
                Ok(mut plan) => {
                    let findings = std::mem::take(&mut plan.findings);
                    (Some(plan), findings)
                }
                Err(Diagnostics(findings)) => (None, findings),
            };
            Outcome { survey, direction, findings, plan }
        };
        let forward = read(Direction::Forward);
        let took = |outcome: &Outcome| outcome.survey.sources.iter().any(|one| one.count > 0);
        let fits = took(&forward)
            || !forward.plan.as_ref().is_some_and(|plan| plan.verdict == Some(Verdict::Already));
        if fits {
            return Some(forward);
        }
        let reverse = read(Direction::Reverse);
        Some(if took(&reverse) { reverse } else { forward })
    }
}

impl Document {
    /// What the text says about the checkpoint that it is written for.
    pub fn pins(&self) -> Pins {
        let mut pins = Pins::default();
        for token in self.tokens.iter().filter(|token| token.kind == TokenKind::Comment) {
            let text = self.slice(token.span).trim_start_matches('#').trim();
            let Some((what, value)) = text.split_once(':') else { continue };
            let value = value.trim().to_owned();
            if value.is_empty() {
                continue;
            }
            match what {
                "checkpoint" => pins.checkpoint = Some((token.span, value)),
                "config" => pins.config = Some((token.span, value)),
                "set" => pins.set.push((token.span, value)),
                _ => {}
            }
        }
        pins
    }
}
