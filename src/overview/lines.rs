//! Keys that differ only in their indices, as one line: `model.layers.{0..31}.mlp.up_proj.weight`.
//!
//! An index is a whole segment of decimal digits. Ranges name their first and their last index.

use std::hash::Hash;

use crate::diagnostic::plain::one_line;
use crate::key::segments;
use indexmap::IndexMap;

use super::related::{self, Indices, Member, Progression, SourceKeys, SourceTemplate};

/// Stands for an index in a template; in a key it is written out.
const PLACE: char = '\0';

/// Ranges of one index that are written out.
const RANGES: usize = 12;

/// Keys gathered by their template and by what else must be equal.
#[derive(Clone, Debug)]
pub struct Gathered<S> {
    members: IndexMap<(String, Vec<SourceTemplate>, S), Vec<Member>, foldhash::fast::RandomState>,
}

/// Keys that make one line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line<'a, S> {
    template: &'a str,
    /// What else is equal.
    pub shared: &'a S,
    /// What the keys are made of, and how its numbers follow theirs.
    templates: &'a [SourceTemplate],
    progressions: Vec<Progression>,
    /// The values of each index; the keys are all their combinations.
    indices: Vec<Vec<u64>>,
}

impl<S: Hash + Eq> Default for Gathered<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Hash + Eq> Gathered<S> {
    /// None yet.
    pub fn new() -> Self {
        Self { members: IndexMap::default() }
    }

    /// Adds a key.
    pub fn add(&mut self, key: &str, shared: S) {
        self.add_made(key, SourceKeys::default(), shared);
    }

    /// Adds a key that is made of others.
    pub fn add_made(&mut self, key: &str, sources: SourceKeys, shared: S) {
        let (template, indices) = split(key);
        let (templates, least) = sources.parted();
        self.members.entry((template, templates, shared)).or_default().push((indices, least));
    }

    /// Whether no key was added.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The lines, in the order in which their first keys were added.
    pub fn lines(&self) -> Vec<Line<'_, S>> {
        let mut lines = Vec::new();
        for ((template, templates, shared), members) in &self.members {
            let mut members: Vec<&Member> = members.iter().collect();
            members.sort_unstable();
            members.dedup();
            for (members, progressions) in related::related(members) {
                let indices: Vec<&[u64]> =
                    members.iter().map(|(indices, _)| indices.as_slice()).collect();
                let blocks = blocks(&indices).into_iter();
                lines.extend(blocks.map(|indices| Line {
                    template,
                    shared,
                    templates,
                    progressions: progressions.clone(),
                    indices,
                }));
            }
        }
        lines
    }
}

impl<S> Line<'_, S> {
    /// How many keys.
    pub fn count(&self) -> u64 {
        self.indices.iter().map(|values| values.len() as u64).product()
    }

    /// The keys as one pattern; of very many stretches of numbers, the first.
    pub fn text(&self) -> String {
        fill(self.template, &self.indices)
    }

    /// The keys as one pattern that says every number.
    pub fn exact(&self) -> String {
        filled(self.template, &self.indices, usize::MAX)
    }

    /// The first of the keys.
    pub fn first(&self) -> String {
        let first = |values: &Vec<u64>| values.first().copied().into_iter().collect();
        let first: Vec<Vec<u64>> = self.indices.iter().map(first).collect();
        fill(self.template, &first)
    }

    /// Each kind of source of these keys as one pattern, and how many of it each key has.
    pub fn sources(&self) -> Vec<(String, usize)> {
        related::texts(self.templates, &self.progressions, &self.indices)
    }
}

/// The number that a segment is, if it is written as numbers are.
fn index(segment: &str) -> Option<u64> {
    let canonical = segment.bytes().all(|byte| byte.is_ascii_digit())
        && (segment.len() == 1 || !segment.starts_with('0'));
    canonical.then(|| segment.parse().ok()).flatten()
}

