//! The project's own rules, read from its sources: floors, where pest, `unsafe` and printing may
//! stand, and the length of files.
//!
//! Text is looked at line by line with comments cut off; that is coarse, and so a rule that can't
//! be read so is not here.

mod reading;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Each floor uses only those before it: modules of one floor don't know each other.
const FLOORS: &[&[&str]] = &[
    &["key"],
    &["diagnostic"],
    &["error"],
    &["config", "seal", "tensor"],
    &["store", "syntax"],
    &["check"],
    &["plan"],
    &["execute"],
    &["library"],
    &["editor", "overview", "propose"],
    &["conversion"],
    &["cli"],
];

/// What a floor may not use though it lies below: planning is pure and sees headers only.
const APART: &[(&str, &str)] = &[("check", "store"), ("plan", "store")];

/// Floors that do no I/O.
const PURE: &[&str] =
    &["key", "diagnostic", "tensor", "syntax", "check", "plan", "editor", "overview"];

/// Modules that the feature `files` brings, by the file that names them. Every other module builds
/// without it, for wasm32 too; `.ci/run pure` does.
const BY_FILES: &[(&str, &[&str])] = &[
    ("src/config/mod.rs", &["file"]),
    ("src/execute/mod.rs", &["lanes", "patch", "write"]),
    ("src/lib.rs", &["conversion"]),
    (
        "src/store/mod.rs",
        &[
            "checkpoint",
            "dcp",
            "files",
            "journal",
            "manifest",
            "named",
            "numbered",
            "open",
            "pickled",
            "place",
            "quote",
            "remote",
            "sharded",
            "side",
            "stored",
            "unpacked",
            "variants",
        ],
    ),
    ("src/store/torch/mod.rs", &["dcp"]),
];

/// Files outside of those that say `std::fs`, `std::os` or `rustix`, and why.
const SAY_FILES: &[(&str, &str)] = &[
    ("src/error.rs", "an error of the system's is known by its number"),
    ("src/execute/report.rs", "the most memory that was held, 0 where nobody says"),
    ("src/library.rs", "one text is read, with what std has everywhere"),
    ("src/store/archive/window.rs", "an open file is one of the things that can be read anywhere"),
];

/// Files that map memory, and so may say `unsafe`.
const MAPS_MEMORY: &[&str] = &["src/store/stored.rs", "src/store/unpacked.rs"];

/// Files of more than 600 lines, and why.
const LONG: &[(&str, &str)] = &[];

/// The most lines a function may have.
const FUNCTION_LINES: usize = 80;

/// Functions of more lines: a file, a name, and why.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[
    ("src/syntax/parse/words.rs", "name", "a table: what each grammar rule is called"),
    ("src/execute/tests/random.rs", "op", "a table: how each op is chosen at random"),
    ("src/syntax/print.rs", "of", "a table: how each kind of statement is taken apart"),
];

/// A source file: its path from the root of the project, and its lines without comments.
struct File {
    path: String,
    text: String,
    code: Vec<String>,
}

impl File {
    /// The module's path below the crate: `src/plan/pass/tie.rs` is `plan`, `pass`, `tie`.
    fn module(&self) -> Vec<&str> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inner.split('/').filter(|part| *part != "mod").collect()
    }

    /// The module of the crate that it is in.
    fn floor(&self) -> &str {
        self.module().first().copied().unwrap_or_default()
    }

    fn is_test(&self) -> bool {
        self.module().iter().any(|part| part.ends_with("tests"))
    }

    /// Its lines before an inline `mod tests`, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self
            .code
            .iter()
            .position(|line| line.trim() == "mod tests {")
            .unwrap_or(self.code.len());
        self.code[..end].iter().enumerate().map(|(at, line)| (at + 1, line.as_str()))
    }
}

/// The sources of the engine, and those of the crates of utilities and adapters that stand on it.
fn all_sources() -> Vec<File> {
    ["src", "seed/src", "adapters/candle/src"].into_iter().flat_map(rust_files).collect()
}

/// All sources, with the tests beside them.
fn sources_and_tests() -> Vec<File> {
    let tests = ["tests", "seed/tests"].into_iter().flat_map(rust_files);
    all_sources().into_iter().chain(tests).collect()
}

fn rust_files(folder: &str) -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open = vec![root.join(folder)];
    let mut paths: Vec<PathBuf> = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let files: Vec<File> = paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.lines().map(|line| without_comment(line).to_owned()).collect();
            let path = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            File { path, text, code }
        })
        .collect();
    assert!(!files.is_empty(), "no sources in {folder}");
    files
}

/// A line up to `//`, unless that stands in a string, which an odd number of quotes before it says.
fn without_comment(line: &str) -> &str {
    line.match_indices("//")
        .map(|(at, _)| &line[..at])
        .find(|before| before.matches('"').count() % 2 == 0)
        .unwrap_or(line)
}

