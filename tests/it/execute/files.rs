//! Files: what is written, where, and how it is named.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;

use regraft::execute::{Progress, Report, Ties, WriteOptions, naive, write};
use regraft::plan::{Code, Op, Plan};
use regraft::store::{OpenOptions, StateDict, Store, open};
use regraft::tensor::{Dtype, TensorInfo};

use super::over::Over;
use super::{Build, dict, names};

/// Every key of a directory or file, read by the safetensors crate: dtype and shape as text, and
/// bytes.
fn read_back(path: &Path) -> BTreeMap<String, (String, Vec<u8>)> {
    let files: Vec<_> = if path.is_dir() {
        names(path)
            .into_iter()
            .filter(|name| name.ends_with(".safetensors"))
            .map(|name| path.join(name))
            .collect()
    } else {
        vec![path.to_owned()]
    };
    let mut found = BTreeMap::new();
    for file in files {
        let bytes = std::fs::read(file).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (key, view) in tensors.iter() {
            let before = found.insert(
                key.to_owned(),
                (format!("{:?} {:?}", view.dtype(), view.shape()), view.data().to_vec()),
            );
            assert!(before.is_none(), "{key} is in two files");
        }
    }
    found
}

/// Holds what was written to the reference.
fn agrees(plan: &Plan, store: &dyn Store, path: &Path) {
    let found = read_back(path);
    assert_eq!(found.keys().collect::<Vec<_>>().len(), plan.targets.len());
    for target in &plan.targets {
        let (info, bytes) = &found[&*target.key];
        let expected = plan.info(target);
        assert_eq!(
            info,
            &format!("{:?} {:?}", expected.dtype, &expected.shape[..]),
            "{}",
            target.key
        );
        assert_eq!(bytes, &naive::evaluate(plan, store, target.node).unwrap(), "{}", target.key);
    }
}

fn metadata(path: &Path) -> BTreeMap<String, String> {
    open(path, &OpenOptions::default()).unwrap().header().metadata.clone()
}

/// Packs experts, turns a matrix, casts: some of everything, of a size that takes many chunks.
fn large() -> (StateDict, Plan) {
    let store = dict(&[
        ("w.0", Dtype::BF16, &[300, 500]),
        ("w.1", Dtype::BF16, &[300, 500]),
        ("turn", Dtype::F32, &[701, 409]),
        ("keep", Dtype::U8, &[1_000_003]),
        ("tiny", Dtype::I64, &[]),
        ("none", Dtype::F16, &[3, 0]),
    ]);
    let mut build = Build::default();
    let (a, b) = (build.source(&store, "w.0"), build.source(&store, "w.1"));
    let wide = build.concat(&[a, b], 1);
    build.target("concat.1", wide);
    let (x, y) = (build.reshape(a, &[150_000, 1]), build.reshape(b, &[150_000, 1]));
    let woven = build.concat(&[x, y], 1);
    build.target("woven", woven);
    let turn = build.source(&store, "turn");
    let turned = build.permute(turn, &[1, 0]);
    build.target("turned", turned);
    let cast = build.cast(turned, Dtype::BF16);
    build.target("turned.cast", cast);
    let keep = build.source(&store, "keep");
    build.target("keep", keep);
    let thin = build.reshape(keep, &[1_000_003, 1]);
    let thin = build.narrow(thin, 0, 17, 99_991);
    build.target("part", thin);
    for key in ["tiny", "none"] {
        let source = build.source(&store, key);
        build.target(key, source);
    }
    (store, build.0)
}

