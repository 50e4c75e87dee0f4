//! Sources that can't be what they seem, and what a file's metadata says of its keys.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::sandbox::{Sandbox, Tensors};

/// Tensors of one element each.
fn tensors<'k>(keys: impl IntoIterator<Item = &'k str>) -> Tensors {
    keys.into_iter()
        .map(|key| (key.to_owned(), (vec![1], key.bytes().cycle().take(4).collect())))
        .collect()
}

/// A checkpoint of four keys in two shards, with an index.
fn indexed(sandbox: &Sandbox, directory: &str) {
    let files = [
        ("model-00001-of-00002.safetensors", ["a", "b"]),
        ("model-00002-of-00002.safetensors", ["c", "d"]),
    ];
    let mut map = serde_json::Map::new();
    for (file, keys) in files {
        sandbox.checkpoint(&format!("{directory}/{file}"), &tensors(keys));
        map.extend(keys.map(|key| (key.to_owned(), json!(file))));
    }
    let index = json!({ "metadata": { "total_size": 16 }, "weight_map": map });
    sandbox.write(&format!("{directory}/model.safetensors.index.json"), index.to_string());
}

#[test]
fn a_gap_in_numbered_files_stops_a_conversion_and_is_shown_by_inspect() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("m/model-00001-of-00003.safetensors", &tensors(["model.layers.0.w"]));
    sandbox.checkpoint("m/model-00003-of-00003.safetensors", &tensors(["model.layers.2.w"]));
    sandbox.write("m/config.json", r#"{"model_type": "x", "num_hidden_layers": 3}"#);
    for command in [&["plan", "m"][..], &["apply", "m", "-o", "out"]] {
        let ran = sandbox.run(command);
        assert_eq!(ran.code, 1, "{}", ran.err);
        assert!(
            ran.err.contains("model-00002-of-00003.safetensors")
                && ran.err.contains("`model.layers` has no 1"),
            "{}",
            ran.err
        );
        assert_eq!(ran.err.matches("[RG33").count(), 1, "one finding for one cause: {}", ran.err);
    }
    assert!(!sandbox.path("out").exists());
    let ran = sandbox.run(&["inspect", "m"]);
    assert!(
        ran.code == 1 && ran.err.contains("warning[RG335]") && ran.out.contains("total: 2 keys"),
        "{}{}",
        ran.out,
        ran.err
    );
    assert_eq!(sandbox.run(&["apply", "m", "-o", "out", "--no-strict"]).code, 1);
    assert_eq!(sandbox.tensors("out").len(), 2);
    // Files that are named are those that are meant.
    let ran = sandbox.run(&["plan", "m/model-00001-of-00003.safetensors"]);
    assert!(ran.code == 0 && ran.err.contains("is one of 3 files"), "{}", ran.err);
}

#[test]
fn keys_of_a_file_that_the_index_does_not_know_are_named() {
    let sandbox = Sandbox::new();
    indexed(&sandbox, "m");
    sandbox.checkpoint("m/again.safetensors", &tensors(["a", "d"]));
    sandbox.checkpoint("m/consolidated.safetensors", &tensors(["other.a"]));
    let ran = sandbox.run(&["plan", "m"]);
    assert_eq!(
        ran.code, 0,
        "the same keys again, and the same model in another layout: {}",
        ran.err
    );
    assert!(ran.err.contains("again.safetensors is no part"), "{}", ran.err);
    sandbox.checkpoint("m/mtp.safetensors", &tensors(["a", "mtp.fc.weight"]));
    for command in ["plan", "inspect"] {
        let ran = sandbox.run(&[command, "m"]);
        assert_eq!(ran.code, 1, "{}", ran.err);
        assert!(
            ran.err.contains("RG336") && ran.err.contains("keys: mtp.fc.weight\n"),
            "{}",
            ran.err
        );
    }
    // What another index lists is another checkpoint.
    let other =
        json!({ "weight_map": { "mtp.fc.weight": "mtp.safetensors", "a": "mtp.safetensors" } });
    sandbox.write("m/mtp.safetensors.index.json", other.to_string());
    assert_eq!(sandbox.run(&["plan", "m"]).code, 0);
}

