//! Which rule file and layout explain a checkpoint's keys best.
//!
//! A file most of whose words are nowhere to be seen is less likely than one whose words all are, and
//! so is one of whose rules many find nothing. A file that looks as if it had been applied already,
//! for some of the keys, comes after those for which nothing does. Files of which one can't be told
//! from another by keys do the same to them, mostly.

use std::cmp::Ordering;
use std::sync::OnceLock;

use serde::Serialize;

use super::recognize::may_be_for;
use super::unwrapped::{Keys, Wrapper};
use super::vocabulary::{Explained, Telling, Vocabulary, rank};
use super::{HUB, MODEL, is_in_memory, is_shared, names, rules};
use crate::check::Rules;
use crate::config::Config;
use crate::tensor::Header;

/// Below this share of a file's words, by what they tell, it explains nothing.
const LEAST: f64 = 0.2;

/// How likely it is that a checkpoint is to be read the other way than [`is_usual`], beside that
/// one; and how likely that it has names in memory, beside what else isn't usual.
const SELDOM: f64 = 0.1;

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
    /// How telling the words are that were met, how many of the file's words and rules these are,
    /// and how usual it is to read it so: what decides the order, where nothing speaks against a
    /// file.
    pub score: f64,
    /// Whether it is a publisher's own layout that explains the keys: nine in ten, by two of three
    /// rules that should find something, and config.json names no other model.
    pub recognized: bool,
    /// Whether it is the best, explains nine keys in ten, and no other explains as many as well.
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
    let mut found = weigh(header, config);
    judge(&mut found);
    found
}

/// The rule file of a family whose published names explain keys no worse than the publisher's layout
/// that they were taken for, if there is one.
pub(super) fn rival(header: &Header, taken_for: &str) -> Option<String> {
    let mut found = weigh(header, &Config::empty()).into_iter();
    let first = found.next().filter(|first| first.rules == taken_for)?;
    found.find(|other| !other.recognized && is_rival(&first, other)).map(|other| other.rules)
}

