//! In memory: what is a view, and of what.

use std::sync::atomic::{AtomicBool, Ordering};

use regraft::error::ErrorKind;
use regraft::execute::{naive, views, views_until};
use regraft::key::Key;
use regraft::plan::Op;
use regraft::store::{Equality, differing_bytes, tensors_equal};
use regraft::store::{OpenOptions, StateDict, Store as _, open, safetensors_header};
use regraft::tensor::{Dtype, Storage, TensorInfo, TensorView};

use super::over::Over;
use super::{Build, dict};

#[test]
fn renames_ties_slices_unstack_and_transposes_copy_nothing() {
    let store = dict(&[("a", Dtype::BF16, &[4, 6]), ("b", Dtype::F32, &[3, 2, 5])]);
    let mut build = Build::default();
    let a = build.source(&store, "a");
    let b = build.source(&store, "b");
    build.target("renamed", a);
    build.tied("tied", a, "renamed");
    let rows = build.narrow(a, 0, 1, 2);
    build.target("rows", rows);
    let columns = build.narrow(a, 1, 2, 3);
    build.target("columns", columns);
    let turned = build.permute(a, &[1, 0]);
    build.target("turned", turned);
    let one = build.narrow(b, 0, 2, 1);
    let one = build.reshape(one, &[2, 5]);
    build.target("unstacked", one);
    let mixed = build.permute(b, &[2, 0, 1]);
    let mixed = build.narrow(mixed, 0, 1, 3);
    build.target("mixed", mixed);
    let flat = build.reshape(b, &[30]);
    build.target("flat", flat);
    // Cut and put together again.
    let (left, right) = (build.narrow(a, 1, 0, 2), build.narrow(a, 1, 2, 4));
    let again = build.concat(&[left, right], 1);
    build.target("again", again);

    let out = views(&build.0, &store).unwrap();
    assert_eq!((out.report.aliased, out.report.copied, out.report.transformed), (9, 0, 0));
    assert_eq!((out.report.bytes_copied, out.report.bytes_read, out.report.temporaries), (0, 0, 0));
    let total: u64 = out.tensors.values().map(TensorView::nbytes).sum();
    assert_eq!(out.report.bytes_aliased, total);
    let (a, b) = (store.get("a").unwrap(), store.get("b").unwrap());
    for (key, source, byte, strides) in [
        ("renamed", a, 0, vec![6, 1]),
        ("tied", a, 0, vec![6, 1]),
        ("again", a, 0, vec![6, 1]),
        ("rows", a, 12, vec![6, 1]),
        ("columns", a, 4, vec![6, 1]),
        ("turned", a, 0, vec![1, 6]),
        ("unstacked", b, 80, vec![5, 1]),
        ("mixed", b, 4, vec![1, 10, 5]),
        ("flat", b, 0, vec![1]),
    ] {
        let view = &out.tensors[key];
        assert!(view.same_storage(source), "{key}");
        assert_eq!(view.data_ptr(), source.data_ptr().wrapping_add(byte), "{key}");
        assert_eq!(view.strides(), strides, "{key}");
        let target = build.0.target(key).unwrap();
        assert_eq!(view.to_vec(), naive::evaluate(&build.0, &store, target.node).unwrap(), "{key}");
    }
    assert!(out.tensors["tied"].same_tensor(&out.tensors["renamed"]));
    let keys: Vec<&str> = out.tensors.keys().map(Key::as_str).collect();
    assert_eq!(
        keys,
        ["again", "columns", "flat", "mixed", "renamed", "rows", "tied", "turned", "unstacked"]
    );
}

