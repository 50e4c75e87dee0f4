//! What `trace` says of a key, which `test` and `explain` believe, is what the plan does with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use indexmap::IndexMap;
use regraft::check::value::{Captures, Environment, unknown_layout};
use regraft::check::{Includes, NotIncluded, check};
use regraft::diagnostic::{SourceText, render_all};
use regraft::key::Key;
use regraft::library::check_examples;
use regraft::plan::{Op, PlanOptions, Stage, plan, trace};
use regraft::tensor::{Dtype, Header, TensorInfo};
use regraft::{Direction, Rules};

/// One other rule file.
struct Other(String);

impl Includes for Other {
    fn load(
        &self,
        path: &str,
        _: bool,
        _: &SourceText,
        _: &SourceText,
    ) -> Result<Arc<SourceText>, NotIncluded> {
        Ok(Arc::new(SourceText { name: path.to_owned(), text: self.0.clone() }))
    }
}

fn compiled(text: &str, other: &str) -> Option<Rules> {
    let source = Arc::new(SourceText { name: "rules.graft".to_owned(), text: text.to_owned() });
    check(&source, &Other(other.to_owned())).ok()
}

const KEYS: [&str; 10] = [
    "a.0.w",
    "a.1.w",
    "a.2.b",
    "b.3.w",
    "b.x.v",
    "c.w",
    "d.4.w",
    "e.x",
    "net.h.5.w",
    "a._orig_mod.7.w",
];

const STATEMENTS: [&str; 12] = [
    "rename \"a.{l}.w\" <-> \"f.{l}.w\"",
    "rename \"a.{l}.**\" <-> \"g.{l+1}.**\"",
    "rename {\n  \"a.**\" <-> \"b.**\"\n  \"b.**\" <-> \"a.**\"\n}",
    "rename \"{p**}.w\" <-> \"{p**}.weight\" unless \"c.**\"",
    "rename \"b.{x*}.v\" -> \"h.{x}\" optional",
    "drop \"e.**\" optional",
    "keep \"a.**\", \"b.**\", \"c.**\", \"f.**\" optional",
    "strip anywhere \"_orig_mod\"",
    "rename \"a.{l}.w\" <-> \"k.{l}.w\" where l % 2 == 0",
    "rename \"{x: c=>see|d=>dee}.**\" <-> \"{x}.**\"",
    "rename \"net.{m*}.{l: 4..9}.w\" <-> \"m.{m}.{l}.w\"",
    "use \"other.graft\" reversed",
];

#[test]
fn a_trace_is_what_the_plan_does() {
    let mut state = 7u64;
    let mut below = |count: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % count
    };
    let parameters = IndexMap::new();
    let environment = Environment {
        config: None,
        tied: None,
        parameters: &parameters,
        exists: &unknown_layout,
        captures: Captures::NONE,
    };
    let (mut compared, mut reversed) = (0, 0);
    for _ in 0..1500 {
        let own = STATEMENTS.len();
        let text: String =
            (0..=below(3)).map(|_| format!("{}\n", STATEMENTS[below(own)])).collect();
        let other: String =
            (0..=below(2)).map(|_| format!("{}\n", STATEMENTS[below(own - 1)])).collect();
        let Some(rules) = compiled(&text, &other) else { continue };
        let direction = [Direction::Forward, Direction::Reverse][below(2)];
        for key in KEYS {
            let info = TensorInfo::new(Dtype::F32, &[2][..]);
            let header = Header::from_infos([(Key::from(key), info)]);
            let stage = Stage { rules: &rules, direction, named: false };
            let Ok(plan) = plan(
                &[stage],
                &header,
                &PlanOptions { allow_lossy: true, ..PlanOptions::default() },
            ) else {
                continue;
            };
            let planned: BTreeSet<&str> =
                plan.targets.iter().map(|target| target.key.as_str()).collect();
            assert!(plan.targets.iter().all(|target| matches!(&plan.node(target.node).op, Op::Source { key: source } if **source == *key)));
            let traces = trace(&rules, direction, &[key.to_owned()], &environment);
            let [traced] = &traces[..] else { panic!("nothing is left open here") };
            let traced: BTreeSet<&str> = traced.results.iter().map(String::as_str).collect();
            assert_eq!(traced, planned, "{key}, {direction:?}, of\n{text}with\n{other}");
            compared += 1;
            reversed += usize::from(text.contains("reversed") && !planned.contains(key));
        }
    }
    assert!(compared > 4000 && reversed > 200, "{compared} {reversed}");
}

#[test]
fn examples_hold_through_a_file_that_is_used_reversed() {
    let text = "use \"other.graft\" reversed\nexample \"b.3.w\" <-> \"a.2.w\"\n";
    let rules =
        compiled(text, "strip anywhere \"_orig_mod\"\nrename \"a.{l}.w\" <-> \"b.{l+1}.w\"\n")
            .unwrap();
    let failed = check_examples(&rules);
    assert!(failed.is_empty(), "{}", render_all(&failed, false));
    let wrong =
        compiled(&text.replace("a.2", "a.3"), "rename \"a.{l}.w\" <-> \"b.{l+1}.w\"\n").unwrap();
    assert_eq!(check_examples(&wrong).len(), 1);
}
