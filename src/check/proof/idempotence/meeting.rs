//! Whether a rule reads what another one makes, and keys that show it.

use super::certain::*;
use super::program::*;
use super::*;
use crate::check::keys::Keys;
use crate::check::proof::alphabet::{Alphabet, MAX_SYMBOLS, accepts};
use crate::check::proof::automaton::{Automaton, Found, may_overlap, overlaps, search};
use crate::check::proof::effort::Effort;
use crate::check::proof::trace::backward;
use crate::check::rules::Rule;
use crate::check::rules::Side;
use crate::key::{Part, Pattern};

/// How the results of one rule meet the sources of another.
pub(super) enum Meeting {
    Never,
    /// Only if a capture of the maker holds one of its own names.
    Doubled,
    Possible,
}

pub(super) fn meet(lookup: &Lookup<'_>, maker: &Placed<'_>, reader: &Placed<'_>) -> Meeting {
    let effort = lookup.effort();
    let mut meeting = Meeting::Never;
    if reader.has_regex() {
        return Meeting::Possible;
    }
    for image in maker.rule.right.iter().filter_map(Side::pattern) {
        for source in reader.rule.left.iter().filter_map(Side::pattern) {
            // A regex of the maker may put dots where its groups stand.
            if maker.has_regex() {
                return Meeting::Possible;
            }
            if apart(image, source, &reader.rule.unless_left, effort) {
                continue;
            }
            // What a later statement takes for certain is not what the first application gives in
            // the end.
            let from = lookup.rules.partition_point(|later| later.at <= maker.at);
            let names: Vec<&Part> = lookup.names(maker.at).collect();
            if !effort.spend(lookup.rules.len() - from + names.len())
                || names.iter().filter(|part| matches!(part, Part::Literal(_))).count()
                    > MAX_SYMBOLS
            {
                return Meeting::Possible;
            }
            let later: Vec<&Pattern> = lookup.rules[from..]
                .iter()
                .filter(|later| later.certain)
                .flat_map(|later| later.rule.left.iter().filter_map(Side::pattern))
                .collect();
            let excluded: Vec<&Pattern> = certain(&reader.rule.unless_left).chain(later).collect();
            let named: Vec<Pattern> =
                names.iter().map(|part| Pattern::new(vec![(*part).clone()])).collect();
            let patterns: Vec<&Pattern> =
                [image, source].into_iter().chain(excluded.iter().copied()).collect();
            let all: Vec<&Pattern> = patterns.iter().copied().chain(&named).collect();
            let alphabet = Alphabet::new(&all, effort);
            if !alphabet.is_exact(&all) {
                return Meeting::Possible;
            }
            let automata: Option<Vec<Automaton<'_>>> =
                patterns.iter().map(|pattern| Automaton::new(pattern, &alphabet, effort)).collect();
            let Some(mut automata) = automata else { return Meeting::Possible };
            let own: Vec<bool> = alphabet
                .symbols()
                .iter()
                .map(|symbol| names.iter().any(|part| accepts(part, symbol)))
                .collect();
            automata[0].restrict_captures(&own, |symbol| is_leaf(&alphabet.symbols()[symbol]));
            match search(&automata, &alphabet, effort, |accepted| {
                accepted[0] && accepted[1] && !accepted[2..].contains(&true)
            }) {
                Found::Nothing => meeting = Meeting::Doubled,
                Found::Key(_) | Found::Unknown => return Meeting::Possible,
            }
        }
    }
    meeting
}

/// Whether no key fits both patterns and none of the exceptions; `false` if that isn't certain.
pub(super) fn apart(image: &Pattern, source: &Pattern, unless: &[Keys], effort: &Effort) -> bool {
    if !may_overlap(image.parts(), source.parts(), effort) {
        return true;
    }
    let patterns: Vec<&Pattern> = [image, source].into_iter().chain(certain(unless)).collect();
    let alphabet = Alphabet::new(&patterns, effort);
    if !alphabet.is_exact(&patterns) {
        return false;
    }
    let automata: Option<Vec<Automaton<'_>>> =
        patterns.iter().map(|pattern| Automaton::new(pattern, &alphabet, effort)).collect();
    let Some(automata) = automata else { return false };
    let meets = search(&automata, &alphabet, effort, |accepted| {
        accepted[0] && accepted[1] && !accepted[2..].contains(&true)
    });
    meets == Found::Nothing
}

