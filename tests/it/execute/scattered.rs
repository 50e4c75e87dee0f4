//! Stores whose tensors lie in several boxes, in files or in memory, with strides: what is read from
//! them is what is read from the same tensors in one run.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use regraft::error::{Error, ErrorKind, Result};
use regraft::execute::{WriteOptions, naive, views, write};
use regraft::key::Key;
use regraft::plan::Op;
use regraft::store::{
    Blob, Boxes, Files, Hints, Identity, OpenOptions, Range, StateDict, Storages, Store, StoredBox,
    open,
};
use regraft::tensor::{Dtype, Header, Storage, TensorInfo, TensorView};

use super::over::Over;
use super::{Build, noise};

/// Tensors in boxes of files that are also in memory.
struct Scattered {
    header: Header,
    boxes: Vec<(Key, Boxes)>,
    blobs: Vec<(Storage, File, PathBuf)>,
    hints: Hints,
}

impl Scattered {
    /// Cuts each tensor of a state dict at some places of its dimensions and lays the boxes out in
    /// two blobs, each with its dimensions in another order and a gap before it.
    fn of(dict: &StateDict, cuts: &[u64], ranges: usize, directory: &Path) -> Self {
        let mut bytes: [Vec<u8>; 2] = [vec![7; 3], vec![9; 5]];
        let (mut header, mut all, mut turn) = (Header::default(), Vec::new(), 0);
        for (key, view) in dict.iter() {
            let info = view.info().clone();
            let mut boxes = Vec::new();
            for (start, shape) in parts(view.shape(), cuts) {
                let mut part = view.clone();
                for (dim, (start, n)) in start.iter().zip(&shape).enumerate() {
                    part = part.narrow(dim, *start, *n).unwrap();
                }
                // The last dimension first every other time.
                let mut order: Vec<usize> = (0..shape.len()).collect();
                if turn % 2 == 1 {
                    order.reverse();
                }
                let laid = part.permute(&order).unwrap();
                let blob = turn % 2;
                let offset = bytes[blob].len() as u64;
                bytes[blob].extend(laid.to_vec());
                bytes[blob].extend([0xee; 3]);
                let along = laid.shape().contiguous_strides();
                let mut strides = vec![0; shape.len()];
                for (at, dim) in order.iter().enumerate() {
                    strides[*dim] = along[at];
                }
                boxes.push(StoredBox {
                    start: start.into(),
                    shape: shape.into(),
                    blob: Blob(blob as u32),
                    offset,
                    strides: strides.into(),
                });
                turn += 1;
            }
            header.tensors.extend(Header::from_infos([(key.clone(), info.clone())]).tensors);
            all.push((key.clone(), Boxes::new(info, boxes).unwrap()));
        }
        let blobs = bytes.into_iter().enumerate().map(|(at, bytes)| {
            let path = directory.join(format!("blob{at}"));
            std::fs::write(&path, &bytes).unwrap();
            (Storage::new(bytes), File::open(&path).unwrap(), path)
        });
        Self { header, boxes: all, blobs: blobs.collect(), hints: Hints::new(16, ranges) }
    }
}

/// The boxes between some cuts: starts and sizes.
fn parts(shape: &[u64], cuts: &[u64]) -> Vec<(Vec<u64>, Vec<u64>)> {
    let mut found = vec![(Vec::new(), Vec::new())];
    for (dim, size) in shape.iter().enumerate() {
        let cut = cuts.get(dim).map_or(*size, |cut| cut % (size + 1));
        let pieces: Vec<(u64, u64)> =
            [(0, cut), (cut, size - cut)].into_iter().filter(|(_, n)| *n > 0).collect();
        found = found
            .iter()
            .flat_map(|(start, shape)| {
                pieces.iter().map(move |(from, n)| {
                    ([&start[..], &[*from]].concat(), [&shape[..], &[*n]].concat())
                })
            })
            .collect();
    }
    found
}

impl Store for Scattered {
    fn header(&self) -> &Header {
        &self.header
    }

    fn boxes(&self, key: &str) -> Result<Boxes> {
        let found = self.boxes.iter().find(|(known, _)| known.as_str() == key);
        found.map(|(_, boxes)| boxes.clone()).ok_or_else(|| Error::corrupt("no such key"))
    }

