//! Files that should be there, or should be known: numbers with a gap, and files beside an index
//! that hold what it doesn't list.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpoint::Checkpoint;
use super::open::OpenOptions;
use super::sharded::check_inside;
use crate::key::Key;
use crate::tensor::Remark;

/// How many names of missing files are told.
const NAMED: usize = 5;

/// Beginnings of names of files that hold something else than the model: the same model in another
/// layout, adapters, the state of training.
const OTHERS: &[&str] = &["consolidated", "adapter", "optimizer"];

/// The parts of `model-00002-of-00003.safetensors`: what stands before the number, the number, how
/// it is written, and how many there are, with the ending and what may stand before it, as diffusers
/// once named variants: `model-00002-of-00003.fp16.safetensors`.
fn numbers(name: &str) -> Option<(&str, u64, usize, &str)> {
    ENDINGS.iter().any(|ending| name.ends_with(ending)).then_some(())?;
    let (rest, of) = name.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(number) && digits(count_of(of))).then_some(())?;
    Some((stem, number.parse().ok()?, number.len(), of))
}

/// Endings of files that are numbered.
const ENDINGS: &[&str] = &[".safetensors", ".bin", ".pt", ".pth"];

/// How many there are, without what follows.
fn count_of(of: &str) -> &str {
    of.split_once('.').map_or(of, |(count, _)| count)
}

/// Each set of numbered files that lacks some: the first names that are not there, how many, and of
/// how many.
fn incomplete(names: &[String]) -> Vec<(Vec<String>, u64, u64)> {
    let mut sets: BTreeMap<(&str, &str), (BTreeSet<u64>, usize)> = BTreeMap::new();
    for (stem, number, width, of) in names.iter().filter_map(|name| numbers(name)) {
        let set = sets.entry((stem, of)).or_default();
        set.0.insert(number);
        set.1 = width;
    }
    let mut found = Vec::new();
    for ((stem, of), (there, width)) in sets {
        let Ok(count) = count_of(of).parse::<u64>() else { continue };
        // Nearly everybody counts from 1.
        let first = u64::from(!there.contains(&0));
        // Counted from 0, the last is one less.
        let last = count.checked_sub(1 - first);
        let Some(last) = last.filter(|last| there.iter().all(|number| number <= last)) else {
            continue;
        };
        let lacking = count.saturating_sub(there.len() as u64);
        if lacking == 0 {
            continue;
        }
        let missing = (first..=last).filter(|number| !there.contains(number)).take(NAMED);
        found.push((
            missing.map(|number| format!("{stem}-{number:0width$}-of-{of}")).collect(),
            lacking,
            count,
        ));
    }
    found
}

/// The numbered files that an index is of by its name, if they are all there.
pub(super) fn all_of(index: &str, names: &[String]) -> Option<Vec<String>> {
    let stem = index.strip_suffix(".safetensors.index.json")?;
    let is_of = |name: &&String| numbers(name).is_some_and(|(own, ..)| own == stem);
    let own: Vec<String> = names.iter().filter(is_of).cloned().collect();
    let sets: BTreeSet<&str> =
        own.iter().filter_map(|name| numbers(name)).map(|(.., of)| of).collect();
    (sets.len() == 1 && incomplete(&own).is_empty()).then_some(own)
}

/// What a directory without an index lacks.
pub(super) fn gaps(names: &[String]) -> Vec<Remark> {
    incomplete(names)
        .into_iter()
        .map(|(missing, count, of)| Remark::Gap { missing, count, of })
        .collect()
}

/// Whether files that were named are a part of numbered ones.
pub(super) fn part(paths: &[String]) -> Option<Remark> {
    let (_, _, of) = incomplete(paths).into_iter().next()?;
    let file = paths.iter().find(|path| numbers(path).is_some())?.clone();
    Some(Remark::Part { file, of })
}

/// The files beside the shards of an index that hold keys which it doesn't list. `others` are
/// listed by another index, and so belong to another checkpoint.
pub(super) fn unlisted(
    checkpoint: &Checkpoint,
    others: &BTreeSet<String>,
    options: &OpenOptions,
) -> Vec<Remark> {
    let mut found = Vec::new();
    for path in &checkpoint.ignored {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let is_other = others.contains(name) || OTHERS.iter().any(|other| name.starts_with(other));
        if is_other || check_inside(&checkpoint.directory, name, options).is_err() {
            continue;
        }
        let own = |key: &Key| !checkpoint.header.tensors.contains_key(key);
        let keys: Vec<Key> = Checkpoint::keys_of(path).into_iter().filter(own).collect();
        if !keys.is_empty() {
            found.push(Remark::Unlisted { file: name.to_owned(), keys });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Vec<Remark> {
        gaps(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn gaps_are_found_by_number_and_nothing_else_is_one() {
        let gap = of(&["model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"]);
        assert_eq!(
            gap,
            [Remark::Gap {
                missing: vec!["model-00002-of-00003.safetensors".to_owned()],
                count: 1,
                of: 3
            }]
        );
        // Counted from 0, as some do.
        let gap = of(&["a-0-of-2.safetensors"]);
        assert_eq!(
            gap,
            [Remark::Gap { missing: vec!["a-1-of-2.safetensors".to_owned()], count: 1, of: 2 }]
        );
        let gap = of(&["a-1-of-2.fp16.safetensors", "a-1-of-1.safetensors"]);
        assert_eq!(
            gap,
            [Remark::Gap {
                missing: vec!["a-2-of-2.fp16.safetensors".to_owned()],
                count: 1,
                of: 2
            }]
        );
        for whole in [
            &["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"][..],
            &["a-0-of-2.safetensors", "a-1-of-2.safetensors"],
            &["model.safetensors"],
            &[
                "model-of-2.safetensors",
                "x-1-of-y.safetensors",
                "a-1-of-.safetensors",
                "--of-3.safetensors",
            ],
            // More than there should be: numbers that mean something else.
            &["a-7-of-3.safetensors"],
            &["a-1-of-0.safetensors"],
            &["a-1-of-99999999999999999999999.safetensors"],
        ] {
            assert_eq!(of(whole), [], "{whole:?}");
        }
    }

    #[test]
    fn the_files_of_an_index_are_all_of_its_name_or_none() {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (a, b) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
        let index = "model.safetensors.index.json";
        assert_eq!(all_of(index, &names(&[a, b, "other.safetensors"])), Some(names(&[a, b])));
        for not in [
            names(&[a]),
            names(&[a, b, "model-00001-of-00003.safetensors"]),
            names(&["model.safetensors"]),
            names(&["other-00001-of-00001.safetensors"]),
            names(&["model-00001-of-00002.fp16.safetensors", b]),
        ] {
            assert_eq!(all_of(index, &not), None, "{not:?}");
        }
    }

    #[test]
    fn a_number_of_any_size_costs_nothing() {
        let gap = of(&["a-1-of-18446744073709551615.safetensors"]);
        assert!(
            matches!(&gap[..], [Remark::Gap { missing, count, .. }] if missing.len() == 5 && *count == u64::MAX - 1),
            "{gap:?}"
        );
    }
}
