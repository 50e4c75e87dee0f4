//! Keys that others are made of, as one line does: which numbers of theirs follow the numbers of
//! the keys that they become.
//!
//! Nothing is guessed from one key: a number is the line's own index, moved and multiplied, if that
//! holds for every key of the line. What doesn't follow any index makes lines of its own, so that
//! no line shows keys that are not there.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use smallvec::SmallVec;

use super::lines::{fill, split};

/// The numbers of a key: few have more than three.
pub(super) type Indices = SmallVec<[u64; 3]>;

/// The sources of one key, gathered by their template.
#[derive(Clone, Debug, Default)]
pub struct SourceKeys {
    by_template: IndexMap<String, Vec<Indices>, foldhash::fast::RandomState>,
}

impl SourceKeys {
    /// One.
    pub fn of(key: &str) -> Self {
        let mut sources = Self::default();
        sources.add(key);
        sources
    }

    /// Adds one.
    pub fn add(&mut self, key: &str) {
        let (template, indices) = split(key);
        self.by_template.entry(template).or_default().push(indices);
    }

    /// What lines have in common, and what differs from key to key: the least number at each place.
    pub(super) fn parted(self) -> (Vec<SourceTemplate>, Indices) {
        let mut least = Indices::new();
        let kinds = self.by_template.into_iter().map(|(template, keys)| {
            let count = keys.len();
            let places = keys.first().map_or(0, SmallVec::len);
            let above = (0..places).map(|place| {
                if let [only] = &keys[..] {
                    least.extend(only.get(place).copied());
                    return vec![0];
                }
                let values: BTreeSet<u64> =
                    keys.iter().filter_map(|key| key.get(place).copied()).collect();
                let first = values.first().copied().unwrap_or(0);
                least.push(first);
                values.into_iter().map(|value| value - first).collect()
            });
            let above = above.collect();
            SourceTemplate { template, count, above }
        });
        (kinds.collect(), least)
    }
}

/// Sources of one template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SourceTemplate {
    template: String,
    /// How many of it each key has.
    count: usize,
    /// For each place, the numbers above the least one.
    above: Vec<Vec<u64>>,
}

/// How the least number at a place comes about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Progression {
    /// The same for every key of the line.
    Constant(u64),
    /// `mul * n + add`, where `n` is this index of the key.
    Linear { index: usize, mul: i128, add: i128 },
}

/// A key's indices, and the least numbers of its sources.
pub(super) type Member = (Indices, Indices);

/// Parts members so that in each part every place of the sources has one progression.
pub(super) fn related(members: Vec<&Member>) -> Vec<(Vec<&Member>, Vec<Progression>)> {
    let places = members.first().map_or(0, |(_, least)| least.len());
    let mut parts = vec![(members, Vec::new())];
    for place in 0..places {
        let mut next = Vec::with_capacity(parts.len());
        for (members, mut progressions) in parts {
            if let Some(progression) = progression(&members, place) {
                progressions.push(progression);
                next.push((members, progressions));
                continue;
            }
            for part in by_offset(members, place) {
                let mut progressions: Vec<Progression> = progressions.clone();
                progressions.extend(progression(&part, place));
                next.push((part, progressions));
            }
        }
        parts = next;
    }
    parts
}

/// The one progression that holds for all, if there is one.
fn progression(members: &[&Member], place: usize) -> Option<Progression> {
    let least = |member: &Member| member.1.get(place).copied();
    let first = members.first()?;
    let constant = least(first)?;
    if members.iter().all(|member| least(member) == Some(constant)) {
        return Some(Progression::Constant(constant));
    }
    (0..first.0.len()).find_map(|index| {
        let value = |member: &Member| member.0.get(index).copied().map(i128::from);
        let (n, at) = (value(first)?, i128::from(constant));
        let other = members.iter().find(|member| value(member) != Some(n))?;
        let (rise, run) = (i128::from(least(other)?) - at, value(other)? - n);
        let mul = (rise % run == 0).then_some(rise / run).filter(|mul| *mul >= 1)?;
        let add = at - mul.checked_mul(n)?;
        let follows = |member: &Member| {
            let n = value(member)?.checked_mul(mul)?.checked_add(add)?;
            Some(n == i128::from(least(member)?))
        };
        members.iter().all(|member| follows(member) == Some(true)).then_some(Progression::Linear {
            index,
            mul,
            add,
        })
    })
}

/// Members by how far a number is from one of the key's indices: from that which parts them least.
fn by_offset(members: Vec<&Member>, place: usize) -> Vec<Vec<&Member>> {
    let indices = members.first().map_or(0, |(indices, _)| indices.len());
    let offset = |member: &Member, index: usize| {
        Some(i128::from(*member.1.get(place)?) - i128::from(*member.0.get(index)?))
    };
    let parts = |index: &usize| {
        members.iter().map(|member| offset(member, *index)).collect::<BTreeSet<_>>().len()
    };
    let Some(index) = (0..indices).min_by_key(parts) else {
        return members.into_iter().map(|member| vec![member]).collect();
    };
    let mut by: IndexMap<Option<i128>, Vec<&Member>> = IndexMap::new();
    for member in members {
        by.entry(offset(member, index)).or_default().push(member);
    }
    by.into_values().collect()
}

/// Each kind of source as one pattern, and how many of it each key has.
pub(super) fn texts(
    kinds: &[SourceTemplate],
    progressions: &[Progression],
    indices: &[Vec<u64>],
) -> Vec<(String, usize)> {
    let mut progressions = progressions.iter();
    kinds
        .iter()
        .map(|kind| {
            let values: Vec<Vec<u64>> = kind
                .above
                .iter()
                .map(|above| values(above, progressions.next(), indices))
                .collect();
            (fill(&kind.template, &values), kind.count)
        })
        .collect()
}

/// All numbers at a place, in order.
fn values(above: &[u64], progression: Option<&Progression>, indices: &[Vec<u64>]) -> Vec<u64> {
    let least: Vec<u64> = match progression {
        Some(Progression::Constant(value)) => vec![*value],
        Some(Progression::Linear { index, mul, add }) => {
            let follows = |n: &u64| u64::try_from(i128::from(*n) * mul + add).ok();
            indices.get(*index).into_iter().flatten().filter_map(follows).collect()
        }
        None => Vec::new(),
    };
    let all: BTreeSet<u64> = least
        .iter()
        .flat_map(|least| above.iter().filter_map(move |above| least.checked_add(*above)))
        .collect();
    all.into_iter().collect()
}
