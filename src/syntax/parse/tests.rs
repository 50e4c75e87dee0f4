use super::*;

fn read(text: &str) -> Parsed {
    parse(Arc::new(SourceText { name: "test.graft".to_owned(), text: text.to_owned() }))
}

fn good(text: &str) -> RuleFile {
    let parsed = read(text);
    assert!(
        parsed.diagnostics.is_empty(),
        "{}",
        crate::diagnostic::render_all(&parsed.diagnostics, false)
    );
    parsed.file
}

#[test]
fn the_examples_of_the_design_parse() {
    let text = include_str!("../../../tests/corpus/syntax/design.graft");
    let file = good(text);
    assert_eq!(file.statements.len(), 7 + 8 + 5);
}

/// The grammar's own reading of a whole file.
fn grammar_accepts(text: &str) -> bool {
    Grammar::parse(Rule::file, text).is_ok()
}

fn corpus() -> Vec<String> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/syntax");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "graft") {
            let text = std::fs::read_to_string(&path).unwrap();
            cases.extend(
                text.split("### ")
                    .skip(1)
                    .map(|case| case.split_once('\n').map_or("", |(_, body)| body).to_owned()),
            );
        }
    }
    cases
}

#[test]
fn the_whole_grammar_agrees_with_reading_by_statements() {
    for case in corpus() {
        let parsed = read(&case);
        if parsed.diagnostics.is_empty() {
            assert!(grammar_accepts(&case), "only the reader takes:\n{case}");
        }
    }
    for bad in [
        "rename \"a\" => \"b\"",
        "drop \"a\" \"b\"",
        "let x =",
        "}",
        "when x {",
        "renam \"a\" -> \"b\"",
    ] {
        assert!(!grammar_accepts(bad) && !read(bad).diagnostics.is_empty(), "{bad}");
    }
}

#[test]
fn nesting_is_limited_before_pest_recurses() {
    for (open, close) in [("(", ")"), ("[", "]")] {
        let deep = |count: usize| {
            format!("let a = {}1{}\ndrop \"b\"", open.repeat(count), close.repeat(count))
        };
        assert_eq!(good(&deep(MAX_NESTING)).statements.len(), 2);
        for count in [MAX_NESTING + 1, 100_000] {
            let parsed = read(&deep(count));
            assert_eq!(parsed.diagnostics.len(), 1);
            assert_eq!(parsed.diagnostics[0].code, codes::LIMIT);
            assert_eq!(parsed.file.statements.len(), 1, "what follows still parses");
        }
    }
    let parsed = read(&format!("drop \"{{{}l\"", "(".repeat(100_000)));
    assert_eq!(parsed.diagnostics[0].code, codes::LIMIT);
    let parsed = read(&format!("tie \"a\" from \"b\"\n{}", "when ((((((((((\n".repeat(50_000)));
    assert!(!parsed.diagnostics.is_empty());
}

#[test]
fn long_expressions_are_limited() {
    let chain = |count: usize| format!("let a = 1{}", " + 1".repeat(count));
    good(&chain(256));
    for text in [
        chain(257),
        chain(200_000),
        format!("let a = {}1", "- ".repeat(300_000)),
        format!("let a = {}1", "not ".repeat(200_000)),
    ] {
        let parsed = read(&text);
        assert_eq!(parsed.diagnostics.len(), 1);
        assert_eq!(parsed.diagnostics[0].code, codes::LIMIT);
    }
}

#[test]
fn blocks_are_limited() {
    let deep =
        |count: usize| format!("{}drop \"a\"{}", "when x { ".repeat(count), " }".repeat(count));
    good(&deep(MAX_NESTING));
    for text in [
        deep(MAX_NESTING + 1),
        deep(50_000),
        format!("when x {{ }}{}", " else when x { }".repeat(50_000)),
    ] {
        assert!(read(&text).diagnostics.iter().any(|found| found.code == codes::LIMIT));
    }
}

#[test]
fn reading_stops_after_many_mistakes() {
    let parsed = read(&"drp \"a\"\ndrop \"b\"\n".repeat(1000));
    assert_eq!(parsed.diagnostics.len(), MAX_DIAGNOSTICS + 1);
    assert_eq!(parsed.diagnostics.last().map(|last| last.code), Some(codes::LIMIT));
}

#[test]
fn size_is_limited() {
    let parsed = read(&"#".repeat(MAX_TEXT + 1));
    assert_eq!(parsed.diagnostics[0].code, codes::LIMIT);
    good(&"#".repeat(MAX_TEXT));
}

