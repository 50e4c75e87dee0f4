//! Whole conversions: there and back, what is carried along, what is shared in memory, what an
//! interruption leaves.

use regraft::execute::views;
use regraft::library::{Route, compile};
use regraft::plan::PlanOptions;
use regraft::store::{OpenOptions, StateDict, Store as _, open};

use super::sandbox::{MIXTRAL_CONFIG, Sandbox, Tensors, mixtral, tensor};

#[test]
fn there_and_back_every_byte_is_as_it_was() {
    let sandbox = Sandbox::new();
    let tensors = mixtral(4);
    sandbox.checkpoint("hub/model.safetensors", &tensors);
    sandbox.write("hub/config.json", MIXTRAL_CONFIG);
    sandbox.write("hub/tokenizer.json", "{}");
    let there = sandbox.run(&["apply", "hub", "-o", "packed", "--max-shard-size", "500B"]);
    assert_eq!((there.code, there.err.as_str()), (0, ""));
    let packed = sandbox.tensors("packed");
    // Two layers: three packed tensors with the gate, and one of attention; and three outside.
    assert_eq!(packed.len(), 2 * 4 + 3);
    let (shape, gate_up) = &packed["model.layers.1.mlp.experts.gate_up_proj"];
    assert_eq!(shape, &[4, 12, 4]);
    let expert = |which: &str| {
        &tensors[&format!("model.layers.1.block_sparse_moe.experts.2.{which}.weight")].1
    };
    assert_eq!(
        &gate_up[2 * 12 * 4 * 4..3 * 12 * 4 * 4],
        [expert("w1").as_slice(), expert("w3")].concat()
    );

    let back = sandbox.run(&["apply", "packed", "-o", "again", "--from", "model", "--to", "hub"]);
    assert_eq!((back.code, back.err.as_str()), (0, ""));
    assert!(sandbox.tensors("again") == tensors);
    assert_eq!(
        std::fs::read(sandbox.path("again/config.json")).unwrap(),
        MIXTRAL_CONFIG.as_bytes()
    );
    assert!(sandbox.path("again/tokenizer.json").exists());
    let metadata =
        open(sandbox.path("again"), &OpenOptions::default()).unwrap().header().metadata.clone();
    assert_eq!(
        metadata,
        [("format".to_owned(), "pt".to_owned()), ("step".to_owned(), "7".to_owned())].into()
    );
    let same = sandbox.run(&["diff", "hub", "again"]);
    assert_eq!(same.code, 0, "{}", same.out);
}

