//! The entries of transformers' conversion registry, in each version that was noted: a rule file
//! serves every one.

use std::collections::BTreeMap;
use std::path::Path;

use regraft::Route;
use regraft::config::Config;
use regraft::library::{self, HUB, MODEL};
use serde::Deserialize;

/// What `scripts/registry_changes.py` wrote of a version.
#[derive(Deserialize)]
struct Note {
    version: String,
    /// The rules of each entry as text.
    entries: BTreeMap<String, Vec<String>>,
}

impl Note {
    /// The layout in which this version holds a model, where a newer one has other names.
    fn layout(&self) -> String {
        let numbers: Vec<&str> = self.version.split('.').take(2).collect();
        format!("model_{}", numbers.join("_"))
    }
}

/// The oldest version first.
fn notes() -> Vec<Note> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let files = std::fs::read_dir(scripts).unwrap().map(|entry| entry.unwrap());
    let named = |name: &str| name.starts_with("registry-") && name.ends_with(".json");
    let mut notes: Vec<Note> = files
        .filter(|entry| entry.file_name().to_str().is_some_and(named))
        .map(|entry| std::fs::read_to_string(entry.path()).unwrap())
        .map(|text| serde_json::from_str(&text).unwrap())
        .collect();
    notes.sort_by_key(|note| -> Vec<u64> {
        note.version.split('.').map(|number| number.parse().unwrap()).collect()
    });
    notes
}

/// Whether a file leads from `hub` to a layout for what an entry is named after: a model type or a
/// class.
fn leads_to(layout: &str, entry: &str) -> bool {
    library::names().filter_map(library::head).any(|head| {
        head.models.iter().any(|model| model == entry)
            && head.layouts.is_some_and(|(left, right)| left == HUB && right == layout)
    })
}

#[test]
fn every_entry_of_both_versions_has_rules() {
    let notes = notes();
    assert!(notes.len() >= 2);
    for note in &notes {
        // Names of old that apply to all models: every file that needs them uses them.
        let named = note.entries.keys().filter(|entry| *entry != "legacy");
        let lacking: Vec<&String> = named.filter(|entry| !leads_to(MODEL, entry)).collect();
        assert!(lacking.is_empty(), "transformers {}: {lacking:?}", note.version);
    }
}

/// A rule that an entry lost gave names which the newer version doesn't have.
#[test]
fn names_that_a_newer_version_gave_up_have_a_layout_of_their_own() {
    let notes = notes();
    let newest = notes.last().unwrap();
    let mut apart = Vec::new();
    for old in &notes[..notes.len() - 1] {
        for (entry, rules) in &old.entries {
            let kept = newest.entries.get(entry).map_or(&[][..], Vec::as_slice);
            if rules.iter().any(|rule| !kept.contains(rule)) {
                assert!(leads_to(&old.layout(), entry), "{entry} of transformers {}", old.version);
                apart.push(entry.as_str());
            }
        }
    }
    assert_eq!(apart, ["inkling2", "inkling2_text"]);
}

/// Which rule file leads from `hub` to `to` for a model of this type that a version wrote.
fn leads(version: &str, from: &str, to: &str) -> Vec<String> {
    let config = serde_json::json!({
        "model_type": "inkling2_text",
        "architectures": ["Inkling2ForCausalLM"],
        "transformers_version": version,
    });
    let route = Route::by_config(&Config::from_value(config), Some(from), Some(to)).unwrap();
    let names = route.describe().into_iter().map(|(name, _)| name);
    names.filter(|name| name.starts_with("inkling2")).collect()
}

#[test]
fn a_config_says_which_version_holds_a_model() {
    const OLD: &str = "inkling2_text_5_23";
    const NEW: &str = "inkling2_text";
    assert_eq!(leads("5.23.0", HUB, MODEL), [OLD]);
    assert_eq!(leads("5.23.0", MODEL, HUB), [OLD]);
    assert_eq!(leads("5.24.0", HUB, MODEL), [NEW]);
    assert_eq!(leads("4.57.1", HUB, MODEL), [NEW]);
    assert_eq!(leads("5.24.0", HUB, "model_5_23"), [OLD]);
    assert_eq!(leads("5.23.0", HUB, "model_5_24"), [NEW]);
    assert_eq!(leads("5.23.0", "model_5_23", MODEL), [OLD, NEW]);
    assert_eq!(leads("5.23.0", MODEL, "model_5_23"), [NEW, OLD]);
}
