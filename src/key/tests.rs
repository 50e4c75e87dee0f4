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
                        Atom::Calculated { .. } => unreachable!("not among the sketches"),
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
    Wide(&'static str, &'static str),
    Rest,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let text = || prop::sample::select(vec!["", "a", "b", "ab", "é"]);
    prop_oneof![
        3 => prop::sample::select(vec!["a", "b", "ab", "0", "12", "é"]).prop_map(Sketch::Literal),
        1 => (text(), text()).prop_map(|(before, after)| Sketch::Index(before, after)),
        1 => (text(), text()).prop_map(|(before, after)| Sketch::Chars(before, after)),
        1 => text().prop_map(Sketch::Words),
        1 => (text(), text()).prop_map(|(before, after)| Sketch::Wide(before, after)),
        2 => Just(Sketch::Rest),
    ]
}

const NARROW: [&str; 3] = ["a", "ab", "b"];
const WIDE: [&str; 4] = ["a", "a.b", "b.12.a", "b"];

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
            Sketch::Wide(before, after) => {
                atoms(before, Atom::Words { slot, words: WIDE.map(Into::into).into() }, after)
            }
            Sketch::Words(before) => {
                atoms(before, Atom::Words { slot, words: NARROW.map(Into::into).into() }, "")
            }
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
                Binding::Word(which) => {
                    let wide = matches!(sketches[usize::from(slot.0)], Sketch::Wide(..));
                    let words = if wide { &WIDE[..] } else { &NARROW[..] };
                    prop_assert_eq!(words[usize::from(*which)], text)
                }
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
    let pattern =
        pattern.with_numbers(&Numbers { ranges: vec![Some(2..4)], calculated: Vec::new() });
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
    let start = cpu_time::ThreadTime::now();
    assert!(matched(&pattern, &key).is_none());
    // All ways to divide it took seconds, in a build that is optimized.
    let took = start.elapsed().as_secs_f64();
    assert!(took < 2.0, "{took}");
    assert!(matched(&pattern, &format!("{key}.y")).is_some());
    let words = |slot| Atom::Words { slot: Slot(slot), words: ["a".into(), "aa".into()].into() };
    let pattern = Pattern::new(vec![Part::Segment(
        (0..30).map(words).chain([Atom::Text("!".into())]).collect(),
    )]);
    assert!(matched(&pattern, &"a".repeat(45)).is_none());
    assert!(matched(&pattern, &format!("{}!", "a".repeat(45))).is_some());
    let took = start.elapsed().as_secs_f64();
    assert!(took < 4.0, "{took}");
    // One that stands twice must agree: what failed after one binding may fit after another.
    let twice = Pattern::new(vec![rest(0), rest(1), rest(2), rest(0), Part::Literal("y".into())]);
    assert!(matched(&twice, "a.b.c.a.y").is_some() && matched(&twice, "a.b.a.b.y").is_some());
}

/// All that captures of bounded terms can hold, each with the number that it gives.
fn all_choices(terms: &[Term], add: i64) -> Vec<(Vec<u64>, i64)> {
    terms.iter().fold(vec![(Vec::new(), add)], |found, term| {
        let range = term.range.clone().unwrap_or(0..0);
        let with = |(held, sum): &(Vec<u64>, i64)| {
            let (held, sum) = (held.clone(), *sum);
            let add = move |value: u64| {
                let held = held.iter().copied().chain([value]).collect();
                (held, sum + term.factor * i64::try_from(value).unwrap())
            };
            range.clone().map(add).collect::<Vec<_>>()
        };
        found.iter().flat_map(with).collect()
    })
}

proptest! {
    /// A sum that can be solved gives back what each capture held, and takes nothing else; one that
    /// is refused has two choices of one number, or might have.
    #[test]
    fn sums_are_solved_for_their_captures(
        terms in prop::collection::vec((-12i64..13, 0u64..4, 0u64..5), 0..4),
        add in -9i64..10,
    ) {
        let terms: Vec<Term> = (0u16..)
            .map(Slot)
            .zip(terms)
            .map(|(slot, (factor, start, count))| Term { slot, factor, range: Some(start..start + count) })
            .collect();
        let choices = all_choices(&terms, add);
        let mut numbers: Vec<i64> = choices.iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        let differ = numbers.windows(2).all(|pair| pair[0] != pair[1]);
        let Some(sum) = Sum::new(terms.clone(), add) else {
            // What is refused is at most too careful: a factor that adds as much as the others
            // together.
            let factors = terms.iter().map(|term| term.factor);
            prop_assert!(!differ || terms.len() > 1 || factors.into_iter().any(|one| one == 0));
            return Ok(());
        };
        prop_assert!(differ, "{terms:?}");
        let atom = Atom::Calculated { which: 0, slots: [].into(), number: Number::Sum(sum) };
        let pattern = Pattern::new(vec![Part::Segment([atom].into())]);
        for number in 0..120i64 {
            let key = number.to_string();
            let (mut segments, mut bindings) = (Segments::default(), Bindings::new(terms.len()));
            segments.split(&key);
            let fits = pattern.matches(&key, &segments, &mut bindings);
            let held: Option<&Vec<u64>> =
                choices.iter().find(|(_, sum)| *sum == number).map(|(held, _)| held);
            prop_assert_eq!(fits, held.is_some(), "{} of {:?}", number, terms);
            for (slot, value) in (0u16..).map(Slot).zip(held.into_iter().flatten()) {
                prop_assert_eq!(bindings.index(slot), Some(*value));
            }
            if fits {
                prop_assert_eq!(pattern.render("", &bindings), Some(key.clone()));
            }
        }
    }
}

#[test]
fn a_sum_with_one_capture_that_is_not_bounded_is_solved() {
    let term = |slot, factor, range| Term { slot: Slot(slot), factor, range };
    let sum = Sum::new(vec![term(0, 3, None), term(1, 1, Some(0..2))], 1).unwrap();
    let held: Vec<Option<Vec<(Slot, u64)>>> = (0..6).map(|number| sum.solve(number)).collect();
    let is = |block, which| Some(vec![(Slot(0), block), (Slot(1), which)]);
    assert_eq!(held, [None, is(0, 0), is(0, 1), None, is(1, 0), is(1, 1)]);
    // Falling: 5 - 2b + r
    let sum = Sum::new(vec![term(0, -2, None), term(1, 1, Some(0..2))], 5).unwrap();
    assert_eq!(sum.solve(6), is(0, 1));
    assert_eq!(sum.solve(0), is(3, 1));
    assert_eq!(sum.solve(1), is(2, 0));
    assert_eq!(sum.solve(7), None);
    // Neither is bounded, or the smaller one reaches the greater factor.
    assert!(Sum::new(vec![term(0, 3, None), term(1, 1, None)], 0).is_none());
    assert!(Sum::new(vec![term(0, 3, None), term(1, 1, Some(0..4))], 0).is_none());
    let huge = term(0, i64::MIN, Some(0..u64::MAX));
    assert!(Sum::new(vec![huge], i64::MAX).unwrap().solve(u64::MAX).is_none());
}
