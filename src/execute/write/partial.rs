//! [`Partial`]: sources of which this process has some boxes in memory, and others the rest.

use std::collections::HashMap;

use super::parts::SourceBox;
use crate::error::{Error, Result};
use crate::store::{Blob, Boxes, Files, Hints, Identity, Range, Storages, Store, StoredBox};
use crate::tensor::{Header, Shape};

/// The blob of everything that other processes have.
const ELSEWHERE: Blob = Blob(u32::MAX);

/// How much of a source is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    All,
    Partly,
    Nothing,
}

/// Sources in part.
pub(super) struct Partial<'a> {
    header: &'a Header,
    parts: &'a [SourceBox<'a>],
    by_key: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Partial<'a> {
    /// The boxes that are here. One without elements is none.
    ///
    /// # Errors
    /// If there are more than can be numbered.
    pub(super) fn new(header: &'a Header, parts: &'a [SourceBox<'a>]) -> Result<Self> {
        if u32::try_from(parts.len()).is_err() {
            return Err(Error::corrupt("there are too many parts"));
        }
        let mut by_key: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, part) in parts.iter().enumerate().filter(|(_, part)| !part.shape.contains(&0)) {
            by_key.entry(part.key.as_str()).or_default().push(at);
        }
        Ok(Self { header, parts, by_key })
    }

    /// Whether a blob is here.
    pub(super) fn has(blob: Blob) -> bool {
        blob != ELSEWHERE
    }

    /// How much of a source is here.
    pub(super) fn here(&self, key: &str) -> Here {
        let all = self.header.get(key).and_then(|info| info.shape.numel()).unwrap_or(u64::MAX);
        let own: u64 = self
            .by_key
            .get(key)
            .into_iter()
            .flatten()
            .filter_map(|at| self.parts.get(*at)?.shape.numel())
            .sum();
        match own {
            own if own >= all => Here::All,
            0 => Here::Nothing,
            _ => Here::Partly,
        }
    }
}

impl Store for Partial<'_> {
    fn header(&self) -> &Header {
        self.header
    }

    fn boxes(&self, key: &str) -> Result<Boxes> {
        let info = self.header.get(key).ok_or_else(|| Error::corrupt("there is no such source"))?;
        let none: Vec<u64> = vec![0; info.shape.len()];
        let mut left = vec![(none, info.shape.to_vec())];
        let mut boxes = Vec::new();
        for at in self.by_key.get(key).into_iter().flatten() {
            let Some(part) = self.parts.get(*at) else { continue };
            if part.start.len() != info.shape.len() || part.shape.len() != info.shape.len() {
                return Err(Error::corrupt("a part has another rank than its source"));
            }
            left = left.into_iter().flat_map(|one| without(one, part)).collect();
            boxes.push(StoredBox {
                start: part.start.clone(),
                shape: part.shape.clone(),
                // Counted when the parts were taken.
                blob: u32::try_from(*at).map_or(ELSEWHERE, Blob),
                offset: 0,
                strides: part.strides.clone(),
            });
        }
        boxes.extend(left.into_iter().map(|(start, shape)| {
            let shape = Shape::from(shape);
            let strides = shape.contiguous_strides().into();
            StoredBox { start: start.into(), shape, blob: ELSEWHERE, offset: 0, strides }
        }));
        Boxes::new(info.clone(), boxes)
    }

    fn read(&self, ranges: &mut [Range<'_>]) -> Result<()> {
        for range in ranges {
            let gone = || Error::corrupt("a part of a tensor is read that another process has");
            let part = self.parts.get(range.blob.0 as usize);
            part.and_then(|part| range.fill_from(part.bytes)).ok_or_else(gone)?;
        }
        Ok(())
    }

    fn hints(&self) -> Hints {
        Hints::LOCAL
    }

    fn identity(&self) -> Option<Identity> {
        None
    }

    fn unchanged(&self) -> Result<()> {
        Ok(())
    }

    fn storages(&self) -> Option<&dyn Storages> {
        None
    }

    fn files(&self) -> Option<&dyn Files> {
        None
    }
}

/// Boxes that make up what is left of one without a part.
fn without(
    (start, shape): (Vec<u64>, Vec<u64>),
    part: &SourceBox<'_>,
) -> Vec<(Vec<u64>, Vec<u64>)> {
    let (mut start, mut shape) = (start, shape);
    let end = |at: usize, shape: &[u64], start: &[u64]| start[at].saturating_add(shape[at]);
    let apart = (0..start.len()).any(|dim| {
        let part_end = part.start[dim].saturating_add(part.shape[dim]);
        part.start[dim] >= end(dim, &shape, &start) || part_end <= start[dim]
    });
    if apart {
        return vec![(start, shape)];
    }
    let mut left = Vec::new();
    for dim in 0..start.len() {
        let (from, to) = (part.start[dim], part.start[dim].saturating_add(part.shape[dim]));
        if from > start[dim] {
            let mut before = shape.clone();
            before[dim] = from - start[dim];
            left.push((start.clone(), before));
            shape[dim] -= from - start[dim];
            start[dim] = from;
        }
        let over = end(dim, &shape, &start).saturating_sub(to);
        if over > 0 {
            let (mut first, mut after) = (start.clone(), shape.clone());
            (first[dim], after[dim]) = (to, over);
            left.push((first, after));
            shape[dim] -= over;
        }
    }
    left
}