/// Whether a word stands in a line by itself.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part)
    })
}

/// The modules of the crate that a line names: after `crate::`, or after as many `super::` as lead
/// to the crate.
fn modules_named<'l>(line: &'l str, depth: usize) -> Vec<&'l str> {
    let up = "super::".repeat(depth);
    let mut found = Vec::new();
    for way in ["crate::", "regraft::", up.as_str()] {
        for (at, _) in line.match_indices(way).filter(|_| !way.is_empty()) {
            // `super::super::` of a deeper place than this would begin before.
            if line[..at].ends_with("super::")
                || line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
            {
                continue;
            }
            let rest = &line[at + way.len()..];
            let list =
                rest.strip_prefix('{').map_or(rest, |list| list.split('}').next().unwrap_or(list));
            let items = if rest.starts_with('{') { list.split(',').collect() } else { vec![list] };
            let word = |item: &'l str| {
                let item = item.trim_start();
                &item[..item
                    .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .unwrap_or(item.len())]
            };
            found.extend(items.into_iter().map(word));
        }
    }
    found
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// What a file uses that it must not.
fn uses_upward(file: &File) -> Vec<String> {
    let module = file.floor();
    let Some(height) = floor_of(module) else { return Vec::new() };
    let mut wrong = Vec::new();
    for (line, code) in file.code() {
        // What stands on the next lines isn't seen here.
        if code.trim_end().ends_with("crate::{") {
            wrong.push(format!(
                "{}:{line}: write one `use` for each module of the crate",
                file.path
            ));
        }
        for used in modules_named(code, file.module().len()) {
            let Some(other) = floor_of(used) else { continue };
            let apart = APART.contains(&(module, used));
            if used != module && (other >= height || apart) {
                wrong.push(format!(
                    "{}:{line}: `{module}` uses `{used}`: {}",
                    file.path,
                    code.trim()
                ));
            }
        }
    }
    wrong
}

fn refuse(what: &str, wrong: Vec<String>) {
    let mut list = String::new();
    for line in &wrong {
        let _ = write!(list, "\n  {line}");
    }
    assert!(wrong.is_empty(), "{what}:{list}");
}

/// The lines of files, tests apart, that a rule is against.
fn lines_with<'f>(files: &'f [File], against: impl Fn(&File, &str) -> bool + 'f) -> Vec<String> {
    files
        .iter()
        .filter(|file| !file.is_test())
        .flat_map(|file| file.code().map(move |(line, code)| (file, line, code)))
        .filter(|(file, _, code)| against(file, code))
        .map(|(file, line, code)| format!("{}:{line}: {}", file.path, code.trim()))
        .collect()
}

#[test]
fn imports_go_downward() {
    refuse(
        "imports upward or sideways",
        rust_files("src").iter().filter(|file| !file.is_test()).flat_map(uses_upward).collect(),
    );
}

#[test]
fn every_module_has_a_floor() {
    let files = rust_files("src");
    let missing = files
        .iter()
        .filter(|file| !matches!(file.floor(), "lib" | "main") && floor_of(file.floor()).is_none());
    refuse("modules without a floor in this test", missing.map(|file| file.path.clone()).collect());
}

#[test]
fn an_upward_import_is_found() {
    let file = |path: &str, line: &str| File {
        path: path.to_owned(),
        text: String::new(),
        code: vec![line.to_owned()],
    };
    let wrong = |path: &str, line: &str| !uses_upward(&file(path, line)).is_empty();
    assert!(wrong("src/syntax/ast.rs", "use crate::plan::Plan;"));
    assert!(wrong("src/syntax/ast.rs", "use crate::store::Store;"), "sideways");
    assert!(wrong("src/plan/bind.rs", "use crate::store::Store;"), "planning sees no store");
    assert!(wrong("src/key/set.rs", "use crate::{diagnostic::Span, key::Key};"), "in a list");
    assert!(
        wrong("src/key/set.rs", "    let x = super::super::error::Error::io();"),
        "by `super`, in code"
    );
    assert!(wrong("src/execute/mod.rs", "use super::library;"));
    assert!(wrong("src/plan/mod.rs", "use regraft::library::load;"), "by the crate's own name");
    assert!(!wrong("src/plan/pass/tie.rs", "use crate::check::Tie;"));
    assert!(!wrong("src/plan/pass/tie.rs", "use super::super::state::Entry;"));
    assert!(!wrong("src/plan/pass/tie.rs", without_comment("// crate::execute does the rest")));
    assert!(!wrong("src/cli/plan.rs", "use regraft::plan::plan;"));
}