pub(super) fn fits_both(key: &str, patterns: [&Pattern; 2]) -> bool {
    patterns.iter().all(|pattern| crate::check::proof::trace::fits(pattern, key))
}

/// Keys that a reader may take after a maker gave them, as sources of the maker; each followed
/// through all rules.
pub(super) fn witnesses(
    lookup: &Lookup<'_>,
    maker: &Placed<'_>,
    reader: &Placed<'_>,
) -> Vec<(Twice, bool)> {
    let effort = lookup.effort();
    let mut found = Vec::new();
    for image in maker.rule.right.iter().filter_map(Side::pattern) {
        for source in reader.rule.left.iter().filter_map(Side::pattern) {
            let unless = &reader.rule.unless_left;
            let patterns: Vec<&Pattern> = [image, source]
                .into_iter()
                .chain(unless.iter().map(Keys::without_ranges))
                .collect();
            let alphabet = Alphabet::new(&patterns, effort);
            let automata: Option<Vec<Automaton<'_>>> =
                patterns.iter().map(|pattern| Automaton::new(pattern, &alphabet, effort)).collect();
            let mut keys = overlaps(image, source, false, &alphabet, effort, WITNESSES);
            let fits =
                |accepted: &[bool]| accepted[0] && accepted[1] && !accepted[2..].contains(&true);
            if let Some(Found::Key(key)) =
                automata.map(|automata| search(&automata, &alphabet, effort, fits))
            {
                keys.insert(0, key);
            }
            // A capture that may be empty is so in the shortest keys, of which nothing may be left.
            let longer: Vec<String> = keys.iter().take(1).map(|key| format!("{key}.w")).collect();
            let longer = longer.into_iter().filter(|key| fits_both(key, [image, source]));
            found.extend(keys.iter().cloned().chain(longer).filter_map(|key| {
                if !effort.spend(maker.weight) {
                    return None;
                }
                // A map may give the key that it takes.
                let before = backward(&maker.rule, &key)
                    .or_else(|| (!maker.rule.is_rename()).then(|| key.clone()))?;
                lookup.twice(before)
            }));
        }
    }
    // A plain one tells more.
    found.sort_by_key(|(_, plain)| !plain);
    found
}

/// Whether a statement that takes keys away, or shortens them, may do so with a result of a rule.
pub(super) fn may_take(taker: &Taker<'_>, maker: &Rule, effort: &Effort) -> bool {
    let mut images = maker.right.iter().filter_map(Side::pattern);
    match &taker.kind {
        TakerKind::Drop(keys) => images.any(|image| {
            !keys.keys.iter().all(|one| apart(image, one.without_ranges(), &keys.unless, effort))
        }),
        // Everything that isn't kept goes.
        TakerKind::Keep => true,
        // Strips go to a fixed point, so only a rule can put a wrapper there again.
        TakerKind::Strip { wrappers, leading } => {
            let gives = |part: &Part, segment: &str| {
                !matches!(part, Part::Rest(_)) && accepts(part, segment)
            };
            let wrapped = |image: &Pattern| {
                wrappers.iter().any(|wrapper| {
                    wrapper.len() > 1
                        || image
                            .parts()
                            .iter()
                            .any(|part| wrapper.iter().any(|segment| gives(part, segment)))
                })
            };
            let same_start = maker.left.iter().filter_map(Side::pattern).all(|left| {
                maker.right.iter().filter_map(Side::pattern).all(|right| {
                    match (left.parts().first(), right.parts().first()) {
                        (left, right @ Some(Part::Rest(_))) => left == right,
                        (_, Some(_)) => true,
                        (_, None) => false,
                    }
                })
            });
            images.any(wrapped) || (*leading && !same_start)
        }
    }
}
