//! `tie`: keys that are one tensor. Loading, a missing one is aliased to its source; saving, one that really is its source goes.

use std::collections::BTreeSet;

use crate::check::value::Scope;
use crate::check::{Direction, Step, Tie};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::{TIE_ABSENT, TIE_APPLIED, TIE_DIFFERS, TIE_REFUSED, UNDECIDED};
use crate::key::{Binding, Bindings, Key, Pattern, Segments};
use crate::plan::state::Entry;
use crate::plan::{DropReason, Equality, NodeId, Op, Planner, RuleId};
use crate::syntax::ast::{IfAbsent, IfPresent};
use crate::tensor::TensorInfo;

/// Names that a quantized tensor's scale goes by, beside its own.
/// Source: DeepSeek-V3 (`weight_scale_inv`), compressed-tensors and ModelOpt (`weight_scale`), GPT-OSS (`_scales`).
const SCALES: &[&str] = &["_scale_inv", "_scale", "_scales", "_blocks_scale", "_absmax"];

/// How two tensors stand to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// One node: the same tensor.
    Same,
    Equal,
    /// With the number of bytes that differ, if it was counted.
    Differ(Option<u64>),
    /// Only the bytes could tell.
    Unknown,
}

impl Planner<'_> {
    pub(in crate::plan) fn tie(&mut self, step: &Step, tie: &Tie, scope: &Scope, direction: Direction) -> Result<(), Box<Diagnostic>> {
        if let Some(condition) = &tie.condition
            && !self.truth(scope, condition)?
        {
            return Ok(());
        }
        let direction = if tie.inverted { direction.opposite() } else { direction };
        let rule = self.rule_id(&step.place, 0, &step.text);
        for bindings in self.tie_instances(tie) {
            let render = |patterns: &[Pattern]| -> Vec<Key> {
                patterns.iter().filter_map(|pattern| pattern.render("", &bindings).map(Key::from)).collect()
            };
            let (targets, sources) = (render(&tie.targets), render(&tie.sources));
            match direction {
                Direction::Forward => self.tie_forward(step, tie, rule, &targets, &sources)?,
                Direction::Reverse => self.tie_reverse(step, rule, &targets, &sources),
            }
        }
        Ok(())
    }

    /// The values of the captures for which a target or a source is there or wanted; one, empty, if there are no captures.
    fn tie_instances(&self, tie: &Tie) -> Vec<Bindings> {
        if tie.slots == 0 {
            return vec![Bindings::new(0)];
        }
        let mut found: BTreeSet<Vec<Binding>> = BTreeSet::new();
        let mut segments = Segments::default();
        let here = self.state.iter().map(|(_, entry)| &entry.key);
        let wanted = self.options.wanted.iter().flat_map(|wanted| wanted.keys.keys());
        for key in here.chain(wanted) {
            segments.split(key);
            for pattern in tie.targets.iter().chain(&tie.sources) {
                let mut bindings = Bindings::new(tie.slots);
                if pattern.slots().len() == tie.slots && pattern.matches(key, &segments, &mut bindings) {
                    let values = (0..tie.slots).filter_map(|at| u16::try_from(at).ok()).map(crate::key::Slot);
                    found.insert(
                        values
                            .map(|slot| match bindings.text(slot, key) {
                                Some(text) => Binding::Owned(text.into()),
                                None => bindings.get(slot).clone(),
                            })
                            .collect(),
                    );
                }
            }
        }
        found
            .into_iter()
            .map(|values| {
                let mut bindings = Bindings::new(values.len());
                for (slot, value) in (0u16..).map(crate::key::Slot).zip(values) {
                    bindings.set(slot, value);
                }
                bindings
            })
            .collect()
    }

    fn tie_forward(&mut self, step: &Step, tie: &Tie, rule: RuleId, targets: &[Key], sources: &[Key]) -> Result<(), Box<Diagnostic>> {
        let (present, missing): (Vec<&Key>, Vec<&Key>) = targets.iter().partition(|key| self.state.contains(key));
        let mut root = None;
        for source in sources.iter().filter(|source| self.state.contains(source)) {
            match self.not_a_candidate(source, &missing) {
                None => {
                    root = Some(source.clone());
                    break;
                }
                Some(why) if !missing.is_empty() => {
                    let finding = Diagnostic::warning(TIE_REFUSED, format!("`{source}` is no candidate for `{}`: {why}", missing[0]));
                    self.findings.push(finding.at(step.place.clone(), "tied here").keys([source.as_str(), missing[0].as_str()]));
                }
                Some(_) => {}
            }
        }
        // The other way round: a wanted source that is missing is one tensor with a target that is there.
        if root.is_none()
            && !sources.iter().any(|source| self.state.contains(source))
            && let Some(target) = present.first()
            && let Some(source) = sources.iter().find(|source| self.options.wanted.is_some_and(|wanted| wanted.contains(source)))
        {
            match self.not_a_candidate(target, &[source]) {
                None => {
                    self.alias(rule, source, target, false);
                    if let Some(entry) = self.state.get_mut(target) {
                        entry.tied = true;
                    }
                    root = Some(source.clone());
                }
                Some(why) => {
                    let finding = Diagnostic::warning(TIE_REFUSED, format!("`{target}` is no candidate for `{source}`: {why}"));
                    self.findings.push(finding.at(step.place.clone(), "tied here").keys([target.as_str(), source.as_str()]));
                }
            }
        }
        let Some(root) = root else {
            if !missing.is_empty() && present.is_empty() {
                self.tie_absent(step, tie, &missing, sources)?;
            }
            return Ok(());
        };
        for target in missing {
            self.alias(rule, target, &root, true);
        }
        for target in present {
            self.tie_present(step, tie, rule, target, &root)?;
        }
        Ok(())
    }

    /// Makes `key` one tensor with `of`.
    fn alias(&mut self, rule: RuleId, key: &Key, of: &Key, tied: bool) {
        let Some(source) = self.state.get(of) else { return };
        let mut entry = Entry { key: key.clone(), tied, ..source.clone() };
        entry.rules.push(rule);
        self.count(rule, 1);
        self.findings.push(Diagnostic::note(TIE_APPLIED, format!("`{key}` is one tensor with `{of}`")).keys([key.as_str(), of.as_str()]));
        self.put(entry);
    }

    /// A target that is there beside its source.
    fn tie_present(&mut self, step: &Step, tie: &Tie, rule: RuleId, target: &Key, root: &Key) -> Result<(), Box<Diagnostic>> {
        match (self.relation(target, root), tie.present) {
            (Relation::Same, _) => {}
            (Relation::Equal, IfPresent::Alias | IfPresent::Require) => {
                let node = self.state.get(root).map(|entry| entry.node);
                if let (Some(node), Some(entry)) = (node, self.state.get_mut(target)) {
                    let old = std::mem::replace(&mut entry.node, node);
                    entry.tied = true;
                    entry.rules.push(rule);
                    self.drop_sources(old, &DropReason::TiedTo(root.clone()));
                    self.count(rule, 1);
                }
            }
            (Relation::Equal, IfPresent::Keep) => {}
            (Relation::Unknown, _) => {
                let finding =
                    Diagnostic::note(UNDECIDED, format!("`{target}` and `{root}` are both there; their bytes are not compared here"));
                self.findings.push(finding.at(step.place.clone(), "tied here").keys([target.as_str(), root.as_str()]));
            }
            (Relation::Differ(bytes), present) => {
                let message = format!("`{target}` is tied to `{root}` but differs from it{}", differing(bytes));
                let finding = if present == IfPresent::Require { Diagnostic::error } else { Diagnostic::warning };
                let finding = finding(TIE_DIFFERS, message).at(step.place.clone(), "tied here").keys([target.as_str(), root.as_str()]);
                let finding = finding.hint("it is kept as it is: dropping it would lose a trained tensor");
                if present == IfPresent::Require {
                    return Err(Box::new(finding));
                }
                self.findings.push(finding);
            }
        }
        Ok(())
    }

    fn tie_absent(&mut self, step: &Step, tie: &Tie, missing: &[&Key], sources: &[Key]) -> Result<(), Box<Diagnostic>> {
        let keys = || missing.iter().map(|key| key.as_str()).chain(sources.iter().map(Key::as_str));
        let message = format!("`{}` is missing, and so is every source it is tied to", missing[0]);
        match tie.absent {
            IfAbsent::Skip => Ok(()),
            IfAbsent::Fallback => {
                let finding = Diagnostic::warning(TIE_ABSENT, message).at(step.place.clone(), "tied here").keys(keys());
                self.findings.push(finding.hint("the tensor that the model holds now stays"));
                Ok(())
            }
            IfAbsent::Error => Err(Box::new(Diagnostic::error(TIE_ABSENT, message).at(step.place.clone(), "tied here").keys(keys()))),
        }
    }

    fn tie_reverse(&mut self, step: &Step, rule: RuleId, targets: &[Key], sources: &[Key]) {
        let Some(root) = sources.iter().find(|source| self.state.contains(source)).cloned() else { return };
        for target in targets {
            if !self.state.contains(target) {
                continue;
            }
            match self.relation(target, &root) {
                Relation::Same | Relation::Equal => {
                    let Some(entry) = self.state.remove(target) else { continue };
                    let same = self.state.get(&root).is_some_and(|source| source.node == entry.node);
                    if !same {
                        self.drop_sources(entry.node, &DropReason::TiedTo(root.clone()));
                    }
                    self.count(rule, 1);
                    let message = format!("`{target}` is left out: it is one tensor with `{root}`");
                    self.findings.push(Diagnostic::note(TIE_APPLIED, message).keys([target.as_str(), root.as_str()]));
                }
                Relation::Differ(bytes) => {
                    let message = format!("`{target}` is tied to `{root}` but differs from it{}, so it is kept", differing(bytes));
                    let finding = Diagnostic::warning(TIE_DIFFERS, message).at(step.place.clone(), "tied here");
                    self.findings.push(finding.keys([target.as_str(), root.as_str()]));
                }
                Relation::Unknown => {
                    let message = format!("`{target}` is left out if it equals `{root}` byte for byte, which is not compared here");
                    let finding = Diagnostic::note(UNDECIDED, message).at(step.place.clone(), "tied here");
                    self.findings.push(finding.keys([target.as_str(), root.as_str()]));
                }
            }
        }
    }

    /// How two keys stand to each other: by node, by shape, or by the bytes of the checkpoint.
    fn relation(&self, a: &str, b: &str) -> Relation {
        let (Some(a), Some(b)) = (self.state.get(a), self.state.get(b)) else { return Relation::Unknown };
        if a.node == b.node {
            return Relation::Same;
        }
        if self.graph.info(a.node) != self.graph.info(b.node) {
            return Relation::Differ(None);
        }
        let source = |node: NodeId| match &self.graph.node(node).op {
            Op::Source { key } => Some(key),
            _ => None,
        };
        match (source(a.node), source(b.node), self.options.equal) {
            (Some(a), Some(b), Some(equal)) => match equal(a, b) {
                Some(Equality::Equal) => Relation::Equal,
                Some(Equality::Differ(bytes)) => Relation::Differ(Some(bytes)),
                None => Relation::Unknown,
            },
            _ => Relation::Unknown,
        }
    }

    /// Why a key can't stand for another: what the target manifest says of that, or a scale that would stay behind.
    fn not_a_candidate(&self, source: &Key, targets: &[&Key]) -> Option<String> {
        let entry = self.state.get(source)?;
        let info = self.graph.info(entry.node);
        let wanted: Option<&TensorInfo> = targets.iter().find_map(|target| self.options.wanted.and_then(|wanted| wanted.get(target)));
        if let Some(wanted) = wanted
            && wanted != info
        {
            return Some(format!("the target manifest asks for {wanted}, and it is {info}"));
        }
        let scale = SCALES.iter().map(|suffix| format!("{source}{suffix}")).find(|scale| self.state.contains(scale));
        scale.map(|scale| format!("it is quantized, and its scale `{scale}` would stay behind"))
    }
}

fn differing(bytes: Option<u64>) -> String {
    match bytes {
        Some(1) => " in 1 byte".to_owned(),
        Some(bytes) => format!(" in {bytes} bytes"),
        None => " in dtype or shape".to_owned(),
    }
}
