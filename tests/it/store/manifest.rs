//! Manifests, and the keys that a target asks for.

use std::time::{Duration, Instant};

use regraft::error::ErrorKind;
use regraft::store::{OpenOptions, StateDict, Store, open};
use regraft::tensor::{Dtype, TensorInfo, Wanted};
use tempfile::{TempDir, tempdir};

use super::{bytes_of, fails, write, write_index};

fn at(content: impl AsRef<[u8]>, name: &str) -> (TempDir, std::path::PathBuf) {
    let directory = tempdir().unwrap();
    write(directory.path(), name, content);
    let path = directory.path().join(name);
    (directory, path)
}

fn open_text(text: &str) -> regraft::error::Result<regraft::store::Checkpoint> {
    let (_directory, path) = at(text, "manifest.json");
    open(path, &OpenOptions::default())
}

fn wanted(text: &str, name: &str) -> regraft::error::Result<Wanted> {
    let (_directory, path) = at(text, name);
    Wanted::read(path)
}

#[test]
fn every_form_says_the_same() {
    let expected = [
        ("b.weight", TensorInfo::new(Dtype::BF16, vec![2, 3])),
        ("a", TensorInfo::new(Dtype::F4, vec![0])),
    ];
    for text in [
        r#"{"b.weight":["BF16",[2,3]],"a":["F4",[0]]}"#,
        r#"{"b.weight":{"dtype":"BF16","shape":[2,3]},"a":{"shape":[0],"dtype":"F4"}}"#,
        r#"{"b.weight":{"dtype":"BF16","shape":[2,3],"data_offsets":[7,1]},"a":["F4",[0]]}"#,
        r#"{"tensors":{"b.weight":["BF16",[2,3]],"a":["F4",[0]]},"model":{"x":1}}"#,
    ] {
        let checkpoint = open_text(text).unwrap();
        let header = checkpoint.header();
        let read: Vec<_> =
            header.tensors.iter().map(|(key, entry)| (key.as_str(), entry.info.clone())).collect();
        assert_eq!(read, expected, "{text}");
        assert!(header.tensors.values().all(|entry| entry.location.is_none()));
        assert_eq!(wanted(text, "target.json").unwrap(), Wanted::from(header));
    }
}

