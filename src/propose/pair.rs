//! Which family becomes which: of those that fit, the one whose words are most alike, and whose
//! neighbours went the same way.

use std::collections::{BTreeMap, BTreeSet};

use super::family::{Part, Side};
use super::fit::{Way, way};
use super::words::{alike, leaf, meanings, weights};

/// What is gained if the tensor beside it went to the place beside, and lost if it went elsewhere.
const BESIDE: f64 = 0.6;
/// As much less alike has the next best to be, to be out of the question.
const MARGIN: f64 = 0.08;
/// Below that, names say little: twice the margin is needed.
const PLAIN: f64 = 0.4;
/// Below that, names say nothing, and only what alone fits is paired.
const LEAST: f64 = 0.12;

/// A family that becomes another one. Numbers are those of the lists.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) source: usize,
    pub(super) target: usize,
    pub(super) way: Way,
    /// Another source that fits as well.
    pub(super) rival: Option<usize>,
}

/// What was found so far.
#[derive(Default)]
pub(super) struct Found {
    pub(super) pairs: Vec<Pair>,
    pub(super) joins: Vec<super::join::Join>,
}

/// A source and a target that fit, and how alike they are by their words.
struct Candidate {
    source: usize,
    target: usize,
    way: Way,
    alike: f64,
}

/// Pairs what has its name already.
pub(super) fn named_alike(sources: &mut Side, targets: &mut Side, found: &mut Found) {
    let named: BTreeMap<Vec<Part>, usize> = sources
        .families
        .iter()
        .enumerate()
        .map(|(at, family)| (family.parts.clone(), at))
        .collect();
    for target in targets.free() {
        let family = &targets.families[target];
        let Some(source) = named.get(&family.parts).copied() else { continue };
        if way(&sources.families[source], family) == Some(Way::Rename) {
            sources.take(source);
            targets.take(target);
            found.pairs.push(Pair { source, target, way: Way::Rename, rival: None });
        }
    }
}

/// Pairs families, one to one.
pub(super) fn pairs(sources: &mut Side, targets: &mut Side, found: &mut Found) {
    let candidates = candidates(sources, targets);
    let mut parents: BTreeMap<Vec<Part>, Vec<Part>> = BTreeMap::new();
    while let Some((at, rival)) = best(&candidates, sources, targets, &parents) {
        let Candidate { source, target, way, .. } = &candidates[at];
        let (from, to) = (&sources.families[*source], &targets.families[*target]);
        parents.insert(from.parent().to_vec(), to.parent().to_vec());
        sources.take(*source);
        targets.take(*target);
        found.pairs.push(Pair { source: *source, target: *target, way: way.clone(), rival });
    }
}

/// What fits, of families that are still free.
fn candidates(sources: &Side, targets: &Side) -> Vec<Candidate> {
    let of = |side: &Side| -> Vec<(usize, BTreeSet<String>)> {
        side.free().into_iter().map(|at| (at, meanings(&side.families[at]))).collect()
    };
    let (left, right) = (of(sources), of(targets));
    let weights = weights(&left.iter().chain(&right).map(|(_, of)| of).collect::<Vec<_>>());
    let mut candidates = Vec::new();
    for (source, of_source) in &left {
        let family = &sources.families[*source];
        for (target, of_target) in &right {
            let other = &targets.families[*target];
            let leaves = (leaf(family), leaf(other));
            if matches!(&leaves, (Some(a), Some(b)) if a != b) {
                continue;
            }
            let Some(way) = way(family, other) else { continue };
            let alike = alike(of_source, of_target, &weights);
            candidates.push(Candidate { source: *source, target: *target, way, alike });
        }
    }
    candidates
}

/// The candidate that is decided most clearly, and what fits its target about as well.
fn best(
    candidates: &[Candidate],
    sources: &Side,
    targets: &Side,
    parents: &BTreeMap<Vec<Part>, Vec<Part>>,
) -> Option<(usize, Option<usize>)> {
    let mut by_target: BTreeMap<usize, Vec<(f64, usize)>> = BTreeMap::new();
    let mut by_source: BTreeMap<usize, usize> = BTreeMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        let Candidate { source, target, alike, way } = candidate;
        if !sources.is_free(*source) || !targets.is_free(*target) {
            continue;
        }
        let beside = match parents.get(sources.families[*source].parent()) {
            Some(there) if there == targets.families[*target].parent() => BESIDE,
            Some(_) => -BESIDE,
            None => 0.0,
        };
        // Of two ways that fit the simple one is more likely.
        let simple = if *way == Way::Rename { 0.0 } else { -0.01 };
        by_target.entry(*target).or_default().push((alike + beside + simple, at));
        *by_source.entry(*source).or_default() += 1;
    }
    let mut best: Option<(f64, usize, Option<usize>)> = None;
    for (_, mut of_target) in by_target {
        of_target.sort_by(|a, b| b.0.total_cmp(&a.0));
        let Some((score, at)) = of_target.first().copied() else { continue };
        let only = of_target.len() == 1 && by_source.get(&candidates[at].source) == Some(&1);
        if score < LEAST && !only {
            continue;
        }
        let next = of_target.get(1).copied();
        // Names that say little leave it to others that fit.
        let margin = if candidates[at].alike < PLAIN { 2.0 * MARGIN } else { MARGIN };
        let rival = next.filter(|(next, _)| score - next < margin);
        let rival = rival.map(|(_, rival)| candidates[rival].source);
        // What is decided clearly goes first: its neighbours follow.
        let clear = score + next.map_or(score, |(next, _)| (score - next).min(score));
        if best.as_ref().is_none_or(|(known, ..)| clear > *known) {
            best = Some((clear, at, rival));
        }
    }
    best.map(|(_, at, rival)| (at, rival))
}