#[test]
fn an_index_is_stale_when_other_files_hold_all_that_it_lists() {
    let sandbox = Sandbox::new();
    indexed(&sandbox, "m");
    std::fs::remove_file(sandbox.path("m/model-00002-of-00002.safetensors")).unwrap();
    sandbox.checkpoint("m/some.safetensors", &tensors(["c"]));
    let ran = sandbox.run(&["inspect", "m"]);
    assert!(
        ran.code == 3 && ran.err.contains("names it for 2 keys") && !ran.err.contains("stale"),
        "d is nowhere: {}",
        ran.err
    );
    sandbox.checkpoint("m/some.safetensors", &tensors(["c", "d"]));
    let ran = sandbox.run(&["inspect", "m"]);
    assert!(
        ran.code == 3 && ran.err.contains("the index is stale: it names 1 file that isn't there"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("some.safetensors"), "what to give instead: {}", ran.err);
}

#[test]
fn a_byte_order_mark_before_json_says_nothing() {
    let sandbox = Sandbox::new();
    indexed(&sandbox, "m");
    for (name, text) in [
        ("m/config.json", r#"{"model_type": "x", "tie_word_embeddings": true}"#.to_owned()),
        (
            "m/model.safetensors.index.json",
            std::fs::read_to_string(sandbox.path("m/model.safetensors.index.json")).unwrap(),
        ),
        ("want.json", r#"{"A": ["F32", [1]], "B": ["F32", [1]]}"#.to_owned()),
        ("list.txt", "A\nB\n".to_owned()),
    ] {
        sandbox.write(name, format!("\u{FEFF}{text}"));
    }
    sandbox.write("r.graft", "rename \"a\" <-> \"A\"\nrename \"b\" <-> \"B\"\ndrop \"c\", \"d\"\n");
    for target in ["want.json", "list.txt"] {
        let ran = sandbox.run(&["plan", "m", "--rules", "r.graft", "--target", target]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.out.contains("tied embeddings: yes"), "{}", ran.out);
    }
    sandbox.write("keep.graft", "rename \"{k*}\" <-> \"x.{k}\"\n");
    let ran = sandbox.run(&["apply", "m", "--rules", "keep.graft", "--in-place"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(sandbox.run(&["inspect", "m"]).code, 0, "the index was written anew");
}

#[test]
fn what_save_model_left_out_is_renamed_along_and_stays_true() {
    let sandbox = Sandbox::new();
    let (names, bytes) = (["enc.proj", "enc.shared"], [7u8; 16]);
    let views = names.map(|name| (name, TensorView::new(Dtype::F32, vec![4], &bytes).unwrap()));
    let metadata: BTreeMap<String, String> =
        [("dec.proj", "enc.proj"), ("dec.shared", "enc.shared"), ("format", "pt")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into();
    safetensors::serialize_to_file(
        views,
        Some(metadata.clone().into_iter().collect()),
        &sandbox.path("m.safetensors"),
    )
    .unwrap();
    sandbox.write(
        "r.graft",
        "rename \"enc.**\" <-> \"encoder.**\"\nrename \"dec.proj\" <-> \"decoder.proj\"\n",
    );
    let ran = sandbox.run(&["ties", "m.safetensors"]);
    assert!(
        ran.code == 0
            && ran.out.contains(
                "said by the metadata:\n  dec.proj = enc.proj\n  dec.shared = enc.shared\n"
            ),
        "{}",
        ran.out
    );
    let said = |file: &str| -> BTreeMap<String, String> {
        let ran = sandbox.run(&["inspect", file, "--json"]);
        serde_json::from_value(
            serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()["metadata"].clone(),
        )
        .unwrap()
    };
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect()
    };
    let apply = |more: &[&str]| {
        let ran = sandbox.run(&[&["apply"], more].concat());
        assert_eq!(ran.code, 0, "{more:?}: {}", ran.err);
    };
    apply(&["m.safetensors", "-o", "n.safetensors", "--rules", "r.graft"]);
    let renamed = pairs(&[
        ("decoder.proj", "encoder.proj"),
        ("dec.shared", "encoder.shared"),
        ("format", "pt"),
    ]);
    assert_eq!(said("n.safetensors"), renamed);
    apply(&["n.safetensors", "-o", "back.safetensors", "--rules", "r.graft", "--reverse"]);
    assert_eq!(said("back.safetensors"), metadata);
    // Written under each key, none is an alias.
    apply(&[
        "m.safetensors",
        "-o",
        "all.safetensors",
        "--rules",
        "r.graft",
        "--ties",
        "materialize",
    ]);
    assert_eq!(said("all.safetensors"), pairs(&[("format", "pt")]));
    // Gone with a rule.
    sandbox.write("d.graft", "drop \"dec.**\"\n");
    apply(&["m.safetensors", "-o", "some.safetensors", "--rules", "d.graft"]);
    assert_eq!(said("some.safetensors"), pairs(&[("format", "pt")]));
    // A target that wants them gets them.
    sandbox.write("want", "dec.proj\nenc.proj\ndec.shared\nenc.shared\n");
    apply(&["m.safetensors", "-o", "w.safetensors", "--rules", "wrappers", "--target", "want"]);
    assert_eq!(said("w.safetensors"), metadata);
    apply(&["m.safetensors", "--rules", "r.graft", "--in-place"]);
    assert_eq!(said("m.safetensors"), renamed);
}

#[test]
fn a_key_that_no_file_holds_is_refused_by_plan_as_by_apply() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("m.safetensors", &tensors(["a"]));
    sandbox.write("meta.graft", "rename \"a\" <-> \"__metadata__\"\n");
    sandbox.write("long.graft", format!("rename \"a\" <-> \"{}\"\n", "k".repeat(70_000)));
    for rules in ["meta.graft", "long.graft"] {
        for command in
            [&["plan", "m.safetensors"][..], &["apply", "m.safetensors", "-o", "out.safetensors"]]
        {
            let ran = sandbox.run(&[command, &["--rules", rules]].concat());
            assert!(
                ran.code == 1 && ran.err.contains("RG339"),
                "{rules}: {} {}",
                ran.code,
                ran.err
            );
            assert!(ran.err.len() < 2000, "{} bytes", ran.err.len());
        }
    }
}

#[test]
fn a_damaged_record_is_refused_and_one_without_a_checksum_is_read() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("m/model.safetensors", &tensors(["old.a", "b"]));
    sandbox.write("r.graft", "rename \"old.{x*}\" -> \"new.{x}\"\nrename \"b\" <-> \"c\"\n");
    assert_eq!(sandbox.run(&["apply", "m", "-o", "out", "--rules", "r.graft", "--record"]).code, 0);
    let back = || sandbox.run(&["plan", "out", "--rules", "r.graft", "--reverse"]);
    let ran = back();
    assert!(ran.code == 0 && ran.out.contains("old.a"), "{}{}", ran.out, ran.err);
    let record = std::fs::read_to_string(sandbox.path("out/regraft.json")).unwrap();
    sandbox.write("out/regraft.json", record.replace("old.a", "odd.a"));
    let ran = back();
    assert!(
        ran.code == 3 && ran.err.contains("damaged") && ran.err.contains("help:"),
        "{}",
        ran.err
    );
    let mut fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&record).unwrap();
    assert!(fields.shift_remove("blake3").is_some());
    sandbox.write("out/regraft.json", serde_json::Value::Object(fields).to_string());
    assert_eq!(back().code, 0);
}

#[test]
fn what_is_no_file_where_a_file_should_be_is_refused_and_not_passed_over() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("m/model.safetensors", &tensors(["a"]));
    let apply = || sandbox.run(&["apply", "m", "-o", "out", "--rules", "wrappers"]);
    for name in ["config.json", "tokenizer.json", "regraft.json"] {
        let path = sandbox.path(&format!("m/{name}"));
        let make: [&dyn Fn(); 3] = [
            &|| {
                assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success())
            },
            &|| std::os::unix::fs::symlink("nowhere", &path).unwrap(),
            &|| std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
        ];
        for make in make {
            make();
            let ran = apply();
            assert!(ran.code == 3 && ran.err.contains(name), "{name}: {} {}", ran.code, ran.err);
            assert!(!sandbox.path("out").exists());
            std::fs::remove_file(&path).unwrap();
        }
    }
    // A journal, and what ranks share.
    assert!(
        std::process::Command::new("mkfifo")
            .arg(sandbox.path("m/.regraft-journal"))
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(sandbox.run(&["recover", "m"]).code, 3);
    std::fs::remove_file(sandbox.path("m/.regraft-journal")).unwrap();
    std::fs::create_dir(sandbox.path(".out.regraft-ranks")).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(sandbox.path(".out.regraft-ranks/run"))
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        sandbox.run(&["apply", "m", "-o", "out", "--rank", "0", "--world-size", "2"]).code,
        3
    );
}

