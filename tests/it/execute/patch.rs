//! In place: what a rename costs, what it refuses, and that files can always be brought to one side
//! or the other.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use regraft::error::ErrorKind;
use regraft::execute::{Lane, PatchOptions, Recovery, WriteOptions, patch, recover, write};
use regraft::plan::Plan;
use regraft::store::{JOURNAL, OpenOptions, Store, open, safetensors_header};
use regraft::tensor::{Dtype, TensorInfo};
use regraft::{Route, compile, plan};

use super::{Build, dict, names};

fn plan_by(rules: &str, source: &dyn Store) -> Plan {
    let route = Route::named(vec![compile(rules).unwrap()], None, None, false).unwrap();
    plan(&route.stages(), source.header(), &Default::default()).unwrap()
}

/// Every file of a directory.
pub(super) fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    names(directory)
        .into_iter()
        .map(|name| (name.clone(), std::fs::read(directory.join(name)).unwrap()))
        .collect()
}

/// Key -> bytes, read by the safetensors crate, which is strict about offsets.
fn tensors(directory: &Path) -> BTreeMap<String, (String, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for (name, bytes) in contents(directory) {
        if name.ends_with(".safetensors") {
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            for (key, view) in file.iter() {
                found.insert(
                    key.to_owned(),
                    (format!("{:?} {:?}", view.dtype(), view.shape()), view.data().to_vec()),
                );
            }
        }
    }
    found
}

fn sharded(directory: &Path) {
    let store = dict(&[
        ("m.a", Dtype::F32, &[30, 50]),
        ("m.b", Dtype::U8, &[7]),
        ("m.c", Dtype::BF16, &[64, 3]),
        ("m.none", Dtype::F16, &[3, 0]),
    ]);
    let mut build = Build::default();
    for key in ["m.a", "m.b", "m.c", "m.none"] {
        let source = build.source(&store, key);
        build.target(key, source);
    }
    let options = WriteOptions { max_shard_size: Some(6100), ..WriteOptions::default() };
    write(&build.0, &store, directory, &options).unwrap();
    assert_eq!(names(directory).len(), 3);
}