#[test]
fn shards_get_an_index_with_their_exact_size() {
    let sandbox = Sandbox::new();
    let tensors = mixtral(2);
    sandbox.checkpoint("hub/model.safetensors", &tensors);
    let ran = sandbox.run(&["apply", "hub", "-o", "out", "--max-shard-size", "300B", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let index = std::fs::read(sandbox.path("out/model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let total: usize = tensors.values().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(index["metadata"]["total_size"], total);
    assert_eq!(index["weight_map"].as_object().unwrap().len(), tensors.len());
    assert!(sandbox.tensors("out") == tensors);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["report"]["bytes_copied"], total);
    assert_eq!(report["keys"], tensors.len());
}

fn tied() -> Tensors {
    [("model.embed_tokens.weight", vec![16, 4]), ("model.norm.weight", vec![4])]
        .map(|(key, shape)| (key.to_owned(), tensor(key, &shape)))
        .into()
}

#[test]
fn ties_are_written_once_or_each() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("hub/model.safetensors", &tied());
    for (ties, written) in [("alias", 2), ("materialize", 3)] {
        let ran = sandbox.run(&["apply", "hub", "-o", ties, "--tied", "true", "--ties", ties]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let tensors = sandbox.tensors(ties);
        assert_eq!(tensors.len(), written);
        if let Some(head) = tensors.get("lm_head.weight") {
            assert!(*head == tensors["model.embed_tokens.weight"]);
        }
    }
}

#[test]
fn a_head_that_is_equal_is_left_out_and_another_is_kept() {
    let sandbox = Sandbox::new();
    let mut tensors = tied();
    tensors.insert("lm_head.weight".to_owned(), tensors["model.embed_tokens.weight"].clone());
    sandbox.checkpoint("equal/model.safetensors", &tensors);
    tensors.get_mut("lm_head.weight").unwrap().1[17] ^= 1;
    sandbox.checkpoint("other/model.safetensors", &tensors);
    let to_hub = ["--tied", "true", "--from", "model", "--to", "hub"];
    let ran = sandbox.run(&[&["apply", "equal", "-o", "a"][..], &to_hub].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(sandbox.tensors("a") == tied());
    let ran = sandbox.run(&[&["apply", "other", "-o", "b"][..], &to_hub].concat());
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("RG315") && ran.err.contains("1 byte"), "{}", ran.err);
    assert!(sandbox.tensors("b") == tensors);
}

#[test]
fn what_is_converted_already_is_copied_as_it_is() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("hub/model.safetensors", &mixtral(2));
    sandbox.write("hub/config.json", MIXTRAL_CONFIG);
    assert_eq!(sandbox.run(&["apply", "hub", "-o", "packed"]).code, 0);
    let ran = sandbox.run(&["apply", "packed", "-o", "again"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("in the target layout already"), "{}", ran.out);
    assert!(sandbox.tensors("again") == sandbox.tensors("packed"));
}

/// Names don't tell that such a conversion was done; the record does, until the keys say otherwise.
#[test]
fn the_record_tells_of_a_conversion_that_names_hide() {
    let sandbox = Sandbox::new();
    let rules = "ruleset conv: pt <-> mlx\nmap \"**.conv.weight\" <-> \"**.conv.weight\" via permute(0, 2, 3, 1)\n\
                 rename \"pt.**\" <-> \"mlx.**\" optional\n";
    sandbox.write("conv.graft", rules);
    let tensors: Tensors = [("a.conv.weight", vec![2, 3, 5, 7]), ("a.norm", vec![3])]
        .map(|(key, shape)| (key.into(), tensor(key, &shape)))
        .into();
    sandbox.checkpoint("pt/model.safetensors", &tensors);
    let there = sandbox.run(&["apply", "pt", "-o", "mlx", "--rules", "conv.graft", "--record"]);
    assert_eq!(there.code, 0, "{}", there.err);
    assert_eq!(sandbox.tensors("mlx")["a.conv.weight"].0, [2, 5, 7, 3]);
    let again = sandbox.run(&["apply", "mlx", "-o", "again", "--rules", "conv.graft"]);
    assert_eq!(again.code, 0, "{}", again.err);
    assert!(again.err.contains("RG310") && again.err.contains("already"), "{}", again.err);
    assert!(sandbox.tensors("again") == sandbox.tensors("mlx"));
    let back = sandbox.run(&[
        "apply",
        "mlx",
        "-o",
        "back",
        "--rules",
        "conv.graft",
        "--reverse",
        "--record",
    ]);
    assert_eq!(back.code, 0, "{}", back.err);
    assert!(sandbox.tensors("back") == tensors);
    // Backwards twice is known as well, and forwards it is another conversion.
    let back_again = sandbox.run(&["plan", "back", "--rules", "conv.graft", "--reverse"]);
    assert!(
        back_again.err.contains("`conv`, backwards, was applied already"),
        "{}",
        back_again.err
    );
    assert!(
        sandbox.run(&["plan", "back", "--rules", "conv.graft"]).out.contains("permute(0, 2, 3, 1)")
    );
    // A key that the conversion would not have left: the record is of another checkpoint.
    let mut stale = tensors.clone();
    stale.insert("pt.w".to_owned(), tensor("pt.w", &[2]));
    sandbox.checkpoint("mlx/model.safetensors", &stale);
    assert!(
        sandbox.run(&["plan", "mlx", "--rules", "conv.graft"]).out.contains("permute(0, 2, 3, 1)")
    );
}

#[test]
fn an_output_without_a_key_is_never_written() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("hub/model.safetensors", &tied());
    sandbox.write("other.json", "{\"other.weight\": [\"F32\", [2]]}");
    sandbox.write("drop.graft", "drop \"**\"\n");
    for arguments in [&["--target", "other.json", "--no-strict"][..], &["--rules", "drop.graft"]] {
        let ran = sandbox.run(&[&["apply", "hub", "-o", "out"][..], arguments].concat());
        assert_eq!(ran.code, 1, "{}", ran.err);
        assert!(ran.err.contains("RG332") && !sandbox.path("out").exists(), "{}", ran.err);
    }
    // Of a stage alone it isn't known whether the checkpoint holds any of it; but it isn't written
    // without a key either.
    let stage = sandbox.run(&[
        "apply",
        "hub",
        "-o",
        "out",
        "--target",
        "other.json",
        "--stage",
        "--no-strict",
    ]);
    assert_eq!(stage.code, 3, "{}", stage.err);
    assert!(
        stage.err.contains("the result has no key") && !sandbox.path("out").exists(),
        "{}",
        stage.err
    );
}

/// A base model's keys into a class with a head, and back again by the record.
#[test]
fn a_base_prefix_is_added_and_the_record_takes_it_off() {
    let sandbox = Sandbox::new();
    let base: Tensors = [("embed_tokens.weight", vec![16, 4]), ("norm.weight", vec![4])]
        .map(|(key, shape)| (key.into(), tensor(key, &shape)))
        .into();
    sandbox.checkpoint("base/model.safetensors", &base);
    sandbox.write(
        "base/config.json",
        "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"]}",
    );
    sandbox.write(
        "head.json",
        "[\"model.embed_tokens.weight\", \"model.norm.weight\", \"lm_head.weight\"]",
    );
    let there = sandbox.run(&[
        "apply",
        "base",
        "-o",
        "head",
        "--target",
        "head.json",
        "--no-strict",
        "--record",
    ]);
    assert_eq!(there.code, 1, "{}", there.err);
    assert!(
        there.err.contains("the prefix `model` was added to 2 keys")
            && there.err.contains("lm_head.weight"),
        "{}",
        there.err
    );
    assert_eq!(
        sandbox.tensors("head").into_keys().collect::<Vec<_>>(),
        ["model.embed_tokens.weight", "model.norm.weight"]
    );
    let back = sandbox.run(&["apply", "head", "-o", "back", "--from", "model", "--to", "hub"]);
    assert_eq!(back.code, 0, "{}", back.err);
    assert!(sandbox.tensors("back") == base, "{}", back.err);
}

