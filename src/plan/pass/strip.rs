//! `strip`: wrapper segments go, to a fixed point; whole segments only, collisions refused, a count
//! for each reported.

use indexmap::IndexMap;

use crate::check::Step;
use crate::check::value::Scope;
use crate::diagnostic::codes::{FLAT_PARAMETER, NOT_STRIPPED, STRIPPED};
use crate::diagnostic::{Diagnostic, Place};
use crate::key::{leaf, segments};
use crate::plan::behind::pattern;
use crate::plan::context::Context;
use crate::plan::counted;
use crate::plan::draft::Draft;

/// Leaf segments of FSDP1 flat parameters: one key stands for many tensors. Source:
/// `torch/distributed/fsdp/_flat_param.py` (`FLAT_PARAM = "_flat_param"`, the older `flat_param_`),
/// PyTorch 2.x.
const FLAT: &[&str] = &["_flat_param", "flat_param", "_fsdp_flattened_param"];

/// A leading wrapper that most keys carry; a few lack it, and so it stays.
#[derive(Clone, Debug)]
pub(in crate::plan) struct Stray {
    place: Place,
    wrapper: String,
    /// Keys in all.
    all: usize,
    /// Those without it.
    lacking: Vec<String>,
}

impl Stray {
    /// What a person reads.
    pub(in crate::plan) fn message(&self) -> String {
        let Self { wrapper, all, lacking, .. } = self;
        let lack = match &lacking[..] {
            [one] => format!("`{one}` lacks it"),
            [one, two] => format!("`{one}` and `{two}` lack it"),
            [one, rest @ ..] => format!("`{one}` and {} lack it", counted(rest.len(), "other key")),
            [] => "others lack it".to_owned(),
        };
        format!(
            "`{wrapper}` leads {} of {}; it isn't stripped because {lack}",
            all - lacking.len(),
            counted(*all, "key")
        )
    }

    /// Whether it is this wrapper.
    pub(in crate::plan) fn is_of(&self, wrapper: &str) -> bool {
        self.wrapper == wrapper
    }

    /// The same where keys are missing because of it.
    pub(in crate::plan) fn hint(&self) -> String {
        format!(
            "{}: drop {} first",
            self.message(),
            if self.lacking.len() == 1 { "that" } else { "those" }
        )
    }

    /// The same where nothing else tells of it.
    pub(in crate::plan) fn note(self) -> Diagnostic {
        let drop: Vec<String> =
            self.lacking.iter().take(2).map(|key| format!("\"{}\"", pattern(key))).collect();
        let more = if self.lacking.len() > 2 { ", …" } else { "" };
        let strip = format!(
            "if it is a wrapper, `drop {}{more}` first, then `strip leading \"{}\"`",
            drop.join(", "),
            self.wrapper
        );
        Diagnostic::note(NOT_STRIPPED, self.message())
            .at(self.place, "goes only if every key has it")
            .keys(self.lacking)
            .hint(strip)
    }
}

pub(in crate::plan) fn strip_anywhere(
    draft: &mut Draft,
    step: &Step,
    wrappers: &[Vec<String>],
    scope: &Scope,
) -> Result<(), Box<Diagnostic>> {
    refuse_flat_parameters(draft, step)?;
    let mut counts: IndexMap<&[String], usize> = IndexMap::new();
    let mut changes = Vec::new();
    for (at, entry) in draft.state.iter() {
        if let Some(key) = strip_key(&entry.key, wrappers, scope, |wrapper| {
            *counts.entry(wrapper).or_default() += 1
        }) {
            changes.push((at, key));
        }
    }
    apply_strip(draft, step, changes, &counts);
    Ok(())
}

pub(in crate::plan) fn strip_leading(
    context: &Context<'_>,
    draft: &mut Draft,
    step: &Step,
    wrappers: &[Vec<String>],
    if_wanted: bool,
    scope: &Scope,
) -> Result<(), Box<Diagnostic>> {
    refuse_flat_parameters(draft, step)?;
    let mut keys: Vec<(usize, String)> = draft
        .state
        .iter()
        .filter_map(|(at, entry)| Some((at, below(&entry.key, &scope.under)?.to_owned())))
        .collect();
    let mut counts: IndexMap<&[String], usize> = IndexMap::new();
    let mut changed = false;
    while !keys.is_empty() {
        let carried = wrappers
            .iter()
            .find(|wrapper| keys.iter().all(|(_, key)| without(key, wrapper).is_some()));
        let Some(wrapper) = carried else {
            note_strays(context, draft, step, wrappers, &keys, if_wanted, scope);
            break;
        };
        let shorter: Vec<(usize, String)> = keys
            .iter()
            .filter_map(|(at, key)| Some((*at, without(key, wrapper)?.to_owned())))
            .collect();
        if if_wanted && !meets_better(context, &shorter, &keys, scope) {
            break;
        }
        *counts.entry(wrapper).or_default() += keys.len();
        keys = shorter;
        changed = true;
    }
    if changed {
        let changes =
            keys.into_iter().map(|(at, key)| (at, rejoin(&scope.under, &[&key]))).collect();
        apply_strip(draft, step, changes, &counts);
    }
    Ok(())
}

