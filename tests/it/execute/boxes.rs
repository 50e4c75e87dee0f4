//! Boxes of targets: what is read for them, where it goes, and what is refused.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use regraft::error::{Error, ErrorKind};
use regraft::execute::{Destination, read_boxes, views};
use regraft::plan::{DropReason, NodeId, Plan, TargetBox};
use regraft::store::{
    Boxes, Counted, Files, Hints, Identity, OpenOptions, Range, StateDict, Storages, Store, open,
};
use regraft::tensor::{Dtype, Header};

use super::{Build, dict};

/// Reads one box in row-major order. Gives it, and how many bytes were read.
fn read(plan: &Plan, store: &StateDict, part: TargetBox) -> Result<(Vec<u8>, u64), Error> {
    let bits = plan.target(&part.key).map_or(8, |target| plan.info(target).dtype.bits());
    let numel: u64 = part.shape.iter().product();
    let mut buffer = vec![0; (numel * u64::from(bits) / 8) as usize];
    let counted = Counted::new(store);
    let mut wanted = [Destination::row_major(part, &mut buffer)];
    let report = read_boxes(plan, &counted, &mut wanted, None)?;
    assert_eq!(report.bytes_read, counted.bytes_read(), "the report counts what was read");
    Ok((buffer, report.bytes_read))
}

/// The box `[rows, columns]` of a matrix of elements of `size` bytes.
fn of_matrix(
    bytes: &[u8],
    columns: usize,
    size: usize,
    rows: std::ops::Range<usize>,
    cols: std::ops::Range<usize>,
) -> Vec<u8> {
    rows.flat_map(|row| {
        bytes[(row * columns + cols.start) * size..(row * columns + cols.end) * size].to_vec()
    })
    .collect()
}

/// A store that counts how often it is asked.
struct Asked<'a> {
    store: &'a dyn Store,
    requests: AtomicU64,
}

impl Store for Asked<'_> {
    fn header(&self) -> &Header {
        self.store.header()
    }
    fn boxes(&self, key: &str) -> Result<Boxes, Error> {
        self.store.boxes(key)
    }
    fn read(&self, ranges: &mut [Range<'_>]) -> Result<(), Error> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.store.read(ranges)
    }
    fn hints(&self) -> Hints {
        self.store.hints()
    }
    fn identity(&self) -> Option<Identity> {
        self.store.identity()
    }
    fn unchanged(&self) -> Result<(), Error> {
        self.store.unchanged()
    }
    fn storages(&self) -> Option<&dyn Storages> {
        None
    }
    fn files(&self) -> Option<&dyn Files> {
        None
    }
}

fn renamed(store: &StateDict) -> Plan {
    let mut build = Build::default();
    for key in ["a", "b"] {
        let node = build.source(store, key);
        build.target(&format!("new.{key}"), node);
    }
    build.0
}

#[test]
fn rows_of_a_renamed_tensor_are_all_that_is_read() {
    let store = dict(&[("a", Dtype::BF16, &[1000, 64]), ("b", Dtype::BF16, &[3])]);
    let bytes = store.get("a").unwrap().to_vec();
    let part = TargetBox::new("new.a", vec![333, 0], vec![91, 64]);
    let (found, read) = read(&renamed(&store), &store, part).unwrap();
    assert_eq!(found, of_matrix(&bytes, 64, 2, 333..424, 0..64));
    assert_eq!(read, 91 * 64 * 2);
}

