//! Files, sharded directories, and what goes wrong between an index and its shards.

use std::fs::OpenOptions as File;

use regraft::error::{Error, ErrorKind};
use regraft::store::{OpenOptions, StateDict, Store, open, open_all};
use tempfile::{TempDir, tempdir};

use super::{bytes_of, fails, write, write_index};

const INDEX: &str = "model.safetensors.index.json";
const LAX: OpenOptions = OpenOptions { strict: false, allow_outside: false, root: None };
const STRICT: OpenOptions = OpenOptions { strict: true, allow_outside: false, root: None };

fn read(store: &dyn Store, key: &str) -> Vec<u8> {
    let mut bytes = vec![0; store.header().get(key).unwrap().nbytes().unwrap() as usize];
    store.read_at(key, 0, &mut bytes).unwrap();
    bytes
}

/// Two shards and an index that fits them.
fn sharded() -> TempDir {
    let directory = tempdir().unwrap();
    write(directory.path(), "model-2.safetensors", bytes_of(&[("b", b"bb"), ("c", b"")]));
    write(directory.path(), "model-10.safetensors", bytes_of(&[("a", b"aaa")]));
    write_index(
        directory.path(),
        INDEX,
        &[
            ("a", "model-10.safetensors"),
            ("b", "model-2.safetensors"),
            ("c", "model-2.safetensors"),
        ],
    );
    directory
}

fn open_fails(directory: &TempDir) -> Error {
    fails(open(directory.path(), &STRICT))
}

#[test]
fn a_single_file() {
    let directory = tempdir().unwrap();
    write(directory.path(), "x.safetensors", bytes_of(&[("a", b"abc"), ("b", b"defg")]));
    let checkpoint = open(directory.path().join("x.safetensors"), &STRICT).unwrap();
    assert_eq!(checkpoint.header().files, ["x.safetensors"]);
    assert_eq!(checkpoint.directory(), directory.path());
    assert!(checkpoint.paths().eq([directory.path().join("x.safetensors")]));
    assert!(checkpoint.has_bytes());
    assert_eq!(read(&checkpoint, "b"), b"defg");
    let mut part = [0; 2];
    checkpoint.read_at("b", 1, &mut part).unwrap();
    assert_eq!(&part, b"ef");
    checkpoint.read_at("b", 4, &mut []).unwrap();
    for offset in [3, 4, u64::MAX] {
        assert!(
            fails(checkpoint.read_at("b", offset, &mut part))
                .message()
                .contains("leave the tensor")
        );
    }
    assert_eq!(fails(checkpoint.read_at("nope", 0, &mut part)).key(), Some("nope"));
    fails(checkpoint.view("nope"));
    // What it is, its content says.
    std::fs::rename(directory.path().join("x.safetensors"), directory.path().join("0a1b2c"))
        .unwrap();
    assert_eq!(read(&open(directory.path().join("0a1b2c"), &STRICT).unwrap(), "a"), b"abc");
}

#[test]
fn locations_are_places_in_the_files() {
    let directory = sharded();
    let checkpoint = open(directory.path(), &STRICT).unwrap();
    for entry in checkpoint.header().tensors.values() {
        let location = entry.location.unwrap();
        let file = std::fs::read(
            directory.path().join(&checkpoint.header().files[location.file as usize]),
        )
        .unwrap();
        let (start, end) = (location.offset as usize, (location.offset + location.len) as usize);
        assert!(matches!(&file[start..end], b"aaa" | b"bb" | b""));
        assert_eq!(Some(location.len), entry.info.nbytes());
    }
}

