//! The text of a proposal: rules that say the same of several words are one rule.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::Proposal;
use super::family::{Family, Part, Side};
use super::fit::Way;
use super::join::Join;
use super::pair::{Found, Pair};
use super::words::{leaf, meanings};
use crate::diagnostic::SourceText;
use crate::key::Key;
use crate::syntax::{parse, print};

/// Most keys of a kind that a comment names.
const NAMED: usize = 20;

/// A segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Words(Vec<String>),
    /// A number, by its place among those of the source.
    Index(usize),
}

/// A rule with one pattern on each side.
#[derive(Clone, Debug)]
struct Rule {
    left: Vec<Segment>,
    right: Vec<Segment>,
    way: Way,
    rivals: BTreeSet<String>,
}

pub(super) fn proposal(sources: &Side, targets: &Side, found: &Found, name: &str) -> Proposal {
    let (left, missing) = (sources.rest(), targets.rest());
    let separator = sources.separator;
    let (sources, targets) = (&sources.families[..], &targets.families[..]);
    let mut rules: Vec<Rule> = found
        .pairs
        .iter()
        .filter(|pair| {
            pair.way != Way::Rename || sources[pair.source].parts != targets[pair.target].parts
        })
        .filter(|pair| plain(&sources[pair.source]) && plain(&targets[pair.target]))
        .map(|pair| rule(pair, sources, targets))
        .collect();
    while merge(&mut rules) {}
    let mut text = format!(
        "## Put together by `regraft new` from two lists of keys: names, numbers and shapes.\n## Shapes can't tell a permutation of rows, or two tensors of one shape, apart: read it.\nruleset {name}: source <-> target\n"
    );
    if separator != '.' {
        let _ = writeln!(text, "separator \"{separator}\"");
    }
    let (mut count, mut unsure) = (0, 0);
    for rule in &rules {
        text.push('\n');
        if !rule.rivals.is_empty() {
            unsure += 1;
            let _ = writeln!(text, "# unsure: {} would fit as well", names(&rule.rivals));
        }
        count += 1;
        write_rule(&mut text, rule);
    }
    let joins: Vec<&Join> = found
        .joins
        .iter()
        .filter(|join| {
            let (many, one) = sides(join, sources, targets);
            join.many.iter().all(|at| plain(&many[*at])) && plain(&one[join.one])
        })
        .collect();
    for join in joins {
        let (many, one) = sides(join, sources, targets);
        text.push_str("\n# unsure: the order of the parts is a guess\n");
        (count, unsure) = (count + 1, unsure + 1);
        write_join(&mut text, join, many, one);
    }
    for (what, keys) in
        [("keys that nothing is known of", &left), ("keys that nothing becomes", &missing)]
    {
        comment(&mut text, what, keys);
    }
    let ties = perhaps_tied(targets, &missing);
    if !ties.is_empty() {
        text.push_str("\n# perhaps tied: embeddings that the model has once\n");
        ties.iter().for_each(|tie| {
            let _ = writeln!(text, "#   {tie}");
        });
    }
    Proposal { text: formatted(text), rules: count, unsure, left, missing }
}

/// Ties of keys that nothing becomes with embeddings of their shape.
fn perhaps_tied(targets: &[Family], missing: &[Key]) -> Vec<String> {
    let whole = |family: &&Family| family.arity() == 0 && plain(family) && leaf(family).is_some();
    let missing: HashSet<&Key> = missing.iter().collect();
    let is_missing = |family: &Family| family.keys.iter().all(|key| missing.contains(key));
    let shape = |family: &Family| family.shape().filter(|shape| shape.len() == 2).cloned();
    let mut ties = Vec::new();
    for family in targets.iter().filter(whole).filter(|family| is_missing(family)) {
        let source = targets.iter().filter(whole).find(|other| {
            let embeds = meanings(other).contains("embed");
            embeds && !is_missing(other) && shape(other).is_some() && shape(other) == shape(family)
        });
        let keys = source.and_then(|source| family.keys.first().zip(source.keys.first()));
        ties.extend(keys.map(|(key, source)| format!("tie \"{key}\" from \"{source}\"")));
    }
    ties
}

fn sides<'f>(
    join: &Join,
    sources: &'f [Family],
    targets: &'f [Family],
) -> (&'f [Family], &'f [Family]) {
    if join.forwards { (sources, targets) } else { (targets, sources) }
}

/// Whether every segment can stand in a pattern as it is.
fn plain(family: &Family) -> bool {
    family.words().all(|word| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    })
}

fn names(keys: &BTreeSet<String>) -> String {
    let mut shown: Vec<String> = keys.iter().take(3).map(|key| format!("\"{key}\"")).collect();
    if keys.len() > shown.len() {
        shown.push(format!("{} more", keys.len() - shown.len()));
    }
    shown.join(", ")
}