/// Remembers a wrapper that most keys carry, and which keys lack it.
fn note_strays(
    context: &Context<'_>,
    draft: &mut Draft,
    step: &Step,
    wrappers: &[Vec<String>],
    keys: &[(usize, String)],
    if_wanted: bool,
    scope: &Scope,
) {
    for wrapper in wrappers {
        let (carry, lack): (Vec<_>, Vec<_>) =
            keys.iter().partition(|(_, key)| without(key, wrapper).is_some());
        if lack.is_empty() || carry.len() <= lack.len() {
            continue;
        }
        // A target that has such names itself doesn't miss them.
        let is_real = context
            .options
            .wanted
            .is_some_and(|wanted| wanted.keys.keys().any(|key| without(key, wrapper).is_some()));
        if !if_wanted && is_real {
            continue;
        }
        if if_wanted {
            let shorter = carry
                .iter()
                .filter_map(|(at, key)| Some((*at, without(key, wrapper)?.to_owned())))
                .collect::<Vec<_>>();
            let longer = carry.into_iter().cloned().collect::<Vec<_>>();
            if !meets_better(context, &shorter, &longer, scope) {
                continue;
            }
        }
        let lacking = lack.iter().map(|(_, key)| rejoin(&scope.under, &[key])).collect();
        let stray = Stray {
            place: step.place.clone(),
            wrapper: wrapper.join("."),
            all: keys.len(),
            lacking,
        };
        if !draft
            .strays
            .iter()
            .any(|known| (&known.wrapper, &known.lacking) == (&stray.wrapper, &stray.lacking))
        {
            draft.strays.push(stray);
        }
    }
}

/// Whether more of the new keys than of the old are what the target manifest asks for.
fn meets_better(
    context: &Context<'_>,
    new: &[(usize, String)],
    old: &[(usize, String)],
    scope: &Scope,
) -> bool {
    let Some(wanted) = context.options.wanted else { return false };
    let known = |keys: &[(usize, String)]| {
        keys.iter().filter(|(_, key)| wanted.contains(&rejoin(&scope.under, &[key]))).count()
    };
    known(new) > known(old)
}

fn apply_strip(
    draft: &mut Draft,
    step: &Step,
    changes: Vec<(usize, String)>,
    counts: &IndexMap<&[String], usize>,
) {
    if changes.is_empty() {
        return;
    }
    draft.rename_all(step, changes);
    let each: Vec<String> = counts
        .iter()
        .map(|(wrapper, count)| format!("`{}` {}", wrapper.join("."), counted(*count, "time")))
        .collect();
    draft.findings.push(Diagnostic::note(STRIPPED, format!("stripped {}", each.join(", "))));
}

fn refuse_flat_parameters(draft: &Draft, step: &Step) -> Result<(), Box<Diagnostic>> {
    let is_flat = |key: &str| {
        let leaf = leaf(key);
        FLAT.iter().any(|flat| {
            leaf == *flat || leaf.strip_prefix(flat).is_some_and(|rest| rest.starts_with('_'))
        })
    };
    let flat: Vec<String> = draft
        .state
        .iter()
        .filter(|(_, entry)| is_flat(&entry.key))
        .map(|(_, entry)| entry.key.clone().into())
        .collect();
    if flat.is_empty() {
        return Ok(());
    }
    Err(Box::new(
            Diagnostic::error(
                FLAT_PARAMETER,
                "FSDP1 flat parameters: one key stands for many tensors, whose names are not in the checkpoint")
            .at(step.place.clone(), "wrappers can't be stripped from these")
            .keys(flat)
            .hint("save it again with StateDictType.FULL_STATE_DICT (or SHARDED_STATE_DICT), which gives each tensor its own key")))
}

/// A key without its wrappers, if it has any and something is left; `found` is told of each.
pub(in crate::plan) fn strip_key<'w>(
    key: &str,
    wrappers: &'w [Vec<String>],
    scope: &Scope,
    mut found: impl FnMut(&'w [String]),
) -> Option<String> {
    let key = below(key, &scope.under)?;
    let ends_one =
        |segment| wrappers.iter().any(|wrapper| wrapper.last().is_some_and(|last| last == segment));
    // Nearly every key.
    if !segments(key).any(ends_one) {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut changed = false;
    for segment in segments(key) {
        kept.push(segment);
        for wrapper in wrappers {
            if ends_with(&kept, wrapper) {
                kept.truncate(kept.len() - wrapper.len());
                found(wrapper);
                changed = true;
                break;
            }
        }
    }
    (changed && !kept.is_empty()).then(|| rejoin(&scope.under, &kept))
}

/// The part of a key below a subtree.
pub(in crate::plan) fn below<'k>(key: &'k str, under: &[String]) -> Option<&'k str> {
    without(key, under)
}

/// A key without leading segments, if it carries them and something is left.
pub(in crate::plan) fn without<'k>(key: &'k str, prefix: &[String]) -> Option<&'k str> {
    prefix
        .iter()
        .try_fold(key, |rest, segment| rest.strip_prefix(segment.as_str())?.strip_prefix('.'))
}

pub(in crate::plan) fn rejoin(under: &[String], segments: &[&str]) -> String {
    under.iter().map(String::as_str).chain(segments.iter().copied()).collect::<Vec<_>>().join(".")
}

fn ends_with(segments: &[&str], wrapper: &[String]) -> bool {
    segments.len() >= wrapper.len()
        && segments[segments.len() - wrapper.len()..].iter().zip(wrapper).all(|(a, b)| a == b)
}
