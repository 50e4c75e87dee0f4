//! The parser reads what regraft's own reads, its trees are those of the corpus, and it and the queries are up to date.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use regraft::diagnostic::SourceText;
use tree_sitter::{Language, Node, Parser, Query, Tree};
use tree_sitter_graft::{FOLDS, HIGHLIGHTS, INDENTS, LANGUAGE, LOCALS};

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn parse(text: &str) -> Tree {
    let mut parser = Parser::new();
    parser.set_language(&LANGUAGE.into()).unwrap();
    parser.parse(text, None).unwrap()
}

/// Whether regraft reads a text without a word about its syntax.
fn reads(text: &str) -> bool {
    let source = SourceText { name: String::new(), text: text.to_owned() };
    regraft::syntax::parse(Arc::new(source)).diagnostics.is_empty()
}

/// Every file below a folder with an ending, in order.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let passed = path.ends_with("node_modules") || path.ends_with("target");
            let inside = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
            open.extend(inside.filter(|_| !passed));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Where a tree has an error, or misses something.
fn mistake(node: Node<'_>) -> Option<String> {
    if node.is_error() || node.is_missing() {
        return Some(format!("line {}: {}", node.start_position().row + 1, node.to_sexp()));
    }
    let mut cursor = node.walk();
    node.children(&mut cursor).filter(Node::has_error).find_map(mistake)
}

/// The rules of a file: those of each of its cases, if it is of a corpus.
fn texts(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    if !path.components().any(|part| part.as_os_str() == "corpus") {
        return vec![text];
    }
    let cases = text.split("### ").skip(1).filter_map(|case| case.split_once('\n'));
    cases.map(|(_, body)| body.split("\n--- ").next().unwrap_or(body).to_owned() + "\n").collect()
}

/// Nothing that regraft reads is a mistake, and of what it refuses for its form, most is one here too.
#[test]
fn what_regraft_reads_is_read() {
    let root = here().join("../..");
    let mut wrong = Vec::new();
    let (mut read, mut refused, mut missed) = (0, 0, Vec::new());
    for folder in ["rules", "examples", "docs", "tests", "editors/vscode/tests"] {
        for path in files(&root.join(folder), "graft") {
            for text in texts(&path) {
                let tree = parse(&text);
                let root = tree.root_node();
                match (reads(&text), root.has_error()) {
                    (true, true) => wrong.push(format!(
                        "{}: {}",
                        path.display(),
                        mistake(root).unwrap_or_default()
                    )),
                    (true, false) => read += 1,
                    (false, true) => refused += 1,
                    (false, false) => missed.push(text),
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(read > 600, "only {read} texts were read");
    assert!(refused > missed.len(), "{refused} refused here too; only regraft refuses {missed:#?}");
}

/// A mistake that regraft reports at a place is one here, with the statement after it still read.
#[test]
fn what_stands_after_a_mistake_is_read() {
    let text = "renam \"a\" <-> \"b\"\ndrop \"c\"\nkeep \"d\"\n";
    assert!(!reads(text));
    let shown = parse(text).root_node().to_sexp();
    assert!(
        shown.contains("ERROR")
            && shown.ends_with("(drop (pattern (text))) (keep (pattern (text))))"),
        "{shown}"
    );
}

/// A tree on one line, without the names of fields.
fn one_line(tree: &str) -> String {
    let words: Vec<&str> = tree.split_whitespace().filter(|word| !word.ends_with(':')).collect();
    words.join(" ").replace("( ", "(").replace(" )", ")")
}

#[test]
fn trees_are_those_of_the_corpus() {
    let mut held = 0;
    for path in files(&here().join("test/corpus"), "txt") {
        let text = std::fs::read_to_string(&path).unwrap();
        for case in text.split("==================\n").skip(2).step_by(2) {
            let (rules, tree) = case.split_once("\n---\n").unwrap();
            assert!(reads(rules), "{}: regraft refuses\n{rules}", path.display());
            assert_eq!(
                one_line(&parse(rules).root_node().to_sexp()),
                one_line(tree),
                "{}:\n{rules}",
                path.display()
            );
            held += 1;
        }
    }
    assert!(held >= 10, "only {held} cases");
}

#[test]
fn queries_name_what_there_is() {
    let language: Language = LANGUAGE.into();
    for (name, query) in
        [("highlights", HIGHLIGHTS), ("folds", FOLDS), ("locals", LOCALS), ("indents", INDENTS)]
    {
        let query = Query::new(&language, query).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(query.pattern_count() > 0, "{name}");
    }
}

/// `src/` is what `grammar.js` gives. With `GENERATE=1` it is written: that takes Node.js, and nothing that would have to be
/// installed. Without Node.js the parser alone is held against `src/grammar.json`.
#[test]
fn the_parser_is_that_of_the_grammar() {
    let at = |name: &str| here().join(name);
    let node = std::process::Command::new("node").arg("--version").output().is_ok();
    let hold = |name: &str, given: &str| {
        if std::env::var_os("GENERATE").is_some() {
            std::fs::write(at(name), given).unwrap();
        }
        let written = std::fs::read_to_string(at(name)).unwrap();
        assert!(given == written, "{name} isn't that of grammar.js: GENERATE=1 writes it");
    };
    if node {
        let given =
            tree_sitter_generate::load_grammar_file(&at("grammar.js"), Some("node")).unwrap();
        hold("src/grammar.json", &given);
    }
    let grammar = std::fs::read_to_string(at("src/grammar.json")).unwrap();
    let (_, parser) =
        tree_sitter_generate::generate_parser_for_grammar(&grammar, Some((0, 1, 0))).unwrap();
    hold("src/parser.c", &parser);
}
