//! A plan depends on what its rules say, and not on which copy of them is asked.

use regraft::key::Key;
use regraft::plan::{PlanOptions, Stage, plan};
use regraft::tensor::{Dtype, Header, TensorInfo};
use regraft::{Direction, Rules, compile};

/// Groups, an `exists`, a rule without keys, and a tie.
const RULES: &str = "\
rename {
  \"h.{l}.q\" <-> \"layers.{l}.q\" where exists(\"m.{l}.k\")
  \"h.{l}.k\" <-> \"layers.{l}.k\"
  \"x.{l}.k\" <-> \"y.{l}.k\" optional
}
rename \"layers.{l}.q\" <-> \"blocks.{l}.q\"
tie \"head\" from \"blocks.0.q\"
";

fn planned(first: &Rules, then: &Rules) -> serde_json::Value {
    let info = || TensorInfo::new(Dtype::F32, &[2, 2][..]);
    let keys = ["h.0.q", "h.0.k", "h.1.q", "m.0.k"];
    let header = Header::from_infos(keys.into_iter().map(|key| (Key::from(key), info())));
    let stages = [(first, Direction::Forward), (then, Direction::Reverse)]
        .map(|(rules, direction)| Stage { rules, direction, named: false });
    let plan = plan(&stages, &header, &PlanOptions::default()).unwrap();
    serde_json::to_value(&plan).unwrap()
}

#[test]
fn equal_rules_give_equal_plans() {
    let rules = compile(RULES).unwrap();
    let (copy, again) = (rules.clone(), compile(RULES).unwrap());
    let once = planned(&rules, &rules);
    assert_eq!(planned(&rules, &copy), once, "a copy");
    assert_eq!(planned(&rules, &again), once, "compiled again");
    // Each stage tells of its own rules.
    let rules = once["rules"].as_array().unwrap();
    let of = |text: &str| {
        rules.iter().filter(|rule| rule["text"].as_str().unwrap().starts_with(text)).count()
    };
    assert_eq!(of("\"layers.{l}.q\""), 2, "{rules:#?}");
}
