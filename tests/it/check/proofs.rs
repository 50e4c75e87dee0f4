//! What `check --proofs` says of the shipped rules, held against the planner: a key that is said to
//! be rewritten twice is, and what is proven holds for keys that are made up to break it.

use std::collections::HashSet;
use std::sync::OnceLock;

use indexmap::IndexMap;
use rayon::prelude::*;
use regraft::check::reading::Reading;
use regraft::check::value::{Captures, Environment, unknown_facts, unknown_layout};
use regraft::check::{Idempotence, Rule, Rules, SideItem, Twice, idempotence};
use regraft::key::{Atom, Bindings, Part, Pattern, Segments};
use regraft::plan::{Hit, PlanOptions, Stage, plan, trace};
use regraft::tensor::{Dtype, Header, TensorInfo};
use regraft::{Direction, library};

type Proof = (&'static str, &'static Rules, Idempotence);

fn proofs() -> &'static [Proof] {
    static PROOFS: OnceLock<Vec<Proof>> = OnceLock::new();
    PROOFS.get_or_init(|| {
        let names: Vec<&str> = library::names().collect();
        names
            .into_par_iter()
            .map(|name| {
                (name, library::rules(name).unwrap(), idempotence(library::rules(name).unwrap()))
            })
            .collect()
    })
}

/// What the planner makes of one key; `None` where it asks for a config.
fn planned(rules: &Rules, key: &str) -> Option<(String, usize)> {
    let header = Header::from_infos([(key.into(), TensorInfo::new(Dtype::F32, vec![4, 4]))]);
    match plan(
        &[Stage { rules, direction: Direction::Forward, named: false }],
        &header,
        &PlanOptions::default(),
    ) {
        Ok(plan) => {
            let keys: Vec<&str> = plan.targets.iter().map(|target| target.key.as_str()).collect();
            assert_eq!(keys.len(), 1, "{key} becomes {keys:?}");
            Some((keys[0].to_owned(), plan.targets[0].rules.len()))
        }
        Err(found) => {
            let asks = found.0.iter().all(|one| {
                !one.is_error() || ["RG209", "RG213"].contains(&one.code.to_string().as_str())
            });
            assert!(asks, "{key}: {found}");
            None
        }
    }
}

/// What one key becomes, and by how many rules, by keys alone; `None` if that hangs on more than
/// keys.
fn followed(rules: &Rules, key: &str) -> Option<(String, Vec<Hit>)> {
    let parameters = IndexMap::new();
    let environment = Environment {
        config: None,
        tied: None,
        parameters: &parameters,
        exists: &unknown_layout,
        facts: &unknown_facts,
        captures: Captures::NONE,
    };
    let traces = trace(rules, Direction::Forward, &[key.to_owned()], &environment);
    match &traces[..] {
        [one] if one.results.len() == 1 && !one.open => {
            Some((one.results[0].clone(), one.hits.clone()))
        }
        _ => None,
    }
}

#[test]
fn what_is_said_to_be_rewritten_twice_is() {
    let (mut by_plan, mut by_trace) = (0, 0);
    for (name, rules, proof) in proofs() {
        let (Idempotence::Refuted(found) | Idempotence::Proven { except: Some(found), .. }) = proof
        else {
            continue;
        };
        let Twice { key, once, twice } = found;
        let (first, second) = match (planned(rules, key), planned(rules, once)) {
            (Some(first), Some(second)) => {
                by_plan += 1;
                (first, second)
            }
            _ => {
                by_trace += 1;
                let followed =
                    |key: &str| followed(rules, key).map(|(key, hits)| (key, hits.len())).unwrap();
                (followed(key), followed(once))
            }
        };
        assert_eq!((&first.0, &second.0), (once, twice), "{name}");
        assert!(first.1 > 0 && second.1 > 0, "{name}: `{key}` is not rewritten twice");
    }
    assert!(by_plan > 150 && by_trace < 20, "{by_plan} planned, {by_trace} followed");
}

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }
}

/// The rules that are read forwards.
fn rewrites(rules: &Rules) -> Vec<&Rule> {
    Reading::of(rules, Direction::Forward).rules().into_iter().map(|read| read.rule).collect()
}

