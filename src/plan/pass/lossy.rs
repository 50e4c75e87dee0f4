//! Steps that can't be read backwards: what each of them leaves behind in *these* keys, and whether
//! that is refused.
//!
//! A step matters if keys would keep a name, or tensors a form, that only it gives; or if what it
//! took away doesn't come back. One that finds nothing to undo says nothing. What matters is an
//! error, unless the rule says `optional` (the layout it starts from may lack it) or the caller
//! allows it; then it is a note. With the record of the conversion that made the checkpoint there
//! is no guessing: what that doesn't name was so before.

use regex::Regex;

use crate::check::takes::{Named, any_matches};
use crate::check::value::Scope;
use crate::check::{Direction, Keys, Rule, Selection, SideItem, Step};
use crate::diagnostic::codes::{LOSSY_REVERSE, NOT_REVERSED, RESTORED};
use crate::diagnostic::{Diagnostic, Place};
use crate::key::{Bindings, Key, Part, Pattern, Segments};
use crate::plan::bind::{Looked, bind};
use crate::plan::context::{Context, with_environment};
use crate::plan::draft::{Draft, Written};
use crate::plan::{Lost, RecordedRules, Stage, counted};
use crate::tensor::Dtype;

/// A step that was left out while reading backwards.
#[derive(Clone, Debug)]
pub(in crate::plan) struct LeftOut {
    place: Place,
    /// `optional`: the rules say that it may be left out.
    fine: bool,
    what: What,
}