#[test]
fn an_index_is_found_by_its_name_or_given() {
    let directory = sharded();
    for path in [directory.path().to_owned(), directory.path().join(INDEX)] {
        let checkpoint = open(path, &STRICT).unwrap();
        assert_eq!(
            checkpoint.header().files,
            ["model-2.safetensors", "model-10.safetensors"],
            "natural order"
        );
        assert_eq!(
            checkpoint.header().tensors.keys().map(|key| key.as_str()).collect::<Vec<_>>(),
            ["b", "c", "a"]
        );
        assert_eq!(read(&checkpoint, "a"), b"aaa");
        assert!(checkpoint.notes().is_empty() && checkpoint.ignored().is_empty());
    }
    // Another name serves if it is the only one; of two, neither rules unless one is the usual.
    let other = directory.path().join("diffusion_pytorch_model.safetensors.index.json");
    std::fs::copy(directory.path().join(INDEX), &other).unwrap();
    assert_eq!(open(directory.path(), &STRICT).unwrap().header().tensors.len(), 3);
    std::fs::rename(
        directory.path().join(INDEX),
        directory.path().join("x.safetensors.index.json"),
    )
    .unwrap();
    let error = open_fails(&directory);
    assert!(error.message().contains("2 indexes"), "{error}");
    std::fs::remove_file(other).unwrap();
    assert_eq!(open(directory.path(), &STRICT).unwrap().header().tensors.len(), 3);
}

#[test]
fn without_an_index_all_files_count_and_what_is_left_out_is_told() {
    let directory = sharded();
    std::fs::remove_file(directory.path().join(INDEX)).unwrap();
    write(directory.path(), "consolidated.00.safetensors", bytes_of(&[("a", b"zzz")]));
    write(directory.path(), "config.json", "{}");
    let checkpoint = open(directory.path(), &STRICT).unwrap();
    assert_eq!(checkpoint.header().files, ["model-2.safetensors", "model-10.safetensors"]);
    assert_eq!(read(&checkpoint, "a"), b"aaa");
    assert_eq!(checkpoint.ignored(), [directory.path().join("consolidated.00.safetensors")]);

    std::fs::remove_file(directory.path().join("model-2.safetensors")).unwrap();
    std::fs::remove_file(directory.path().join("model-10.safetensors")).unwrap();
    let checkpoint = open(directory.path(), &STRICT).unwrap();
    assert_eq!(read(&checkpoint, "a"), b"zzz");
    assert!(checkpoint.ignored().is_empty());
}

#[test]
fn of_variants_the_one_without_a_word_is_meant() {
    let directory = tempdir().unwrap();
    for name in [
        "diffusion_pytorch_model.fp16",
        "diffusion_pytorch_model.non_ema-00001-of-00001",
        "diffusion_pytorch_model",
    ] {
        write(directory.path(), &format!("{name}.safetensors"), bytes_of(&[("a", b"1")]));
    }
    let checkpoint = open(directory.path(), &STRICT).unwrap();
    assert_eq!(checkpoint.header().files, ["diffusion_pytorch_model.safetensors"]);
    assert_eq!(checkpoint.ignored().len(), 2);
    // An index of a variant is no index of the file without one.
    let shard = "diffusion_pytorch_model.non_ema-00001-of-00001.safetensors";
    write_index(
        directory.path(),
        "diffusion_pytorch_model.non_ema.safetensors.index.json",
        &[("a", shard)],
    );
    assert_eq!(
        open(directory.path(), &STRICT).unwrap().header().files,
        ["diffusion_pytorch_model.safetensors"]
    );

    std::fs::remove_file(
        directory.path().join("diffusion_pytorch_model.non_ema.safetensors.index.json"),
    )
    .unwrap();
    std::fs::remove_file(directory.path().join("diffusion_pytorch_model.safetensors")).unwrap();
    let error = open_fails(&directory);
    assert!(
        error.advice().is_some_and(
            |advice| advice.contains("fp16, non_ema") && advice.contains("give the file")
        ),
        "{error}"
    );
}

#[test]
fn what_has_keys_of_its_own_is_no_variant() {
    let directory = tempdir().unwrap();
    write(directory.path(), "model.safetensors", bytes_of(&[("a", b"1")]));
    write(directory.path(), "model.vision.safetensors", bytes_of(&[("b", b"2")]));
    assert_eq!(open(directory.path(), &STRICT).unwrap().header().tensors.len(), 2);
}

