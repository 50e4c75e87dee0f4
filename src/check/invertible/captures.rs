//! Captures of a rule: bound where they are needed, and telling instances apart in each source and
//! each target.

use super::super::op::Arity;
use super::super::rules::{Capture, CaptureKind, Rule, Side, SideItem};
use crate::diagnostic::codes::{CAPTURE_UNBOUND, SAME_IMAGE};
use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::key::Slot;

type Checked = Result<(), Box<Diagnostic>>;

pub(super) fn check(rule: &Rule, two_way: bool) -> Checked {
    let alone = Alone::of(rule);
    for (slot, capture) in numbered(rule) {
        alone.allows(capture, slot, two_way)?;
        if two_way {
            words_differ(rule, capture)?;
        }
        stands_everywhere(rule, capture, slot)?;
    }
    Ok(())
}

fn numbered(rule: &Rule) -> impl Iterator<Item = (Slot, &Capture)> {
    (0u16..).map(Slot).zip(&rule.captures)
}

fn shown(capture: &Capture) -> String {
    let name = if capture.name.contains("**") { "**" } else { &capture.name };
    format!("`{name}`")
}

/// Captures that one side has alone and no op consumes or makes. Where both sides have such a one,
/// a name was mistyped.
struct Alone<'r> {
    rule: &'r Rule,
    /// What ops consume or make.
    consumed: Vec<Slot>,
    left: Vec<&'r str>,
    right: Vec<&'r str>,
}

impl<'r> Alone<'r> {
    fn of(rule: &'r Rule) -> Self {
        let consumed: Vec<Slot> = rule
            .joint
            .iter()
            .filter_map(|used| match used.op.arity() {
                Arity::Gather(slot) | Arity::Scatter(slot) => Some(slot),
                _ => None,
            })
            .collect();
        let on = |left: bool| {
            let own = numbered(rule).filter(|(slot, capture)| {
                capture.left == left
                    && capture.right != left
                    && !consumed.contains(slot)
                    && !capture.name.contains("**")
            });
            own.map(|(_, capture)| capture.name.as_str()).collect()
        };
        let (left, right) = (on(true), on(false));
        Self { rule, consumed, left, right }
    }

    /// Whether a capture may stand where it does.
    fn allows(&self, capture: &Capture, slot: Slot, two_way: bool) -> Checked {
        if capture.left == capture.right || self.consumed.contains(&slot) {
            return Ok(());
        }
        let shown = shown(capture);
        if !capture.left {
            let mut finding = Diagnostic::error(
                CAPTURE_UNBOUND,
                format!("the capture {shown} is only on the right"),
            );
            if let Some(other) = meant(&capture.name, &self.left, &self.right) {
                finding =
                    finding.hint(format!("did you mean `{other}`, which is only on the left?"));
            }
            return Err(Box::new(
                finding
                    .at(self.rule.place.clone(), "nothing on the left binds it")
                    .hint("bind it on the left, or make it with `unstack` or `split(…, over …)`"),
            ));
        }
        if !two_way {
            return Ok(());
        }
        let mut finding =
            Diagnostic::error(CAPTURE_UNBOUND, format!("the capture {shown} is only on the left"));
        if let Some(other) = meant(&capture.name, &self.right, &self.left) {
            finding = finding.hint(format!(
                "the right has `{other}`, which the left lacks: did you mean {shown} there?"
            ));
        }
        Err(Box::new(
            finding.at(self.rule.place.clone(), "reading backwards could not know it").hint(
                "write it on the right too, or consume it with `stack` or `concat(…, over …)`",
            ),
        ))
    }
}

/// The capture of another side that a name was to be: a close one, or the only one there is.
fn meant(name: &str, others: &[&str], own: &[&str]) -> Option<String> {
    let close = did_you_mean(name, others.iter().copied());
    close.map(str::to_owned).or_else(|| {
        Some((*others.first()?).to_owned()).filter(|_| others.len() == 1 && own.len() == 1)
    })
}

/// Two words of one side that become the same word can't be told apart backwards.
fn words_differ(rule: &Rule, capture: &Capture) -> Checked {
    let CaptureKind::Words { left, right } = &capture.kind else { return Ok(()) };
    for words in [left, right] {
        let twice = words.iter().enumerate().find(|(at, word)| words[..*at].contains(word));
        if let Some((_, twice)) = twice {
            let message = format!("two words of {} have the partner `{twice}`", shown(capture));
            return Err(Box::new(
                Diagnostic::error(SAME_IMAGE, message)
                    .at(rule.place.clone(), "reading backwards could not choose"),
            ));
        }
    }
    Ok(())
}

/// Every source and every target tells instances apart by the same captures.
fn stands_everywhere(rule: &Rule, capture: &Capture, slot: Slot) -> Checked {
    let regex = rule.left.iter().any(|side| matches!(side.item, SideItem::Regex(_)));
    if regex || !capture.left || !capture.right {
        return Ok(());
    }
    for side in rule.left.iter().chain(&rule.right) {
        if Side::pattern(side).is_some_and(|pattern| !pattern.slots().contains(&slot)) {
            let message =
                format!("this pattern lacks the capture {} that the others have", shown(capture));
            return Err(Box::new(
                Diagnostic::error(CAPTURE_UNBOUND, message)
                    .at(side.place.clone(), "one key for several instances")
                    .hint("captures on both sides of the arrow stand in every source and every target"),
            ));
        }
    }
    Ok(())
}
