//! Which tensor goes into which file, and what the files and the index say.
//!
//! The files of ranks hold the keys of each. Else shards are filled in the order of the plan's targets as `huggingface_hub` does
//! (`split_state_dict_into_shards_factory`): a tensor that doesn't fit into the current shard
//! begins the next, and one larger than the limit has a shard of its own. Inside a file wide dtypes
//! come first, so that every tensor is aligned to its elements.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::copy::BLOCK;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, RankFiles, natural_order};
use crate::plan::Plan;
use crate::store::{DATA_ALIGNMENT, MAX_HEADER_LEN, safetensors_header};
use crate::tensor::TensorInfo;

/// A tensor to be written.
#[derive(Clone, Copy)]
pub(in crate::execute) struct Written<'a> {
    /// What the caller knows it by.
    pub(in crate::execute) number: usize,
    pub(in crate::execute) key: &'a Key,
    pub(in crate::execute) info: &'a TensorInfo,
}

/// Which file each tensor goes into.
#[derive(Clone, Copy)]
pub(in crate::execute) enum Files<'a> {
    /// Files of at most so many bytes of tensors, numbered; without a limit, or if one is enough,
    /// one of this name.
    Sized { limit: Option<u64>, name: &'a str },
    /// A file for each rank, which is the number before its keys, or for each of several numbers.
    Ranks(&'a RankFiles),
}

impl Files<'_> {
    /// What the metadata of a file says: of keys that are one tensor, it names those of its own.
    fn metadata<'m>(
        self,
        group: &[Written<'_>],
        metadata: &'m BTreeMap<String, String>,
    ) -> Cow<'m, BTreeMap<String, String>> {
        let Files::Ranks(files) = self else { return Cow::Borrowed(metadata) };
        let keys: BTreeSet<&str> = group.iter().map(|item| item.key.as_str()).collect();
        let own =
            metadata.iter().filter_map(|(name, value)| match (files.of(name), files.of(value)) {
                (Some((rank, alias)), Some((other, kept))) if rank == other => {
                    keys.contains(value.as_str()).then(|| (alias.to_owned(), kept.to_owned()))
                }
                _ => Some((name.clone(), value.clone())),
            });
        Cow::Owned(own.collect())
    }

    /// The key that a tensor has in its file.
    fn key(self, key: &Key) -> Key {
        match self {
            Files::Sized { .. } => key.clone(),
            Files::Ranks(files) => {
                files.of(key).map_or_else(|| key.clone(), |(_, key)| Key::from(key))
            }
        }
    }
}

/// Some targets of a plan, by their places in it; numbered as they are given.
pub(in crate::execute) fn written<'a>(plan: &'a Plan, targets: &[usize]) -> Vec<Written<'a>> {
    targets
        .iter()
        .enumerate()
        .map(|(number, at)| {
            let target = &plan.targets[*at];
            Written { number, key: &target.key, info: plan.info(target) }
        })
        .collect()
}

/// A file to be written.
#[derive(Debug, PartialEq)]
pub(super) struct Shard {
    pub(super) name: String,
    /// Its first bytes.
    pub(super) header: Vec<u8>,
    /// Each tensor, and where it starts in the file.
    pub(super) tensors: Vec<(usize, u64)>,
    /// Size of the whole file.
    pub(super) len: u64,
}

impl Shard {
    /// What a tensor's checksum goes by: its key, or, where files have equal keys, that of its file.
    pub(super) fn key_for_sums(&self, key: &Key, ranks: Option<&RankFiles>) -> String {
        match ranks.and_then(|ranks| ranks.of(key)) {
            Some((_, key)) => key_within(&self.name, key),
            None => key.to_string(),
        }
    }
}

/// A key of a file whose keys other files have too.
pub(super) fn key_within(file: &str, key: &str) -> String {
    format!("{file}:{key}")
}

/// Files and index of a checkpoint.
#[derive(Debug, PartialEq)]
pub(super) struct Shards {
    pub(super) files: Vec<Shard>,
    /// The text of `model.safetensors.index.json`, if there are several files.
    pub(super) index: Option<String>,
}

/// The name of the index.
pub(super) const INDEX: &str = "model.safetensors.index.json";

fn nbytes(item: &Written<'_>) -> Result<u64> {
    item.info.nbytes().ok_or_else(|| {
        Error::corrupt(format!("{} is no whole number of bytes", item.info))
            .at_key(item.key.as_str())
    })
}

/// Where within a block the runs of an item should begin, as if it began at 0, and how long they
/// are.
pub(super) type Phases<'a> = dyn Fn(usize) -> Vec<(u64, u64)> + 'a;

