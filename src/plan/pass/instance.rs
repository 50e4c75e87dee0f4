//! Instances of a `map`: the tensors of one layer, say, followed through the joint ops to the
//! targets.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::check::CaptureKind;
use crate::check::op::{Arity, Call, OpKind};
use crate::check::takes::Named;
use crate::check::value::{Captures, Scope};
use crate::diagnostic::codes::SHAPE;
use crate::diagnostic::{Diagnostic, Place};
use crate::key::{Binding, Bindings, Key, Pattern, Slot};
use crate::plan::bind::BoundRule;
use crate::plan::context::{Context, with_environment};
use crate::plan::draft::Draft;
use crate::plan::graph::{MAX_PARTS, few};
use crate::plan::lower::Number;
use crate::plan::numbers::{BoundOp, shown};
use crate::plan::pass::heads::note_heads;
use crate::plan::pass::incomplete::incomplete;
use crate::plan::pass::matching::{Members, own_slots};
use crate::plan::pass::same::same;
use crate::plan::pass::select::make;
use crate::plan::state::Current;
use crate::plan::{DropReason, List, NodeId, RuleId};
use crate::tensor::Shape;

/// Tensors that a joint op treats alike, told apart by captures.
#[derive(Clone)]
struct Family {
    /// Which captures.
    slots: Vec<Slot>,
    /// By their values.
    nodes: BTreeMap<Vec<Binding>, NodeId>,
}

/// One instance while it is put together.
struct Instance<'a> {
    bound: &'a BoundRule<'a>,
    context: &'a Context<'a>,
    scope: &'a Scope,
    /// The values of the captures that its keys share.
    bindings: Bindings,
    /// Its keys, for a finding.
    keys: Vec<String>,
}

/// Puts one instance of a map together.
#[allow(clippy::too_many_arguments)]
pub(super) fn instance(
    context: &Context<'_>,
    draft: &mut Draft,
    bound: &BoundRule<'_>,
    id: RuleId,
    shared: Vec<Binding>,
    members: &[Members],
    scope: &Scope,
    made: &mut Vec<Current>,
) -> Result<(), Box<Diagnostic>> {
    let instance = Instance::new(context, draft, bound, scope, shared, members);
    draft.graph.turned.clear();
    let mut families = instance.families(draft, members)?;
    for (at, op) in bound.joint.iter().enumerate() {
        let later = bound.joint[at + 1..].iter().map(BoundOp::arity);
        let stays = Arity::last_stays(families.len(), bound.targets.len(), later);
        families = instance.joint(draft, families, op, stays)?;
        let nodes = families.iter().map(|family| family.nodes.values().copied());
        context.note_shapes(draft, bound.rule.id, op.place, nodes);
    }
    if families.len() != bound.targets.len() {
        let why = format!(
            "{} tensors come out of this, for {} targets",
            families.len(),
            bound.targets.len()
        );
        return Err(instance.unfit(why, &bound.rule.place));
    }
    for description in std::mem::take(&mut draft.graph.read) {
        draft.drop_sources(description, &DropReason::Rule(id));
    }
    let (origin, mut rules) = history(draft, members);
    rules.push(id);
    let first = made.len();
    let targets = bound.names.targets.iter().zip(&bound.targets);
    for (family, (name, side)) in families.into_iter().zip(targets) {
        for (values, node) in family.nodes {
            let node = instance.each(draft, node, &side.ops)?;
            match name {
                Named::Pattern(pattern) => made.push(Current {
                    key: instance.key(pattern, &side.side.place, &family.slots, values)?,
                    node,
                    origin: origin.clone(),
                    rules: rules.clone(),
                    tied: false,
                    given: true,
                }),
                // Read backwards, what was made goes.
                Named::Made(_) | Named::Regex(_) => draft.drop_sources(node, &DropReason::Rule(id)),
            }
        }
    }
    note_heads(draft, &made[first..], &bound.rule.place, scope);
    Ok(())
}

