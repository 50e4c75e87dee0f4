//! The keys of a checkpoint as they are recognized: without wrappers, those that differ only in their
//! indices as one.

use std::borrow::Cow;

use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use super::{ALWAYS_FIRST, rules};
use crate::check::reading::{Act, Reading};
use crate::check::{Direction, Rules};
use crate::diagnostic::codes::{FLAT_PARAMETER, NOT_STRIPPED, WRAPPED};
use crate::diagnostic::{Diagnostic, Severity};
use crate::key::segments;
use crate::plan::{PlanOptions, Stage, plan};
use crate::tensor::Header;

/// Rule files whose strips are looked through: names that no model gives a module of its own.
const WRAPPERS: [&str; 2] = [ALWAYS_FIRST, "peft"];

/// A wrapper around keys, as `strip` takes it off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Wrapper {
    /// Its segments.
    pub name: String,
    /// How many keys have it.
    pub keys: u64,
}

/// By kind, one of its keys and how many there are.
pub(super) type Kinds = IndexMap<String, (String, u64)>;

/// The keys of a checkpoint without wrappers.
pub(super) struct Keys {
    keys: Vec<String>,
    wrappers: Vec<Wrapper>,
    kinds: Kinds,
}

impl Keys {
    pub(super) fn of(header: &Header) -> Self {
        let (keys, wrappers) = unwrapped(header, &WRAPPERS);
        let kinds = kinds(&keys);
        Self { keys, wrappers, kinds }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.keys.len() as u64
    }

    /// What was around them.
    pub(super) fn wrappers(&self) -> &[Wrapper] {
        &self.wrappers
    }

    /// Their kinds, split as keys of a file's left or right layout are.
    pub(super) fn kinds(&self, rules: &Rules, left: bool) -> Cow<'_, Kinds> {
        match rules.scopes.first().and_then(|scope| scope.separator).filter(|_| left) {
            Some(separator) => {
                let split = |key: &String| key.replace(separator, ".");
                Cow::Owned(kinds(&self.keys.iter().map(split).collect::<Vec<_>>()))
            }
            None => Cow::Borrowed(&self.kinds),
        }
    }

    /// The segment that all of them begin with, and what is behind it.
    pub(super) fn behind_prefix(&self) -> Option<(String, Self)> {
        let (first, _) = self.keys.first()?.split_once('.')?;
        let behind = |key: &String| Some(key.strip_prefix(first)?.strip_prefix('.')?.to_owned());
        let keys: Vec<String> = self.keys.iter().map(behind).collect::<Option<_>>()?;
        let kinds = kinds(&keys);
        Some((first.to_owned(), Self { keys, wrappers: self.wrappers.clone(), kinds }))
    }
}

/// What there is to say of a checkpoint whose names stay as they are: which wrappers they have, and
/// why some of these wouldn't go if asked.
pub fn wrapped(header: &Header) -> Vec<Diagnostic> {
    let stripping = rules(ALWAYS_FIRST)
        .map(|rules| Stage { rules, direction: Direction::Forward, named: false })
        .map(|stage| plan(&[stage], header, &PlanOptions::default()));
    let mut found: Vec<Diagnostic> = match stripping {
        Some(Ok(plan)) => plan.findings.into_iter().filter(|it| it.code == NOT_STRIPPED).collect(),
        // No error where nothing is stripped, but there is no model to load them into.
        Some(Err(errors)) => errors
            .0
            .into_iter()
            .filter(|error| error.code == FLAT_PARAMETER)
            .map(|error| Diagnostic { severity: Severity::Warning, ..error })
            .collect(),
        None => Vec::new(),
    };
    found.extend(stay(header));
    found
}

/// Which wrappers stay in names.
fn stay(header: &Header) -> Option<Diagnostic> {
    let (_, wrappers) = unwrapped(header, &[ALWAYS_FIRST]);
    let names: Vec<String> = wrappers.iter().map(|wrapper| format!("`{}`", wrapper.name)).collect();
    let most = wrappers.iter().map(|wrapper| wrapper.keys).max()?;
    let look = match names.len() {
        1 => "looks like a wrapper of training code, and stays",
        _ => "look like wrappers of training code, and stay",
    };
    let all = header.tensors.len();
    let message = format!(
        "{} {look} in {most} of {all} keys (--rules wrappers takes wrappers off)",
        names.join(" and ")
    );
    let keys = header.tensors.keys().take(3).map(|key| key.as_str());
    Some(Diagnostic::note(WRAPPED, message).keys(keys))
}

/// The keys without what these files strip, and what there was of it.
fn unwrapped(header: &Header, files: &[&str]) -> (Vec<String>, Vec<Wrapper>) {
    let mut keys: Vec<String> = header.tensors.keys().map(|key| key.as_str().to_owned()).collect();
    let mut found: IndexMap<String, u64> = IndexMap::new();
    let files = files.iter().filter_map(|name| rules(name));
    let statements = files.flat_map(|rules| Reading::of(rules, Direction::Forward).statements());
    for statement in statements {
        match statement.act {
            Act::StripAnywhere { wrappers } => {
                let single: Vec<&str> = wrappers
                    .iter()
                    .filter_map(
                        |wrapper| if let [one] = &wrapper[..] { Some(one.as_str()) } else { None },
                    )
                    .collect();
                for key in &mut keys {
                    if !segments(key).any(|segment| single.contains(&segment)) {
                        continue;
                    }
                    let is_wrapper = |segment: &&str| single.contains(segment);
                    let here: IndexSet<&str> = segments(key).filter(is_wrapper).collect();
                    let rest: Vec<&str> = segments(key).filter(|it| !is_wrapper(it)).collect();
                    if rest.is_empty() {
                        continue;
                    }
                    for wrapper in here {
                        *found.entry(wrapper.to_owned()).or_default() += 1;
                    }
                    *key = rest.join(".");
                }
            }
            Act::StripLeading { wrappers, if_wanted: false } => {
                for wrapper in wrappers.iter().map(|wrapper| wrapper.join(".")) {
                    let without = |key: &String| {
                        Some(key.strip_prefix(&wrapper)?.strip_prefix('.')?.to_owned())
                    };
                    let Some(shorter) = keys
                        .iter()
                        .map(without)
                        .collect::<Option<Vec<String>>>()
                        .filter(|keys| !keys.is_empty())
                    else {
                        continue;
                    };
                    found.insert(wrapper, keys.len() as u64);
                    keys = shorter;
                }
            }
            Act::StripLeading { .. }
            | Act::Rewrite(_)
            | Act::Whole { .. }
            | Act::Prefix(_)
            | Act::Drop(_)
            | Act::Keep(_)
            | Act::Cast { .. }
            | Act::Tie(_)
            | Act::Create { .. }
            | Act::Expect { .. }
            | Act::When { .. } => {}
        }
    }
    (keys, found.into_iter().map(|(name, keys)| Wrapper { name, keys }).collect())
}

/// One key of each kind, and how many there are of it.
fn kinds(keys: &[String]) -> Kinds {
    let mut kinds: Kinds = IndexMap::new();
    for key in keys {
        kinds.entry(kind(key)).or_insert_with(|| (key.clone(), 0)).1 += 1;
    }
    kinds
}

/// A key with all numbers alike.
pub(super) fn kind(key: &str) -> String {
    let mut kind = String::with_capacity(key.len());
    for (at, segment) in segments(key).enumerate() {
        kind.push_str(if at > 0 { "." } else { "" });
        kind.push_str(if is_number(segment) { "0" } else { segment });
    }
    kind
}

pub(super) fn is_number(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_digit())
}
