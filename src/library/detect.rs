//! Which rule file and layout explain a checkpoint's keys best.
//!
//! A file most of whose words are nowhere to be seen is less likely than one whose words all are. A
//! file that looks as if it had been applied already, for some of the keys, comes after those for
//! which nothing does.

use std::cmp::Ordering;

use serde::Serialize;

use super::recognize::may_be_for;
use super::unwrapped::{Keys, Wrapper};
use super::vocabulary::{Telling, Vocabulary, rank};
use super::{MODEL, is_shared, names, rules};
use crate::check::Rules;
use crate::config::Config;
use crate::tensor::Header;

/// Below this share of a file's words, by what they tell, it explains nothing.
const LEAST: f64 = 0.2;

/// How rule files begin that dequantize: every family may be quantized, so what they speak of tells
/// none from another.
const DEQUANT: &str = "dequant";

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
    /// Whether it is a publisher's own layout that explains the keys: nine in ten, by two of three
    /// rules that should find something, and config.json names no other model.
    pub recognized: bool,
    /// Whether it is the only one that explains the keys so, or the best that is recognized.
    pub sure: bool,
    /// Keys that it has a name for, if only a usual one.
    pub named: u64,
    /// Rules that should find something, and don't.
    pub unmet: u64,
    /// The most telling words that were met in the keys.
    pub evidence: Vec<String>,
    /// The most telling words of the file that no key has.
    pub missing: Vec<String>,
    /// Wrappers around the keys that were looked through.
    pub wrappers: Vec<Wrapper>,
}

/// Every embedded rule file and layout that explains keys, the best first: those that config.json
/// asks for, then those that nothing speaks against, by score.
pub fn detect(header: &Header, config: &Config) -> Vec<Detection> {
    let keys = Keys::of(header);
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
        let is_part = rules.models.is_empty() && own_layout(rules).is_none();
        if is_part && !asked.contains(&name) {
            continue;
        }
        let [as_left, as_right] = [true, false].map(|left| {
            let kinds = keys.kinds(rules, left);
            Vocabulary::new(rules, left).explain(&kinds, &telling)
        });
        for (layout, leads_to, own, other) in
            [(left, right, &as_left, &as_right), (right, left, &as_right, &as_left)]
        {
            let by_config = asked.contains(&name);
            let nearly_all = own.explains_nearly_all(keys.count());
            if own.keys > 0 && own.weight > 0.0 && (own.share >= LEAST || by_config) {
                found.push(Detection {
                    rules: name.to_owned(),
                    layout: layout.clone(),
                    leads_to: leads_to.clone(),
                    explained: own.keys,
                    against: other.taken,
                    keys: keys.count(),
                    by_config,
                    score: own.weight * own.share / families(rules, layout, leads_to),
                    recognized: nearly_all
                        && other.taken * 4 <= own.named
                        && !is_shared(layout)
                        && may_be_for(rules, config),
                    sure: nearly_all
                        && other.taken == 0
                        && may_be_for(rules, config)
                        // Families that no rule file speaks of have such names too.
                        && (layout != MODEL || by_config),
                    named: own.named,
                    unmet: own.unmet,
                    evidence: own.met.clone(),
                    missing: own.missing.clone(),
                    wrappers: keys.wrappers().to_vec(),
                });
            }
        }
    }
    found.sort_by(order);
    judge(&mut found);
    found
}

/// Of how many families it may be what a file explains in a layout: one that leads from `hub` to the
/// names of a library that trains several tells the less which it is, the more it is for.
#[allow(clippy::cast_precision_loss)]
fn families(rules: &Rules, layout: &str, leads_to: &str) -> f64 {
    let of_library = is_shared(layout) && !is_shared(leads_to);
    if of_library { rules.models.len().max(1) as f64 } else { 1.0 }
}

/// What config.json asks for, what is recognized, what nothing speaks against, by score.
fn order(a: &Detection, b: &Detection) -> Ordering {
    let order = b.by_config.cmp(&a.by_config).then_with(|| b.recognized.cmp(&a.recognized));
    let order = order.then_with(|| match a.recognized && b.recognized {
        true => rank(b.named, b.unmet).cmp(&rank(a.named, a.unmet)),
        false => Ordering::Equal,
    });
    let order = order.then_with(|| (a.against > 0).cmp(&(b.against > 0)));
    let order = order.then_with(|| b.score.total_cmp(&a.score));
    let order = order.then_with(|| b.explained.cmp(&a.explained));
    order.then_with(|| a.rules.len().cmp(&b.rules.len())).then_with(|| a.rules.cmp(&b.rules))
}

/// Leaves `sure` to what alone explains the keys, or is the best of what is recognized.
fn judge(found: &mut [Detection]) {
    let rank = |one: &Detection| (one.recognized, rank(one.named, one.unmet));
    let best = found.iter().map(rank).max();
    let at_best = found.iter().filter(|one| Some(rank(one)) == best).count();
    let explaining = found.iter().filter(|one| one.sure).count();
    for one in found {
        one.sure &= match one.recognized {
            true => Some(rank(one)) == best && at_best == 1,
            false => explaining == 1,
        };
    }
}

/// A layout of an embedded file that half of the keys are in, and more than in the one it leads to:
/// none that models share, such as `hub`.
pub(super) fn foreign(header: &Header) -> Option<(&'static str, &'static str, &'static str)> {
    let keys = Keys::of(header);
    let telling = Telling::nothing();
    names().filter(|name| super::text(name).is_some_and(has_another_layout)).find_map(|name| {
        let rules = rules(name)?;
        let (left, right) = rules.layouts.as_ref()?;
        let [as_left, as_right] = [true, false].map(|left| {
            let kinds = keys.kinds(rules, left);
            Vocabulary::new(rules, left).explain(&kinds, &telling).keys
        });
        [(left, right, as_left, as_right), (right, left, as_right, as_left)].into_iter().find_map(
            |(layout, leads_to, own, other)| {
                let is_it =
                    !is_shared(layout) && own > other && own * 2 >= header.tensors.len() as u64;
                is_it.then_some((name, layout.as_str(), leads_to.as_str()))
            },
        )
    })
}

/// The layout of a file that is a publisher's own, and the one that it leads to.
pub(super) fn own_layout(rules: &Rules) -> Option<(&str, &str)> {
    let (left, right) = rules.layouts.as_ref()?;
    [(left, right), (right, left)]
        .into_iter()
        .find(|(layout, _)| !is_shared(layout))
        .map(|(layout, to)| (layout.as_str(), to.as_str()))
}

/// Whether a rule file names a layout of its own: a look at its text, before it is checked.
pub(super) fn has_another_layout(text: &str) -> bool {
    let header = text.lines().find_map(|line| line.strip_prefix("ruleset ")?.split_once(':'));
    header.is_some_and(|(_, layouts)| {
        layouts.split_whitespace().any(|word| !word.contains('-') && !is_shared(word))
    })
}