#[test]
fn names_of_fields_may_be_keys() {
    let checkpoint = open_text(r#"{"weight_map":{"dtype":"U8","shape":[1]},"tensors":["U8",[1]],"__metadata__":{"format":"pt"}}"#).unwrap();
    assert_eq!(checkpoint.header().tensors.len(), 2);
    assert_eq!(checkpoint.header().metadata["format"], "pt");
    let checkpoint =
        open_text(r#"{"__metadata__":{"format":"pt"},"tensors":{"a":["U8",[1]]}}"#).unwrap();
    assert_eq!(checkpoint.header().metadata["format"], "pt");
}

#[test]
fn a_manifest_has_no_bytes() {
    let checkpoint = open_text(r#"{"a":["U8",[1]]}"#).unwrap();
    assert!(!checkpoint.has_bytes());
    assert_eq!(checkpoint.paths().len(), 0);
    for error in [
        fails(checkpoint.view("a")),
        fails(checkpoint.read_at("a", 0, &mut [0])),
        fails(StateDict::from_checkpoint(&checkpoint)),
    ] {
        assert_eq!((error.kind(), error.key()), (ErrorKind::Unsupported, Some("a")));
        assert!(error.message().contains("a manifest has no bytes"));
    }
}

#[test]
fn bad_manifests_name_the_key() {
    for (text, key, message) in [
        (r#"{"a":["U8",[1]],"a":["U8",[1]]}"#, Some("a"), "twice"),
        (r#"{"a":["U9",[1]]}"#, Some("a"), "unknown dtype"),
        (r#"{"a":["U8"]}"#, Some("a"), "no shape"),
        (r#"{"a":[]}"#, Some("a"), "no dtype"),
        (r#"{"a":["U8",[1],[0,1]]}"#, Some("a"), "more than dtype and shape"),
        (r#"{"a":["U8",1]}"#, Some("a"), "bad shape"),
        (r#"{"a":["F4",[1]]}"#, Some("a"), "no whole number of bytes"),
        (r#"{"a":["U8",[4294967296,4294967296]]}"#, Some("a"), "exceeds 64 bits"),
        (r#"{"tensors":{"a":["U8",[-1]]}}"#, Some("a"), "bad shape"),
        (r#"{"tensors":{"a":["U8",[1]]},"tensors":{}}"#, None, "duplicate field"),
        (r#"{"a":5}"#, Some("a"), "expected [dtype, shape]"),
        (r#""a""#, None, "expected an index, a manifest or a list of keys"),
        (r#"["a"]"#, None, "not a checkpoint"),
    ] {
        let error = fails(open_text(text));
        assert_eq!(error.key(), key, "{text}: {error}");
        assert!(error.to_string().contains(message), "{text}: {error}");
        assert!(error.file().is_some());
    }
}

#[test]
fn a_config_is_recognized() {
    let error = fails(open_text(r#"{"architectures":["LlamaForCausalLM"],"hidden_size":4096}"#));
    assert!(error.advice().unwrap().contains("a model's configuration"), "{error}");
}

#[test]
fn wanted_keys_from_lists() {
    let keys = |wanted: Wanted| {
        wanted
            .keys
            .iter()
            .map(|(key, info)| (key.as_str().to_owned(), info.is_some()))
            .collect::<Vec<_>>()
    };
    let expected = [("b".to_owned(), false), ("a x".to_owned(), false)];
    assert_eq!(keys(wanted(r#"["b","a x"]"#, "t.json").unwrap()), expected);
    assert_eq!(keys(wanted("# what we need\nb\n\n  a x\r\n", "t.txt").unwrap()), expected);
    for (text, name, message) in [
        (r#"["a","a"]"#, "t.json", "twice"),
        (r#"["a",1]"#, "t.json", "invalid type"),
        ("[]", "t.json", "names no key"),
        ("{}", "t.json", "names no key"),
        ("a\nb\na\n", "t.txt", "again in line 3"),
        ("# nothing\n", "t.txt", "names no key"),
        ("<html>", "t.txt", "HTML"),
        ("{\"a\"", "t.txt", "EOF"),
    ] {
        let error = fails(wanted(text, name));
        assert!(error.to_string().contains(message), "{text}: {error}");
        assert!(error.file().is_some());
    }
}

#[test]
fn wanted_keys_from_an_index_with_and_without_its_shards() {
    let directory = tempdir().unwrap();
    write_index(
        directory.path(),
        "model.safetensors.index.json",
        &[("b", "1.safetensors"), ("a", "2.safetensors")],
    );
    write(directory.path(), "1.safetensors", bytes_of(&[("b", b"22")]));
    for path in [directory.path().to_owned(), directory.path().join("model.safetensors.index.json")]
    {
        let wanted = Wanted::read(path).unwrap();
        assert!(wanted.contains("a") && wanted.contains("b") && wanted.keys.len() == 2);
        assert_eq!(wanted.get("b"), None, "one shard is missing, so only keys are known");
    }
    write(directory.path(), "2.safetensors", bytes_of(&[("a", b"1")]));
    let wanted = Wanted::read(directory.path()).unwrap();
    assert_eq!(wanted.get("b"), Some(&TensorInfo::new(Dtype::U8, vec![2])));
    assert_eq!(Wanted::read(directory.path().join("2.safetensors")).unwrap().keys.len(), 1);
    write_index(directory.path(), "model.safetensors.index.json", &[("b", "../1.safetensors")]);
    assert!(fails(Wanted::read(directory.path())).message().contains("outside its directory"));
}

#[test]
fn ninety_thousand_keys_are_no_effort() {
    // As many as a 671B mixture of experts has, with scales.
    let mut manifest = serde_json::Map::new();
    for layer in 0..61 {
        for expert in 0..256 {
            for projection in ["gate_proj", "up_proj", "down_proj"] {
                let key = format!("model.layers.{layer}.mlp.experts.{expert}.{projection}.weight");
                manifest.insert(format!("{key}_scale_inv"), serde_json::json!(["F32", [16, 56]]));
                manifest.insert(key, serde_json::json!(["F8_E4M3", [2048, 7168]]));
            }
        }
    }
    let (_directory, path) = at(serde_json::to_string(&manifest).unwrap(), "big.json");
    let start = Instant::now();
    let checkpoint = open(path, &OpenOptions::default()).unwrap();
    let took = start.elapsed();
    assert_eq!(checkpoint.header().tensors.len(), 93_696);
    // Unoptimized, on a busy machine: what is quadratic takes minutes.
    assert!(took < Duration::from_secs(10), "{took:?}");
}
