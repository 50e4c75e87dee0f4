//! From a plan's nodes to pieces: index maps are fused into strided boxes, value ops into one
//! expression for each box.
//!
//! A node whose pieces would be too many, or whose input can't be followed through it (a permuted
//! scale tensor, say), becomes a *temporary*: the reference executor evaluates it, and its result
//! is one more leaf. That is rare, counted in the report, and never an error.

mod consistent;
mod expr;
mod pairs;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::layout::{Axes, Course, Cut, Piece, Which, clip, refine, tidy};
use crate::error::{Error, ErrorKind, Result};
use crate::execute::naive::matches_header;
use crate::execute::value::{self, Step};
use crate::key::Key;
use crate::plan::{NodeId, Op, Plan};
use crate::store::{Blob, Boxes, Store, StoredBox};
use crate::tensor::{Dtype, TensorInfo};
pub(in crate::execute) use consistent::{check, inconsistent};
pub(in crate::execute) use expr::Expr;
use pairs::{Pair, product};

/// Where sources lie: what a store answers, or what is supposed of a plan alone.
pub(in crate::execute) trait Stored {
    fn boxes(&self, key: &Key, info: &TensorInfo) -> Result<Boxes>;
}

/// Each source as one run, as in a safetensors file.
pub(in crate::execute) struct RowMajor;

impl Stored for RowMajor {
    fn boxes(&self, _: &Key, info: &TensorInfo) -> Result<Boxes> {
        Boxes::row_major(info.clone(), Blob(0), 0)
    }
}

/// Each source as its store has it.
pub(in crate::execute) struct AsStored<'a>(pub(in crate::execute) &'a dyn Store);

impl Stored for AsStored<'_> {
    fn boxes(&self, key: &Key, info: &TensorInfo) -> Result<Boxes> {
        matches_header(self.0, key, info)?;
        self.0.boxes(key).map_err(|error| error.at_key(key.as_str()))
    }
}

/// What operands read: a box of a source, or a temporary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::execute) struct Leaf {
    pub(in crate::execute) node: NodeId,
    /// Which of the source's boxes, from whose first element the operand's course counts; `None` of a
    /// node that is evaluated whole, in row-major order.
    pub(in crate::execute) part: Option<u32>,
    /// What the operand's course counts. F4 counts half bytes, which are gathered one to a byte.
    pub(in crate::execute) dtype: Dtype,
}

/// The value of a piece: its leaves, one for each operand, and what is computed of them.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::execute) struct Value {
    pub(in crate::execute) leaves: SmallVec<[Leaf; 1]>,
    pub(in crate::execute) expr: Arc<Expr>,
}

impl Value {
    /// Whether elements are only moved.
    pub(in crate::execute) fn is_copy(&self) -> bool {
        matches!(*self.expr, Expr::Operand(0)) && self.leaves.len() == 1
    }
}

/// Pieces of one tensor, in elements of whole bytes.
#[derive(Clone, Debug)]
pub(in crate::execute) struct Layout {
    pub(in crate::execute) info: TensorInfo,
    /// How many elements, of `size` bytes; dtypes of less than a byte are counted in bytes.
    pub(in crate::execute) numel: u64,
    pub(in crate::execute) size: u64,
    pub(in crate::execute) pieces: Vec<Piece<Value>>,
}

