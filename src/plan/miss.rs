//! Nearest misses: for a rule that fits no key, the key on which it got furthest, and the segment
//! that stopped it.

use std::cmp::Reverse;

use super::Stage;
use super::draft::Draft;
use crate::check::reading::{ReadRule, Reading};
use crate::check::{Identity, SideItem};
use crate::key::{Part, Reach, Segments};

/// Keys that are searched for the nearest miss of a rule.
const SEARCHED: usize = 2000;

/// Bytes of a segment that is compared with what a rule wants there: names that people misspell are
/// short.
const COMPARED: usize = 64;

/// For each rule of a stage, the key on which its sources got furthest, and where that stopped;
/// the best first.
pub(super) fn nearest_misses(draft: &Draft, stage: &Stage<'_>) -> Vec<String> {
    let rules = Reading::of(stage.rules, stage.direction).rules();
    let mut misses: Vec<(Reach, String)> =
        rules.into_iter().filter_map(|rule| nearest_miss(draft, rule)).collect();
    misses.sort_by_key(|(reach, _)| Reverse(*reach));
    misses.into_iter().map(|(_, miss)| miss).collect()
}

/// The nearest miss of a rule of a stage, if a part of a key fits it at all.
pub(super) fn miss_of(draft: &Draft, rule: Identity, stage: &Stage<'_>) -> Option<(Reach, String)> {
    let rules = Reading::of(stage.rules, stage.direction).rules();
    let rule = rules.into_iter().find(|read| read.rule.id == rule)?;
    nearest_miss(draft, rule).filter(|(reach, _)| reach.parts > usize::from(starts_open(rule)))
}

/// The key on which the sources of a rule got furthest, and where that stopped.
fn nearest_miss(draft: &Draft, read: ReadRule<'_>) -> Option<(Reach, String)> {
    let (rule, mut segments) = (read.rule, Segments::default());
    let patterns = read.sources().iter().filter_map(|side| match &side.item {
        SideItem::Pattern(pattern) => Some(pattern),
        _ => None,
    });
    let misses = patterns.filter_map(|pattern| {
        let reached = draft.state.iter().take(SEARCHED).map(|(_, entry)| {
            segments.split(&entry.key);
            let reach = pattern.reach(&entry.key, &segments, rule.captures.len());
            // Of keys that got equally far, the one whose next segment is most like what is
            // wanted: `layers` for `layrs`, not `norm`.
            let there =
                (reach.segment < segments.len()).then(|| segments.get(&entry.key, reach.segment));
            let unlike = match (pattern.parts().get(reach.parts), there) {
                (Some(Part::Literal(wanted)), Some(there)) if there.len() <= COMPARED => {
                    strsim::osa_distance(wanted, there)
                }
                _ => usize::MAX,
            };
            ((reach, Reverse(unlike)), &entry.key)
        });
        let ((reach, _), key) = reached.max_by_key(|(nearness, _)| *nearness)?;
        segments.split(key);
        let there = (reach.segment < segments.len()).then(|| segments.get(key, reach.segment));
        let after_any = reach
            .parts
            .checked_sub(1)
            .is_some_and(|at| matches!(pattern.parts().get(at), Some(Part::Rest(_))));
        let stopped = match (pattern.parts().get(reach.parts), there) {
            (Some(Part::Literal(wanted)), Some(there)) if !after_any => {
                format!("where it wants `{wanted}` and finds `{there}`")
            }
            (_, Some(there)) => format!("up to `{there}`"),
            (_, None) => "up to its end".to_owned(),
        };
        Some((reach, format!("`{}` got furthest on `{key}`, {stopped}", rule.text)))
    });
    misses.max_by_key(|(reach, _)| *reach)
}

/// Whether a source starts with a `**`, which fits every key.
fn starts_open(read: ReadRule<'_>) -> bool {
    read.sources().iter().any(|side| matches!(&side.item, SideItem::Pattern(pattern) if matches!(pattern.parts().first(), Some(Part::Rest(_)))))
}