/// Lays out files. Headers are padded so that most bytes begin where `phases` asks.
pub(super) fn lay_out(
    items: &[Written<'_>],
    into: Files<'_>,
    metadata: &BTreeMap<String, String>,
    phases: &Phases<'_>,
) -> Result<Shards> {
    let groups = grouped(items, into)?;
    let total = items
        .iter()
        .try_fold(0u64, |sum, item| Ok::<_, Error>(sum.saturating_add(nbytes(item)?)))?;
    let count = groups.len();
    let mut files = Vec::with_capacity(count);
    let mut map: Vec<(&Key, usize)> = Vec::with_capacity(items.len());
    for (name, mut group) in groups {
        group.sort_by_key(|item| std::cmp::Reverse(item.info.dtype.bits()));
        let entries: Vec<(Key, TensorInfo)> =
            group.iter().map(|item| (into.key(item.key), item.info.clone())).collect();
        let metadata = into.metadata(&group, metadata);
        let (mut header, offsets) = safetensors_header(&entries, &metadata)?;
        if let Some(phase) = wanted_phase(&group, &offsets, phases) {
            let missing = (phase + BLOCK - header.len() as u64 % BLOCK) % BLOCK;
            header = padded(header, missing)?;
        }
        let start = header.len() as u64;
        let place = |offset: u64| {
            start
                .checked_add(offset)
                .ok_or_else(|| Error::new(ErrorKind::Limit, "a file would exceed 64 bits"))
        };
        let tensors = group
            .iter()
            .zip(&offsets)
            .map(|(item, offset)| Ok((item.number, place(*offset)?)))
            .collect::<Result<Vec<_>>>()?;
        let data = group
            .iter()
            .try_fold(0u64, |sum, item| Ok::<_, Error>(sum.saturating_add(nbytes(item)?)))?;
        map.extend(group.iter().map(|item| (item.key, files.len())));
        files.push(Shard { name, header, tensors, len: place(data)? });
    }
    // Files of ranks have equal keys, which no index can tell apart.
    let index = match into {
        Files::Sized { .. } if count > 1 => Some(index(map, &files, total)?),
        Files::Sized { .. } | Files::Ranks(_) => None,
    };
    Ok(Shards { files, index })
}

/// Which items go into which file, by name, in order.
pub(in crate::execute) fn grouped<'a>(
    items: &[Written<'a>],
    into: Files<'_>,
) -> Result<Vec<(String, Vec<Written<'a>>)>> {
    let groups = match into {
        Files::Ranks(files) => return by_rank(items, files),
        Files::Sized { limit: Some(limit), .. } => split(items, limit)?,
        Files::Sized { limit: None, .. } => vec![items.to_vec()],
    };
    let count = groups.len();
    let name = |at: usize| match into {
        Files::Sized { name, .. } if count == 1 => name.to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", at + 1),
    };
    Ok(groups.into_iter().enumerate().map(|(at, group)| (name(at), group)).collect())
}

/// The tensors of each rank.
fn by_rank<'a>(
    items: &[Written<'a>],
    files: &RankFiles,
) -> Result<Vec<(String, Vec<Written<'a>>)>> {
    let mut ranks: BTreeMap<Vec<u64>, Vec<Written<'a>>> = BTreeMap::new();
    for item in items {
        let Some((numbers, _)) = files.of(item.key) else {
            let error = Error::new(ErrorKind::Unsupported, "the key belongs to no rank's file");
            return Err(error.at_key(item.key.as_str()).hint(format!(
                "files {files} are written, so each key begins with the number of a rank: `{}.{}`; rename it so, or drop it",
                files.example(),
                item.key
            )));
        };
        ranks.entry(numbers).or_default().push(*item);
    }
    Ok(ranks.into_iter().map(|(numbers, group)| (files.name(&numbers), group)).collect())
}

/// Where within a block the data should start, for most bytes to begin where they are asked to;
/// `None` if it doesn't matter.
fn wanted_phase(group: &[Written<'_>], offsets: &[u64], phases: &Phases<'_>) -> Option<u64> {
    let mut votes: BTreeMap<u64, u64> = BTreeMap::new();
    for (item, offset) in group.iter().zip(offsets) {
        for (phase, len) in phases(item.number) {
            let votes = votes.entry((phase + BLOCK - offset % BLOCK) % BLOCK).or_default();
            *votes = votes.saturating_add(len);
        }
    }
    // Readers may rely on the alignment of the data, so nothing else is on offer.
    votes
        .into_iter()
        .filter(|(phase, _)| phase % DATA_ALIGNMENT == 0)
        .max_by_key(|(phase, len)| (*len, std::cmp::Reverse(*phase)))
        .map(|(phase, _)| phase)
}

/// A header made longer by spaces.
fn padded(mut header: Vec<u8>, more: u64) -> Result<Vec<u8>> {
    let len = (header.len() as u64)
        .checked_add(more)
        .and_then(|len| len.checked_sub(8))
        .filter(|len| *len <= MAX_HEADER_LEN);
    let (Some(len), Ok(more)) = (len, usize::try_from(more)) else {
        return Err(Error::new(ErrorKind::Limit, "the header would exceed the format's limit"));
    };
    header.resize(header.len() + more, b' ');
    if let Some(field) = header.first_chunk_mut::<8>() {
        *field = len.to_le_bytes();
    }
    Ok(header)
}

fn split<'a>(items: &[Written<'a>], limit: u64) -> Result<Vec<Vec<Written<'a>>>> {
    let mut shards = Vec::new();
    let (mut current, mut size) = (Vec::new(), 0u64);
    for item in items {
        let bytes = nbytes(item)?;
        if bytes > limit {
            shards.push(vec![*item]);
            continue;
        }
        if size.saturating_add(bytes) > limit {
            shards.push(std::mem::take(&mut current));
            size = 0;
        }
        current.push(*item);
        size += bytes;
    }
    if !current.is_empty() || shards.is_empty() {
        shards.push(current);
    }
    Ok(shards)
}

