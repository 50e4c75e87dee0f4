//! The reference executor: node by node, whole tensors, element by element. Slow and plain on
//! purpose.
//!
//! The fused executor must agree with it bitwise, which the tests check; it also evaluates the few
//! nodes that fusing gives up on.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::value::{self, Reducer, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::execute::fuse::compile::check;
use crate::key::Key;
use crate::plan::{NodeId, Op, Plan};
use crate::store::Store;
use crate::tensor::{Dtype, Shape, TensorInfo};

/// Evaluates a node: its elements in row-major order, little-endian.
///
/// # Errors
/// If the plan is inconsistent or asks for an op on a dtype that has none, or reading a source
/// fails.
pub fn evaluate(plan: &Plan, source: &dyn Store, node: NodeId) -> Result<Vec<u8>> {
    Ok(evaluate_counting(plan, source, node)?.0)
}

/// As [`evaluate`], and how many elements were computed from finite ones and are infinite or NaN.
pub(super) fn evaluate_counting(
    plan: &Plan,
    source: &dyn Store,
    node: NodeId,
) -> Result<(Vec<u8>, u64)> {
    let mut overflowed = 0;
    let mut needed = vec![false; plan.nodes.len()];
    *needed
        .get_mut(node.0 as usize)
        .ok_or_else(|| Error::corrupt("the plan is inconsistent: no such node"))? = true;
    let mut done: BTreeMap<NodeId, Rc<Vec<u8>>> = BTreeMap::new();
    for id in (0..=node.0 as usize).rev() {
        for input in
            plan.nodes[id].inputs.iter().filter(|_| needed[id]).cloned().collect::<Vec<_>>()
        {
            if input.0 as usize >= id {
                return Err(Error::corrupt(
                    "the plan is inconsistent: a node comes before its input",
                ));
            }
            needed[input.0 as usize] = true;
        }
    }
    for id in (0..=node.0).filter(|id| needed[*id as usize]).map(NodeId) {
        check(plan, id)?;
        let inputs: Vec<_> =
            plan.node(id).inputs.iter().filter_map(|input| done.get(input).cloned()).collect();
        let elements = step(plan, source, id, &inputs, &mut overflowed)?;
        done.insert(id, Rc::new(elements));
    }
    let elements = done.remove(&node).unwrap_or_default();
    Ok((pack(&plan.node(node).info, &elements)?, overflowed))
}

/// Bytes of an element while unpacked: those of less than a byte have one each.
fn width(dtype: Dtype) -> usize {
    (dtype.bits() as usize / 8).max(1)
}

fn step(
    plan: &Plan,
    source: &dyn Store,
    id: NodeId,
    inputs: &[Rc<Vec<u8>>],
    overflowed: &mut u64,
) -> Result<Vec<u8>> {
    let node = plan.node(id);
    let info = &node.info;
    let numel = size(info.numel())?;
    let w = width(info.dtype);
    let shapes: Vec<&TensorInfo> =
        node.inputs.iter().map(|input| &plan.node(*input).info).collect();
    let mut out = room(numel.checked_mul(w), info)?;
    match &node.op {
        Op::Source { key } => {
            matches_header(source, key, info)?;
            let mut bytes = vec![0; size(info.nbytes())?];
            source.read_at(key, 0, &mut bytes)?;
            out = unpack(info, bytes);
        }
        Op::Fill { value } => {
            let element = value::fill(*value, info.dtype)?;
            (0..numel).for_each(|_| out.extend_from_slice(&element));
        }
        Op::Sinusoids => sinusoids(info, &mut out)?,
        Op::Reshape => out.extend_from_slice(&inputs[0]),
        Op::Narrow { dim, start, .. } => gather(&info.shape, w, &mut out, |at| {
            at[*dim] += start;
            (&inputs[0][..], index(at, &shapes[0].shape))
        }),
        Op::Permute { dims } => gather(&info.shape, w, &mut out, |at| {
            let mut from = at.to_vec();
            for (i, dim) in dims.iter().enumerate() {
                from[*dim] = at[i];
            }
            (&inputs[0][..], index(&from, &shapes[0].shape))
        }),
        Op::Concat { dim } => gather(&info.shape, w, &mut out, |at| {
            let mut which = 0;
            while at[*dim] >= shapes[which].shape[*dim] {
                at[*dim] -= shapes[which].shape[*dim];
                which += 1;
            }
            (&inputs[which][..], index(at, &shapes[which].shape))
        }),
        Op::Expand => gather(&info.shape, w, &mut out, |at| {
            for (at, size) in at.iter_mut().zip(shapes[0].shape.iter()) {
                *at = if *size == 1 { 0 } else { *at };
            }
            (&inputs[0][..], index(at, &shapes[0].shape))
        }),
        op => out = computed(op, info, &shapes, inputs, overflowed)?,
    }
    Ok(out)
}

