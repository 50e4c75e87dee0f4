//! Proofs about rules, by automata over their patterns, each with a witness key: rules that can
//! never fire, rules that give one key, a `<->` that isn't one-to-one, and whether applying the
//! rules to their own output changes anything.
//!
//! Promises are about state dicts in the source layout: a key that looks like a rule's right side
//! already is not held against it. What ranges from a config and `when` decide is known only on a
//! checkpoint; what hangs on that is left to the plan. Of `where`s it is asked only whether two of
//! them exclude each other.

mod alphabet;
mod automaton;
mod conditions;
mod effort;
mod group;
mod idempotence;
mod nearby;
#[cfg(test)]
mod tests;
mod trace;

pub(super) use effort::Effort;
pub use idempotence::{Idempotence, Twice, idempotence, repeats_backwards};

use alphabet::Alphabet;
use automaton::{Automaton, Found, may_overlap, overlaps, search};
use conditions::{exclude, holding};
use group::Group;
use nearby::Nearby;
use trace::{backward, forward};

use super::invertible::one_way;
use super::keys::Keys;
use super::rules::Rule;
use super::rules::Side;
use crate::diagnostic::codes::{DEAD_RULE, LIMIT, NOT_ONE_TO_ONE, SAME_IMAGE};
use crate::diagnostic::{Diagnostic, Place};
use crate::key::{Atom, Part, Pattern};
use crate::syntax::ast::Arrow;

/// Witnesses that are looked at before a question is left open.
const WITNESSES: usize = 48;

/// What is said once, where the effort of the proofs is spent.
pub(super) fn undecided(place: Place) -> Diagnostic {
    Diagnostic::note(
        LIMIT,
        "there is too much to compare: from here on it is undecided whether rules can fire, and whether `<->` can be read back",
    )
    .at(place, "the rules that meet are too many, or too long")
    .hint(
        "a plan still refuses keys that become one, and those that don't read back. Names at the start or end of patterns tell them apart",
    )
}

/// What is wrong with the rules of one statement, as far as the effort goes: once it's spent,
/// nothing more is found.
pub(super) fn group(rules: &[Rule], effort: &Effort) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let group = Group::new(rules, effort);
    let mut nearby = Nearby::default();
    for (at, rule) in rules.iter().enumerate() {
        if effort.is_spent() {
            break;
        }
        findings.extend(dead(&group, at));
        if rule.arrow == Arrow::TwoWay {
            findings.extend(not_one_to_one(&group, at));
            let mut others: Vec<usize> = rule
                .right
                .iter()
                .filter_map(Side::pattern)
                .flat_map(|target| nearby.of(target, effort))
                .collect();
            others.sort_unstable();
            others.dedup();
            for other in others {
                findings.extend(same_image(&group, other, at));
            }
            rule.right.iter().filter_map(Side::pattern).for_each(|target| nearby.add(target, at));
        }
    }
    findings
}

/// A rule one of whose sources only has keys that earlier rules take.
fn dead(group: &Group<'_>, at: usize) -> Option<Diagnostic> {
    let (rules, effort) = (group.rules, group.effort);
    let rule = &rules[at];
    // Nearly every rule is seen to live by one look.
    if rule.left.iter().filter_map(Side::pattern).all(|source| group.leaves(at, source))
        || !effort.spend(at)
    {
        return None;
    }
    let earlier: Vec<(&Rule, &Pattern)> = rules[..at]
        .iter()
        // What a condition or a range leaves to later rules isn't known here.
        .filter(|rule| rule.condition.is_none() && !rule.hangs_on_numbers())
        .flat_map(|rule| {
            rule.left.iter().filter_map(move |side| Some((rule, Side::pattern(side)?)))
        })
        .collect();
    if earlier.is_empty() {
        return None;
    }
    for source in rule.left.iter().filter_map(Side::pattern) {
        // An exception with a range leaves keys to the rule that fit it otherwise.
        let excepted =
            rule.unless_left.iter().filter(|keys| !keys.has_range()).map(Keys::without_ranges);
        let own: Vec<&Pattern> = std::iter::once(source).chain(excepted).collect();
        let mut patterns = own.clone();
        let mut guards = Vec::new();
        for (earlier, pattern) in &earlier {
            let start = patterns.len();
            patterns.push(pattern);
            patterns.extend(earlier.unless_left.iter().map(Keys::without_ranges));
            guards.push(start..patterns.len());
        }
        let uncertain = earlier.iter().any(|(rule, _)| !rule.unless_right.is_empty());
        let alphabet = Alphabet::new(&patterns, effort);
        if !alphabet.complete || uncertain {
            continue;
        }
        let automata: Option<Vec<Automaton<'_>>> =
            patterns.iter().map(|pattern| Automaton::new(pattern, &alphabet, effort)).collect();
        let automata = automata?;
        let reads = |accepted: &[bool]| accepted[0] && !accepted[1..own.len()].contains(&true);
        let takes = |accepted: &[bool], guard: &std::ops::Range<usize>| {
            accepted[guard.start] && !accepted[guard.start + 1..guard.end].contains(&true)
        };
        let live = search(&automata, &alphabet, effort, |accepted| {
            reads(accepted) && !guards.iter().any(|guard| takes(accepted, guard))
        });
        if live != Found::Nothing {
            continue;
        }
        let Found::Key(key) = search(&automata, &alphabet, effort, |accepted| reads(accepted))
        else {
            continue;
        };
        let (taker, _) = group.taker_before(at, &key)?;
        let taker = &rules[taker];
        return Some(
            Diagnostic::warning(DEAD_RULE, "this rule can never fire: earlier ones take all its keys")
                .at(rule.place.clone(), "never reached")
                .label(taker.place.clone(), format!("takes `{key}`"))
                .keys([key])
                .hint("the first rule of a group that matches a key wins: move this one up, or leave it out"),
        );
    }
    None
}

