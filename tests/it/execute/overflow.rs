//! What overflows while it is computed is counted, once, however a plan is carried out.

use std::collections::BTreeMap;

use regraft::execute::{Rank, WriteOptions, views, write};
use regraft::plan::{NodeId, Op, Plan, Reduction};
use regraft::store::{OpenOptions, StateDict, open};
use regraft::tensor::{Dtype, Storage, TensorInfo, TensorView};

use super::Build;

fn floats(values: &[f32]) -> TensorView {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorView::contiguous(
        Storage::new(bytes),
        TensorInfo::new(Dtype::F32, &[values.len() as u64][..]),
        0,
    )
    .unwrap()
}

/// One tensor that overflows in two of six elements, one that was infinite before, one that only
/// loses digits.
fn built() -> (StateDict, Plan) {
    let mut store = StateDict::new();
    // Of F16 65504 is the largest, and 65520 the least that rounds to infinity.
    store.insert("big".into(), floats(&[65520.0, -1e9, 65519.0, 1.0, f32::INFINITY, f32::NAN]));
    store.insert("was".into(), floats(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.1]));
    store.insert("small".into(), floats(&[0.1, 1e-9, 65519.0]));
    let mut build = Build::default();
    let mut all: Vec<NodeId> = Vec::new();
    for key in ["big", "was", "small"] {
        let source = build.source(&store, key);
        let cast = build.cast(source, Dtype::F16);
        build.target(key, cast);
        all.push(cast);
    }
    let joined = build.concat(&all, 0);
    build.target("joined", joined);
    // 448 is the largest of F8_E4M3, which has no infinity: all of three elements become NaN that
    // were finite.
    let big = build.source(&store, "big");
    let narrow = build.narrow(big, 0, 0, 3);
    let eighth = build.cast(narrow, Dtype::F8_E4M3);
    build.target("eighth", eighth);
    // Arithmetic in F16: 40000 + 40000.
    let info = TensorInfo::new(Dtype::F16, &[2][..]);
    let made = build.push(Op::Fill { value: 40000.0 }, &[], info.clone());
    let sum = build.push(Op::Add { value: 40000.0 }, &[made], info);
    build.target("sum", sum);
    (store, build.0)
}

fn expected() -> BTreeMap<String, u64> {
    [("big", 2), ("eighth", 3), ("joined", 2), ("sum", 2)]
        .map(|(key, count)| (key.to_owned(), count))
        .into()
}

fn counts(report: &regraft::execute::Report) -> BTreeMap<String, u64> {
    report.overflowed.iter().map(|(key, count)| (key.to_string(), *count)).collect()
}

#[test]
fn in_memory_and_in_files_the_same_elements_count() {
    let (store, plan) = built();
    assert_eq!(counts(&views(&plan, &store).unwrap().report), expected());
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let options = WriteOptions { max_shard_size: Some(8), ..WriteOptions::default() };
    let report = write(&plan, &store, &out, &options).unwrap();
    assert_eq!((counts(&report), report.files.len()), (expected(), 7));
    let [finding] = &report.findings()[..] else { panic!("one finding") };
    insta::assert_snapshot!(regraft::diagnostic::render(finding, false));
    let summed =
        WriteOptions { checksums: true, max_shard_size: Some(8), ..WriteOptions::default() };
    assert_eq!(
        counts(&write(&plan, &store, &directory.path().join("summed"), &summed).unwrap()),
        expected()
    );
}

#[test]
fn each_rank_knows_its_share_and_the_last_knows_all() {
    let (store, plan) = built();
    let directory = tempfile::tempdir().unwrap();
    // Ranks have to know that they read one source: that of a file.
    let mut same = Build::default();
    for key in ["big", "was", "small"] {
        let source = same.source(&store, key);
        same.target(key, source);
    }
    let file = directory.path().join("source.safetensors");
    write(&same.0, &store, &file, &WriteOptions::default()).unwrap();
    let store = open(&file, &OpenOptions::default()).unwrap();
    let out = directory.path().join("out");
    let run = |rank| {
        let rank = Some(Rank::new(rank, 2).unwrap());
        write(
            &plan,
            &store,
            &out,
            &WriteOptions { max_shard_size: Some(8), rank, ..WriteOptions::default() },
        )
        .unwrap()
    };
    let first = run(0);
    let again = run(0);
    assert!(!first.complete && again.kept > 0);
    assert_eq!(counts(&again), counts(&first), "what is kept of an earlier run still counts");
    assert!(counts(&first).len() < expected().len());
    let last = run(1);
    assert!(last.complete);
    assert_eq!(counts(&last), expected());
}

#[test]
fn what_is_not_fused_counts_too() {
    // The largest of each row is there before what it scales is computed.
    let mut store = StateDict::new();
    let codes = TensorView::contiguous(
        Storage::new(vec![0x38; 4]),
        TensorInfo::new(Dtype::F8_E4M3, &[2, 2][..]),
        0,
    )
    .unwrap();
    store.insert("x".into(), codes);
    let scales: Vec<u8> =
        [1f32, 1e6, 2.0, f32::INFINITY].iter().flat_map(|value| value.to_le_bytes()).collect();
    store.insert(
        "scales".into(),
        TensorView::contiguous(Storage::new(scales), TensorInfo::new(Dtype::F32, &[2, 2][..]), 0)
            .unwrap(),
    );
    let mut build = Build::default();
    let (x, scales) = (build.source(&store, "x"), build.source(&store, "scales"));
    let half = build.cast(scales, Dtype::F16);
    let largest = build.push(
        Op::Reduce { take: Reduction::AbsMax, dims: vec![1] },
        &[half],
        TensorInfo::new(Dtype::F16, &[2, 1][..]),
    );
    let largest = build.expand(largest, &[2, 2]);
    let whole = build.multiply(x, largest, Dtype::F16);
    build.target("w", whole);
    let report = views(&build.0, &store).unwrap().report;
    assert_eq!(counts(&report), [("w".to_owned(), 1)].into());
    assert_eq!(report.temporaries, 1);
    let directory = tempfile::tempdir().unwrap();
    let report = write(
        &build.0,
        &store,
        &directory.path().join("out.safetensors"),
        &WriteOptions::default(),
    )
    .unwrap();
    assert_eq!(counts(&report), [("w".to_owned(), 1)].into());
}
