//! Building the key graph: primitive nodes, with their shapes checked.

use std::collections::HashMap;

use super::list::List;
use super::node::{Node, NodeId, Op};
use super::states::States;
use super::table::Table;
use crate::key::Key;
use crate::tensor::{Dtype, Shape, TensorInfo};

/// Why tensors don't fit an op, as a message.
pub(super) type Fit<T> = Result<T, String>;

/// Most nodes of a plan: several for each key that a checkpoint may have.
const MAX_NODES: u32 = 1 << 25;

/// Most tensors that one becomes, or that become one.
pub(super) const MAX_PARTS: u64 = 1 << 16;

/// Refuses a count that nothing but a mistake, or malice, asks for. Numbers in rules, configs and
/// shapes may be of any size.
pub(super) fn few(count: u64) -> Fit<()> {
    if count > MAX_PARTS {
        Err(format!("{count} tensors would be one, or parts of one; at most {MAX_PARTS} are"))
    } else {
        Ok(())
    }
}

/// The nodes of a plan while it is made.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    /// The sources among them, by key.
    sources: Table,
    /// Casts that there are: one tensor that is cast alike under several keys stays one.
    casts: HashMap<(NodeId, Dtype), NodeId, foldhash::fast::RandomState>,
    /// What quantized tensors say of themselves.
    pub(super) states: States,
    /// Descriptions whose bytes went into nodes, and that are no input of any.
    pub(super) read: Vec<NodeId>,
    /// What was turned for rotary embeddings since somebody took note of it.
    pub(super) turned: Vec<Turned>,
}

/// Rows that were turned head by head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turned {
    pub(super) heads: u64,
    /// Rows of one head.
    pub(super) size: u64,
}

