//! The documents can't lie: each block of rules in them is checked, each block of keys under one is
//! planned, and each code has its entry.
//!
//! A fenced block `graft` holds rules. It must check without a finding, and its examples must hold.
//! A block `keys` after it says what the rules do: keys before an arrow, keys after it, `key`, `key
//! F32` or `key F32 [2, 4]` a line (`F32 [4, 4]` if not said). `=>` is read left to right, `<=`
//! right to left (the keys before the arrow are what comes out), `<=>` both ways. Lines `RG301` are
//! the findings, warnings and errors all of them, notes as one likes; with an error nothing may
//! stand after the arrow. Before the keys may stand `config {…}`, `set name=4`, `tied`, `untied`,
//! `equal`, `differ`, `not-strict` and `wanted key`, `wanted key F32 [2, 4]`.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use regraft::check::value::Value;
use regraft::check::{Direction, Includes, NotIncluded, Rules, check};
use regraft::config::Config;
use regraft::diagnostic::codes::{self, Code};
use regraft::diagnostic::{Diagnostic, Diagnostics, Severity, SourceText, render_all};
use regraft::key::Key;
use regraft::library::Route;
use regraft::plan::{Answer, PlanOptions, Question, Stage, plan, plan_asking};
use regraft::tensor::{Dtype, Header, TensorInfo, Wanted};
use regraft::{compile, library};

/// Codes that nothing raises yet, and why.
const NOT_RAISED: &[(Code, &str)] = &[];

/// Codes that one rule text can't show; the tests below do.
const NEEDS_MORE: &[Code] = &[
    codes::INCLUDE_CYCLE,
    codes::UNKNOWN_LAYOUT,
    codes::RESTORED,
    codes::OVERFLOW,
    codes::NO_WAY,
    codes::MISSING_FILE,
    codes::UNLISTED_KEY,
    codes::ROOT,
    codes::LEFT_OUT,
    codes::FOREIGN_VALUE,
    codes::UNREADABLE,
    codes::TOTAL_SIZE,
    codes::NO_PART,
    codes::WRAPPED,
];

