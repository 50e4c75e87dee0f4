//! What makes a rule whole, and a `<->` invertible: captures bound where they are needed, ops that
//! join and part the right number of tensors in each direction, and an inverse for each of them.

use super::op::{Arity, Op};
use super::rules::pattern_of;
use super::rules::{CaptureKind, Rule, Side, SideItem};
use crate::diagnostic::codes::{ARITY, CAPTURE_UNBOUND, NOT_INVERTIBLE, SAME_IMAGE};
use crate::diagnostic::{Diagnostic, Place, did_you_mean};
use crate::key::Slot;
use crate::syntax::ast::{Arrow, Expr, Rule as RuleText};

/// Checks one rule.
///
/// # Errors
/// The first thing that is wrong with it.
pub(super) fn rule(rule: &Rule, text: &RuleText) -> Result<(), Box<Diagnostic>> {
    let two_way = text.arrow == Arrow::TwoWay;
    captures(rule, two_way)?;
    counted(rule, two_way)?;
    simulate(
        rule,
        &rule.left,
        &rule.right,
        rule.joint.iter().map(|used| (used.op.clone(), used.place.clone())).collect(),
        true,
    )?;
    if !two_way {
        return Ok(());
    }
    let mut backwards = Vec::new();
    for used in rule.joint.iter().rev() {
        backwards.push((
            used.op.inverse().map_err(|why| no_inverse(&used.place, why))?,
            used.place.clone(),
        ));
    }
    for used in rule.left.iter().chain(&rule.right).flat_map(|side| &side.ops) {
        used.op.inverse().map_err(|why| no_inverse(&used.place, why))?;
    }
    if let Some(optional) = rule.left.iter().chain(&rule.right).find(|side| side.optional) {
        return Err(Box::new(
            Diagnostic::error(NOT_INVERTIBLE, "reading backwards could not know whether a tensor that may be missing was there")
                .at(optional.place.clone(), "optional, in a `<->` rule")
                .hint("write `->`; `optional` at the end of a rule says that the whole rule may match nothing, which `<->` allows"),
        ));
    }
    simulate(rule, &rule.right, &rule.left, backwards, false)
}

fn no_inverse(place: &Place, why: &str) -> Box<Diagnostic> {
    Box::new(
        Diagnostic::error(NOT_INVERTIBLE, why.to_owned())
            .at(place.clone(), "has no inverse as it is written, in a `<->` rule")
            .hint("write `->` if the rule is meant to go one way"),
    )
}

fn captures(rule: &Rule, two_way: bool) -> Result<(), Box<Diagnostic>> {
    let consumed: Vec<Slot> = rule
        .joint
        .iter()
        .filter_map(|used| match used.op.arity() {
            Arity::Gather(slot) | Arity::Scatter(slot) => Some(slot),
            _ => None,
        })
        .collect();
    let regex = rule.left.iter().any(|side| matches!(side.item, SideItem::Regex(_)));
    // Captures that one side has alone. Where both sides have such a one, a name was mistyped.
    let lonely = |left: bool| -> Vec<&str> {
        let own = (0u16..).map(Slot).zip(&rule.captures).filter(|(slot, capture)| {
            capture.left == left
                && capture.right != left
                && !consumed.contains(slot)
                && !capture.name.contains("**")
        });
        own.map(|(_, capture)| capture.name.as_str()).collect()
    };
    let (on_left, on_right) = (lonely(true), lonely(false));
    let meant = |name: &str, others: &[&str], own: &[&str]| -> Option<String> {
        let close = did_you_mean(name, others.iter().copied());
        close.map(str::to_owned).or_else(|| {
            Some((*others.first()?).to_owned()).filter(|_| others.len() == 1 && own.len() == 1)
        })
    };
    for (slot, capture) in (0u16..).map(Slot).zip(&rule.captures) {
        let shown = if capture.name.contains("**") {
            "`**`".to_owned()
        } else {
            format!("`{}`", capture.name)
        };
        if capture.left != capture.right && !consumed.contains(&slot) {
            if !capture.left {
                let mut finding = Diagnostic::error(
                    CAPTURE_UNBOUND,
                    format!("the capture {shown} is only on the right"),
                );
                if let Some(other) = meant(&capture.name, &on_left, &on_right) {
                    finding =
                        finding.hint(format!("did you mean `{other}`, which is only on the left?"));
                }
                return Err(Box::new(
                    finding.at(rule.place.clone(), "nothing on the left binds it").hint(
                        "bind it on the left, or make it with `unstack` or `split(…, over …)`",
                    ),
                ));
            }
            if two_way {
                let mut finding = Diagnostic::error(
                    CAPTURE_UNBOUND,
                    format!("the capture {shown} is only on the left"),
                );
                if let Some(other) = meant(&capture.name, &on_right, &on_left) {
                    finding = finding.hint(format!(
                        "the right has `{other}`, which the left lacks: did you mean {shown} there?"
                    ));
                }
                return Err(Box::new(
                    finding
                        .at(rule.place.clone(), "reading backwards could not know it")
                        .hint("write it on the right too, or consume it with `stack` or `concat(…, over …)`"),
                ));
            }
        }
        if let CaptureKind::Words { left, right } = &capture.kind
            && two_way
        {
            for words in [left, right] {
                if let Some(twice) = words
                    .iter()
                    .enumerate()
                    .find(|(at, word)| words[..*at].contains(word))
                    .map(|(_, word)| word)
                {
                    return Err(Box::new(
                        Diagnostic::error(
                            SAME_IMAGE,
                            format!("two words of {shown} have the partner `{twice}`"),
                        )
                        .at(rule.place.clone(), "reading backwards could not choose"),
                    ));
                }
            }
        }
        // Every source and every target tells instances apart by the same captures.
        if capture.left && capture.right {
            for side in rule.left.iter().chain(&rule.right) {
                if let Some(pattern) = pattern_of(side)
                    && !regex
                    && !pattern.slots().contains(&slot)
                {
                    return Err(Box::new(
                        Diagnostic::error(CAPTURE_UNBOUND, format!("this pattern lacks the capture {shown} that the others have"))
                            .at(side.place.clone(), "one key for several instances")
                            .hint("captures on both sides of the arrow stand in every source and every target"),
                    ));
                }
            }
        }
    }
    Ok(())
}

