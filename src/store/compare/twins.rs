//! Which tensors of a checkpoint are one: the same place, or the same bytes in two. Streamed, so
//! that size doesn't matter.
//!
//! Bytes are sampled first, hashed if samples agree, and compared if hashes do: most of a
//! checkpoint is never read, and no answer rests on a hash.

use std::hash::{DefaultHasher, Hasher};

use indexmap::IndexMap;
use rayon::prelude::*;
use serde::Serialize;

use super::equal::tensors_equal;
use crate::error::{ErrorKind, Result};
use crate::key::{Key, natural_order};
use crate::store::{Blob, Boxes, Store};
use crate::tensor::TensorInfo;

/// Keys whose tensors are equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Twins {
    /// Two keys or more, in natural order.
    pub keys: Vec<Key>,
    /// Their dtype and shape.
    pub info: TensorInfo,
    /// Every element has one value, as in fresh norms and biases: being equal then says little.
    pub constant: bool,
}

/// Bytes that are looked at in each of a tensor's start, middle and end before it is read whole.
const SAMPLE: u64 = 4 << 10;

/// Bytes that one thread reads at once.
const STRETCH: u64 = 1 << 20;

/// Keys that lie in one place: the same bytes of a file, or one storage, offset, shape and strides
/// in memory. Tensors without elements lie nowhere.
///
/// # Errors
/// If the store can't tell where a tensor lies; one that has no bytes at all is passed over.
pub fn same_place(source: &dyn Store) -> Result<Vec<Vec<Key>>> {
    // By where the first element lies, and what the tensor is.
    type Stored = Vec<(Key, Boxes)>;
    let mut groups: IndexMap<(Blob, u64, &TensorInfo), Stored> = IndexMap::new();
    for (key, entry) in &source.header().tensors {
        if entry.info.nbytes() == Some(0) {
            continue;
        }
        let boxes = match source.boxes(key) {
            Ok(boxes) => boxes,
            // A manifest has no bytes, which lie nowhere.
            Err(error) if error.kind() == ErrorKind::Unsupported => continue,
            Err(error) => return Err(error),
        };
        if let Some(first) = boxes.get(0) {
            let group = groups.entry((first.blob, first.offset, &entry.info)).or_default();
            group.push((key.clone(), boxes));
        }
    }
    let mut found: Vec<Vec<Key>> = Vec::new();
    for (_, stored) in groups {
        let mut parts: Vec<Stored> = Vec::new();
        for (key, boxes) in stored {
            let same = |part: &&mut Stored| {
                part.first().is_some_and(|(_, first)| first.same_place(&boxes))
            };
            match parts.iter_mut().find(same) {
                Some(part) => part.push((key, boxes)),
                None => parts.push(vec![(key, boxes)]),
            }
        }
        found.extend(parts.into_iter().map(|part| part.into_iter().map(|(key, _)| key).collect()));
    }
    Ok(in_order(found))
}

/// Keys whose tensors have one dtype, one shape and equal bytes, be it in one place or several.
/// Tensors without elements are left out.
///
/// # Errors
/// If reading fails.
pub fn twins(source: &dyn Store) -> Result<Vec<Twins>> {
    let mut alike: IndexMap<&TensorInfo, Vec<&Key>> = IndexMap::new();
    for (key, entry) in &source.header().tensors {
        if entry.info.nbytes().is_some_and(|bytes| bytes > 0) {
            alike.entry(&entry.info).or_default().push(key);
        }
    }
    let candidates: Vec<(&TensorInfo, Vec<&Key>)> =
        alike.into_iter().filter(|(_, keys)| keys.len() > 1).collect();
    let sampled = split(source, candidates, |len| {
        if len <= 3 * SAMPLE {
            vec![(0, len)]
        } else {
            vec![(0, SAMPLE), (len / 2, SAMPLE), (len - SAMPLE, SAMPLE)]
        }
    })?;
    let hashed =
        split(source, sampled, |len| if len <= 3 * SAMPLE { Vec::new() } else { vec![(0, len)] })?;
    let mut found = Vec::new();
    for (info, keys) in hashed {
        // Nearly always one; a tensor of the same hash and other bytes begins another.
        let mut parts: Vec<Vec<Key>> = Vec::new();
        'keys: for key in keys {
            for part in &mut parts {
                if let Some(first) = part.first()
                    && tensors_equal(source, first, key)?.is_equal()
                {
                    part.push(key.clone());
                    continue 'keys;
                }
            }
            parts.push(vec![key.clone()]);
        }
        for keys in in_order(parts) {
            let constant = keys.first().map_or(Ok(false), |key| is_constant(source, key, info))?;
            found.push(Twins { keys, info: info.clone(), constant });
        }
    }
    found.sort_by(|a, b| by_first(&a.keys, &b.keys));
    Ok(found)
}