/// Two rules that give one key to two keys.
fn same_image(group: &Group<'_>, first: usize, second: usize) -> Option<Diagnostic> {
    let (rules, effort) = (group.rules, group.effort);
    let (a, b) = (&rules[first], &rules[second]);
    // Ranges come from a config as a rule; whether they overlap is for the plan to see.
    if a.arrow != Arrow::TwoWay || [a, b].iter().any(|rule| rule.hangs_on_numbers()) {
        return None;
    }
    for left in a.right.iter().filter_map(Side::pattern) {
        for right in b.right.iter().filter_map(Side::pattern) {
            if !may_overlap(left.parts(), right.parts(), effort) || exclude((a, left), (b, right)) {
                continue;
            }
            let alphabet = Alphabet::new(&[left, right], effort);
            let automata = [
                Automaton::new(left, &alphabet, effort)?,
                Automaton::new(right, &alphabet, effort)?,
            ];
            let mut candidates = overlaps(left, right, false, &alphabet, effort, WITNESSES);
            if let Found::Key(key) =
                search(&automata, &alphabet, effort, |accepted| accepted[0] && accepted[1])
            {
                candidates.insert(0, key);
            }
            // A condition is asked for many values of its index.
            let asked = if a.condition.is_some() || b.condition.is_some() { 4096 } else { 0 };
            let cost = asked + group.weight(first) + group.weight(second);
            for key in candidates
                .iter()
                .take_while(|_| effort.spend(cost))
                .flat_map(|key| holding((a, left), (b, right), key))
            {
                let (Some(x), Some(y)) = (backward(a, &key), backward(b, &key)) else { continue };
                let taken =
                    |key: &str, by: usize| group.taker(key).is_some_and(|(rule, _)| rule == by);
                let looks_right = |key: &str| group.looks_like_result(key);
                let is_source = |source: &str, rule: usize| {
                    taken(source, rule)
                        && forward(&rules[rule], source).as_deref() == Some(key.as_str())
                };
                let plain = group.plain_place(a, &x) && group.plain_place(b, &y);
                if x == y
                    || !plain
                    || looks_right(&x)
                    || looks_right(&y)
                    || !is_source(&x, first)
                    || !is_source(&y, second)
                {
                    continue;
                }
                let mut finding =
                    Diagnostic::error(SAME_IMAGE, format!("two rules give one key: `{x}` and `{y}` both become `{key}`"))
                        .at(b.place.clone(), format!("`{y}`"))
                        .label(a.place.clone(), format!("`{x}`"))
                        .keys([key])
                        .hint("reading backwards could not choose: write `->` for one of them, or exclude keys with `unless` or `where`");
                finding.fixes.extend([b, a].into_iter().filter_map(one_way));
                return Some(finding);
            }
        }
    }
    None
}

