//! What lies in `editors/`: the grammar of VS Code knows the words of the language, snippets are
//! rules, and the extension is of the version that it starts.

use std::collections::BTreeSet;
use std::sync::Arc;

use regraft::diagnostic::SourceText;
use regraft::syntax;
use regraft::tensor::Dtype;
use serde_json::Value;

fn json(path: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("editors/vscode").join(path);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The words between the brackets of a list of choices in the grammar.
fn words(grammar: &Value, name: &str) -> BTreeSet<String> {
    let matches = grammar["repository"][name]["match"].as_str().unwrap();
    let lists = matches.split('(').map(|part| part.split(')').next().unwrap());
    let longest = lists.max_by_key(|list| list.len()).unwrap();
    longest.split('|').map(str::to_owned).collect()
}

#[test]
fn the_grammar_has_the_words_of_the_language() {
    let grammar = json("syntaxes/graft.tmLanguage.json");
    let set = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(words(&grammar, "statement"), set(syntax::statements().to_vec()));
    assert_eq!(words(&grammar, "op"), set(syntax::op::names()));
    assert_eq!(words(&grammar, "dtype"), set(Dtype::ALL.map(Dtype::name).to_vec()));
    let makers = regraft::check::op::MAKERS.iter().map(|(name, _)| *name).collect();
    assert_eq!(words(&grammar, "maker"), set(makers));
    // Every other word is in one of these.
    let mut others = set(vec!["config", "else"]);
    for name in ["clause", "logical", "constant"] {
        others.extend(words(&grammar, name));
    }
    assert_eq!(others, set(regraft::editor::words().to_vec()));
}

/// A snippet as it is when nothing is typed over what it proposes.
fn filled(body: &str) -> String {
    let mut text = String::new();
    let mut rest = body;
    while let Some((before, after)) = rest.split_once("${") {
        let (place, after) = after.split_once('}').unwrap();
        text.push_str(before);
        text.push_str(place.split_once(':').map_or("", |(_, proposed)| proposed));
        rest = after;
    }
    (text + rest).replace("$0", "")
}

#[test]
fn snippets_are_rules() {
    let snippets = json("snippets/graft.json");
    for (name, snippet) in snippets.as_object().unwrap() {
        let lines = snippet["body"].as_array().unwrap();
        let lines: Vec<&str> = lines.iter().map(|line| line.as_str().unwrap()).collect();
        let source = SourceText { name: name.clone(), text: filled(&lines.join("\n")) };
        let parsed = syntax::parse(Arc::new(source));
        assert_eq!(parsed.diagnostics, [], "{name}: {}", parsed.source.text);
        assert!(!parsed.file.statements.is_empty(), "{name}");
    }
}

#[test]
fn the_extension_is_of_this_version() {
    assert_eq!(json("package.json")["version"], env!("CARGO_PKG_VERSION"));
}