/// A fenced block of a document.
struct Block {
    kind: String,
    line: usize,
    text: String,
    /// The last heading before it.
    heading: String,
}

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn blocks(name: &str) -> Vec<Block> {
    let (mut found, mut open, mut heading): (Vec<Block>, Option<Block>, String) =
        (Vec::new(), None, String::new());
    for (at, line) in document(name).lines().enumerate() {
        match (line.strip_prefix("```"), open.as_mut()) {
            (Some(kind), None) => {
                let heading = heading.clone();
                open = Some(Block {
                    kind: kind.trim().to_owned(),
                    line: at + 1,
                    text: String::new(),
                    heading,
                });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) if line.starts_with('#') => {
                heading = line.trim_start_matches('#').trim().to_owned()
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{name}: a block isn't closed");
    found
}

/// One block of keys, read.
#[derive(Default)]
struct Case {
    left: Vec<(Key, TensorInfo)>,
    arrow: String,
    right: Vec<(Key, TensorInfo)>,
    codes: BTreeSet<String>,
    config: Config,
    parameters: Vec<(String, Value)>,
    wanted: Vec<(Key, Option<TensorInfo>)>,
    tied: Option<bool>,
    equal: Option<Answer>,
    not_strict: bool,
}

fn key_line(line: &str) -> (Key, TensorInfo) {
    let (start, shape) =
        line.split_once('[').map_or((line, "4, 4]"), |(start, shape)| (start, shape));
    let shape: Vec<u64> = serde_json::from_str(&format!("[{shape}"))
        .unwrap_or_else(|_| panic!("a shape in `{line}`"));
    let mut words = start.split_whitespace();
    let key = words.next().unwrap();
    let dtype = words.next().unwrap_or("F32");
    assert_eq!(words.next(), None, "`{line}` is no line of keys");
    (
        Key::from(key),
        TensorInfo::new(dtype.parse().unwrap_or_else(|_| panic!("a dtype in `{line}`")), shape),
    )
}

fn case(text: &str) -> Case {
    let mut case = Case::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (word, rest) =
            line.split_once(' ').map_or((line, ""), |(word, rest)| (word, rest.trim()));
        match word {
            "=>" | "<=" | "<=>" => {
                assert!(case.arrow.is_empty() && rest.is_empty(), "one arrow on a line of its own");
                case.arrow = word.to_owned();
            }
            "config" => case.config = Config::from_value(serde_json::from_str(rest).unwrap()),
            "set" => {
                let (name, value) = rest.split_once('=').unwrap();
                case.parameters.push((name.to_owned(), Value::Int(value.parse().unwrap())));
            }
            "wanted" if rest.contains(' ') => {
                let (key, info) = key_line(rest);
                case.wanted.push((key, Some(info)));
            }
            "wanted" => case.wanted.push((Key::from(rest), None)),
            "tied" => case.tied = Some(true),
            "untied" => case.tied = Some(false),
            "equal" => case.equal = Some(Answer::Equal),
            "differ" => case.equal = Some(Answer::Differ(4)),
            "not-strict" => case.not_strict = true,
            code if code.starts_with("RG")
                && codes::ALL.iter().any(|(known, _)| known.to_string() == code) =>
            {
                case.codes.insert(code.to_owned());
            }
            _ if case.arrow.is_empty() => case.left.push(key_line(line)),
            _ => case.right.push(key_line(line)),
        }
    }
    case
}

/// What comes out of planning: keys with their tensors, or nothing, and the findings.
fn planned(
    rules: &Rules,
    case: &Case,
    from: &[(Key, TensorInfo)],
    direction: Direction,
) -> (BTreeMap<Key, TensorInfo>, Vec<Diagnostic>) {
    let header = Header::from_infos(from.iter().cloned());
    let wanted = Wanted { keys: case.wanted.iter().cloned().collect() };
    let options = PlanOptions {
        config: case.config.clone(),
        parameters: case.parameters.iter().cloned().collect(),
        tied: case.tied,
        wanted: (!case.wanted.is_empty()).then_some(&wanted),
        not_strict: case.not_strict,
        ..PlanOptions::default()
    };
    let stages = [Stage { rules, direction, named: true }];
    let answer = |_: &Question| Ok::<_, Infallible>(case.equal.unwrap_or(Answer::Unknown));
    match plan_asking(&stages, &header, &options, answer).unwrap() {
        Ok(plan) => {
            let keys = plan
                .targets
                .iter()
                .map(|target| (target.key.clone(), plan.info(target).clone()))
                .collect();
            (keys, plan.findings)
        }
        Err(Diagnostics(findings)) => (BTreeMap::new(), findings),
    }
}

/// Whether a case is as it says; the findings.
fn holds(place: &str, rules: &Rules, case: &Case) -> Vec<Diagnostic> {
    let mut all = Vec::new();
    for (arrow, from, to, direction) in [
        ("=>", &case.left, &case.right, Direction::Forward),
        ("<=", &case.right, &case.left, Direction::Reverse),
    ] {
        if case.arrow != arrow && case.arrow != "<=>" {
            continue;
        }
        let (given, findings) = planned(rules, case, from, direction);
        let said = render_all(&findings, false);
        let expected: BTreeMap<Key, TensorInfo> = to.iter().cloned().collect();
        assert_eq!(given, expected, "{place}, read {direction:?}; findings:\n{said}");
        for finding in &findings {
            let known = finding.severity == Severity::Note
                || case.codes.contains(&finding.code.to_string());
            assert!(known, "{place} doesn't name a finding:\n{said}");
        }
        all.extend(findings);
    }
    for code in &case.codes {
        assert!(
            all.iter().any(|finding| finding.code.to_string() == *code),
            "{place}: no finding {code}:\n{}",
            render_all(&all, false)
        );
    }
    all
}

/// Runs the blocks of a document and gives, for each heading, the codes that its blocks gave.
fn run(name: &str, errors_allowed: bool) -> BTreeMap<String, BTreeSet<String>> {
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut last: Option<Rules> = None;
    let mut rules_seen = 0;
    for block in blocks(name) {
        let place = format!("{name}:{}", block.line);
        let findings = match block.kind.as_str() {
            "graft" => {
                rules_seen += 1;
                let checked = compile(&block.text);
                let findings = match &checked {
                    Ok(rules) => rules
                        .findings
                        .iter()
                        .cloned()
                        .chain(library::check_examples(rules))
                        .collect(),
                    Err(Diagnostics(findings)) => findings.clone(),
                };
                if !errors_allowed {
                    assert!(findings.is_empty(), "{place}:\n{}", render_all(&findings, false));
                }
                last = checked.ok();
                findings
            }
            "keys" => {
                let rules = last
                    .as_ref()
                    .unwrap_or_else(|| panic!("{place}: no rules before it that check"));
                let case = case(&block.text);
                assert!(!case.arrow.is_empty(), "{place}: no arrow");
                holds(&place, rules, &case)
            }
            _ => continue,
        };
        shown
            .entry(block.heading)
            .or_default()
            .extend(findings.iter().map(|finding| finding.code.to_string()));
    }
    assert!(rules_seen > 0, "{name} has no rules");
    shown
}

#[test]
fn the_language_reference_holds() {
    run("docs/language.md", false);
    run("docs/ties.md", false);
    run("docs/from_a_script.md", false);
    run("docs/from_weight_converter.md", false);
    run("docs/from_mappings.md", false);
}

/// Rules in the reference are laid out as the formatter does, as it says.
#[test]
fn the_reference_is_formatted() {
    for name in ["docs/language.md", "docs/ties.md", "README.md"] {
        for block in blocks(name).into_iter().filter(|block| block.kind == "graft") {
            let source = Arc::new(SourceText { name: name.to_owned(), text: block.text.clone() });
            let printed = regraft::syntax::print(&regraft::syntax::parse(source).file);
            assert_eq!(block.text, printed, "{name}:{}", block.line);
        }
    }
}

#[test]
fn the_readme_holds() {
    run("README.md", false);
}

/// The command lines in it print what it says.
#[cfg(feature = "cli")]
#[test]
fn the_readme_is_run() {
    trycmd::TestCases::new().case("README.md");
}

/// So do the recipes, each in its own directory, and the tutorial. Outputs go to `target/`.
#[cfg(feature = "cli")]
#[test]
fn the_cookbook_is_run() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cookbook");
    let count = std::fs::read_dir(recipes)
        .unwrap()
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir()));
    assert!(count.count() >= 12);
    trycmd::TestCases::new().case("docs/cookbook/*/README.md").case("docs/tutorial.md");
}

