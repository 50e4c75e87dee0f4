//! What `trace` says of a key, which `test` and `explain` believe, is what the plan does with it.

use std::collections::BTreeSet;
use std::sync::Arc;

use indexmap::IndexMap;
use proptest::collection::vec;
use proptest::prelude::*;
use regraft::check::value::{Captures, Environment, unknown_facts, unknown_layout};
use regraft::check::{Includes, NotIncluded, check};
use regraft::config::Config;
use regraft::diagnostic::{SourceText, render_all};
use regraft::key::Key;
use regraft::library::check_examples;
use regraft::plan::{DropReason, Op, PlanOptions, Stage, plan, trace};
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

const KEYS: [&str; 13] = [
    "a/0/w",
    "b/x/v.y",
    "e/w",
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

const STATEMENTS: [&str; 13] = [
    "separator \"/\"",
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
        facts: &unknown_facts,
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

/// A pattern over few words, so that keys meet it often, and the one across with its captures.
fn sides() -> impl Strategy<Value = (String, String)> {
    let name = || prop::sample::select(vec!["a", "b", "c", "w"]);
    prop_oneof![
        (name(), name()).prop_map(|(x, y)| (format!("{x}.**"), format!("{y}.**"))),
        (name(), name()).prop_map(|(x, y)| (format!("**.{x}"), format!("**.{y}"))),
        (name(), name(), name())
            .prop_map(|(x, y, z)| (format!("{x}.{{p**}}"), format!("{y}.{z}.{{p**}}"))),
        (name(), name(), 0..3u8).prop_map(|(x, y, add)| {
            (format!("{{p**}}.{x}.{{l}}.w"), format!("{{p**}}.{y}.{{l+{add}}}.w"))
        }),
        (name(), name(), 0..4u8).prop_map(|(x, y, end)| {
            (format!("{x}.{{l: 0..{end}}}.{{n*}}"), format!("{y}.{{l: 0..{end}}}.{{n*}}"))
        }),
        (name(), name()).prop_map(|(x, y)| {
            (format!("{{x: {x}=>b | c=>{y}}}.{{q**}}"), "{x}.{q**}".to_owned())
        }),
    ]
}

fn rewrite() -> impl Strategy<Value = String> {
    let unless = prop::option::of(prop::sample::select(vec!["a.**", "**.w", "b.{l: 0..2}.**"]));
    let arrow = prop::sample::select(vec!["<->", "<->", "->"]);
    (any::<bool>(), sides(), arrow, unless, any::<bool>()).prop_map(
        |(is_map, (left, right), arrow, unless, even)| {
            let verb = if is_map { "map" } else { "rename" };
            let via = if is_map { " via transpose(0, 1)" } else { "" };
            let unless = unless.map_or_else(String::new, |keys| format!(" unless \"{keys}\""));
            let even = if even && left.contains("{l") { " where l % 2 == 0" } else { "" };
            format!("{verb} \"{left}\" {arrow} \"{right}\"{via}{unless}{even}\n")
        },
    )
}

fn plain_statement() -> impl Strategy<Value = String> {
    let keys = || prop::sample::select(vec!["a.**", "**.w", "c.{l: 1..3}.**", "b.{n*}"]);
    prop_oneof![
        6 => rewrite(),
        2 => vec(sides(), 2..4).prop_map(|rules| {
            let rules = rules.iter().map(|(left, right)| format!("  \"{left}\" <-> \"{right}\"\n"));
            format!("rename {{\n{}}}\n", rules.collect::<String>())
        }),
        1 => keys().prop_map(|keys| format!("drop \"{keys}\" unless \"**.keep\" optional\n")),
        1 => keys().prop_map(|keys| format!("keep \"{keys}\", \"b.**\" optional\n")),
        1 => Just("strip anywhere \"wrap\"\n".to_owned()),
        1 => Just("strip leading \"module\"\n".to_owned()),
        1 => Just("prefix \"a\"\n".to_owned()),
    ]
}

/// Statements, some under a condition on `config.layers`, which is 2.
fn statements() -> impl Strategy<Value = String> {
    let block = || vec(plain_statement(), 1..3).prop_map(|lines| lines.concat());
    let guarded = (block(), block(), 0..4u8).prop_map(|(then, otherwise, than)| {
        format!("when config.layers > {than} {{\n{then}}} else {{\n{otherwise}}}\n")
    });
    vec(prop_oneof![4 => plain_statement(), 1 => guarded], 1..4).prop_map(|lines| lines.concat())
}

fn file() -> impl Strategy<Value = String> {
    let reversed = Just("use \"other.graft\" reversed\n".to_owned());
    let separator = prop::sample::select(vec!["", "", "separator \"/\"\n", "separator \"_\"\n"]);
    (separator, vec(prop_oneof![3 => statements(), 1 => reversed], 1..3))
        .prop_map(|(separator, parts)| format!("{separator}{}", parts.concat()))
}

fn any_key() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "c", "w", "0", "1", "2", "keep", "wrap"]);
    let between = prop::sample::select(vec![".", ".", "/", "_"]);
    (any::<bool>(), vec(segment, 1..6), between).prop_map(|(wrapped, segments, between)| {
        format!("{}{}", if wrapped { "module." } else { "" }, segments.join(between))
    })
}