/// What an op computes of its inputs.
fn computed(
    op: &Op,
    info: &TensorInfo,
    shapes: &[&TensorInfo],
    inputs: &[Rc<Vec<u8>>],
    overflowed: &mut u64,
) -> Result<Vec<u8>> {
    let out = match op {
        Op::Binary { with } => {
            let [a, b] = [0, 1].map(|at| (shapes[at].dtype, &inputs[at][..]));
            let out = value::binary(*with, a, b, info.dtype)?;
            *overflowed += value::overflowed([a, b].into_iter(), (info.dtype, &out));
            out
        }
        Op::Reduce { take, dims } => {
            let mut reducer = Reducer::new(*take, shapes[0], dims)?;
            reducer.feed(shapes[0].dtype, &inputs[0])?;
            reducer.finish(info.dtype)?
        }
        Op::Product => {
            let out = multiplied(info, shapes, inputs)?;
            // What factors can give that is infinite or NaN is never meant.
            *overflowed += value::overflowed(std::iter::empty(), (info.dtype, &out));
            out
        }
        Op::Unpack { bits: 4 } => {
            inputs[0].iter().flat_map(|byte| [byte & 15, byte >> 4]).collect()
        }
        Op::Unpack { .. } => inputs[0].to_vec(),
        Op::Lookup => {
            let codes = (shapes[0].dtype, &inputs[0][..]);
            value::lookup(codes, &inputs[1], width(info.dtype))?
        }
        #[allow(clippy::cast_precision_loss)]
        Op::Count => (0..info.shape[0]).flat_map(|at| (at as f64).to_le_bytes()).collect(),
        op => {
            let step = Step::of(op)
                .ok_or_else(|| Error::corrupt("the plan is inconsistent: an unknown op"))?;
            let out = step.apply(shapes[0].dtype, info.dtype, &inputs[0])?;
            let from = step.counts_as(shapes[0].dtype);
            let input = [(from, &inputs[0][..])].into_iter();
            *overflowed += value::overflowed(input, (info.dtype, &out));
            out
        }
    };
    Ok(out)
}

/// Products of matrices, one element after the other.
fn multiplied(
    info: &TensorInfo,
    shapes: &[&TensorInfo],
    inputs: &[Rc<Vec<u8>>],
) -> Result<Vec<u8>> {
    let (a, b) = (&shapes[0].shape, &shapes[1].shape);
    let rank = a.len();
    let (rows, summed, columns) = (size(Some(a[rank - 2]))?, size(Some(a[rank - 1]))?, b[rank - 1]);
    let columns = size(Some(columns))?;
    let width = width(info.dtype);
    let at = |which: usize, index: usize| &inputs[which][index * width..(index + 1) * width];
    let mut out = Vec::new();
    for place in 0..size(info.numel())? {
        let (row, column) = (place / columns, place % columns);
        let matrix = row / rows;
        let pairs = (0..summed).map(|step| {
            (at(0, row * summed + step), at(1, (matrix * summed + step) * columns + column))
        });
        if info.dtype == Dtype::F64 {
            let pairs = pairs.map(|(a, b)| (f64_of(a), f64_of(b)));
            out.extend(pairs.fold(0.0f64, |sum, (a, b)| a.mul_add(b, sum)).to_le_bytes());
        } else {
            let pairs = pairs.map(|(a, b)| (f32_of(a), f32_of(b)));
            out.extend(pairs.fold(0.0f32, |sum, (a, b)| a.mul_add(b, sum)).to_le_bytes());
        }
    }
    Ok(out)
}

