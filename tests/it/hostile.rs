//! Files that mean harm or are broken: each ends in its own error, and never in a crash.
//!
//! `tests/corpus/hostile/*.txt` hold cases: `### name`, the file's content, and `---` with what the error has to say (a diagnostic's code for rules). Broken
//! headers are bytes rather than text, and stand in `store/bad_header.rs`.

use std::path::Path;

use regraft::compile;
use regraft::config::Config;
use regraft::diagnostic::Severity;
use regraft::store::{OpenOptions, open};

/// Name, content, what the error says.
fn cases(file: &str) -> Vec<(String, String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/hostile").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let mut found = Vec::new();
    for case in text.split("### ").skip(1) {
        let (name, rest) = case.split_once('\n').unwrap();
        let (content, says) = rest.rsplit_once("\n--- ").unwrap();
        let says = says.trim();
        assert!(says.len() >= 3, "{file}: {name} expects nothing");
        found.push((name.to_owned(), content.to_owned(), says.to_owned()));
    }
    found
}

/// Every case that went otherwise, told together.
fn report(file: &str, check: impl Fn(&str) -> Result<String, String>) -> usize {
    let cases = cases(file);
    let mut wrong = String::new();
    for (name, content, says) in &cases {
        match check(content) {
            Ok(error) if error.contains(says) => {}
            Ok(error) => wrong.push_str(&format!("{name}: says {error:?}, not {says:?}\n")),
            Err(accepted) => wrong.push_str(&format!("{name}: {accepted}\n")),
        }
    }
    assert!(wrong.is_empty(), "{file}\n{wrong}");
    cases.len()
}

/// Opens a document beside a shard with the keys `a` and `b`.
fn opened(name: &str, content: &str) -> Result<String, String> {
    let place = tempfile::tempdir().unwrap();
    let view = || safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![2], &[1, 2]).unwrap();
    let shard = place.path().join("model-00001-of-00001.safetensors");
    safetensors::serialize_to_file([("a", view()), ("b", view())], None, &shard).unwrap();
    std::fs::create_dir(place.path().join("sub")).unwrap();
    std::fs::write(place.path().join("note.txt"), "a note").unwrap();
    std::fs::write(place.path().join(name), content).unwrap();
    match open(place.path().join(name), &OpenOptions::default()) {
        Ok(_) => Err("accepted".to_owned()),
        Err(error) => {
            assert!(error.file().is_some(), "{error} names no file");
            Ok(error.to_string())
        }
    }
}

fn indexes() -> usize {
    report("indexes.txt", |content| opened("model.safetensors.index.json", content))
}

fn manifests() -> usize {
    report("manifests.txt", |content| opened("manifest.json", content))
}

fn configs() -> usize {
    report("configs.txt", |content| {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("config.json"), content).unwrap();
        match Config::read(place.path()) {
            Ok(_) => Err("accepted".to_owned()),
            Err(error) => Ok(error.to_string()),
        }
    })
}

fn rules() -> usize {
    report("rules.txt", |content| match compile(content) {
        Ok(_) => Err("accepted".to_owned()),
        Err(diagnostics) => {
            let errors = diagnostics.0.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
            Ok(errors.map(|diagnostic| format!("{}: {}", diagnostic.code, diagnostic.message)).collect::<Vec<_>>().join("; "))
        }
    })
}

#[test]
fn every_hostile_file_has_its_error() {
    // Headers are counted where they stand.
    let count = indexes() + manifests() + configs() + rules();
    assert!(count >= 80, "only {count} cases");
}