#[test]
fn files_of_a_distributed_checkpoint_belong_to_their_directory() {
    let directory = tempdir().unwrap();
    write(directory.path(), "__0_0.distcp", b"PK\x03\x04");
    let error = open_fails(&directory);
    assert!(error.message().contains("no .metadata"), "{error}");
    assert!(error.advice().is_some_and(|advice| advice.contains("interrupted")), "{error}");
    write(directory.path(), ".metadata", b"\x80\x04");
    let error = open_fails(&directory);
    assert_eq!(error.file(), Some(&*directory.path().join(".metadata")));
    assert!(error.message().contains("truncated"), "{error}");
    for file in ["__0_0.distcp", ".metadata"] {
        let error = fails(open(directory.path().join(file), &STRICT));
        assert!(error.message().contains("torch.distributed.checkpoint"), "{error}");
        let directory = directory.path().display().to_string();
        assert!(error.advice().is_some_and(|advice| advice.contains(&directory)), "{error}");
    }
}

#[test]
fn files_beside_an_index_are_ignored_and_told() {
    let directory = sharded();
    write(directory.path(), "old.safetensors", "not even a header");
    let checkpoint = open(directory.path(), &STRICT).unwrap();
    assert_eq!(checkpoint.ignored(), [directory.path().join("old.safetensors")]);
}

#[test]
fn several_paths_are_one_checkpoint() {
    let (first, second) = (tempdir().unwrap(), tempdir().unwrap());
    write(first.path(), "model.safetensors", bytes_of(&[("a", b"1")]));
    write(second.path(), "model.safetensors", bytes_of(&[("b", b"22")]));
    let checkpoint = open_all(&[first.path(), second.path()], &STRICT).unwrap();
    assert_eq!((read(&checkpoint, "a"), read(&checkpoint, "b")), (b"1".to_vec(), b"22".to_vec()));
    assert_ne!(checkpoint.header().files[0], checkpoint.header().files[1]);
    assert_eq!(checkpoint.directory(), first.path());
    let error = fails(open_all(&[first.path(), second.path(), first.path()], &STRICT));
    assert_eq!(error.key(), Some("a"));
    assert!(error.message().contains("model.safetensors too"), "{error}");
    fails(open_all::<&str>(&[], &STRICT));
}

#[test]
fn an_index_that_does_not_fit_its_files() {
    let two = "model-2.safetensors";
    let ten = "model-10.safetensors";
    for (map, key, message) in [
        (
            &[("a", ten), ("b", two), ("c", two), ("d", two)][..],
            "d",
            "the index puts it in model-2.safetensors, which does not hold it",
        ),
        (
            &[("a", ten), ("b", ten), ("c", two)],
            "b",
            "the index puts it in model-10.safetensors, but it is in model-2.safetensors",
        ),
        (
            &[("a", ten), ("b", two)],
            "c",
            "model-2.safetensors holds it, but the index does not list it",
        ),
    ] {
        let directory = sharded();
        write_index(directory.path(), INDEX, map);
        let error = open_fails(&directory);
        assert_eq!((error.key(), error.kind()), (Some(key), ErrorKind::Corrupt), "{error}");
        assert!(error.message().contains(message), "{error}");
        assert_eq!(error.file().unwrap(), directory.path().join(INDEX));
        // Not strict: what the shards hold counts. A key that is nowhere stays an error.
        match open(directory.path(), &LAX) {
            Ok(checkpoint) => {
                assert_ne!(key, "d");
                assert_eq!(checkpoint.header().tensors.len(), 3);
                assert!(checkpoint.notes()[0].contains(message));
            }
            Err(error) => assert_eq!(error.key(), Some("d")),
        }
    }
}

#[test]
fn an_index_naming_a_file_that_is_not_there() {
    let directory = sharded();
    std::fs::remove_file(directory.path().join("model-2.safetensors")).unwrap();
    let error = open_fails(&directory);
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.file().unwrap(), directory.path().join("model-2.safetensors"));
    assert!(error.message().contains("for 2 keys"), "{error}");
}

