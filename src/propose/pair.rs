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
    let mut table = Table::new(&candidates, sources);
    let mut parents = Parents::new();
    while let Some((at, rival)) = table.best(&candidates, sources, targets, &parents) {
        let Candidate { source, target, way, .. } = &candidates[at];
        let (from, to) = (&sources.families[*source], &targets.families[*target]);
        parents.insert(from.parent().to_vec(), to.parent().to_vec());
        table.touch(from.parent());
        sources.take(*source);
        targets.take(*target);
        found.pairs.push(Pair { source: *source, target: *target, way: way.clone(), rival });
    }
}

/// Where the tensors beside a source went: all but the last segment of both keys.
type Parents = BTreeMap<Vec<Part>, Vec<Part>>;

/// What was decided of a target: how clearly, the candidate, and a rival.
type Decided = (f64, usize, Option<usize>);

/// The candidates of each target, and what was decided of them. What nothing happened to is not
/// looked at again.
struct Table {
    of_target: Vec<Vec<usize>>,
    of_source: BTreeMap<usize, Vec<usize>>,
    /// By the parent of a source, the targets that it is a candidate for.
    near: BTreeMap<Vec<Part>, BTreeSet<usize>>,
    /// `None`: to be looked at.
    decided: Vec<Option<Option<Decided>>>,
}

impl Table {
    fn new(candidates: &[Candidate], sources: &Side) -> Self {
        let mut of_target: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut of_source: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, candidate) in candidates.iter().enumerate() {
            of_target.entry(candidate.target).or_default().push(at);
            of_source.entry(candidate.source).or_default().push(at);
        }
        let of_target: Vec<Vec<usize>> = of_target.into_values().collect();
        let mut near: BTreeMap<Vec<Part>, BTreeSet<usize>> = BTreeMap::new();
        for (row, all) in of_target.iter().enumerate() {
            for at in all {
                let parent = sources.families[candidates[*at].source].parent().to_vec();
                near.entry(parent).or_default().insert(row);
            }
        }
        let decided = vec![None; of_target.len()];
        Self { of_target, of_source, near, decided }
    }

    /// Something happened beside a source with this parent.
    fn touch(&mut self, parent: &[Part]) {
        for row in self.near.get(parent).into_iter().flatten() {
            self.decided[*row] = None;
        }
    }

    /// The candidate that is decided most clearly, and what fits its target about as well.
    fn best(
        &mut self,
        candidates: &[Candidate],
        sources: &Side,
        targets: &Side,
        parents: &Parents,
    ) -> Option<(usize, Option<usize>)> {
        let free = |at: &usize| {
            let Candidate { source, target, .. } = &candidates[*at];
            sources.is_free(*source) && targets.is_free(*target)
        };
        // What is left may be the only one that fits, once others are gone.
        for again in [false, true] {
            let mut best: Option<Decided> = None;
            for row in 0..self.of_target.len() {
                let known = self.decided[row];
                let is_fresh = known.is_some_and(|known| known.is_none_or(|(_, at, _)| free(&at)));
                if again || !is_fresh {
                    self.decided[row] =
                        Some(self.decide(row, candidates, &free, (sources, targets), parents));
                }
                if let Some(Some(found)) = self.decided[row]
                    && best.is_none_or(|(known, ..)| found.0 > known)
                {
                    best = Some(found);
                }
            }
            if let Some((_, at, rival)) = best {
                return Some((at, rival));
            }
        }
        None
    }

    fn decide(
        &self,
        row: usize,
        candidates: &[Candidate],
        free: &dyn Fn(&usize) -> bool,
        (sources, targets): (&Side, &Side),
        parents: &Parents,
    ) -> Option<Decided> {
        let score = |at: usize| {
            let Candidate { source, target, alike, way } = &candidates[at];
            let beside = match parents.get(sources.families[*source].parent()) {
                Some(there) if there == targets.families[*target].parent() => BESIDE,
                Some(_) => -BESIDE,
                None => 0.0,
            };
            // Of two ways that fit the simple one is more likely.
            alike + beside + if *way == Way::Rename { 0.0 } else { -0.01 }
        };
        let mut all: Vec<(f64, usize)> = self.of_target[row]
            .iter()
            .copied()
            .filter(|at| free(at))
            .map(|at| (score(at), at))
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (score, at) = all.first().copied()?;
        let rest = self.of_source.get(&candidates[at].source);
        let only = all.len() == 1
            && rest.is_some_and(|rest| rest.iter().filter(|at| free(at)).count() == 1);
        if score < LEAST && !only {
            return None;
        }
        let next = all.get(1).copied();
        // Names that say little leave it to others that fit.
        let margin = if candidates[at].alike < PLAIN { 2.0 * MARGIN } else { MARGIN };
        let rival = next.filter(|(next, _)| score - next < margin);
        let rival = rival.map(|(_, rival)| candidates[rival].source);
        // What is decided clearly goes first: its neighbours follow.
        let clear = score + next.map_or(score, |(next, _)| (score - next).min(score));
        Some((clear, at, rival))
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