/// A key's template and its indices.
pub(super) fn split(key: &str) -> (String, Indices) {
    // What would look like another key, or is a place, is written out.
    let key = one_line(key);
    let (mut template, mut indices) = (String::with_capacity(key.len()), Indices::new());
    for (at, segment) in segments(&key).enumerate() {
        template.push_str(if at > 0 { "." } else { "" });
        match index(segment) {
            Some(index) => {
                indices.push(index);
                template.push(PLACE);
            }
            None => template.push_str(segment),
        }
    }
    (template, indices)
}

/// Sorted index tuples as few products of index sets.
fn blocks(members: &[&[u64]]) -> Vec<Vec<Vec<u64>>> {
    if members.first().is_none_or(|member| member.is_empty()) {
        return vec![Vec::new(); usize::from(!members.is_empty())];
    }
    let mut by_rest: IndexMap<Vec<Vec<Vec<u64>>>, Vec<u64>> = IndexMap::new();
    for run in members.chunk_by(|a, b| a.first() == b.first()) {
        let rest: Vec<&[u64]> =
            run.iter().map(|member| member.get(1..).unwrap_or_default()).collect();
        let first = run.first().and_then(|member| member.first());
        by_rest.entry(blocks(&rest)).or_default().extend(first);
    }
    let join = |values: &Vec<u64>, rest: Vec<Vec<u64>>| {
        std::iter::once(values.clone()).chain(rest).collect()
    };
    by_rest
        .into_iter()
        .flat_map(|(rests, values)| rests.into_iter().map(move |rest| join(&values, rest)))
        .collect()
}

/// A template with its indices written out.
pub(super) fn fill(template: &str, indices: &[Vec<u64>]) -> String {
    filled(template, indices, RANGES)
}

fn filled(template: &str, indices: &[Vec<u64>], most: usize) -> String {
    let mut indices = indices.iter();
    let mut out = String::new();
    for c in template.chars() {
        match c {
            PLACE => {
                out.push_str(&indices.next().map(|values| ranges(values, most)).unwrap_or_default())
            }
            c => out.push(c),
        }
    }
    out
}

