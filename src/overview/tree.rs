//! Keys as a tree by their segments: what `inspect --depth` shows.
//!
//! Siblings that are numbers are one branch, `{0..31}`, so that a model is as long as one of its layers.

use std::collections::{BTreeMap, BTreeSet};

use super::lines::{fill, split};
use super::size::Size;
use super::text::counted;
use crate::key::Key;
use crate::tensor::TensorInfo;
use indexmap::IndexMap;

/// A segment, and all keys that have it at this place.
#[derive(Default)]
struct Branch {
    /// The numbers that it is, if it is one.
    numbers: BTreeSet<u64>,
    keys: u64,
    bytes: u64,
    /// Dtypes and shapes of tensors that end here, and how many are so.
    tensors: BTreeMap<String, u64>,
    below: IndexMap<String, Branch>,
}

impl Branch {
    fn add(&mut self, key: &str, info: &TensorInfo) {
        let (template, numbers) = split(key);
        let mut numbers = numbers.into_iter();
        let mut at = self;
        at.count(info);
        for segment in template.split('.') {
            at = at.below.entry(segment.to_owned()).or_default();
            // A place holds one number; any other segment stands for itself.
            if fill(segment, &[]) != segment {
                at.numbers.extend(numbers.next());
            }
            at.count(info);
        }
        *at.tensors.entry(info.to_string()).or_default() += 1;
    }

    fn count(&mut self, info: &TensorInfo) {
        self.keys += 1;
        self.bytes = self.bytes.saturating_add(info.nbytes().unwrap_or(0));
    }

    /// Its name with those below it that it has alone: no branch is a line that says nothing.
    fn rows(&self, name: &str, indent: usize, depth: usize, rows: &mut Vec<[String; 3]>) {
        let mut name = name.to_owned();
        let mut at = self;
        while let (true, [(segment, only)]) =
            (at.tensors.is_empty(), at.below.iter().collect::<Vec<_>>().as_slice())
        {
            name = format!("{name}.{}", only.label(segment));
            at = only;
        }
        let what = match at.tensors.iter().collect::<Vec<_>>().as_slice() {
            [(info, _)] if at.below.is_empty() => (*info).clone(),
            _ => String::new(),
        };
        let count = format!("{}, {}", counted(at.keys, "key"), Size(at.bytes));
        rows.push([format!("{}{name}", "  ".repeat(indent)), count, what]);
        if depth > 1 {
            for (segment, branch) in &at.below {
                branch.rows(&branch.label(segment), indent + 1, depth - 1, rows);
            }
        }
    }

    fn label(&self, segment: &str) -> String {
        fill(segment, &[self.numbers.iter().copied().collect()])
    }
}

/// The tree of tensors, so many levels of it: lines of a name, how many keys and bytes it has, and of a single kind of tensor its dtype and shape.
pub fn tree(tensors: &[(&Key, &TensorInfo)], depth: usize) -> String {
    let mut root = Branch::default();
    for (key, info) in tensors {
        root.add(key, info);
    }
    let mut rows = Vec::new();
    for (segment, branch) in &root.below {
        branch.rows(&branch.label(segment), 0, depth, &mut rows);
    }
    let width = |column: usize| {
        rows.iter().map(|row: &[String; 3]| row[column].chars().count()).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    let line = |[name, count, what]: &[String; 3]| {
        format!("{name:<first$}  {count:<second$}  {what}").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}