#[test]
fn columns_are_read_through_small_gaps_and_around_large_ones() {
    let store = dict(&[("a", Dtype::F32, &[100, 8192]), ("b", Dtype::F32, &[100, 100])]);
    let plan = renamed(&store);
    // A line has 32 KiB, of which 4000 bytes are asked for: what lies between is more than a gap.
    let (found, bytes) =
        read(&plan, &store, TargetBox::new("new.a", [0, 5].to_vec(), vec![100, 1000])).unwrap();
    assert_eq!(found, of_matrix(&store.get("a").unwrap().to_vec(), 8192, 4, 0..100, 5..1005));
    assert_eq!(bytes, 100 * 4000);
    // A line has 400 bytes: all but the ends is read, and read once.
    let (found, bytes) =
        read(&plan, &store, TargetBox::new("new.b", vec![0, 10], vec![100, 50])).unwrap();
    assert_eq!(found, of_matrix(&store.get("b").unwrap().to_vec(), 100, 4, 0..100, 10..60));
    assert_eq!(bytes, (99 * 100 + 50) * 4);
}

#[test]
fn a_rank_reads_its_experts_alone() {
    let experts: Vec<(String, u64)> = (0..8).map(|expert| (format!("e.{expert}"), 128)).collect();
    let experts: Vec<(&str, Dtype, &[u64])> =
        experts.iter().map(|(key, _)| (key.as_str(), Dtype::BF16, &[128, 64][..])).collect();
    let store = dict(&experts);
    let mut build = Build::default();
    let sources: Vec<NodeId> = experts.iter().map(|(key, ..)| build.source(&store, key)).collect();
    let all = build.concat(&sources, 0);
    let all = build.reshape(all, &[8, 128, 64]);
    let turned = build.permute(all, &[0, 2, 1]);
    build.target("experts", turned);
    let part = TargetBox::new("experts", vec![2, 0, 0], vec![3, 64, 128]);
    let (found, bytes) = read(&build.0, &store, part).unwrap();
    let whole = views(&build.0, &store).unwrap().tensors["experts"].to_vec();
    assert_eq!(found, whole[2 * 64 * 128 * 2..5 * 64 * 128 * 2]);
    assert_eq!(bytes, 3 * 64 * 128 * 2);
}

#[test]
fn a_box_across_blocks_reads_its_rows_and_their_scales() {
    let store = dict(&[("x", Dtype::F8_E4M3, &[300, 256]), ("s", Dtype::F32, &[3, 2])]);
    let mut build = Build::default();
    let (x, s) = (build.source(&store, "x"), build.source(&store, "s"));
    let w = build.scaled(x, s, [128, 128], Dtype::BF16);
    build.target("w", w);
    let part = TargetBox::new("w", vec![100, 100], vec![57, 60]);
    let (found, bytes) = read(&build.0, &store, part).unwrap();
    let whole = views(&build.0, &store).unwrap().tensors["w"].to_vec();
    assert_eq!(found, of_matrix(&whole, 256, 2, 100..157, 100..160));
    assert!(bytes <= 57 * 256 + 6 * 4, "{bytes}");
}

#[test]
fn tied_keys_are_read_once_into_both() {
    let store = dict(&[("a", Dtype::F32, &[50, 8])]);
    let mut build = Build::default();
    let a = build.source(&store, "a");
    build.target("embed", a);
    build.tied("head", a, "embed");
    let bytes = store.get("a").unwrap().to_vec();
    let (mut embed, mut head) = (vec![0; 20 * 8 * 4], vec![9; 20 * 16 * 4]);
    let part = |key: &str| TargetBox::new(key, vec![10, 0], vec![20, 8]);
    let mut wanted = [
        Destination::row_major(part("embed"), &mut embed),
        Destination { part: part("head"), buffer: &mut head, strides: Some(vec![16, 2]) },
    ];
    let report = read_boxes(&build.0, &store, &mut wanted, None).unwrap();
    assert_eq!((report.bytes_read, report.copied, report.aliased), (20 * 8 * 4, 1, 1));
    assert_eq!(embed, bytes[10 * 32..30 * 32]);
    for (at, element) in head.chunks(4).enumerate() {
        let (row, column) = (at / 16, at % 16);
        let expected = if column % 2 == 0 {
            embed[(row * 8 + column / 2) * 4..][..4].to_vec()
        } else {
            vec![9; 4]
        };
        assert_eq!(element, expected, "row {row}, column {column}");
    }
    let narrowed = build.0.narrowed(&[part("embed"), part("head")]).unwrap();
    narrowed.check().unwrap();
    assert_eq!(narrowed.target("head").unwrap().tied_to.as_deref(), Some("embed"));
    let other = TargetBox::new("embed", vec![0, 0], vec![20, 8]);
    let apart = build.0.narrowed(&[other, part("head")]).unwrap();
    apart.check().unwrap();
    assert_eq!(apart.target("head").unwrap().tied_to, None, "another box is another tensor");
    let alone = build.0.narrowed(&[part("head")]).unwrap();
    alone.check().unwrap();
    assert_eq!(alone.target("head").unwrap().tied_to, None, "there is nothing to be tied to");
}

