//! Quantization blocks: index maps may move a block as a whole, and its scale must move along.
//!
//! A tensor is quantized in blocks if its scales lie beside it: one for each 128 × 128 elements (or
//! as config.json, or the shapes, say), or one for each 16 bytes of MXFP4. For each node that only
//! moves such elements it is followed how large the blocks are along each dimension; where one
//! would be cut, or its elements scattered, they are *broken*. What isn't broken maps block to
//! block, and the scales have to go the same way: first the ops are compared one by one, then,
//! where they differ, scale by scale.
//!
//! It doesn't ask for names: a renamed tensor whose scales keep their name is none of its business.

mod follow;
pub(in crate::plan) mod rows;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

#[cfg(feature = "files")]
pub(crate) use follow::block_of;
use follow::{Blocks, ByNode, Quantized, Sizes, follow, grid, quantized};
use smallvec::SmallVec;

use crate::config::Config;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::codes::QUANTIZED_BLOCK;
use crate::key::Key;
use crate::plan::counted;
use crate::plan::draft::Draft;
use crate::plan::graph::{Graph, Walks};
use crate::plan::modules::Pair;
use crate::plan::node::{Arithmetic, Node, NodeId, Op, RuleId};
use crate::plan::state::Current;
use crate::tensor::Shape;

/// Scales of one tensor that are compared one by one.
const COMPARED: u64 = 1 << 20;

/// How many ops deep, and how many in all, two tensors are compared: ties can make a graph that is
/// small and has many ways through it.
const DEPTH: usize = 128;
const STEPS: u32 = 1 << 22;

/// The id of an element that no tensor of the checkpoint has.
const FILLED: u64 = u64::MAX;

/// What a tensor of scales becomes, and the last rule that made each.
type Users = SmallVec<[(NodeId, Option<RuleId>); 2]>;

/// What is wrong with targets, by the rule that made them and by kind: a message, and their keys.
#[derive(Default)]
struct Wrong(BTreeMap<ByRule, (String, Vec<String>)>);

/// A rule, and in which way it is wrong.
type ByRule = (Option<RuleId>, &'static str);

impl Wrong {
    fn say(&mut self, rule: Option<RuleId>, kind: &'static str, key: &Key, message: String) {
        let (_, keys) = self.0.entry((rule, kind)).or_insert_with(|| (message, Vec::new()));
        keys.push(key.to_string());
    }

    fn findings(self, draft: &Draft) -> Vec<Diagnostic> {
        let found = self.0.into_iter().map(|((rule, _), (message, keys))| {
            let mut finding = Diagnostic::error(QUANTIZED_BLOCK, message);
            if let Some(place) = rule.and_then(|rule| draft.places.get(&rule)) {
                let gives = format!("gives {} so", counted(keys.len(), "key"));
                finding = finding.at(place.clone(), gives);
            }
            let finding = finding.keys(keys).hint(
                "move tensor and scales by one rule, in whole blocks: `{t: weight|weight_scale_inv}`",
            );
            finding.hint("or dequantize first: `via dequant_fp8`, or the whole checkpoint with `--rules dequant`")
        });
        found.collect()
    }
}

/// Refuses what cuts through quantization blocks, or moves them without their scales.
pub(super) fn check_blocks(
    config: &Config,
    draft: &Draft,
    entries: &[Current],
    pairs: &[Pair],
) -> Vec<Diagnostic> {
    let is_source = |id: NodeId| matches!(draft.graph.node(id).op, Op::Source { .. });
    if entries.iter().all(|entry| is_source(entry.node)) {
        return Vec::new();
    }
    let quantized = quantized(&draft.graph, pairs, config);
    if quantized.iter().next().is_none() {
        return Vec::new();
    }
    let (blocks, from) = follow(&draft.graph, &quantized);
    let check = Check {
        graph: &draft.graph,
        blocks,
        from,
        quantized,
        steps: Cell::new(0),
        seen: RefCell::default(),
    };
    let using = check.users(entries);
    let is_scaled = |node: &Node| matches!(node.op, Op::Binary { with: Arithmetic::Mul });
    let dequantizes = draft.graph.nodes.iter().any(is_scaled);
    // Results come in the order of their keys, and those of the scales likewise: what follows
    // the last pair is looked at first.
    let mut next: ByNode<usize> = ByNode::default();
    let mut wrong = Wrong::default();
    for entry in entries {
        check.moved(entry, &using, &mut next, &mut wrong);
        if dequantizes {
            check.dequantized_by(entry, &mut wrong);
        }
    }
    wrong.findings(draft)
}

struct Check<'a> {
    graph: &'a Graph,
    quantized: ByNode<Quantized>,
    /// By node.
    blocks: Vec<Blocks>,
    /// By node, a quantized tensor of the checkpoint that its elements are from.
    from: Vec<NodeId>,
    seen: RefCell<Walks>,
    /// Steps of all comparisons so far.
    steps: Cell<u32>,
}

