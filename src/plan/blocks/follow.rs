//! How large the blocks of a node are along each dimension, through narrowing, permuting, reshaping
//! and joining.
//!
//! What comes out is right for every element or is *broken*: blocks may be called broken that
//! another look would still find whole, as where two dimensions are joined and parted again, but
//! never the other way round.

use smallvec::{SmallVec, smallvec};

use crate::config::Config;
use crate::plan::Node;
use crate::plan::graph::Graph;
use crate::plan::modules::{Pair, is_quantized};
use crate::plan::node::{NodeId, Op};
use crate::tensor::TensorInfo;
use crate::tensor::companion::Role;

/// Rows and columns of a block where nothing else is said. Source: `weight_block_size` of
/// DeepSeek-V3's config.json.
const BLOCK: u64 = 128;

/// A number for each dimension.
pub(super) type Sizes = SmallVec<[u64; 4]>;

/// Something for some of the nodes: with tens of thousands of them, looking a number up in a table
/// of hashes was a tenth of planning.
#[derive(Clone, Debug)]
pub(super) struct ByNode<T>(Vec<Option<T>>);

impl<T> Default for ByNode<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByNode<T> {
    pub(super) fn get(&self, id: NodeId) -> Option<&T> {
        self.0.get(id.0 as usize)?.as_ref()
    }

    pub(super) fn insert(&mut self, id: NodeId, value: T) {
        *self.place(id) = Some(value);
    }

    pub(super) fn get_or_default(&mut self, id: NodeId) -> &mut T
    where
        T: Default,
    {
        self.place(id).get_or_insert_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &T)> {
        (0..).map(NodeId).zip(&self.0).filter_map(|(id, value)| Some((id, value.as_ref()?)))
    }

    fn place(&mut self, id: NodeId) -> &mut Option<T> {
        let at = id.0 as usize;
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        &mut self.0[at]
    }
}

/// A quantized tensor of the checkpoint.
pub(super) struct Quantized {
    pub(super) scales: NodeId,
    /// Elements of a block along each dimension; more than there are where one block takes them
    /// all.
    pub(super) block: Sizes,
}

/// How the elements of a node lie in blocks.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Blocks {
    /// They don't.
    None,
    /// So many along each dimension, counted from its start.
    Of(Sizes),
    /// Not any more.
    Broken(Break),
}

/// Where blocks were broken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Break {
    /// The tensor of the checkpoint.
    pub(super) source: NodeId,
    /// What was done to it.
    pub(super) why: String,
}

/// How many blocks there are along each dimension.
pub(super) fn grid(info: &TensorInfo, block: &[u64]) -> Sizes {
    info.shape.iter().zip(block).map(|(size, block)| size.div_ceil((*block).max(1))).collect()
}

/// The quantized tensors of a checkpoint: those with scales beside them that fit.
pub(super) fn quantized(graph: &Graph, pairs: &[Pair], config: &Config) -> ByNode<Quantized> {
    let said: Vec<u64> = config
        .value()
        .pointer("/quantization_config/weight_block_size")
        .and_then(|it| it.as_array())
        .map_or_else(Vec::new, |it| it.iter().filter_map(serde_json::Value::as_u64).collect());
    let mut found = ByNode::default();
    for pair in pairs.iter().filter(|pair| pair.role == Some(Role::Scale)) {
        let Pair { tensor: weight, companion: scales, keys: [tensor, _], .. } = pair;
        let (weight, scales) = (*weight, *scales);
        let in_blocks = tensor.ends_with("_blocks");
        let (info, of_scales) = (graph.info(weight), graph.info(scales));
        let (shape, sizes) = (&info.shape[..], &of_scales.shape[..]);
        if !is_quantized(info) || shape.len() < 2 || info.numel() == Some(0) {
            continue;
        }
        let (leading, last) = shape.split_at(shape.len() - 2);
        let block: Option<Sizes> = if in_blocks {
            (sizes == &shape[..shape.len() - 1])
                .then(|| sizes.iter().map(|_| 1).chain(shape.last().copied()).collect())
        } else if sizes.len() == shape.len() && sizes.starts_with(leading) {
            let last = last
                .iter()
                .zip(&sizes[leading.len()..])
                .enumerate()
                .map(|(at, (size, count))| block_of(*size, *count, said.get(at).copied()));
            leading.iter().map(|_| Some(1)).chain(last).collect()
        } else if let ([rows, columns], [count]) = (shape, sizes)
            && rows == count
        {
            Some(smallvec![1, *columns])
        } else {
            None
        };
        if let Some(block) = block {
            found.insert(weight, Quantized { scales, block });
        }
    }
    found
}

/// The block size along one dimension, from its size and how many scales there are.
pub(crate) fn block_of(size: u64, count: u64, said: Option<u64>) -> Option<u64> {
    let fits = |block: &u64| *block > 0 && size.div_ceil(*block) == count;
    said.filter(fits)
        .or_else(|| Some(BLOCK).filter(fits))
        .or_else(|| size.checked_div(count).map(|_| size.div_ceil(count)).filter(fits))
}