#[test]
fn large_files_take_linear_time() {
    let started = cpu_time::ThreadTime::now();
    let rules = format!("rename {{ {} }}", r#""a"->"b" "#.repeat(20_000));
    assert_eq!(good(&rules).statements.len(), 1);
    assert_eq!(good(&"let a ".repeat(50_000)).statements.len(), 50_000);
    assert_eq!(good(&"drop \"a\"\n".repeat(50_000)).statements.len(), 50_000);
    // Quadratic reading would take minutes.
    let took = started.elapsed().as_secs_f64();
    assert!(took < 30.0, "{took}");
}

#[test]
fn spans_are_exact() {
    let text = "drop \"é\"  # c\n  , \"b.{ l + 1 }\"   # d\n\nlet a = b + 1  \n";
    let file = good(text);
    let of = |span: Span| &text[span.range()];
    assert_eq!(of(file.statements[0].span), "drop \"é\"  # c\n  , \"b.{ l + 1 }\"");
    assert_eq!(of(file.statements[1].span), "let a = b + 1");
    let StatementKind::Drop(keys) = &file.statements[0].kind else { panic!() };
    assert_eq!(of(keys.patterns[0].span), "\"é\"");
    let crate::syntax::ast::Segment::Atoms(atoms) = &keys.patterns[1].segments[1] else { panic!() };
    let crate::syntax::ast::Atom::Capture(capture) = &atoms[0] else { panic!() };
    assert_eq!(of(capture.span), "{ l + 1 }");
    let StatementKind::Let { value: Some(value), .. } = &file.statements[1].kind else { panic!() };
    assert_eq!(of(value.span), "b + 1");
}

/// The comments of a text, sorted, as some move.
fn comments(text: &str) -> Vec<String> {
    let lexed = Lexed::new(text);
    let mut comments: Vec<String> = lexed
        .comments
        .iter()
        .map(|comment| text[comment.start..comment.end].trim_end().to_owned())
        .collect();
    comments.sort();
    comments
}

/// Reads a text that may be anything; what was understood must print to something that is
/// understood the same way.
fn survives(text: &str) {
    let parsed = read(text);
    for diagnostic in &parsed.diagnostics {
        crate::diagnostic::render(diagnostic, false);
    }
    if parsed.diagnostics.is_empty() {
        let printed = crate::syntax::print(&parsed.file);
        let again = read(&printed);
        assert!(again.diagnostics.is_empty(), "{text}\nis printed as\n{printed}");
        assert_eq!(again.file, parsed.file, "{text}\nis printed as\n{printed}");
        assert_eq!(crate::syntax::print(&again.file), printed);
        assert_eq!(comments(text), comments(&printed), "a comment is lost or made");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_text_is_read_without_panic(text in "\\PC{0,60}") {
        survives(&text);
    }

    #[test]
    fn any_tokens_are_read_without_panic(
        words in proptest::collection::vec(proptest::sample::select(WORDS), 0..40),
    ) {
        survives(&words.join(" "));
        survives(&words.join(""));
    }

    #[test]
    fn a_mutated_file_is_read_without_panic(
        case in proptest::sample::select(corpus()), at in 0usize..400, length in 0usize..6, put in proptest::sample::select(WORDS),
    ) {
        let mut characters: Vec<char> = case.chars().collect();
        let at = at.min(characters.len());
        let end = (at + length).min(characters.len());
        characters.splice(at..end, put.chars());
        survives(&characters.into_iter().collect::<String>());
    }
}

const WORDS: &[&str] = &[
    "rename",
    "map",
    "drop",
    "tie",
    "from",
    "when",
    "else",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "\"a.{l}\"",
    "\"**\"",
    "\"",
    "/",
    "/x/",
    "<->",
    "->",
    "=>",
    ",",
    "|",
    "via",
    "unless",
    "where",
    "optional",
    "alone",
    "let",
    "=",
    "1",
    "..",
    "-",
    "not",
    "and",
    "config",
    ".a",
    "example",
    "# c",
    "\n",
    "\r\n",
    "é",
    "\\",
    "if",
    "present",
    "keep",
    "cast",
    "to",
    "F32",
    "zeros",
    "use",
    "under",
    "models",
    "{x: q|k}",
    "*",
    "**",
    "\u{FEFF}",
    "\t",
    ";",
    ":",
    "??",
    "==",
];
