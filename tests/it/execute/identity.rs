//! What a killed run left is taken up only by a run whose source is known to be the same.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use regraft::error::ErrorKind;
use regraft::execute::{Progress, Rank, WriteOptions, write};
use regraft::plan::Op;
use regraft::store::{Counted, Identity, OpenOptions, StateDict, open};
use regraft::tensor::{Dtype, Storage, TensorInfo, TensorView};

use super::over::Over;
use super::{Build, names, noise};

/// Copies what a run has made so far, once its first file is finished.
fn leave_behind(directory: &Path) {
    let since = Instant::now();
    let finished = || -> Option<PathBuf> {
        let found = directory.read_dir().unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        let mut hidden = found.filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().contains(".regraft-"))
        });
        hidden.find(|path| {
            path.read_dir().is_ok_and(|files| {
                files.flatten().any(|file| file.file_name().to_string_lossy().ends_with(".done"))
            })
        })
    };
    while since.elapsed() < Duration::from_secs(20) {
        if let Some(path) = finished() {
            let copied = Command::new("cp")
                .arg("-a")
                .arg(&path)
                .arg(directory.join(".out.regraft-killed"))
                .status()
                .unwrap();
            assert!(copied.success());
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no file was finished");
}

fn dict(seed: u64) -> StateDict {
    let tensor = |seed: u64| {
        let info = TensorInfo::new(Dtype::U8, vec![64]);
        TensorView::contiguous(Storage::new(noise(64, seed)), info, 0).unwrap()
    };
    [("a".into(), tensor(seed)), ("z".into(), tensor(seed + 7))].into_iter().collect()
}

/// How many files a resumed run of another source took over, and whether the output is that
/// source's.
fn resumed(first: Option<&str>, second: Option<&str>) -> (u64, bool) {
    let place = tempfile::tempdir().unwrap();
    let (out, scratch) = (place.path().join("out"), tempfile::tempdir().unwrap());
    let (one, other) = (dict(1), dict(100));
    let known = |name: Option<&str>| name.map(|name| Identity::of(&name).unwrap());
    // When the last tensor is read, the temporary directory is copied, as if the run had been
    // killed there.
    let copy = Once::new();
    let reading = |key: &str, _: u64, _: usize| {
        if key == "z" {
            copy.call_once(|| leave_behind(place.path()));
        }
        Ok(())
    };
    let mut build = Build::default();
    for key in ["a", "z"] {
        let node = build.source(&one, key);
        build.target(key, node);
    }
    // A file for each tensor.
    let options =
        WriteOptions { max_shard_size: Some(64), resume: true, ..WriteOptions::default() };
    let killed = Over { identity: known(first), reading: &reading, ..Over::new(&one) };
    write(&build.0, &killed, &out, &options).unwrap();
    std::fs::rename(&out, scratch.path().join("out")).unwrap();
    assert!(place.path().join(".out.regraft-killed").exists());
    let again = Over { identity: known(second), ..Over::new(&other) };
    let report = write(&build.0, &Counted::new(&again), &out, &options).unwrap();
    let mut bytes = Vec::new();
    for name in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        bytes.extend(std::fs::read(out.join(name)).unwrap().split_off(8));
    }
    let own = ["a", "z"].iter().all(|key| {
        let expected = other.get(key).unwrap().to_vec();
        bytes.windows(64).any(|window| window == expected)
    });
    assert!(
        !place.path().join(".out.regraft-killed").exists(),
        "what was left is taken up or removed"
    );
    (report.kept, own)
}

#[test]
fn tensors_in_memory_are_never_taken_for_those_of_another_run() {
    assert_eq!(resumed(None, None), (0, true));
}

#[test]
fn a_source_that_says_what_it_is_is_known_again_and_no_other() {
    assert_eq!(resumed(Some("step 1000"), Some("step 2000")), (0, true));
    assert_eq!(resumed(Some("step 1000"), None), (0, true));
    // Whoever says to be the same is believed: so the first file is kept, and here it holds
    // something else.
    assert_eq!(resumed(Some("step 1000"), Some("step 1000")), (1, false));
}

#[test]
fn a_source_that_is_written_to_meanwhile_gives_no_output() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("m.safetensors");
    let bytes = noise(3 << 20, 5);
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![3 << 20], &bytes)
        .unwrap();
    safetensors::serialize_to_file([("a", view)], None, &path).unwrap();
    let source = open(&path, &OpenOptions::default()).unwrap();
    let mut build = Build::default();
    let node =
        build.push(Op::Source { key: "a".into() }, &[], TensorInfo::new(Dtype::U8, vec![3 << 20]));
    build.target("b", node);
    // Of the same length: only the time says so.
    let write_to = |_: Progress| {
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"other", 1 << 20).unwrap();
        file.set_modified(std::time::SystemTime::now() + Duration::from_secs(5)).unwrap();
    };
    for out in ["out", "out.safetensors"] {
        let options = WriteOptions { progress: Some(&write_to), ..WriteOptions::default() };
        let error = write(&build.0, &source, &place.path().join(out), &options).unwrap_err();
        assert!(error.to_string().contains("changed"), "{error}");
    }
    assert_eq!(names(place.path()), ["m.safetensors"], "nothing of an output is left");
}

#[test]
fn ranks_need_a_source_that_they_know_to_be_one() {
    let (place, store) = (tempfile::tempdir().unwrap(), dict(1));
    let mut build = Build::default();
    let node = build.source(&store, "a");
    build.target("a", node);
    let options = WriteOptions { rank: Some(Rank::new(0, 2).unwrap()), ..WriteOptions::default() };
    let error = write(&build.0, &store, &place.path().join("out"), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(place.path().read_dir().unwrap().next().is_none());
}