/// A `<->` rule that, read backwards, gives another key than it came from. Where no such key is
/// found, and none is ruled out, the plan looks at each key that it renames.
fn not_one_to_one(group: &Group<'_>, at: usize) -> Option<Diagnostic> {
    let rule = &group.rules[at];
    // What is calculated from a config's numbers is for the plan to see.
    if !may_be_ambiguous(rule) || !rule.numbers.is_empty() {
        return None;
    }
    let (left, right) = (Side::pattern(rule.left.first()?)?, Side::pattern(rule.right.first()?)?);
    for key in stretched(left, right) {
        if !group.effort.spend(2 * group.weight(at)) {
            break;
        }
        let Some(image) = forward(rule, &key) else { continue };
        let back = backward(rule, &image);
        let in_layout = group.plain_place(rule, &key)
            && !trace::looks_like_result(rule, &key)
            && group.taker(&key).is_some_and(|(taker, _)| taker == at);
        if back.as_ref() == Some(&key) || !in_layout {
            continue;
        }
        let reads = back.map_or_else(
            || "doesn't read back at all".to_owned(),
            |back| format!("reads back as `{back}`"),
        );
        let mut finding = Diagnostic::error(
            NOT_ONE_TO_ONE,
            format!("not one-to-one: `{key}` becomes `{image}`, which {reads}"),
        )
        .at(rule.place.clone(), "can't be inverted for every key")
        .keys([key])
        .hint("name more of the key, so that where a capture ends is clear, or write `->`");
        finding.fixes.extend(one_way(rule));
        return Some(finding);
    }
    None
}

/// Whether a two-way rename may read back as another key: one of its patterns can match a key in
/// more than one way.
pub(super) fn may_be_ambiguous(rule: &Rule) -> bool {
    rule.arrow == Arrow::TwoWay
        && rule.is_rename()
        && rule.left.iter().chain(&rule.right).filter_map(Side::pattern).any(ambiguous)
}

/// Whether a key may match a pattern in two ways that matter: its fixed middle can overlap itself,
/// or a segment has captures whose ends can't be told.
fn ambiguous(pattern: &Pattern) -> bool {
    let rests = pattern.parts().iter().filter(|part| matches!(part, Part::Rest(_))).count();
    let fixed = pattern.parts().len() - rests;
    let segments = pattern.parts().iter().any(|part| match part {
        Part::Segment(atoms) => {
            let free = atoms.iter().filter(|atom| matches!(atom, Atom::Chars(_))).count();
            let touching = atoms.windows(2).any(|pair| pair.iter().all(Atom::is_capture));
            free > 1 || touching
        }
        _ => false,
    });
    let wide =
        pattern.parts().iter().any(|part| part.is_wide() && matches!(part, Part::Segment(_)));
    segments || (rests > 1 && fixed > 1) || wide
}

/// Keys of one pattern in which each capture holds text that looks like what stands around it on
/// the other side.
fn stretched(pattern: &Pattern, other: &Pattern) -> Vec<String> {
    let mut fillers: Vec<String> = ["x", "0", "x0"].map(str::to_owned).to_vec();
    let mut segments: Vec<String> = vec![String::new(), "x".into()];
    for part in other.parts() {
        match part {
            Part::Literal(text) => segments.push(text.to_string()),
            Part::Segment(atoms) => fillers.extend(atoms.iter().filter_map(|atom| match atom {
                Atom::Text(text) => Some(format!("x{text}y")),
                _ => None,
            })),
            Part::Rest(_) => {}
        }
    }
    fillers.truncate(10);
    segments.truncate(8);
    let mut keys = vec![String::new()];
    for part in pattern.parts() {
        let choices: Vec<String> = match part {
            Part::Literal(text) => vec![text.to_string()],
            Part::Rest(_) => segments.clone(),
            Part::Segment(atoms) => atoms.iter().fold(vec![String::new()], |found, atom| {
                let texts: Vec<String> = match atom {
                    Atom::Text(text) => vec![text.to_string()],
                    Atom::Index { .. } | Atom::Calculated { .. } => vec!["1".into(), "12".into()],
                    Atom::Chars(_) => fillers.clone(),
                    Atom::Words { words, .. } => {
                        words.iter().map(|word| word.to_string()).collect()
                    }
                };
                found
                    .iter()
                    .flat_map(|start| texts.iter().map(move |text| format!("{start}{text}")))
                    .take(512)
                    .collect()
            }),
        };
        let join = |start: &str, choice: &str| {
            let dot = if start.is_empty() || choice.is_empty() { "" } else { "." };
            format!("{start}{dot}{choice}")
        };
        keys = keys
            .iter()
            .flat_map(|start| choices.iter().map(move |choice| join(start, choice)))
            .take(4096)
            .collect();
    }
    keys
}