/// Sorted numbers: `7`, `{0..31}`, `{0..3,5}`.
fn ranges(values: &[u64], most: usize) -> String {
    if let [one] = values {
        return one.to_string();
    }
    let runs: Vec<&[u64]> = values.chunk_by(|a, b| a.checked_add(1) == Some(*b)).collect();
    let mut shown: Vec<String> = runs
        .iter()
        .take(most)
        .map(|run| match run {
            [first, .., last] => format!("{first}..{last}"),
            [one] => one.to_string(),
            [] => String::new(),
        })
        .collect();
    if runs.len() > most {
        shown.push(format!("… {} in all", values.len()));
    }
    format!("{{{}}}", shown.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(keys: &[&str]) -> Vec<(String, u64)> {
        let mut groups = Gathered::new();
        for key in keys {
            groups.add(key, ());
        }
        groups.lines().iter().map(|line| (line.text(), line.count())).collect()
    }

    #[test]
    fn gaps_are_shown() {
        assert_eq!(
            lines(&["a.0.w", "a.1.w", "a.2.w", "a.3.w", "a.5.w"]),
            [("a.{0..3,5}.w".to_owned(), 5)]
        );
        assert_eq!(lines(&["a.7.w", "b"]), [("a.7.w".to_owned(), 1), ("b".to_owned(), 1)]);
    }

    #[test]
    fn products_are_one_line_and_other_sets_are_parted() {
        let full = ["l.0.e.0", "l.0.e.1", "l.1.e.0", "l.1.e.1"];
        assert_eq!(lines(&full), [("l.{0..1}.e.{0..1}".to_owned(), 4)]);
        assert_eq!(lines(&full[..3]), [("l.0.e.{0..1}".to_owned(), 2), ("l.1.e.0".to_owned(), 1)]);
    }

    #[test]
    fn only_whole_canonical_numbers_are_indices() {
        assert_eq!(lines(&["a.01", "a.02", "h1.w", "h2.w"]).len(), 4);
        assert_eq!(lines(&["a.99999999999999999999999", "a.1"]).len(), 2);
    }

    /// Each line with the sources of its keys, given as pairs.
    fn made(keys: &[(&str, &[&str])]) -> Vec<String> {
        let mut groups = Gathered::new();
        for (key, sources) in keys {
            let mut all = SourceKeys::default();
            sources.iter().for_each(|source| all.add(source));
            groups.add_made(key, all, ());
        }
        let from = |(source, count): (String, usize)| {
            if count > 1 { format!("{source} x {count}") } else { source }
        };
        let line = |line: &Line<'_, ()>| {
            let sources: Vec<String> = line.sources().into_iter().map(from).collect();
            format!("{} <- {}", line.text(), sources.join(" + "))
        };
        groups.lines().iter().map(line).collect()
    }

    #[test]
    fn sources_follow_the_indices() {
        assert_eq!(
            made(&[("l.0.w", &["l.4.w"]), ("l.1.w", &["l.5.w"]), ("l.2.w", &["l.6.w"])]),
            ["l.{0..2}.w <- l.{4..6}.w"]
        );
        assert_eq!(
            made(&[("a.0", &["b.1"]), ("a.1", &["b.3"]), ("a.2", &["b.5"])]),
            ["a.{0..2} <- b.{1,3,5}"]
        );
    }

    #[test]
    fn literals_and_single_keys_are_shown_as_they_are() {
        assert_eq!(made(&[("down.1.r.0.w", &["in.4.0.l.0.w"])]), ["down.1.r.0.w <- in.4.0.l.0.w"]);
        let two: [(&str, &[&str]); 2] =
            [("down.0.r.0.w", &["in.1.0.l.0.w"]), ("down.0.r.1.w", &["in.2.0.l.0.w"])];
        assert_eq!(made(&two), ["down.0.r.{0..1}.w <- in.{1..2}.0.l.0.w"]);
    }

    #[test]
    fn many_sources_of_a_key() {
        let packed: [(&str, &[&str]); 2] = [
            ("l.3.packed", &["l.3.e.0.w", "l.3.e.1.w"]),
            ("l.4.packed", &["l.4.e.0.w", "l.4.e.1.w"]),
        ];
        assert_eq!(made(&packed), ["l.{3..4}.packed <- l.{3..4}.e.{0..1}.w x 2"]);
        // Two by two: the least of each pair follows.
        let pairs: [(&str, &[&str]); 2] = [("l.0", &["m.0", "m.1"]), ("l.1", &["m.2", "m.3"])];
        assert_eq!(made(&pairs), ["l.{0..1} <- m.{0..3} x 2"]);
    }

    #[test]
    fn what_follows_nothing_has_lines_of_its_own() {
        assert_eq!(
            made(&[("l.0", &["m.1"]), ("l.1", &["m.0"]), ("l.2", &["m.2"])]),
            ["l.0 <- m.1", "l.1 <- m.0", "l.2 <- m.2"]
        );
        // Two indices in one: a line for each of the first.
        let keys: Vec<(String, String)> =
            (0..4).map(|i| (format!("l.{}.e.{}", i / 2, i % 2), format!("m.{i}"))).collect();
        let given: Vec<(&str, [&str; 1])> =
            keys.iter().map(|(key, source)| (key.as_str(), [source.as_str()])).collect();
        let given: Vec<(&str, &[&str])> =
            given.iter().map(|(key, sources)| (*key, &sources[..])).collect();
        assert_eq!(made(&given), ["l.0.e.{0..1} <- m.{0..1}", "l.1.e.{0..1} <- m.{2..3}"]);
        // Numbers as large as they can be.
        let large = u64::MAX.to_string();
        assert_eq!(
            made(&[(&format!("l.{large}"), &[&*format!("m.{large}")]), ("l.0", &["m.0"])]).len(),
            1
        );
    }
}
