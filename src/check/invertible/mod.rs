//! What makes a rule whole, and a `<->` invertible: captures bound where they are needed, ops that
//! join and part the right number of tensors in each direction, and an inverse for each of them.

mod captures;
mod follow;

use super::op::OpKind;
use super::rules::{CaptureKind, Rule};
use crate::diagnostic::codes::{ARITY, NOT_INVERTIBLE};
use crate::diagnostic::{Diagnostic, Fix, Place, Span};
use crate::syntax::ast::{Arrow, Rule as RuleText};
use crate::syntax::op::NoInverse;
use follow::Follow;

/// Checks one rule.
///
/// # Errors
/// The first thing that is wrong with it.
pub(super) fn rule(rule: &Rule, text: &RuleText) -> Result<(), Box<Diagnostic>> {
    let two_way = text.arrow == Arrow::TwoWay;
    captures::check(rule, two_way)?;
    counted(rule, two_way)?;
    let (left, right) = (&rule.left[..], &rule.right[..]);
    let ops: Vec<_> = rule.joint.iter().map(|used| (used.op.clone(), used.place.clone())).collect();
    Follow { rule, from: left, to: right, forward: true }.through(&ops)?;
    if !two_way {
        return Ok(());
    }
    let mut backwards = Vec::new();
    for used in rule.joint.iter().rev() {
        backwards.push((
            used.op.inverse().map_err(|why| no_inverse(rule, &used.place, why))?,
            used.place.clone(),
        ));
    }
    for used in rule.left.iter().chain(&rule.right).flat_map(|side| &side.ops) {
        used.op.inverse().map_err(|why| no_inverse(rule, &used.place, why))?;
    }
    if let Some(optional) = rule.left.iter().chain(&rule.right).find(|side| side.optional) {
        let mut finding =
            Diagnostic::error(NOT_INVERTIBLE, "reading backwards could not know whether a tensor that may be missing was there")
                .at(optional.place.clone(), "optional, in a `<->` rule")
                .hint("write `->`; `optional` at the end of a rule says that the whole rule may match nothing, which `<->` allows");
        finding.fixes.extend(one_way(rule));
        return Err(Box::new(finding));
    }
    Follow { rule, from: right, to: left, forward: false }.through(&backwards)
}

fn no_inverse(rule: &Rule, place: &Place, why: NoInverse) -> Box<Diagnostic> {
    let mut finding = Diagnostic::error(NOT_INVERTIBLE, why.reason())
        .at(place.clone(), "has no inverse as it is written, in a `<->` rule")
        .hint("write `->` if the rule is meant to go one way");
    finding.fixes.extend(one_way(rule));
    Box::new(finding)
}

/// The change that makes a rule go one way: none if its arrow can't be found.
pub(super) fn one_way(rule: &Rule) -> Option<Fix> {
    let (left, right) = (rule.left.last()?.place.span, rule.right.first()?.place.span);
    let between = rule.place.source.text.get(left.end as usize..right.start as usize)?;
    let at = left.end.checked_add(u32::try_from(between.find("<->")?).ok()?)?;
    let place = Place::new(rule.place.source.clone(), Span { start: at, end: at + 3 });
    Some(Fix { place, text: "->".to_owned() })
}

/// How many tensors `split(…, over s)` and `copy(over s)` give is known only from the capture's
/// range.
fn counted(rule: &Rule, two_way: bool) -> Result<(), Box<Diagnostic>> {
    for used in &rule.joint {
        // Read forward it is a number that is missing; backwards, an inverse.
        let (code, verb, label) = match used.op.kind {
            OpKind::SplitOver => (ARITY, "split", "splits"),
            OpKind::CopyOver => (ARITY, "copy", "copies"),
            OpKind::ConcatOver if two_way => {
                (NOT_INVERTIBLE, "split", "read backwards, this splits")
            }
            OpKind::SameOver if two_way => (NOT_INVERTIBLE, "copy", "read backwards, this copies"),
            _ => continue,
        };
        let capture = used.op.capture().and_then(|over| rule.captures.get(usize::from(over.0)));
        if let Some(capture) = capture
            && !matches!(capture.kind, CaptureKind::Index(Some(_)) | CaptureKind::Words { .. })
        {
            return Err(Box::new(
                Diagnostic::error(
                    code,
                    match verb {
                        "split" => {
                            format!(
                                "into how many parts to split over `{}` is not known",
                                capture.name
                            )
                        }
                        _ => format!(
                            "how many copies there are over `{}` is not known",
                            capture.name
                        ),
                    },
                )
                .at(used.place.clone(), label)
                .hint(format!("give the capture a range, as in {{{}: 0..4}}", capture.name)),
            ));
        }
    }
    Ok(())
}
