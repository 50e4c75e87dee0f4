//! The tensors of one instance followed through the joint ops, by number and by the captures that
//! still tell them apart.

use super::super::op::{Arity, Call, OpKind};
use super::super::rules::{Rule, Side, SideItem};
use crate::diagnostic::codes::{ARITY, NOT_INVERTIBLE};
use crate::diagnostic::{Diagnostic, Place};
use crate::key::Slot;
use crate::syntax::ast::Expr;

type Checked = Result<(), Box<Diagnostic>>;

/// A rule read in a direction.
pub(super) struct Follow<'r> {
    pub(super) rule: &'r Rule,
    pub(super) from: &'r [Side],
    pub(super) to: &'r [Side],
    pub(super) forward: bool,
}

/// Tensors, each with the captures that it is told apart by.
type Tensors = Vec<Vec<Slot>>;

impl Follow<'_> {
    /// Follows the tensors of the sources through the ops to the targets.
    ///
    /// # Errors
    /// The first op that they don't fit, or targets that they don't.
    pub(super) fn through(&self, ops: &[(Call<Expr>, Place)]) -> Checked {
        let mut tensors = self.sources(ops);
        for (at, (op, place)) in ops.iter().enumerate() {
            match op.arity() {
                Arity::Each => {}
                Arity::Join(count) => self.join(&mut tensors, op, count, place)?,
                Arity::Part(count) => self.part(&mut tensors, count, place)?,
                Arity::With => {
                    let later = ops[at + 1..].iter().map(|(op, _)| op.arity());
                    let stays = Arity::last_stays(tensors.len(), self.to.len(), later);
                    self.with(&mut tensors, stays, place)?;
                }
                Arity::Gather(slot) => self.gather(&mut tensors, slot, place)?,
                Arity::Scatter(slot) => self.scatter(&mut tensors, slot, place)?,
            }
        }
        self.arrive(&tensors, ops.is_empty())
    }

    fn has(&self, slot: Slot, right: bool) -> bool {
        self.rule
            .captures
            .get(usize::from(slot.0))
            .is_some_and(|capture| if right { capture.right } else { capture.left })
    }

    fn name_of(&self, slot: Slot) -> &str {
        self.rule.captures.get(usize::from(slot.0)).map_or("?", |capture| capture.name.as_str())
    }

    /// The captures of a side that the other lacks; `right` says which is the other.
    fn own(&self, side: &Side, right: bool) -> Vec<Slot> {
        Side::pattern(side).map_or_else(Vec::new, |pattern| {
            pattern.slots().into_iter().filter(|slot| !self.has(*slot, right)).collect()
        })
    }

    /// What only the sources have and no op gathers is forgotten (a one-way rename may do that).
    fn sources(&self, ops: &[(Call<Expr>, Place)]) -> Tensors {
        let gathered: Vec<Slot> = ops
            .iter()
            .filter_map(|(op, _)| match op.arity() {
                Arity::Gather(slot) => Some(slot),
                _ => None,
            })
            .collect();
        let source = |side: &Side| {
            let own = self.own(side, self.forward).into_iter();
            own.filter(|slot| gathered.contains(slot)).collect()
        };
        self.from.iter().map(source).collect()
    }

    fn join(
        &self,
        tensors: &mut Tensors,
        op: &Call<Expr>,
        count: Option<usize>,
        place: &Place,
    ) -> Checked {
        if count.is_some_and(|count| count != tensors.len()) || tensors.len() < 2 {
            let wanted = count.map_or_else(
                || "at least two tensors".to_owned(),
                |count| format!("{count} tensors"),
            );
            let mut finding = wrong(
                place,
                format!("this op joins {wanted}, and here there {}", are(tensors.len())),
                "joins these",
            );
            // A capture that only the source has stands for many tensors.
            let many = Side::pattern(&self.from[0]).and_then(|pattern| {
                pattern.slots().into_iter().find(|slot| !self.has(*slot, self.forward))
            });
            if let (OpKind::Concat, [_], Some(slot)) = (op.kind, tensors.as_slice(), many) {
                finding = Box::new(finding.hint(format!(
                    "to join the tensors of `{0}`, write `concat(…, over {0})`",
                    self.name_of(slot)
                )));
            }
            return Err(finding);
        }
        if tensors.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(wrong(
                place,
                "the tensors to join don't have the same captures".to_owned(),
                "stack them first",
            ));
        }
        tensors.truncate(1);
        Ok(())
    }

    /// The last tensor changes the others.
    fn with(&self, tensors: &mut Tensors, stays: bool, place: &Place) -> Checked {
        if tensors.len() < 2 {
            let message = format!(
                "this op computes with the last of several tensors, and here there {}",
                are(tensors.len())
            );
            if self.forward {
                return Err(wrong(place, message, "computes with these"));
            }
            let why = "what it computes with is gone after it, so nothing can undo it";
            return Err(Box::new(
                Diagnostic::error(NOT_INVERTIBLE, why)
                    .at(place.clone(), "has no inverse, in a `<->` rule")
                    .hint("give that tensor a target too, after the others, or write `->`"),
            ));
        }
        if tensors.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(wrong(
                place,
                "the tensors to compute with don't have the same captures".to_owned(),
                "stack them first",
            ));
        }
        if !stays {
            tensors.pop();
        }
        Ok(())
    }

    fn part(&self, tensors: &mut Tensors, count: Option<usize>, place: &Place) -> Checked {
        let [tensor] = tensors.as_slice() else {
            let message =
                format!("this op parts one tensor, and here there {}", are(tensors.len()));
            return Err(wrong(place, message, "parts one"));
        };
        let count = count.unwrap_or(self.to.len());
        if count < 2 {
            return Err(wrong(
                place,
                "this op would part a tensor in one".to_owned(),
                "needs at least two targets",
            ));
        }
        *tensors = vec![tensor.clone(); count];
        Ok(())
    }

    fn gather(&self, tensors: &mut Tensors, slot: Slot, place: &Place) -> Checked {
        for tensor in tensors {
            let before = tensor.len();
            tensor.retain(|own| *own != slot);
            if tensor.len() < before {
                continue;
            }
            let name = self.name_of(slot);
            let hint = if self.has(slot, true) && self.has(slot, false) {
                format!(
                    "`{name}` is on both sides of the arrow, so each of its values is a rule of its own: leave it out of one side"
                )
            } else {
                format!("every tensor that is gathered needs `{name}`, and it is gathered once")
            };
            let message = format!("the capture `{name}` doesn't tell these tensors apart");
            return Err(Box::new(wrong(place, message, "nothing to gather").hint(hint)));
        }
        Ok(())
    }

    fn scatter(&self, tensors: &mut Tensors, slot: Slot, place: &Place) -> Checked {
        if self.has(slot, !self.forward) {
            let message =
                format!("the capture `{}` is bound by the sources already", self.name_of(slot));
            return Err(wrong(place, message, "can't be made anew"));
        }
        for tensor in tensors {
            tensor.push(slot);
            tensor.sort_unstable();
        }
        Ok(())
    }

    /// Whether what comes out of the ops is what the targets are.
    fn arrive(&self, tensors: &Tensors, no_ops: bool) -> Checked {
        if tensors.len() != self.to.len() {
            return Err(self.other_number(tensors.len(), no_ops));
        }
        for (tensor, side) in tensors.iter().zip(self.to) {
            let wanted = self.own(side, !self.forward);
            if *tensor != wanted && !matches!(side.item, SideItem::Made(_)) {
                return Err(wrong(
                    &side.place,
                    "the captures of this pattern are not those that the ops give".to_owned(),
                    "here",
                ));
            }
        }
        Ok(())
    }

    fn other_number(&self, come: usize, no_ops: bool) -> Box<Diagnostic> {
        let come_out = if come == 1 { "comes" } else { "come" };
        let (each, way) = if self.forward {
            ("target", "read from left to right")
        } else {
            ("source", "read backwards")
        };
        let made = count(come, "tensor");
        let finding = wrong(
            &self.rule.place,
            format!("{made} {come_out} out of this, for {}", count(self.to.len(), each)),
            way,
        );
        let hint = if come > self.to.len() {
            "join tensors with `concat` or `stack`"
        } else if come == 1 && no_ops && self.forward {
            "part a tensor with `split` or `unstack`, or give it to each target with `copy`"
        } else {
            "part a tensor with `split` or `unstack`"
        };
        Box::new(
            finding
                .hint(format!("{hint}: the ops after `via` must give one tensor for each {each}")),
        )
    }
}

fn wrong(place: &Place, message: String, label: &str) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(ARITY, message).at(place.clone(), label))
}

fn are(number: usize) -> String {
    if number == 1 { "is one".to_owned() } else { format!("are {number}") }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