#[test]
fn stacks_and_casts_are_made_once_for_all_targets_of_a_node() {
    let store = dict(&[("a", Dtype::BF16, &[2, 3]), ("b", Dtype::BF16, &[2, 3])]);
    let mut build = Build::default();
    let (a, b) = (build.source(&store, "a"), build.source(&store, "b"));
    let both = build.concat(&[a, b], 0);
    build.target("one", both);
    build.target("two", both);
    let wide = build.cast(a, Dtype::F32);
    build.target("wide", wide);
    let out = views(&build.0, &store).unwrap();
    assert!(out.tensors["one"].same_tensor(&out.tensors["two"]));
    assert_eq!(
        out.tensors["one"].to_vec(),
        [store.get("a").unwrap().to_vec(), store.get("b").unwrap().to_vec()].concat()
    );
    assert_eq!((out.report.aliased, out.report.copied, out.report.transformed), (1, 1, 1));
    assert_eq!(
        (out.report.bytes_copied, out.report.bytes_transformed, out.report.bytes_read),
        (24, 24, 36)
    );
    assert!(!out.tensors["wide"].same_storage(store.get("a").unwrap()));
}

#[test]
fn zero_dim_and_empty_tensors_are_views_too() {
    let store = dict(&[("scalar", Dtype::F32, &[]), ("empty", Dtype::F32, &[0, 4])]);
    let mut build = Build::default();
    let (scalar, empty) = (build.source(&store, "scalar"), build.source(&store, "empty"));
    build.target("s", scalar);
    let row = build.reshape(scalar, &[1, 1]);
    build.target("row", row);
    build.target("e", empty);
    let turned = build.permute(empty, &[1, 0]);
    build.target("turned", turned);
    let out = views(&build.0, &store).unwrap();
    assert_eq!((out.report.aliased, out.report.bytes_copied), (4, 0));
    assert!(out.tensors["row"].same_storage(store.get("scalar").unwrap()));
    assert_eq!(out.tensors["turned"].shape()[..], [4, 0]);
    assert_eq!(out.tensors["s"].to_vec(), store.get("scalar").unwrap().to_vec());
}

#[test]
fn elements_of_less_than_a_byte_are_moved_whole_or_refused() {
    let store = dict(&[("four", Dtype::F4, &[4, 6]), ("six", Dtype::F6_E2M3, &[2, 4])]);
    let mut build = Build::default();
    let (four, six) = (build.source(&store, "four"), build.source(&store, "six"));
    build.target("whole", four);
    let rows = build.narrow(four, 0, 1, 2);
    build.target("rows", rows);
    let half = build.narrow(six, 0, 1, 1);
    build.target("half", half);
    let twice = build.concat(&[four, rows], 0);
    build.target("twice", twice);
    let out = views(&build.0, &store).unwrap();
    let bytes = store.get("four").unwrap().to_vec();
    assert_eq!(out.tensors["whole"].to_vec(), bytes);
    assert_eq!(out.tensors["rows"].to_vec(), bytes[3..9]);
    assert_eq!(out.tensors["twice"].to_vec(), [&bytes[..], &bytes[3..9]].concat());
    assert_eq!(out.tensors["half"].to_vec(), store.get("six").unwrap().to_vec()[3..]);
    assert_eq!((out.report.aliased, out.report.copied), (3, 1));
    // Whole bytes stay together when columns of two are cut.
    let mut cut = Build::default();
    let four = cut.source(&store, "four");
    let columns = cut.narrow(four, 1, 2, 4);
    cut.target("columns", columns);
    let pieces = |build: &Build| views(&build.0, &store).map(|out| out.tensors["columns"].to_vec());
    assert_eq!(
        pieces(&cut).unwrap(),
        [&bytes[1..3], &bytes[4..6], &bytes[7..9], &bytes[10..12]].concat()
    );
    assert_eq!(pieces(&cut).unwrap(), naive::evaluate(&cut.0, &store, columns).unwrap());

    for turn in [true, false] {
        let mut bad = Build::default();
        let four = bad.source(&store, "four");
        let node = if turn { bad.permute(four, &[1, 0]) } else { bad.narrow(four, 1, 1, 2) };
        bad.target("bad", node);
        let error = views(&bad.0, &store).unwrap_err();
        assert_eq!((error.kind(), error.key()), (ErrorKind::Unsupported, Some("bad")));
    }
}

