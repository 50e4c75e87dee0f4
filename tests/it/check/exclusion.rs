//! Whether two conditions can hold for one key, as `check` decides it (`RG205`), held against
//! trying every index.

use regraft::compile;

struct Random(u64);

impl Random {
    fn below(&mut self, n: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % n.unsigned_abs()) as i64
    }
}

/// A condition as it is written, and what it says of an index.
type Condition = (String, Box<dyn Fn(i64) -> bool>);

fn comparison(random: &mut Random) -> Condition {
    let (text, value): (String, Box<dyn Fn(i64) -> i64>) = match random.below(4) {
        0 => ("l".to_owned(), Box::new(|l| l)),
        1 => {
            let modulus = 2 + random.below(5);
            let shift = random.below(4);
            (format!("(l + {shift}) % {modulus}"), Box::new(move |l| (l + shift) % modulus))
        }
        2 => {
            let modulus = 2 + random.below(3);
            (format!("(7 - 2 * l) % {modulus}"), Box::new(move |l| (7 - 2 * l).rem_euclid(modulus)))
        }
        _ => {
            let modulus = 2 + random.below(4);
            (format!("l - 3 * (l % {modulus})"), Box::new(move |l| l - 3 * (l % modulus)))
        }
    };
    if random.below(7) == 0 {
        let (one, other) = (random.below(9) - 1, random.below(9));
        let holds = move |l| [one, other].contains(&value(l));
        return (format!("{text} in [{one}, {other}]"), Box::new(holds));
    }
    let other = random.below(9) - 1;
    let (sign, holds): (&str, fn(i64, i64) -> bool) = match random.below(6) {
        0 => ("==", |a, b| a == b),
        1 => ("!=", |a, b| a != b),
        2 => ("<", |a, b| a < b),
        3 => ("<=", |a, b| a <= b),
        4 => (">", |a, b| a > b),
        _ => (">=", |a, b| a >= b),
    };
    (format!("{text} {sign} {other}"), Box::new(move |l| holds(value(l), other)))
}

fn condition(random: &mut Random) -> Condition {
    let (text, one) = comparison(random);
    match random.below(4) {
        0 => (format!("not ({text})"), Box::new(move |l| !one(l))),
        1 => {
            let (more, other) = comparison(random);
            (format!("{text} and {more}"), Box::new(move |l| one(l) && other(l)))
        }
        2 => {
            let (more, other) = comparison(random);
            (format!("{text} or {more}"), Box::new(move |l| one(l) || other(l)))
        }
        _ => (text, one),
    }
}

#[test]
fn conditions_that_meet_are_told_from_those_that_exclude_each_other() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut seen = [0; 2];
    for _ in 0..1500 {
        let ((first, a), (second, b)) = (condition(&mut random), condition(&mut random));
        let mut affine = || (1 + random.below(3), random.below(4));
        let ((m, c), (n, d)) = (affine(), affine());
        let text = format!(
            "rename {{\n  \"l.{{l}}.a\" <-> \"x.{{{m}*l+{c}}}.z\" where {first}\n  \"l.{{l}}.b\" <-> \"x.{{{n}*l+{d}}}.z\" where {second}\n}}\n"
        );
        let index = |value: i64, m: i64, c: i64| {
            (value >= c && (value - c) % m == 0).then(|| (value - c) / m)
        };
        let meet = (0..2000)
            .any(|value| index(value, m, c).is_some_and(&a) && index(value, n, d).is_some_and(&b));
        let refused = match compile(&text) {
            Ok(_) => false,
            Err(found) => {
                assert!(found.0.iter().all(|one| one.code.to_string() == "RG205"), "{text}{found}");
                true
            }
        };
        assert_eq!(refused, meet, "{text}");
        seen[usize::from(meet)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 200), "{seen:?}");
}