/// The literal segments and words of a pattern.
fn names(pattern: &Pattern) -> Vec<String> {
    let names = pattern.parts().iter().flat_map(|part| match part {
        Part::Literal(text) => vec![text.to_string()],
        Part::Segment(atoms) => atoms
            .iter()
            .flat_map(|atom| {
                if let Atom::Words { words, .. } = atom {
                    words.iter().map(|word| word.to_string()).collect()
                } else {
                    Vec::new()
                }
            })
            .collect(),
        Part::Rest(_) => Vec::new(),
    });
    names.collect()
}

fn patterns(sides: &[regraft::check::Side]) -> impl Iterator<Item = &Pattern> {
    sides.iter().filter_map(|side| {
        if let SideItem::Pattern(pattern) = &side.item { Some(pattern) } else { None }
    })
}

/// Whether the captures of a rule that took a key hold nothing that any source of the file names,
/// but for a `weight` or `bias` at its end.
fn is_plain(rewrites: &[&Rule], hit: &Hit) -> bool {
    let named: HashSet<String> =
        rewrites.iter().flat_map(|rule| patterns(&rule.left)).flat_map(names).collect();
    let Some(rule) = rewrites.iter().find(|rule| rule.text == hit.text) else { return false };
    let mut segments = Segments::default();
    segments.split(&hit.key);
    patterns(&rule.left).any(|pattern| {
        let mut bindings = Bindings::new(rule.captures.len());
        pattern.matches(&hit.key, &segments, &mut bindings)
            && pattern.slots().iter().all(|slot| {
                let text = bindings.text(*slot, &hit.key).unwrap_or_default();
                let leaf = [".weight", ".bias"]
                    .iter()
                    .find_map(|leaf| text.strip_suffix(leaf).filter(|_| hit.key.ends_with(text)));
                !leaf.unwrap_or(text).split('.').any(|segment| named.contains(segment))
            })
    })
}

/// A key that a pattern matches, with captures filled from `words`.
fn key_of(pattern: &Pattern, words: &[String], numbers: &mut Numbers) -> String {
    let mut segments: Vec<String> = Vec::new();
    for part in pattern.parts() {
        match part {
            Part::Literal(text) => segments.push(text.to_string()),
            Part::Rest(_) => (0..numbers.below(4))
                .for_each(|_| segments.push(words[numbers.below(words.len())].clone())),
            Part::Segment(atoms) => segments.push(
                atoms
                    .iter()
                    .map(|atom| match atom {
                        Atom::Text(text) => text.to_string(),
                        Atom::Index { mul, add, .. } => {
                            (i64::try_from(numbers.below(4)).unwrap() * mul + add)
                                .max(0)
                                .to_string()
                        }
                        Atom::Calculated { .. } => numbers.below(4).to_string(),
                        Atom::Chars(_) => words[numbers.below(words.len())].clone(),
                        Atom::Words { words, .. } => words[numbers.below(words.len())].to_string(),
                    })
                    .collect(),
            ),
        }
    }
    segments.join(".")
}

#[test]
fn what_is_proven_holds_for_made_up_keys() {
    let fresh = ["aa", "bb0", "3", "zz_"].map(str::to_owned).to_vec();
    let followed: usize = proofs()
        .par_iter()
        .map(|(name, rules, proof)| {
            let Idempotence::Proven { plain, .. } = proof else { return 0 };
            let rewrites = rewrites(rules);
            // For every key: then the names of the rules are what breaks a proof that is wrong.
            let mut words = fresh.clone();
            if !plain {
                words.extend(
                    rewrites
                        .iter()
                        .flat_map(|rule| patterns(&rule.left).chain(patterns(&rule.right)))
                        .flat_map(names),
                );
            }
            let mut numbers = Numbers(17);
            let mut count = 0;
            for rule in rewrites.iter().cycle().take(100.max(rewrites.len())) {
                for pattern in patterns(&rule.left) {
                    let key = key_of(pattern, &words, &mut numbers);
                    let Some((once, hits)) = self::followed(rules, &key) else { continue };
                    if *plain && !hits.iter().all(|hit| is_plain(&rewrites, hit)) {
                        continue;
                    }
                    let Some((twice, hits)) = self::followed(rules, &once) else { continue };
                    assert!(
                        hits.is_empty(),
                        "{name}: `{key}` becomes `{once}`, and that `{twice}`"
                    );
                    count += 1;
                }
            }
            count
        })
        .sum();
    assert!(followed > 10_000, "only {followed} keys were followed");
}