/// What documents link to, and the files that they name, are there.
#[test]
fn what_documents_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "docs/language.md",
        "docs/ties.md",
        "docs/sharded.md",
        "docs/diagnostics.md",
        "tests/fixtures/cases/README.md",
    ] {
        let text = document(name);
        let folder = root.join(name).parent().unwrap().to_path_buf();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap_or(link);
            assert!(folder.join(file).exists(), "{name} links to {link}");
            named += 1;
        }
        let prefixes = ["src/", "tests/", "docs/", "grammar/", "scripts/", "rules/", "examples/"];
        let words = text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)));
        for word in words.filter(|word| !word.contains(['<', '*', ' '])) {
            assert!(root.join(word).exists(), "{name} names {word}");
            named += 1;
        }
    }
    assert!(named > 50, "only {named} files are named");
}

/// Every `.rs` file of the workspace's crates, and every `.py` file of the package, as one text.
fn sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open: Vec<_> = ["src", "seed/src", "python/src", "python/regraft", "tests/it"]
        .map(|at| root.join(at))
        .into();
    let mut text = String::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "py") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
            text.push('\n');
        }
    }
    text
}

/// A reader of ARCHITECTURE.md looks for what it names: types, functions as `name()`, and methods
/// or variants as `Type::name` are those of the code.
#[test]
fn what_the_architecture_names_is_in_the_code() {
    let text = document("ARCHITECTURE.md");
    let sources = sources();
    let words: BTreeSet<&str> = sources
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .collect();
    let functions: BTreeSet<&str> = sources
        .split("fn ")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next())
        .collect();
    let word = |name: &str| name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let mut named = 0;
    for name in text.split('`').skip(1).step_by(2) {
        let (path, function) = match name.strip_suffix("()") {
            Some(path) => (path, true),
            None => (name, false),
        };
        let parts: Vec<&str> = path.split("::").collect();
        let typed = parts.iter().any(|part| part.starts_with(char::is_uppercase))
            && parts.iter().all(|part| part.contains(char::is_lowercase));
        if !parts.iter().all(|part| word(part)) || !(function || typed) {
            continue;
        }
        let last = parts.last().copied().unwrap_or_default();
        assert!(!function || functions.contains(last), "no function is called `{name}`");
        for part in &parts {
            assert!(words.contains(part), "`{name}`: the code knows no `{part}`");
        }
        named += 1;
    }
    assert!(named > 10, "only {named} names");
}

