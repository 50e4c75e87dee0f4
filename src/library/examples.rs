//! The `example`s of a rule file: keys are followed through its statements, and must come out as
//! written.
//!
//! An example of `<->` must hold both ways. Where one key becomes keys that can't be named, since a
//! tensor is parted into as many as its shape says, the other way decides. Conditions that ask for
//! a config are tried both ways: an example holds if it holds for some answer.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use crate::check::value::{Captures, Environment, unknown_facts, unknown_layout};
use crate::check::{Direction, Example, Rules};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::EXAMPLE_FAILED;
use crate::plan::{Trace, trace};
use crate::syntax::ast::Arrow;

/// A finding for each `example` of a rule file that doesn't hold.
pub fn check_examples(rules: &Rules) -> Vec<Diagnostic> {
    let parameters = IndexMap::new();
    let environment = Environment {
        config: None,
        tied: None,
        parameters: &parameters,
        exists: &unknown_layout,
        facts: &unknown_facts,
        captures: Captures::NONE,
    };
    rules
        .examples
        .iter()
        .filter_map(|example| check_example(rules, example, &environment))
        .collect()
}

fn check_example(
    rules: &Rules,
    example: &Example,
    environment: &Environment<'_>,
) -> Option<Diagnostic> {
    let ways = [
        (Direction::Forward, &example.left, &example.right),
        (Direction::Reverse, &example.right, &example.left),
    ];
    for (direction, from, to) in ways {
        if direction == Direction::Reverse && example.arrow == Arrow::OneWay {
            break;
        }
        let traces = trace(rules, direction, from, environment);
        if !traces.iter().any(|trace| agrees(trace, to)) {
            return Some(failed(example, direction, to, &traces));
        }
    }
    None
}

/// Whether a trace gives these keys; those of them that it can name, where it can't name all.
fn agrees(trace: &Trace, keys: &[String]) -> bool {
    let results: BTreeSet<&String> = trace.results.iter().collect();
    let keys: BTreeSet<&String> = keys.iter().collect();
    if trace.open { results.is_subset(&keys) } else { results == keys }
}

fn failed(
    example: &Example,
    direction: Direction,
    keys: &[String],
    traces: &[Trace],
) -> Diagnostic {
    let list = |keys: &[String]| match keys {
        [] => "nothing".to_owned(),
        keys => keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "),
    };
    let backwards = if direction == Direction::Reverse { " read backwards" } else { "" };
    let message = format!("this example doesn't hold{backwards}: expected {}", list(keys));
    let mut found: Vec<String> = traces.iter().map(|trace| list(&trace.results)).collect();
    found.sort_unstable();
    found.dedup();
    let label = format!("gives {}", found.join(" or "));
    let mut finding = Diagnostic::error(EXAMPLE_FAILED, message).at(example.place.clone(), label);
    let mut seen = BTreeSet::new();
    for hit in traces.iter().flat_map(|trace| &trace.hits) {
        if seen.insert(hit.place.span.start) && seen.len() <= 5 {
            finding = finding.label(hit.place.clone(), format!("took `{}`", hit.key));
        }
    }
    if seen.is_empty() {
        finding = finding.hint("no rule took these keys");
    }
    finding
}

#[cfg(test)]
mod tests {
    use crate::library::{check_examples, compile};

    /// The messages of the examples that fail.
    fn failures(text: &str) -> Vec<String> {
        check_examples(&compile(text).unwrap()).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn renames_hold_both_ways() {
        let rules = "rename \"a.{l}.x\" <-> \"b.{l+1}.y\"\n";
        assert!(failures(&format!("{rules}example \"a.3.x\" <-> \"b.4.y\"")).is_empty());
        assert_eq!(failures(&format!("{rules}example \"a.3.x\" <-> \"b.3.y\"")).len(), 1);
        assert_eq!(failures(&format!("{rules}example \"a.3.z\" <-> \"b.4.y\"")).len(), 1);
    }

    #[test]
    fn the_way_back_is_checked_too() {
        // Forward both keys become b.x, but backwards b.x is a.x alone.
        let rules = "rename \"c.x\" -> \"a.x\"\nrename \"a.x\" <-> \"b.x\"\n";
        assert!(failures(&format!("{rules}example \"c.x\" -> \"b.x\"")).is_empty());
        let found = failures(&format!("{rules}example \"c.x\" <-> \"b.x\""));
        assert!(found[0].contains("read backwards"), "{found:?}");
    }

    #[test]
    fn a_stack_is_followed_to_what_it_gives() {
        let rules = "map \"{p**}.e.{e}.w1\", \"{p**}.e.{e}.w3\" <-> \"{p**}.gate_up\" via stack(e) | concat(1)\n";
        assert!(
            failures(&format!("{rules}example \"l.0.e.7.w1\", \"l.0.e.7.w3\" <-> \"l.0.gate_up\""))
                .is_empty()
        );
        assert_eq!(
            failures(&format!("{rules}example \"l.0.e.7.w1\" <-> \"l.1.gate_up\"")).len(),
            1
        );
    }

    #[test]
    fn a_split_names_every_part() {
        let rules = "map \"{p**}.qkv\" <-> \"{p**}.q\", \"{p**}.k\", \"{p**}.v\" via split(0)\n";
        assert!(
            failures(&format!("{rules}example \"a.qkv\" <-> \"a.q\", \"a.k\", \"a.v\"")).is_empty()
        );
        assert_eq!(failures(&format!("{rules}example \"a.qkv\" <-> \"a.q\", \"a.k\"")).len(), 1);
    }

    #[test]
    fn drops_strips_and_conditions() {
        assert!(failures("drop \"rope.freqs\"\nexample \"rope.freqs\" ->").is_empty());
        assert_eq!(failures("drop \"rope.freqs\" optional\nexample \"rope.freq\" ->").len(), 1);
        let wrappers = "strip anywhere \"_orig_mod\"\nstrip leading \"module\"\n";
        assert!(
            failures(&format!("{wrappers}example \"module.module.a._orig_mod.b\" -> \"a.b\""))
                .is_empty()
        );
        let swaps = "when config.old { rename \"a\" <-> \"b\" } else { rename \"a\" <-> \"c\" }\n";
        assert!(
            failures(&format!("{swaps}example \"a\" <-> \"b\"\nexample \"a\" <-> \"c\""))
                .is_empty()
        );
        assert_eq!(failures(&format!("{swaps}example \"a\" <-> \"d\"")).len(), 1);
        let every_fourth = "rename \"l.{l}.a\" <-> \"l.{l}.b\" where l % 4 == 3\n";
        assert!(
            failures(&format!(
                "{every_fourth}example \"l.7.a\" <-> \"l.7.b\"\nexample \"l.4.a\" <-> \"l.4.a\""
            ))
            .is_empty()
        );
        assert_eq!(failures(&format!("{every_fourth}example \"l.6.a\" <-> \"l.6.b\"")).len(), 1);
    }

    #[test]
    fn an_unless_and_a_group_hold() {
        let rules = "rename { \"a\" <-> \"b\"\n \"b\" <-> \"a\" }\nrename \"{x**}.w\" <-> \"{x**}.v\" unless \"keep.**\"\n";
        assert!(failures(&format!("{rules}example \"a\" <-> \"b\"\nexample \"b\" <-> \"a\"\nexample \"k.w\" <-> \"k.v\"")).is_empty());
        assert!(failures(&format!("{rules}example \"keep.w\" -> \"keep.w\"")).is_empty());
    }
}
