//! Keys, files and metadata may be called anything: no name moves the cursor, forges a line or
//! turns the direction of reading, in whatever is printed.

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
        PARTS
            .iter()
            .enumerate()
            .map(|(at, part)| format!("{prefix}.{at}.{part}.w"))
            .map(|key| (key.clone(), tensor(&key, &[2])))
            .collect()
    };
    let odd = "dir\u{1b}[31m\nerror: forged\u{202e}";
    sandbox.checkpoint("a.safetensors", &keys("m"));
    sandbox.checkpoint("b.safetensors", &keys("m").into_iter().chain(keys("k")).collect());
    sandbox.checkpoint(&format!("{odd}/m\u{202e}.safetensors"), &keys("m"));
    sandbox.write("r.graft", "rename \"m.**\" <-> \"n.**\"\n");
    sandbox.write("drop.graft", "drop \"m.**\"\nrename \"k.**\" <-> \"n.**\"\n");
    sandbox.write("one.graft", "rename \"m.{p**}\" -> \"x\"\n");
    sandbox.write(&format!("{odd}.graft"), "renam \"\u{202e}\"\n");
    let wanted: Vec<String> = PARTS
        .iter()
        .map(|part| {
            format!(
                "\"w.{}\": [\"F32\", [2]]",
                serde_json::to_string(part).unwrap().trim_matches('"')
            )
        })
        .collect();
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
            let harmful: Vec<char> =
                text.chars().filter(|c| is_harmful(*c) && *c != '\n').collect();
            assert!(harmful.is_empty(), "{line:?}: {harmful:?} in\n{text}");
            assert!(
                !text.lines().any(|line| line.trim_start().starts_with("error: forged")),
                "{line:?}: {text}"
            );
        }
    }
}

/// What none of the output may have: a line that a key made up, and characters that act or can't be
/// seen.
const LINE: &str = "error: all is lost";

fn hostile_keys() -> Vec<String> {
    let mut keys = vec![
        format!("b\n{LINE}\n.w"),
        format!("b\r{LINE}\r.v"),
        format!("b\u{2028}{LINE}\u{2029}.w"),
    ];
    for layer in 0..2 {
        keys.push(format!("a\u{1b}[31mred.{layer}.w"));
        keys.push(format!("t\n{LINE}\n.{layer}.q"));
    }
    for mark in [
        '\u{202e}',
        '\u{2066}',
        '\u{200b}',
        '\u{9b}',
        '\u{7f}',
        '\u{feff}',
        '\u{e0041}',
        '\0',
        '\t',
    ] {
        keys.push(format!("m{mark}n.weight"));
    }
    keys
}

fn checked(what: &str, text: &str) {
    for line in text.lines() {
        assert!(!line.trim_start().starts_with(LINE), "{what}: a key ends a line in\n{text}");
        let harmful = |c: char| {
            c.is_control()
                || "\u{202e}\u{2066}\u{200b}\u{feff}\u{e0041}\u{2028}\u{2029}".contains(c)
        };
        assert!(!line.contains(harmful), "{what}: {line:?}");
    }
}

#[test]
fn no_name_of_others_acts_ends_a_line_or_turns_it_around() {
    let sandbox = Sandbox::new();
    let tensors: Tensors =
        hostile_keys().into_iter().map(|key| (key, tensor("same", &[4]))).collect();
    let name = format!("model-x\n{LINE}\n\u{202e}.safetensors");
    sandbox.checkpoint(&format!("bad/{name}"), &tensors);
    sandbox.write("bad/config.json", format!("{{\"model_type\": \"\\u202e\\n{LINE}\\n\"}}"));
    let mut less = tensors.clone();
    less.pop_first();
    less.insert(format!("new\n{LINE}\n\u{202e}"), tensor("new", &[4]));
    sandbox.checkpoint("less/model.safetensors", &less);
    sandbox.write(
        "r.graft",
        "rename \"a{x*}.{i}.w\" -> \"q{x}.{i}.w\"\nmap \"t{x*}.{i}.q\" -> \"t{x}.q\" via stack(i)\nrename \"zz\" -> \"y\"\ndrop \"m{x*}.weight\"\ntie \"head\" from \"new{x*}\"\n",
    );
    let key = &hostile_keys()[0];
    let stacked = format!("t\n{LINE}\n.q");
    let source = format!("t\n{LINE}\n.1.q");
    let missing = format!("nowhere\n{LINE}\n");
    let target = format!("{key}x");
    sandbox.write("want.json", serde_json::json!({ target: ["F32", [4]] }).to_string());
    let path = format!("bad/{name}");
    for arguments in [
        &["inspect", "bad"][..],
        &["inspect", "bad", "--all", "--bytes"],
        &["plan", "bad", "--rules", "r.graft"],
        &["plan", "less", "--rules", "r.graft", "--all"],
        &["plan", "bad"],
        &["plan", "bad", "--rules", "r.graft", "--target", "want.json"],
        &["explain", "bad", key, "--rules", "r.graft"],
        &["explain", "bad", &source, "--rules", "r.graft"],
        &["explain", "bad", &stacked, "--rules", "r.graft"],
        &["explain", "bad", &missing, "--rules", "r.graft"],
        &["ties", "bad"],
        &["diff", "bad", "less"],
        &["detect", "bad"],
        &["graph", "bad", "--rules", "r.graft", "--all"],
        &["graph", "bad", "--rules", "r.graft", "--all", "--format", "svg"],
        &["graph", "bad", "--rules", "r.graft", "--all", "--format", "mermaid"],
        &["apply", "bad", "-o", "out", "--rules", "r.graft", "--progress", "lines"],
        &["apply", "bad", "-o", "bad/inside"],
        &["apply", "bad", "--in-place", "--rules", "r.graft"],
        &["apply", &path, "-o", "x\u{202e}\ny.safetensors", "--progress", "json"],
        &["inspect", &missing],
        &["verify", &path],
        &["recover", "bad"],
    ] {
        let ran = sandbox.run(arguments);
        checked(&format!("{arguments:?} on standard output"), &ran.out);
        checked(&format!("{arguments:?} on standard error"), &ran.err);
        assert!(ran.out.len() + ran.err.len() > 20, "{arguments:?} says nothing");
        if arguments.contains(&"out") {
            assert!(sandbox.path("out").exists(), "{}", ran.err);
        }
    }
    // Whoever reads JSON gets the names as they are.
    let ran = sandbox.run(&["inspect", "bad", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert!(hostile_keys().iter().all(|key| found["tensors"].get(key).is_some()));
    // And files keep them.
    let out: Vec<String> = sandbox.tensors("out").into_keys().collect();
    assert!(out.contains(key) && out.contains(&stacked), "{out:?}");
}
