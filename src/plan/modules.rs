//! A module is a unit: what belongs to a tensor goes where the tensor goes.
//!
//! A companion (`tensor/companion.rs`) was left behind if the rules that took its tensor did all
//! that was done to it, and more; if it isn't beside the tensor in the end; and if nothing computes
//! the tensor from it. Beside a quantized `weight` every tensor of the module is its companion,
//! whatever its name. What a rule of its own takes elsewhere, what is dropped, and what a target
//! manifest doesn't ask for is not held against anyone.

use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::IndexSet;
use smallvec::SmallVec;

use crate::diagnostic::codes::{HALF_MOVED, STALE_CONFIG, STRANDED};
use crate::diagnostic::{Diagnostic, Severity};
use crate::key::Key;
use crate::plan::blocks::rows::{Biased, out_of_order};
use crate::plan::context::Context;
use crate::plan::counted;
use crate::plan::draft::Draft;
use crate::plan::graph::{Graph, Walks};
use crate::plan::node::{NodeId, Op, RuleId};
use crate::plan::state::Current;
use crate::tensor::companion::{Role, is_main, module, tensor_of};
use crate::tensor::{Dtype, TensorInfo};

/// Which entries a tensor of the checkpoint is used in.
type Uses = SmallVec<[u32; 1]>;

/// A tensor and what belongs to it, as they are in the checkpoint.
pub(super) struct Pair {
    pub(super) tensor: NodeId,
    pub(super) companion: NodeId,
    /// Their keys.
    pub(super) keys: [Key; 2],
    /// What it is by its name; no known part, beside a quantized tensor, if `None`.
    pub(super) role: Option<Role>,
}

impl Pair {
    /// Whether a target is no longer quantized, as the tensor was.
    fn was_dequantized(&self, draft: &Draft, target: &Current) -> bool {
        is_quantized(draft.graph.info(self.tensor)) && !is_quantized(draft.graph.info(target.node))
    }
}

/// What stays behind and why: by rule, and how bad it is.
type Found = BTreeMap<(RuleId, bool), (String, IndexSet<Key>)>;

/// What is left behind, of what belongs to a tensor.
#[derive(Default)]
pub(super) struct LeftBehind {
    /// Of biases that are moved otherwise than their tensors.
    half_moved: Vec<Diagnostic>,
    stranded: Vec<Diagnostic>,
}

impl LeftBehind {
    pub(super) fn report(self, draft: &mut Draft) {
        self.half_moved.into_iter().for_each(|finding| draft.report_instance(finding));
        draft.findings.extend(self.stranded);
    }
}

/// Refuses to leave behind what belongs to a quantized tensor, and warns of biases.
pub(super) fn check_modules(draft: &Draft, entries: &[Current], pairs: &[Pair]) -> LeftBehind {
    let touched =
        |entry: &Current| entry.rules.iter().any(|rule| draft.rewrites.contains_key(rule));
    if pairs.is_empty() || !entries.iter().any(touched) {
        return LeftBehind::default();
    }
    let uses = uses(draft, entries);
    let mut found = Found::new();
    let mut biased = Vec::new();
    for pair in pairs {
        let users =
            |node: NodeId| uses[node.0 as usize].iter().map(|at| (*at, &entries[*at as usize]));
        let [tensor, companion] = &pair.keys;
        let is_error = pair
            .role
            .is_none_or(|role| role.is_needed() || is_quantized(draft.graph.info(pair.tensor)));
        if pair.role == Some(Role::Bias) {
            for (_, moved) in users(pair.tensor).filter(|(_, entry)| !entry.tied && touched(entry))
            {
                let beside =
                    users(pair.companion).find(|(_, entry)| is_beside(&moved.key, &entry.key));
                let made = |(_, beside)| Biased {
                    tensor: pair.tensor,
                    bias: pair.companion,
                    moved,
                    beside,
                };
                biased.extend(beside.map(made));
            }
        }
        // What is added, or scales what goes through a module, may have a place of its own:
        // only what the tensor can't be read without must not go without it.
        let ways =
            if pair.role.is_none_or(Role::is_needed) { &[false, true][..] } else { &[false] };
        for tensor_stays in ways.iter().copied() {
            let (stays, goes) = if tensor_stays {
                (pair.tensor, pair.companion)
            } else {
                (pair.companion, pair.tensor)
            };
            let (left, taken) =
                if tensor_stays { (tensor, companion) } else { (companion, tensor) };
            let Some((rule, there)) =
                left_behind(draft, pair, &|| users(stays), &|| users(goes), tensor_stays)
            else {
                continue;
            };
            let (_, keys) = found.entry((rule, is_error)).or_insert_with(|| {
                let what = pair.role.map_or("a part", Role::described);
                let message = if tensor_stays {
                    format!("`{left}` stays behind: `{taken}`, {what} of it, becomes `{there}`")
                } else {
                    format!(
                        "`{left}` stays behind: it is {what} of `{taken}`, which becomes `{there}`"
                    )
                };
                (message, IndexSet::new())
            });
            keys.insert(left.clone());
        }
    }
    let half = out_of_order(draft, biased);
    let stranded =
        found.into_iter().map(|((rule, is_error), it)| stranded(draft, rule, is_error, it));
    LeftBehind {
        half_moved: half.iter().map(|it| half_moved(draft, it)).collect(),
        stranded: stranded.collect(),
    }
}