#[test]
fn a_dry_run_writes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("hub/model.safetensors", &mixtral(2));
    let before = sandbox.snapshot();
    let ran = sandbox.run(&["apply", "hub", "--rules", "mixtral", "--dry-run"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("model.layers.{0..1}.mlp.experts.gate_up_proj"), "{}", ran.out);
    assert!(sandbox.snapshot() == before);
}

#[test]
fn force_replaces_an_output() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("hub/model.safetensors", &tied());
    sandbox.checkpoint("out/model.safetensors", &mixtral(2));
    assert_eq!(sandbox.run(&["apply", "hub", "-o", "out"]).code, 3);
    assert_eq!(sandbox.run(&["apply", "hub", "-o", "out", "--force"]).code, 0);
    assert!(sandbox.tensors("out") == tied());
}

#[test]
fn in_memory_renames_and_ties_share_their_storage() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("model.safetensors", &tied());
    let checkpoint = open(sandbox.path("model.safetensors"), &OpenOptions::default()).unwrap();
    let rules = "rename \"model.**\" <-> \"transformer.**\"\n\
                 tie \"lm_head.weight\" from \"transformer.embed_tokens.weight\"\n";
    let route = Route::named(vec![compile(rules).unwrap()], None, None, false).unwrap();
    let plan =
        regraft::plan(&route.stages(), checkpoint.header(), &PlanOptions::default()).unwrap();
    let source = StateDict::from_checkpoint(&checkpoint).unwrap();
    let result = views(&plan, &source).unwrap();
    let before = source.get("model.embed_tokens.weight").unwrap();
    let after = &result.tensors["transformer.embed_tokens.weight"];
    assert_eq!(after.data_ptr(), before.data_ptr());
    assert!(after.same_storage(before) && after.is_contiguous());
    assert_eq!(result.tensors["lm_head.weight"].data_ptr(), before.data_ptr());
    assert_eq!(
        result.tensors["transformer.norm.weight"].data_ptr(),
        source.get("model.norm.weight").unwrap().data_ptr()
    );
    assert_eq!(
        (result.report.bytes_copied, result.report.bytes_transformed, result.report.aliased),
        (0, 0, 3)
    );
    assert_eq!(result.report.bytes_aliased, (16 * 4 + 16 * 4 + 4) * 4);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_nothing() {
    use std::time::{Duration, Instant};
    let sandbox = Sandbox::new();
    // Sparse: it takes no room, but writing it takes a while.
    let len = 2u64 << 30;
    let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{len}],"data_offsets":[0,{len}]}}}}"#);
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    sandbox.write("source/model.safetensors", &file);
    let sparse = std::fs::OpenOptions::new()
        .write(true)
        .open(sandbox.path("source/model.safetensors"))
        .unwrap();
    sparse.set_len(file.len() as u64 + len).unwrap();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let mut child = sandbox
            .command(&["apply", "source", "-o", "out", "--quiet"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let names = || {
            std::fs::read_dir(sandbox.path(""))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect::<Vec<_>>()
        };
        let start = Instant::now();
        while names().len() == 1 {
            assert!(
                start.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(names(), ["source"]);
    }
}

#[test]
fn a_record_brings_back_what_rules_alone_cannot_know() {
    let sandbox = Sandbox::new();
    // A checkpoint with names from before LayerNorm had a weight, below a prefix that the target
    // doesn't have.
    let tensors: Tensors =
        ["bert.a.LayerNorm.gamma", "bert.a.LayerNorm.beta", "bert.a.dense.weight"]
            .map(|key| (key.to_owned(), tensor(key, &[4])))
            .into();
    sandbox.checkpoint("old/model.safetensors", &tensors);
    sandbox.write("legacy.graft", "rename \"**.LayerNorm.{x: gamma=>weight | beta=>bias}\" -> \"**.LayerNorm.{x}\"\nprefix \"bert\"\n");
    sandbox.write("target.txt", "a.LayerNorm.weight\na.LayerNorm.bias\na.dense.weight\n");
    let rules = ["--rules", "legacy.graft"];
    for (record, restored) in [(true, true), (false, false)] {
        let (there, back) = (format!("there-{record}"), format!("back-{record}"));
        let mut arguments = vec!["apply", "old", "-o", &there, "--target", "target.txt"];
        arguments.extend(rules);
        arguments.extend(record.then_some("--record"));
        let ran = sandbox.run(&arguments);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let keys: Vec<String> = sandbox.tensors(&there).into_keys().collect();
        assert_eq!(keys, ["a.LayerNorm.bias", "a.LayerNorm.weight", "a.dense.weight"]);
        let mut arguments = vec!["apply", &there, "-o", &back, "--reverse"];
        arguments.extend(rules);
        let mut ran = sandbox.run(&arguments);
        if !restored {
            // Nobody knows which names there were: that is refused unless it is said to be fine.
            assert!(
                ran.code == 1
                    && ran.err.contains("RG324")
                    && ran.err.contains("a.LayerNorm.weight"),
                "{}",
                ran.err
            );
            assert!(!sandbox.path(&back).exists());
            arguments.push("--allow-lossy");
            ran = sandbox.run(&arguments);
            assert!(ran.err.contains("RG320") && !ran.err.contains("RG324"), "{}", ran.err);
        }
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert_eq!(sandbox.tensors(&back) == tensors, restored, "{}", ran.err);
        assert_eq!(ran.err.contains("RG323"), restored);
        // The record tells of the conversion before, so it isn't carried on.
        assert!(!sandbox.path(&format!("{back}/regraft.json")).exists());
    }
    sandbox.write("there-true/regraft.json", "{\"regraft\": 1}");
    let mut arguments = vec!["plan", "there-true", "--reverse"];
    arguments.extend(rules);
    let ran = sandbox.run(&arguments);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("not a record of regraft"), "{}", ran.err);
}
