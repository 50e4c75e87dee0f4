//! `regraft ties`, and stages of a target on the command line.

use super::sandbox::{Ran, Sandbox, Tensors, tensor};

const EMBED: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn config(tied: bool) -> String {
    format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "tie_word_embeddings": {tied}}}"#
    )
}

/// Four layers, an embedding and a norm.
fn llama() -> Tensors {
    let mut tensors: Tensors = (0..4)
        .map(|layer| format!("model.layers.{layer}.self_attn.q_proj.weight"))
        .map(|key| (key.clone(), tensor(&key, &[4, 4])))
        .collect();
    tensors.insert(EMBED.to_owned(), tensor(EMBED, &[16, 4]));
    tensors.insert("model.norm.weight".to_owned(), tensor("model.norm.weight", &[4]));
    tensors
}

fn ties(tensors: &Tensors, config: &str, more: &[&str]) -> (Ran, serde_json::Value) {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("m/model.safetensors", tensors);
    sandbox.write("m/config.json", config);
    let told = sandbox.run(&[&["ties", "m"], more].concat());
    let json = sandbox.run(&[&["ties", "m", "--json"], more].concat());
    assert_eq!(told.code, json.code);
    (told, serde_json::from_str(&json.out).unwrap())
}

#[test]
fn a_missing_head_is_made_and_left_out_again() {
    let (told, json) = ties(&llama(), &config(true), &[]);
    assert_eq!(told.code, 0, "{}{}", told.out, told.err);
    assert!(
        told.out.starts_with("tied embeddings: yes (config field tie_word_embeddings)\n"),
        "{}",
        told.out
    );
    assert_eq!(json["tied"]["because"]["field"]["path"], "tie_word_embeddings");
    let [tie] = &json["declared"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!((tie["target"].as_str(), tie["source"].as_str()), (Some(HEAD), Some(EMBED)));
    assert_eq!((&tie["outcome"], &tie["saving"]["outcome"]), (&"made".into(), &"left_out".into()));
    assert_eq!(tie["file"], "tied_lm_head");
    assert_eq!(
        (json["storage"].as_array().unwrap().len(), json["bytes"].as_array().unwrap().len()),
        (0, 0)
    );
    assert_eq!(json["disagreements"], serde_json::json!([]));
}

#[test]
fn a_head_of_its_own_is_counted_and_kept() {
    let mut tensors = llama();
    let mut head = tensors[EMBED].clone();
    for byte in &mut head.1[8..13] {
        *byte ^= 0x55;
    }
    tensors.insert(HEAD.to_owned(), head);
    let (told, json) = ties(&tensors, &config(true), &[]);
    assert_eq!(told.code, 1);
    assert!(
        told.out.contains(
            "loading: kept, as it differs in 5 bytes\n    saving: written, as it differs\n"
        ),
        "{}",
        told.out
    );
    assert_eq!(json["declared"][0]["bytes"], 5);
    assert_eq!(json["disagreements"][0]["keys"], serde_json::json!([HEAD, EMBED]));
}

#[test]
fn the_config_and_the_bytes_disagree() {
    let mut tensors = llama();
    tensors.insert(HEAD.to_owned(), tensors[EMBED].clone());
    let (told, json) = ties(&tensors, &config(false), &[]);
    assert_eq!(told.code, 1);
    assert_eq!(json["bytes"][0]["keys"], serde_json::json!([HEAD, EMBED]));
    assert_eq!(json["declared"][0]["outcome"], "not_tied");
    assert!(json["disagreements"][0]["what"].as_str().unwrap().contains("condition"), "{json}");
    // Told that it is tied, all three agree; it stays two tensors when loaded, as in transformers.
    let (told, json) = ties(&tensors, &config(false), &["--tied", "true"]);
    assert_eq!((told.code, &json["disagreements"]), (0, &serde_json::json!([])));
    assert_eq!(
        (&json["declared"][0]["outcome"], &json["declared"][0]["saving"]["outcome"]),
        (&"equal".into(), &"left_out".into())
    );
    assert_eq!(json["tied"]["because"], "explicit");
}

#[test]
fn equal_tensors_that_nobody_ties_and_constants() {
    let mut tensors = llama();
    tensors.insert(
        "model.copy.weight".to_owned(),
        tensors["model.layers.1.self_attn.q_proj.weight"].clone(),
    );
    for layer in 0..3 {
        let ones = (vec![4], std::iter::repeat_n(1f32.to_le_bytes(), 4).flatten().collect());
        tensors.insert(format!("model.layers.{layer}.input_layernorm.weight"), ones);
    }
    let (told, json) = ties(&tensors, &config(true), &[]);
    assert_eq!(told.code, 1);
    let [only] = &json["disagreements"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!(
        only["keys"],
        serde_json::json!(["model.copy.weight", "model.layers.1.self_attn.q_proj.weight"])
    );
    assert!(told.out.contains("and 3 tensors whose elements all have one value"), "{}", told.out);
    let (told, json) = ties(&tensors, &config(true), &["--no-bytes"]);
    assert_eq!(
        (told.code, &json["bytes_read"], &json["bytes_compared"]),
        (0, &0.into(), &false.into())
    );
}

#[test]
fn groups_of_t5_are_declared_whole() {
    let sandbox = Sandbox::new();
    let case: serde_json::Value =
        serde_json::from_str(include_str!("../../fixtures/cases/t5.json")).unwrap();
    sandbox.write("keys.json", case["checkpoint"].to_string());
    sandbox.write("config.json", case["config"].to_string());
    let ran = sandbox.run(&["ties", "keys.json", "--config", "config.json", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let mut targets: Vec<&str> = json["declared"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tie| tie["target"].as_str().unwrap())
        .collect();
    targets.sort_unstable();
    assert_eq!(targets, ["decoder.embed_tokens.weight", "encoder.embed_tokens.weight", HEAD]);
    assert!(
        json["declared"].as_array().unwrap().iter().all(|tie| tie["source"] == "shared.weight")
    );
    let told = sandbox.run(&["ties", "keys.json", "--config", "config.json"]);
    assert!(told.out.contains("equal byte for byte: a manifest has none"), "{}", told.out);
}

#[test]
fn ties_refuses_what_it_cannot_read() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.run(&["ties", "nothing"]).code, 3);
    sandbox.checkpoint("m/model.safetensors", &llama());
    assert_eq!(sandbox.run(&["ties", "m", "--rules", "no_such_rules"]).code, 2);
    sandbox.write("m/config.json", "{");
    assert_eq!(sandbox.run(&["ties", "m"]).code, 3);
}

/// A sandbox with a tied Llama and a list of keys for each of four stages.
fn staged() -> (Sandbox, Tensors) {
    let (sandbox, tensors) = (Sandbox::new(), llama());
    sandbox.checkpoint("m/model.safetensors", &tensors);
    sandbox.write("m/config.json", config(true));
    let layer = |at: usize| format!("model.layers.{at}.self_attn.q_proj.weight\n");
    sandbox.write("s0", format!("{EMBED}\n{}", layer(0)));
    sandbox.write("s1", layer(1));
    sandbox.write("s2", layer(2));
    sandbox.write("s3", format!("{}model.norm.weight\n{HEAD}\n", layer(3)));
    (sandbox, tensors)
}

#[test]
fn a_rank_chooses_its_stage_and_reads_only_that() {
    let (sandbox, tensors) = staged();
    for (rank, keys, read) in [("0", 2, 256 + 64), ("2", 1, 64), ("3", 3, 64 + 16 + 256)] {
        let out = format!("out{rank}");
        let ran = sandbox.run(&[
            "apply", "m", "-o", &out, "--target", "s0,s1,s2", "--target", "s3", "--rank", rank,
            "--json",
        ]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
        let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(
            (&report["report"]["bytes_read"], &report["bytes_compared"]),
            (&read.into(), &0.into()),
            "rank {rank}"
        );
        assert_eq!(sandbox.tensors(&out).len(), keys);
    }
    assert_eq!(sandbox.tensors("out3")[HEAD], tensors[EMBED]);
    // From the environment, as torchrun sets it; what the line says comes first.
    let environment = |more: &[&str], rank: &str, size: &str| {
        let arguments = [&["plan", "m", "--target", "s0,s1,s2,s3"], more].concat();
        let output =
            sandbox.command(&arguments).env("RANK", rank).env("WORLD_SIZE", size).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, out, err) = environment(&[], "3", "4");
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("stage: rank 3 of 4, s3\n") && out.contains("left to other stages: 4 keys\n"),
        "{out}"
    );
    assert!(environment(&["--rank", "1"], "3", "4").1.contains("stage: rank 1 of 4, s1\n"));
    // Other launchers say the same in their own words.
    for (rank, size) in [
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("PMI_RANK", "PMI_SIZE"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ] {
        let mut command = sandbox.command(&["plan", "m", "--target", "s0,s1,s2,s3"]);
        let output = command.env(rank, "2").env(size, "4").output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(
            out.contains("stage: rank 2 of 4, s2\n"),
            "{rank}: {out}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(environment(&[], "3", "8").0, 2);
    assert_eq!(environment(&[], "4", "4").0, 2);
    assert_eq!(environment(&[], "-1", "4").0, 2);
}

#[test]
fn stages_that_make_no_sense_are_refused() {
    let (sandbox, _) = staged();
    sandbox.write("other.json", format!(r#"{{"{EMBED}": ["F32", [8, 4]]}}"#));
    sandbox.write("one.json", format!(r#"{{"{EMBED}": ["F32", [16, 4]]}}"#));
    for (arguments, why) in [
        (&["--target", "s0,s1"][..], "give --rank"),
        (&["--target", "s0,s1", "--rank", "2"], "rank 2 of 2"),
        (&["--target", "s0,s1", "--rank", "0", "--world-size", "4"], "2 targets for 4 ranks"),
        (&["--target", "s0", "--rank", "0"], "go together"),
        (&["--target", "one.json,other.json", "--rank", "0"], EMBED),
    ] {
        let ran = sandbox.run(&[&["plan", "m"], arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(why), "{arguments:?}: {}", ran.err);
    }
    assert_eq!(sandbox.run(&["plan", "m", "--rank", "1"]).code, 2, "without a target");
    // One stage alone: refused as a whole model, content as a stage.
    assert_eq!(sandbox.run(&["plan", "m", "--target", "s2"]).code, 1);
    let ran = sandbox.run(&["plan", "m", "--target", "s2", "--stage"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("stage: one stage\n"), "{}", ran.out);
}