/// How many parts `split(…, over s)` gives is known only from the capture's range.
fn counted(rule: &Rule, two_way: bool) -> Result<(), Box<Diagnostic>> {
    for used in &rule.joint {
        let over = match &used.op {
            Op::SplitOver { over, .. } => over,
            Op::ConcatOver { over, .. } if two_way => over,
            _ => continue,
        };
        if let Some(capture) = rule.captures.get(usize::from(over.0))
            && !matches!(capture.kind, CaptureKind::Index(Some(_)))
        {
            // Read forward it is a number that is missing; backwards, an inverse.
            let code = if matches!(used.op, Op::SplitOver { .. }) { ARITY } else { NOT_INVERTIBLE };
            return Err(Box::new(
                Diagnostic::error(
                    code,
                    format!("into how many parts to split over `{}` is not known", capture.name),
                )
                .at(
                    used.place.clone(),
                    if code == ARITY { "splits" } else { "read backwards, this splits" },
                )
                .hint(format!("give the capture a range, as in {{{}: 0..4}}", capture.name)),
            ));
        }
    }
    Ok(())
}

/// Follows the tensors of one instance through the joint ops, by number and by the captures that
/// still tell them apart.
fn simulate(
    rule: &Rule,
    from: &[Side],
    to: &[Side],
    ops: Vec<(Op<Expr>, Place)>,
    forward: bool,
) -> Result<(), Box<Diagnostic>> {
    let own = |side: &Side, other_side_has: &dyn Fn(usize) -> bool| -> Vec<Slot> {
        pattern_of(side).map_or_else(Vec::new, |pattern| {
            pattern
                .slots()
                .into_iter()
                .filter(|slot| !other_side_has(usize::from(slot.0)))
                .collect()
        })
    };
    let has = |slot: usize, right: bool| {
        rule.captures
            .get(slot)
            .is_some_and(|capture| if right { capture.right } else { capture.left })
    };
    let consumed: Vec<Slot> = ops
        .iter()
        .filter_map(|(op, _)| match op.arity() {
            Arity::Gather(slot) => Some(slot),
            _ => None,
        })
        .collect();
    // What only this side has and no op gathers is forgotten (a one-way rename may do that).
    let mut items: Vec<Vec<Slot>> = from
        .iter()
        .map(|side| {
            own(side, &|slot| has(slot, forward))
                .into_iter()
                .filter(|slot| consumed.contains(slot))
                .collect()
        })
        .collect();
    let wrong = |place: &Place, message: String, label: &str| {
        Box::new(Diagnostic::error(ARITY, message).at(place.clone(), label))
    };
    let fail = |place: &Place, message: String, label: &str| Err(wrong(place, message, label));
    let name_of = |slot: Slot| {
        rule.captures.get(usize::from(slot.0)).map_or("?", |capture| capture.name.as_str())
    };
    for (op, place) in &ops {
        match op.arity() {
            Arity::Each => {}
            Arity::Join(count) => {
                if count.is_some_and(|count| count != items.len()) || items.len() < 2 {
                    let wanted = count.map_or_else(
                        || "at least two tensors".to_owned(),
                        |count| format!("{count} tensors"),
                    );
                    let mut finding = wrong(
                        place,
                        format!("this op joins {wanted}, and here there {}", are(items.len())),
                        "joins these",
                    );
                    // A capture that only the source has stands for many tensors.
                    let many = pattern_of(&from[0]).and_then(|pattern| {
                        pattern.slots().into_iter().find(|slot| !has(usize::from(slot.0), forward))
                    });
                    if let (Op::Concat { .. }, [_], Some(slot)) = (op, items.as_slice(), many) {
                        finding = Box::new(finding.hint(format!(
                            "to join the tensors of `{0}`, write `concat(…, over {0})`",
                            name_of(slot)
                        )));
                    }
                    return Err(finding);
                }
                if items.windows(2).any(|pair| pair[0] != pair[1]) {
                    return fail(
                        place,
                        "the tensors to join don't have the same captures".to_owned(),
                        "stack them first",
                    );
                }
                items.truncate(1);
            }
            Arity::Part(count) => {
                if items.len() != 1 {
                    return fail(
                        place,
                        format!("this op parts one tensor, and here there {}", are(items.len())),
                        "parts one",
                    );
                }
                let count = count.unwrap_or(to.len());
                if count < 2 {
                    return fail(
                        place,
                        "this op would part a tensor in one".to_owned(),
                        "needs at least two targets",
                    );
                }
                items = vec![items[0].clone(); count];
            }
            Arity::Gather(slot) => {
                for item in &mut items {
                    let before = item.len();
                    item.retain(|own| *own != slot);
                    if item.len() == before {
                        let (name, at) = (name_of(slot), usize::from(slot.0));
                        let both = has(at, true) && has(at, false);
                        let hint = if both {
                            format!(
                                "`{name}` is on both sides of the arrow, so each of its values is a rule of its own: leave it out of one side"
                            )
                        } else {
                            format!(
                                "every tensor that is gathered needs `{name}`, and it is gathered once"
                            )
                        };
                        let message =
                            format!("the capture `{name}` doesn't tell these tensors apart");
                        return Err(Box::new(
                            wrong(place, message, "nothing to gather").hint(hint),
                        ));
                    }
                }
            }
            Arity::Scatter(slot) => {
                if has(usize::from(slot.0), !forward) {
                    let name = name_of(slot);
                    return fail(
                        place,
                        format!("the capture `{name}` is bound by the sources already"),
                        "can't be made anew",
                    );
                }
                for item in &mut items {
                    item.push(slot);
                    item.sort_unstable();
                }
            }
        }
    }
    if items.len() != to.len() {
        let (come, come_out) = (items.len(), if items.len() == 1 { "comes" } else { "come" });
        let made = count(come, "tensor");
        let (each, way) = if forward {
            ("target", "read from left to right")
        } else {
            ("source", "read backwards")
        };
        let finding = wrong(
            &rule.place,
            format!("{made} {come_out} out of this, for {}", count(to.len(), each)),
            way,
        );
        let hint = if come > to.len() {
            "join tensors with `concat` or `stack`"
        } else if come == 1 && ops.is_empty() && forward {
            "part a tensor with `split` or `unstack` (a second name for a whole one is a `tie`)"
        } else {
            "part a tensor with `split` or `unstack`"
        };
        return Err(Box::new(
            finding
                .hint(format!("{hint}: the ops after `via` must give one tensor for each {each}")),
        ));
    }
    for (item, side) in items.iter().zip(to) {
        let wanted: Vec<Slot> = own(side, &|slot| has(slot, !forward));
        if *item != wanted && !matches!(side.item, SideItem::Made(_)) {
            return fail(
                &side.place,
                "the captures of this pattern are not those that the ops give".to_owned(),
                "here",
            );
        }
    }
    Ok(())
}

fn are(number: usize) -> String {
    if number == 1 { "is one".to_owned() } else { format!("are {number}") }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
