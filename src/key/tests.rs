//! Patterns against an independent matcher: each is also written as a regular expression, and both
//! must agree.

use proptest::prelude::*;

use super::*;

/// The pattern as a regex over the key with a dot at its end, so that each segment carries its own
/// dot.
fn as_regex(pattern: &Pattern) -> regex::Regex {
    let mut text = String::from("^");
    for part in pattern.parts() {
        match part {
            Part::Literal(literal) => text.push_str(&format!("{}\\.", regex::escape(literal))),
            Part::Rest(slot) => text.push_str(&format!("(?P<c{}>(?:[^.]*\\.)*?)", slot.0)),
            Part::Segment(atoms) => {
                for atom in atoms {
                    match atom {
                        Atom::Text(literal) => text.push_str(&regex::escape(literal)),
                        Atom::Index { slot, .. } => {
                            text.push_str(&format!("(?P<c{}>0|[1-9][0-9]*)", slot.0))
                        }
                        Atom::Chars(slot) => text.push_str(&format!("(?P<c{}>[^.]+?)", slot.0)),
                        Atom::Words { slot, words } => {
                            let words: Vec<String> =
                                words.iter().map(|word| regex::escape(word)).collect();
                            text.push_str(&format!("(?P<c{}>{})", slot.0, words.join("|")));
                        }
                    }
                }
                text.push_str("\\.");
            }
        }
    }
    text.push('$');
    regex::Regex::new(&text).unwrap()
}

#[derive(Clone, Debug)]
enum Sketch {
    Literal(&'static str),
    Index(&'static str, &'static str),
    Chars(&'static str, &'static str),
    Words(&'static str),
    Rest,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let text = || prop::sample::select(vec!["", "a", "b", "ab", "é"]);
    prop_oneof![
        3 => prop::sample::select(vec!["a", "b", "ab", "0", "12", "é"]).prop_map(Sketch::Literal),
        1 => (text(), text()).prop_map(|(before, after)| Sketch::Index(before, after)),
        1 => (text(), text()).prop_map(|(before, after)| Sketch::Chars(before, after)),
        1 => text().prop_map(Sketch::Words),
        2 => Just(Sketch::Rest),
    ]
}

fn build(sketches: &[Sketch]) -> Pattern {
    let mut parts = Vec::new();
    for (slot, sketch) in (0u16..).map(Slot).zip(sketches) {
        let atoms = |before: &str, atom: Atom, after: &str| {
            let mut atoms = vec![Atom::Text(before.into()), atom, Atom::Text(after.into())];
            atoms.retain(|atom| !matches!(atom, Atom::Text(text) if text.is_empty()));
            Part::Segment(atoms.into())
        };
        parts.push(match sketch {
            Sketch::Literal(text) => Part::Literal((*text).into()),
            Sketch::Index(before, after) => {
                atoms(before, Atom::Index { slot, mul: 1, add: 0, range: None }, after)
            }
            Sketch::Chars(before, after) => atoms(before, Atom::Chars(slot), after),
            Sketch::Words(before) => atoms(
                before,
                Atom::Words { slot, words: ["a", "ab", "b"].map(Into::into).into() },
                "",
            ),
            Sketch::Rest => Part::Rest(slot),
        });
    }
    Pattern::new(parts)
}

fn keys() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec![
            "a", "b", "ab", "aab", "0", "12", "01", "a0", "b12a", "é", "aéb", "",
        ]),
        1..6,
    )
    .prop_map(|segments| segments.join("."))
}

