//! Corpus files, and the snapshots beside them.
//!
//! A file `tests/corpus/FLOOR/FILE.graft` holds cases, each under a line `### name`. What comes of a
//! case is a snapshot of its own, `tests/corpus/FLOOR/FILE/the_name.snap`: the name in lower case,
//! with `_` for whatever is no letter and no digit. What a case holds besides rule text, its floor
//! says.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// One case of a corpus file.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) body: String,
}

impl Case {
    /// Its snapshot's name, without the ending.
    fn snapshot(&self) -> String {
        let words = self.name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("_").to_lowercase()
    }
}

fn folder(floor: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(floor)
}

/// What a folder of the corpus holds, in order: files with an ending, without it, or folders.
fn stems(folder: &Path, ending: Option<&str>) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let is_one = |path: &PathBuf| match ending {
        Some(ending) => path.extension().is_some_and(|extension| extension == ending),
        None => path.is_dir(),
    };
    let paths = entries.map(|entry| entry.unwrap().path()).filter(is_one);
    let mut stems: Vec<String> =
        paths.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    stems.sort();
    stems
}

/// The files of a floor.
pub(crate) fn files(floor: &str) -> Vec<String> {
    let files = stems(&folder(floor), Some("graft"));
    assert!(!files.is_empty(), "no corpus of {floor}");
    files
}

/// The cases of a file, in its order.
pub(crate) fn cases(floor: &str, file: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(folder(floor).join(format!("{file}.graft"))).unwrap();
    let cases: Vec<Case> = text
        .split("### ")
        .skip(1)
        .map(|case| case.split_once('\n').unwrap_or((case, "")))
        .map(|(name, body)| Case { name: name.trim().to_owned(), body: body.to_owned() })
        .collect();
    assert!(!cases.is_empty(), "{floor}/{file}: a corpus file without a case");
    cases
}

/// Holds what is shown of every case of a floor against its snapshot. All that differ are told, and
/// so are snapshots whose case is gone.
pub(crate) fn hold(floor: &str, show: impl Fn(&Case) -> String) {
    let mut wrong = Vec::new();
    let files = files(floor);
    for file in &files {
        let beside = folder(floor).join(file);
        let mut settings = insta::Settings::clone_current();
        settings.set_omit_expression(true);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_snapshot_path(&beside);
        settings.set_input_file(beside.with_extension("graft"));
        let mut names = BTreeSet::new();
        for case in cases(floor, file) {
            let shown = show(&case);
            let name = case.snapshot();
            let held = settings.bind(|| {
                catch_unwind(AssertUnwindSafe(|| insta::assert_snapshot!(name.clone(), shown)))
            });
            if held.is_err() {
                wrong.push(format!("{floor}/{file}: {}", case.name));
            }
            if !names.insert(name) {
                wrong.push(format!("{floor}/{file}: two cases `{}`", case.name));
            }
        }
        let left = stems(&beside, Some("snap")).into_iter().filter(|stem| !names.contains(stem));
        wrong.extend(left.map(|stem| format!("{floor}/{file}/{stem}.snap: of no case")));
    }
    let left = stems(&folder(floor), None).into_iter().filter(|stem| !files.contains(stem));
    wrong.extend(left.map(|stem| format!("{floor}/{stem}: of no file")));
    assert!(wrong.is_empty(), "differs from its snapshot:\n  {}", wrong.join("\n  "));
}