#[test]
fn a_plan_speaks_of_in_place_only_where_apply_does_it() {
    let sandbox = Sandbox::new();
    indexed(&sandbox, "m");
    sandbox.write("r.graft", "rename \"{k*}\" <-> \"x.{k}\"\n");
    let says = |source: &str| {
        sandbox
            .run(&["plan", source, "--rules", "r.graft"])
            .out
            .contains("with --in-place nothing moves")
    };
    let does = |source: &str| {
        sandbox.run(&["apply", source, "--rules", "r.graft", "--in-place"]).code == 0
    };
    // One shard of several, whose index would go stale.
    let shard = "m/model-00001-of-00002.safetensors";
    assert_eq!((says(shard), does(shard)), (false, false));
    // A file that has another name too.
    sandbox.checkpoint("one.safetensors", &tensors(["a"]));
    std::fs::hard_link(sandbox.path("one.safetensors"), sandbox.path("two.safetensors")).unwrap();
    assert_eq!((says("one.safetensors"), does("one.safetensors")), (false, false));
    assert_eq!((says("m"), does("m")), (true, true));
}

/// What two processes saved of distributed tensors, by two others that share the files of the output.
#[test]
fn ranks_share_the_files_made_of_a_distributed_checkpoint() {
    let source = format!("{}/tests/fixtures/dcp/mesh_2/ckpt", env!("CARGO_MANIFEST_DIR"));
    let sandbox = Sandbox::new();
    sandbox.write("r.graft", "map \"rows\" <-> \"turned\" via transpose(0, 1)\n");
    let apply = |out: &str, more: &[&str]| {
        let all = [&["apply", &source, "--rules", "r.graft", "-o", out][..], more];
        let ran = sandbox.run(&all.concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
    };
    apply("whole", &["--max-shard-size", "64"]);
    let files = |of: &str| -> BTreeMap<String, Vec<u8>> {
        let of = sandbox.path(of);
        let entries = std::fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &std::path::Path| path.file_name().unwrap().to_string_lossy().into();
        entries.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect()
    };
    let whole = files("whole");
    assert!(whole.len() > 2, "{:?}", whole.keys());
    for rank in ["1", "0"] {
        let share = ["--rank", rank, "--world-size", "2"];
        apply("shared", &[&["--max-shard-size", "64"][..], &share].concat());
    }
    assert!(files("shared") == whole, "{:?}", files("shared").keys());
}
