//! Circles of ties: a tie must lead to a tensor, so ties that hold together may not lead back to
//! where they start.
//!
//! Ties under different conditions may never hold together, so a circle counts where all of its
//! ties hold always or under one condition. Keys are compared as they are written; a circle that
//! only values of captures close is met while planning, and ends at itself.

use std::collections::HashMap;

use super::reading::{Act, Guard, Reading};
use super::rules::{Direction, Rules, Step, Tie};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::TIE_CYCLE;

/// The conditions under which a tie holds, outermost first.
type Conditions<'a> = Vec<Guard<'a>>;

/// A tie of one key to another.
struct Edge<'a> {
    target: usize,
    source: usize,
    /// Which of the different conditions; 0 is none.
    condition: usize,
    step: &'a Step,
}

/// Ties of a rule file that go round in a circle.
pub(super) fn circles(rules: &Rules) -> Vec<Diagnostic> {
    let mut conditions: Vec<Conditions<'_>> = vec![Vec::new()];
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut edges: Vec<Edge<'_>> = Vec::new();
    for (step, tie, holds) in ties(rules) {
        let condition = conditions.iter().position(|known| *known == holds).unwrap_or_else(|| {
            conditions.push(holds);
            conditions.len() - 1
        });
        let number = |names: &mut HashMap<String, usize>, pattern: &crate::key::Pattern| {
            let next = names.len();
            *names.entry(format!("{pattern:?}")).or_insert(next)
        };
        for target in &tie.targets {
            let target = number(&mut names, target.without_ranges());
            for source in &tie.sources {
                edges.push(Edge {
                    target,
                    source: number(&mut names, source.without_ranges()),
                    condition,
                    step,
                });
            }
        }
    }
    // The last tie of a circle is the one to be told of; and once, though other conditions may
    // close it as well.
    let mut told: Vec<&Step> = Vec::new();
    for condition in 0..conditions.len() {
        let holding: Vec<&Edge<'_>> = edges
            .iter()
            .filter(|edge| edge.condition == 0 || edge.condition == condition)
            .collect();
        if let Some(step) = circle(&holding, names.len())
            && !told.iter().any(|known| known.id == step.id)
        {
            told.push(step);
        }
    }
    told.into_iter()
        .map(|step| {
            Diagnostic::error(TIE_CYCLE, "ties go round in a circle")
                .at(step.place.clone(), "leads back to its own target")
                .hint("tie every key to one source; a tie serves the other way round too, where only its target is there")
        })
        .collect()
}

/// Every tie that is read the way it is written, with its conditions.
fn ties(rules: &Rules) -> Vec<(&Step, &Tie, Conditions<'_>)> {
    let mut found = Vec::new();
    for statement in Reading::of(rules, Direction::Forward).everywhere() {
        match statement.act {
            Act::Tie(tie) if tie.inverted == (statement.direction == Direction::Reverse) => {
                let own = tie.condition.iter().map(|condition| Guard { condition, holds: true });
                let conditions = statement.guards.into_iter().chain(own).collect();
                found.push((statement.step, tie, conditions));
            }
            Act::Tie(_)
            | Act::Rewrite(_)
            | Act::Whole { .. }
            | Act::StripAnywhere { .. }
            | Act::StripLeading { .. }
            | Act::Prefix(_)
            | Act::Drop(_)
            | Act::Keep(_)
            | Act::Cast { .. }
            | Act::Create { .. }
            | Act::Expect { .. }
            | Act::When { .. } => {}
        }
    }
    found
}

/// The tie that closes a circle, if there is one: the last that is left when keys without sources,
/// and keys without targets, are gone.
fn circle<'a>(edges: &[&Edge<'a>], keys: usize) -> Option<&'a Step> {
    let edges = trim(edges.to_vec(), keys, |edge| (edge.target, edge.source));
    trim(edges, keys, |edge| (edge.source, edge.target)).last().map(|edge| edge.step)
}

/// Takes keys away that wait for no other one, until every key that is left does; `ends` gives the
/// key that waits, and for which.
fn trim<'e, 'a>(
    mut edges: Vec<&'e Edge<'a>>,
    keys: usize,
    ends: impl Fn(&Edge<'a>) -> (usize, usize),
) -> Vec<&'e Edge<'a>> {
    let mut waits_for = vec![0usize; keys];
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); keys];
    for edge in &edges {
        let (key, other) = ends(edge);
        waits_for[key] += 1;
        waiting[other].push(key);
    }
    let mut free: Vec<usize> = (0..keys).filter(|key| waits_for[*key] == 0).collect();
    let mut is_free = vec![false; keys];
    while let Some(key) = free.pop() {
        is_free[key] = true;
        for other in &waiting[key] {
            waits_for[*other] -= 1;
            if waits_for[*other] == 0 {
                free.push(*other);
            }
        }
    }
    edges.retain(|edge| !is_free[edge.target] && !is_free[edge.source]);
    edges
}