/// An index, as it is written.
#[derive(Serialize)]
struct Index<'a> {
    metadata: Metadata,
    weight_map: Map<'a>,
}

#[derive(Serialize)]
struct Metadata {
    total_size: u64,
}

/// Each key with the number of its file, written as the file's name.
struct Map<'a> {
    map: Vec<(&'a Key, usize)>,
    files: &'a [Shard],
}

impl Serialize for Map<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_map(self.map.iter().map(|(key, file)| (key, &self.files[*file].name)))
    }
}

/// The text of an index.
fn index(mut map: Vec<(&Key, usize)>, files: &[Shard], total: u64) -> Result<String> {
    map.sort_by(|a, b| natural_order(a.0, b.0));
    let index = Index { metadata: Metadata { total_size: total }, weight_map: Map { map, files } };
    let mut text = serde_json::to_string_pretty(&index)
        .map_err(|error| Error::corrupt(format!("cannot write the index: {error}")))?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;

    fn groups(sizes: &[u64], limit: u64) -> Vec<Vec<usize>> {
        let keys: Vec<Key> = (0..sizes.len()).map(|i| format!("t.{i}").into()).collect();
        let infos: Vec<TensorInfo> =
            sizes.iter().map(|size| TensorInfo::new(Dtype::U8, vec![*size])).collect();
        let items: Vec<Written<'_>> = (0..sizes.len())
            .map(|i| Written { number: i, key: &keys[i], info: &infos[i] })
            .collect();
        split(&items, limit)
            .unwrap()
            .into_iter()
            .map(|group| group.into_iter().map(|item| item.number).collect())
            .collect()
    }

    #[test]
    fn shards_fill_greedily_and_large_tensors_stand_alone() {
        assert_eq!(groups(&[4, 4, 4], 8), [vec![0, 1], vec![2]]);
        assert_eq!(groups(&[8, 1], 8), [vec![0], vec![1]]);
        assert_eq!(groups(&[3, 9, 3], 8), [vec![1], vec![0, 2]]);
        assert_eq!(groups(&[9, 9], 8), [vec![0], vec![1]]);
        assert_eq!(groups(&[], 8), [Vec::<usize>::new()]);
        assert_eq!(groups(&[0, 8, 0], 8), [vec![0, 1, 2]]);
    }

    #[test]
    fn wide_dtypes_come_first_in_a_file() {
        let keys: Vec<Key> = vec!["a".into(), "b".into(), "c".into()];
        let infos =
            [Dtype::U8, Dtype::F32, Dtype::BF16].map(|dtype| TensorInfo::new(dtype, vec![3]));
        let items: Vec<Written<'_>> =
            (0..3).map(|i| Written { number: i, key: &keys[i], info: &infos[i] }).collect();
        let shards = lay_out(
            &items,
            Files::Sized { limit: Some(1000), name: "model.safetensors" },
            &BTreeMap::new(),
            &|_| Vec::new(),
        )
        .unwrap();
        let file = &shards.files[0];
        let start = file.header.len() as u64;
        assert_eq!(file.tensors, [(1, start), (2, start + 12), (0, start + 18)]);
        assert_eq!((file.len, &shards.index), (start + 21, &None));
    }
}