fn comment(text: &mut String, what: &str, keys: &[Key]) {
    if keys.is_empty() {
        return;
    }
    let _ = write!(text, "\n# {what}:\n");
    for key in keys.iter().take(NAMED) {
        let _ = writeln!(text, "#   {}", crate::diagnostic::plain::one_line(key.as_str()));
    }
    if keys.len() > NAMED {
        let _ = writeln!(text, "#   and {} more", keys.len() - NAMED);
    }
}

/// As `regraft fmt` has it; what can't be parsed stays as it is.
fn formatted(text: String) -> String {
    let source = Arc::new(SourceText { name: "proposal".to_owned(), text });
    let parsed = parse(Arc::clone(&source));
    if parsed.diagnostics.is_empty() { print(&parsed.file) } else { source.text.clone() }
}

fn rule(pair: &Pair, sources: &[Family], targets: &[Family]) -> Rule {
    let (source, target) = (&sources[pair.source], &targets[pair.target]);
    // Numbers are named by the side that has all of them.
    let (of_source, of_target) = match pair.way {
        Way::Stack { index, .. } | Way::Concat { index, .. } => (None, Some(index)),
        Way::Unstack { index, .. } | Way::Split { index, .. } => (Some(index), None),
        _ => (None, None),
    };
    let (left, right) = (segments(&source.parts, of_source), segments(&target.parts, of_target));
    let rivals = pair.rival.iter().filter_map(|at| sources[*at].keys.first());
    let rivals = rivals.map(|key| key.as_str().to_owned()).collect();
    Rule { left, right, way: pair.way.clone(), rivals }
}

/// The segments of a pattern whose numbers are all but one of those that there are.
fn segments(parts: &[Part], without: Option<usize>) -> Vec<Segment> {
    let mut number = 0;
    parts
        .iter()
        .map(|part| match part {
            Part::Word(word) => Segment::Words(vec![word.clone()]),
            Part::Index => {
                if without == Some(number) {
                    number += 1;
                }
                number += 1;
                Segment::Index(number - 1)
            }
        })
        .collect()
}

/// Makes one rule of two that differ in one word on each side; `false` if no two do.
fn merge(rules: &mut Vec<Rule>) -> bool {
    for a in 0..rules.len() {
        for b in a + 1..rules.len() {
            if let Some(both) = merged(&rules[a], &rules[b]) {
                rules[a] = both;
                rules.remove(b);
                return true;
            }
        }
    }
    false
}

fn merged(a: &Rule, b: &Rule) -> Option<Rule> {
    if a.way != b.way {
        return None;
    }
    let (left, right) = (differs(&a.left, &b.left)?, differs(&a.right, &b.right)?);
    let words = |side: &[Segment], at: usize| match side.get(at) {
        Some(Segment::Words(words)) => Some(words.clone()),
        _ => None,
    };
    let mut from = words(&a.left, left)?;
    let mut to = words(&a.right, right)?;
    let (more_from, more_to) = (words(&b.left, left)?, words(&b.right, right)?);
    // Words of one capture are pairs: as many on both sides.
    if from.len() != to.len() || more_from.len() != more_to.len() {
        return None;
    }
    // A word that another place of the rule has several of is that place's capture.
    let single = |side: &[Segment], at: usize| {
        side.iter().enumerate().all(|(place, segment)| {
            place == at || !matches!(segment, Segment::Words(words) if words.len() > 1)
        })
    };
    let grows = from.len() > 1 || more_from.len() > 1;
    let first = single(&a.left, left) && single(&a.right, right);
    if !(grows || first) {
        return None;
    }
    let double = |known: &[String], more: &[String]| more.iter().any(|word| known.contains(word));
    if double(&from, &more_from) || double(&to, &more_to) {
        return None;
    }
    from.extend(more_from);
    to.extend(more_to);
    let mut both = a.clone();
    both.left[left] = Segment::Words(from);
    both.right[right] = Segment::Words(to);
    both.rivals.extend(b.rivals.iter().cloned());
    Some(both)
}

/// The one place in which two sides differ.
fn differs(a: &[Segment], b: &[Segment]) -> Option<usize> {
    if a.len() != b.len() {
        return None;
    }
    let mut places = (0..a.len()).filter(|at| a[*at] != b[*at]);
    let first = places.next()?;
    places.next().is_none().then_some(first)
}

/// Names for the numbers of a rule, by the word before each.
fn numbers(side: &[Segment]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut before = "";
    for segment in side {
        match segment {
            Segment::Words(words) => before = words.first().map_or("", String::as_str),
            Segment::Index(_) => {
                let wish = match before.to_ascii_lowercase() {
                    word if word.contains("expert") => "e",
                    word if word.contains("layer") || word.contains("block") || word == "h" => "l",
                    _ => "i",
                };
                let mut free = [wish, "i", "j", "k", "m", "n", "o", "p", "r"].into_iter();
                let name = free.find(|name| !names.iter().any(|known| known == name));
                let number = names.len();
                names.push(name.map_or_else(|| format!("n{number}"), str::to_owned));
            }
        }
    }
    names
}