#[test]
fn a_narrowed_plan_is_a_plan_of_its_boxes() {
    let store = dict(&[("a", Dtype::F32, &[6, 4]), ("b", Dtype::F32, &[3])]);
    let plan = renamed(&store);
    let narrowed = plan.narrowed(&[TargetBox::new("new.a", vec![1, 2], vec![3, 2])]).unwrap();
    narrowed.check().unwrap();
    assert_eq!(narrowed.targets.len(), 1);
    assert_eq!(narrowed.nodes.len(), 3, "the source and two cuts");
    assert_eq!(narrowed.dropped.len(), 1);
    assert_eq!(&*narrowed.dropped[0].key, "b");
    assert_eq!(narrowed.dropped[0].reason, DropReason::NotWanted);
    let made = views(&narrowed, &store).unwrap();
    let bytes = store.get("a").unwrap().to_vec();
    assert_eq!(made.tensors["new.a"].to_vec(), of_matrix(&bytes, 4, 4, 1..4, 2..4));
    let whole = plan.narrowed(&[
        TargetBox::new("new.b", vec![0], vec![3]),
        TargetBox::new("new.a", vec![0, 0], vec![6, 4]),
    ]);
    assert_eq!(whole.unwrap(), plan, "whole boxes of all targets are the plan");
}