#[test]
fn pure_floors_do_no_io() {
    let wrong = lines_with(&rust_files("src"), |file, code| {
        PURE.contains(&file.floor())
            && ["std::fs", "std::io", "std::env", "std::net", "std::process"]
                .iter()
                .any(|io| code.contains(io))
    });
    refuse("I/O where there is none", wrong);
}

/// The modules of a file whose `mod` line is behind the feature `files`, or one that asks for it.
fn by_files(file: &File) -> Vec<&str> {
    let gates = ["#[cfg(feature = \"files\")]", "#[cfg(feature = \"remote\")]"];
    let after = |lines: &'_ [String]| gates.contains(&lines[0].trim());
    let gated = file.code.windows(2).filter(|lines| after(lines));
    let module = gated.filter_map(|lines| lines[1].trim().split_once("mod "));
    module.filter_map(|(_, name)| name.strip_suffix(';')).collect()
}

#[test]
fn files_stay_behind_their_feature() {
    let files = rust_files("src");
    let mut behind = vec!["src/cli/".to_owned()];
    for (path, modules) in BY_FILES {
        let file = files.iter().find(|file| file.path == *path).unwrap();
        assert_eq!(by_files(file), *modules, "{path}");
        let folder = path.trim_end_matches("mod.rs").trim_end_matches("lib.rs");
        behind.extend(
            modules.iter().flat_map(|m| [format!("{folder}{m}.rs"), format!("{folder}{m}/")]),
        );
    }
    let known = |file: &File| BY_FILES.iter().any(|(path, _)| *path == file.path);
    let more = files.iter().filter(|file| !known(file) && !by_files(file).is_empty());
    refuse("behind `files`, and not listed", more.map(|file| file.path.clone()).collect());
    let asks = |code: &str| {
        ["std::fs", "std::os", "rustix", "memmap2", "tempfile"]
            .iter()
            .any(|word| code.contains(word))
    };
    let wrong = lines_with(&files, |file, code| {
        asks(code)
            && !behind.iter().any(|start| file.path.starts_with(start.as_str()))
            && !SAY_FILES.iter().any(|(path, _)| *path == file.path)
    });
    refuse("files, where the feature `files` may be off", wrong);
    let gone = SAY_FILES.iter().filter(|(path, _)| {
        !files.iter().any(|file| file.path == *path && file.code().any(|(_, code)| asks(code)))
    });
    refuse(
        "no files there now: take it from the list",
        gone.map(|(p, _)| (*p).to_owned()).collect(),
    );
}

#[test]
fn every_dependency_has_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for name in ["Cargo.toml", "python/Cargo.toml", "seed/Cargo.toml", "web/engine/Cargo.toml"] {
        let text = std::fs::read_to_string(root.join(name)).unwrap();
        let (mut dependencies, mut reason) = (false, false);
        for line in text.lines() {
            match line {
                _ if line.starts_with('[') => {
                    dependencies = line.ends_with("dependencies]");
                    reason = false;
                }
                _ if line.starts_with('#') => reason = true,
                "" => reason = false,
                // Lines that follow each other without a comment share the one before them.
                _ if dependencies && !reason => wrong.push(format!("{name}: {line}")),
                _ => {}
            }
        }
        assert!(text.contains("[lints"), "{name} has no lints");
    }
    refuse("dependencies without a reason", wrong);
}

#[test]
fn pest_stays_in_the_parser() {
    let wrong = lines_with(&all_sources(), |file, code| {
        (code.contains("pest::") || code.contains("pest_derive"))
            && !file.path.starts_with("src/syntax/parse")
    });
    refuse("pest outside of src/syntax/parse", wrong);
}

#[test]
fn unsafe_only_maps_memory() {
    let files = all_sources();
    let wrong = lines_with(&files, |file, code| {
        // A word of the policy of a page.
        let code = code.replace("'unsafe-inline'", "");
        has_word(&code, "unsafe") && !MAPS_MEMORY.contains(&file.path.as_str())
    });
    refuse("`unsafe` where no memory is mapped", wrong);
    for path in MAPS_MEMORY {
        let file = files
            .iter()
            .find(|file| file.path == *path)
            .unwrap_or_else(|| panic!("{path} is gone: take it from the list"));
        assert!(file.text.contains("SAFETY"), "{path} doesn't say why its `unsafe` is sound");
    }
}

#[test]
fn only_the_command_line_prints() {
    let wrong = lines_with(&all_sources(), |file, code| {
        let prints = ["println!", "eprintln!", "print!", "eprint!", "dbg!"]
            .iter()
            .any(|print| has_word(code, print.trim_end_matches('!')) && code.contains(print));
        prints && file.floor() != "cli" && file.path != "src/main.rs"
    });
    refuse("printing outside of src/cli", wrong);
}