#[test]
fn no_name_in_an_index_leaves_the_directory() {
    let outer = tempdir().unwrap();
    write(outer.path(), "secret.safetensors", bytes_of(&[("a", b"1")]));
    let inner = outer.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let absolute = outer.path().join("secret.safetensors");
    for name in [
        "../secret.safetensors",
        "x/../../secret.safetensors",
        absolute.to_str().unwrap(),
        "..\\secret.safetensors",
        "C:secret.safetensors",
        "..",
        "",
    ] {
        write_index(&inner, INDEX, &[("a", name)]);
        for options in [STRICT, OpenOptions { strict: false, allow_outside: true, root: None }] {
            let error = fails(open(&inner, &options));
            assert!(error.message().contains("outside its directory"), "{name}: {error}");
            assert_eq!(error.key(), Some("a"));
        }
    }
    std::fs::create_dir(inner.join("below")).unwrap();
    write(&inner, "below/x.safetensors", bytes_of(&[("a", b"1")]));
    write_index(&inner, INDEX, &[("a", "below/x.safetensors")]);
    assert_eq!(read(&open(&inner, &STRICT).unwrap(), "a"), b"1");
}

#[cfg(unix)]
#[test]
fn links_may_lead_to_the_caches_blobs_only() {
    use std::os::unix::fs::symlink;
    let cache = tempdir().unwrap();
    let snapshot = cache.path().join("snapshots/0f3a");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir(cache.path().join("blobs")).unwrap();
    write(cache.path(), "blobs/abcd", bytes_of(&[("a", b"1")]));
    write(cache.path(), "elsewhere", bytes_of(&[("a", b"2")]));

    symlink("../../blobs/abcd", snapshot.join("model.safetensors")).unwrap();
    assert_eq!(read(&open(&snapshot, &STRICT).unwrap(), "a"), b"1");
    write_index(&snapshot, INDEX, &[("a", "model.safetensors")]);
    assert_eq!(read(&open(&snapshot, &STRICT).unwrap(), "a"), b"1");

    std::fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    symlink("../../elsewhere", snapshot.join("model.safetensors")).unwrap();
    for index in [true, false] {
        if !index {
            std::fs::remove_file(snapshot.join(INDEX)).unwrap();
        }
        let error = fails(open(&snapshot, &STRICT));
        assert!(error.message().contains("symbolic link out of"), "{error}");
        let checkpoint = open(&snapshot, &OpenOptions { allow_outside: true, ..STRICT }).unwrap();
        assert_eq!(read(&checkpoint, "a"), b"2");
    }
    // A file that the user names is what the user wants.
    assert_eq!(read(&open(snapshot.join("model.safetensors"), &STRICT).unwrap(), "a"), b"2");
}