/// Parts groups by a hash of some ranges of each tensor's bytes; groups of one are no groups.
fn split<'a>(
    source: &dyn Store,
    groups: Vec<(&'a TensorInfo, Vec<&'a Key>)>,
    ranges: impl Fn(u64) -> Vec<(u64, u64)> + Sync,
) -> Result<Vec<(&'a TensorInfo, Vec<&'a Key>)>> {
    let all: Vec<(usize, &TensorInfo, &Key)> = groups
        .iter()
        .enumerate()
        .flat_map(|(at, (info, keys))| keys.iter().map(move |key| (at, *info, *key)))
        .collect();
    let hash = |(_, info, key): &(usize, &TensorInfo, &Key)| {
        let mut hasher = DefaultHasher::new();
        for (start, len) in ranges(info.nbytes().unwrap_or(0)) {
            stretches(source, key, start, len, |bytes| {
                hasher.write(bytes);
                true
            })?;
        }
        Ok(hasher.finish())
    };
    let hashes: Vec<u64> = all.par_iter().map(hash).collect::<Result<_>>()?;
    let mut parts: IndexMap<(usize, u64), (&TensorInfo, Vec<&Key>)> = IndexMap::new();
    for ((at, info, key), hash) in all.into_iter().zip(hashes) {
        parts.entry((at, hash)).or_insert((info, Vec::new())).1.push(key);
    }
    Ok(parts.into_values().filter(|(_, keys)| keys.len() > 1).collect())
}

/// Whether every element is the first one, bit for bit.
fn is_constant(source: &dyn Store, key: &Key, info: &TensorInfo) -> Result<bool> {
    let size = usize::try_from(info.dtype.bits().div_ceil(8)).unwrap_or(1).max(1);
    let mut first: Option<Vec<u8>> = None;
    let mut constant = true;
    // A stretch is a whole number of elements.
    stretches(source, key, 0, info.nbytes().unwrap_or(0), |bytes| {
        let first = first.get_or_insert_with(|| bytes.get(..size).unwrap_or_default().to_vec());
        constant = bytes.chunks(size).all(|element| element == first.as_slice());
        constant
    })?;
    Ok(constant)
}

/// Shows a range of a tensor's bytes in stretches, until `see` has seen enough.
fn stretches(
    source: &dyn Store,
    key: &Key,
    start: u64,
    len: u64,
    mut see: impl FnMut(&[u8]) -> bool,
) -> Result<()> {
    let mut buffer = vec![0; usize::try_from(len.min(STRETCH)).unwrap_or(0)];
    let mut at = 0;
    while at < len {
        let part = buffer
            .get_mut(..usize::try_from((len - at).min(STRETCH)).unwrap_or(0))
            .unwrap_or_default();
        source.read_at(key, start + at, part)?;
        if !see(part) {
            break;
        }
        at += part.len() as u64;
    }
    Ok(())
}

/// Groups of two keys or more, and their keys, in natural order.
fn in_order(mut groups: Vec<Vec<Key>>) -> Vec<Vec<Key>> {
    groups.retain(|group| group.len() > 1);
    for group in &mut groups {
        group.sort_by(|a, b| natural_order(a, b));
    }
    groups.sort_by(|a, b| by_first(a, b));
    groups
}

fn by_first(a: &[Key], b: &[Key]) -> std::cmp::Ordering {
    natural_order(a.first().map_or("", Key::as_str), b.first().map_or("", Key::as_str))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::{Counted, StateDict};
    use crate::tensor::{Dtype, Storage, TensorView};

    fn view(bytes: Vec<u8>) -> TensorView {
        let len = bytes.len() as u64;
        TensorView::contiguous(Storage::new(bytes), TensorInfo::new(Dtype::U8, vec![len]), 0)
            .unwrap()
    }

    /// Bytes that are all over the place, the same for one seed.
    fn noise(seed: u64, len: usize) -> Vec<u8> {
        (0..len as u64)
            .map(|at| {
                ((at ^ seed.wrapping_mul(31)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
            })
            .collect()
    }

    #[test]
    fn equal_bytes_are_found_wherever_they_lie() {
        let shared = view(noise(1, 50_000));
        let mut off_sample = noise(1, 50_000);
        off_sample[10_000] ^= 1;
        let dict = StateDict::from_tensors(
            [
                ("b", shared.clone()),
                ("a", shared),
                ("copy", view(noise(1, 50_000))),
                ("almost", view(off_sample)),
                ("other", view(noise(2, 50_000))),
                ("short", view(noise(1, 40_000))),
                ("one.10", view(vec![7; 300])),
                ("one.2", view(vec![7; 300])),
                ("empty", view(Vec::new())),
                ("empty.too", view(Vec::new())),
            ]
            .map(|(key, view)| (Key::from(key), view)),
            BTreeMap::new(),
        );
        let places: Vec<Vec<String>> = same_place(&dict)
            .unwrap()
            .into_iter()
            .map(|keys| keys.into_iter().map(String::from).collect())
            .collect();
        assert_eq!(places, [["a", "b"]]);
        let found = twins(&dict).unwrap();
        let found: Vec<(Vec<&str>, bool)> = found
            .iter()
            .map(|group| (group.keys.iter().map(Key::as_str).collect(), group.constant))
            .collect();
        assert_eq!(found, [(vec!["a", "b", "copy"], false), (vec!["one.2", "one.10"], true)]);
    }

    #[test]
    fn tensors_that_differ_are_barely_read() {
        let tensors = (0..4)
            .map(|seed| (Key::from(format!("t.{seed}").as_str()), view(noise(seed, 1_000_000))));
        let dict = StateDict::from_tensors(tensors, BTreeMap::new());
        let counted = Counted::new(&dict);
        assert_eq!(twins(&counted).unwrap(), []);
        assert_eq!(counted.bytes_read(), 4 * 3 * SAMPLE);
    }
}
