//! `regraft new`: a rule file that is written, what is said of it, and what is refused.

use super::sandbox::Sandbox;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(
        "from.json",
        r#"{"h.0.w": ["F32", [2, 3]], "h.1.w": ["F32", [2, 3]], "wte.weight": ["F32", [5, 2]]}"#,
    );
    sandbox.write(
        "to.json",
        r#"{"layers.0.weight": ["F32", [3, 2]], "layers.1.weight": ["F32", [3, 2]],
            "embed_tokens.weight": ["F32", [5, 2]]}"#,
    );
    sandbox
}

#[test]
fn the_file_that_is_written_applies() {
    let sandbox = sandbox();
    let ran = sandbox.run(&["new", "from.json", "--target", "to.json", "-o", "my-rules.graft"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    assert!(ran.err.contains("2 rules: 3 of 3 keys of the target"), "{}", ran.err);
    let text = std::fs::read_to_string(sandbox.path("my-rules.graft")).unwrap();
    assert!(text.contains("ruleset my_rules: source <-> target"), "{text}");
    assert_eq!(sandbox.run(&["fmt", "--check", "my-rules.graft"]).code, 0);
    let ran =
        sandbox.run(&["plan", "from.json", "--rules", "my-rules.graft", "--target", "to.json"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    // A file is never replaced.
    let ran = sandbox.run(&["new", "from.json", "--target", "to.json", "-o", "my-rules.graft"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("the file is there already"), "{}", ran.err);
}

#[test]
fn without_a_file_the_rules_are_the_output() {
    let sandbox = sandbox();
    let ran = sandbox.run(&["new", "from.json", "--target", "to.json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("\"h.{l}.w\" <-> \"layers.{l}.weight\" via transpose(0, 1)"));
    let ran = sandbox.run(&["new", "from.json", "--target", "to.json", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&json["reached"], &json["wanted"]), (&3.into(), &3.into()));
    assert_eq!(json["unsure"], 0);
}

#[test]
fn what_is_open_is_a_finding() {
    let sandbox = sandbox();
    sandbox.write("to.json", r#"{"layers.0.weight": ["F32", [3, 2]], "other": ["F32", [7]]}"#);
    let ran = sandbox.run(&["new", "from.json", "--target", "to.json"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.contains("# keys that nothing becomes:\n#   other"), "{}", ran.out);
    assert!(ran.err.contains("nothing takes"), "{}", ran.err);
    let ran = sandbox.run(&["new", "from.json", "--target", "none.json"]);
    assert_eq!(ran.code, 3);
}
