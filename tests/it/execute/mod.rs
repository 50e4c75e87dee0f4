//! Carrying out plans: what shares storage, what is written, and what failures leave behind.

mod boxes;
mod failures;
mod files;
mod identity;
mod lanes;
mod ops;
mod over;
mod overflow;
mod patch;
mod plans;
mod scattered;
mod stages;
mod ties;
mod views;

use std::collections::BTreeMap;

use regraft::key::{Key, natural_order};
use regraft::plan::{Arithmetic, Node, NodeId, Op, Plan, Target};
use regraft::store::StateDict;
use regraft::tensor::{Dtype, Storage, TensorInfo, TensorView};

/// A plan built by hand.
#[derive(Default)]
struct Build(Plan);

impl Build {
    fn push(&mut self, op: Op, inputs: &[NodeId], info: TensorInfo) -> NodeId {
        self.0.nodes.push(Node { op, inputs: inputs.iter().copied().collect(), info });
        NodeId(self.0.nodes.len() as u32 - 1)
    }

    fn source(&mut self, store: &StateDict, key: &str) -> NodeId {
        let info = store.get(key).unwrap().info().clone();
        self.push(Op::Source { key: key.into() }, &[], info)
    }

    fn info(&self, node: NodeId) -> TensorInfo {
        self.0.node(node).info.clone()
    }

    fn narrow(&mut self, node: NodeId, dim: usize, start: u64, len: u64) -> NodeId {
        let info = self.info(node);
        let mut shape = info.shape.to_vec();
        shape[dim] = len;
        self.push(Op::Narrow { dim, start, len }, &[node], TensorInfo::new(info.dtype, shape))
    }

    fn permute(&mut self, node: NodeId, dims: &[usize]) -> NodeId {
        let info = self.info(node);
        let shape: Vec<u64> = dims.iter().map(|dim| info.shape[*dim]).collect();
        self.push(Op::Permute { dims: dims.to_vec() }, &[node], TensorInfo::new(info.dtype, shape))
    }

    fn reshape(&mut self, node: NodeId, shape: &[u64]) -> NodeId {
        let dtype = self.info(node).dtype;
        self.push(Op::Reshape, &[node], TensorInfo::new(dtype, shape))
    }

    fn concat(&mut self, nodes: &[NodeId], dim: usize) -> NodeId {
        let info = self.info(nodes[0]);
        let mut shape = info.shape.to_vec();
        shape[dim] = nodes.iter().map(|node| self.info(*node).shape[dim]).sum();
        self.push(Op::Concat { dim }, nodes, TensorInfo::new(info.dtype, shape))
    }

    fn cast(&mut self, node: NodeId, dtype: Dtype) -> NodeId {
        let shape = self.info(node).shape;
        self.push(Op::Cast, &[node], TensorInfo { dtype, shape })
    }

    fn expand(&mut self, node: NodeId, shape: &[u64]) -> NodeId {
        let dtype = self.info(node).dtype;
        self.push(Op::Expand, &[node], TensorInfo::new(dtype, shape))
    }

    /// Each element so many times along a dimension, up to a size.
    fn repeat(&mut self, node: NodeId, dim: usize, times: u64, size: u64) -> NodeId {
        let mut shape = self.info(node).shape.to_vec();
        shape.insert(dim + 1, 1);
        let apart = self.reshape(node, &shape);
        shape[dim + 1] = times;
        let apart = self.expand(apart, &shape);
        shape.remove(dim + 1);
        shape[dim] *= times;
        let whole = self.reshape(apart, &shape);
        self.narrow(whole, dim, 0, size)
    }

    fn multiply(&mut self, a: NodeId, b: NodeId, dtype: Dtype) -> NodeId {
        let info = TensorInfo::new(dtype, self.info(a).shape);
        self.push(Op::Binary { with: Arithmetic::Mul }, &[a, b], info)
    }

    /// A matrix (the last two dimensions) times the scales of its blocks.
    fn scaled(&mut self, x: NodeId, scales: NodeId, block: [u64; 2], dtype: Dtype) -> NodeId {
        let shape = self.info(x).shape;
        let first = shape.len() - 2;
        let rows = self.repeat(scales, first, block[0], shape[first]);
        let scales = self.repeat(rows, first + 1, block[1], shape[first + 1]);
        self.multiply(x, scales, dtype)
    }

    fn target(&mut self, key: &str, node: NodeId) {
        self.0.targets.push(Target { key: key.into(), node, rules: [].into(), tied_to: None });
        self.0.targets.sort_by(|a, b| natural_order(&a.key, &b.key));
    }

    fn tied(&mut self, key: &str, node: NodeId, to: &str) {
        self.target(key, node);
        self.0.targets.iter_mut().find(|target| &*target.key == key).unwrap().tied_to =
            Some(to.into());
    }
}

/// Bytes that look alike nowhere.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let step = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(step).collect()
}

/// A checkpoint in memory, each tensor with noise in a storage of its own.
fn dict(tensors: &[(&str, Dtype, &[u64])]) -> StateDict {
    let mut dict = StateDict::new();
    for (i, (key, dtype, shape)) in tensors.iter().enumerate() {
        let info = TensorInfo::new(*dtype, *shape);
        let bytes = noise(info.nbytes().unwrap() as usize, i as u64 + 7);
        dict.insert(Key::from(*key), TensorView::contiguous(Storage::new(bytes), info, 0).unwrap());
    }
    dict.set_metadata(BTreeMap::from([("format".to_owned(), "pt".to_owned())]));
    dict
}

/// The names in a directory, hidden ones too.
pub(super) fn names(directory: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = directory
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
