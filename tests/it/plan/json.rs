//! Plans as JSON: what isn't a plan is refused when it is read.

use proptest::prelude::*;
use regraft::compile;
use regraft::plan::{Plan, PlanOptions, Stage, plan};
use regraft::tensor::{Dtype, Header, TensorInfo};
use regraft::{Direction, key::Key};
use serde_json::{Value, json};

/// A plan of two renamed tensors, of which one is cut from a larger one, and a tie.
fn planned() -> Value {
    let rules = compile(
        r#"
        rename "e" <-> "embed"
        map "qk" <-> "q", "k" via split(0, 1, 1)
        tie "head" from "embed"
        "#,
    );
    let rules = rules.unwrap();
    let info = |shape: &[u64]| TensorInfo::new(Dtype::F32, shape);
    let header =
        Header::from_infos([(Key::from("qk"), info(&[4, 2])), (Key::from("e"), info(&[3, 2]))]);
    let stages = [Stage { rules: &rules, direction: Direction::Forward, named: true }];
    let options = PlanOptions { tied: Some(true), ..PlanOptions::default() };
    serde_json::to_value(plan(&stages, &header, &options).unwrap()).unwrap()
}

fn read(value: &Value) -> Result<Plan, String> {
    serde_json::from_value(value.clone()).map_err(|error| error.to_string())
}

#[test]
fn what_is_no_plan_is_refused_with_the_reason() {
    let whole = planned();
    assert!(read(&whole).is_ok());
    let node = |op: &str| -> usize {
        let nodes = whole["nodes"].as_array().unwrap();
        nodes.iter().position(|node| node["op"]["op"] == op).unwrap()
    };
    let narrow = node("narrow");
    let cases: [(String, Value, &str); 8] = [
        (format!("/nodes/{narrow}/inputs/0"), json!(narrow), "comes before its input"),
        (format!("/nodes/{narrow}/inputs/0"), json!(4_000_000_000u32), "comes before its input"),
        (format!("/nodes/{narrow}/op/len"), json!(9), "cannot give"),
        (format!("/nodes/{narrow}/info/shape/0"), json!(3), "cannot give"),
        ("/targets/0/node".into(), json!(77), "is of no node"),
        ("/targets/0/key".into(), json!("zzz"), "out of order"),
        ("/targets/1/key".into(), whole["targets"][0]["key"].clone(), "there twice"),
        ("/targets/0/rules/0".into(), json!(99), "there is no rule 99"),
    ];
    for (place, value, reason) in cases {
        let mut changed = whole.clone();
        *changed.pointer_mut(&place).unwrap_or_else(|| panic!("{place} in {whole}")) = value;
        let why = read(&changed).unwrap_err();
        assert!(why.contains(reason), "{place}: {why}");
    }
}

#[test]
fn values_that_json_has_no_number_for_are_read_back() {
    let mut whole = planned();
    for value in [f64::INFINITY, f64::NEG_INFINITY, 0.1 + 0.2, 5e-324] {
        let mut plan = read(&whole).unwrap();
        plan.nodes[0].op = regraft::plan::Op::Fill { value };
        whole = serde_json::to_value(&plan).unwrap();
        assert_eq!(read(&whole).unwrap(), plan);
    }
}

proptest! {
    /// Whatever is changed in a plan's text, reading gives a plan that holds together, or says why
    /// not.
    #[test]
    fn a_changed_text_is_a_plan_or_none(at in any::<prop::sample::Index>(), by in any::<u8>()) {
        let mut text = planned().to_string().into_bytes();
        let at = at.index(text.len());
        text[at] = by;
        if let Ok(plan) = serde_json::from_slice::<Plan>(&text) {
            prop_assert_eq!(plan.check(), Ok(()));
        }
    }
}
