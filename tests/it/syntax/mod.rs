//! The surface: every case of `tests/corpus/syntax` is parsed, formatted, and its diagnostics
//! rendered.
//!
//! A case is rule text. Files whose name begins with `bad` hold text that is refused, the others
//! text that isn't.

mod generate;
mod invert;

use std::sync::Arc;

use regraft::diagnostic::{SourceText, render_all};
use regraft::syntax::{Parsed, parse, print};

use super::corpus::{Case, cases, files, hold};

fn read(name: &str, text: &str) -> Parsed {
    parse(Arc::new(SourceText { name: name.to_owned(), text: text.to_owned() }))
}

#[test]
fn corpus() {
    hold("syntax", |Case { name, body }| {
        let parsed = read(name, body);
        let formatted = print(&parsed.file);
        let again = read(name, &formatted);
        assert!(
            again.diagnostics.is_empty(),
            "{name}: what was printed doesn't parse:\n{formatted}"
        );
        assert_eq!(again.file, parsed.file, "{name}: what was printed is another tree");
        assert_eq!(print(&again.file), formatted, "{name}: formatting twice changes it");
        let unchanged = parsed.diagnostics.is_empty() && formatted == *body;
        let mut shown = if unchanged { "(unchanged)\n".to_owned() } else { formatted };
        if !parsed.diagnostics.is_empty() {
            shown.push_str(&format!("---\n{}", render_all(&parsed.diagnostics, false)));
        }
        shown
    });
}

#[test]
fn good_cases_have_no_diagnostics_and_bad_ones_have() {
    for file in files("syntax") {
        for Case { name, body } in cases("syntax", &file) {
            let parsed = read(&name, &body);
            assert_eq!(
                !parsed.diagnostics.is_empty(),
                file.starts_with("bad"),
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