/// A pattern. `words` are what the one place with several words is written as.
fn pattern(side: &[Segment], numbers: &[String], words: &str) -> String {
    let segments: Vec<String> = side
        .iter()
        .map(|segment| match segment {
            Segment::Words(known) if known.len() > 1 => words.to_owned(),
            Segment::Words(known) => known.first().cloned().unwrap_or_default(),
            Segment::Index(at) => {
                format!("{{{}}}", numbers.get(*at).map_or("i", String::as_str))
            }
        })
        .collect();
    segments.join(".")
}

fn several(side: &[Segment]) -> Option<&[String]> {
    side.iter().find_map(|segment| match segment {
        Segment::Words(words) if words.len() > 1 => Some(&words[..]),
        _ => None,
    })
}

fn write_rule(text: &mut String, rule: &Rule) {
    let backwards = matches!(rule.way, Way::Unstack { .. } | Way::Split { .. });
    let names = numbers(if backwards { &rule.right } else { &rule.left });
    let words = match (several(&rule.left), several(&rule.right)) {
        (Some(from), Some(to)) => {
            let pairs = from
                .iter()
                .zip(to)
                .map(|(from, to)| if from == to { from.clone() } else { format!("{from}=>{to}") });
            format!("{{t: {}}}", pairs.collect::<Vec<_>>().join("|"))
        }
        _ => String::new(),
    };
    // A number that tells parts of one length apart has a range, where it is bound.
    let bound = match &rule.way {
        Way::Concat { index, n, .. } | Way::Split { index, n, .. } => {
            let mut bound = names.clone();
            if let Some(name) = bound.get_mut(*index) {
                *name = format!("{name}: 0..{n}");
            }
            bound
        }
        _ => names.clone(),
    };
    let (of_left, of_right) = if backwards { (&names, &bound) } else { (&bound, &names) };
    let left = pattern(&rule.left, of_left, &words);
    let right = pattern(&rule.right, of_right, "{t}");
    let name = |index: usize| names.get(index).map_or("i", String::as_str);
    let via = match &rule.way {
        Way::Rename => String::new(),
        Way::Transpose => "transpose(0, 1)".to_owned(),
        Way::Squeeze(dim) => format!("squeeze({dim})"),
        Way::Unsqueeze(dim) => format!("unsqueeze({dim})"),
        Way::Stack { index, transposed: false } => format!("stack({})", name(*index)),
        Way::Stack { index, transposed: true } => {
            format!("transpose(0, 1) | stack({})", name(*index))
        }
        Way::Unstack { index, transposed: false } => format!("unstack({})", name(*index)),
        Way::Unstack { index, transposed: true } => {
            format!("unstack({}) | transpose(0, 1)", name(*index))
        }
        Way::Concat { index, dim, .. } => format!("concat({dim}, over {})", name(*index)),
        Way::Split { index, dim, .. } => format!("split({dim}, over {})", name(*index)),
    };
    let word = if via.is_empty() { "rename" } else { "map" };
    let via = if via.is_empty() { via } else { format!(" via {via}") };
    let _ = writeln!(text, "{word} \"{left}\" <-> \"{right}\"{via}");
}

fn write_join(text: &mut String, join: &Join, many: &[Family], one: &[Family]) {
    let parts: Vec<Vec<Segment>> =
        join.many.iter().map(|at| segments(&many[*at].parts, None)).collect();
    let Some(first) = parts.first() else { return };
    let names = numbers(first);
    let quoted: Vec<String> =
        parts.iter().map(|side| format!("\"{}\"", pattern(side, &names, ""))).collect();
    let whole = segments(&one[join.one].parts, join.stacked);
    let whole = format!("\"{}\"", pattern(&whole, &names, ""));
    let equal = join.sizes.windows(2).all(|pair| pair[0] == pair[1]);
    let sizes: String = if equal {
        String::new()
    } else {
        join.sizes.iter().map(|size| format!(", {size}")).collect()
    };
    let stacked = join.stacked.and_then(|index| names.get(index));
    let dim = join.dim;
    let _ = if join.forwards {
        let stack = stacked.map_or_else(String::new, |name| format!("stack({name}) | "));
        writeln!(text, "map {} <-> {whole} via {stack}concat({dim}{sizes})", quoted.join(", "))
    } else {
        let unstack = stacked.map_or_else(String::new, |name| format!(" | unstack({name})"));
        writeln!(text, "map {whole} <-> {} via split({dim}{sizes}){unstack}", quoted.join(", "))
    };
}
