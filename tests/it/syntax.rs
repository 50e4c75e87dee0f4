//! The surface: every case of `tests/corpus/syntax` is parsed, formatted, and its diagnostics
//! rendered.
//!
//! A file holds several cases, each under a line `### name`.

mod generate;

use std::sync::Arc;

use regraft::diagnostic::{SourceText, render_all};
use regraft::syntax::{Parsed, parse, print};

fn read(name: &str, text: &str) -> Parsed {
    parse(Arc::new(SourceText { name: name.to_owned(), text: text.to_owned() }))
}

fn cases(text: &str) -> Vec<(&str, &str)> {
    let cases: Vec<(&str, &str)> = text
        .split("### ")
        .skip(1)
        .map(|case| case.split_once('\n').unwrap_or((case, "")))
        .map(|(name, body)| (name.trim(), body))
        .collect();
    assert!(!cases.is_empty(), "a corpus file without a case");
    cases
}

#[test]
fn corpus() {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false, snapshot_path => "../corpus/syntax" }, {
        insta::glob!("../corpus/syntax", "*.graft", |path| {
            let text = std::fs::read_to_string(path).unwrap();
            let mut shown = String::new();
            for (name, case) in cases(&text) {
                let parsed = read(name, case);
                let formatted = print(&parsed.file);
                let again = read(name, &formatted);
                assert!(again.diagnostics.is_empty(), "{name}: what was printed doesn't parse:\n{formatted}");
                assert_eq!(again.file, parsed.file, "{name}: what was printed is another tree");
                assert_eq!(print(&again.file), formatted, "{name}: formatting twice changes it");
                shown.push_str(&format!("### {name}\n"));
                shown.push_str(if parsed.diagnostics.is_empty() && formatted == case { "(unchanged)\n" } else { &formatted });
                if !parsed.diagnostics.is_empty() {
                    shown.push_str(&format!("---\n{}", render_all(&parsed.diagnostics, false)));
                }
            }
            insta::assert_snapshot!(shown);
        });
    });
}

#[test]
fn good_cases_have_no_diagnostics_and_bad_ones_have() {
    for entry in
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/syntax")).unwrap()
    {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "graft") {
            continue;
        }
        let bad = path.file_stem().unwrap().to_string_lossy().starts_with("bad");
        for (name, case) in cases(&std::fs::read_to_string(&path).unwrap()) {
            let parsed = read(name, case);
            assert_eq!(
                !parsed.diagnostics.is_empty(),
                bad,
                "{name}: {}",
                render_all(&parsed.diagnostics, false)
            );
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_printed_parses_to_the_same_tree(file in generate::file()) {
        let text = print(&file);
        let parsed = read("generated", &text);
        assert!(parsed.diagnostics.is_empty(), "{text}\n{}", render_all(&parsed.diagnostics, false));
        assert_eq!(parsed.file, file, "{text}");
        assert_eq!(print(&parsed.file), text);
    }
}
