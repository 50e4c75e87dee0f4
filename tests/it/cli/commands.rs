//! Each subcommand once, as a person would use it.

use super::sandbox::{MIXTRAL_CONFIG, Sandbox, mixtral, tensor};

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn inspect_groups_keys_by_their_indices() {
    let sandbox = Sandbox::new();
    let mut tensors = mixtral(8);
    tensors.remove("model.layers.0.self_attn.q_proj.weight").unwrap();
    sandbox.checkpoint("model.safetensors", &tensors);
    let ran = sandbox.run(&["inspect", "model.safetensors"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let row = |key: &str| {
        ran.out.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap().to_owned()
    };
    let words = |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let experts = words(row("model.layers.{0..1}.block_sparse_moe.experts.{0..7}.w1.weight"));
    // 16 of 6 x 4 x 4 bytes.
    assert_eq!(experts[1..], ["F32", "[6,", "4]", "16", "1.54", "kB"]);
    assert_eq!(words(row("model.layers.1.self_attn.q_proj.weight"))[4], "1");
    assert!(ran.out.contains("metadata: format = \"pt\", step = \"7\""), "{}", ran.out);
    let whole = json(&sandbox.run(&["inspect", "model.safetensors", "--json"]).out);
    assert_eq!(whole["total"]["tensors"], tensors.len());
    let bytes: usize = tensors.values().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(
        (&whole["total"]["bytes"], &whole["dtypes"]["F32"]["bytes"]),
        (&bytes.into(), &bytes.into())
    );
    assert_eq!(whole["tensors"]["model.norm.weight"]["shape"], serde_json::json!([4]));
}

#[test]
fn inspect_finds_tensors_that_are_equal() {
    let sandbox = Sandbox::new();
    let mut tensors = mixtral(2);
    tensors.insert("lm_head.weight".to_owned(), tensors["model.embed_tokens.weight"].clone());
    // The same bytes in another shape are another tensor.
    let (_, bytes) = tensors["lm_head.weight"].clone();
    tensors.insert("flat".to_owned(), (vec![64], bytes));
    sandbox.checkpoint("model.safetensors", &tensors);
    let found = json(&sandbox.run(&["inspect", "model.safetensors", "--bytes", "--json"]).out);
    assert_eq!(
        found["equal"],
        serde_json::json!([["lm_head.weight", "model.embed_tokens.weight"]])
    );
    let unread = json(&sandbox.run(&["inspect", "model.safetensors", "--json"]).out);
    assert!(unread["equal"].is_null());
}

#[test]
fn inspect_reports_what_is_odd() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint(
        "source/a.safetensors",
        &[("a".to_owned(), tensor("a", &[2])), ("b".to_owned(), tensor("b", &[2]))].into(),
    );
    sandbox.write(
        "source/model.safetensors.index.json",
        r#"{"metadata": {}, "weight_map": {"a": "a.safetensors"}}"#,
    );
    let ran = sandbox.run(&["inspect", "source"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("\"b\"") && ran.err.contains("index does not list it"), "{}", ran.err);
}

#[test]
fn plan_tells_what_changes_without_tensors() {
    let sandbox = Sandbox::new();
    let manifest: serde_json::Map<_, _> = mixtral(8)
        .into_iter()
        .map(|(key, (shape, _))| (key, serde_json::json!(["BF16", shape])))
        .collect();
    sandbox.write("manifest.json", serde_json::to_string(&manifest).unwrap());
    let ran = sandbox.run(&["plan", "manifest.json", "--rules", "mixtral"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let lines: Vec<&str> = ran.out.lines().map(str::trim).collect();
    let at = lines
        .iter()
        .position(|line| line.starts_with("model.layers.{0..1}.mlp.experts.gate_up_proj"))
        .unwrap();
    assert!(lines[at].ends_with("BF16 [8, 12, 4]  x 2"), "{}", ran.out);
    assert_eq!(
        lines[at + 1],
        "<- model.layers.{0..1}.block_sparse_moe.experts.{0..7}.w1.weight  x 8 + \
         model.layers.{0..1}.block_sparse_moe.experts.{0..7}.w3.weight  x 8  [stack(0), concat(1)]"
    );
    assert!(
        lines.contains(&"unchanged: 5 keys") && lines.contains(&"verdict: converts"),
        "{}",
        ran.out
    );
    let plan = json(&sandbox.run(&["plan", "manifest.json", "--rules", "mixtral", "--json"]).out);
    assert_eq!(
        (plan["verdict"].as_str(), plan["targets"].as_array().unwrap().len()),
        (Some("converts"), 11)
    );
}

#[test]
fn rules_are_chosen_by_the_config_beside_the_checkpoint() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("hub/model.safetensors", &mixtral(2));
    assert!(sandbox.run(&["plan", "hub"]).err.contains("no config.json"));
    sandbox.write("hub/config.json", MIXTRAL_CONFIG);
    let ran = sandbox.run(&["plan", "hub"]);
    assert!(ran.out.starts_with("rules: wrappers, mixtral, tied_lm_head\n"), "{}", ran.out);
    let ran = sandbox.run(&["plan", "hub", "--reverse"]);
    assert!(
        ran.out.starts_with("rules: wrappers, tied_lm_head (backwards), mixtral (backwards)\n"),
        "{}",
        ran.out
    );
}

#[test]
fn parameters_are_set() {
    let sandbox = Sandbox::new();
    sandbox.write("m.json", r#"{"a.0": ["F32", [2]], "a.1": ["F32", [2]], "a.2": ["F32", [2]]}"#);
    sandbox.write("my.graft", "let n\nrename \"a.{i: 0..n}\" <-> \"b.{i}\"\n");
    let targets = |arguments: &[&str]| -> Vec<String> {
        let plan = json(
            &sandbox
                .run(&[&["plan", "m.json", "--rules", "my.graft", "--json"], arguments].concat())
                .out,
        );
        plan["targets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|target| target["key"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(targets(&["--set", "n=2"]), ["a.2", "b.0", "b.1"]);
    let ran = sandbox.run(&["plan", "m.json", "--rules", "my.graft"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("RG213"), "{}", ran.err);
}

#[test]
fn explain_tells_the_way_of_a_source() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("m.safetensors", &mixtral(4));
    let key = "model.layers.1.block_sparse_moe.experts.2.w3.weight";
    let ran = sandbox.run(&["explain", "m.safetensors", key, "--rules", "mixtral"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for text in [
        "becomes model.layers.1.mlp.experts.gate_up_proj  F32 [4, 12, 4]",
        "in memory a copy",
        "with e = 2",
        "-> model.layers.1.mlp.experts.2.w3.weight",
    ] {
        assert!(ran.out.contains(text), "{text:?} is not in\n{}", ran.out);
    }
    let told =
        json(&sandbox.run(&["explain", "m.safetensors", key, "--rules", "mixtral", "--json"]).out);
    assert_eq!(told["becomes"], serde_json::json!(["model.layers.1.mlp.experts.gate_up_proj"]));
    assert_eq!(told["way"][1]["captures"], serde_json::json!({"e": "2"}));
}

#[test]
fn explain_tells_how_a_target_is_made() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("m.safetensors", &mixtral(6));
    let ran = sandbox.run(&[
        "explain",
        "m.safetensors",
        "model.layers.0.mlp.gate.weight",
        "--rules",
        "mixtral",
        "--json",
    ]);
    let told = json(&ran.out);
    assert_eq!(told["target"]["in_memory"], "view");
    assert_eq!(
        told["target"]["sources"],
        serde_json::json!(["model.layers.0.block_sparse_moe.gate.weight"])
    );
    let ran = sandbox.run(&[
        "explain",
        "m.safetensors",
        "model.layers.0.mlp.experts.down_proj",
        "--rules",
        "mixtral",
    ]);
    assert!(
        ran.out.contains("stack(0)  F32 [6, 4, 6]") && ran.out.contains("… 4 more"),
        "{}",
        ran.out
    );
}

#[test]
fn explain_tells_why_no_rule_took_a_key() {
    let sandbox = Sandbox::new();
    sandbox.write("m.json", r#"{"model.layers.0.mlp.fc1.bias": ["F32", [2]], "model.layers.0.mlp.fc1.weight": ["F32", [2]]}"#);
    sandbox.write(
        "my.graft",
        "rename \"model.layers.{l}.mlp.fc1.weight\" <-> \"model.layers.{l}.mlp.up.weight\"\n",
    );
    let ran =
        sandbox.run(&["explain", "m.json", "model.layers.0.mlp.fc1.bias", "--rules", "my.graft"]);
    assert!(
        ran.out.contains("my.graft:1") && ran.out.contains("it stopped at segment 6, `bias`"),
        "{}",
        ran.out
    );
    let ran =
        sandbox.run(&["explain", "m.json", "model.layers.0.mlp.fc1.wieght", "--rules", "my.graft"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("did you mean `model.layers.0.mlp.fc1.weight`?"), "{}", ran.err);
}

#[test]
fn explain_follows_a_file_that_is_used_reversed() {
    let sandbox = Sandbox::new();
    sandbox.write("m.json", r#"{"b.0.weight": ["F32", [2]], "b.0.bias": ["F32", [2]]}"#);
    sandbox.write("other.graft", "rename \"a.{l}.weight\" <-> \"b.{l}.weight\"\n");
    sandbox.write("my.graft", "use \"other.graft\" reversed\n");
    let ran = sandbox.run(&["explain", "m.json", "b.0.weight", "--rules", "my.graft"]);
    assert!(ran.out.contains("other.graft:1") && ran.out.contains("-> a.0.weight"), "{}", ran.out);
    let ran = sandbox.run(&["explain", "m.json", "b.0.bias", "--rules", "my.graft"]);
    assert!(
        ran.out.contains("other.graft:1") && ran.out.contains("it stopped at segment 3, `bias`"),
        "{}",
        ran.out
    );
    sandbox.write(
        "my.graft",
        "use \"other.graft\" reversed\n\nexample \"b.3.weight\" <-> \"a.3.weight\"\n",
    );
    let ran = sandbox.run(&["test", "my.graft"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "1 example, 0 cases\n"), "{}", ran.err);
}

#[test]
fn diff_tells_keys_shapes_and_bytes_apart() {
    let sandbox = Sandbox::new();
    let mut tensors = mixtral(2);
    sandbox.checkpoint("a.safetensors", &tensors);
    sandbox.checkpoint("b/model.safetensors", &tensors);
    let same = sandbox.run(&["diff", "a.safetensors", "b"]);
    assert_eq!(
        (same.code, same.out.as_str()),
        (0, format!("equal: {} keys byte for byte\n", tensors.len()).as_str())
    );
    tensors.get_mut("model.norm.weight").unwrap().1[3] ^= 0xff;
    sandbox.checkpoint("c.safetensors", &tensors);
    let found = sandbox.run(&["diff", "a.safetensors", "c.safetensors"]);
    assert_eq!(found.code, 1);
    let quiet = sandbox.run(&["diff", "a.safetensors", "c.safetensors", "-q"]);
    assert_eq!((quiet.code, quiet.out.as_str(), quiet.err.as_str()), (1, "", ""));
    assert!(found.out.contains("model.norm.weight  differs in 1 byte"), "{}", found.out);
    assert_eq!(sandbox.run(&["diff", "a.safetensors", "c.safetensors", "--headers"]).code, 0);
    tensors.remove("lm_head.weight");
    tensors.insert("model.norm.weight".to_owned(), tensor("x", &[2]));
    tensors.insert("new".to_owned(), tensor("new", &[1]));
    sandbox.checkpoint("d.safetensors", &tensors);
    let found = json(&sandbox.run(&["diff", "a.safetensors", "d.safetensors", "--json"]).out);
    let keys = |part: &str| found[part].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        (keys("only_a"), keys("only_b"), keys("changed")),
        (vec!["lm_head.weight".into()], vec!["new".into()], vec!["model.norm.weight".into()])
    );
}

#[test]
fn check_says_what_is_proven() {
    let sandbox = Sandbox::new();
    sandbox.write("proven.graft", "ruleset proven\n\nrename \"a.{l}.w\" <-> \"b.{l}.w\"\n");
    // Done once, `a.w` is `b.w`; done again, `c.w`.
    sandbox.write(
        "refuted.graft",
        "ruleset refuted\n\nrename {\n  \"a.w\" <-> \"b.w\"\n  \"b.w\" <-> \"c.w\"\n}\n",
    );
    // What a `when` leaves out is known only on a checkpoint.
    sandbox.write(
        "undecided.graft",
        "ruleset undecided\n\nwhen exists(\"a.w\") {\n  rename \"a.w\" <-> \"b.w\"\n}\n",
    );
    let ran =
        sandbox.run(&["check", "proven.graft", "refuted.graft", "undecided.graft", "--proofs"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert_eq!(lines[0], "proven.graft: idempotent: proven");
    assert_eq!(
        lines[1],
        "refuted.graft: idempotent: refuted, as `a.w` becomes `b.w`, and that `c.w`"
    );
    assert!(
        lines[2].starts_with("undecided.graft: idempotent: undecided, as a `when`"),
        "{}",
        lines[2]
    );
    assert!(!sandbox.run(&["check", "proven.graft"]).out.contains("idempotent"));
    sandbox.write("rank.graft", "rename \"rank0.{p**}\" <-> \"{p**}\"\n");
    let backwards = sandbox.run(&["check", "rank.graft", "--proofs"]).out;
    assert!(
        backwards
            .contains("not so backwards, where `w` becomes `rank0.w`, and that `rank0.rank0.w`"),
        "{backwards}"
    );
    let said = json(&sandbox.run(&["check", "proven.graft", "refuted.graft", "--json"]).out);
    assert_eq!(said[0]["idempotent"], serde_json::json!({ "verdict": "proven", "plain": false }));
    assert_eq!(
        said[1]["idempotent"],
        serde_json::json!({ "verdict": "refuted", "key": "a.w", "once": "b.w", "twice": "c.w" })
    );
}

#[test]
fn rule_files_elsewhere_are_not_read() {
    let sandbox = Sandbox::new();
    sandbox.write("shared.graft", "rename \"a\" <-> \"b\"\n");
    sandbox.write("mine/below/part.graft", "use \"../other.graft\"\n");
    sandbox.write("mine/other.graft", "rename \"c\" <-> \"d\"\n");
    sandbox.write("mine/inside.graft", "use \"below/part.graft\"\n");
    sandbox.write("mine/outside.graft", "use \"../shared.graft\"\n");
    sandbox.write("mine/linked.graft", "use \"link.graft\"\n");
    std::os::unix::fs::symlink("../shared.graft", sandbox.path("mine/link.graft")).unwrap();
    // Up and down again within the folder of the file that was asked for is fine.
    let ran = sandbox.run(&["check", "mine/inside.graft"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for file in ["mine/outside.graft", "mine/linked.graft"] {
        for command in ["check", "invert", "test"] {
            let ran = sandbox.run(&[command, file]);
            assert!(
                ran.code != 0 && ran.err.contains("RG111") && ran.err.contains("not below mine"),
                "{command} {file}: {}",
                ran.err
            );
            let ran = sandbox.run(&[command, file, "--allow-outside"]);
            assert_eq!(ran.code, 0, "{command} {file}: {}", ran.err);
        }
    }
    // Asked for itself, a file below may not look up either.
    assert!(sandbox.run(&["check", "mine/below/part.graft"]).err.contains("RG111"));
}

#[test]
fn invert_names_what_is_lossy_in_used_files_too() {
    let sandbox = Sandbox::new();
    sandbox.write("old.graft", "rename \"a\" <-> \"b\"\nrename \"x\" -> \"y\"\n");
    sandbox.write("mine.graft", "drop \"z\"\nuse \"old.graft\"\n");
    let ran = sandbox.run(&["invert", "mine.graft"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, "use \"old.graft\" reversed\n"));
    assert!(
        ran.err.contains("left out: mine.graft:1 drop \"z\": what is dropped doesn't come back"),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("lossy, in a used file: old.graft:2 \"x\" -> \"y\": it is one-way"),
        "{}",
        ran.err
    );
    // Read backwards already, the inverse reads it forwards: nothing of it is lost.
    sandbox.write("back.graft", "use \"old.graft\" reversed\n");
    assert_eq!(sandbox.run(&["invert", "back.graft"]).code, 0);
}

#[test]
fn check_and_fmt() {
    let sandbox = Sandbox::new();
    sandbox.write("rules/good.graft", "rename \"a\" <-> \"b\"\n");
    sandbox.write("rules/wide.graft", "rename   \"a\"<->\"b\"\n");
    let ran = sandbox.run(&["check", "rules", "mixtral"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "3 rule files are sound\n"));
    let ran = sandbox.run(&["fmt", "--check", "rules"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, "rules/wide.graft\n"));
    assert_eq!(sandbox.run(&["fmt", "rules"]).code, 0);
    assert_eq!(
        std::fs::read_to_string(sandbox.path("rules/wide.graft")).unwrap(),
        "rename \"a\" <-> \"b\"\n"
    );
    assert_eq!(sandbox.run(&["fmt", "--check", "rules"]).code, 0);
    let ran = sandbox.run_with(&["fmt", "-"], "drop   \"x\"");
    assert_eq!((ran.code, ran.out.as_str()), (0, "drop \"x\"\n"));

    sandbox
        .write("rules/bad.graft", "rename \"a.{l}\" <-> \"b\"\nrename \"c\" <-> \"d\"\nnonsense\n");
    let ran = sandbox.run(&["check", "rules/bad.graft"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("bad.graft:3"), "{}", ran.err);
    let ran = sandbox.run(&["fmt", "rules/bad.graft"]);
    assert_eq!(ran.code, 2);
    assert!(
        std::fs::read_to_string(sandbox.path("rules/bad.graft")).unwrap().ends_with("nonsense\n")
    );
    let ran = sandbox.run(&["check", "rules/bad.graft", "--json"]);
    assert_eq!((ran.code, json(&ran.out)[0]["file"].as_str()), (2, Some("rules/bad.graft")));
}

#[test]
fn test_runs_examples_and_snapshots() {
    let sandbox = Sandbox::new();
    sandbox.write("my.graft", "rename \"a.{l}\" <-> \"b.{l}\"\n\nexample \"a.3\" <-> \"b.3\"\n");
    sandbox.write("my.cases/one.json", r#"{"a.0": ["F32", [2]]}"#);
    sandbox.write("my.cases/one.reverse.json", r#"{"b.0": ["F32", [2]]}"#);
    let ran = sandbox.run(&["test", "my.graft"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("my.cases/one.plan: there is no snapshot yet"), "{}", ran.err);
    assert_eq!(
        sandbox.run(&["test", "my.graft", "--update"]).out,
        "1 example, 2 cases, 2 updated\n"
    );
    assert_eq!(
        std::fs::read_to_string(sandbox.path("my.cases/one.plan")).unwrap(),
        "b.0  F32 [2] <- a.0\n"
    );
    assert_eq!(
        std::fs::read_to_string(sandbox.path("my.cases/one.reverse.plan")).unwrap(),
        "a.0  F32 [2] <- b.0\n"
    );
    assert_eq!(sandbox.run(&["test", "my.graft"]).code, 0);

    sandbox.write("my.graft", "rename \"a.{l}\" <-> \"c.{l}\"\n\nexample \"a.3\" <-> \"b.3\"\n");
    let ran = sandbox.run(&["test", "my.graft"]);
    assert_eq!(ran.code, 1);
    for text in ["RG212", "my.graft:3", "-b.0  F32 [2] <- a.0", "+c.0  F32 [2] <- a.0"] {
        assert!(ran.err.contains(text), "{text:?} is not in\n{}", ran.err);
    }
}

#[test]
fn rules_are_listed_and_shown() {
    let sandbox = Sandbox::new();
    let ran = sandbox.run(&["rules", "--model", "mixtral"]);
    let listed =
        |line: &str| line.split_whitespace().take(4).eq(["mixtral", "hub", "<->", "model"]);
    assert!(ran.out.lines().any(listed), "{}", ran.out);
    assert!(sandbox.run(&["rules"]).out.lines().any(|line| line.starts_with("wrappers ")));
    let ran = sandbox.run(&["rules", "show", "mixtral"]);
    assert_eq!(ran.out, include_str!("../../../rules/mixtral.graft"));
    let ran = sandbox.run(&["rules", "show", "mixtrol"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("did you mean `mixtral`?"), "{}", ran.err);
}

#[test]
fn completions_ask_the_program() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = sandbox.run(&["completions", shell]);
        assert!(ran.code == 0 && ran.out.contains("REGRAFT_COMPLETE"));
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    use std::process::Stdio;
    let sandbox = Sandbox::new();
    let mut child = sandbox
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8(output.stderr).unwrap()),
        (Some(0), String::new())
    );
}

#[test]
fn colour_is_there_only_when_asked_for() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.graft", "nonsense\n");
    assert!(!sandbox.run(&["check", "bad.graft"]).err.contains('\u{1b}'));
    assert!(sandbox.run(&["check", "bad.graft", "--color", "always"]).err.contains('\u{1b}'));
}

#[test]
fn a_key_cannot_write_to_the_terminal() {
    let sandbox = Sandbox::new();
    sandbox.write("m.json", r#"{"a\u001b[2Jb": ["F32", [2]], "c\u0007.0\nx": ["F32", [2]]}"#);
    for arguments in [
        &["inspect", "m.json"][..],
        &["plan", "m.json", "--all"],
        &["explain", "m.json", "a\u{1b}[2Jb"],
        &["explain", "m.json", "\u{1b}"],
    ] {
        let ran = sandbox.run(arguments);
        let both = ran.out + &ran.err;
        assert!(both.contains("\\u{1b}") && !both.contains(['\u{1b}', '\u{7}']), "{both:?}");
    }
}

#[test]
fn inspect_shows_a_tree() {
    let sandbox = Sandbox::new();
    let tensors = mixtral(2);
    sandbox.checkpoint("model.safetensors", &tensors);
    let tree = |depth: &str| sandbox.run(&["inspect", "model.safetensors", "--depth", depth]).out;
    let in_model = tensors.keys().filter(|key| key.starts_with("model.")).count();
    let in_layers = tensors.keys().filter(|key| key.starts_with("model.layers.")).count();
    let one = tree("1");
    assert!(one.lines().any(|line| line.starts_with("model ")), "{one}");
    assert!(one.contains(&format!("{in_model} keys")) && !one.contains("layers"), "{one}");
    let two = tree("2");
    let layers = two.lines().find(|line| line.starts_with("  layers.{0..1} ")).unwrap();
    assert!(layers.contains(&format!("{in_layers} keys")), "{two}");
    assert!(tree("9").contains("experts.{0..1}"), "{}", tree("9"));
    assert_eq!(sandbox.run(&["inspect", "model.safetensors", "--depth", "0"]).code, 2);
}

/// What bash itself completes by the script, for a line that ends with a word begun.
#[test]
fn bash_completes_rule_files_and_keys() {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("model.safetensors", &mixtral(2));
    let script = sandbox.run(&["completions", "bash"]).out;
    sandbox.write("complete.bash", &script);
    let completed = |words: &[&str]| {
        let folder = std::path::Path::new(env!("CARGO_BIN_EXE_regraft")).parent().unwrap();
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let last = words.len() - 1;
        let program = format!(
            "PATH={}:$PATH; . ./complete.bash; COMP_WORDS=({}); COMP_CWORD={last}; COMP_TYPE=9; \
             _clap_complete_regraft regraft '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            folder.display(),
            quoted.join(" "),
            words[last]
        );
        let output = std::process::Command::new("bash")
            .args(["--norc", "-c", &program])
            .current_dir(sandbox.path("."))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split(['\n', '\x0b'])
            .map(str::to_owned)
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
    };
    assert_eq!(completed(&["regraft", "expl"]), ["explain"]);
    assert_eq!(completed(&["regraft", "rules", "show", "mixtral_m"]), ["mixtral_mistral"]);
    let rules = completed(&["regraft", "plan", "model.safetensors", "--rules", "mixtra"]);
    assert!(rules.contains(&"mixtral".to_owned()), "{rules:?}");
    let keys = completed(&["regraft", "explain", "model.safetensors", "model.no"]);
    assert_eq!(keys, ["model.norm.weight"]);
}

/// The first plan, then another once the rules are others, and errors don't end it.
#[test]
fn plan_watches_rule_files() {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;
    let sandbox = Sandbox::new();
    sandbox.checkpoint("model.safetensors", &[("a.w".to_owned(), tensor("a.w", &[2]))].into());
    sandbox.write("x.graft", "rename \"a.**\" <-> \"first.**\"\n");
    let mut child = sandbox
        .command(&["plan", "model.safetensors", "--rules", "x.graft", "--watch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.any(|line| line.contains("first.w"));
    sandbox.write("x.graft", "renam\n");
    std::thread::sleep(std::time::Duration::from_millis(600));
    sandbox.write("x.graft", "rename \"a.**\" <-> \"the_second.**\"\n");
    let second = lines.any(|line| line.contains("the_second.w"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(first && second);
    assert_eq!(sandbox.run(&["plan", "model.safetensors", "--watch"]).code, 2);
}
