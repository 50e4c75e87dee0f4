//! The embedded rule files: each parses, checks and is formatted.

use std::sync::Arc;

use regraft::config::Config;
use regraft::diagnostic::{SourceText, render_all};
use regraft::library::Route;
use regraft::{library, syntax};
use serde_json::json;

#[test]
fn every_file_checks() {
    for name in library::names() {
        if let Err(library::LoadError::Rules(diagnostics)) = library::load(name) {
            panic!("{name}:\n{}", render_all(&diagnostics.0, false));
        }
    }
}

#[test]
fn every_file_is_formatted() {
    for name in library::names() {
        let text = library::text(name).unwrap();
        let parsed = syntax::parse(Arc::new(SourceText { name: name.to_owned(), text: text.to_owned() }));
        assert!(parsed.diagnostics.is_empty(), "{name}");
        assert_eq!(text, syntax::print(&parsed.file), "{name} is not as `regraft fmt` writes it");
    }
}

#[test]
fn every_example_holds() {
    let (mut checked, mut failed) = (0, String::new());
    // A file that doesn't check is the matter of the test above.
    for rules in library::names().filter_map(library::rules) {
        checked += rules.examples.len();
        failed.push_str(&render_all(&library::check_examples(rules), false));
    }
    assert!(failed.is_empty(), "{failed}");
    assert!(checked > 0);
}

#[test]
fn a_class_without_an_output_head_gets_none() {
    let tied = |config| {
        Route::by_config(&Config::from_value(config), None, None).unwrap().describe().iter().any(|(name, _)| name == "tied_lm_head")
    };
    for class in ["LlamaModel", "LlamaForSequenceClassification", "MistralForTokenClassification", "Qwen2ForQuestionAnswering"] {
        assert!(!tied(json!({"architectures": [class], "model_type": "llama"})), "{class}");
    }
    for class in ["LlamaForCausalLM", "GPT2LMHeadModel", "GPT2DoubleHeadsModel", "LlavaForConditionalGeneration", "OfSomebodyElse"] {
        assert!(tied(json!({"architectures": [class], "model_type": "llama"})), "{class}");
    }
    assert!(tied(json!({"model_type": "llama"})), "no class is named");
    assert!(tied(json!({"architectures": ["LlamaModel", "LlamaForCausalLM"]})), "one of two has a head");
}
