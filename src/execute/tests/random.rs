//! Random plans from a list of choices, so that a failing one shrinks.

use std::collections::BTreeMap;

use crate::key::natural_order;
use crate::plan::{Arithmetic, Code, Node, NodeId, Op, Plan, Reduction, Target};
use crate::store::StateDict;
use crate::tensor::{Dtype, Storage, TensorInfo, TensorView};

/// Choices, one after the other, and around again.
pub(super) struct Choices {
    list: Vec<u32>,
    at: usize,
    state: u64,
}

impl Choices {
    pub(super) fn new(list: &[u32]) -> Self {
        Self { list: list.to_vec(), at: 0, state: 0 }
    }

    fn next(&mut self) -> u64 {
        let choice = u64::from(self.list[self.at % self.list.len()]);
        self.at += 1;
        // Around again gives other numbers; the first time gives the list's own, so that shrinking
        // works.
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        if self.at <= self.list.len() { choice } else { choice ^ (self.state >> 33) }
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn size(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

pub(super) struct Random {
    pub(super) plan: Plan,
    pub(super) store: StateDict,
}

const DTYPES: [Dtype; 15] = [
    Dtype::F32,
    Dtype::BF16,
    Dtype::F16,
    Dtype::U8,
    Dtype::I64,
    Dtype::F8_E4M3,
    Dtype::F8_E5M2,
    Dtype::F8_E8M0,
    Dtype::F8_E4M3FNUZ,
    Dtype::F64,
    Dtype::I16,
    Dtype::U32,
    Dtype::Bool,
    Dtype::C64,
    Dtype::I8,
];

pub(super) fn plan(choices: &mut Choices) -> Random {
    let mut random = Random { plan: Plan::default(), store: StateDict::new() };
    let chains = 3 + choices.below(2);
    for i in 0..chains {
        let mut node = random.source(choices);
        for _ in 0..choices.below(9) {
            node = random.op(choices, node);
        }
        random.plan.targets.push(Target {
            key: format!("t.{i}").into(),
            node,
            rules: [].into(),
            tied_to: None,
        });
    }
    random.plan.targets.sort_by(|a, b| natural_order(&a.key, &b.key));
    random
}

impl Random {
    fn push(&mut self, op: Op, inputs: &[NodeId], info: TensorInfo) -> NodeId {
        self.plan.nodes.push(Node { op, inputs: inputs.iter().copied().collect(), info });
        NodeId(u32::try_from(self.plan.nodes.len() - 1).unwrap())
    }

    fn info(&self, node: NodeId) -> TensorInfo {
        self.plan.node(node).info.clone()
    }

    fn source_of(&mut self, choices: &mut Choices, info: TensorInfo) -> NodeId {
        let key = format!("s.{}", self.plan.nodes.len());
        // Some sources are strided views of a larger tensor, as a state dict in memory may hold.
        let strided = choices.below(3) == 0 && info.dtype.bits() >= 8 && !info.shape.is_empty();
        let mut whole = info.shape.to_vec();
        if strided {
            whole.reverse();
            *whole.last_mut().unwrap() += 1;
        }
        let whole = TensorInfo::new(info.dtype, whole);
        let len = usize::try_from(whole.nbytes().unwrap()).unwrap();
        let mut state = choices.next() | 1;
        let bytes: Vec<u8> = (0..len + 1)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let byte = (state >> 56).to_le_bytes()[0];
                if info.dtype == Dtype::Bool { byte & 1 } else { byte }
            })
            .collect();
        let mut view = TensorView::contiguous(Storage::new(bytes), whole.clone(), 1).unwrap();
        if strided {
            let last = whole.shape.len() - 1;
            view = view.narrow(last, 1, whole.shape[last] - 1).unwrap();
            view = view.permute(&(0..whole.shape.len()).rev().collect::<Vec<_>>()).unwrap();
        }
        self.store.insert(key.as_str().into(), view);
        self.push(Op::Source { key: key.as_str().into() }, &[], info)
    }

    fn source(&mut self, choices: &mut Choices) -> NodeId {
        if choices.below(12) == 0 {
            return self.packed(choices);
        }
        let rank = choices.below(5);
        let shape: Vec<u64> = (0..rank)
            .map(|_| if choices.below(12) == 0 { choices.size(2) } else { 1 + choices.size(6) })
            .collect();
        if rank == 2 && shape[1].is_multiple_of(2) && choices.below(8) == 0 {
            return self.push(Op::Sinusoids, &[], TensorInfo::new(Dtype::F32, shape));
        }
        if choices.below(15) == 0 {
            return self.push(Op::Fill { value: 1.0 }, &[], TensorInfo::new(Dtype::BF16, shape));
        }
        let dtype = DTYPES[choices.below(DTYPES.len())];
        self.source_of(choices, TensorInfo::new(dtype, shape))
    }

    /// Codes of half a byte or of bytes, looked up in a list or decoded; of a tensor as it is, or
    /// turned first.
    fn packed(&mut self, choices: &mut Choices) -> NodeId {
        let dtype = [Dtype::U8, Dtype::I32, Dtype::I64][choices.below(3)];
        let mut shape = vec![1 + choices.size(3), 1 + choices.size(4)];
        let mut packed = self.source_of(choices, TensorInfo::new(dtype, shape.clone()));
        if choices.below(2) == 0 {
            shape.swap(0, 1);
            let turned = TensorInfo::new(dtype, shape.clone());
            packed = self.push(Op::Permute { dims: vec![1, 0] }, &[packed], turned);
        } else if choices.below(4) == 0 {
            let dtype = TensorInfo::new(Dtype::I64, shape.clone());
            packed = self.push(Op::Cast, &[packed], dtype);
        }
        let bits = [4, 8][choices.below(2)];
        shape.push(u64::from(self.info(packed).dtype.bits() / bits));
        let codes = TensorInfo::new(Dtype::U8, shape.clone());
        let codes = self.push(Op::Unpack { bits }, &[packed], codes);
        let code = [Code::E2m1, Code::E8m0][choices.below(2)];
        match choices.below(4) {
            0 => self.push(Op::Decode { code }, &[codes], TensorInfo::new(Dtype::F32, shape)),
            1 | 2 => {
                let dtype = [Dtype::F32, Dtype::BF16, Dtype::I16][choices.below(3)];
                let list = TensorInfo::new(dtype, vec![256]);
                let list = if choices.below(2) == 0 {
                    let count = TensorInfo::new(Dtype::F64, vec![256]);
                    let count = self.push(Op::Count, &[], count);
                    self.push(Op::Cast, &[count], list)
                } else {
                    self.source_of(choices, list)
                };
                self.push(Op::Lookup, &[codes, list], TensorInfo::new(dtype, shape))
            }
            _ => codes,
        }
    }

    /// A tensor and another of its shape, or one that is expanded to it.
    fn pair(&mut self, choices: &mut Choices, node: NodeId) -> NodeId {
        let info = self.info(node);
        let mut small = info.shape.to_vec();
        for size in &mut small {
            if choices.below(2) == 0 {
                *size = 1;
            }
        }
        let dtype = [Dtype::F32, Dtype::BF16, Dtype::I8, Dtype::F8_E4M3][choices.below(4)];
        let mut other = match choices.below(4) {
            0 => node,
            1 => {
                self.push(Op::Fill { value: 3.0 }, &[], TensorInfo::new(dtype, info.shape.clone()))
            }
            _ => self.source_of(choices, TensorInfo::new(dtype, small)),
        };
        if is_float(self.info(other).dtype) && choices.below(3) == 0 {
            let dtype = TensorInfo::new(Dtype::F32, self.info(other).shape);
            other = self.push(Op::Cast, &[other], dtype);
        }
        if self.info(other).shape != info.shape {
            let expanded = TensorInfo::new(self.info(other).dtype, info.shape.clone());
            other = self.push(Op::Expand, &[other], expanded);
        }
        let with =
            [Arithmetic::Add, Arithmetic::Sub, Arithmetic::Mul, Arithmetic::Div][choices.below(4)];
        let to = [Dtype::F32, Dtype::BF16, Dtype::F16][choices.below(3)];
        let inputs = if choices.below(4) == 0 { [other, node] } else { [node, other] };
        self.push(Op::Binary { with }, &inputs, TensorInfo::new(to, info.shape))
    }

    /// Scales of blocks, repeated and cut as an edge has it.
    fn scaled(&mut self, choices: &mut Choices, node: NodeId) -> NodeId {
        let info = self.info(node);
        let rank = info.shape.len();
        let block = [1 + choices.size(4), 1 + choices.size(4)];
        let mut grid = info.shape.to_vec();
        for (at, block) in block.iter().enumerate() {
            grid[rank - 2 + at] = grid[rank - 2 + at].div_ceil(*block);
        }
        let mut scales = self.source_of(choices, TensorInfo::new(Dtype::F16, grid));
        for (at, block) in block.into_iter().enumerate() {
            let (dim, size) = (rank - 2 + at, info.shape[rank - 2 + at]);
            let mut shape = self.info(scales).shape.to_vec();
            for (op, len) in [(Op::Reshape, 1), (Op::Expand, block)] {
                let mut apart = shape.clone();
                apart.insert(dim + 1, len);
                scales = self.push(op, &[scales], TensorInfo::new(Dtype::F16, apart));
            }
            shape[dim] *= block;
            scales = self.push(Op::Reshape, &[scales], TensorInfo::new(Dtype::F16, shape));
            scales = self.narrowed(scales, dim, size);
        }
        let product = TensorInfo::new(Dtype::BF16, info.shape);
        self.push(Op::Binary { with: Arithmetic::Mul }, &[node, scales], product)
    }

    /// Matrices times others, which may share their elements.
    fn multiplied(&mut self, choices: &mut Choices, node: NodeId) -> NodeId {
        let dtype = [Dtype::F32, Dtype::F64][choices.below(2)];
        let left = TensorInfo::new(dtype, self.info(node).shape);
        let left_node = self.push(Op::Cast, &[node], left.clone());
        let (mut shape, rank) = (left.shape.to_vec(), left.shape.len());
        shape.swap(rank - 2, rank - 1);
        let right = if choices.below(2) == 0 {
            let mut dims: Vec<usize> = (0..rank).collect();
            dims.swap(rank - 2, rank - 1);
            let turned = TensorInfo::new(dtype, shape.clone());
            self.push(Op::Permute { dims }, &[left_node], turned)
        } else {
            shape[rank - 1] = 1 + choices.size(5);
            self.source_of(choices, TensorInfo::new(dtype, shape.clone()))
        };
        shape[rank - 2] = left.shape[rank - 2];
        self.push(Op::Product, &[left_node, right], TensorInfo::new(dtype, shape))
    }

    fn reduced(&mut self, choices: &mut Choices, node: NodeId) -> NodeId {
        let info = self.info(node);
        let rank = info.shape.len();
        let mut dims: Vec<usize> = (0..rank).filter(|_| choices.below(2) == 0).collect();
        if dims.is_empty() {
            dims.push(choices.below(rank));
        }
        let mut shape = info.shape.to_vec();
        dims.iter().for_each(|dim| shape[*dim] = 1);
        let take = [Reduction::Norm, Reduction::AbsMax][choices.below(2)];
        let to = [Dtype::F32, Dtype::BF16][choices.below(2)];
        self.push(Op::Reduce { take, dims }, &[node], TensorInfo::new(to, shape))
    }

    fn op(&mut self, choices: &mut Choices, node: NodeId) -> NodeId {
        let info = self.info(node);
        let rank = info.shape.len();
        let with = |shape: Vec<u64>| TensorInfo::new(info.dtype, shape);
        match choices.below(15) {
            0 | 1 if rank > 0 => {
                let dim = choices.below(rank);
                let size = info.shape[dim];
                let start = choices.size(size + 1);
                let len = if choices.below(10) == 0 {
                    0
                } else {
                    (1 + choices.size(size.max(1))).min(size - start)
                };
                let mut shape = info.shape.to_vec();
                shape[dim] = len;
                self.push(Op::Narrow { dim, start, len }, &[node], with(shape))
            }
            2..=4 if rank > 1 => {
                let mut dims: Vec<usize> = (0..rank).collect();
                for i in (1..rank).rev() {
                    dims.swap(i, choices.below(i + 1));
                }
                let shape = dims.iter().map(|dim| info.shape[*dim]).collect();
                self.push(Op::Permute { dims }, &[node], with(shape))
            }
            5 | 6 => {
                let mut left = info.numel().unwrap();
                let mut shape = Vec::new();
                while left > 1 && shape.len() < 4 {
                    let divisors: Vec<u64> =
                        (1..=left).filter(|d| left.is_multiple_of(*d)).collect();
                    let size = divisors[choices.below(divisors.len())];
                    shape.push(size);
                    left /= size;
                }
                shape.push(left);
                self.push(Op::Reshape, &[node], with(shape))
            }
            7 | 8 if rank > 0 && info.numel().unwrap() < 300 => {
                let dim = choices.below(rank);
                let mut inputs = vec![node];
                let mut total = info.shape[dim];
                for _ in 0..choices.below(3) {
                    let mut shape = info.shape.to_vec();
                    shape[dim] = choices.size(4);
                    let other = match choices.below(3) {
                        0 => node,
                        1 => self.narrowed(node, dim, shape[dim].min(info.shape[dim])),
                        _ => self.source_of(choices, with(shape)),
                    };
                    total += self.info(other).shape[dim];
                    inputs.push(other);
                }
                let mut shape = info.shape.to_vec();
                shape[dim] = total;
                self.push(Op::Concat { dim }, &inputs, with(shape))
            }
            9 if info.dtype != Dtype::C64 => {
                let to = DTYPES[choices.below(DTYPES.len())];
                let to = if to == Dtype::C64 { Dtype::F16 } else { to };
                self.push(Op::Cast, &[node], TensorInfo { dtype: to, ..info })
            }
            10 if is_float(info.dtype) => {
                let ops = [
                    Op::Add { value: 0.3 },
                    Op::Mul { value: 1.7 },
                    Op::Neg,
                    Op::Exp,
                    Op::Log,
                    Op::OneForZero,
                ];
                self.push(ops[choices.below(6)].clone(), &[node], info)
            }
            10 if info.dtype == Dtype::I16 => self.push(Op::Add { value: 1.0 }, &[node], info),
            11 if rank >= 2 && is_float(info.dtype) => self.scaled(choices, node),
            12 | 13 if is_number(info.dtype) => self.pair(choices, node),
            14 if rank > 0 && is_number(info.dtype) => match choices.below(2) {
                0 if rank > 1 => self.multiplied(choices, node),
                _ => self.reduced(choices, node),
            },
            _ => node,
        }
    }

    fn narrowed(&mut self, node: NodeId, dim: usize, len: u64) -> NodeId {
        let info = self.info(node);
        let mut shape = info.shape.to_vec();
        shape[dim] = len;
        self.push(Op::Narrow { dim, start: 0, len }, &[node], TensorInfo::new(info.dtype, shape))
    }
}

fn is_number(dtype: Dtype) -> bool {
    !matches!(dtype, Dtype::Bool | Dtype::C64)
}

fn is_float(dtype: Dtype) -> bool {
    dtype.name().contains('F')
}

#[test]
fn choices_cover_the_ops() {
    let mut seen: BTreeMap<&'static str, u32> = BTreeMap::new();
    for seed in 0..400u32 {
        let list: Vec<u32> = (0..40).map(|i| (seed * 40 + i).wrapping_mul(2_654_435_761)).collect();
        for node in &plan(&mut Choices::new(&list)).plan.nodes {
            let name = match node.op {
                Op::Source { .. } => "source",
                Op::Fill { .. } => "fill",
                Op::Sinusoids => "sinusoids",
                Op::Narrow { .. } => "narrow",
                Op::Permute { .. } => "permute",
                Op::Reshape => "reshape",
                Op::Concat { .. } => "concat",
                Op::Cast => "cast",
                Op::Expand => "expand",
                Op::Binary { .. } => "binary",
                Op::Reduce { .. } => "reduce",
                Op::Product => "product",
                Op::Unpack { .. } => "unpack",
                Op::Decode { .. } => "decode",
                Op::Lookup => "lookup",
                Op::Count => "count",
                Op::OneForZero => "one_for_zero",
                Op::Add { .. } | Op::Mul { .. } | Op::Neg | Op::Exp | Op::Log => "arithmetic",
            };
            *seen.entry(name).or_default() += 1;
        }
    }
    assert_eq!(seen.len(), 18, "{seen:?}");
    assert!(seen.values().all(|count| *count >= 10), "{seen:?}");
}