impl<'a> Instance<'a> {
    fn new(
        context: &'a Context<'a>,
        draft: &Draft,
        bound: &'a BoundRule<'a>,
        scope: &'a Scope,
        shared: Vec<Binding>,
        members: &[Members],
    ) -> Self {
        let mut bindings = Bindings::new(bound.rule.captures.len());
        for (slot, value) in bound.shared.iter().zip(shared) {
            bindings.set(*slot, value);
        }
        let keys = members
            .iter()
            .flat_map(BTreeMap::values)
            .filter_map(|place| Some(String::from(draft.state.at(*place)?.key.clone())))
            .collect();
        Self { bound, context, scope, bindings, keys }
    }

    /// An op that doesn't take these tensors.
    fn unfit(&self, why: String, place: &Place) -> Box<Diagnostic> {
        Box::new(
            Diagnostic::error(SHAPE, why)
                .at(place.clone(), "doesn't fit these tensors")
                .keys(self.keys.iter().take(8).cloned()),
        )
    }

    /// The bindings of the tensor whose own captures have these values.
    fn bindings_of(&self, slots: &[Slot], values: impl IntoIterator<Item = Binding>) -> Bindings {
        let mut bindings = self.bindings.clone();
        for (slot, value) in slots.iter().zip(values) {
            bindings.set(*slot, value);
        }
        bindings
    }

    /// The key of a target.
    fn key(
        &self,
        pattern: &Pattern,
        place: &Place,
        slots: &[Slot],
        values: Vec<Binding>,
    ) -> Result<Key, Box<Diagnostic>> {
        pattern.render("", &self.bindings_of(slots, values)).map(Key::from).ok_or_else(|| {
            let why = "the target key can't be made from these captures: an index leaves its range";
            self.unfit(why.to_owned(), place)
        })
    }