/// How the elements of each node lie in blocks, and a quantized tensor of the checkpoint that it
/// has them from; inputs come before what uses them.
pub(super) fn follow(graph: &Graph, quantized: &ByNode<Quantized>) -> (Vec<Blocks>, Vec<NodeId>) {
    let mut blocks: Vec<Blocks> = Vec::with_capacity(graph.nodes.len());
    let mut sources: Vec<NodeId> = Vec::with_capacity(graph.nodes.len());
    for (at, node) in (0u32..).map(NodeId).zip(&graph.nodes) {
        let of_input = node.inputs.iter().find(|input| blocks[input.0 as usize] != Blocks::None);
        let source = of_input.map_or(at, |input| sources[input.0 as usize]);
        let found = match (&node.op, of_input) {
            (Op::Source { .. }, _) => {
                quantized.get(at).map_or(Blocks::None, |it| Blocks::Of(it.block.clone()))
            }
            (op, Some(_)) if op.is_index_map() => match after(graph, node, &blocks) {
                Ok(block) => Blocks::Of(block),
                Err(Some(why)) => Blocks::Broken(Break { source, why }),
                Err(None) => node
                    .inputs
                    .iter()
                    .map(|input| &blocks[input.0 as usize])
                    .find(|blocks| matches!(blocks, Blocks::Broken(_)))
                    .cloned()
                    .unwrap_or(Blocks::None),
            },
            _ => Blocks::None,
        };
        blocks.push(found);
        sources.push(source);
    }
    (blocks, sources)
}

/// The blocks after an index map; `Err(None)` if they were broken before.
fn after(graph: &Graph, node: &Node, blocks: &[Blocks]) -> Result<Sizes, Option<String>> {
    let block_of = |input: &NodeId| match &blocks[input.0 as usize] {
        Blocks::Of(block) => Ok(block),
        Blocks::None => Err(Some("it is joined with a tensor without scales".to_owned())),
        Blocks::Broken(_) => Err(None),
    };
    let input = node.inputs.first().ok_or(None)?;
    match &node.op {
        Op::Narrow { dim, start, len } => {
            let block = block_of(input)?;
            let (size, step) = (graph.info(*input).shape[*dim], block[*dim].max(1));
            let end = start.saturating_add(*len);
            if start % step != 0 || (end % step != 0 && end != size) {
                return Err(Some(format!(
                    "the cut {start}..{end} of dimension {dim} goes through one"
                )));
            }
            Ok(block.clone())
        }
        Op::Permute { dims } => {
            let block = block_of(input)?;
            Ok(dims.iter().map(|dim| block[*dim]).collect())
        }
        Op::Reshape => {
            let block = block_of(input)?;
            let (from, to) = (&graph.info(*input).shape[..], &node.info.shape[..]);
            reshaped(from, block, to).ok_or_else(|| {
                Some(format!(
                    "its elements don't stay together when {} becomes {}",
                    graph.info(*input).shape,
                    node.info.shape
                ))
            })
        }
        Op::Concat { dim } => {
            let mut joined: Option<&Sizes> = None;
            for input in node
                .inputs
                .iter()
                .filter(|input| !matches!(graph.node(**input).op, Op::Fill { .. }))
            {
                let block = block_of(input)?;
                if *joined.get_or_insert(block) != block {
                    return Err(Some("it is joined with a tensor in other blocks".to_owned()));
                }
            }
            let block = joined.ok_or(None)?;
            let (_, before) = node.inputs.split_last().ok_or(None)?;
            match before
                .iter()
                .map(|input| graph.info(*input).shape[*dim])
                .find(|size| size % block[*dim].max(1) != 0)
            {
                Some(size) => Err(Some(format!(
                    "what is joined to its {size} along dimension {dim} starts within one"
                ))),
                None => Ok(block.clone()),
            }
        }
        _ => Err(None),
    }
}

/// The blocks along the dimensions of another shape of the same elements; `None` if they don't stay
/// blocks.
fn reshaped(from: &[u64], block: &[u64], to: &[u64]) -> Option<Sizes> {
    let mut result: Sizes = smallvec![1; to.len()];
    let (mut i, mut j) = (0, 0);
    while i < from.len() || j < to.len() {
        // Dimensions of both sides that hold the same elements.
        let first = (i, j);
        let (mut a, mut b) = (1u64, 1u64);
        if i < from.len() {
            a = from[i];
            i += 1;
        } else {
            b = to[j];
            j += 1;
        }
        while a != b {
            if a < b {
                a = a.checked_mul(*from.get(i)?)?;
                i += 1;
            } else {
                b = b.checked_mul(*to.get(j)?)?;
                j += 1;
            }
        }
        let real = |sizes: &[u64]| sizes.iter().filter(|size| **size > 1).count();
        if real(&from[first.0..i]) == 1 && real(&to[first.1..j]) == 1 {
            let old = (first.0..i).find(|at| from[*at] > 1)?;
            let new = (first.1..j).find(|at| to[*at] > 1)?;
            result[new] = block[old];
            continue;
        }
        let mut rest = run(&from[first.0..i], &block[first.0..i])?;
        for at in (first.1..j).rev() {
            let size = to[at];
            let outer: u64 = to[first.1..at].iter().product();
            if size > 1 && rest >= size && rest % size == 0 {
                result[at] = size;
                rest /= size;
            } else if size > 1 && (size.is_multiple_of(rest) || outer == 1) {
                result[at] = rest;
                rest = 1;
            } else if size > 1 {
                return None;
            }
        }
    }
    Some(result)
}

/// How many elements in row a block has where several dimensions become one; `None` if they don't
/// lie in a row.
fn run(sizes: &[u64], block: &[u64]) -> Option<u64> {
    let (mut run, mut closed) = (1u64, false);
    for at in (0..sizes.len()).rev().filter(|at| sizes[*at] > 1) {
        let (size, block) = (sizes[at], block[at].clamp(1, sizes[at]));
        if closed && block > 1 {
            return None;
        }
        if !closed {
            run = run.checked_mul(block)?;
            closed = block < size;
            let outer: u64 = sizes[..at].iter().product();
            if size % block != 0 && outer > 1 {
                return None;
            }
        }
    }
    Some(run)
}
