//! How statements are read in a direction: their order, and which way the rules below them go.
//! Whoever walks through a rule file asks here.

use super::rules::{Direction, Rule, Step, StepKind};
use crate::syntax::ast::Arrow;

/// Statements in the order in which a direction runs them. Strips normalize what comes in, so they
/// come first both ways.
pub fn in_order<'r>(steps: &[&'r Step], direction: Direction) -> Vec<&'r Step> {
    let is_strip = |step: &&'r Step| {
        matches!(step.kind, StepKind::StripAnywhere { .. } | StepKind::StripLeading { .. })
    };
    match direction {
        Direction::Forward => steps.to_vec(),
        Direction::Reverse => {
            let (strips, others): (Vec<&Step>, Vec<&Step>) =
                steps.iter().copied().partition(is_strip);
            strips.into_iter().chain(others.into_iter().rev()).collect()
        }
    }
}

/// The rules of statements, blocks and reversed files included, and which way each is read.
pub fn rules_below(steps: &[Step], direction: Direction) -> Vec<(&Rule, Direction)> {
    let mut found = Vec::new();
    collect(steps, direction, &mut found);
    found
}

fn collect<'r>(steps: &'r [Step], direction: Direction, found: &mut Vec<(&'r Rule, Direction)>) {
    for step in steps {
        match &step.kind {
            StepKind::Rewrite(rules) => found.extend(rules.iter().map(|rule| (rule, direction))),
            StepKind::Reversed(steps) => collect(steps, direction.opposite(), found),
            StepKind::When { then, otherwise, .. } => {
                collect(then, direction, found);
                collect(otherwise, direction, found);
            }
            _ => {}
        }
    }
}

impl Rule {
    /// Whether it takes keys in a direction at all.
    pub fn is_read(&self, direction: Direction) -> bool {
        direction == Direction::Forward || self.arrow == Arrow::TwoWay
    }
}