/// The rule file in it is the one that its command line names.
#[test]
fn the_readme_shows_its_example() {
    let shown = blocks("README.md").into_iter().find(|block| block.kind == "graft").unwrap();
    assert_eq!(shown.text, document("examples/qkv.graft"));
}

#[test]
fn every_op_and_statement_is_in_the_reference() {
    let text = document("docs/language.md");
    let ops = text.split_once("## Ops").unwrap().1.split_once("### Makers").unwrap().0;
    let lines: Vec<&str> = ops.lines().filter(|line| line.starts_with("| `")).collect();
    let rows: Vec<String> = regraft::syntax::op::OPS.iter().map(|row| row.line()).collect();
    assert_eq!(lines, rows, "the ops of docs/language.md should be:\n{}", rows.join("\n"));
    for (maker, _) in regraft::check::op::MAKERS {
        assert!(text.contains(&format!("`{maker}(")), "docs/language.md lacks `{maker}`");
    }
    let statements = [
        "ruleset",
        "models",
        "shards",
        "separator",
        "strict",
        "use",
        "let",
        "strip",
        "prefix",
        "rename",
        "map",
        "drop",
        "keep",
        "cast",
        "tie",
        "untie",
        "create",
        "expect",
        "trust",
        "example",
        "when",
    ];
    for statement in statements {
        assert!(
            text.contains(&format!("### `{statement}`")),
            "docs/language.md has no section on `{statement}`"
        );
    }
}

/// The entries of docs/diagnostics.md: a heading `RG101: …` each.
fn entries() -> Vec<String> {
    let text = document("docs/diagnostics.md");
    let headings = text.lines().filter_map(|line| line.strip_prefix("### RG"));
    headings.map(|heading| format!("RG{}", heading.split(':').next().unwrap_or(heading))).collect()
}

#[test]
fn every_code_has_an_entry() {
    let known: Vec<String> = codes::ALL.iter().map(|(code, _)| code.to_string()).collect();
    assert_eq!(entries(), known, "docs/diagnostics.md has one entry for each code, in order");
}

#[test]
fn the_entries_show_their_codes() {
    let shown = run("docs/diagnostics.md", true);
    for (code, name) in codes::ALL {
        if NEEDS_MORE.contains(code) || NOT_RAISED.iter().any(|(known, _)| known == code) {
            continue;
        }
        let code = code.to_string();
        let found = shown.iter().any(|(heading, codes)| {
            heading.starts_with(&format!("{code}:")) && codes.contains(&code)
        });
        assert!(found, "the example under {code} ({name}) doesn't give it");
    }
}

