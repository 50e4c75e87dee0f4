//! The embedded rule files: each parses, checks and is formatted.

use std::sync::Arc;

use regraft::diagnostic::{SourceText, render_all};
use regraft::{library, syntax};

#[test]
fn every_file_checks() {
    for name in library::names() {
        if let Err(library::LoadError::Rules(diagnostics)) = library::load(name) {
            panic!("{name}:\n{}", render_all(&diagnostics.0, false));
        }
    }
}

#[test]
fn every_file_is_formatted() {
    for name in library::names() {
        let text = library::text(name).unwrap();
        let parsed = syntax::parse(Arc::new(SourceText { name: name.to_owned(), text: text.to_owned() }));
        assert!(parsed.diagnostics.is_empty(), "{name}");
        assert_eq!(text, syntax::print(&parsed.file), "{name} is not as `regraft fmt` writes it");
    }
}

#[test]
fn every_example_holds() {
    let (mut checked, mut failed) = (0, String::new());
    // A file that doesn't check is the matter of the test above.
    for rules in library::names().filter_map(library::rules) {
        checked += rules.examples.len();
        failed.push_str(&render_all(&library::check_examples(rules), false));
    }
    assert!(failed.is_empty(), "{failed}");
    assert!(checked > 0);
}