/// The ways of a key through rules: by the plan, and by the trace.
#[derive(Debug, PartialEq)]
struct Way {
    results: BTreeSet<String>,
    /// What took it, in order.
    by: Vec<String>,
}

fn compared(text: &str, other: &str, key: &str, direction: Direction) -> Option<(Way, Way)> {
    let rules = compiled(text, other)?;
    let config = serde_json::json!({ "layers": 2 });
    let header = Header::from_infos([(Key::from(key), TensorInfo::new(Dtype::F32, &[2, 2][..]))]);
    let options = PlanOptions {
        allow_lossy: true,
        config: Config::from_value(config.clone()),
        ..PlanOptions::default()
    };
    let plan = plan(&[Stage { rules: &rules, direction, named: false }], &header, &options).ok()?;
    let dropped = plan.dropped.iter().filter_map(|dropped| match &dropped.reason {
        DropReason::Rule(rule) => Some(*rule),
        _ => None,
    });
    let by_target = plan.targets.iter().flat_map(|target| target.rules.iter().copied());
    let planned = Way {
        results: plan.targets.iter().map(|target| target.key.as_str().to_owned()).collect(),
        by: by_target.chain(dropped).map(|id| plan.rules[id.0 as usize].text.clone()).collect(),
    };
    let parameters = IndexMap::new();
    let environment = Environment {
        config: Some(&config),
        tied: None,
        parameters: &parameters,
        exists: &unknown_layout,
        facts: &unknown_facts,
        captures: Captures::NONE,
    };
    let traces = trace(&rules, direction, &[key.to_owned()], &environment);
    let [traced] = &traces[..] else { panic!("nothing is left open here") };
    let mut by: Vec<String> = traced.hits.iter().map(|hit| hit.text.clone()).collect();
    // Of a key that is dropped, the plan keeps only what dropped it.
    if traced.results.is_empty() {
        by.drain(..by.len().saturating_sub(1));
    }
    Some((planned, Way { results: traced.results.iter().cloned().collect(), by }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, max_global_rejects: 30_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_key_goes_the_way_that_its_trace_tells(
        text in file(), other in statements(), key in any_key(), backwards in any::<bool>(),
    ) {
        let direction = if backwards { Direction::Reverse } else { Direction::Forward };
        let Some((planned, traced)) = compared(&text, &other, &key, direction) else {
            return Err(TestCaseError::reject("no rules, or no plan"));
        };
        prop_assert_eq!(planned, traced, "{}, {:?}, of\n{}with\n{}", key, direction, text, other);
    }
}