/// What a step leaves behind.
#[derive(Clone, Debug)]
enum What {
    /// These keys (and the keys they were in the checkpoint) are its results and would stay so.
    Results { one_way: &'static str, keys: Vec<(Key, Key)> },
    /// It took these away, as the record says; or, without one, nobody knows which.
    Gone { keys: Option<Vec<Key>> },
    /// These were rounded to this dtype, or may have been.
    Rounded { keys: Vec<Key>, dtype: Dtype },
    /// These may have had a narrower dtype; their values are as they were.
    Widened { dtype: Dtype },
}

/// Whether the record is that of the conversion which this stage turns back: then what it
/// doesn't name didn't happen.
pub(in crate::plan) fn is_recorded(context: &Context<'_>, stage: &Stage<'_>) -> bool {
    let Some(record) = context.options.record else { return false };
    let undone = RecordedRules::of(&Stage { direction: stage.direction.opposite(), ..*stage });
    record.rules.contains(&undone)
}

/// Whether the record says that these rules were read this way, and gave the checkpoint.
pub(in crate::plan) fn is_repeated(context: &Context<'_>, stage: &Stage<'_>) -> bool {
    context.options.record.is_some_and(|record| record.rules.contains(&RecordedRules::of(stage)))
}

/// A one-way rule of a group that is read backwards.
pub(super) fn leave_one_way(context: &Context<'_>, draft: &mut Draft, rule: &Rule, scope: &Scope) {
    let restored = restore(context, draft, rule.into());
    if restored {
        // So these rules are for this checkpoint, if no other fits a key.
        draft.evidence.matched += 1;
    }
    if restored || context.recorded {
        return;
    }
    let keys = results_of(context, draft, rule, scope);
    if !keys.is_empty() {
        let one_way = if rule.is_rename() { "rename" } else { "map" };
        draft.evidence.left_out.push(LeftOut {
            place: rule.place.clone(),
            fine: rule.optional,
            what: What::Results { one_way, keys },
        });
    }
}

/// The keys that a one-way rule may have given.
fn results_of(context: &Context<'_>, draft: &Draft, rule: &Rule, scope: &Scope) -> Vec<(Key, Key)> {
    let by_regex = rule.left.iter().any(|side| matches!(side.item, SideItem::Regex(_)));
    // Maps may have ops without an inverse: that a key fits a target is all that can be asked
    // of them.
    let inverse = with_environment(context, draft, |environment| {
        (rule.is_rename() && !by_regex)
            .then(|| bind(rule, scope, environment, Direction::Reverse).ok())
            .flatten()
    });
    let images: Vec<(&Pattern, Option<Regex>)> = rule
        .right
        .iter()
        .filter_map(|side| match &side.item {
            SideItem::Pattern(pattern) => {
                Some((pattern, by_regex.then(|| loose(pattern)).flatten()))
            }
            _ => None,
        })
        .collect();
    let (mut segments, mut found) = (Segments::default(), Vec::new());
    with_environment(context, draft, |environment| {
        // What can't be worked out excepts nothing, so that more may be lost rather than less.
        let unless = Keys::bind_all(&rule.unless_right, scope, environment).unwrap_or_default();
        for (_, entry) in draft.state.iter() {
            segments.split(&entry.key);
            let looked = Looked {
                key: &entry.key,
                segments: &segments,
                shape: &draft.graph.info(entry.node).shape,
            };
            let mut bindings = Bindings::new(rule.captures.len());
            let fits = match &inverse {
                // A condition may speak of captures that only the left side binds: then it may
                // have held.
                Some(inverse) => {
                    inverse.matches(0, &looked, &mut bindings, scope, environment).unwrap_or(true)
                        && !inverse.names.targets.iter().filter_map(Named::pattern).any(|source| {
                            source.render(&entry.key, &bindings).as_deref() == Some(&*entry.key)
                        })
                }
                None => {
                    !any_matches(&unless, &entry.key, &segments)
                        && images.iter().any(|(pattern, loose)| match loose {
                            Some(loose) => loose.is_match(&entry.key),
                            None => pattern.matches(
                                &entry.key,
                                &segments,
                                &mut Bindings::new(rule.captures.len()),
                            ),
                        })
                }
            };
            if fits {
                found.push((entry.key.clone(), entry.origin.clone()));
            }
        }
    });
    found
}

/// A `drop` or `keep` that is read backwards.
pub(super) fn leave_selection(
    context: &Context<'_>,
    draft: &mut Draft,
    step: &Step,
    keys: &Selection,
) {
    let keys_lost = context.recorded.then(|| lost_by(context, step));
    if keys_lost.as_ref().is_none_or(|keys| !keys.is_empty()) {
        let what = What::Gone { keys: keys_lost };
        draft.evidence.left_out.push(LeftOut {
            place: step.place.clone(),
            fine: keys.optional,
            what,
        });
    }
}

/// A `cast` that is read backwards; `places` are the entries that it would take.
pub(super) fn leave_cast(
    context: &Context<'_>,
    draft: &mut Draft,
    step: &Step,
    keys: &Selection,
    dtype: Dtype,
    lossy: bool,
    places: &[usize],
) {
    let has_dtype = |at: &&usize| {
        draft.state.at(**at).is_some_and(|entry| draft.graph.info(entry.node).dtype == dtype)
    };
    let here = || {
        places
            .iter()
            .filter(has_dtype)
            .filter_map(|at| draft.state.at(*at))
            .map(|entry| entry.key.clone())
    };
    let what = match (lossy, context.recorded) {
        (true, true) => What::Rounded { keys: lost_by(context, step), dtype },
        (true, false) => What::Rounded { keys: here().collect(), dtype },
        (false, _) => What::Widened { dtype },
    };
    let nothing = match &what {
        What::Rounded { keys, .. } => keys.is_empty(),
        _ => here().next().is_none(),
    };
    if !nothing {
        draft.evidence.left_out.push(LeftOut {
            place: step.place.clone(),
            fine: keys.optional,
            what,
        });
    }
}

fn lost_by(context: &Context<'_>, step: &Step) -> Vec<Key> {
    let lost = context.options.record.map(|record| record.lost.as_slice()).unwrap_or_default();
    lost.iter()
        .filter(|lost| lost.is_by(&step.place, &step.text))
        .map(|lost| lost.key.clone())
        .collect()
}

/// The end of a stage: says what was left out, and refuses it where that matters and nobody
/// said that it is fine.
pub(in crate::plan) fn report_left_out(
    context: &Context<'_>,
    draft: &mut Draft,
    left_out: Vec<LeftOut>,
) {
    let mut refused = None;
    for LeftOut { place, fine, what } in left_out {
        let lossless = matches!(what, What::Widened { .. });
        let (message, label, keys): (String, &str, Vec<Key>) = match what {
            What::Results { one_way, keys } => {
                // What another statement turned back meanwhile has a name of the other layout.
                let stays = |(key, origin): &(Key, Key)| {
                    draft.state.get(key).is_some_and(|entry| entry.origin == *origin)
                };
                let keys: Vec<Key> = keys.into_iter().filter(stays).map(|(key, _)| key).collect();
                if keys.is_empty() {
                    continue;
                }
                let stay = if keys.len() == 1 { "stays as it is" } else { "stay as they are" };
                let count = counted(keys.len(), "key");
                (
                    format!(
                        "a one-way {one_way} can't be read backwards: {count} that it may have given {stay}"
                    ),
                    "one way",
                    keys,
                )
            }
            What::Gone { keys: None } => (
                "what this statement took away can't be brought back".to_owned(),
                "reading backwards leaves it out",
                Vec::new(),
            ),
            What::Gone { keys: Some(keys) } => (
                format!(
                    "this statement took away {}, which can't be brought back",
                    counted(keys.len(), "key")
                ),
                "as the record says",
                keys,
            ),
            What::Rounded { keys, dtype } => (
                format!(
                    "rounding to {dtype} can't be undone: {} may have held more",
                    counted(keys.len(), "tensor")
                ),
                "lossy",
                keys,
            ),
            What::Widened { dtype } => (
                format!(
                    "a cast to {dtype} isn't undone when reading backwards: which dtypes were there isn't known"
                ),
                "one way",
                Vec::new(),
            ),
        };
        let keys = keys.into_iter().map(String::from);
        let allowed = fine || lossless || context.options.allow_lossy;
        let finding = if allowed {
            Diagnostic::note(NOT_REVERSED, message)
        } else {
            Diagnostic::error(LOSSY_REVERSE, message)
        };
        if !allowed {
            refused = Some(draft.findings.len());
        }
        draft.findings.push(finding.at(place, label).keys(keys));
    }
    if let Some(last) = refused.and_then(|at| draft.findings.get_mut(at)) {
        last.hints.push("--allow-lossy leaves such steps out, and names them".to_owned());
        last.hints.push(
                "if that is always fine, write `optional` at the step's end; a record (`apply --record`) tells what was there".to_owned());
    }
}

impl Draft {
    /// Remembers keys that a statement takes away or rounds, for the record.
    pub(super) fn lose(&mut self, step: &Step, keys: &[String]) {
        let lost = |key: &String| Lost {
            file: step.place.source.name.clone(),
            rule: step.text.clone(),
            key: Key::from(key.as_str()),
        };
        self.lost.extend(keys.iter().map(lost));
    }
}

/// What a rule whose source is a regex may have made: its groups can hold dots.
fn loose(target: &Pattern) -> Option<Regex> {
    use crate::key::Atom;
    let mut text = String::from("^");
    for (at, part) in target.parts().iter().enumerate() {
        if at > 0 {
            text.push_str(r"\.");
        }
        match part {
            Part::Literal(literal) => text.push_str(&regex::escape(literal)),
            Part::Rest(_) => text.push_str(".*"),
            Part::Segment(atoms) => {
                for atom in atoms {
                    match atom {
                        Atom::Text(literal) => text.push_str(&regex::escape(literal)),
                        _ => text.push_str(".*"),
                    }
                }
            }
        }
    }
    text.push('$');
    Regex::new(&text).ok()
}

/// Turns back, reading backwards, what a statement did that only the record knows. Says whether
/// there was anything.
pub(in crate::plan) fn restore(
    context: &Context<'_>,
    draft: &mut Draft,
    written: Written<'_>,
) -> bool {
    let Some(record) = context.options.record else { return false };
    let rule = draft.rule_id(written);
    let Written { place, text, .. } = written;
    let mut restored = Vec::new();
    for renamed in record.renamed.iter().filter(|renamed| renamed.is_by(place, text)) {
        if let Some(mut entry) = draft.state.remove(&renamed.to) {
            entry.key = renamed.from.clone();
            entry.rules.push(rule);
            restored.push(entry);
        }
    }
    if restored.is_empty() {
        return false;
    }
    draft.count(rule, restored.len() as u64);
    let finding = Diagnostic::note(
        RESTORED,
        format!("turned back {}, as the record says", counted(restored.len(), "key")),
    );
    draft.findings.push(
        finding
            .at(place.clone(), "one way by itself")
            .keys(restored.iter().map(|entry| entry.key.as_str())),
    );
    for entry in restored {
        draft.put(entry);
    }
    true
}