#[test]
fn a_rename_in_place_gives_what_writing_gives() {
    let directory = tempfile::tempdir().unwrap();
    // Names that fit the old header's room, and names that don't.
    for (rules, lane) in [
        ("rename \"m.**\" <-> \"n.**\"", Lane::InPlace),
        (&*format!("rename \"m.**\" <-> \"{}.**\"", "long".repeat(900)), Lane::Grown),
    ] {
        let (place, out) = (directory.path().join("place"), directory.path().join("out"));
        sharded(&place);
        let source = open(&place, &OpenOptions::default()).unwrap();
        let plan = plan_by(rules, &source);
        write(
            &plan,
            &source,
            &out,
            &WriteOptions { max_shard_size: Some(6100), ..WriteOptions::default() },
        )
        .unwrap();
        let before = tensors(&place);
        let report = match patch(&plan, &source, &PatchOptions::default()) {
            Err(error) if lane == Lane::Grown && error.kind() == ErrorKind::Unsupported => {
                // A filesystem that can't insert room: then nothing has changed.
                assert!(error.message().contains("insert room"), "{error}");
                assert_eq!(tensors(&place), before);
                std::fs::remove_dir_all(&place).unwrap();
                std::fs::remove_dir_all(&out).unwrap();
                continue;
            }
            report => report.unwrap(),
        };
        assert_eq!(tensors(&place), tensors(&out));
        assert_eq!(report.lanes, BTreeMap::from([(lane, 6391)]));
        assert!(!names(&place).contains(&JOURNAL.to_owned()));
        let opened = open(&place, &OpenOptions::default()).unwrap();
        assert!(opened.notes().is_empty(), "{:?}", opened.notes());
        std::fs::remove_dir_all(&place).unwrap();
        std::fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn the_index_of_the_files_is_changed_and_no_other() {
    const INDEX: &str = "model.safetensors.index.json";
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    sharded(&place);
    let text = std::fs::read_to_string(place.join(INDEX)).unwrap();
    let mut index: serde_json::Value = serde_json::from_str(&text).unwrap();
    index["metadata"]["trained_by"] = "someone".into();
    std::fs::write(place.join(INDEX), index.to_string()).unwrap();
    let rename = |path: &Path, from: &str, to: &str| {
        let source = open(path, &OpenOptions::default()).unwrap();
        patch(
            &plan_by(&format!("rename \"{from}.**\" <-> \"{to}.**\""), &source),
            &source,
            &PatchOptions::default(),
        )
    };

    // One shard of several by itself: its index, which lists the others too, would no longer be
    // right.
    let before = contents(&place);
    let error = rename(&place.join("model-00001-of-00002.safetensors"), "m", "n").unwrap_err();
    assert_eq!(
        (error.kind(), error.file()),
        (ErrorKind::Unsupported, Some(place.join(INDEX).as_path())),
        "{error}"
    );
    assert_eq!(contents(&place), before);

    // An index by another name is an index; what it says besides stays.
    let other = "diffusion_pytorch_model.safetensors.index.json";
    std::fs::rename(place.join(INDEX), place.join(other)).unwrap();
    rename(&place, "m", "n").unwrap();
    let opened = open(&place, &OpenOptions::default()).unwrap();
    assert_eq!((opened.header().tensors.len(), opened.notes().len()), (4, 0));
    let changed: serde_json::Value =
        serde_json::from_slice(&std::fs::read(place.join(other)).unwrap()).unwrap();
    assert_eq!(changed["metadata"], index["metadata"]);
    assert!(changed["weight_map"].as_object().unwrap().keys().all(|key| key.starts_with("n.")));

    // Two indexes of the same files: whichever is given, the other would go wrong.
    std::fs::copy(place.join(other), place.join(INDEX)).unwrap();
    for (path, named) in [(place.clone(), other), (place.join(other), INDEX)] {
        let error = rename(&path, "n", "m").unwrap_err();
        assert_eq!(error.file(), Some(place.join(named).as_path()), "{error}");
    }
    std::fs::remove_file(place.join(other)).unwrap();

    // An index above its files.
    std::fs::create_dir(place.join("sub")).unwrap();
    for name in names(&place).iter().filter(|name| name.ends_with(".safetensors")) {
        std::fs::rename(place.join(name), place.join("sub").join(name)).unwrap();
    }
    let text =
        std::fs::read_to_string(place.join(INDEX)).unwrap().replace("\"model-", "\"sub/model-");
    std::fs::write(place.join(INDEX), text).unwrap();
    let error = rename(&place, "n", "m").unwrap_err();
    assert!(error.message().contains("beside its files"), "{error}");
    open(&place, &OpenOptions::default()).unwrap();
}

#[test]
fn what_would_move_data_is_refused_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    sharded(&place);
    let before = contents(&place);
    let source = open(&place, &OpenOptions::default()).unwrap();
    for (rules, why) in [
        ("map \"m.a\" <-> \"m.t\" via transpose(0, 1)", "moved or computed"),
        ("drop \"m.b\"", "would be dropped"),
        ("cast \"m.c\" to f32", "moved or computed"),
    ] {
        let error = patch(&plan_by(rules, &source), &source, &PatchOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{rules}");
        assert!(error.message().contains(why), "{rules}: {error}");
        assert_eq!(contents(&place), before, "{rules}");
    }
}

#[test]
fn files_that_are_others_too_are_changed_only_on_demand() {
    let directory = tempfile::tempdir().unwrap();
    let (place, linked) =
        (directory.path().join("place"), directory.path().join("linked.safetensors"));
    sharded(&place);
    let shard = place.join("model-00001-of-00002.safetensors");
    let refused = |why: &str| {
        let source =
            open(&place, &OpenOptions { allow_outside: true, ..OpenOptions::default() }).unwrap();
        let error = patch(
            &plan_by("rename \"m.**\" <-> \"n.**\"", &source),
            &source,
            &PatchOptions::default(),
        )
        .unwrap_err();
        assert!(error.message().contains(why), "{error}");
        assert_eq!(error.file(), Some(shard.as_path()));
    };
    std::fs::hard_link(&shard, &linked).unwrap();
    refused("hard link");
    std::fs::remove_file(&shard).unwrap();
    std::os::unix::fs::symlink(&linked, &shard).unwrap();
    refused("symbolic link");
    std::fs::remove_file(&shard).unwrap();
    std::fs::rename(&linked, &shard).unwrap();
    let mut mode = shard.metadata().unwrap().permissions();
    mode.set_readonly(true);
    std::fs::set_permissions(&shard, mode).unwrap();
    refused("read-only");
    let source = open(&place, &OpenOptions::default()).unwrap();
    let insist = PatchOptions { insist: true, ..PatchOptions::default() };
    let outcome = patch(&plan_by("rename \"m.**\" <-> \"n.**\"", &source), &source, &insist);
    // Whether a read-only file opens for writing depends on who asks; root may.
    assert!(
        outcome.is_ok() || outcome.unwrap_err().to_string().contains("cannot open for writing")
    );
}

#[test]
fn a_terabyte_is_renamed_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("huge.safetensors");
    let len = 1u64 << 40;
    let entries = [("model.weight".into(), TensorInfo::new(Dtype::U8, vec![len]))];
    let (header, _) = safetensors_header(&entries, &BTreeMap::new()).unwrap();
    std::fs::write(&path, &header).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(len + header.len() as u64)
        .unwrap();
    let source = open(&path, &OpenOptions::default()).unwrap();
    let plan = plan_by("rename \"model.weight\" <-> \"w\"", &source);
    let start = Instant::now();
    let report = patch(&plan, &source, &PatchOptions::default()).unwrap();
    let took = start.elapsed();
    assert_eq!(report.lanes, BTreeMap::from([(Lane::InPlace, len)]));
    assert_eq!(
        open(&path, &OpenOptions::default())
            .unwrap()
            .header()
            .tensors
            .keys()
            .map(|key| key.as_str())
            .collect::<Vec<_>>(),
        ["w"]
    );
    assert!(path.metadata().unwrap().blocks() < 1000, "the file stays sparse");
    // The mark is 0.1 s; a machine that runs other tests too gets some more.
    assert!(took.as_secs_f64() < 2.0, "{took:?}");
}

/// Files of a directory by name.
type Contents = BTreeMap<String, Vec<u8>>;

/// Writes a journal as it lies there while a change is under way, with the files as they were.
fn interrupted(place: &Path, rules: &str) -> (Contents, Contents, Vec<u8>) {
    let before = contents(place);
    let twin = place.with_file_name("twin");
    std::fs::create_dir(&twin).unwrap();
    for (name, bytes) in &before {
        std::fs::write(twin.join(name), bytes).unwrap();
    }
    let source = open(&twin, &OpenOptions::default()).unwrap();
    // The change fails at its last step, as the index can't be replaced by a directory; its journal
    // is what an interrupted one leaves.
    let plan = plan_by(rules, &source);
    let journal = journal_of(&plan, &source, &twin);
    patch(&plan, &source, &PatchOptions::default()).unwrap();
    let after = contents(&twin);
    std::fs::remove_dir_all(&twin).unwrap();
    std::fs::write(place.join(JOURNAL), &journal).unwrap();
    (before, after, journal)
}

/// The journal that a change writes, caught by a directory in which files can't be opened for
/// writing twice: built here by hand, from the format.
fn journal_of(plan: &Plan, source: &dyn Store, directory: &Path) -> Vec<u8> {
    let twin = directory.with_file_name("scratch");
    std::fs::create_dir(&twin).unwrap();
    for (name, bytes) in contents(directory) {
        std::fs::write(twin.join(name), bytes).unwrap();
    }
    let before = contents(directory);
    let scratch = open(&twin, &OpenOptions::default()).unwrap();
    assert_eq!(scratch.header().tensors, source.header().tensors);
    patch(plan, &scratch, &PatchOptions::default()).unwrap();
    let after = contents(&twin);
    std::fs::remove_dir_all(&twin).unwrap();
    let text = |bytes: &[u8]| {
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        String::from_utf8(bytes[8..8 + len].to_vec()).unwrap()
    };
    let index = "model.safetensors.index.json";
    let patches: Vec<_> = before
        .iter()
        .filter(|(name, _)| name.ends_with(".safetensors"))
        .map(|(name, old)| {
            let new = &after[name];
            serde_json::json!({ "name": name, "len": old.len(), "grow": new.len() - old.len(), "before": text(old), "after": text(new) })
        })
        .collect();
    let whole =
        |files: &BTreeMap<String, Vec<u8>>| String::from_utf8(files[index].clone()).unwrap();
    let index =
        serde_json::json!({ "name": index, "before": whole(&before), "after": whole(&after) });
    serde_json::to_vec(&serde_json::json!({ "version": 1, "patches": patches, "index": index }))
        .unwrap()
}

#[test]
fn an_interrupted_change_is_completed_or_taken_back_from_any_state() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    sharded(&place);
    let (before, after, journal) = interrupted(&place, "rename \"m.**\" <-> \"n.**\"");
    let error = open(&place, &OpenOptions::default()).err().unwrap();
    assert!(error.advice().unwrap().contains("regraft recover"), "{error}");
    let files: Vec<&String> = before.keys().collect();
    // Each file is as before, as after, or (headers) torn between the two.
    for state in 0..3usize.pow(files.len() as u32) {
        for way in [Recovery::Complete, Recovery::RollBack] {
            for (at, name) in files.iter().enumerate() {
                let (old, new) = (&before[*name], &after[*name]);
                let torn = [&new[..40], &old[40..]].concat();
                let bytes = match state / 3usize.pow(at as u32) % 3 {
                    0 => old,
                    1 => new,
                    _ if name.ends_with(".safetensors") => &torn,
                    _ => new,
                };
                std::fs::write(place.join(name), bytes).unwrap();
            }
            std::fs::write(place.join(JOURNAL), &journal).unwrap();
            assert!(recover(&place, way).unwrap());
            let wanted = if way == Recovery::Complete { &after } else { &before };
            assert_eq!(&contents(&place), wanted, "state {state}, {way:?}");
            assert!(!recover(&place, way).unwrap());
        }
    }
}