/// Notes a config that says of a result how it is quantized, if it isn't any more. The config is
/// copied as it is.
pub(super) fn check_config(
    context: &Context<'_>,
    draft: &mut Draft,
    entries: &[Current],
    pairs: &[Pair],
) {
    let Some(said) = context.options.config.value().get("quantization_config") else { return };
    let is_needed = |pair: &Pair| pair.role.is_some_and(Role::is_needed);
    if !said.is_object() || !pairs.iter().any(is_needed) {
        return;
    }
    let results: HashSet<&str, foldhash::fast::RandomState> =
        entries.iter().map(|entry| entry.key.as_str()).collect();
    let has = |key: &str| results.contains(key);
    let quantized = |entry: &Current| {
        tensor_of(entry.key.as_str(), &has).is_some_and(|(_, role)| role.is_needed())
    };
    if entries.is_empty() || entries.iter().any(quantized) {
        return;
    }
    let method = said.get("quant_method").and_then(|method| method.as_str()).unwrap_or("somehow");
    let message =
        format!("config.json says that this is quantized (`{method}`), which the result isn't");
    draft.findings.push(
        Diagnostic::note(STALE_CONFIG, message)
            .hint("take `quantization_config` out of the config.json beside the result: it is copied as it is"),
    );
}

fn half_moved(draft: &Draft, it: &Biased<'_>) -> Diagnostic {
    let (tensor, bias) = (&it.moved.key, &it.beside.key);
    let message = format!(
        "half moved: the rows of `{tensor}` are put into another order than those of `{bias}`"
    );
    let mut finding = Diagnostic::warning(HALF_MOVED, message);
    if let Some(place) = rewrote(draft, it.moved).last().and_then(|rule| draft.places.get(&rule)) {
        finding = finding.at(place.clone(), "moves one and not the other");
    }
    finding.keys([tensor.as_str(), bias.as_str()]).hint("do the same to both: `{t: weight|bias}`")
}

fn stranded(
    draft: &Draft,
    rule: RuleId,
    is_error: bool,
    (message, keys): (String, IndexSet<Key>),
) -> Diagnostic {
    let mut finding = Diagnostic::warning(STRANDED, message);
    if is_error {
        finding.severity = Severity::Error;
    }
    if let Some(place) = draft.places.get(&rule) {
        finding =
            finding.at(place.clone(), format!("leaves {} behind", counted(keys.len(), "key")));
    }
    let finding = finding.keys(keys.iter().map(|key| key.as_str()));
    if draft.rewrites.get(&rule).is_some_and(|rule| rule.built_in) {
        let finding =
                finding.hint("these rules don't know how to take it along: dequantize the checkpoint first (`--rules dequant`), or write rules of your own");
        return finding.hint("or `drop` what isn't needed in a rule file that is applied before");
    }
    let finding = finding.hint("take what belongs to the tensor along: `{t: weight|weight_scale|bias}`, or a rule for each part");
    finding.hint("or `drop` what isn't needed any more; `alone` at the end of the rule says that it is meant to stay")
}