    /// The ops that one side has for itself, on each of its tensors.
    fn each(
        &self,
        draft: &mut Draft,
        node: NodeId,
        ops: &[BoundOp<'_>],
    ) -> Result<NodeId, Box<Diagnostic>> {
        ops.iter().try_fold(node, |node, op| {
            let node = self.one(draft, node, op)?;
            self.context.note_shapes(
                draft,
                self.bound.rule.id,
                op.place,
                [[node].into_iter()].into_iter(),
            );
            Ok(node)
        })
    }

    /// An op on one tensor.
    fn one(
        &self,
        draft: &mut Draft,
        node: NodeId,
        op: &BoundOp<'_>,
    ) -> Result<NodeId, Box<Diagnostic>> {
        let numbers = self.numbers(draft, op, node)?;
        let made = draft.graph.each(node, &numbers).map_err(|why| self.unfit(why, op.place))?;
        self.keeps_numbers(draft, op, &numbers, made)?;
        Ok(made)
    }

    /// The numbers of an op where it takes a tensor.
    fn numbers<'o>(
        &self,
        draft: &Draft,
        op: &'o BoundOp<'_>,
        input: NodeId,
    ) -> Result<Cow<'o, Call<Number>>, Box<Diagnostic>> {
        let shape = &draft.graph.info(input).shape;
        with_environment(self.context, draft, |environment| {
            op.numbers(&self.bound.rule.captures, &self.bindings, shape, self.scope, environment)
        })
    }

    /// What lengths said before must be said after too, where reading the other way asks for them.
    fn keeps_numbers(
        &self,
        draft: &Draft,
        op: &BoundOp<'_>,
        numbers: &Call<Number>,
        output: NodeId,
    ) -> Result<(), Box<Diagnostic>> {
        if !op.must_keep_numbers() || self.numbers(draft, op, output)?.as_ref() == numbers {
            return Ok(());
        }
        let info = draft.graph.info(output);
        let why = format!(
            "read the other way, these lengths would be other ones: they would be those of {info}"
        );
        Err(Box::new(self.unfit(why, op.place).hint(
            "write `->` if the rule is meant to go one way, or numbers that don't change with the tensor",
        )))
    }

    /// What the sources give to the joint ops.
    fn families(
        &self,
        draft: &mut Draft,
        members: &[Members],
    ) -> Result<Vec<Family>, Box<Diagnostic>> {
        let mut families = Vec::with_capacity(members.len());
        let first = members.iter().flat_map(BTreeMap::values).next();
        let like = first.and_then(|place| draft.state.at(*place));
        let like = like.map(|entry| draft.graph.info(entry.node).dtype);
        for (at, (side, members)) in self.bound.sources.iter().zip(members).enumerate() {
            let nodes = match &self.bound.names.sources[at] {
                Named::Made(source) => {
                    let no_lengths = Shape::from(Vec::new());
                    let value = |name: &str| {
                        let captures = &self.bound.rule.captures;
                        shown(name, captures, &self.bindings, &no_lengths, self.scope)
                    };
                    let captures = Captures { known: &self.bound.rule.captures, value: &value };
                    let made = make(self.context, draft, source, like, self.scope, captures)?;
                    BTreeMap::from([(Vec::new(), made)])
                }
                Named::Pattern(_) | Named::Regex(_) => {
                    let mut given = Vec::with_capacity(members.len());
                    for (values, place) in members {
                        let Some(entry) = draft.state.at(*place) else { continue };
                        given.push((values.clone(), self.each(draft, entry.node, &side.ops)?));
                    }
                    BTreeMap::from_iter(given)
                }
            };
            if !nodes.is_empty() {
                families.push(Family { slots: own_slots(self.bound, at), nodes });
            } else if !side.side.optional {
                return Err(incomplete(self.bound, &self.bindings, at, &[], &self.keys));
            }
        }
        Ok(families)
    }

    /// One op of those that all sources go through; whether the last of them stays, if it changes
    /// the others.
    fn joint(
        &self,
        draft: &mut Draft,
        mut families: Vec<Family>,
        op: &BoundOp<'_>,
        stays: bool,
    ) -> Result<Vec<Family>, Box<Diagnostic>> {
        let place = op.place;
        match op.arity() {
            Arity::Each => {
                for node in families.iter_mut().flat_map(|family| family.nodes.values_mut()) {
                    *node = self.one(draft, *node, op)?;
                }
                Ok(families)
            }
            Arity::Join(_) => self.join(draft, families, op),
            Arity::With => self.with(draft, families, op, stays),
            Arity::Part(count) => {
                let count = count.unwrap_or(self.bound.targets.len());
                match families.into_iter().next() {
                    Some(family) => self.part(draft, family, count, op),
                    None => Ok(Vec::new()),
                }
            }
            Arity::Gather(over) => {
                // All families must have the same values: w1 of eight experts and w3 of seven is
                // incomplete.
                let expected =
                    expected(self.bound, &families, over).map_err(|why| self.unfit(why, place))?;
                let families = families.into_iter().enumerate();
                families
                    .map(|(which, family)| self.gather(draft, (which, family), over, &expected, op))
                    .collect()
            }
            Arity::Scatter(over) => {
                families.into_iter().map(|family| self.scatter(draft, family, over, op)).collect()
            }
        }
    }

    /// Tensors of all families that have the same values become one.
    fn join(
        &self,
        draft: &mut Draft,
        families: Vec<Family>,
        op: &BoundOp<'_>,
    ) -> Result<Vec<Family>, Box<Diagnostic>> {
        let Some(first) = families.first() else { return Ok(families) };
        let mut nodes = BTreeMap::new();
        for values in first.nodes.keys() {
            let parts: Option<Vec<NodeId>> =
                families.iter().map(|family| family.nodes.get(values).copied()).collect();
            let Some(parts) = parts else {
                return Err(incomplete(self.bound, &self.bindings, 0, &[], &self.keys));
            };
            let Some(input) = parts.first() else { continue };
            if op.kind() == OpKind::Same {
                same(self.context, draft, &parts, op.place)?;
            }
            let numbers = self.numbers(draft, op, *input)?;
            let node =
                draft.graph.join(parts, &numbers).map_err(|why| self.unfit(why, op.place))?;
            self.keeps_numbers(draft, op, &numbers, node)?;
            nodes.insert(values.clone(), node);
        }
        Ok(vec![Family { slots: first.slots.clone(), nodes }])
    }

    /// Tensors of the last family change those of the others that have the same values.
    fn with(
        &self,
        draft: &mut Draft,
        mut families: Vec<Family>,
        op: &BoundOp<'_>,
        stays: bool,
    ) -> Result<Vec<Family>, Box<Diagnostic>> {
        let Some(last) = families.pop() else { return Ok(families) };
        for family in &mut families {
            for (values, node) in &mut family.nodes {
                let Some(by) = last.nodes.get(values) else {
                    return Err(incomplete(self.bound, &self.bindings, 0, &[], &self.keys));
                };
                let numbers = self.numbers(draft, op, *node)?;
                *node = draft
                    .graph
                    .join(vec![*node, *by], &numbers)
                    .map_err(|why| self.unfit(why, op.place))?;
            }
        }
        families.extend(stays.then_some(last));
        Ok(families)
    }

    /// Each tensor falls into so many parts: a family of each.
    fn part(
        &self,
        draft: &mut Draft,
        family: Family,
        count: usize,
        op: &BoundOp<'_>,
    ) -> Result<Vec<Family>, Box<Diagnostic>> {
        let mut parts: Vec<Family> = (0..count)
            .map(|_| Family { slots: family.slots.clone(), nodes: BTreeMap::new() })
            .collect();
        for (values, node) in family.nodes {
            let split = self.parts(draft, node, op, count)?;
            for (part, node) in parts.iter_mut().zip(split) {
                part.nodes.insert(values.clone(), node);
            }
        }
        Ok(parts)
    }

    /// The parts of one tensor.
    fn parts(
        &self,
        draft: &mut Draft,
        node: NodeId,
        op: &BoundOp<'_>,
        count: usize,
    ) -> Result<Vec<NodeId>, Box<Diagnostic>> {
        let numbers = self.numbers(draft, op, node)?;
        let parts =
            draft.graph.part(node, &numbers, count).map_err(|why| self.unfit(why, op.place))?;
        if let Some(first) = parts.first() {
            self.keeps_numbers(draft, op, &numbers, *first)?;
        }
        Ok(parts)
    }

    /// Tensors that differ only in one capture become one; `which` source they are of.
    fn gather(
        &self,
        draft: &mut Draft,
        (which, family): (usize, Family),
        over: Slot,
        expected: &[Binding],
        op: &BoundOp<'_>,
    ) -> Result<Family, Box<Diagnostic>> {
        let Some(position) = family.slots.iter().position(|slot| *slot == over) else {
            return Ok(family);
        };
        let mut slots = family.slots.clone();
        slots.remove(position);
        let mut groups: BTreeMap<Vec<Binding>, Vec<(Binding, NodeId)>> = BTreeMap::new();
        for (mut values, node) in family.nodes {
            let value = values.remove(position);
            groups.entry(values).or_default().push((value, node));
        }
        let mut nodes = BTreeMap::new();
        for (values, group) in groups {
            let group = BTreeMap::from_iter(group);
            if !group.keys().eq(expected) {
                let missing: Vec<(Slot, Binding)> = expected
                    .iter()
                    .filter(|value| !group.contains_key(value))
                    .map(|value| (over, value.clone()))
                    .collect();
                let bindings = self.bindings_of(&slots, values);
                return Err(incomplete(self.bound, &bindings, which, &missing, &self.keys));
            }
            let group: Vec<NodeId> = group.into_values().collect();
            let Some(input) = group.first() else { continue };
            if op.kind() == OpKind::SameOver {
                same(self.context, draft, &group, op.place)?;
            }
            let numbers = self.numbers(draft, op, *input)?;
            let node =
                draft.graph.gather(group, &numbers).map_err(|why| self.unfit(why, op.place))?;
            self.keeps_numbers(draft, op, &numbers, node)?;
            nodes.insert(values, node);
        }
        Ok(Family { slots, nodes })
    }

    /// Each tensor falls into as many parts as a capture has values.
    fn scatter(
        &self,
        draft: &mut Draft,
        family: Family,
        over: Slot,
        op: &BoundOp<'_>,
    ) -> Result<Family, Box<Diagnostic>> {
        let mut slots = family.slots;
        let position = slots.partition_point(|slot| *slot < over);
        slots.insert(position, over);
        let range = values_of(self.bound, over);
        let (start, count) = range
            .as_ref()
            .map_or((0, 0), |range| (range.start, range.end.saturating_sub(range.start)));
        let mut nodes = BTreeMap::new();
        for (values, node) in family.nodes {
            few(count).map_err(|why| self.unfit(why, op.place))?;
            let parts =
                self.parts(draft, node, op, usize::try_from(count).unwrap_or(usize::MAX))?;
            if let Some(range) = &range
                && parts.len() as u64 != count
            {
                let words =
                    self.bound.names.ranges.get(usize::from(over.0)).is_none_or(Option::is_none);
                let values = if words {
                    format!("{count} words")
                } else {
                    format!("the range {}..{}", range.start, range.end)
                };
                let why = format!("{} parts come out of this, for {values}", parts.len());
                return Err(self.unfit(why, op.place));
            }
            for (at, part) in (start..).zip(parts) {
                let mut values = values.clone();
                values.insert(position, scattered(self.bound, over, at));
                nodes.insert(values, part);
            }
        }
        Ok(Family { slots, nodes })
    }
}

