//! How two tensors stand to each other, and whether one can stand for the other.
//!
//! Headers tell much of it. What only bytes can tell is looked for among the answers, and is a
//! question of the plan if it isn't there.

use crate::key::Key;
use crate::plan::context::Context;
use crate::plan::draft::Draft;
use crate::plan::{Answer, NodeId, Op, Question, Share};
use crate::tensor::TensorInfo;
use crate::tensor::companion;

/// How many ops deep two tensors are compared.
const MAX_DEPTH: usize = 32;

/// How two tensors stand to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// One node: the same tensor.
    Same,
    Equal,
    /// With the number of bytes that differ, if it was counted.
    Differ(Option<u64>),
    /// Only the bytes could tell.
    Unknown,
    /// The bytes were not asked, since what they would tell matters to another part of the target.
    Elsewhere,
}

/// Whether this part of the target doesn't have both keys: then their bytes need not be read to
/// compare them.
pub(super) fn is_elsewhere(context: &Context<'_>, a: &Key, b: &Key) -> bool {
    match (context.options.part, context.options.wanted) {
        (Share::Whole, _) | (Share::Open, None) => false,
        (Share::Open, Some(part)) | (Share::Keys(part), _) => {
            !(part.contains(a) && part.contains(b))
        }
    }
}

/// How two keys stand to each other: by node, by shape, or by the bytes of the checkpoint,
/// which are not read if one is `elsewhere`.
pub(super) fn relation(
    context: &Context<'_>,
    draft: &Draft,
    a: &str,
    b: &str,
    elsewhere: bool,
) -> Relation {
    let (Some(a), Some(b)) = (draft.state.get(a), draft.state.get(b)) else {
        return Relation::Unknown;
    };
    match node_relation(draft, a.node, b.node, 0) {
        None if elsewhere => Relation::Elsewhere,
        Some(known) => known,
        None => compared(context, draft, a.node, b.node, 0),
    }
}

/// What is known of two nodes from headers.
fn node_relation(draft: &Draft, a: NodeId, b: NodeId, depth: usize) -> Option<Relation> {
    if a == b {
        return Some(Relation::Same);
    }
    (depth == 0 && draft.graph.info(a) != draft.graph.info(b)).then_some(Relation::Differ(None))
}

/// How the bytes of two nodes stand to each other: those of the checkpoint's tensors, or of
/// what the same ops make of equal ones.
pub(super) fn compared(
    context: &Context<'_>,
    draft: &Draft,
    a: NodeId,
    b: NodeId,
    depth: usize,
) -> Relation {
    if let Some(known) = node_relation(draft, a, b, depth) {
        return known;
    }
    let (x, y) = (draft.graph.node(a), draft.graph.node(b));
    if let (Op::Source { key: x }, Op::Source { key: y }) = (&x.op, &y.op) {
        return answered(context, x, y);
    }
    if x.op != y.op || x.info != y.info || x.inputs.len() != y.inputs.len() || depth >= MAX_DEPTH {
        return Relation::Unknown;
    }
    // Elements that are only put elsewhere differ as often as before.
    let moves_all = x.op.is_index_map() && !matches!(x.op, Op::Narrow { .. });
    let mut differing = Some(0u64);
    let mut equal = true;
    for (x, y) in x.inputs.iter().zip(&y.inputs) {
        match compared(context, draft, *x, *y, depth + 1) {
            Relation::Same | Relation::Equal => {}
            Relation::Differ(bytes) if moves_all => {
                equal = false;
                differing = differing.zip(bytes).map(|(sum, bytes)| sum.saturating_add(bytes));
            }
            Relation::Differ(_) | Relation::Unknown | Relation::Elsewhere => {
                return Relation::Unknown;
            }
        }
    }
    if equal { Relation::Equal } else { Relation::Differ(differing) }
}

