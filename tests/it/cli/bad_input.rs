//! Bad input ends with one clear message and an exit code from 1 to 3, and nothing is written.

use super::sandbox::{MIXTRAL_CONFIG, Sandbox, mixtral, tensor};

/// A sandbox with a small checkpoint in `source`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.checkpoint("source/model.safetensors", &mixtral(8));
    sandbox.write("source/config.json", MIXTRAL_CONFIG);
    sandbox
}

/// Converts `source` into `out`, which must be refused so; and all must be as it was.
fn refused(sandbox: &Sandbox, arguments: &[&str], code: i32, says: &[&str]) {
    refused_output(sandbox, "out", arguments, code, says);
}

fn refused_output(sandbox: &Sandbox, output: &str, arguments: &[&str], code: i32, says: &[&str]) {
    let before = sandbox.snapshot();
    let ran = sandbox.run(&[&["apply", "source", "-o", output], arguments].concat());
    assert_eq!(ran.code, code, "{}", ran.err);
    assert_eq!(ran.err.lines().filter(|line| line.starts_with("error")).count(), 1, "{}", ran.err);
    for text in says {
        assert!(ran.err.contains(text), "{text:?} is not said:\n{}", ran.err);
    }
    assert_eq!(ran.out, "");
    assert!(sandbox.snapshot() == before, "something was written");
}

/// As [`refused`], by rules.
fn rules_refused(rules: &str, code: i32, says: &[&str]) {
    let sandbox = sandbox();
    sandbox.write("my.graft", rules);
    refused(&sandbox, &["--rules", "my.graft"], code, says);
}

#[test]
fn a_typo_in_a_statement() {
    rules_refused("renmae \"a\" <-> \"b\"\n", 2, &["RG102", "my.graft:1:1", "rename"]);
}

#[test]
fn an_unknown_op() {
    rules_refused(
        "map \"**.experts.{e}.w1.weight\" <-> \"**.packed\" via stak(e)\n",
        2,
        &["RG103", "my.graft:1:", "stack"],
    );
}

#[test]
fn a_rule_file_that_includes_itself() {
    rules_refused("use \"my.graft\"\n", 2, &["RG109", "my.graft"]);
}

#[test]
fn a_missing_config_field() {
    let rules = "let n = config.num_local_expert\nrename \"model.layers.{l: 0..n}.self_attn.**\" <-> \"layers.{l}.**\"\n";
    rules_refused(rules, 2, &["RG209", "num_local_expert", "??"]);
}

#[test]
fn two_sources_for_one_target() {
    let rules = "rename {\n  \"model.norm.weight\" <-> \"x\"\n  \"lm_head.weight\" -> \"x\"\n}\n";
    rules_refused(
        rules,
        1,
        &["RG301", "my.graft:2", "my.graft:3", "model.norm.weight", "lm_head.weight"],
    );
}

#[test]
fn an_expert_that_is_missing() {
    let sandbox = Sandbox::new();
    let mut tensors = mixtral(8);
    tensors.remove("model.layers.1.block_sparse_moe.experts.3.w2.weight").unwrap();
    sandbox.checkpoint("source/model.safetensors", &tensors);
    sandbox.write("source/config.json", MIXTRAL_CONFIG);
    refused(&sandbox, &[], 1, &["RG302", "3"]);
}

