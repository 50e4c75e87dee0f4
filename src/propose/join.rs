//! Several families that become one, as q, k and v one projection, and one that becomes several.

use std::collections::{BTreeMap, BTreeSet};

use super::family::{Family, Part, Side};
use super::fit::counted;
use super::pair::Found;
use super::words::{alike, leaf, meanings};
use crate::tensor::Shape;

/// Most families that are joined, and that are looked at together.
const JOINED: usize = 4;
const TOGETHER: usize = 8;

/// Words in the order in which models lay such tensors one after the other.
const ORDER: &[&[&str]] = &[
    &["q", "k", "v"],
    &["query", "key", "value"],
    &["wq", "wk", "wv"],
    &["gate", "up"],
    &["w1", "w3"],
];

/// Families that are laid one after the other to make another one.
#[derive(Clone, Debug)]
pub(super) struct Join {
    /// The parts, in order.
    pub(super) many: Vec<usize>,
    pub(super) one: usize,
    /// Whether the parts are the sources; else the one is.
    pub(super) forwards: bool,
    /// The dimension of the one.
    pub(super) dim: usize,
    /// The number of the parts that is stacked before.
    pub(super) stacked: Option<usize>,
    /// How long each part is.
    pub(super) sizes: Vec<u64>,
}

/// Finds joins among what is still free, both ways.
pub(super) fn joins(sources: &mut Side, targets: &mut Side, found: &mut Found) {
    for forwards in [true, false] {
        let (many, one) =
            if forwards { (&mut *sources, &mut *targets) } else { (&mut *targets, &mut *sources) };
        let groups = groups(&many.families, &many.free());
        let mut made: Vec<(f64, Join)> = Vec::new();
        for whole in one.free() {
            for (word, group) in &groups {
                let best = best(&many.families, &one.families[whole], whole, *word, group);
                made.extend(best.map(|(score, join)| (score, Join { forwards, ..join })));
            }
        }
        made.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, join) in made {
            if !one.is_free(join.one) || !join.many.iter().all(|part| many.is_free(*part)) {
                continue;
            }
            one.take(join.one);
            join.many.iter().for_each(|part| many.take(*part));
            found.joins.push(join);
        }
    }
}

/// Families that differ in one word alone, with the place of that word.
fn groups(families: &[Family], free: &[usize]) -> Vec<(usize, Vec<usize>)> {
    let mut groups: BTreeMap<(usize, Vec<Part>), Vec<usize>> = BTreeMap::new();
    for at in free {
        let parts = &families[*at].parts;
        for word in 0..parts.len() {
            if parts[word] == Part::Index {
                continue;
            }
            let mut rest = parts.clone();
            rest.remove(word);
            groups.entry((word, rest)).or_default().push(*at);
        }
    }
    let several = |group: &Vec<usize>| (2..=TOGETHER).contains(&group.len());
    groups
        .into_iter()
        .filter(|(_, group)| several(group))
        .map(|((word, _), group)| (word, group))
        .collect()
}