#[test]
fn large_tensors_are_streamed_within_any_budget_to_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let (store, plan) = large();
    let mut written = Vec::new();
    for (i, memory) in [1, 1 << 18, 64 << 20].into_iter().enumerate() {
        let out = directory.path().join(format!("{i}.safetensors"));
        let seen = Mutex::new(Vec::new());
        let progress = |progress: Progress| seen.lock().unwrap().push(progress);
        let options = WriteOptions { memory, progress: Some(&progress), ..WriteOptions::default() };
        let report = write(&plan, &store, &out, &options).unwrap();
        agrees(&plan, &store, &out);
        let total: u64 =
            plan.targets.iter().map(|target| plan.info(target).nbytes().unwrap()).sum();
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen.iter().map(|progress| progress.done).max(), Some(total));
        assert!(seen.iter().all(|progress| progress.total == total) && seen.len() > 5);
        assert_eq!(report.bytes_written, out.metadata().unwrap().len());
        assert_eq!((report.copied, report.transformed, report.temporaries), (7, 1, 0));
        written.push(std::fs::read(&out).unwrap());
    }
    assert!(written.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn only_what_is_needed_is_read() {
    let store = dict(&[("a", Dtype::F32, &[1000, 10]), ("b", Dtype::F32, &[1000, 10])]);
    let noted = Mutex::new(Vec::new());
    let reading = |key: &str, _: u64, len: usize| {
        noted.lock().unwrap().push((key.to_owned(), len));
        Ok(())
    };
    let viewing = || panic!("files are read, not mapped");
    let through = Over { reading: &reading, viewing: &viewing, ..Over::new(&store) };
    let mut build = Build::default();
    let a = build.source(&store, "a");
    let rows = build.narrow(a, 0, 100, 50);
    build.target("rows", rows);
    let directory = tempfile::tempdir().unwrap();
    let report =
        write(&build.0, &through, &directory.path().join("out"), &WriteOptions::default()).unwrap();
    assert_eq!(*noted.lock().unwrap(), [("a".to_owned(), 2000)]);
    assert_eq!((report.bytes_read, report.bytes_copied), (2000, 2000));
}

#[test]
fn shards_and_index_are_as_hubs_have_them() {
    let tensors: Vec<(String, u64)> = (0..12).map(|i| (format!("layers.{i}.w"), 100)).collect();
    let tensors: Vec<(&str, Dtype, Vec<u64>)> =
        tensors.iter().map(|(key, size)| (key.as_str(), Dtype::U8, vec![*size])).collect();
    let list: Vec<(&str, Dtype, &[u64])> =
        tensors.iter().map(|(key, dtype, shape)| (*key, *dtype, &shape[..])).collect();
    let store = dict(&list);
    let mut build = Build::default();
    for (key, ..) in &list {
        let source = build.source(&store, key);
        build.target(key, source);
    }
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let options = WriteOptions { max_shard_size: Some(500), ..WriteOptions::default() };
    let report = write(&build.0, &store, &out, &options).unwrap();
    let shards: Vec<String> =
        (1..=3).map(|i| format!("model-{i:05}-of-00003.safetensors")).collect();
    let mut expected = shards.clone();
    expected.push("model.safetensors.index.json".to_owned());
    assert_eq!(names(&out), expected);
    assert_eq!(report.files, expected);
    assert_eq!(names(directory.path()), ["out"]);
    let text = std::fs::read_to_string(out.join("model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(index["metadata"]["total_size"], 1200);
    let map: Vec<(String, String)> = index["weight_map"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, file)| (key.clone(), file.as_str().unwrap().to_owned()))
        .collect();
    let by_hand: Vec<(String, String)> =
        (0..12).map(|i| (format!("layers.{i}.w"), shards[i / 5].clone())).collect();
    assert_eq!(map, by_hand);
    agrees(&build.0, &store, &out);
    let written: u64 =
        names(&out).iter().map(|name| out.join(name).metadata().unwrap().len()).sum();
    assert_eq!(report.bytes_written, written);
    // And regraft's own reader finds index and files in agreement.
    assert_eq!(open(&out, &OpenOptions::default()).unwrap().header().tensors.len(), 12);

    let single = directory.path().join("single");
    write(&build.0, &store, &single, &WriteOptions { single: true, ..options }).unwrap();
    assert_eq!(names(&single), ["model.safetensors"]);
    agrees(&build.0, &store, &single);
}

#[test]
fn more_shards_than_are_open_at_once() {
    let keys: Vec<String> = (0..70).map(|i| format!("t.{i}")).collect();
    let list: Vec<(&str, Dtype, &[u64])> =
        keys.iter().map(|key| (key.as_str(), Dtype::F32, &[4u64][..])).collect();
    let store = dict(&list);
    let mut build = Build::default();
    for key in &keys {
        let source = build.source(&store, key);
        build.target(key, source);
    }
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    write(
        &build.0,
        &store,
        &out,
        &WriteOptions { max_shard_size: Some(1), ..WriteOptions::default() },
    )
    .unwrap();
    assert_eq!(names(&out).len(), 71);
    agrees(&build.0, &store, &out);
}

#[test]
fn metadata_is_kept_and_format_is_added_only_where_there_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = dict(&[("a", Dtype::U8, &[3])]);
    let mut build = Build::default();
    let a = build.source(&store, "a");
    build.target("a", a);
    let run = |store: &StateDict, name: &str, more: &[(&str, &str)]| {
        let out = directory.path().join(name);
        let metadata_ =
            more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        write(
            &build.0,
            store,
            &out,
            &WriteOptions { metadata: metadata_, ..WriteOptions::default() },
        )
        .unwrap();
        metadata(&out)
    };
    let map = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    store.set_metadata(map(&[("author", "me")]));
    assert_eq!(run(&store, "kept", &[]), map(&[("author", "me")]));
    assert_eq!(
        run(&store, "added", &[("author", "you"), ("by", "regraft")]),
        map(&[("author", "me"), ("by", "regraft")])
    );
    store.set_metadata(map(&[]));
    assert_eq!(run(&store, "none", &[]), map(&[("format", "pt")]));
    assert_eq!(run(&store, "mlx", &[("format", "mlx")]), map(&[("format", "mlx")]));
}

#[test]
fn ties_are_left_out_only_when_their_source_is_written() {
    let store = dict(&[("a", Dtype::U8, &[4])]);
    let mut build = Build::default();
    let a = build.source(&store, "a");
    build.target("embed", a);
    build.tied("head", a, "embed");
    build.tied("second", a, "head");
    build.tied("orphan", a, "elsewhere");
    build.tied("round.1", a, "round.2");
    build.tied("round.2", a, "round.1");
    let directory = tempfile::tempdir().unwrap();
    let run = |ties: Ties| -> (Vec<String>, Report) {
        let out = directory.path().join(format!("{ties:?}"));
        let report =
            write(&build.0, &store, &out, &WriteOptions { ties, ..WriteOptions::default() })
                .unwrap();
        (read_back(&out).into_keys().collect(), report)
    };
    let (keys, report) = run(Ties::Alias);
    assert_eq!(keys, ["embed", "orphan", "round.1", "round.2"]);
    assert_eq!((report.aliased, report.bytes_aliased, report.copied), (2, 8, 4));
    let (keys, report) = run(Ties::Materialize);
    assert_eq!(keys, ["embed", "head", "orphan", "round.1", "round.2", "second"]);
    assert_eq!((report.aliased, report.copied), (0, 6));
}

#[test]
fn modes_are_those_that_any_program_would_give() {
    let directory = tempfile::tempdir().unwrap();
    let store = dict(&[("a", Dtype::U8, &[4])]);
    let mut build = Build::default();
    let a = build.source(&store, "a");
    build.target("a", a);
    let side = directory.path().join("config.json");
    std::fs::write(&side, "{}").unwrap();
    std::fs::set_permissions(&side, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (out, file) = (directory.path().join("out"), directory.path().join("out.safetensors"));
    let stale = directory.path().join("model.safetensors.index.json");
    std::fs::write(&stale, "stale").unwrap();
    let options = WriteOptions { side_files: vec![side, stale], ..WriteOptions::default() };
    write(&build.0, &store, &out, &options).unwrap();
    write(&build.0, &store, &file, &options).unwrap();
    assert_eq!(names(&out), ["config.json", "model.safetensors"]);
    // The yardstick is made under this process's umask, as everything is.
    std::fs::write(directory.path().join("plain"), "").unwrap();
    std::fs::create_dir(directory.path().join("plain.d")).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
    let (plain, plain_d) =
        (mode(&directory.path().join("plain")), mode(&directory.path().join("plain.d")));
    assert_eq!(mode(&out), plain_d);
    for path in [out.join("model.safetensors"), out.join("config.json"), file] {
        assert_eq!(mode(&path), plain, "{}", path.display());
    }
}

#[test]
fn quantized_sources_are_unpacked_on_the_way() {
    // Blocks at the edges are smaller: 5 rows and 7 columns in blocks of 2 x 3.
    let store = dict(&[
        ("w", Dtype::F8_E4M3, &[2, 5, 7]),
        ("s", Dtype::F32, &[2, 3, 3]),
        ("blocks", Dtype::U8, &[2, 6, 3, 16]),
        ("scales", Dtype::U8, &[2, 6, 3]),
    ]);
    let mut build = Build::default();
    let (w, s) = (build.source(&store, "w"), build.source(&store, "s"));
    let whole = build.scaled(w, s, [2, 3], Dtype::BF16);
    let turned = build.permute(whole, &[0, 2, 1]);
    build.target("w", turned);
    let (blocks, scales) = (build.source(&store, "blocks"), build.source(&store, "scales"));
    let codes = TensorInfo::new(Dtype::U8, vec![2, 6, 3, 16, 2]);
    let codes = build.push(Op::Unpack { bits: 4 }, &[blocks], codes);
    let values = TensorInfo::new(Dtype::F32, vec![2, 6, 3, 16, 2]);
    let values = build.push(Op::Decode { code: Code::E2m1 }, &[codes], values);
    let values = build.reshape(values, &[2, 6, 96]);
    let powers = TensorInfo::new(Dtype::F32, vec![2, 6, 3]);
    let powers = build.push(Op::Decode { code: Code::E8m0 }, &[scales], powers);
    let powers = build.repeat(powers, 2, 32, 96);
    let four = build.multiply(values, powers, Dtype::BF16);
    let four = build.permute(four, &[0, 2, 1]);
    build.target("four", four);
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let report = write(&build.0, &store, &out, &WriteOptions::default()).unwrap();
    agrees(&build.0, &store, &out);
    assert_eq!((report.transformed, report.temporaries), (2, 0));
    // One element by hand: w[1, 4, 6] is in block (2, 2) of matrix 1.
    let (w, s) = (store.get("w").unwrap().to_vec(), store.get("s").unwrap().to_vec());
    let x = w[35 + 4 * 7 + 6];
    let magnitude = f32::from(x & 7) / 8.0;
    let exponent = i32::from(x >> 3 & 15);
    let value = if exponent == 0 {
        magnitude * 2f32.powi(-6)
    } else {
        (1.0 + magnitude) * 2f32.powi(exponent - 7)
    };
    let value = if x >> 7 == 1 { -value } else { value };
    let at = 4 * (9 + 2 * 3 + 2);
    let scale = f32::from_le_bytes(s[at..at + 4].try_into().unwrap());
    let found = &read_back(&out)["w"].1;
    let at = 2 * (35 + 6 * 5 + 4);
    let expected = half::bf16::from_f32(value * scale);
    assert!(expected.is_finite() && x & 0x7f != 0x7f, "the noise gives a number here");
    assert_eq!(found[at..at + 2], expected.to_le_bytes());
}