fn snapshots(folder: &Path, found: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            snapshots(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "snap") {
            found.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_code_has_a_snapshot() {
    let mut text = String::new();
    for folder in ["tests/it", "tests/corpus"] {
        snapshots(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut text);
    }
    for (code, name) in codes::ALL {
        let shown = text.contains(&format!("[{code}]"));
        match NOT_RAISED.iter().find(|(known, _)| known == code) {
            Some((_, why)) => {
                assert!(!shown, "{code} ({name}) is raised now: take it from the list ({why})")
            }
            None => assert!(shown, "no corpus snapshot shows {code} ({name})"),
        }
    }
}

#[test]
fn an_example_that_is_not_met() {
    let rules = compile("rename \"a.{l}\" <-> \"b.{l}\"\nexample \"a.0\" <-> \"c.0\"\n").unwrap();
    insta::assert_snapshot!(render_all(&library::check_examples(&rules), false));
}

/// Rule files that use each other.
struct Files(&'static [(&'static str, &'static str)]);

impl Includes for Files {
    fn load(
        &self,
        path: &str,
        _: bool,
        _: &SourceText,
        _: &SourceText,
    ) -> Result<Arc<SourceText>, NotIncluded> {
        let unknown = || NotIncluded::Unknown(format!("there is no rule file `{path}`"));
        let found = self.0.iter().find(|(name, _)| *name == path).ok_or_else(unknown)?;
        Ok(Arc::new(SourceText { name: found.0.to_owned(), text: found.1.to_owned() }))
    }
}

#[test]
fn a_file_that_includes_itself() {
    let files = Files(&[("a", "use b\n"), ("b", "rename \"x\" <-> \"y\"\nuse a\n")]);
    let nobody = SourceText { name: String::new(), text: String::new() };
    let first = files.load("a", false, &nobody, &nobody).unwrap();
    let found = check(&first, &files).unwrap_err();
    insta::assert_snapshot!(render_all(&found.0, false));
}

#[test]
fn a_layout_that_no_file_has() {
    let config = Config::from_value(serde_json::json!({"model_type": "mixtral"}));
    let misspelt = Route::by_config(&config, Some("hub"), Some("modle")).unwrap_err();
    let mixtral = library::load("mixtral").unwrap();
    let other = Route::named(vec![mixtral], None, Some("megatron"), false).unwrap_err();
    insta::assert_snapshot!(format!(
        "{}\n{}",
        render_all(&misspelt.0, false),
        render_all(&other.0, false)
    ));
}

#[test]
fn a_layout_that_no_rule_leads_to() {
    let said = |config: serde_json::Value, keys: &[&str], to: &str| {
        let config = Config::from_value(config);
        let header = Header::from_infos(
            keys.iter().map(|key| (Key::from(*key), TensorInfo::new(Dtype::F32, vec![4, 4]))),
        );
        let route = Route::by_config(&config, None, Some(to)).unwrap();
        let plan = plan(
            &route.stages(),
            &header,
            &PlanOptions { config: config.clone(), ..PlanOptions::default() },
        )
        .unwrap();
        library::no_way(&header, &plan, to)
    };
    let meta =
        ["tok_embeddings.weight", "layers.0.attention.wq.weight", "norm.weight", "output.weight"];
    let hub = [
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
    ];
    let mistral = serde_json::json!({"model_type": "mistral"});
    let foreign = said(mistral.clone(), &meta, "hub").unwrap();
    insta::assert_snapshot!(render_all(&[foreign], false));
    // Many models have the same keys in memory as on the hub, and what comes as it is asked for is
    // right.
    assert!(said(mistral.clone(), &hub, "hub").is_none());
    assert!(said(mistral, &hub, "model").is_none());
    let llama = serde_json::json!({"model_type": "llama", "num_attention_heads": 2});
    assert!(said(llama.clone(), &meta, "meta").is_none());
    assert!(said(llama, &meta, "hub").is_some(), "from `model`, not from `meta`");
}
