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
    let mut checked = 0;
    for name in library::names() {
        let rules = library::rules(name).unwrap();
        checked += rules.examples.len();
        let failed = library::check_examples(rules);
        assert!(failed.is_empty(), "{name}:\n{}", render_all(&failed, false));
    }
    assert!(checked > 0);
}