/// [`detect`], but that each is `sure` as if it were alone.
fn weigh(header: &Header, config: &Config) -> Vec<Detection> {
    let keys = Keys::of(header);
    let asked: Vec<&str> =
        super::candidates(config).into_iter().map(|rules| rules.source.name.as_str()).collect();
    let mut found = Vec::new();
    for (name, rules) in files() {
        let Some((left, right)) = &rules.layouts else { continue };
        // A file that no model has is a part of others, which speak for themselves.
        let is_part = rules.models.is_empty() && own_layout(rules).is_none();
        if is_part && !asked.contains(&name) {
            continue;
        }
        let [as_left, as_right] = readings(rules, &keys, telling());
        for (layout, leads_to, own, other) in
            [(left, right, &as_left, &as_right), (right, left, &as_right, &as_left)]
        {
            let by_config = asked.contains(&name);
            let nearly_all = own.explains_nearly_all(keys.count());
            let against = own.against(other);
            let tells = own.keys > 0 && own.weight > 0.0 && own.share >= LEAST;
            // Published keys may well need no rule of what a config asks for.
            if tells || by_config && (own.keys > 0 || layout == HUB) {
                found.push(Detection {
                    rules: name.to_owned(),
                    layout: layout.clone(),
                    leads_to: leads_to.clone(),
                    explained: own.keys,
                    against,
                    keys: keys.count(),
                    by_config,
                    score: score(own, layout, leads_to),
                    recognized: nearly_all
                        && against * 4 <= own.named
                        && !is_shared(layout)
                        && may_be_for(rules, config),
                    sure: nearly_all
                        && against == 0
                        && may_be_for(rules, config)
                        // Families that no rule file speaks of have such names too, and one
                        // word that tells something may well be theirs.
                        && (is_usual(layout, leads_to) && own.met.len() > 1 || by_config),
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
    found
}

/// How a file explains keys, read from its left layout, and from its right one.
fn readings(rules: &Rules, keys: &Keys, telling: &Telling) -> [Explained; 2] {
    [true, false]
        .map(|left| Vocabulary::new(rules, left).explain(&keys.kinds(rules, left), telling))
}

/// The rule files that are weighed.
fn files() -> impl Iterator<Item = (&'static str, &'static Rules)> {
    // Files of ranks hold a model of which another file speaks, in names that are those again.
    names()
        .filter(|name| !name.starts_with(DEQUANT))
        .filter_map(|name| Some((name, rules(name)?)))
        .filter(|(_, rules)| rules.shards.is_none())
}

/// What words tell, among all of these files.
fn telling() -> &'static Telling {
    static TELLING: OnceLock<Telling> = OnceLock::new();
    TELLING.get_or_init(|| Telling::new(&files().collect::<Vec<_>>()))
}

/// What a reading of a file has for it. Words and rules that find nothing count twice, in a way: once
/// for what isn't there, and once for that it should be.
#[allow(clippy::cast_precision_loss)]
fn score(own: &Explained, layout: &str, leads_to: &str) -> f64 {
    let found = match own.required {
        0 => 1.0,
        required => (required - own.unmet) as f64 / required as f64,
    };
    let usual = match is_usual(layout, leads_to) {
        true => 1.0,
        false if is_in_memory(layout) => SELDOM * SELDOM,
        false => SELDOM,
    };
    own.weight * (own.share * found).powi(2) * usual
}

/// Whether a checkpoint mostly is in the one layout if the two are known: what is published is to be
/// loaded, and what is in a publisher's own names is to be published. Names in memory are seldom
/// written, and much the same for all families; and each family's own file says as well what it
/// publishes as a file that leads from there to another's names.
fn is_usual(layout: &str, leads_to: &str) -> bool {
    match layout {
        _ if is_in_memory(layout) => false,
        HUB => leads_to == MODEL,
        _ => true,
    }
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
    // Of equals the one whose names are published.
    let in_memory = |one: &Detection| is_in_memory(&one.layout);
    let order = order.then_with(|| in_memory(a).cmp(&in_memory(b)));
    // Of files that say the same, those that a person wrote.
    let imported = |one: &Detection| one.rules.contains('/');
    order.then_with(|| imported(a).cmp(&imported(b))).then_with(|| a.rules.cmp(&b.rules))
}

/// Leaves `sure` to the best, if no other explains as many keys by words that tell as much.
fn judge(found: &mut [Detection]) {
    let Some((first, others)) = found.split_first_mut() else { return };
    let rivals = others.iter().any(|other| is_rival(first, other));
    first.sure &= !rivals;
    for other in others {
        other.sure = false;
    }
}

/// Whether a file that comes later explains as many keys as the first, by words that tell as much.
fn is_rival(first: &Detection, other: &Detection) -> bool {
    let explains = |one: &Detection| rank(one.named, one.unmet);
    match (first.recognized, other.recognized) {
        (true, true) => explains(other) == explains(first),
        (true, false) => {
            other.sure && explains(other) >= explains(first) && other.score >= first.score
        }
        // What comes later has no better score.
        (false, _) => other.sure && explains(other) >= explains(first),
    }
}

/// The layout of an embedded file that explains the keys best, of those that half of them are in, and
/// more than in the one it leads to: none that models share, such as `hub`.
pub(super) fn foreign(header: &Header) -> Option<(&'static str, &'static str, &'static str)> {
    let keys = Keys::of(header);
    let telling = Telling::nothing();
    let mut found = Vec::new();
    for name in names().filter(|name| super::text(name).is_some_and(has_another_layout)) {
        let Some(rules) = rules(name) else { continue };
        let Some((left, right)) = &rules.layouts else { continue };
        let [as_left, as_right] = readings(rules, &keys, &telling);
        for (layout, leads_to, own, other) in
            [(left, right, &as_left, &as_right), (right, left, &as_right, &as_left)]
        {
            let half = own.keys * 2 >= header.tensors.len() as u64;
            if !is_shared(layout) && own.keys > other.keys && half {
                let way = (name, layout.as_str(), leads_to.as_str());
                found.push((rank(own.keys, own.unmet), way));
            }
        }
    }
    // Of equals the first.
    found.into_iter().rev().max_by_key(|(rank, _)| *rank).map(|(_, way)| way)
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
