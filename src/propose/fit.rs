//! Whether one family can become another: by its numbers and its shapes.

use std::collections::{BTreeMap, BTreeSet};

use super::family::{Family, Indices};
use crate::tensor::Shape;

/// What makes a family of another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// Nothing but other names.
    Rename,
    /// A matrix, transposed.
    Transpose,
    /// A dimension of one element goes.
    Squeeze(usize),
    /// A dimension of one element comes.
    Unsqueeze(usize),
    /// Tensors that differ in one number are stacked, each transposed before if that is said.
    Stack { index: usize, transposed: bool },
    /// Tensors that differ in one number, which is below `n`, are laid one after the other.
    Concat { index: usize, dim: usize, n: u64 },
    /// The inverse of `Stack`: the number is one of the target's.
    Unstack { index: usize, transposed: bool },
    /// The inverse of `Concat`.
    Split { index: usize, dim: usize, n: u64 },
}

/// The way from one family to another, if there is one. Shapes that aren't known fit all.
pub(super) fn way(source: &Family, target: &Family) -> Option<Way> {
    match source.arity().cmp(&target.arity()) {
        std::cmp::Ordering::Equal => one_to_one(source, target),
        std::cmp::Ordering::Greater => gathered(source, target).map(|(index, how)| match how {
            Gather::Stack { transposed } => Way::Stack { index, transposed },
            Gather::Concat { dim, n } => Way::Concat { index, dim, n },
        }),
        std::cmp::Ordering::Less => gathered(target, source).map(|(index, how)| match how {
            Gather::Stack { transposed } => Way::Unstack { index, transposed },
            Gather::Concat { dim, n } => Way::Split { index, dim, n },
        }),
    }
}

fn one_to_one(source: &Family, target: &Family) -> Option<Way> {
    if !source.members.keys().eq(target.members.keys()) {
        return None;
    }
    let pairs = || source.members.values().zip(target.members.values());
    let all = |fits: &dyn Fn(&Shape, &Shape) -> bool| {
        pairs().all(|pair| match pair {
            (Some(source), Some(target)) => fits(source, target),
            _ => false,
        })
    };
    let unknown = |(a, b): (&Option<Shape>, &Option<Shape>)| a.is_none() || b.is_none();
    if pairs().all(unknown) || all(&|a, b| a == b) {
        return Some(Way::Rename);
    }
    if all(&|a, b| a.len() == 2 && a.iter().rev().eq(b.iter())) {
        return Some(Way::Transpose);
    }
    (0..6).find_map(|dim| {
        let without = |long: &Shape, short: &Shape| {
            long.get(dim) == Some(&1)
                && long
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| *at != dim)
                    .map(|(_, n)| n)
                    .eq(short.iter())
        };
        if all(&|a, b| without(a, b)) {
            return Some(Way::Squeeze(dim));
        }
        all(&|a, b| without(b, a)).then_some(Way::Unsqueeze(dim))
    })
}

/// How tensors that differ in one number become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gather {
    Stack { transposed: bool },
    Concat { dim: usize, n: u64 },
}

/// Which number of `many` goes, and how.
fn gathered(many: &Family, one: &Family) -> Option<(usize, Gather)> {
    if many.arity() != one.arity() + 1 {
        return None;
    }
    (0..many.arity()).find_map(|index| {
        let n = counted(many, index, one)?;
        let (shape, whole) = (many.shape()?, one.shape()?);
        Some((index, gather(shape, whole, n)?))
    })
}

/// How many tensors differ in a number of `many`, if that is `0..n` for each member of `one`.
pub(super) fn counted(many: &Family, index: usize, one: &Family) -> Option<u64> {
    let mut groups: BTreeMap<Indices, BTreeSet<u64>> = BTreeMap::new();
    for member in many.members.keys() {
        let mut rest = member.clone();
        let number = rest.remove(index);
        groups.entry(rest).or_default().insert(number);
    }
    let n = groups.values().next()?.len() as u64;
    let whole = groups.values().all(|group| group.iter().copied().eq(0..n));
    (whole && groups.keys().eq(one.members.keys())).then_some(n)
}

fn gather(shape: &Shape, whole: &Shape, n: u64) -> Option<Gather> {
    if whole.len() == shape.len() + 1 && whole.first() == Some(&n) {
        let rest = whole.get(1..)?;
        if rest == &shape[..] {
            return Some(Gather::Stack { transposed: false });
        }
        if shape.len() == 2 && shape.iter().rev().eq(rest) {
            return Some(Gather::Stack { transposed: true });
        }
    }
    if whole.len() != shape.len() || n < 2 {
        return None;
    }
    (0..shape.len())
        .find(|dim| {
            shape.iter().zip(whole.iter()).enumerate().all(|(at, (part, all))| {
                if at == *dim { part.checked_mul(n) == Some(*all) } else { part == all }
            })
        })
        .map(|dim| Gather::Concat { dim, n })
}
