//! [`Survey`]: what each statement took of a checkpoint, noted while a plan is made. It is there
//! also where no plan could be made: as far as statements were read.

use std::cell::RefCell;
use std::collections::HashSet;

use crate::check::Identity;
use crate::check::takes::Named;
use crate::diagnostic::Place;
use crate::key::{Binding, Bindings};
use crate::plan::NodeId;
use crate::plan::bind::BoundRule;
use crate::plan::draft::Draft;
use crate::plan::pass::Taken;
use crate::tensor::TensorInfo;

/// Keys of one side that are kept as examples.
const EXAMPLES: usize = 3;

/// What statements took.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Survey {
    /// The sources of the rules of `rename`s and `map`s that were read, in order.
    pub sources: Vec<Takes>,
    /// Each statement and rule that was read, and how often it did something.
    pub counts: Vec<(Place, u64)>,
    /// For each op that was applied, what it gave the first time.
    pub shapes: Vec<(Place, Vec<Tensors>)>,
    /// Where the ops are whose shapes are noted.
    noted: HashSet<(Identity, u32)>,
}

/// So many tensors of one kind.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Tensors {
    /// How many.
    pub count: usize,
    /// What each is.
    pub info: TensorInfo,
}

/// What one source of a rule took.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Takes {
    /// Where the source is written.
    pub place: Place,
    /// How many keys it took.
    pub count: u64,
    /// Some of them, each with the keys that can be named of what it becomes.
    pub examples: Vec<(String, Vec<String>)>,
}

/// A survey that is being made.
pub(super) type Notes = RefCell<Survey>;

impl Survey {
    /// Takes note of what a rule took, before it is done.
    pub(super) fn note(&mut self, draft: &Draft, bound: &BoundRule<'_>, taken: &Taken) {
        let mut takes: Vec<Takes> = bound
            .sources
            .iter()
            .map(|source| Takes {
                place: source.side.place.clone(),
                count: 0,
                examples: Vec::new(),
            })
            .collect();
        let key = |place: usize| draft.state.at(place).map(|entry| entry.key.to_string());
        if let Some(first) = takes.first_mut() {
            // A rename has one source.
            first.count += taken.renames.len() as u64;
            for (place, to) in taken.renames.iter().take(EXAMPLES) {
                first.examples.extend(key(*place).map(|key| (key, vec![to.to_string()])));
            }
        }
        for (shared, members) in &taken.instances {
            let targets = std::cell::OnceCell::new();
            for (takes, members) in takes.iter_mut().zip(members) {
                takes.count += members.len() as u64;
                let room = EXAMPLES.saturating_sub(takes.examples.len());
                let mut members: Vec<_> = members.iter().collect();
                members.sort();
                for (_, place) in members.into_iter().take(room) {
                    let targets = targets.get_or_init(|| named(bound, shared));
                    takes.examples.extend(key(*place).map(|key| (key, targets.clone())));
                }
            }
        }
        self.sources.extend(takes);
    }

    /// Takes note of the tensors that an op gave, in families, the first time.
    pub(super) fn note_shapes(
        &mut self,
        draft: &Draft,
        rule: Identity,
        place: &Place,
        families: impl Iterator<Item = impl Iterator<Item = NodeId>>,
    ) {
        if !self.noted.insert((rule, place.span.start)) {
            return;
        }
        let mut found: Vec<Tensors> = Vec::new();
        for family in families {
            // Families are told apart, those of a part of a split, say.
            let mut own: Vec<Tensors> = Vec::new();
            for info in family.map(|node| draft.graph.info(node)) {
                match own.last_mut().filter(|last| last.info == *info) {
                    Some(last) => last.count += 1,
                    None => own.push(Tensors { count: 1, info: info.clone() }),
                }
            }
            found.append(&mut own);
        }
        self.shapes.push((place.clone(), found));
    }

    /// Takes note of how often each rule and statement did something.
    pub(super) fn close(&mut self, draft: &Draft) {
        let ids = (0u32..).map(crate::plan::RuleId);
        let counted = ids.zip(&draft.rules);
        let placed = counted.filter_map(|(id, rule)| Some((draft.places.get(&id)?, rule.count)));
        self.counts = placed.map(|(place, count)| (place.clone(), count)).collect();
    }
}

/// The targets of an instance that can be named.
fn named(bound: &BoundRule<'_>, shared: &[Binding]) -> Vec<String> {
    let mut bindings = Bindings::new(bound.rule.captures.len());
    for (slot, value) in bound.shared.iter().zip(shared) {
        bindings.set(*slot, value.clone());
    }
    let mut found = Vec::new();
    for pattern in bound.names.targets.iter().filter_map(Named::pattern) {
        if pattern.slots().iter().all(|slot| *bindings.get(*slot) != Binding::Unbound) {
            found.extend(pattern.render("", &bindings));
        }
    }
    found
}
