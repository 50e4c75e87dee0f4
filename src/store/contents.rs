//! [`Contents`]: what one file of a checkpoint holds, whatever its format.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use smallvec::SmallVec;

use super::archive::Packed;
use super::boxes::{Blob, Boxes};
use super::json::{ByKey, Row};
use crate::key::Key;
use crate::tensor::{Remark, TensorInfo};

/// Tensors of one file, and where each lies in it.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Key -> dtype and shape, and the bytes `begin..end` of the file, in the file's order.
    pub(super) tensors: ByKey<Row>,
    /// The boxes of those tensors that aren't such a run: of [`FILE`], and of packed bytes.
    pub(super) parts: ByKey<Boxes>,
    pub(super) metadata: BTreeMap<String, String>,
    /// Bytes that have to be unpacked before they are tensors'.
    pub(super) packed: Vec<Packed>,
    /// Keys that are one tensor: they lie in one place.
    pub(super) shared: Vec<Vec<Key>>,
    pub(super) remarks: Vec<Remark>,
}

/// The file itself, among the blobs of the boxes of its contents.
pub(super) const FILE: Blob = Blob(0);

/// Packed bytes of the file, by their number.
pub(super) fn packed(number: usize) -> Blob {
    Blob(u32::try_from(number + 1).unwrap_or(u32::MAX))
}

/// Which packed bytes a blob is; `None` if it is the file itself.
pub(super) fn as_packed(blob: Blob) -> Option<usize> {
    usize::try_from(blob.0.checked_sub(1)?).ok()
}

impl Contents {
    /// Notes which keys lie in one place: they are one tensor.
    pub(super) fn note_shared(&mut self) {
        let mut groups: IndexMap<(Lies<'_>, &TensorInfo), SmallVec<[&Key; 1]>> = IndexMap::new();
        for (key, (info, run)) in &self.tensors {
            if info.numel() != Some(0) {
                let place = self.parts.get(key).map_or(Lies::Run(*run), Lies::of);
                groups.entry((place, info)).or_default().push(key);
            }
        }
        self.shared = groups
            .into_values()
            .filter(|keys| keys.len() > 1)
            .map(|keys| keys.into_iter().cloned().collect())
            .collect();
    }
}

/// Where a tensor lies in its file, to be compared.
#[derive(PartialEq, Eq, Hash)]
enum Lies<'p> {
    Run([u64; 2]),
    /// Of the only box: its blob, where it begins, and its steps.
    Box(u32, u64, Vec<(&'p u64, &'p u64)>),
}

impl<'p> Lies<'p> {
    fn of(boxes: &'p Boxes) -> Self {
        let part = boxes.get(0);
        let steps = part.into_iter().flat_map(|part| part.shape.iter().zip(part.strides.iter()));
        // A step along a single element goes nowhere.
        let steps = steps.filter(|(n, _)| **n != 1).collect();
        let (blob, offset) = part.map_or((0, 0), |part| (part.blob.0, part.offset));
        Self::Box(blob, offset, steps)
    }
}
