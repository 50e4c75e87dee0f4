//! Files that mean harm or are broken: each ends in its own error, and never in a crash.
//!
//! `tests/corpus/hostile/*.txt` hold cases: `### name`, the file's content, and `---` with what the
//! error has to say (a diagnostic's code for rules; those of `plans.txt` are wrong only over the
//! keys given here). Broken headers are bytes rather than text, and stand in `store/bad_header.rs`.

use std::path::Path;
use std::time::Instant;

use regraft::compile;
use regraft::config::Config;
use regraft::diagnostic::Severity;
use regraft::key::Key;
use regraft::store::{OpenOptions, open};
use regraft::tensor::{Dtype, Header, TensorInfo};
use regraft::{Route, plan};

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

/// How many cases there are, and what those say that went otherwise.
fn report(file: &str, check: impl Fn(&str) -> Result<String, String>) -> (usize, String) {
    let cases = cases(file);
    let mut wrong = String::new();
    for (name, content, says) in &cases {
        match check(content) {
            Ok(error) if error.contains(says) => {}
            Ok(error) => wrong.push_str(&format!("{file}: {name}: says {error:?}, not {says:?}\n")),
            Err(accepted) => wrong.push_str(&format!("{file}: {name}: {accepted}\n")),
        }
    }
    (cases.len(), wrong)
}

/// Opens a document beside a shard with the keys `a` and `b`.
fn opened(name: &str, content: &str) -> Result<String, String> {
    let place = tempfile::tempdir().unwrap();
    let view =
        || safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![2], &[1, 2]).unwrap();
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

fn indexes() -> (usize, String) {
    report("indexes.txt", |content| opened("model.safetensors.index.json", content))
}

fn manifests() -> (usize, String) {
    report("manifests.txt", |content| opened("manifest.json", content))
}

fn configs() -> (usize, String) {
    report("configs.txt", |content| {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("config.json"), content).unwrap();
        match Config::read(place.path()) {
            Ok(_) => Err("accepted".to_owned()),
            Err(error) => Ok(error.to_string()),
        }
    })
}

fn rules() -> (usize, String) {
    report("rules.txt", |content| match compile(content) {
        Ok(_) => Err("accepted".to_owned()),
        Err(diagnostics) => {
            let errors =
                diagnostics.0.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
            Ok(errors
                .map(|diagnostic| format!("{}: {}", diagnostic.code, diagnostic.message))
                .collect::<Vec<_>>()
                .join("; "))
        }
    })
}

/// Rules that are right by themselves, over keys and shapes that make them ask for too much; none
/// takes long to refuse.
fn plans() -> (usize, String) {
    let long = vec!["x"; 1000].join(".");
    let keys = [
        ("a.0", Dtype::F32, [4, 4]),
        ("a.1", Dtype::F32, [4, 4]),
        ("wide", Dtype::U8, [4_000_000_000, 0]),
        ("half", Dtype::F4, [4, 2]),
        (&long, Dtype::U8, [1, 1]),
        (&"a".repeat(45), Dtype::U8, [1, 1]),
    ];
    let header = Header::from_infos(
        keys.map(|(key, dtype, shape)| (Key::from(key), TensorInfo::new(dtype, &shape[..]))),
    );
    report("plans.txt", |content| {
        let start = Instant::now();
        let rules = compile(content)
            .map_err(|diagnostics| format!("the rules are wrong by themselves: {diagnostics:?}"))?;
        let route = Route::named(vec![rules], None, None, false).unwrap();
        let said = match plan(&route.stages(), &header, &Default::default()) {
            Ok(_) => return Err("planned".to_owned()),
            Err(diagnostics) => diagnostics
                .0
                .iter()
                .map(|found| format!("{}: {}", found.code, found.message))
                .collect::<Vec<_>>()
                .join("; "),
        };
        let took = start.elapsed().as_secs_f64();
        if took < 10.0 { Ok(said) } else { Err(format!("takes {took} s")) }
    })
}

#[test]
fn every_hostile_file_has_its_error() {
    // Headers are counted where they stand.
    let all = [indexes(), manifests(), configs(), rules(), plans()];
    let wrong: String = all.iter().map(|(_, wrong)| wrong.as_str()).collect();
    assert!(wrong.is_empty(), "\n{wrong}");
    let count: usize = all.iter().map(|(count, _)| count).sum();
    assert!(count >= 120, "only {count} cases");
}