#[test]
fn a_journal_stands_in_the_way_of_its_files_only() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    sharded(&place);
    let (.., journal) = interrupted(&place, "rename \"m.**\" <-> \"n.**\"");
    let other = place.join("other.safetensors");
    std::fs::copy(place.join("model-00001-of-00002.safetensors"), &other).unwrap();
    let is_open = |path: &Path| match open(path, &OpenOptions::default()) {
        Ok(_) => true,
        Err(error) => {
            assert!(error.advice().unwrap().contains("regraft recover"), "{error}");
            false
        }
    };
    // Its shards, each alone too, and whatever leads to them.
    for name in [
        "",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ] {
        assert!(!is_open(&place.join(name)), "{name}");
    }
    assert!(is_open(&other));
    // One that names a single shard blocks all that the shard is a part of, and no other shard.
    let mut one: serde_json::Value = serde_json::from_slice(&journal).unwrap();
    one["patches"].as_array_mut().unwrap().truncate(1);
    one["index"] = serde_json::Value::Null;
    assert_eq!(one["patches"][0]["name"], "model-00001-of-00002.safetensors");
    std::fs::write(place.join(JOURNAL), one.to_string()).unwrap();
    for (name, expected) in [
        ("", false),
        ("model-00001-of-00002.safetensors", false),
        ("model-00002-of-00002.safetensors", true),
        ("model.safetensors.index.json", false),
        ("other.safetensors", true),
    ] {
        assert_eq!(is_open(&place.join(name)), expected, "{name}");
    }
    // A second change has to wait for the first to be settled.
    let source = open(&other, &OpenOptions::default()).unwrap();
    let error =
        patch(&plan_by("rename \"m.**\" <-> \"n.**\"", &source), &source, &PatchOptions::default())
            .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
    // One that can't be read might name anything.
    for text in ["", "{", "[]", "{\"patches\": [{\"name\": 5}], \"index\": null}"] {
        std::fs::write(place.join(JOURNAL), text).unwrap();
        assert!(!is_open(&other), "{text}");
    }
    std::fs::remove_file(place.join(JOURNAL)).unwrap();
    std::fs::create_dir(place.join(JOURNAL)).unwrap();
    assert!(!is_open(&other));
}