#[test]
fn views_of_a_mapped_file_share_one_storage() {
    let directory = tempfile::tempdir().unwrap();
    let store = dict(&[("a", Dtype::F32, &[4, 4]), ("b", Dtype::F32, &[2])]);
    let entries: Vec<_> =
        store.iter().map(|(key, view)| (key.clone(), view.info().clone())).collect();
    let (mut bytes, _) = safetensors_header(&entries, store.metadata()).unwrap();
    store.iter().for_each(|(_, view)| bytes.extend(view.to_vec()));
    let path = directory.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let file = open(&path, &OpenOptions::default()).unwrap();
    let mut build = Build::default();
    let (a, b) = (build.source(&store, "a"), build.source(&store, "b"));
    let turned = build.permute(a, &[1, 0]);
    build.target("x", turned);
    build.target("y", b);
    let out = views(&build.0, &file).unwrap();
    assert!(out.tensors["x"].same_storage(&out.tensors["y"]));
    assert_eq!(out.tensors["x"].data_ptr(), file.view("a").unwrap().data_ptr());
    assert_eq!(out.tensors["y"].to_vec(), store.get("b").unwrap().to_vec());
}

#[test]
fn tensors_are_compared_by_place_and_by_bytes() {
    let big = vec![7u8; 3_000_000];
    let mut other = big.clone();
    (other[0], other[2_999_999]) = (1, 1);
    let mut store = StateDict::new();
    let info = TensorInfo::new(Dtype::U8, vec![3_000_000]);
    let view =
        |bytes: Vec<u8>| TensorView::contiguous(Storage::new(bytes), info.clone(), 0).unwrap();
    let a = view(big.clone());
    store.insert("a".into(), a.clone());
    store.insert("same".into(), a.clone());
    store.insert("equal".into(), view(big));
    store.insert("different".into(), view(other));
    store.insert("shaped".into(), a.reshape(vec![3, 1_000_000]).unwrap());
    assert_eq!(tensors_equal(&store, "a", "same").unwrap(), Equality::SamePlace);
    assert_eq!(tensors_equal(&store, "a", "equal").unwrap(), Equality::Equal);
    assert_eq!(tensors_equal(&store, "a", "different").unwrap(), Equality::Different);
    assert_eq!(tensors_equal(&store, "a", "shaped").unwrap(), Equality::OtherInfo);
    assert_eq!(differing_bytes(&store, "a", "different").unwrap(), Some(2));
    assert_eq!(differing_bytes(&store, "a", "same").unwrap(), Some(0));
    assert_eq!(differing_bytes(&store, "a", "shaped").unwrap(), None);
    assert_eq!(tensors_equal(&store, "a", "absent").unwrap_err().key(), Some("absent"));
}

#[test]
fn a_made_tensor_is_counted_as_made() {
    let store = dict(&[]);
    let mut build = Build::default();
    let ones = build.push(Op::Fill { value: 1.0 }, &[], TensorInfo::new(Dtype::BF16, vec![2, 2]));
    build.target("ones", ones);
    let out = views(&build.0, &store).unwrap();
    assert_eq!(out.tensors["ones"].to_vec(), [0x80, 0x3f].repeat(4));
    assert_eq!((out.report.transformed, out.report.bytes_read), (1, 0));
}

#[test]
fn making_tensors_can_be_cancelled() {
    let store = dict(&[("a", Dtype::BF16, &[40, 60])]);
    let mut build = Build::default();
    let a = build.source(&store, "a");
    let wide = build.push(Op::Cast, &[a], TensorInfo::new(Dtype::F32, vec![40, 60]));
    build.target("wide", wide);
    let cancel = AtomicBool::new(false);
    assert_eq!(
        views_until(&build.0, &store, &cancel).unwrap().tensors["wide"].to_vec(),
        views(&build.0, &store).unwrap().tensors["wide"].to_vec()
    );
    let first = || cancel.store(true, Ordering::Relaxed);
    let impatient = Over { viewing: &first, ..Over::new(&store) };
    assert_eq!(
        views_until(&build.0, &impatient, &cancel).unwrap_err().kind(),
        ErrorKind::Interrupted
    );
}