/// Those of a group that make a whole, if any do: the one whose words are most alike.
fn best(
    many: &[Family],
    whole: &Family,
    one: usize,
    word: usize,
    group: &[usize],
) -> Option<(f64, Join)> {
    let first = &many[*group.first()?];
    if matches!((leaf(first), leaf(whole)), (Some(a), Some(b)) if a != b) {
        return None;
    }
    // Most groups have other numbers, or too few dimensions: no choice of them does.
    let (shape, all) = (first.shape()?, whole.shape()?);
    let as_many = first.arity() == whole.arity() && first.members.len() == whole.members.len();
    let stacked = first.arity() == whole.arity() + 1;
    if !(as_many && shape.len() == all.len() || stacked && shape.len() + 1 == all.len()) {
        return None;
    }
    let of_whole = meanings(whole);
    let mut best: Option<(f64, Join)> = None;
    // As many bits as there are families: at most 256 choices.
    for choice in 1u32..1 << group.len() {
        let size = choice.count_ones() as usize;
        if !(2..=JOINED).contains(&size) {
            continue;
        }
        let chosen: Vec<usize> = group
            .iter()
            .enumerate()
            .filter(|(bit, _)| choice & 1 << bit != 0)
            .map(|(_, at)| *at)
            .collect();
        let chosen = in_order(many, chosen, word);
        let Some((dim, stacked, sizes)) = makes(many, &chosen, whole) else { continue };
        let all: BTreeSet<String> = chosen.iter().flat_map(|at| meanings(&many[*at])).collect();
        let known = if is_known(many, &chosen, word) { 1.0 } else { 0.0 };
        let score = alike(&all, &of_whole, &BTreeMap::new()) + 0.1 * size as f64 + known;
        if best.as_ref().is_none_or(|(known, _)| score > *known) {
            let join = Join { many: chosen, one, forwards: true, dim, stacked, sizes };
            best = Some((score, join));
        }
    }
    best
}

/// Where a family's word stands in the order that models have such tensors in: which order, and
/// which place there.
fn place(family: &Family, word: usize) -> Option<(usize, usize)> {
    let Some(Part::Word(word)) = family.parts.get(word) else { return None };
    let lower = word.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    ORDER.iter().enumerate().find_map(|(which, order)| {
        Some((which, order.iter().position(|known| parts.contains(known))?))
    })
}

/// Whether families are all those of a known order, each once.
fn is_known(many: &[Family], chosen: &[usize], word: usize) -> bool {
    let places: Option<Vec<(usize, usize)>> =
        chosen.iter().map(|at| place(&many[*at], word)).collect();
    places.is_some_and(|places| {
        let which = places.first().map_or(0, |(which, _)| *which);
        places.iter().copied().eq((0..ORDER[which].len()).map(|at| (which, at)))
    })
}

/// Puts families into the order that models have them in, as far as their words tell it.
fn in_order(many: &[Family], mut chosen: Vec<usize>, word: usize) -> Vec<usize> {
    let rank = |at: &usize| place(&many[*at], word).map_or(usize::MAX, |(_, place)| place);
    chosen.sort_by_key(|at| (rank(at), *at));
    chosen
}

/// Along which dimension some families make a whole, after which number is stacked, and how long
/// each of them is there.
fn makes(
    many: &[Family],
    chosen: &[usize],
    whole: &Family,
) -> Option<(usize, Option<usize>, Vec<u64>)> {
    let first = &many[*chosen.first()?];
    let alike = chosen.iter().all(|at| many[*at].members.keys().eq(first.members.keys()));
    let shapes: Vec<&Shape> = chosen.iter().map(|at| many[*at].shape()).collect::<Option<_>>()?;
    let all = whole.shape()?;
    if !alike {
        return None;
    }
    let (stacked, inner): (Option<usize>, &[u64]) = if first.arity() == whole.arity() {
        if !first.members.keys().eq(whole.members.keys()) {
            return None;
        }
        (None, all)
    } else if first.arity() == whole.arity() + 1 {
        let index = (0..first.arity())
            .find(|index| counted(first, *index, whole).is_some_and(|n| all.first() == Some(&n)))?;
        (Some(index), all.get(1..)?)
    } else {
        return None;
    };
    let rank = inner.len();
    if shapes.iter().any(|shape| shape.len() != rank) {
        return None;
    }
    let dim = (0..rank).find(|dim| {
        (0..rank).all(|at| {
            let mut sizes = shapes.iter().map(|shape| shape[at]);
            if at == *dim {
                sizes.try_fold(0u64, u64::checked_add) == Some(inner[at])
            } else {
                sizes.all(|size| size == inner[at])
            }
        })
    })?;
    let sizes = shapes.iter().map(|shape| shape[dim]).collect();
    Some((dim + usize::from(stacked.is_some()), stacked, sizes))
}
