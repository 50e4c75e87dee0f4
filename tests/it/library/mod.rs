//! The embedded rule files: each parses, checks and is formatted.

mod detect;
pub(crate) mod layouts;
mod registry;
mod wrappers;

use std::sync::Arc;

use regraft::config::Config;
use regraft::diagnostic::{SourceText, render_all};
use regraft::library::Route;
use regraft::{library, syntax};
use serde_json::json;

/// Those who use them don't prove them again.
#[test]
fn every_file_is_proven() {
    for name in library::names() {
        let found = match library::prove_with(name, library::Library::default()) {
            Ok(rules) => rules.findings,
            Err(library::Failure::Rules(diagnostics)) => diagnostics.0,
            Err(error) => panic!("{name}: {error}"),
        };
        assert!(found.is_empty(), "{name}:\n{}", render_all(&found, false));
    }
}

/// Lists read only the head, which says what the whole file does.
#[test]
fn every_head_says_what_its_file_does() {
    for name in library::names() {
        let (head, rules) = (library::head(name).unwrap(), library::rules(name).unwrap());
        assert_eq!((&head.layouts, &head.models), (&rules.layouts, &rules.models), "{name}");
    }
    assert!(
        library::names()
            .filter_map(library::head)
            .any(|head| head.layouts.is_some() && head.models.len() > 2)
    );
}

#[test]
fn every_file_is_formatted() {
    for name in library::names() {
        let text = library::text(name).unwrap();
        let parsed =
            syntax::parse(Arc::new(SourceText { name: name.to_owned(), text: text.to_owned() }));
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
        Route::by_config(&Config::from_value(config), None, None)
            .unwrap()
            .describe()
            .iter()
            .any(|(name, _)| name == "tied_lm_head")
    };
    for class in [
        "LlamaModel",
        "LlamaForSequenceClassification",
        "MistralForTokenClassification",
        "Qwen2ForQuestionAnswering",
    ] {
        assert!(!tied(json!({"architectures": [class], "model_type": "llama"})), "{class}");
    }
    for class in [
        "LlamaForCausalLM",
        "GPT2LMHeadModel",
        "GPT2DoubleHeadsModel",
        "LlavaForConditionalGeneration",
        "OfSomebodyElse",
    ] {
        assert!(tied(json!({"architectures": [class], "model_type": "llama"})), "{class}");
    }
    assert!(tied(json!({"model_type": "llama"})), "no class is named");
    assert!(
        tied(json!({"architectures": ["LlamaModel", "LlamaForCausalLM"]})),
        "one of two has a head"
    );
}

/// FP8 in blocks: each expert's scales are packed as its weights are, and come back; a scale for a
/// whole tensor can't be, and is refused.
#[test]
fn experts_take_their_scales_along() {
    use regraft::key::Key;
    use regraft::tensor::{Dtype, Header, TensorInfo};
    for (file, names) in
        [("qwen2_moe", ["gate_proj", "up_proj", "down_proj"]), ("mixtral", ["w1", "w3", "w2"])]
    {
        let module = if file == "mixtral" { "block_sparse_moe" } else { "mlp" };
        let keys = |scale: &str, shapes: [Vec<u64>; 2]| {
            let mut infos = Vec::new();
            for (expert, name) in
                (0..3).flat_map(|expert| names.iter().enumerate().map(move |name| (expert, name)))
            {
                let (down, key) = (
                    usize::from(name.0 == 2),
                    format!("model.layers.0.{module}.experts.{expert}.{}", name.1),
                );
                let shape = if down == 1 { vec![256, 384] } else { vec![384, 256] };
                infos.push((
                    Key::from(format!("{key}.weight")),
                    TensorInfo::new(Dtype::F8_E4M3, shape),
                ));
                infos.push((
                    Key::from(format!("{key}.{scale}")),
                    TensorInfo::new(Dtype::F32, shapes[down].clone()),
                ));
            }
            Header::from_infos(infos)
        };
        let rules = regraft::load(file).unwrap();
        let planned = |header: &Header, direction| {
            let stage = regraft::plan::Stage { rules: &rules, direction, named: true };
            regraft::plan(&[stage], header, &regraft::PlanOptions::default())
        };
        let header = keys("weight_scale_inv", [vec![3, 2], vec![2, 3]]);
        let plan = planned(&header, regraft::Direction::Forward).unwrap();
        let packed: Vec<(String, Vec<u64>)> = plan
            .targets
            .iter()
            .map(|target| (target.key.to_string(), plan.info(target).shape.to_vec()))
            .collect();
        let expected = [
            ("down_proj", vec![3, 256, 384]),
            ("down_proj_scale_inv", vec![3, 2, 3]),
            ("gate_up_proj", vec![3, 768, 256]),
            ("gate_up_proj_scale_inv", vec![3, 6, 2]),
        ];
        assert_eq!(
            packed,
            expected.map(|(name, shape)| (format!("model.layers.0.mlp.experts.{name}"), shape))
        );
        let back = Header::from_infos(
            plan.targets.iter().map(|target| (target.key.clone(), plan.info(target).clone())),
        );
        let back = planned(&back, regraft::Direction::Reverse).unwrap();
        let mut found: Vec<&str> = back.targets.iter().map(|target| target.key.as_str()).collect();
        let mut before: Vec<&str> = header.tensors.keys().map(Key::as_str).collect();
        found.sort_unstable();
        before.sort_unstable();
        assert_eq!(found, before);
        let refused = planned(&keys("weight_scale", [vec![], vec![]]), regraft::Direction::Forward)
            .unwrap_err();
        let stranded =
            refused.0.iter().find(|finding| finding.code.to_string() == "RG327").unwrap();
        // Who uses a built-in file can't change it.
        assert!(
            stranded.hints[0].contains("dequantize")
                && !stranded.hints.iter().any(|hint| hint.contains("alone")),
            "{refused}"
        );
    }
}

/// Llama has one file, from Meta's names to the hub's; in memory it has the hub's. So a layout is
/// found from whichever of both.
#[test]
fn hub_and_model_are_one_where_no_file_parts_them() {
    let config =
        Config::from_value(json!({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}));
    let files = |from, to| -> Vec<(String, regraft::Direction)> {
        let route = Route::by_config(&config, from, to).unwrap();
        route.describe().into_iter().filter(|(name, _)| name == "llama").collect()
    };
    let (there, back) = (regraft::Direction::Forward, regraft::Direction::Reverse);
    for (from, to, expected) in [
        (Some("meta"), None, Some(there)),
        (Some("meta"), Some("hub"), Some(there)),
        (Some("meta"), Some("model"), Some(there)),
        (None, Some("meta"), Some(back)),
        (Some("hub"), Some("meta"), Some(back)),
        (None, None, None),
        (Some("hub"), Some("model"), None),
        (Some("model"), Some("hub"), None),
    ] {
        assert_eq!(
            files(from, to).into_iter().map(|(_, direction)| direction).next(),
            expected,
            "{from:?} to {to:?}"
        );
    }
    assert!(Route::by_config(&config, None, Some("nobody's")).is_err());
}