#[test]
fn files_are_short() {
    let files = sources_and_tests();
    let lines = |path: &str| {
        files.iter().find(|file| file.path == path).map(|file| file.text.lines().count())
    };
    let long = files.iter().filter(|file| {
        file.text.lines().count() > 600 && !LONG.iter().any(|(path, _)| *path == file.path)
    });
    refuse(
        "files of more than 600 lines",
        long.map(|file| format!("{}: {}", file.path, file.text.lines().count())).collect(),
    );
    for (path, reason) in LONG {
        assert!(
            lines(path).is_some_and(|lines| lines > 600),
            "{path} is short now ({reason}): take it from the list"
        );
    }
}

/// The functions of a formatted file with how many lines each has, from `fn` to the brace that
/// closes it. `scripts/longest.py` counts in the same way.
fn functions(file: &File) -> Vec<(&str, usize)> {
    let mut found = Vec::new();
    let mut open: Vec<(usize, &str, usize)> = Vec::new();
    for (at, line) in file.code.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let item = line.trim();
        if let Some((_, after)) = item.split_once("fn ")
            && ["", "pub", "const", "unsafe", "pub const", "pub unsafe"].contains(&visible(item))
            && !item.ends_with([';', '}'])
        {
            let end = after.find(|c: char| !(c.is_alphanumeric() || c == '_'));
            open.push((indent, &after[..end.unwrap_or(after.len())], at));
        } else if open.last().is_some_and(|(outer, ..)| *outer == indent) {
            match item {
                "}" => found.extend(open.pop().map(|(_, name, from)| (name, at - from + 1))),
                // A declaration without a body, as in a trait.
                _ if item.starts_with(')') && item.ends_with(';') => drop(open.pop()),
                _ => {}
            }
        }
    }
    found
}

/// What stands before `fn`, without the path of a `pub(…)`.
fn visible(item: &str) -> &str {
    let before = item.split("fn ").next().unwrap_or_default().trim();
    match before.strip_prefix("pub(") {
        Some(rest) => rest.split_once(')').map_or(before, |(_, rest)| rest.trim()),
        None => before,
    }
}

#[test]
fn functions_are_short() {
    let folders = ["python/src", "benches", "examples", "fuzz", "web/engine/src"];
    let others = folders.iter().flat_map(|folder| rust_files(folder));
    let files: Vec<File> = sources_and_tests().into_iter().chain(others).collect();
    let mut long = Vec::new();
    let mut exempt: Vec<_> = LONG_FUNCTIONS.iter().collect();
    for file in &files {
        for (name, lines) in functions(file).into_iter().filter(|(_, n)| *n > FUNCTION_LINES) {
            let known = exempt.iter().position(|(path, f, _)| *path == file.path && *f == name);
            match known {
                Some(at) => drop(exempt.remove(at)),
                None => long.push(format!("{}: {name} has {lines} lines", file.path)),
            }
        }
    }
    refuse("functions of more than 80 lines", long);
    let short = exempt.iter().map(|(path, name, _)| format!("{path}: {name}"));
    refuse("short or gone now: take it from the list", short.collect());
}

#[test]
fn lines_of_a_function_are_counted() {
    let text = "    pub(super) fn a(\n        x: u8,\n    ) {\n        fn b() {\n            x\n        }\n    }\n\
                trait T {\n    fn c(\n        &self,\n    );\n}\nfn d() {}\n";
    let code = text.lines().map(str::to_owned).collect();
    let file = File { path: String::new(), text: text.to_owned(), code };
    assert_eq!(functions(&file), [("b", 3), ("a", 7)]);
}

#[test]
fn modules_open_with_their_purpose() {
    let silent =
        all_sources().into_iter().filter(|file| !file.is_test() && !file.text.starts_with("//!"));
    refuse("modules that don't say what they are for", silent.map(|file| file.path).collect());
}

#[test]
fn nothing_is_left_for_later() {
    // Written apart, so that this file isn't found.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let ignored = concat!("#[ig", "nore");
    let mut wrong = Vec::new();
    for file in sources_and_tests() {
        for (line, text) in file.text.lines().enumerate() {
            if words.iter().any(|word| has_word(text, word)) || text.contains(ignored) {
                wrong.push(format!("{}:{}: {}", file.path, line + 1, text.trim()));
            }
        }
    }
    refuse("left for later", wrong);
}

#[test]
fn the_crate_root_has_no_logic() {
    let lib = rust_files("src").into_iter().find(|file| file.path == "src/lib.rs").unwrap();
    let logic = lib.code().filter(|(_, code)| {
        ["fn", "impl", "struct", "enum", "static"].iter().any(|word| has_word(code, word))
    });
    refuse(
        "logic in src/lib.rs",
        logic.map(|(line, code)| format!("src/lib.rs:{line}: {code}")).collect(),
    );
}
