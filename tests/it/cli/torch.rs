//! Files of `torch.save` on the command line: what is said of them, and what comes of them.

use regraft::store::{OpenOptions, Store as _, open};

use super::sandbox::Sandbox;

/// A file that PyTorch wrote, in the sandbox.
fn fixture(sandbox: &Sandbox, name: &str) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch");
    for entry in std::fs::read_dir(folder.join(name)).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        sandbox.write(&format!("{name}/{file}"), std::fs::read(&path).unwrap());
    }
}

fn told(name: &str, more: &[&str]) -> String {
    let sandbox = Sandbox::new();
    fixture(&sandbox, name);
    let path = match name {
        "bin_sharded" => name.to_owned(),
        _ => format!("{name}/checkpoint.pt"),
    };
    let ran = sandbox.run(&[&["plan", &path][..], more].concat());
    format!("{}\nexit {}", ran.err, ran.code)
}

#[test]
fn the_state_dict_is_found_and_what_is_left_out_is_named() {
    insta::assert_snapshot!(told("zip_nested_model_ema", &[]));
}

/// What a model is wrapped in is a part of its names until something says what model it is.
#[test]
fn wrappers_stay_where_nothing_is_known_of_the_model() {
    insta::assert_snapshot!(told("zip_ddp_compiled", &[]));
    let sandbox = Sandbox::new();
    fixture(&sandbox, "zip_ddp_compiled");
    let file = "zip_ddp_compiled/checkpoint.pt";
    let keys = |more: &[&str]| -> Vec<String> {
        let ran = sandbox.run(&[&["apply", file, "-o", "out", "--force"][..], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        let written = open(sandbox.path("out"), &OpenOptions::default()).unwrap();
        written.header().tensors.keys().map(|key| key.as_str().to_owned()).collect()
    };
    assert!(keys(&[]).iter().all(|key| key.starts_with("module._orig_mod.")));
    let bare = |key: &String| !key.contains("_orig_mod") && !key.starts_with("module.");
    assert!(keys(&["--rules", "wrappers"]).iter().all(bare));
    assert!(keys(&["--to", "model"]).iter().all(bare));
    sandbox.write("zip_ddp_compiled/config.json", r#"{"model_type": "llama"}"#);
    assert!(keys(&[]).iter().all(bare));
}

#[test]
fn what_would_keep_a_wrapper_is_told_where_names_stay() {
    let sandbox = Sandbox::new();
    let plan = |keys: &[&str]| {
        let tensors: Vec<String> = keys
            .iter()
            .map(|key| format!(r#""{key}": {{"dtype": "F32", "shape": [4]}}"#))
            .collect();
        sandbox.write("keys.json", format!("{{{}}}", tensors.join(", ")));
        sandbox.run(&["plan", "keys.json"])
    };
    let stray = plan(&["module.a.weight", "module.b.weight", "module.c.weight", "global_step"]);
    assert_eq!(stray.code, 0);
    let said = "`module` leads 3 of 4 keys; it isn't stripped because `global_step` lacks it";
    assert!(stray.err.contains(said), "{}", stray.err);
    assert!(!stray.err.contains("RG355"), "{}", stray.err);
    let flat = plan(&["layers.0._flat_param", "norm.weight"]);
    assert_eq!(flat.code, 1);
    assert!(flat.err.contains("FSDP1 flat parameters"), "{}", flat.err);
    // Stripped, two keys would be one: they stay, and so that's no matter.
    let twice = plan(&["a._orig_mod.weight", "a.weight"]);
    assert_eq!(twice.code, 0);
    assert!(twice.err.contains("RG355"), "{}", twice.err);
}

#[test]
fn another_root_is_taken_if_it_is_asked_for() {
    let sandbox = Sandbox::new();
    fixture(&sandbox, "zip_nested_model_ema");
    let file = "zip_nested_model_ema/checkpoint.pt";
    for (root, begins) in [("model_ema", ""), ("", "model.")] {
        let ran = sandbox.run(&["apply", file, "-o", "out", "--force", "--root", root]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(!ran.err.contains("RG346"), "{}", ran.err);
        let written = open(sandbox.path("out"), &OpenOptions::default()).unwrap();
        let key = format!("{begins}norm.weight");
        assert!(written.header().get(&key).is_some(), "{:?}", written.header().tensors.keys());
    }
    let ran = sandbox.run(&["apply", file, "-o", "no", "--root", "modle"]);
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.contains("model, model_ema"), "{}", ran.err);
    assert!(!sandbox.path("no").exists());
}

#[test]
fn what_a_file_would_have_run_is_named() {
    insta::assert_snapshot!(told("hostile_system", &[]));
}

#[test]
fn a_tensor_that_cannot_be_read_stops_unless_it_is_dropped() {
    insta::assert_snapshot!(told("refused_sparse", &[]));
    let sandbox = Sandbox::new();
    fixture(&sandbox, "refused_sparse");
    sandbox.write("drop.graft", "drop \"s\"\n");
    let file = "refused_sparse/checkpoint.pt";
    let ran = sandbox.run(&["plan", file, "--rules", "drop.graft"]);
    assert!(ran.code == 0 && !ran.err.contains("RG349"), "{}", ran.err);
    let ran = sandbox.run(&["plan", file, "--no-strict"]);
    assert!(ran.code == 1 && ran.err.contains("warning[RG349]"), "{}", ran.err);
}

#[test]
fn a_wrong_total_of_an_index_is_told() {
    insta::assert_snapshot!(told("bin_sharded", &[]));
}

#[test]
fn a_file_of_torch_is_not_changed_in_place() {
    let sandbox = Sandbox::new();
    fixture(&sandbox, "zip_views");
    let before = sandbox.snapshot();
    let ran = sandbox.run(&["apply", "zip_views/checkpoint.pt", "--in-place"]);
    assert!(ran.code == 3 && ran.err.contains("only safetensors files"), "{}", ran.err);
    assert_eq!(sandbox.snapshot(), before);
}

#[test]
fn what_is_no_tensor_is_kept_as_json() {
    let sandbox = Sandbox::new();
    fixture(&sandbox, "zip_nested_model_ema");
    let file = "zip_nested_model_ema/checkpoint.pt";
    let ran = sandbox.run(&["inspect", file, "--values", "-"]);
    let values: serde_json::Value =
        serde_json::from_str(&ran.out[..ran.out.find("\nkey ").unwrap()]).unwrap();
    // What else is in the file: `args`, a dict of plain values.
    assert!(values.get("args").is_some_and(|args| args.is_object()), "{values}");
    assert!(values.get("model").is_none(), "{values}");
    let ran = sandbox.run(&["apply", file, "-o", "out", "--values", "values.json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let written = std::fs::read_to_string(sandbox.path("values.json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), values);
    // A file that is there is left alone.
    let ran = sandbox.run(&["inspect", file, "--values", "values.json"]);
    assert_eq!(ran.code, 3, "{}", ran.err);
}

#[test]
fn inspect_shows_roots_and_what_is_beside_them() {
    let sandbox = Sandbox::new();
    fixture(&sandbox, "zip_nested_model_ema");
    let ran = sandbox.run(&["inspect", "zip_nested_model_ema/checkpoint.pt"]);
    for line in ["root: model\n", "other roots: model_ema\n", "left out: model_ema, 9 tensors\n"] {
        assert!(ran.out.contains(line), "{}", ran.out);
    }
    fixture(&sandbox, "refused_sparse");
    let ran = sandbox.run(&["inspect", "refused_sparse/checkpoint.pt"]);
    assert!(ran.code == 1 && ran.out.contains("can't be read: s, a sparse tensor"), "{}", ran.out);
}