fn f64_of(bytes: &[u8]) -> f64 {
    bytes.first_chunk().map_or(0.0, |bytes| f64::from_le_bytes(*bytes))
}

fn f32_of(bytes: &[u8]) -> f32 {
    bytes.first_chunk().map_or(0.0, |bytes| f32::from_le_bytes(*bytes))
}

/// An empty buffer with room for a tensor.
fn room(bytes: Option<usize>, info: &TensorInfo) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    if bytes.is_some_and(|bytes| out.try_reserve_exact(bytes).is_ok()) {
        return Ok(out);
    }
    Err(Error::new(ErrorKind::Limit, format!("no memory for a tensor of {info}")))
}

/// Sinusoidal positions, as [`Op::Sinusoids`] says.
fn sinusoids(info: &TensorInfo, out: &mut Vec<u8>) -> Result<()> {
    let (rows, columns) = (info.shape[0], info.shape[1]);
    let half = columns.div_ceil(2);
    for row in 0..rows {
        for column in 0..columns {
            let pair = if column < half { column } else { column - half };
            #[allow(clippy::cast_precision_loss)]
            let angle = row as f64 / 10_000f64.powf(2.0 * pair as f64 / columns as f64);
            let element = if column < half { angle.sin() } else { angle.cos() };
            out.extend_from_slice(&value::fill(element, info.dtype)?);
        }
    }
    Ok(())
}

/// Checks that a source is what the plan was made for.
///
/// # Errors
/// If the checkpoint has no such key, or another tensor under it.
pub(super) fn matches_header(source: &dyn Store, key: &Key, expected: &TensorInfo) -> Result<()> {
    let message = match source.header().get(key) {
        Some(found) if found == expected => return Ok(()),
        Some(found) => {
            format!("the plan was made for {expected}, but the checkpoint holds {found}")
        }
        None => "the checkpoint has no such key, which the plan reads".to_owned(),
    };
    Err(Error::corrupt(message).at_key(key.as_str()))
}

/// For each place of the result, in order: the element at an index of an input.
fn gather<'a>(
    shape: &Shape,
    width: usize,
    out: &mut Vec<u8>,
    pick: impl Fn(&mut [u64]) -> (&'a [u8], usize),
) {
    if shape.contains(&0) {
        return;
    }
    let mut at = vec![0u64; shape.len()];
    loop {
        let (input, index) = pick(&mut at.clone());
        out.extend_from_slice(&input[index * width..(index + 1) * width]);
        let mut dim = shape.len();
        loop {
            if dim == 0 {
                return;
            }
            dim -= 1;
            at[dim] += 1;
            if at[dim] < shape[dim] {
                break;
            }
            at[dim] = 0;
        }
    }
}

fn index(at: &[u64], shape: &Shape) -> usize {
    let index = at.iter().zip(shape.iter()).fold(0, |index, (at, size)| index * size + at);
    usize::try_from(index).unwrap_or(usize::MAX)
}

fn size(count: Option<u64>) -> Result<usize> {
    count
        .and_then(|count| usize::try_from(count).ok())
        .ok_or_else(|| Error::corrupt("a tensor's size is no number of bytes"))
}

/// One byte for each element of less than a byte, the low bits first.
fn unpack(info: &TensorInfo, bytes: Vec<u8>) -> Vec<u8> {
    let bits = info.dtype.bits() as usize;
    if bits >= 8 {
        return bytes;
    }
    let bit = |i: usize| bytes[i / 8] >> (i % 8) & 1;
    (0..bytes.len() * 8 / bits).map(|e| (0..bits).map(|b| bit(e * bits + b) << b).sum()).collect()
}

fn pack(info: &TensorInfo, elements: &[u8]) -> Result<Vec<u8>> {
    let bits = info.dtype.bits() as usize;
    if bits >= 8 {
        return Ok(elements.to_vec());
    }
    let mut bytes = vec![0u8; size(info.nbytes())?];
    for i in 0..bytes.len() * 8 {
        bytes[i / 8] |= (elements[i / bits] >> (i % bits) & 1) << (i % 8);
    }
    Ok(bytes)
}