impl Layout {
    /// How many elements overflowed in the temporaries that it reads.
    pub(in crate::execute) fn overflowed_before(&self, temporaries: &BTreeMap<NodeId, u64>) -> u64 {
        if temporaries.values().all(|count| *count == 0) {
            return 0;
        }
        let read: BTreeSet<NodeId> = self
            .pieces
            .iter()
            .flat_map(|piece| &piece.value.leaves)
            .map(|leaf| leaf.node)
            .collect();
        read.iter()
            .filter_map(|node| temporaries.get(node))
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Whether elements are only moved.
    pub(in crate::execute) fn is_copy(&self) -> bool {
        self.pieces.iter().all(|piece| piece.value.is_copy())
    }
}

type Pieces = Arc<Vec<Piece<Value>>>;

/// Of each source that is read, where the store has it.
pub(in crate::execute) type SourceBoxes = HashMap<NodeId, Boxes, foldhash::fast::RandomState>;

/// The layouts of the targets of a plan.
pub(in crate::execute) struct Program {
    /// One for each target of the plan; targets of one node share it.
    pub(in crate::execute) layouts: Vec<Arc<Layout>>,
    /// Nodes that have to be evaluated first.
    pub(in crate::execute) temporaries: BTreeSet<NodeId>,
    /// Asked once, so that what is read is what was compiled for.
    pub(in crate::execute) boxes: SourceBoxes,
}

impl Program {
    /// What its pieces read, each as often as pieces do.
    pub(in crate::execute) fn leaves(&self) -> impl Iterator<Item = Leaf> {
        self.layouts
            .iter()
            .flat_map(|layout| &layout.pieces)
            .flat_map(|piece| piece.value.leaves.iter().copied())
    }
}

/// Compiles what some targets of a plan need; a node of more than `limit` pieces becomes a
/// temporary.
///
/// # Errors
/// If the plan is inconsistent, asks for an op on a dtype that has none, or cuts elements of less
/// than a byte inside a byte.
pub(in crate::execute) fn compile(
    plan: &Plan,
    stored: &dyn Stored,
    targets: &[usize],
    limit: usize,
) -> Result<Program> {
    let mut needed = vec![false; plan.nodes.len()];
    for target in targets {
        let target = &plan.targets[*target];
        let slot = needed.get_mut(target.node.0 as usize);
        *slot
            .ok_or_else(|| inconsistent("a target without a node").at_key(target.key.as_str()))? =
            true;
    }
    for id in (0..plan.nodes.len()).rev() {
        if needed[id] {
            for input in &plan.nodes[id].inputs {
                if input.0 as usize >= id {
                    return Err(inconsistent("a node comes before its input"));
                }
                needed[input.0 as usize] = true;
            }
        }
    }
    let mut compiler = Compiler {
        plan,
        stored,
        limit,
        done: vec![None; plan.nodes.len()],
        boxes: SourceBoxes::default(),
        moved: Arc::new(Expr::Operand(0)),
    };
    for (id, _) in needed.iter().enumerate().filter(|(_, needed)| **needed) {
        let id = NodeId(u32::try_from(id).map_err(|_| inconsistent("too many nodes"))?);
        let pieces = compiler.node(id)?;
        compiler.done[id.0 as usize] = Some(pieces);
    }
    let mut finished: Vec<Option<Arc<Layout>>> = vec![None; plan.nodes.len()];
    let mut program = Program {
        layouts: Vec::with_capacity(targets.len()),
        temporaries: BTreeSet::new(),
        boxes: SourceBoxes::default(),
    };
    for target in targets {
        let target = &plan.targets[*target];
        let slot = &mut finished[target.node.0 as usize];
        let layout = match slot {
            Some(layout) => layout.clone(),
            None => {
                // No other node is compiled any more, so that the pieces needn't be copied.
                let pieces = compiler.pieces(target.node)?;
                compiler.done[target.node.0 as usize] = None;
                let pieces = Arc::try_unwrap(pieces).unwrap_or_else(|shared| shared.to_vec());
                let layout = finish(plan.info(target), pieces)
                    .map_err(|error| error.at_key(target.key.as_str()))?;
                slot.insert(Arc::new(layout)).clone()
            }
        };
        let leaves = layout.pieces.iter().flat_map(|piece| &piece.value.leaves);
        program.temporaries.extend(leaves.filter(|leaf| leaf.part.is_none()).map(|leaf| leaf.node));
        program.layouts.push(layout);
    }
    program.boxes = compiler.boxes;
    Ok(program)
}

/// Checks that the pieces write each element, and brings dtypes of less than a byte to bytes.
fn finish(info: &TensorInfo, mut pieces: Vec<Piece<Value>>) -> Result<Layout> {
    let (numel, bits) = (info.numel().unwrap_or(0), u64::from(info.dtype.bits()));
    let volume = pieces.iter().map(|piece| u128::from(piece.volume())).sum::<u128>();
    if volume != u128::from(numel) {
        return Err(inconsistent(&format!("{volume} of {numel} elements are covered")));
    }
    info.nbytes().ok_or_else(|| inconsistent(&format!("{info} is no whole number of bytes")))?;
    if bits >= 8 {
        return Ok(Layout { info: info.clone(), numel, size: bits / 8, pieces });
    }
    let cut = || {
        Error::new(
            ErrorKind::Unsupported,
            format!("a tensor of {info} cannot be cut or turned inside a byte"),
        )
    };
    for piece in &mut pieces {
        let bytes = |elements: u64| {
            elements.checked_mul(bits).filter(|bits| bits.is_multiple_of(8)).map(|bits| bits / 8)
        };
        let inner = piece.dims.len().checked_sub(1).ok_or_else(cut)?;
        if !piece.value.is_copy()
            || piece.target.strides[inner] != 1
            || piece.operands[0].strides[inner] != 1
        {
            return Err(cut());
        }
        piece.dims[inner] = bytes(piece.dims[inner]).ok_or_else(cut)?;
        for course in [&mut piece.target, &mut piece.operands[0]] {
            course.offset = bytes(course.offset).ok_or_else(cut)?;
            for stride in &mut course.strides[..inner] {
                *stride = bytes(*stride).ok_or_else(cut)?;
            }
        }
        piece.value.leaves[0].dtype = Dtype::U8;
    }
    // A box of one byte has lost its dim's meaning, as any dim of one step.
    for piece in &mut pieces {
        if let Some(k) = piece.dims.iter().position(|n| *n == 1) {
            *piece = piece.slice(k, 0, 1);
        }
    }
    Ok(Layout { info: info.clone(), numel: numel * bits / 8, size: 1, pieces })
}

struct Compiler<'a> {
    plan: &'a Plan,
    stored: &'a dyn Stored,
    limit: usize,
    done: Vec<Option<Pieces>>,
    boxes: SourceBoxes,
    /// What moves elements and nothing else, once for all.
    moved: Arc<Expr>,
}