impl Graph {
    pub(super) fn info(&self, id: NodeId) -> &TensorInfo {
        &self.nodes[id.0 as usize].info
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Room for so many more tensors of a checkpoint.
    pub(super) fn reserve(&mut self, sources: usize) {
        self.nodes.reserve(sources);
        let nodes = &self.nodes;
        self.sources.reserve(sources, |id| source_key(nodes, id));
    }

    pub(super) fn push(
        &mut self,
        op: Op,
        inputs: impl Into<List<NodeId>>,
        info: TensorInfo,
    ) -> Fit<NodeId> {
        let id = u32::try_from(self.nodes.len())
            .ok()
            .filter(|id| *id < MAX_NODES)
            .ok_or_else(|| "the plan has too many nodes".to_owned())?;
        if info.nbytes().is_none() {
            return Err(format!("the result {info} has no whole number of bytes, or too many"));
        }
        self.nodes.push(Node { op, inputs: inputs.into(), info });
        Ok(NodeId(id))
    }

    pub(super) fn source(&mut self, key: &Key, info: &TensorInfo) -> Fit<NodeId> {
        if let Some(id) = self.find_source(key) {
            return Ok(id);
        }
        let id = self.push(Op::Source { key: key.clone() }, [], info.clone())?;
        let nodes = &self.nodes;
        self.sources.insert(id.0, |id| source_key(nodes, id));
        Ok(id)
    }

    /// The tensors of the checkpoint, in its order.
    pub(super) fn sources(&self) -> impl Iterator<Item = (&Key, NodeId)> {
        (0u32..).zip(&self.nodes).filter_map(|(id, node)| match &node.op {
            Op::Source { key } => Some((key, NodeId(id))),
            _ => None,
        })
    }

    pub(super) fn find_source(&self, key: &str) -> Option<NodeId> {
        self.sources.find(key, |id| source_key(&self.nodes, id)).map(NodeId)
    }

    pub(super) fn fill(&mut self, value: f64, info: TensorInfo) -> Fit<NodeId> {
        self.push(Op::Fill { value }, [], info)
    }

    pub(super) fn sinusoids(&mut self, info: TensorInfo) -> Fit<NodeId> {
        use Dtype::{BF16, F16, F32, F64};
        match *info.shape {
            [_, columns]
                if columns.is_multiple_of(2) && matches!(info.dtype, F16 | BF16 | F32 | F64) =>
            {
                self.push(Op::Sinusoids, [], info)
            }
            _ => Err(format!(
                "sinusoidal positions are a matrix of floats with an even number of columns, not {info}"
            )),
        }
    }

    pub(super) fn narrow(
        &mut self,
        input: NodeId,
        dim: usize,
        start: u64,
        len: u64,
    ) -> Fit<NodeId> {
        let info = self.info(input);
        let size = *info.shape.get(dim).ok_or_else(|| no_dim(dim, info))?;
        if start.checked_add(len).is_none_or(|end| end > size) {
            return Err(format!(
                "elements {start}..{} leave dimension {dim} of {info}",
                start.saturating_add(len)
            ));
        }
        if start == 0 && len == size {
            return Ok(input);
        }
        let inner: u64 = info.shape[dim + 1..].iter().product();
        whole_bytes(info, start.saturating_mul(inner), "this cut")?;
        whole_bytes(info, len.saturating_mul(inner), "this cut")?;
        let mut shape = info.shape.to_vec();
        shape[dim] = len;
        let info = TensorInfo::new(info.dtype, shape);
        self.push(Op::Narrow { dim, start, len }, [input], info)
    }

    pub(super) fn permute(&mut self, input: NodeId, dims: &[usize]) -> Fit<NodeId> {
        let info = self.info(input);
        let mut seen = vec![false; info.shape.len()];
        if dims.len() != seen.len() {
            return Err(format!("{} dimensions are named for {info}", dims.len()));
        }
        for dim in dims {
            match seen.get_mut(*dim) {
                Some(seen) if !*seen => *seen = true,
                Some(_) => return Err(format!("dimension {dim} is named twice")),
                None => return Err(no_dim(*dim, info)),
            }
        }
        if dims.iter().enumerate().all(|(at, dim)| at == *dim) {
            return Ok(input);
        }
        // The trailing dims that stay where they are move as one block.
        let moved =
            dims.iter().enumerate().rposition(|(at, dim)| at != *dim).map_or(0, |at| at + 1);
        whole_bytes(info, info.shape[moved..].iter().product(), "moving these dimensions")?;
        let shape: Vec<u64> = dims.iter().map(|dim| info.shape[*dim]).collect();
        let info = TensorInfo::new(info.dtype, shape);
        self.push(Op::Permute { dims: dims.to_vec() }, [input], info)
    }

    pub(super) fn reshape(&mut self, input: NodeId, shape: impl Into<Shape>) -> Fit<NodeId> {
        let (info, shape) = (self.info(input), shape.into());
        if info.shape == shape {
            return Ok(input);
        }
        if shape.numel() != info.numel() {
            return Err(format!("{info} doesn't have the elements of {shape}"));
        }
        let info = TensorInfo::new(info.dtype, shape);
        self.push(Op::Reshape, [input], info)
    }

    pub(super) fn concat(&mut self, inputs: Vec<NodeId>, dim: usize) -> Fit<NodeId> {
        let Some((first, others)) = inputs.split_first() else {
            return Err("nothing to join".to_owned());
        };
        let info = self.info(*first).clone();
        if others.is_empty() {
            return Ok(*first);
        }
        if dim >= info.shape.len() {
            return Err(no_dim(dim, &info));
        }
        let mut shape = info.shape.to_vec();
        for other in others {
            let other = self.info(*other);
            if other.dtype != info.dtype {
                return Err(format!("dtypes differ: {info} and {other}"));
            }
            let fits = other.shape.len() == shape.len()
                && (0..shape.len()).all(|at| at == dim || shape[at] == other.shape[at]);
            if !fits {
                return Err(format!("shapes don't fit along dimension {dim}: {info} and {other}"));
            }
            shape[dim] =
                shape[dim].checked_add(other.shape[dim]).ok_or("the result is too large")?;
        }
        for input in &inputs {
            let part = self.info(*input);
            whole_bytes(part, part.shape[dim..].iter().product(), "joining here")?;
        }
        self.push(Op::Concat { dim }, inputs, TensorInfo::new(info.dtype, shape))
    }

    pub(super) fn stack(&mut self, inputs: Vec<NodeId>, dim: usize) -> Fit<NodeId> {
        let parts =
            inputs.into_iter().map(|input| self.unsqueeze(input, dim)).collect::<Fit<_>>()?;
        self.concat(parts, dim)
    }

    pub(super) fn select(&mut self, input: NodeId, dim: usize, at: u64) -> Fit<NodeId> {
        let part = self.narrow(input, dim, at, 1)?;
        self.without(part, dim)
    }

    /// With a dimension of one step more.
    pub(super) fn unsqueeze(&mut self, input: NodeId, dim: usize) -> Fit<NodeId> {
        let info = self.info(input);
        let shape = info.shape.with_dim(dim).ok_or_else(|| no_dim(dim, info))?;
        self.reshape(input, shape)
    }

    /// Without a dimension, which has one step.
    pub(super) fn without(&mut self, input: NodeId, dim: usize) -> Fit<NodeId> {
        let mut shape = self.info(input).shape.to_vec();
        shape.remove(dim);
        self.reshape(input, shape)
    }

    pub(super) fn cast(&mut self, input: NodeId, to: Dtype) -> Fit<NodeId> {
        let info = self.info(input);
        if info.dtype == to {
            return Ok(input);
        }
        if info.dtype == Dtype::C64 || to == Dtype::C64 || info.dtype.bits() < 8 || to.bits() < 8 {
            return Err(format!("casting {} to {to} is not supported", info.dtype));
        }
        if let Some(made) = self.casts.get(&(input, to)) {
            return Ok(*made);
        }
        let info = TensorInfo::new(to, info.shape.clone());
        let made = self.push(Op::Cast, [input], info)?;
        self.casts.insert((input, to), made);
        Ok(made)
    }

    pub(super) fn value_op(&mut self, input: NodeId, op: Op) -> Fit<NodeId> {
        let info = self.numbers(input)?.clone();
        self.push(op, [input], info)
    }

    /// A tensor that can be computed with.
    pub(super) fn numbers(&self, input: NodeId) -> Fit<&TensorInfo> {
        let info = self.info(input);
        match is_float(info.dtype) {
            true => Ok(info),
            false => {
                Err(format!("arithmetic on {info} is not supported: cast it to a float first"))
            }
        }
    }
}

/// The key of a source.
fn source_key(nodes: &[Node], id: u32) -> &str {
    match nodes.get(id as usize).map(|node| &node.op) {
        Some(Op::Source { key }) => key,
        _ => "",
    }
}

/// Whether numbers of a dtype are computed with, and may be results.
pub(super) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
}