fn matched(pattern: &Pattern, key: &str) -> Option<Bindings> {
    let mut segments = Segments::default();
    segments.split(key);
    let mut bindings = Bindings::new(16);
    pattern.matches(key, &segments, &mut bindings).then_some(bindings)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn agrees_with_a_regex(sketches in prop::collection::vec(sketch(), 1..5), key in keys()) {
        let pattern = build(&sketches);
        let dotted = format!("{key}.");
        let regex = as_regex(&pattern);
        let expected = regex.captures(&dotted);
        let found = matched(&pattern, &key);
        prop_assert_eq!(found.is_some(), expected.is_some(), "{:?} on {:?}", pattern, key);
        let (Some(bindings), Some(expected)) = (found, expected) else { return Ok(()) };
        for slot in pattern.slots() {
            let text = &expected[format!("c{}", slot.0).as_str()];
            match bindings.get(slot) {
                Binding::Index(value) => prop_assert_eq!(value.to_string(), text),
                Binding::Word(which) => prop_assert_eq!(["a", "ab", "b"][usize::from(*which)], text),
                _ => prop_assert_eq!(bindings.text(slot, &key).unwrap(), text.strip_suffix('.').unwrap_or(text)),
            }
        }
        // A template is a pattern: the bindings of a match give the key back.
        if !key.split('.').any(str::is_empty) {
            prop_assert_eq!(pattern.render(&key, &bindings), Some(key.clone()));
        }
    }

    #[test]
    fn a_set_misses_nothing(sketches in prop::collection::vec(prop::collection::vec(sketch(), 1..4), 1..8), key in keys()) {
        let patterns: Vec<Pattern> = sketches.iter().map(|sketches| build(sketches)).collect();
        let set = PatternSet::new(&patterns);
        let mut segments = Segments::default();
        segments.split(&key);
        let mut candidates = Vec::new();
        set.candidates(&key, &segments, &mut candidates);
        prop_assert!(candidates.is_sorted());
        for (number, pattern) in (0u32..).zip(&patterns) {
            prop_assert!(matched(pattern, &key).is_none() || candidates.contains(&number), "{:?}", pattern);
        }
    }

    #[test]
    fn affine_indices_solve_what_they_render(mul in 1i64..5, add in -3i64..4, value in 0u64..20) {
        let pattern = Pattern::new(vec![Part::Segment([Atom::Index { slot: Slot(0), mul, add, range: None }].into())]);
        let mut bindings = Bindings::new(1);
        bindings.set(Slot(0), Binding::Index(value));
        match pattern.render("", &bindings) {
            Some(key) => prop_assert_eq!(matched(&pattern, &key).unwrap().index(Slot(0)), Some(value)),
            None => prop_assert!(mul * i64::try_from(value).unwrap() + add < 0),
        }
    }

    #[test]
    fn natural_order_is_an_order(a in "[a.0-9]{0,6}", b in "[a.0-9]{0,6}", c in "[a.0-9]{0,6}") {
        use std::cmp::Ordering::{Equal, Greater, Less};
        prop_assert_eq!(natural_order(&a, &b), natural_order(&b, &a).reverse());
        prop_assert_eq!(natural_order(&a, &b) == Equal, a == b);
        if natural_order(&a, &b) == Less && natural_order(&b, &c) == Less {
            prop_assert_ne!(natural_order(&a, &c), Greater);
        }
    }
}

#[test]
fn numbers_order_by_value() {
    let mut keys = vec!["l.10.a", "l.9.a", "l.9.b", "l.09.a", "l", "l.100000000000000000000000.a"];
    keys.sort_by(|a, b| natural_order(a, b));
    assert_eq!(keys, ["l", "l.09.a", "l.9.a", "l.9.b", "l.10.a", "l.100000000000000000000000.a"]);
}

#[test]
fn ranges_bound_indices() {
    let pattern = Pattern::new(vec![Part::Segment(
        [Atom::Index { slot: Slot(0), mul: 1, add: 0, range: None }].into(),
    )]);
    let pattern = pattern.with_ranges(&[Some(2..4)]);
    let matching: Vec<u64> =
        (0..6).filter(|value| matched(&pattern, &value.to_string()).is_some()).collect();
    assert_eq!(matching, [2, 3]);
}

#[test]
fn huge_numbers_and_empty_keys_match_nothing() {
    let pattern = Pattern::new(vec![Part::Segment(
        [Atom::Index { slot: Slot(0), mul: 2, add: -7, range: None }].into(),
    )]);
    for key in ["", "99999999999999999999999999", "18446744073709551615", "x"] {
        assert!(matched(&pattern, key).is_none(), "{key}");
    }
}

#[test]
fn reach_tells_where_a_match_stopped() {
    let pattern = Pattern::new(vec![
        Part::Literal("model".into()),
        Part::Segment([Atom::Index { slot: Slot(0), mul: 1, add: 0, range: None }].into()),
        Part::Literal("mlp".into()),
    ]);
    let mut segments = Segments::default();
    segments.split("model.3.attn");
    assert_eq!(pattern.reach("model.3.attn", &segments, 1), Reach { parts: 2, segment: 2 });
}

#[test]
fn many_ways_to_divide_a_key_take_no_long_time() {
    let rest = |slot| Part::Rest(Slot(slot));
    let pattern = Pattern::new(vec![rest(0), rest(1), rest(2), rest(3), Part::Literal("y".into())]);
    let key = vec!["x"; 1024].join(".");
    let start = std::time::Instant::now();
    assert!(matched(&pattern, &key).is_none());
    // All ways to divide it took seconds, in a build that is optimized.
    assert!(start.elapsed().as_secs_f64() < 2.0, "{:?}", start.elapsed());
    assert!(matched(&pattern, &format!("{key}.y")).is_some());
    let words = |slot| Atom::Words { slot: Slot(slot), words: ["a".into(), "aa".into()].into() };
    let pattern = Pattern::new(vec![Part::Segment(
        (0..30).map(words).chain([Atom::Text("!".into())]).collect(),
    )]);
    assert!(matched(&pattern, &"a".repeat(45)).is_none());
    assert!(matched(&pattern, &format!("{}!", "a".repeat(45))).is_some());
    assert!(start.elapsed().as_secs_f64() < 4.0, "{:?}", start.elapsed());
    // One that stands twice must agree: what failed after one binding may fit after another.
    let twice = Pattern::new(vec![rest(0), rest(1), rest(2), rest(0), Part::Literal("y".into())]);
    assert!(matched(&twice, "a.b.c.a.y").is_some() && matched(&twice, "a.b.a.b.y").is_some());
}