impl Compiler<'_> {
    fn pieces(&self, id: NodeId) -> Result<Pieces> {
        self.done
            .get(id.0 as usize)
            .and_then(Clone::clone)
            .ok_or_else(|| inconsistent("an input isn't computed"))
    }

    fn node(&mut self, id: NodeId) -> Result<Pieces> {
        let node = self.plan.node(id);
        check(self.plan, id)?;
        let numel = node.info.numel().unwrap_or(0);
        let moved = self.moved.clone();
        let leaf = || Value {
            leaves: smallvec![Leaf { node: id, part: None, dtype: node.info.dtype }],
            expr: moved.clone(),
        };
        if numel == 0 {
            return Ok(Arc::default());
        }
        let inputs: Vec<Pieces> =
            node.inputs.iter().map(|input| self.pieces(*input)).collect::<Result<_>>()?;
        let infos: Vec<&TensorInfo> =
            node.inputs.iter().map(|input| &self.plan.node(*input).info).collect();
        let found = match (&node.op, &inputs[..], &infos[..]) {
            (Op::Source { key }, ..) => self.source(id, key, &node.info)?,
            (Op::Sinusoids, ..) => None,
            (Op::Fill { value }, ..) => {
                let expr = Arc::new(Expr::Constant(value::fill(*value, node.info.dtype)?));
                Some(vec![Piece::whole(numel, 0, Value { leaves: smallvec![], expr })])
            }
            (Op::Reshape, [input], _) => return Ok(input.clone()),
            (Op::Narrow { dim, start, len }, [input], [info]) => {
                self.narrow(input, &info.shape, *dim, (*start, *start + *len))
            }
            (Op::Permute { dims }, [input], [info]) => self.permute(input, &info.shape, dims),
            (Op::Concat { dim }, ..) => self.concat(&inputs, &infos, *dim, node.info.shape[*dim]),
            (Op::Expand, [input], [info]) => self.expand(input, &info.shape, &node.info.shape),
            (Op::Binary { with }, [a, b], [first, second]) => {
                let pair = Pair { with: *with, infos: [*first, *second], to: node.info.dtype };
                self.pair([node.inputs[0], node.inputs[1]], [&a[..], &b[..]], &pair)
            }
            (Op::Unpack { bits }, [input], [info]) => {
                let whole = || vec![whole_leaf(node.inputs[0], info)];
                let is_copy = input.iter().all(|piece| piece.value.is_copy());
                let input = if is_copy { input.to_vec() } else { whole() };
                let codes = if *bits == 4 { Dtype::F4 } else { Dtype::U8 };
                self.unpack(&input, u64::from(info.dtype.bits() / bits), codes)
            }
            (Op::Lookup, [codes, _], [from, list]) => {
                Some(self.lookup(codes, from.dtype, (node.inputs[1], list)))
            }
            (Op::Product, _, [a, b]) => {
                Some(vec![product([node.inputs[0], node.inputs[1]], [*a, *b], &node.info)])
            }
            (Op::Reduce { .. } | Op::Count, ..) => None,
            (op, [input], [info]) => match Step::of(op) {
                Some(Step::Cast) if info.dtype == node.info.dtype => return Ok(input.clone()),
                Some(step) => Some(stepped(input, step, info.dtype, node.info.dtype)),
                None => return Err(inconsistent("a node has the wrong number of inputs")),
            },
            _ => return Err(inconsistent("a node has the wrong number of inputs")),
        };
        let mut pieces = match found {
            Some(pieces) => pieces,
            // Too many pieces, or none that say it: this node becomes a temporary.
            None => vec![Piece::whole(numel, 1, leaf())],
        };
        tidy(&mut pieces);
        Ok(Arc::new(pieces))
    }

    /// A piece for each box of a stored tensor; `None` if those are too many.
    fn source(
        &mut self,
        node: NodeId,
        key: &Key,
        info: &TensorInfo,
    ) -> Result<Option<Vec<Piece<Value>>>> {
        let boxes = self.stored.boxes(key, info)?;
        if *boxes.info() != *info {
            let why = format!("the store has {}, the plan {info}", boxes.info());
            return Err(inconsistent(&why).at_key(key.as_str()));
        }
        if boxes.len() > self.limit {
            return Ok(None);
        }
        let along = info.shape.contiguous_strides();
        let piece = |(at, part): (usize, &StoredBox)| {
            let part_number = u32::try_from(at).map_err(|_| inconsistent("too many parts"))?;
            let leaf = Leaf { node, part: Some(part_number), dtype: info.dtype };
            let value = Value { leaves: smallvec![leaf], expr: self.moved.clone() };
            if boxes.run().is_some() {
                return Ok(Piece::whole(info.numel().unwrap_or(0), 1, value));
            }
            let from = part.start.iter().zip(&along).map(|(start, step)| start * step).sum();
            let dims = (0..part.shape.len()).filter(|dim| part.shape[*dim] > 1);
            let dims: Vec<usize> = dims.collect();
            let course = |offset: u64, strides: &[u64]| Course {
                offset,
                strides: dims.iter().map(|dim| strides[*dim]).collect(),
            };
            let mut piece = Piece {
                dims: dims.iter().map(|dim| part.shape[*dim]).collect(),
                target: course(from, &along),
                operands: smallvec![course(0, &part.strides)],
                value,
            };
            piece.coalesce();
            Ok(piece)
        };
        let pieces = boxes.iter().enumerate().map(piece).collect::<Result<_>>()?;
        self.boxes.insert(node, boxes);
        Ok(Some(pieces))
    }

    fn narrow(
        &self,
        input: &[Piece<Value>],
        shape: &[u64],
        dim: usize,
        range: (u64, u64),
    ) -> Option<Vec<Piece<Value>>> {
        let (outer, size, inner) = around(shape, dim);
        let axes = Axes::new(&[outer, size * inner]);
        let len = (range.1 - range.0) * inner;
        let range = (range.0 * inner, range.1 * inner);
        let mut out = Vec::new();
        for piece in input {
            let mut refined = Vec::new();
            refine(piece.clone(), Which::Target, &axes, &mut refined, self.limit)?;
            for piece in refined {
                clip(piece, Which::Target, Cut::along(&axes, 1, range), &mut out, self.limit)?;
            }
        }
        for piece in &mut out {
            piece.target =
                axes.moved(
                    &piece.target,
                    &[len, 1],
                    |axis, at| if axis == 1 { at - range.0 } else { at },
                );
        }
        Some(out)
    }

    fn concat(
        &self,
        inputs: &[Pieces],
        infos: &[&TensorInfo],
        dim: usize,
        total: u64,
    ) -> Option<Vec<Piece<Value>>> {
        let mut before = 0;
        let mut out = Vec::new();
        for (pieces, info) in inputs.iter().zip(infos) {
            let (outer, size, inner) = around(&info.shape, dim);
            if size > 0 {
                let axes = Axes::new(&[outer, size * inner]);
                for piece in pieces.iter() {
                    let start = out.len();
                    refine(piece.clone(), Which::Target, &axes, &mut out, self.limit)?;
                    for piece in &mut out[start..] {
                        let shift = |axis, at| if axis == 1 { at + before * inner } else { at };
                        piece.target = axes.moved(&piece.target, &[total * inner, 1], shift);
                    }
                }
            }
            before += size;
        }
        Some(out)
    }

    fn permute(
        &self,
        input: &[Piece<Value>],
        shape: &[u64],
        dims: &[usize],
    ) -> Option<Vec<Piece<Value>>> {
        // Dimensions that stay neighbours move as one; those of one element don't matter.
        let mut groups: Vec<(usize, usize, u64)> = Vec::new();
        for dim in dims.iter().copied().filter(|dim| shape[*dim] != 1) {
            match groups.last_mut() {
                Some((_, last, size))
                    if shape[*last + 1..dim.max(*last + 1)].iter().all(|n| *n == 1)
                        && *last < dim =>
                {
                    (*last, *size) = (dim, *size * shape[dim]);
                }
                _ => groups.push((dim, dim, shape[dim])),
            }
        }
        let mut strides = vec![1u64; groups.len()];
        for i in (1..groups.len()).rev() {
            strides[i - 1] = strides[i] * groups[i].2;
        }
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_key(|i| groups[*i].0);
        let axes = Axes::new(&order.iter().map(|i| groups[*i].2).collect::<Vec<_>>());
        let strides: Vec<u64> = order.iter().map(|i| strides[*i]).collect();
        let mut out = Vec::new();
        for piece in input {
            refine(piece.clone(), Which::Target, &axes, &mut out, self.limit)?;
        }
        for piece in &mut out {
            piece.target = axes.moved(&piece.target, &strides, |_, at| at);
        }
        Some(out)
    }
}

fn whole_leaf(node: NodeId, info: &TensorInfo) -> Piece<Value> {
    let value = Value {
        leaves: smallvec![Leaf { node, part: None, dtype: info.dtype }],
        expr: Arc::new(Expr::Operand(0)),
    };
    Piece::whole(info.numel().unwrap_or(0), 1, value)
}

fn stepped(input: &[Piece<Value>], step: Step, from: Dtype, to: Dtype) -> Vec<Piece<Value>> {
    let mut pieces = input.to_vec();
    for piece in &mut pieces {
        let input = Box::new(piece.value.expr.as_ref().clone());
        piece.value.expr = Arc::new(Expr::Step { step, from, to, input });
    }
    pieces
}

/// Elements before, along and after a dimension. Products fit: the whole shape's does, and no size
/// is 0 (or nothing is computed).
fn around(shape: &[u64], dim: usize) -> (u64, u64, u64) {
    (shape[..dim].iter().product(), shape[dim], shape[dim + 1..].iter().product())
}
