//! Which rule file and layout explain a checkpoint's keys best.
//!
//! A file most of whose words are nowhere to be seen is less likely than one whose words all are. A
//! file that looks as if it had been applied already, for some of the keys, comes after those for
//! which nothing does.

use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use super::vocabulary::{Telling, Vocabulary, kinds};
use super::{ALWAYS_FIRST, names, rules};
use crate::check::reading::{Act, Reading};
use crate::check::{Direction, Rules};
use crate::config::Config;
use crate::tensor::Header;

/// Below this share of a file's words, by what they tell, it explains nothing.
const LEAST: f64 = 0.2;

/// How rule files begin that dequantize: every family may be quantized, so what they speak of tells
/// none from another.
const DEQUANT: &str = "dequant";

/// Rule files whose strips are looked through: names that no model gives a module of its own.
const WRAPPERS: [&str; 2] = [ALWAYS_FIRST, "peft"];

/// How well a rule file explains a checkpoint in one of its layouts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Detection {
    /// The rule file.
    pub rules: String,
    /// The layout that the checkpoint would be in.
    pub layout: String,
    /// The layout that the rules lead to from there.
    pub leads_to: String,
    /// Keys that the file speaks of when it is read from that layout: its rewrites, its ties, its
    /// examples.
    pub explained: u64,
    /// Keys that look like results of such a rewrite already.
    pub against: u64,
    /// Keys in all.
    pub keys: u64,
    /// Whether config.json asks for this rule file.
    pub by_config: bool,
    /// How telling the words are that were met: what decides the order, where nothing speaks
    /// against a file.
    pub score: f64,
    /// Wrappers around the keys that were looked through.
    pub wrappers: Vec<Wrapper>,
}

/// A wrapper around keys, as `strip` takes it off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Wrapper {
    /// Its segments.
    pub name: String,
    /// How many keys have it.
    pub keys: u64,
}

/// Every embedded rule file and layout that explains keys, the best first: those that config.json
/// asks for, then those that nothing speaks against, by score.
pub fn detect(header: &Header, config: &Config) -> Vec<Detection> {
    let (keys, wrappers) = unwrapped(header);
    let kinds = kinds(&keys);
    let asked: Vec<&str> =
        super::candidates(config).into_iter().map(|rules| rules.source.name.as_str()).collect();
    // Files of ranks hold a model of which another file speaks, in names that are those again.
    let files: Vec<(&str, &Rules)> = names()
        .filter_map(|name| Some((name, rules(name)?)))
        .filter(|(_, rules)| rules.shards.is_none())
        .filter(|(name, _)| !name.starts_with(DEQUANT))
        .collect();
    let telling = Telling::new(&files);
    let mut found = Vec::new();
    for (name, rules) in files {
        let Some((left, right)) = &rules.layouts else { continue };
        // A file that no model has is a part of others, which speak for themselves.
        if rules.models.is_empty() && !asked.contains(&name) {
            continue;
        }
        let [as_left, as_right] =
            [true, false].map(|left| Vocabulary::new(rules, left).explain(&kinds, &telling));
        for (layout, leads_to, own, other) in
            [(left, right, &as_left, &as_right), (right, left, &as_right, &as_left)]
        {
            let by_config = asked.contains(&name);
            if own.keys > 0 && own.weight > 0.0 && (own.share >= LEAST || by_config) {
                found.push(Detection {
                    rules: name.to_owned(),
                    layout: layout.clone(),
                    leads_to: leads_to.clone(),
                    explained: own.keys,
                    against: other.taken,
                    keys: keys.len() as u64,
                    by_config,
                    score: own.weight * own.share,
                    wrappers: wrappers.clone(),
                });
            }
        }
    }
    found.sort_by(|a, b| {
        let order =
            b.by_config.cmp(&a.by_config).then_with(|| (a.against > 0).cmp(&(b.against > 0)));
        let order = order
            .then_with(|| b.score.total_cmp(&a.score))
            .then_with(|| b.explained.cmp(&a.explained));
        order.then_with(|| a.rules.len().cmp(&b.rules.len())).then_with(|| a.rules.cmp(&b.rules))
    });
    found
}

/// The keys without wrappers, and which there were.
fn unwrapped(header: &Header) -> (Vec<String>, Vec<Wrapper>) {
    let mut keys: Vec<String> = header.tensors.keys().map(|key| key.as_str().to_owned()).collect();
    let mut found: IndexMap<String, u64> = IndexMap::new();
    let files = WRAPPERS.iter().filter_map(|name| rules(name));
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
                    let here: IndexSet<&str> =
                        key.split('.').filter(|segment| single.contains(segment)).collect();
                    if here.is_empty() {
                        continue;
                    }
                    let rest: Vec<&str> =
                        key.split('.').filter(|segment| !single.contains(segment)).collect();
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

/// A layout of an embedded file that half of the keys are in, and more than in the one it leads to:
/// none that models share, such as `hub`.
pub(super) fn foreign(header: &Header) -> Option<(&'static str, &'static str, &'static str)> {
    let (keys, _) = unwrapped(header);
    let kinds = kinds(&keys);
    let telling = Telling::nothing();
    names().filter(|name| super::text(name).is_some_and(has_another_layout)).find_map(|name| {
        let rules = rules(name)?;
        let (left, right) = rules.layouts.as_ref()?;
        let [as_left, as_right] =
            [true, false].map(|left| Vocabulary::new(rules, left).explain(&kinds, &telling).keys);
        [(left, right, as_left, as_right), (right, left, as_right, as_left)].into_iter().find_map(
            |(layout, leads_to, own, other)| {
                let is_it = !SHARED.contains(&layout.as_str())
                    && own > other
                    && own * 2 >= header.tensors.len() as u64;
                is_it.then_some((name, layout.as_str(), leads_to.as_str()))
            },
        )
    })
}

/// The layout of a file that is a publisher's own, and the one that it leads to.
pub(super) fn own_layout(rules: &Rules) -> Option<(&str, &str)> {
    let (left, right) = rules.layouts.as_ref()?;
    let own = |layout: &&String| !SHARED.contains(&layout.as_str());
    [(left, right), (right, left)]
        .into_iter()
        .find(|(layout, _)| own(layout))
        .map(|(layout, to)| (layout.as_str(), to.as_str()))
}

/// How many keys a file speaks of that is read from its own layout, and how many it takes that is
/// read from the other one.
pub(super) fn spoken_and_against(header: &Header, rules: &Rules, is_left: bool) -> (u64, u64) {
    let (mut keys, _) = unwrapped(header);
    if let Some(separator) = rules.scopes.first().and_then(|scope| scope.separator) {
        keys = keys.iter().map(|key| key.replace(separator, ".")).collect();
    }
    let (kinds, telling) = (kinds(&keys), Telling::nothing());
    let read = |left| Vocabulary::new(rules, left).explain(&kinds, &telling);
    (read(is_left).keys, read(!is_left).taken)
}

/// Layouts that say nothing of who made a checkpoint.
pub(super) const SHARED: [&str; 2] = [super::HUB, super::MODEL];

/// Whether a rule file names a layout of its own: a look at its text, before it is checked.
pub(super) fn has_another_layout(text: &str) -> bool {
    let header = text.lines().find_map(|line| line.strip_prefix("ruleset ")?.split_once(':'));
    header.is_some_and(|(_, layouts)| {
        layouts.split_whitespace().any(|word| !word.contains('-') && !SHARED.contains(&word))
    })
}