/// The rule that took a tensor away from another, and what it became; `None` if they are
/// together, or the rules say otherwise.
fn left_behind<'e, I: Iterator<Item = (u32, &'e Current)>>(
    draft: &Draft,
    pair: &Pair,
    stays: &dyn Fn() -> I,
    goes: &dyn Fn() -> I,
    tensor_stays: bool,
) -> Option<(RuleId, &'e Key)> {
    // Dropped, or not asked for.
    stays().next()?;
    for (at, moved) in goes().filter(|(_, entry)| !entry.tied) {
        let together = stays().any(|(other, entry)| {
            let (tensor, companion) = if tensor_stays { (entry, moved) } else { (moved, entry) };
            // Beside what was dequantized without it, it would say what isn't so any more.
            let beside = is_beside(&tensor.key, &companion.key)
                && !(pair.role.is_some_and(Role::is_needed) && pair.was_dequantized(draft, tensor));
            // Computed from both, or beside each other, or taken elsewhere by a rule of its
            // own.
            other == at || beside || !rewrote(draft, entry).all(|rule| moved.rules.contains(&rule))
        });
        if together {
            continue;
        }
        let more = rewrote(draft, moved)
            .find(|rule| stays().all(|(_, entry)| !entry.rules.contains(rule)));
        if let Some(rule) =
            more.filter(|rule| !draft.rewrites.get(rule).is_some_and(|rule| rule.alone))
        {
            return Some((rule, &moved.key));
        }
    }
    None
}

/// The rules of `rename`s and `map`s that made an entry.
fn rewrote<'e>(draft: &'e Draft, entry: &'e Current) -> impl Iterator<Item = RuleId> + 'e {
    entry.rules.iter().copied().filter(|rule| draft.rewrites.contains_key(rule))
}

/// By node, the entries that a tensor of the checkpoint is used in.
fn uses(draft: &Draft, entries: &[Current]) -> Vec<Uses> {
    let mut uses = vec![Uses::new(); draft.graph.nodes.len()];
    let mut walks = Walks::default();
    for (at, entry) in (0u32..).zip(entries) {
        walks.walk(&draft.graph, entry.node, |id, node| {
            let is_source = matches!(node.op, Op::Source { .. });
            if is_source {
                uses[id.0 as usize].push(at);
            }
            !is_source
        });
    }
    uses
}

/// Every tensor of the checkpoint with each that belongs to it.
pub(super) fn pairs(graph: &Graph) -> Vec<Pair> {
    let has = |key: &str| graph.find_source(key).is_some();
    let mut pairs = Vec::new();
    // What stands beside a quantized weight belongs to it, whatever it is called.
    let quantized: HashMap<&str, NodeId, foldhash::fast::RandomState> = graph
        .sources()
        .filter(|(key, node)| is_main(key) && is_quantized(graph.info(*node)))
        .map(|(key, node)| (module(key), node))
        .collect();
    for (key, companion) in graph.sources() {
        let (tensor, role) = match tensor_of(key, &has) {
            Some((tensor, role)) => (graph.find_source(&tensor), Some(role)),
            None if quantized.is_empty() || is_main(key) => continue,
            None => (quantized.get(module(key)).copied(), None),
        };
        let Some(tensor) = tensor else { continue };
        if let Op::Source { key: of } = &graph.node(tensor).op {
            pairs.push(Pair { tensor, companion, keys: [of.clone(), key.clone()], role });
        }
    }
    pairs
}

/// Whether a key stands where what belongs to a tensor stands.
fn is_beside(tensor: &str, key: &str) -> bool {
    let own = module(key);
    (is_main(tensor) && own == module(tensor))
        || own == tensor
        || tensor_of(key, &|known| known == tensor).is_some()
}

/// Whether its elements are no numbers that a model computes with.
pub(super) fn is_quantized(info: &TensorInfo) -> bool {
    !matches!(info.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64 | Dtype::C64)
}