#[test]
fn a_file_that_changed_since_it_was_read_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    sharded(&place);
    let source = open(&place, &OpenOptions::default()).unwrap();
    let plan = plan_by("rename \"m.**\" <-> \"n.**\"", &source);
    // Another change in place comes first, and ends.
    patch(&plan_by("rename \"m.**\" <-> \"o.**\"", &source), &source, &PatchOptions::default())
        .unwrap();
    let between = contents(&place);
    let error = patch(&plan, &source, &PatchOptions::default()).unwrap_err();
    assert!(error.message().contains("changed after its header was read"), "{error}");
    assert_eq!(contents(&place), between);

    let source = open(&place, &OpenOptions::default()).unwrap();
    let cancel = std::sync::atomic::AtomicBool::new(true);
    let plan = plan_by("rename \"o.**\" <-> \"n.**\"", &source);
    let error =
        patch(&plan, &source, &PatchOptions { cancel: Some(&cancel), ..PatchOptions::default() })
            .unwrap_err();
    assert_eq!((error.kind(), contents(&place)), (ErrorKind::Interrupted, between));
}

/// A journal as it is written now: with a checksum of what it says.
fn sealed(journal: &[u8]) -> Vec<u8> {
    let mut journal: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(journal).unwrap();
    journal["version"] = 2.into();
    let sum =
        blake3::hash(serde_json::to_string(&journal).unwrap().as_bytes()).to_hex().to_string();
    journal.insert("blake3".to_owned(), sum.into());
    serde_json::to_vec(&journal).unwrap()
}