/// Many small tensors of a file, side by side, are one request; nothing is read twice.
#[test]
fn neighbours_in_a_file_are_read_together() {
    let names: Vec<String> = (0..300).map(|i| format!("t.{i}")).collect();
    let tensors: Vec<(&str, Dtype, &[u64])> =
        names.iter().map(|name| (name.as_str(), Dtype::F32, &[8, 4][..])).collect();
    let store = dict(&tensors);
    let mut build = Build::default();
    for name in &names {
        let node = build.source(&store, name);
        build.target(name, node);
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("out");
    regraft::execute::write(&build.0, &store, &place, &regraft::execute::WriteOptions::default())
        .unwrap();
    let checkpoint = open(&place, &OpenOptions::default()).unwrap();
    let mut buffers = vec![vec![0u8; 3 * 4 * 4]; names.len()];
    let mut wanted: Vec<Destination<'_>> = names
        .iter()
        .zip(&mut buffers)
        .map(|(name, buffer)| {
            Destination::row_major(TargetBox::new(name.as_str(), vec![2, 0], vec![3, 4]), buffer)
        })
        .collect();
    let asked = Asked { store: &checkpoint, requests: AtomicU64::new(0) };
    let report = read_boxes(&build.0, &asked, &mut wanted, None).unwrap();
    assert_eq!(asked.requests.into_inner(), 1);
    for (name, buffer) in names.iter().zip(&buffers) {
        assert_eq!(*buffer, store.get(name).unwrap().to_vec()[2 * 16..5 * 16], "{name}");
    }
    // 48 of 128 bytes each; the gaps between are read through.
    assert!(report.bytes_read <= 300 * 128 && report.bytes_read >= 300 * 48, "{report:?}");
}

#[test]
fn what_is_no_box_is_refused_with_its_key() {
    let store = dict(&[("a", Dtype::F32, &[6, 4]), ("b", Dtype::F32, &[3])]);
    let plan = renamed(&store);
    let cases = [
        (("new.c", vec![0], vec![1]), "no such target"),
        (("new.a", vec![0], vec![1]), "the ranks differ"),
        (("new.a", vec![4, 0], vec![3, 4]), "elements 4..7 leave dimension 0"),
        (("new.a", vec![0, u64::MAX], vec![3, 2]), "leave dimension 1"),
    ];
    for ((key, start, shape), expected) in cases {
        let part = TargetBox::new(key, start, shape);
        let refused = plan.narrowed(std::slice::from_ref(&part)).unwrap_err();
        assert!(refused.message().contains(expected), "{refused}");
        let wanted = &mut [Destination::row_major(part, &mut [])];
        let error = read_boxes(&plan, &store, wanted, None).unwrap_err();
        assert_eq!(error.key(), Some(key));
        assert!(error.message().contains(expected), "{error}");
    }
    let twice = [[0, 0], [3, 0]].map(|at| TargetBox::new("new.a", at.to_vec(), vec![3, 4]));
    assert!(plan.narrowed(&twice).unwrap_err().message().contains("two boxes of one target"));
}

#[test]
fn a_destination_that_does_not_fit_is_refused() {
    let store = dict(&[("a", Dtype::F32, &[6, 4]), ("b", Dtype::F32, &[3])]);
    let plan = renamed(&store);
    let cases: [(usize, Option<Vec<u64>>, &str); 6] = [
        (23, None, "23 bytes are no room"),
        (24, Some(vec![1]), "1 strides"),
        (100, Some(vec![1, 1]), "in one place"),
        (100, Some(vec![0, 1]), "in one place"),
        (100, Some(vec![u64::MAX, 1]), "exceed 64 bits"),
        (39, Some(vec![4, 1]), "no room"),
    ];
    for (len, strides, expected) in cases {
        let mut buffer = vec![7; len];
        let part = TargetBox::new("new.a", vec![1, 1], vec![3, 2]);
        let wanted = &mut [Destination { part, buffer: &mut buffer, strides }];
        let error = read_boxes(&plan, &store, wanted, None).unwrap_err();
        assert_eq!((error.kind(), error.key()), (ErrorKind::Unsupported, Some("new.a")));
        assert!(error.message().contains(expected), "{error}");
        assert!(buffer.iter().all(|byte| *byte == 7), "nothing is written");
    }
}

#[test]
fn elements_of_half_a_byte_are_cut_between_bytes() {
    let store = dict(&[("a", Dtype::F4, &[6, 4]), ("b", Dtype::F32, &[3])]);
    let plan = renamed(&store);
    let bytes = store.get("a").unwrap().to_vec();
    let found = read(&plan, &store, TargetBox::new("new.a", vec![1, 2], vec![3, 2])).unwrap().0;
    assert_eq!(found, [bytes[3], bytes[5], bytes[7]]);
    let error = read(&plan, &store, TargetBox::new("new.a", vec![1, 1], vec![3, 2])).unwrap_err();
    assert!(error.message().contains("part a byte"), "{error}");
}

#[test]
fn other_checkpoints_and_cancelled_runs_are_errors() {
    let store = dict(&[("a", Dtype::F32, &[6, 4]), ("b", Dtype::F32, &[3])]);
    let plan = renamed(&store);
    let other = dict(&[("a", Dtype::F32, &[4, 6]), ("b", Dtype::F32, &[3])]);
    let part = || TargetBox::new("new.a", vec![0, 0], vec![6, 4]);
    let error = read(&plan, &other, part()).unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Corrupt, Some("a")));
    let mut buffer = vec![0; 96];
    let wanted = &mut [Destination::row_major(part(), &mut buffer)];
    let cancelled = AtomicBool::new(true);
    let error = read_boxes(&plan, &store, wanted, Some(&cancelled)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
}