impl Check<'_> {
    /// By scales of the checkpoint, what they become.
    fn users(&self, entries: &[Current]) -> ByNode<Users> {
        let mut are_scales: ByNode<()> = ByNode::default();
        for (_, it) in self.quantized.iter() {
            are_scales.insert(it.scales, ());
        }
        let mut using: ByNode<Users> = ByNode::default();
        for entry in entries {
            let (node, rule) = (self.unconverted(entry.node), entry.rules.last().copied());
            // What is in blocks is made of quantized tensors, not of scales.
            if self.blocks[node.0 as usize] != Blocks::None {
                continue;
            }
            self.leaves(node, |leaf| {
                if are_scales.get(leaf).is_some() {
                    using.get_or_default(leaf).push((node, rule));
                }
            });
        }
        using
    }

    /// Whether what an entry is made of was cut, or moved apart from its scales.
    fn moved(
        &self,
        entry: &Current,
        using: &ByNode<Users>,
        next: &mut ByNode<usize>,
        wrong: &mut Wrong,
    ) {
        let rule = entry.rules.last().copied();
        let source = self.from[entry.node.0 as usize];
        let own = self.quantized.get(source).map(|it| it.scales);
        let used = own.and_then(|own| using.get(own)).map(SmallVec::as_slice).unwrap_or_default();
        match (&self.graph.node(entry.node).op, &self.blocks[entry.node.0 as usize]) {
            (_, Blocks::Broken(broken)) => {
                wrong.say(rule, "cut", &entry.key, self.described(broken.source, &broken.why));
            }
            (Op::Source { .. }, Blocks::Of(_)) => {
                if let Some((_, by)) =
                    used.first().filter(|_| used.iter().all(|(scales, _)| Some(*scales) != own))
                {
                    let why = self.described(source, "its scales are moved, and it is not");
                    wrong.say(*by, "scales", &entry.key, why);
                }
            }
            (_, Blocks::Of(_)) if !used.is_empty() => {
                let next = next.get_or_default(source);
                let at = (0..used.len())
                    .map(|at| (*next + at) % used.len())
                    .find(|at| self.mirrors(entry.node, used[*at].0, 0));
                match at {
                    Some(at) => *next = at + 1,
                    None if used.iter().any(|(scales, _)| self.lies_as(entry.node, *scales)) => {}
                    None => {
                        let why = "it is moved, and its scales are not moved along";
                        wrong.say(rule, "moved", &entry.key, self.described(source, why));
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether an entry is dequantized with the scales that belong to it, in whole blocks.
    fn dequantized_by(&self, entry: &Current, wrong: &mut Wrong) {
        let rule = entry.rules.last().copied();
        for (weight, scales) in self.dequantized(entry.node) {
            match &self.blocks[weight.0 as usize] {
                Blocks::Broken(broken) => {
                    wrong.say(rule, "cut", &entry.key, self.described(broken.source, &broken.why));
                }
                Blocks::Of(_)
                    if !self.mirrors(weight, scales, 0) && !self.lies_as(weight, scales) =>
                {
                    let source = self.from[weight.0 as usize];
                    let why = "it is dequantized with other scales than its own";
                    wrong.say(rule, "moved", &entry.key, self.described(source, why));
                }
                _ => {}
            }
        }
    }

    fn key(&self, id: NodeId) -> Key {
        match &self.graph.node(id).op {
            Op::Source { key } => key.clone(),
            _ => Key::from(""),
        }
    }

    /// A finding: the key, its dtype and shape, its blocks, and what is done to it.
    fn described(&self, source: NodeId, why: &str) -> String {
        let block = self.quantized.get(source).map(|it| &it.block[..]).unwrap_or_default();
        let info = self.graph.info(source);
        let sizes: Vec<String> = block
            .iter()
            .zip(&info.shape[..])
            .map(|(block, size)| block.min(size).to_string())
            .collect();
        format!(
            "`{}`, {info}, is quantized in blocks of {}: {}",
            self.key(source),
            sizes.join(" x "),
            why
        )
    }

    /// Without casts and the like at its end: scales may be converted.
    fn unconverted(&self, mut id: NodeId) -> NodeId {
        while let (
            Op::Cast | Op::Mul { .. } | Op::Add { .. } | Op::Neg | Op::Exp | Op::Log,
            [input],
        ) = (&self.graph.node(id).op, &self.graph.node(id).inputs[..])
        {
            id = *input;
        }
        id
    }

    /// Tells each tensor of the checkpoint whose elements a node moves, once.
    fn leaves(&self, node: NodeId, mut tell: impl FnMut(NodeId)) {
        self.walk(node, |id, node| match &node.op {
            Op::Source { .. } => {
                tell(id);
                false
            }
            op => op.is_index_map(),
        });
    }

    /// Below a node, what is dequantized: the tensor and its scales.
    fn dequantized(&self, node: NodeId) -> Vec<(NodeId, NodeId)> {
        let mut found = Vec::new();
        self.walk(node, |_, node| match (&node.op, &node.inputs[..]) {
            (Op::Binary { with: Arithmetic::Mul }, [x, scales]) => {
                let weight = self.coded(*x);
                let is_quantized = self.blocks[weight.0 as usize] != Blocks::None;
                if is_quantized {
                    found.push((weight, self.unexpanded(*scales)));
                }
                !is_quantized
            }
            _ => true,
        });
        found
    }

    /// The tensor whose codes numbers were, before they were unpacked.
    fn coded(&self, id: NodeId) -> NodeId {
        let mut at = id;
        for _ in 0..DEPTH {
            let node = self.graph.node(at);
            let Some(input) = node.inputs.first() else { break };
            match &node.op {
                Op::Unpack { .. } => return *input,
                Op::Cast | Op::Decode { .. } | Op::Lookup => {}
                Op::Binary { with: Arithmetic::Sub } => {}
                op if op.is_index_map() => {}
                _ => break,
            }
            at = *input;
        }
        self.unconverted(id)
    }

    /// Scales before they were expanded to what they scale, or looked up for each row of it.
    fn unexpanded(&self, id: NodeId) -> NodeId {
        let (mut at, mut found) = (id, id);
        for _ in 0..DEPTH {
            let node = self.graph.node(at);
            match (&node.op, &node.inputs[..]) {
                // Those of two levels are multiplied first.
                (Op::Cast | Op::Decode { .. } | Op::Narrow { .. } | Op::Reshape, [input])
                | (Op::Binary { .. }, [input, _]) => at = *input,
                (Op::Expand, [input]) | (Op::Lookup, [_, input]) => {
                    (at, found) = (*input, *input);
                }
                _ => break,
            }
        }
        self.plain(found)
    }

    /// Without what only casts, scales, or adds dimensions of one element.
    fn plain(&self, mut id: NodeId) -> NodeId {
        for _ in 0..DEPTH {
            let node = self.graph.node(id);
            let real = |of: NodeId| {
                let shape = self.graph.info(of).shape.iter();
                shape.copied().filter(|size| *size != 1).collect::<Sizes>()
            };
            id = match (&node.op, &node.inputs[..]) {
                (Op::Cast | Op::Decode { .. }, [input]) | (Op::Binary { .. }, [input, _]) => *input,
                (Op::Reshape, [input]) if real(*input) == real(id) => *input,
                _ => break,
            };
        }
        self.unconverted(id)
    }

    fn walk(&self, start: NodeId, look: impl FnMut(NodeId, &Node) -> bool) {
        self.seen.borrow_mut().walk(self.graph, start, look);
    }

    /// Whether scales lie as a node's blocks do, whatever ops brought both there.
    fn lies_as(&self, weight: NodeId, scales: NodeId) -> bool {
        let enough = self.graph.info(scales).numel().is_some_and(|count| count <= COMPARED);
        let order = || self.blocks_in_order(weight, 0);
        enough
            && order().is_some_and(|order| {
                self.scales_in_order(scales, 0).is_some_and(|other| other.1 == order.1)
            })
    }

    /// Whether a comparison may go on.
    fn may_go_on(&self, depth: usize) -> bool {
        self.steps.set(self.steps.get().saturating_add(1));
        depth < DEPTH && self.steps.get() < STEPS
    }

    /// Whether the same ops are done to both, in units of blocks.
    fn mirrors(&self, weight: NodeId, scales: NodeId, depth: usize) -> bool {
        if !self.may_go_on(depth) {
            return false;
        }
        let (w, s) = (self.graph.node(weight), self.graph.node(scales));
        if let Op::Source { .. } = w.op {
            return self.quantized.get(weight).is_some_and(|it| it.scales == scales);
        }
        let Blocks::Of(block) = &self.blocks[weight.0 as usize] else {
            return matches!((&w.op, &s.op), (Op::Fill { .. }, Op::Fill { .. }));
        };
        let same = match (&w.op, &s.op) {
            (Op::Narrow { dim, start, .. }, Op::Narrow { dim: other, start: first, .. }) => {
                dim == other
                    && block
                        .get(*dim)
                        .is_some_and(|block| start.checked_div(*block) == Some(*first))
            }
            (Op::Permute { dims }, Op::Permute { dims: other }) => {
                dims.starts_with(other) && dims[other.len()..].iter().all(|dim| *dim >= other.len())
            }
            (Op::Reshape, Op::Reshape) => true,
            (Op::Concat { dim }, Op::Concat { dim: other }) => dim == other,
            _ => false,
        };
        let grid = grid(&w.info, block);
        let (trailing, fits) =
            (grid.len().saturating_sub(s.info.shape.len()), grid.starts_with(&s.info.shape));
        same && fits
            && grid.iter().rev().take(trailing).all(|size| *size == 1)
            && w.inputs.len() == s.inputs.len()
            && w.inputs.iter().zip(&s.inputs).all(|(w, s)| self.mirrors(*w, *s, depth + 1))
    }

    /// The blocks of a node in row-major order, each as the element of the scales that it has in
    /// the checkpoint; and their grid.
    fn blocks_in_order(&self, id: NodeId, depth: usize) -> Option<(Vec<u64>, Vec<u64>)> {
        if !self.may_go_on(depth) {
            return None;
        }
        let node = self.graph.node(id);
        if let Op::Source { .. } = node.op {
            let it = self.quantized.get(id)?;
            return Some((
                grid(&node.info, &it.block).to_vec(),
                self.scales_in_order(it.scales, depth)?.1,
            ));
        }
        let Blocks::Of(block) = &self.blocks[id.0 as usize] else { return None };
        let shape = grid(&node.info, block).to_vec();
        let inputs = node.inputs.iter().map(|input| match self.graph.node(*input).op {
            Op::Fill { .. } => {
                let shape = grid(self.graph.info(*input), block).to_vec();
                Some((
                    shape.clone(),
                    vec![FILLED; usize::try_from(shape.iter().product::<u64>()).ok()?],
                ))
            }
            _ => self.blocks_in_order(*input, depth + 1),
        });
        let start = match &node.op {
            Op::Narrow { dim, start, .. } => start.checked_div(*block.get(*dim)?)?,
            _ => 0,
        };
        moved(&node.op, start, inputs.collect::<Option<_>>()?, shape)
    }

    /// The elements of scales in row-major order, each by where it is in the checkpoint; and their
    /// shape.
    fn scales_in_order(&self, id: NodeId, depth: usize) -> Option<(Vec<u64>, Vec<u64>)> {
        if !self.may_go_on(depth) {
            return None;
        }
        let node = self.graph.node(id);
        let (shape, count) = (node.info.shape.to_vec(), node.info.numel()?);
        match &node.op {
            _ if count > COMPARED => None,
            Op::Source { .. } => {
                let first = u64::from(id.0).checked_shl(24)?;
                Some((shape, (first..first + count).collect()))
            }
            Op::Fill { .. } => Some((shape, vec![FILLED; usize::try_from(count).ok()?])),
            op if op.is_index_map() => {
                let inputs = node
                    .inputs
                    .iter()
                    .map(|input| self.scales_in_order(*input, depth + 1))
                    .collect::<Option<_>>()?;
                let start = if let Op::Narrow { start, .. } = op { *start } else { 0 };
                moved(op, start, inputs, shape)
            }
            _ => None,
        }
    }
}

/// What an index map makes of elements in row-major order.
fn moved(
    op: &Op,
    start: u64,
    inputs: Vec<(Vec<u64>, Vec<u64>)>,
    shape: Vec<u64>,
) -> Option<(Vec<u64>, Vec<u64>)> {
    let strides = |shape: &[u64]| Shape::from(shape).contiguous_strides();
    let count = shape.iter().product::<u64>();
    let own = strides(&shape);
    let at = |dim: usize, index: u64| index / own[dim] % shape[dim];
    let take = |values: &[u64], index: u64| values.get(usize::try_from(index).ok()?).copied();
    let elements: Option<Vec<u64>> = match (op, inputs.as_slice()) {
        (Op::Reshape, [(_, values)]) => Some(values.clone()),
        (Op::Narrow { dim, .. }, [(from, values)]) => {
            let theirs = strides(from);
            let place = |index: u64| {
                (0..shape.len())
                    .map(|d| (at(d, index) + if d == *dim { start } else { 0 }) * theirs[d])
                    .sum()
            };
            (0..count).map(|index| take(values, place(index))).collect()
        }
        (Op::Permute { dims }, [(from, values)]) => {
            let theirs = strides(from);
            let place = |index: u64| {
                dims.iter().enumerate().map(|(d, from)| at(d, index) * theirs[*from]).sum()
            };
            (0..count).map(|index| take(values, place(index))).collect()
        }
        (Op::Concat { dim }, inputs) => {
            let outer = shape.get(..*dim)?.iter().product::<u64>();
            let mut joined = Vec::new();
            for row in 0..outer {
                for (from, values) in inputs {
                    let run = usize::try_from(from.get(*dim..)?.iter().product::<u64>()).ok()?;
                    let first = usize::try_from(row).ok()?.checked_mul(run)?;
                    joined.extend_from_slice(values.get(first..first.checked_add(run)?)?);
                }
            }
            Some(joined)
        }
        _ => None,
    };
    Some((shape, elements?))
}
