//! Rules are read in one place, and told apart by value.

use super::{File, has_word, lines_with, refuse, rust_files};

/// Where statements are made and turned into a reading; everyone else reads.
const STATEMENTS: [&str; 4] = [
    "src/check/rules.rs",
    "src/check/lower/mod.rs",
    "src/check/lower/select.rs",
    "src/check/reading.rs",
];

/// The lines on which a file walks through statements by itself.
fn walks_statements(file: &File, code: &str) -> bool {
    has_word(code, "StepKind") && !STATEMENTS.contains(&file.path.as_str())
}

/// The lines of a file on which a `match` of what statements do, arm by arm on `Act`, ends in a
/// wildcard: a new kind of statement would pass there unseen.
fn passes_acts_over(file: &File) -> Vec<String> {
    let mut wrong = Vec::new();
    // How far the arms of the open matches are indented.
    let mut open: Vec<usize> = Vec::new();
    for (line, code) in file.code().filter(|(_, code)| !code.trim().is_empty()) {
        let indent = code.len() - code.trim_start().len();
        open.retain(|arms| *arms <= indent);
        if code.trim_start().starts_with("Act::") && open.last() != Some(&indent) {
            open.push(indent);
        }
        let wildcard =
            code.trim_start().starts_with("_ =>") || code.trim_start().starts_with("_ if");
        if wildcard && open.last() == Some(&indent) {
            wrong.push(format!("{}:{line}: {}", file.path, code.trim()));
        }
    }
    wrong
}

#[test]
fn one_walk_reads_statements() {
    let files: Vec<File> =
        ["src", "seed/src", "python/src"].map(rust_files).into_iter().flatten().collect();
    let walks = lines_with(&files, walks_statements);
    refuse("statements walked through outside of check/reading.rs", walks);
    refuse("an `Act` that nothing is said of", files.iter().flat_map(passes_acts_over).collect());
    for path in STATEMENTS {
        let named = files.iter().any(|file| file.path == path && file.text.contains("StepKind"));
        assert!(named, "{path} has no statements: take it from the list");
    }
}

#[test]
fn a_second_walk_is_found() {
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        text: text.to_owned(),
        code: text.lines().map(str::to_owned).collect(),
    };
    let walk = "match &step.kind {\n    StepKind::Reversed(steps) => self.steps(steps),\n";
    let walks = |path: &str| !lines_with(&[file(path, walk)], walks_statements).is_empty();
    assert!(walks("src/check/circle.rs") && walks("src/plan/trace.rs"));
    assert!(!walks("src/check/reading.rs"));
    let reads = |last: &str| {
        let text = format!(
            "match act {{\n    Act::Drop(_)\n    | Act::Keep(_) => match n {{\n        1 => 2,\n        _ => 3,\n    }},\n    {last} => {{}}\n}}\n"
        );
        passes_acts_over(&file("src/plan/trace.rs", &text))
    };
    assert_eq!(reads("_"), ["src/plan/trace.rs:7: _ => {}"]);
    assert!(reads("Act::Tie(_)").is_empty());
}

/// Whether a line tells things apart by where they lie in memory, so that a copy would be another.
fn asks_addresses(code: &str) -> bool {
    ["as_ptr", "ptr::from_ref", "addr_of", "ptr::eq", "ptr_eq", "*const "]
        .iter()
        .any(|word| code.contains(word))
}

#[test]
fn rules_are_told_apart_by_value() {
    let wrong = lines_with(&rust_files("src"), |file, code| {
        ["check", "plan"].contains(&file.floor()) && asks_addresses(code)
    });
    refuse("identity by address: an `Identity` or a number is a value", wrong);
    assert!(asks_addresses("let file = Arc::as_ptr(&place.source) as usize;"));
    assert!(asks_addresses("std::ptr::eq(inverse.rule, bound.rule)"));
    assert!(!asks_addresses("self.nodes[id.0 as usize]"));
}
