//! Keys that differ only in their indices, as one line: `model.layers.{0..31}.mlp.up_proj.weight`.
//!
//! An index is a whole segment of decimal digits. Ranges name their first and their last index.

use std::fmt::Write as _;
use std::hash::Hash;

use indexmap::IndexMap;
use regraft::diagnostic::plain::one_line;

/// Stands for an index in a template; in a key it is written out.
const PLACE: char = '\0';

/// Ranges of one index that are written out.
const RANGES: usize = 12;

/// Keys gathered by their template and by what else must be equal.
pub(super) struct Groups<S> {
    members: IndexMap<(String, S), Vec<Vec<u64>>>,
}

/// Keys that make one line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group<'a, S> {
    template: &'a str,
    /// What else is equal.
    pub(super) shared: &'a S,
    /// The values of each index; the keys are all their combinations.
    indices: Vec<Vec<u64>>,
}

impl<S: Hash + Eq> Groups<S> {
    pub(super) fn new() -> Self {
        Self { members: IndexMap::new() }
    }

    pub(super) fn add(&mut self, key: &str, shared: S) {
        let (template, indices) = split(key);
        self.members.entry((template, shared)).or_default().push(indices);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The lines, in the order in which their first keys were added.
    pub(super) fn lines(&self) -> Vec<Group<'_, S>> {
        let mut lines = Vec::new();
        for ((template, shared), members) in &self.members {
            let mut members: Vec<&[u64]> = members.iter().map(Vec::as_slice).collect();
            members.sort_unstable();
            members.dedup();
            lines.extend(blocks(&members).into_iter().map(|indices| Group { template, shared, indices }));
        }
        lines
    }
}

impl<S> Group<'_, S> {
    /// How many keys.
    pub(super) fn count(&self) -> u64 {
        self.indices.iter().map(|values| values.len() as u64).product()
    }

    /// The keys as one pattern.
    pub(super) fn text(&self) -> String {
        fill(self.template, &self.indices)
    }

    /// Another template whose places are numbers of this one's indices, as [`Related`] writes it.
    pub(super) fn fill_related(&self, related: &str) -> String {
        let mut out = String::new();
        for (at, part) in related.split(PLACE).enumerate() {
            if at % 2 == 0 {
                out.push_str(part);
            } else if let Some(values) = part.parse::<usize>().ok().and_then(|at| self.indices.get(at)) {
                out.push_str(&ranges(values));
            }
        }
        out
    }
}

/// Keys that belong to another one.
pub(super) struct Related {
    /// The other one's indices.
    indices: Vec<u64>,
    text: String,
}

impl Related {
    pub(super) fn to(key: &str) -> Self {
        Self { indices: split(key).1, text: String::new() }
    }

    /// A key, with each index that the other one has too as a reference to that, and `*` for the rest.
    pub(super) fn text(&mut self, key: &str) -> &str {
        let Self { indices, text } = self;
        text.clear();
        let mut from = 0;
        segments(key, |dot, segment| {
            text.push_str(dot);
            match segment {
                Segment::Text(segment) => push_text(text, segment),
                Segment::Index(value) => match indices.iter().enumerate().skip(from).find(|(_, theirs)| **theirs == value) {
                    Some((at, _)) => {
                        from = at + 1;
                        let _ = write!(text, "{PLACE}{at}{PLACE}");
                    }
                    None => text.push('*'),
                },
            }
        });
        text
    }
}

/// A segment of a key.
enum Segment<'a> {
    Text(&'a str),
    Index(u64),
}

/// Visits a key's segments, each with the dot before it.
fn segments(key: &str, mut visit: impl FnMut(&str, Segment<'_>)) {
    for (at, segment) in key.split('.').enumerate() {
        let canonical = segment.bytes().all(|byte| byte.is_ascii_digit()) && (segment.len() == 1 || !segment.starts_with('0'));
        let index = canonical.then(|| segment.parse().ok()).flatten();
        visit(if at > 0 { "." } else { "" }, index.map_or(Segment::Text(segment), Segment::Index));
    }
}

fn push_text(out: &mut String, segment: &str) {
    // What would look like another key, or is a place, is written out.
    out.push_str(&one_line(segment));
}

/// A key's template and its indices.
fn split(key: &str) -> (String, Vec<u64>) {
    let (mut template, mut indices) = (String::with_capacity(key.len()), Vec::new());
    segments(key, |dot, segment| {
        template.push_str(dot);
        match segment {
            Segment::Text(segment) => push_text(&mut template, segment),
            Segment::Index(index) => {
                indices.push(index);
                template.push(PLACE);
            }
        }
    });
    (template, indices)
}

/// Sorted index tuples as few products of index sets.
fn blocks(members: &[&[u64]]) -> Vec<Vec<Vec<u64>>> {
    if members.first().is_none_or(|member| member.is_empty()) {
        return vec![Vec::new(); usize::from(!members.is_empty())];
    }
    let mut by_rest: IndexMap<Vec<Vec<Vec<u64>>>, Vec<u64>> = IndexMap::new();
    for run in members.chunk_by(|a, b| a.first() == b.first()) {
        let rest: Vec<&[u64]> = run.iter().map(|member| member.get(1..).unwrap_or_default()).collect();
        let first = run.first().and_then(|member| member.first());
        by_rest.entry(blocks(&rest)).or_default().extend(first);
    }
    let join = |values: &Vec<u64>, rest: Vec<Vec<u64>>| std::iter::once(values.clone()).chain(rest).collect();
    by_rest.into_iter().flat_map(|(rests, values)| rests.into_iter().map(move |rest| join(&values, rest))).collect()
}

fn fill(template: &str, indices: &[Vec<u64>]) -> String {
    let mut indices = indices.iter();
    let mut out = String::new();
    for c in template.chars() {
        match c {
            PLACE => out.push_str(&indices.next().map(|values| ranges(values)).unwrap_or_default()),
            c => out.push(c),
        }
    }
    out
}

/// Sorted numbers: `7`, `{0..31}`, `{0..3,5}`.
fn ranges(values: &[u64]) -> String {
    if let [one] = values {
        return one.to_string();
    }
    let runs: Vec<&[u64]> = values.chunk_by(|a, b| a.checked_add(1) == Some(*b)).collect();
    let mut shown: Vec<String> = runs
        .iter()
        .take(RANGES)
        .map(|run| match run {
            [first, .., last] => format!("{first}..{last}"),
            [one] => one.to_string(),
            [] => String::new(),
        })
        .collect();
    if runs.len() > RANGES {
        shown.push(format!("… {} in all", values.len()));
    }
    format!("{{{}}}", shown.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(keys: &[&str]) -> Vec<(String, u64)> {
        let mut groups = Groups::new();
        for key in keys {
            groups.add(key, ());
        }
        groups.lines().iter().map(|line| (line.text(), line.count())).collect()
    }

    #[test]
    fn gaps_are_shown() {
        assert_eq!(lines(&["a.0.w", "a.1.w", "a.2.w", "a.3.w", "a.5.w"]), [("a.{0..3,5}.w".to_owned(), 5)]);
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

    #[test]
    fn a_related_key_follows_the_indices() {
        let mut groups = Groups::new();
        for layer in 0..3 {
            let target = format!("model.layers.{layer}.packed");
            let mut related = Related::to(&target);
            groups.add(&target, related.text(&format!("model.layers.{layer}.experts.7.w")).to_owned());
        }
        let lines = groups.lines();
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].fill_related(lines[0].shared), "model.layers.{0..2}.experts.*.w");
    }
}