#[test]
fn a_truncated_file() {
    let sandbox = sandbox();
    let path = sandbox.path("source/model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    sandbox.write("source/model.safetensors", &bytes[..bytes.len() - 5]);
    refused(&sandbox, &[], 3, &["model.safetensors"]);
}

#[test]
fn a_header_longer_than_the_file() {
    let sandbox = sandbox();
    let path = sandbox.path("source/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let longer = bytes.len() as u64 + 1;
    bytes[..8].copy_from_slice(&longer.to_le_bytes());
    sandbox.write("source/model.safetensors", &bytes);
    refused(&sandbox, &[], 3, &["model.safetensors", "header"]);
}

fn with_index(weight_map: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let tensors = [("a".to_owned(), tensor("a", &[2]))].into();
    sandbox.checkpoint("source/model-00001-of-00002.safetensors", &tensors);
    sandbox.checkpoint("other.safetensors", &[("b".to_owned(), tensor("b", &[2]))].into());
    let index = format!(
        "{{\"metadata\": {{}}, \"weight_map\": {{\"a\": \"model-00001-of-00002.safetensors\", {weight_map}}}}}"
    );
    sandbox.write("source/model.safetensors.index.json", index);
    sandbox
}

#[test]
fn an_index_that_names_a_file_outside_the_directory() {
    refused(
        &with_index(r#""b": "../other.safetensors""#),
        &[],
        3,
        &["index.json", "../other.safetensors"],
    );
    let absolute = with_index("");
    let outside = absolute.path("other.safetensors");
    let sandbox = with_index(&format!("\"b\": {:?}", outside.to_str().unwrap()));
    refused(&sandbox, &[], 3, &["other.safetensors"]);
}

#[test]
fn an_index_that_names_a_file_that_is_not_there() {
    refused(
        &with_index(r#""b": "model-00002-of-00002.safetensors""#),
        &[],
        3,
        &["model-00002-of-00002.safetensors"],
    );
}

#[test]
fn a_key_of_the_index_that_no_file_holds() {
    refused(
        &with_index(r#""b": "model-00001-of-00002.safetensors""#),
        &[],
        3,
        &["\"b\"", "model-00001-of-00002.safetensors"],
    );
}

#[test]
fn an_unknown_dtype() {
    let sandbox = Sandbox::new();
    let header = br#"{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend([0; 4]);
    sandbox.write("source/model.safetensors", file);
    refused(&sandbox, &[], 3, &["model.safetensors", "F31"]);
}

#[test]
fn an_output_that_is_there() {
    let sandbox = sandbox();
    sandbox.write("out/mine", "precious");
    refused(&sandbox, &[], 3, &["out", "--force"]);
    sandbox.write("out.safetensors", "precious");
    refused_output(&sandbox, "out.safetensors", &[], 3, &["out.safetensors"]);
    // Not even by force: a directory that holds something else.
    refused(&sandbox, &["--force"], 3, &["out"]);
}

#[test]
fn an_output_in_its_own_source() {
    refused_output(&sandbox(), "source/out", &[], 3, &["source"]);
    refused_output(&sandbox(), "source/model.safetensors", &["--force"], 3, &["model.safetensors"]);
}

#[test]
fn a_target_directory_that_cannot_be_written() {
    // For root, modes of files forbid nothing; /proc does.
    refused_output(&sandbox(), "/proc/out", &[], 3, &["/proc"]);
    refused_output(&sandbox(), "source/config.json/out", &[], 3, &["config.json"]);
    refused_output(&sandbox(), "nowhere/out", &[], 3, &["nowhere"]);
}

#[test]
fn missing_keys_of_a_strict_target() {
    let sandbox = sandbox();
    sandbox.write("target.txt", "model.norm.weight\nmodel.norms.weight\n");
    let before = sandbox.snapshot();
    let ran = sandbox.run(&["apply", "source", "-o", "out", "--target", "target.txt"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(
        ran.err.contains("RG305")
            && ran.err.contains("model.norms.weight")
            && ran.err.contains("--no-strict"),
        "{}",
        ran.err
    );
    assert!(sandbox.snapshot() == before);
    // Said so, it is a finding: the output is written with what there is.
    let ran =
        sandbox.run(&["apply", "source", "-o", "out", "--target", "target.txt", "--no-strict"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert_eq!(sandbox.tensors("out").into_keys().collect::<Vec<_>>(), ["model.norm.weight"]);
}

#[test]
fn arguments_that_make_no_sense() {
    let sandbox = sandbox();
    refused(&sandbox, &["--rules", "mixtrol"], 2, &["RG108", "mixtral"]);
    refused(&sandbox, &["--to", "modle"], 2, &["RG208", "model"]);
    refused(&sandbox, &["--rules", "mixtral", "--set", "heads=4"], 2, &["RG207", "heads"]);
    refused(&sandbox, &["--set", "heads"], 2, &["NAME=VALUE"]);
    refused(&sandbox, &["--max-shard-size", "big"], 2, &["big"]);
    refused(&sandbox, &["--config", "nowhere.json"], 3, &["nowhere.json"]);
    refused(&sandbox, &["--target", "nowhere.json"], 3, &["nowhere.json"]);
    refused(&sandbox, &["--rules", "nowhere.graft"], 3, &["nowhere.graft"]);
}

#[test]
fn a_manifest_has_nothing_to_convert() {
    let sandbox = Sandbox::new();
    sandbox.write("source", r#"{"a": ["F32", [2]]}"#);
    refused(&sandbox, &[], 2, &["manifest", "plan"]);
}

#[test]
fn failures_are_json_too() {
    let sandbox = sandbox();
    sandbox.write("my.graft", "renmae \"a\" <-> \"b\"\n");
    let ran = sandbox.run(&["apply", "source", "-o", "out", "--rules", "my.graft", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, ran.err.as_str()), (2, ""));
    assert_eq!(json["findings"][0]["code"], "RG102");
    let ran = sandbox.run(&["apply", "nowhere", "-o", "out", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (ran.code, &json["error"]["kind"], &json["error"]["file"]),
        (3, &"io".into(), &"nowhere".into())
    );
}
