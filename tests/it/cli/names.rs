//! Keys, files and metadata may be called anything: no name moves the cursor, forges a line or turns the direction of reading, in whatever is printed.

use regraft::diagnostic::plain::is_harmful;

use super::sandbox::{Sandbox, Tensors, tensor};

/// What names hold. The second would be a line of its own, as if the program said it.
const PARTS: [&str; 8] = [
    "esc\u{1b}[31m",
    "end\nerror: forged",
    "back\rward",
    "rtl\u{202e}live",
    "iso\u{2066}late",
    "c1\u{9b}31m",
    "line\u{2028}x",
    "nul\u{0}bom\u{feff}",
];

#[test]
fn no_name_does_anything_but_being_read() {
    let sandbox = Sandbox::new();
    let keys = |prefix: &str| -> Tensors {
        PARTS.iter().enumerate().map(|(at, part)| format!("{prefix}.{at}.{part}.w")).map(|key| (key.clone(), tensor(&key, &[2]))).collect()
    };
    let odd = "dir\u{1b}[31m\nerror: forged\u{202e}";
    sandbox.checkpoint("a.safetensors", &keys("m"));
    sandbox.checkpoint("b.safetensors", &keys("m").into_iter().chain(keys("k")).collect());
    sandbox.checkpoint(&format!("{odd}/m\u{202e}.safetensors"), &keys("m"));
    sandbox.write("r.graft", "rename \"m.**\" <-> \"n.**\"\n");
    sandbox.write("drop.graft", "drop \"m.**\"\nrename \"k.**\" <-> \"n.**\"\n");
    sandbox.write("one.graft", "rename \"m.{p**}\" -> \"x\"\n");
    sandbox.write(&format!("{odd}.graft"), "renam \"\u{202e}\"\n");
    let wanted: Vec<String> =
        PARTS.iter().map(|part| format!("\"w.{}\": [\"F32\", [2]]", serde_json::to_string(part).unwrap().trim_matches('"'))).collect();
    sandbox.write("want.json", format!("{{{}}}", wanted.join(", ")));
    sandbox.write("config.json", "{\"model_type\": \"x\\u001b[31m\\nerror: forged\\u202e\"}");
    let second = format!("m.1.{}.w", PARTS[1]);
    let lines: [&[&str]; 19] = [
        &["inspect", "a.safetensors"],
        &["inspect", "a.safetensors", "--all", "--bytes"],
        &["inspect", odd],
        &["plan", odd],
        &["plan", "a.safetensors", "--rules", "r.graft"],
        &["plan", "a.safetensors", "--rules", "wrappers", "--all"],
        &["plan", "b.safetensors", "--rules", "drop.graft"],
        &["plan", "a.safetensors", "--rules", "one.graft"],
        &["plan", "a.safetensors", "--rules", "r.graft", "--target", "want.json"],
        &["plan", "a.safetensors", "--rules", "r.graft", "--target", "want.json", "--no-strict"],
        &["explain", "a.safetensors", &second, "--rules", "r.graft"],
        &["ties", "b.safetensors"],
        &["diff", "a.safetensors", "b.safetensors"],
        &["graph", "b.safetensors", "--rules", "drop.graft"],
        &["graph", "a.safetensors", "--rules", "r.graft", "--format", "svg"],
        &["graph", "a.safetensors", "--rules", "r.graft", "--format", "dot"],
        &["plan", "nowhere\u{1b}\nerror: forged\u{202e}"],
        &["check", &format!("{odd}.graft")],
        &["recover", odd],
    ];
    for line in lines {
        let ran = sandbox.run(line);
        for text in [&ran.out, &ran.err] {
            let harmful: Vec<char> = text.chars().filter(|c| is_harmful(*c) && *c != '\n').collect();
            assert!(harmful.is_empty(), "{line:?}: {harmful:?} in\n{text}");
            assert!(!text.lines().any(|line| line.trim_start().starts_with("error: forged")), "{line:?}: {text}");
        }
    }
}