/// What the bytes of two tensors of the checkpoint say; if that isn't known, it is asked.
fn answered(context: &Context<'_>, a: &Key, b: &Key) -> Relation {
    let question = Question { a: a.clone(), b: b.clone() };
    match context.options.answers.get(&question) {
        Some(Answer::Equal) => Relation::Equal,
        Some(Answer::Differ(bytes)) => Relation::Differ(Some(bytes)),
        Some(Answer::Unknown) => Relation::Unknown,
        None => {
            context.asked.note(question);
            Relation::Unknown
        }
    }
}

/// Whether two nodes are made alike of tensors of the checkpoint that are equal. Of those that are
/// not, ops may still make equal ones; that doesn't count here.
pub(super) fn made_alike(
    context: &Context<'_>,
    draft: &Draft,
    a: NodeId,
    b: NodeId,
    depth: usize,
) -> Relation {
    if let Some(known) = node_relation(draft, a, b, depth) {
        return known;
    }
    let (x, y) = (draft.graph.node(a), draft.graph.node(b));
    if let (Op::Source { key: x }, Op::Source { key: y }) = (&x.op, &y.op) {
        return if draft.graph.info(a) == draft.graph.info(b) {
            answered(context, x, y)
        } else {
            Relation::Differ(None)
        };
    }
    if x.op != y.op || x.info != y.info || x.inputs.len() != y.inputs.len() || depth >= MAX_DEPTH {
        return Relation::Differ(None);
    }
    // Of every pair the question is noted, also of those after one that is not known.
    let pairs = x.inputs.iter().zip(&y.inputs);
    let all = pairs.map(|(x, y)| made_alike(context, draft, *x, *y, depth + 1));
    all.fold(Relation::Equal, |all, one| match (all, one) {
        (Relation::Differ(a), Relation::Differ(b)) => {
            Relation::Differ(a.zip(b).map(|(a, b)| a.saturating_add(b)))
        }
        (Relation::Differ(bytes), _) | (_, Relation::Differ(bytes)) => Relation::Differ(bytes),
        (Relation::Unknown, _) | (_, Relation::Unknown) => Relation::Unknown,
        _ => Relation::Equal,
    })
}

/// Why a key can't stand for another: what the target manifest says of that, or a scale that
/// would stay behind.
pub(super) fn not_a_candidate(
    context: &Context<'_>,
    draft: &Draft,
    source: &Key,
    target: Option<&Key>,
) -> Option<String> {
    let entry = draft.state.get(source)?;
    let info = draft.graph.info(entry.node);
    let wanted: Option<&TensorInfo> =
        target.and_then(|target| context.options.wanted.and_then(|wanted| wanted.get(target)));
    if let Some(wanted) = wanted
            // Another dtype is judged as that of any other key, when the target is met.
            && wanted.shape != info.shape
    {
        return Some(format!("the target manifest asks for {wanted}, and it is {info}"));
    }
    would_stay(context, draft, source, target?)
        .map(|scale| format!("it is quantized, and its scale `{scale}` would stay behind"))
}

/// What a quantized source can't be read without and a tie would not take along.
fn would_stay(context: &Context<'_>, draft: &Draft, source: &Key, target: &Key) -> Option<String> {
    let unasked = || {
        let (wanted, mut names) =
            context.options.wanted.zip(companion::side_by_side(source, target))?;
        names
            .find(|(name, there, role)| {
                role.is_needed() && draft.state.contains(name) && !wanted.contains(there)
            })
            .map(|(name, ..)| name)
    };
    without_place(draft, source, target).or_else(unasked)
}

/// What a quantized source can't be read without, if it has no name beside the target.
pub(super) fn without_place(draft: &Draft, source: &Key, target: &Key) -> Option<String> {
    if companion::side_by_side(source, target).is_some() {
        return None;
    }
    let mut names = companion::names_of(source).into_iter();
    names.find(|(name, role)| role.is_needed() && draft.state.contains(name)).map(|(name, _)| name)
}

pub(super) fn differing(bytes: Option<u64>) -> String {
    match bytes {
        Some(1) => " in 1 byte".to_owned(),
        Some(bytes) => format!(" in {bytes} bytes"),
        None => " in dtype or shape".to_owned(),
    }
}
