//! `strip`: wrapper segments go, to a fixed point; whole segments only, collisions refused, a count for each reported.

use indexmap::IndexMap;

use crate::check::Step;
use crate::check::value::Scope;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::{FLAT_PARAMETER, STRIPPED};
use crate::plan::{Planner, counted};

/// Leaf segments of FSDP1 flat parameters: one key stands for many tensors.
/// Source: `torch/distributed/fsdp/_flat_param.py` (`FLAT_PARAM = "_flat_param"`, the older `flat_param_`), PyTorch 2.x.
const FLAT: &[&str] = &["_flat_param", "flat_param", "_fsdp_flattened_param"];

impl Planner<'_> {
    pub(in crate::plan) fn strip_anywhere(&mut self, step: &Step, wrappers: &[Vec<String>], scope: &Scope) -> Result<(), Box<Diagnostic>> {
        self.refuse_flat_parameters(step)?;
        let mut counts: IndexMap<&[String], usize> = IndexMap::new();
        let mut changes = Vec::new();
        for (at, entry) in self.state.iter() {
            if let Some(key) = strip_key(&entry.key, wrappers, scope, |wrapper| *counts.entry(wrapper).or_default() += 1) {
                changes.push((at, key));
            }
        }
        self.apply_strip(step, changes, &counts);
        Ok(())
    }

    pub(in crate::plan) fn strip_leading(
        &mut self,
        step: &Step,
        wrappers: &[Vec<String>],
        if_wanted: bool,
        scope: &Scope,
    ) -> Result<(), Box<Diagnostic>> {
        self.refuse_flat_parameters(step)?;
        let mut keys: Vec<(usize, String)> =
            self.state.iter().filter_map(|(at, entry)| Some((at, below(&entry.key, &scope.under)?.to_owned()))).collect();
        let mut counts: IndexMap<&[String], usize> = IndexMap::new();
        let mut changed = false;
        while !keys.is_empty() {
            let carried = wrappers.iter().find(|wrapper| keys.iter().all(|(_, key)| without(key, wrapper).is_some()));
            let Some(wrapper) = carried else { break };
            let shorter: Vec<(usize, String)> =
                keys.iter().filter_map(|(at, key)| Some((*at, without(key, wrapper)?.to_owned()))).collect();
            if if_wanted && !self.meets_better(&shorter, &keys, scope) {
                break;
            }
            *counts.entry(wrapper).or_default() += keys.len();
            keys = shorter;
            changed = true;
        }
        if changed {
            let changes = keys.into_iter().map(|(at, key)| (at, rejoin(&scope.under, &[&key]))).collect();
            self.apply_strip(step, changes, &counts);
        }
        Ok(())
    }

    /// Whether more of the new keys than of the old are what the target manifest asks for.
    fn meets_better(&self, new: &[(usize, String)], old: &[(usize, String)], scope: &Scope) -> bool {
        let Some(wanted) = self.options.wanted else { return false };
        let known = |keys: &[(usize, String)]| keys.iter().filter(|(_, key)| wanted.contains(&rejoin(&scope.under, &[key]))).count();
        known(new) > known(old)
    }

    fn apply_strip(&mut self, step: &Step, changes: Vec<(usize, String)>, counts: &IndexMap<&[String], usize>) {
        if changes.is_empty() {
            return;
        }
        self.rename_all(step, changes);
        let each: Vec<String> =
            counts.iter().map(|(wrapper, count)| format!("`{}` {}", wrapper.join("."), counted(*count, "time"))).collect();
        self.findings.push(Diagnostic::note(STRIPPED, format!("stripped {}", each.join(", "))));
    }

    fn refuse_flat_parameters(&self, step: &Step) -> Result<(), Box<Diagnostic>> {
        let is_flat = |key: &str| {
            let leaf = key.rsplit('.').next().unwrap_or(key);
            FLAT.iter().any(|flat| leaf == *flat || leaf.strip_prefix(flat).is_some_and(|rest| rest.starts_with('_')))
        };
        let flat: Vec<String> =
            self.state.iter().filter(|(_, entry)| is_flat(&entry.key)).map(|(_, entry)| entry.key.clone().into()).collect();
        if flat.is_empty() {
            return Ok(());
        }
        Err(Box::new(
            Diagnostic::error(
                FLAT_PARAMETER,
                "FSDP1 flat parameters: one key stands for many tensors, whose names are not in the checkpoint",
            )
            .at(step.place.clone(), "wrappers can't be stripped from these")
            .keys(flat)
            .hint("save it again with StateDictType.FULL_STATE_DICT (or SHARDED_STATE_DICT), which gives each tensor its own key"),
        ))
    }
}

/// A key without its wrappers, if it has any and something is left; `found` is told of each.
pub(in crate::plan) fn strip_key<'w>(
    key: &str,
    wrappers: &'w [Vec<String>],
    scope: &Scope,
    mut found: impl FnMut(&'w [String]),
) -> Option<String> {
    let mut kept: Vec<&str> = Vec::new();
    let mut changed = false;
    for segment in below(key, &scope.under)?.split('.') {
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
    prefix.iter().try_fold(key, |rest, segment| rest.strip_prefix(segment.as_str())?.strip_prefix('.'))
}

pub(in crate::plan) fn rejoin(under: &[String], segments: &[&str]) -> String {
    under.iter().map(String::as_str).chain(segments.iter().copied()).collect::<Vec<_>>().join(".")
}

fn ends_with(segments: &[&str], wrapper: &[String]) -> bool {
    segments.len() >= wrapper.len() && segments[segments.len() - wrapper.len()..].iter().zip(wrapper).all(|(a, b)| a == b)
}