    fn read(&self, ranges: &mut [Range<'_>]) -> Result<()> {
        assert!(self.hints.ranges > 1 || ranges.len() < 1 << 20);
        for range in ranges {
            let (_, file, path) = &self.blobs[range.blob.0 as usize];
            file.read_exact_at(range.buffer, range.offset)
                .map_err(|error| Error::io("cannot read", path, error))?;
        }
        Ok(())
    }

    fn hints(&self) -> Hints {
        self.hints
    }

    fn identity(&self) -> Option<Identity> {
        None
    }

    fn unchanged(&self) -> Result<()> {
        Ok(())
    }

    fn storages(&self) -> Option<&dyn Storages> {
        Some(self)
    }

    fn files(&self) -> Option<&dyn Files> {
        Some(self)
    }
}

impl Storages for Scattered {
    fn storage(&self, blob: Blob) -> Result<Storage> {
        Ok(self.blobs[blob.0 as usize].0.clone())
    }
}

impl Files for Scattered {
    fn file(&self, blob: Blob) -> Result<(&File, &Path, u64)> {
        let (_, file, path) = &self.blobs[blob.0 as usize];
        Ok((file, path, 0))
    }
}

/// A plan with something of each kind: a tensor as it is, a part, a transpose, two joined, computed
/// values.
fn every_kind(dict: &StateDict) -> Build {
    let mut build = Build::default();
    let (w, v) = (build.source(dict, "w"), build.source(dict, "v"));
    build.target("w", w);
    let turned = build.permute(w, &[2, 0, 1]);
    build.target("turned", turned);
    let rows = build.narrow(w, 0, 1, 3);
    build.target("rows", rows);
    let inner = build.narrow(turned, 2, 2, 2);
    build.target("inner", inner);
    let both = build.concat(&[v, w], 0);
    build.target("both", both);
    let wide = build.push(Op::Cast, &[w], TensorInfo::new(Dtype::F32, vec![4, 5, 6]));
    build.target("wide", wide);
    let scalar = build.source(dict, "scalar");
    build.target("scalar", scalar);
    build
}

fn tensors() -> StateDict {
    let tensor = |shape: &[u64], seed| {
        let info = TensorInfo::new(Dtype::BF16, shape);
        let bytes = noise(usize::try_from(info.nbytes().unwrap()).unwrap(), seed);
        TensorView::contiguous(Storage::new(bytes), info, 0).unwrap()
    };
    let list =
        [("w", tensor(&[4, 5, 6], 1)), ("v", tensor(&[2, 5, 6], 2)), ("scalar", tensor(&[], 3))];
    list.into_iter().map(|(key, view)| (Key::from(key), view)).collect()
}

/// What a plan gives, in every way, from a store; each must be what it gives from `dict`.
fn same(build: &Build, dict: &StateDict, store: &dyn Store) {
    let expected: Vec<Vec<u8>> = build
        .0
        .targets
        .iter()
        .map(|target| naive::evaluate(&build.0, dict, target.node).unwrap())
        .collect();
    let made = views(&build.0, store).unwrap();
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    write(&build.0, store, &out, &WriteOptions::default()).unwrap();
    let written = open(&out, &OpenOptions::default()).unwrap();
    for (target, expected) in build.0.targets.iter().zip(&expected) {
        let key = target.key.as_str();
        assert_eq!(&naive::evaluate(&build.0, store, target.node).unwrap(), expected, "{key}");
        assert_eq!(&made.tensors[key].to_vec(), expected, "{key} in memory");
        assert_eq!(&written.view(key).unwrap().to_vec(), expected, "{key} in a file");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn boxes_in_several_files_read_as_one_run(
        cuts in prop::collection::vec(0u64..7, 3), ranges in 1usize..4,
    ) {
        let (dict, place) = (tensors(), tempfile::tempdir().unwrap());
        let store = Scattered::of(&dict, &cuts, ranges, place.path());
        for (key, view) in dict.iter() {
            let expected = view.to_vec();
            for start in 0..expected.len() {
                let mut part = vec![0; (expected.len() - start).min(1 + start % 9)];
                store.read_at(key, start as u64, &mut part).unwrap();
                prop_assert_eq!(&part[..], &expected[start..start + part.len()], "{} {}", key, start);
            }
        }
        same(&every_kind(&dict), &dict, &store);
    }

    #[test]
    fn strided_tensors_in_memory_read_as_one_run(
        order in Just(vec![0usize, 1, 2]).prop_shuffle(), skip in 0u64..3,
    ) {
        // A window of a larger storage, with its dimensions in any order.
        let dict = tensors();
        let strided: StateDict = dict.iter().map(|(key, view)| {
            if view.shape().is_empty() {
                return (key.clone(), view.clone());
            }
            let laid = view.permute(&order).unwrap();
            let mut wider = vec![0xeeu8; 2 * skip as usize];
            wider.extend(laid.to_vec());
            let info = TensorInfo::new(view.dtype(), laid.shape().to_vec());
            let stored = TensorView::contiguous(Storage::new(wider), info, 2 * skip).unwrap();
            let mut back = vec![0; 3];
            order.iter().enumerate().for_each(|(at, dim)| back[*dim] = at);
            (key.clone(), stored.permute(&back).unwrap())
        }).collect();
        same(&every_kind(&dict), &dict, &strided);
        // What gives no storage to share is read.
        let read = Over { storages: false, ..Over::new(&strided) };
        same(&every_kind(&dict), &dict, &read);
    }
}

#[test]
fn a_transposed_tensor_is_not_read_element_by_element() {
    let bytes = noise(512 * 256 * 4, 11);
    let info = TensorInfo::new(Dtype::F32, vec![512, 256]);
    let stored = TensorView::contiguous(Storage::new(bytes), info, 0).unwrap();
    let turned = stored.permute(&[1, 0]).unwrap();
    let dict: StateDict = [(Key::from("w"), turned.clone())].into_iter().collect();
    let requests = AtomicUsize::new(0);
    let reading = |_: &str, _: u64, _: usize| {
        requests.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let source = Over { storages: false, reading: &reading, ..Over::new(&dict) };
    let expected = turned.to_vec();
    for (offset, len) in [(0, expected.len()), (1 << 16, 1 << 15), (5, 4001)] {
        let mut found = vec![0; len];
        source.read_at("w", offset as u64, &mut found).unwrap();
        assert_eq!(found, expected[offset..offset + len]);
    }
    // Rows that lie apart by less than what is read through are one range.
    assert!(requests.into_inner() <= 3);
}

#[test]
fn a_strided_tensor_is_moved_as_a_view() {
    let dict = tensors();
    let turned = dict.get("w").unwrap().permute(&[2, 1, 0]).unwrap();
    let source: StateDict = [(Key::from("w"), turned.clone())].into_iter().collect();
    let mut build = Build::default();
    let w = build.source(&source, "w");
    let back = build.permute(w, &[2, 1, 0]);
    build.target("back", back);
    let rows = build.narrow(w, 1, 1, 3);
    build.target("rows", rows);
    let made = views(&build.0, &source).unwrap();
    assert_eq!((made.report.aliased, made.report.copied), (2, 0));
    assert!(made.tensors["back"].same_tensor(dict.get("w").unwrap()));
    assert!(made.tensors["rows"].same_tensor(&turned.narrow(1, 1, 3).unwrap()));
}

#[test]
fn a_tensor_that_repeats_an_element_is_one_box() {
    // Strides of 0, as `expand` gives them.
    let storage = Storage::new(vec![1, 0, 2, 0, 3, 0]);
    let info = TensorInfo::new(Dtype::I16, vec![4, 3]);
    let expanded = TensorView::strided(storage, info, vec![0, 1], 0).unwrap();
    let source: StateDict = [(Key::from("w"), expanded.clone())].into_iter().collect();
    assert_eq!(source.boxes("w").unwrap().get(0).unwrap().span(), Some(3));
    let mut build = Build::default();
    let w = build.source(&source, "w");
    let turned = build.permute(w, &[1, 0]);
    build.target("turned", turned);
    assert_eq!(
        views(&build.0, &source).unwrap().tensors["turned"].to_vec(),
        [1, 0, 1, 0, 1, 0, 1, 0, 2, 0, 2, 0, 2, 0, 2, 0, 3, 0, 3, 0, 3, 0, 3, 0]
    );
}

#[test]
fn boxes_must_cover_a_tensor_exactly_once() {
    let info = TensorInfo::new(Dtype::F32, vec![4, 6]);
    let part = |start: [u64; 2], shape: [u64; 2]| StoredBox {
        start: start.to_vec().into(),
        shape: shape.to_vec().into(),
        blob: Blob(0),
        offset: 0,
        strides: vec![shape[1], 1].into(),
    };
    let of = |parts: Vec<StoredBox>| Boxes::new(info.clone(), parts);
    let halves = vec![part([2, 0], [2, 6]), part([0, 0], [2, 6])];
    assert_eq!(of(halves).unwrap().len(), 2);
    let quarters = [[0, 0], [0, 3], [2, 0], [2, 3]].map(|start| part(start, [2, 3]));
    assert_eq!(of(quarters.to_vec()).unwrap().len(), 4);
    let fails = |parts: Vec<StoredBox>| of(parts).unwrap_err();
    // An element in none, in two, as many in two as in none, and one outside.
    assert_eq!(fails(vec![part([0, 0], [2, 6])]).kind(), ErrorKind::Corrupt);
    assert_eq!(fails(vec![part([0, 0], [3, 6]), part([1, 0], [3, 6])]).kind(), ErrorKind::Corrupt);
    assert_eq!(fails(vec![part([0, 0], [2, 6]), part([1, 0], [2, 6])]).kind(), ErrorKind::Corrupt);
    assert_eq!(fails(vec![part([0, 0], [4, 7])]).kind(), ErrorKind::Corrupt);
    assert_eq!(fails(vec![part([u64::MAX, 0], [4, 6])]).kind(), ErrorKind::Corrupt);
    let far = StoredBox { offset: u64::MAX - 8, ..part([0, 0], [4, 6]) };
    assert_eq!(fails(vec![far]).kind(), ErrorKind::Corrupt);
    // Parts without elements cover nothing, and a tensor without elements needs none.
    let empty = TensorInfo::new(Dtype::F32, vec![0, 6]);
    assert!(
        Boxes::new(empty, vec![part([0, 0], [0, 6]), part([0, 3], [0, 3])]).unwrap().is_empty()
    );
    let with_empty = vec![part([0, 0], [4, 6]), part([2, 2], [0, 4])];
    assert_eq!(of(with_empty).unwrap().len(), 1);
    // Half bytes lie as one run or not at all.
    let half = TensorInfo::new(Dtype::F4, vec![4, 4]);
    assert!(Boxes::row_major(half.clone(), Blob(0), 1).is_ok());
    let turned = Boxes::strided(half, Blob(0), 0, vec![1, 4].into()).unwrap_err();
    assert_eq!(turned.kind(), ErrorKind::Unsupported);
}