#[test]
fn a_journal_with_a_flipped_bit_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    sharded(&place);
    let (before, after, journal) = interrupted(&place, "rename \"m.**\" <-> \"n.**\"");
    let journal = sealed(&journal);
    std::fs::write(place.join(JOURNAL), &journal).unwrap();
    assert!(recover(&place, Recovery::Complete).unwrap());
    assert_eq!(contents(&place), after);
    for at in (0..journal.len()).step_by(5) {
        for (name, bytes) in &before {
            std::fs::write(place.join(name), bytes).unwrap();
        }
        let mut flipped = journal.clone();
        flipped[at] ^= 1 << (at % 7);
        std::fs::write(place.join(JOURNAL), &flipped).unwrap();
        let files = || {
            contents(&place).into_iter().filter(|(name, _)| name != JOURNAL).collect::<Contents>()
        };
        match recover(&place, Recovery::Complete) {
            Err(error) => {
                assert!(
                    error.kind() == ErrorKind::Corrupt || error.kind() == ErrorKind::Unsupported,
                    "{error}"
                );
                assert!(files() == before, "byte {at}: something was changed");
                assert!(
                    open(&place, &OpenOptions::default()).is_err(),
                    "byte {at}: what it may name opens"
                );
            }
            // Another way to write the same.
            Ok(_) => assert!(files() == after, "byte {at}: the change isn't what it was"),
        }
        let _ = std::fs::remove_file(place.join(JOURNAL));
    }
}

#[test]
fn a_made_up_journal_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    sharded(&place);
    let (before, _, journal) = interrupted(&place, "rename \"m.**\" <-> \"n.**\"");
    let journal: serde_json::Value = serde_json::from_slice(&journal).unwrap();
    let with = |pointer: &str, value: serde_json::Value| {
        let mut journal = journal.clone();
        *journal.pointer_mut(pointer).unwrap() = value;
        journal.to_string()
    };
    for (text, why) in [
        ("{".to_owned(), "no journal"),
        (with("/version", 3.into()), "version 3"),
        (with("/version", 2.into()), "damaged"),
        (with("/patches/0/name", "../x.safetensors".into()), "no part of a checkpoint"),
        (with("/patches/0/name", "/etc/passwd".into()), "no part of a checkpoint"),
        (with("/index/name", "config.json".into()), "no part of a checkpoint"),
        (with("/patches/0/len", 5.into()), "the journal knows it with 5"),
        (with("/patches/0/after", "{}".into()), "does not fit"),
        (with("/patches/0/before", "x".into()), "does not fit"),
        (with("/patches/0/grow", u64::MAX.into()), "does not fit"),
    ] {
        std::fs::write(place.join(JOURNAL), &text).unwrap();
        let error = recover(&place, Recovery::Complete).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        std::fs::remove_file(place.join(JOURNAL)).unwrap();
        assert_eq!(contents(&place), before);
    }
}