/// Where an instance comes from: its first key in the checkpoint, and all rules that made its
/// sources.
fn history(draft: &Draft, members: &[Members]) -> (Key, List<RuleId>) {
    let entries =
        || members.iter().flat_map(BTreeMap::values).filter_map(|place| draft.state.at(*place));
    let origin = entries().next().map_or_else(|| Key::from(""), |entry| entry.origin.clone());
    let mut rules: List<RuleId> = List::new();
    for entry in entries() {
        for rule in &entry.rules {
            if !rules.contains(rule) {
                rules.push(*rule);
            }
        }
    }
    (origin, rules)
}

/// The values that a capture has by how it is written: its range, or a number for each word.
fn values_of(bound: &BoundRule<'_>, capture: Slot) -> Option<std::ops::Range<u64>> {
    let at = usize::from(capture.0);
    bound.names.ranges.get(at).cloned().flatten().or_else(|| {
        match &bound.rule.captures.get(at)?.kind {
            CaptureKind::Words { left, .. } => Some(0..left.len() as u64),
            _ => None,
        }
    })
}

fn scattered(bound: &BoundRule<'_>, over: Slot, at: u64) -> Binding {
    match bound.rule.captures.get(usize::from(over.0)).map(|capture| &capture.kind) {
        Some(CaptureKind::Words { .. }) => Binding::Word(u16::try_from(at).unwrap_or(u16::MAX)),
        _ => Binding::Index(at),
    }
}

/// The values that a gathered capture must have: its range, its words, or 0 up to the largest
/// there is.
fn expected(
    bound: &BoundRule<'_>,
    families: &[Family],
    over: Slot,
) -> Result<Vec<Binding>, String> {
    if let Some(range) = bound.names.ranges.get(usize::from(over.0)).cloned().flatten() {
        few(range.end.saturating_sub(range.start))?;
        return Ok(range.map(Binding::Index).collect());
    }
    if let Some(CaptureKind::Words { left, .. }) =
        bound.rule.captures.get(usize::from(over.0)).map(|capture| &capture.kind)
    {
        return Ok((0..left.len())
            .map(|at| Binding::Word(u16::try_from(at).unwrap_or(u16::MAX)))
            .collect());
    }
    let largest = families
        .iter()
        .flat_map(|family| {
            let position = family.slots.iter().position(|slot| *slot == over);
            family.nodes.keys().filter_map(move |values| match values.get(position?) {
                Some(Binding::Index(value)) => Some(*value),
                _ => None,
            })
        })
        .max();
    // A gap as wide as a key's number can be is not listed number by number.
    let largest = largest.unwrap_or(0).min(MAX_PARTS - 1);
    Ok((0..=largest).map(Binding::Index).collect())
}
