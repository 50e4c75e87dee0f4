//! Lists the rule files under `rules/` so that they are embedded: a name for each, and its text. For
//! the web, where every byte is fetched, the lines of their comments are left empty, and those of
//! examples in what was imported, which only tests read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("rules");
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let is_fetched = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "wasm32");
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&root).unwrap_or(&file).with_extension("");
        let name = name.to_string_lossy().replace('\\', "/");
        let _ = if is_fetched {
            let text = without_comments(&fs::read_to_string(&file)?);
            let text = if name.contains('/') { without_examples(&text) } else { text };
            writeln!(list, "    ({name:?}, {text:?}),")
        } else {
            writeln!(list, "    ({name:?}, include_str!({:?})),", file.display().to_string())
        };
    }
    list.push_str("]\n");
    println!("cargo::rerun-if-changed=rules");
    fs::write(PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("library.rs"), list)
}

/// A rule file with the same lines, those of comments empty.
fn without_comments(text: &str) -> String {
    let kept = |line: &str| !line.trim_start().starts_with('#');
    text.split_inclusive('\n').map(|line| if kept(line) { line } else { "\n" }).collect()
}

/// A rule file with the same lines, those of examples empty: of each the line that it begins with,
/// and those that go on with its arrow.
fn without_examples(text: &str) -> String {
    let mut is_example = false;
    let lines = text.split_inclusive('\n').map(|line| {
        let goes_on = is_example && (line.starts_with("<->") || line.starts_with("->"));
        is_example = line.starts_with("example ") || goes_on;
        if is_example { "\n" } else { line }
    });
    lines.collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "graft") {
            files.push(path);
        }
    }
    Ok(())
}