/// Walks through a graph, in each of which a node is met once.
#[derive(Debug, Default)]
pub(super) struct Walks {
    count: u32,
    /// By node, the last walk that came by.
    last: Vec<u32>,
}

impl Walks {
    /// Looks at a node and what is below it, each once, as long as `look` says to go on.
    pub(super) fn walk(
        &mut self,
        graph: &Graph,
        start: NodeId,
        mut look: impl FnMut(NodeId, &Node) -> bool,
    ) {
        let first = graph.node(start);
        if !look(start, first) || first.inputs.is_empty() {
            return;
        }
        self.count += 1;
        self.last.resize(graph.nodes.len(), 0);
        let mut open: Vec<NodeId> = first.inputs.to_vec();
        while let Some(id) = open.pop() {
            if std::mem::replace(&mut self.last[id.0 as usize], self.count) != self.count
                && look(id, graph.node(id))
            {
                open.extend(&graph.node(id).inputs);
            }
        }
    }
}

pub(super) fn no_dim(dim: impl std::fmt::Display, info: &TensorInfo) -> String {
    format!("{info} has no dimension {dim}")
}

/// Elements of sub-byte dtypes can be moved only where they fill whole bytes.
fn whole_bytes(info: &TensorInfo, elements: u64, what: &str) -> Fit<()> {
    let bits = info.dtype.bits();
    if bits >= 8 || elements.wrapping_mul(u64::from(bits)) % 8 == 0 {
        return Ok(());
    }
    Err(format!("{what} would part a byte of {info}, which holds several elements of {bits} bits"))
}
