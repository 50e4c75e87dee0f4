use super::*;

fn read(text: &str) -> Parsed {
    parse(Arc::new(SourceText { name: "test.graft".to_owned(), text: text.to_owned() }))
}

fn good(text: &str) -> RuleFile {
    let parsed = read(text);
    assert!(parsed.diagnostics.is_empty(), "{}", crate::diagnostic::render_all(&parsed.diagnostics, false));
    parsed.file
}

#[test]
fn the_examples_of_the_design_parse() {
    let text = include_str!("../../../tests/corpus/syntax/design.graft");
    let file = good(text);
    assert_eq!(file.statements.len(), 7 + 8 + 5);
}