#[test]
fn indexes_that_are_none() {
    let directory = sharded();
    for (text, message) in [
        ("", "the file is empty"),
        (" ", "EOF"),
        ("not json", "expected"),
        ("[]", "not an index"),
        (r#"{"metadata":{}}"#, "not an index"),
        (r#"{"weight_map":["a"]}"#, "not an index"),
        (r#"{"weight_map":{}}"#, "names no tensor"),
        (r#"{"weight_map":{"a":1}}"#, "bad file name"),
        (r#"{"weight_map":{"a":"x","a":"y"}}"#, "twice"),
        (r#"{"weight_map":{"a":"x"},"weight_map":{"a":"x"}}"#, "duplicate field"),
        (r#"{"weight_map":{"a":"x"}"#, "EOF"),
    ] {
        write(directory.path(), INDEX, text);
        let error = open_fails(&directory);
        assert!(error.to_string().contains(message), "{text}: {error}");
        assert_eq!(error.file().unwrap(), directory.path().join(INDEX));
    }
}

#[test]
fn index_metadata_may_be_missing_or_lie() {
    let directory = sharded();
    let map = r#""weight_map":{"a":"model-10.safetensors","b":"model-2.safetensors","c":"model-2.safetensors"}"#;
    for (metadata, notes) in [
        ("", 0),
        (r#""metadata":null,"#, 0),
        (r#""metadata":{"total_size":5},"#, 0),
        (r#""metadata":{"total_size":5.0},"#, 0),
        (r#""metadata":{"total_size":6},"#, 1),
        (r#""metadata":{"total_size":"many"},"#, 0),
    ] {
        write(directory.path(), INDEX, format!("{{{metadata}{map}}}"));
        let checkpoint = open(directory.path(), &STRICT).unwrap();
        assert_eq!(checkpoint.notes().len(), notes, "{metadata} {:?}", checkpoint.notes());
    }
}

#[test]
fn one_key_in_two_files() {
    let directory = sharded();
    write(directory.path(), "model-10.safetensors", bytes_of(&[("a", b"aaa"), ("b", b"bb")]));
    let error = open_fails(&directory);
    assert_eq!(error.key(), Some("b"));
    assert!(error.message().contains("model-2.safetensors too"), "{error}");
    assert_eq!(error.file().unwrap(), directory.path().join("model-10.safetensors"));
}

#[test]
fn a_broken_shard_is_named() {
    let directory = sharded();
    let path = directory.path().join("model-10.safetensors");
    let len = std::fs::metadata(&path).unwrap().len();
    File::new().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
    let error = open_fails(&directory);
    assert_eq!((error.file().unwrap(), error.key()), (path.as_path(), Some("a")));
}

#[test]
fn a_file_that_shrinks_meanwhile_is_an_error() {
    for opened_before in [true, false] {
        let directory = sharded();
        let checkpoint = open(directory.path(), &STRICT).unwrap();
        if opened_before {
            assert_eq!(read(&checkpoint, "a"), b"aaa");
        }
        let path = directory.path().join("model-10.safetensors");
        File::new().write(true).open(&path).unwrap().set_len(20).unwrap();
        let error = fails(checkpoint.read_at("a", 0, &mut [0; 3]));
        assert_eq!(
            (error.kind(), error.file().unwrap()),
            (ErrorKind::Corrupt, path.as_path()),
            "{error}"
        );
        fails(checkpoint.view("a"));
    }
}

#[test]
fn a_file_that_was_replaced_meanwhile_is_an_error() {
    let directory = sharded();
    let checkpoint = open(directory.path(), &STRICT).unwrap();
    let path = directory.path().join("model-10.safetensors");
    // As long as before, but another tensor.
    write(directory.path(), "model-10.safetensors", bytes_of(&[("z", b"zzz")]));
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    File::new().write(true).open(&path).unwrap().set_modified(later).unwrap();
    for error in [fails(checkpoint.read_at("a", 0, &mut [0; 3])), fails(checkpoint.view("a"))] {
        assert!(error.message().contains("changed after its header was read"), "{error}");
        assert_eq!(error.file().unwrap(), path);
    }
    assert_eq!(read(&checkpoint, "b"), b"bb", "the other file is as it was");
}

#[test]
fn views_share_one_map_and_copy_nothing() {
    let directory = sharded();
    let checkpoint = open(directory.path(), &STRICT).unwrap();
    let dict = StateDict::from_checkpoint(&checkpoint).unwrap();
    assert_eq!(
        dict.keys().collect::<Vec<_>>(),
        checkpoint.header().tensors.keys().collect::<Vec<_>>()
    );
    for key in ["a", "b", "c"] {
        assert_eq!(read(&dict, key), read(&checkpoint, key));
        assert!(dict.get(key).unwrap().storage().same(checkpoint.view(key).unwrap().storage()));
        assert_eq!(dict.header().get(key), checkpoint.header().get(key));
    }
    assert!(
        dict.get("b").unwrap().storage().same(dict.get("c").unwrap().storage()),
        "one file, one map"
    );
    assert!(!dict.get("a").unwrap().storage().same(dict.get("b").unwrap().storage()));
}

#[test]
fn a_state_dicts_header_follows_it() {
    let bytes = bytes_of(&[("a", b"1"), ("b", b"22"), ("c", b"333")]);
    let place = bytes.as_ptr();
    let mut dict = StateDict::from_bytes(bytes).unwrap();
    let storage = dict.get("a").unwrap().storage().clone();
    assert_eq!(storage.bytes().as_ptr(), place, "the bytes are shared, not copied");
    assert!(dict.iter().all(|(_, view)| view.storage().same(&storage)));
    let b = dict.remove("b").unwrap();
    assert!(dict.insert("a".into(), b).is_some());
    assert_eq!(dict.header().tensors.keys().collect::<Vec<_>>(), dict.keys().collect::<Vec<_>>());
    assert_eq!(dict.header().get("a").unwrap().shape.to_vec(), [2]);
    assert_eq!(dict.header().get("b"), None);
    assert_eq!(read(&dict, "a"), b"22");
    assert!(fails(dict.read_at("a", 1, &mut [0; 2])).message().contains("leave the tensor"));
    fails(dict.read_at("b", 0, &mut []));
    assert_eq!(dict.len(), 2);
}

#[test]
fn any_part_of_a_transposed_tensor_can_be_read() {
    let header = r#"{"a":{"dtype":"U16","shape":[3,4,2],"data_offsets":[0,48]}}"#;
    let data: Vec<u8> = (0..48).collect();
    let mut dict = StateDict::from_bytes(super::file(header, &data)).unwrap();
    let turned = dict.get("a").unwrap().permute(&[2, 0, 1]).unwrap();
    dict.insert("a".into(), turned);
    // Element [i, j, k] of the turned tensor is [j, k, i] of the first.
    let mut expected = Vec::new();
    for (i, j, k) in (0..2).flat_map(|i| (0..3).flat_map(move |j| (0..4).map(move |k| (i, j, k)))) {
        let at = ((j * 4 + k) * 2 + i) * 2;
        expected.extend_from_slice(&data[at..at + 2]);
    }
    assert_eq!(dict.header().get("a").unwrap().shape.to_vec(), [2, 3, 4]);
    for start in 0..=48 {
        for end in start..=48 {
            let mut part = vec![0; end - start];
            dict.read_at("a", start as u64, &mut part).unwrap();
            assert_eq!(part, expected[start..end], "{start}..{end}");
        }
    }
}

#[test]
fn metadata_of_files_is_merged_and_the_first_stands() {
    let directory = tempdir().unwrap();
    for (name, key, metadata) in [
        ("1.safetensors", "a", r#"{"format":"pt"}"#),
        ("2.safetensors", "b", r#"{"format":"np","by":"x"}"#),
    ] {
        let header = format!(
            r#"{{"__metadata__":{metadata},"{key}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}}}"#
        );
        write(directory.path(), name, super::file(&header, &[]));
    }
    let checkpoint = open(directory.path(), &STRICT).unwrap();
    assert_eq!(checkpoint.header().metadata["format"], "pt");
    assert_eq!(checkpoint.header().metadata["by"], "x");
    assert!(
        checkpoint.notes()[0].contains("2.safetensors has another \"format\""),
        "{:?}",
        checkpoint.notes()
    );
}

#[test]
fn paths_that_are_no_checkpoint() {
    let directory = tempdir().unwrap();
    let error = open_fails(&directory);
    assert!(error.message().contains("no checkpoint"), "{error}");
    write(directory.path(), "pytorch_model.bin", b"PK\x03\x04aaaaaaaaaaaaaaa");
    let error = open_fails(&directory);
    assert_eq!(
        (error.kind(), error.file()),
        (ErrorKind::Corrupt, Some(&*directory.path().join("pytorch_model.bin")))
    );
    assert!(error.message().contains("without its end"), "{error}");
    assert_eq!(fails(open(directory.path().join("nowhere"), &STRICT)).kind(), ErrorKind::Io);
    write(directory.path(), "noise", b"ab\x00cdefghijkl");
    assert!(
        fails(open(directory.path().join("noise"), &STRICT))
            .message()
            .contains("neither safetensors nor JSON")
    );
    #[cfg(unix)]
    assert!(fails(open("/dev/null", &STRICT)).message().contains("not a regular file"));
    write(
        directory.path(),
        "model.safetensors",
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n",
    );
    let error = open_fails(&directory);
    assert_eq!(error.file().unwrap(), directory.path().join("model.safetensors"));
    assert!(error.advice().unwrap().contains("git lfs pull"));
}
