#![allow(clippy::cast_possible_truncation)] // of sizes that these tests make

use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::plan::modules::pairs;
use crate::tensor::{Dtype, TensorInfo};

/// The element of the checkpoint that each element of a node is.
type Elements = Vec<(NodeId, u64)>;

/// The element of the checkpoint that each element of a node is, in row-major order: a calculation
/// of its own, coordinate by coordinate.
fn elements(graph: &Graph, id: NodeId) -> Elements {
    let node = graph.node(id);
    let shape = node.info.shape.to_vec();
    let count = shape.iter().product::<u64>();
    let coordinates = |mut index: u64, shape: &[u64]| {
        let mut at = vec![0; shape.len()];
        for dim in (0..shape.len()).rev() {
            at[dim] = index % shape[dim];
            index /= shape[dim];
        }
        at
    };
    let index = |at: &[u64], shape: &[u64]| {
        at.iter().zip(shape).fold(0, |index, (at, size)| index * size + at)
    };
    let inputs: Vec<(Vec<u64>, Elements)> = node
        .inputs
        .iter()
        .map(|input| (graph.info(*input).shape.to_vec(), elements(graph, *input)))
        .collect();
    (0..count)
        .map(|element| {
            let mut at = coordinates(element, &shape);
            match &node.op {
                Op::Source { .. } => (id, element),
                Op::Reshape => inputs[0].1[element as usize],
                Op::Narrow { dim, start, .. } => {
                    at[*dim] += start;
                    inputs[0].1[index(&at, &inputs[0].0) as usize]
                }
                Op::Permute { dims } => {
                    let mut from = vec![0; at.len()];
                    dims.iter().enumerate().for_each(|(dim, of)| from[*of] = at[dim]);
                    inputs[0].1[index(&from, &inputs[0].0) as usize]
                }
                Op::Concat { dim } => {
                    let mut which = 0;
                    while at[*dim] >= inputs[which].0[*dim] {
                        at[*dim] -= inputs[which].0[*dim];
                        which += 1;
                    }
                    inputs[which].1[index(&at, &inputs[which].0) as usize]
                }
                other => unreachable!("{other:?}"),
            }
        })
        .collect()
}

/// One step of a chain, by numbers that are made to fit.
fn step(
    graph: &mut Graph,
    last: NodeId,
    others: &[NodeId],
    kind: u8,
    x: u64,
    y: u64,
) -> Option<NodeId> {
    let shape = graph.info(last).shape.to_vec();
    let dim = (x % shape.len() as u64) as usize;
    match kind {
        0 => {
            let start = y % shape[dim];
            graph.narrow(last, dim, start, 1 + (y / 3) % (shape[dim] - start)).ok()
        }
        1 => {
            let mut dims: Vec<usize> = (0..shape.len()).collect();
            dims.swap(dim, (y % shape.len() as u64) as usize);
            graph.permute(last, &dims).ok()
        }
        2 => {
            // One dimension becomes two.
            let divisors: Vec<u64> =
                (1..=shape[dim]).filter(|size| shape[dim].is_multiple_of(*size)).collect();
            let part = divisors[(y % divisors.len() as u64) as usize];
            let mut to = shape.clone();
            to.splice(dim..=dim, [shape[dim] / part, part]);
            graph.reshape(last, to).ok()
        }
        3 if dim + 1 < shape.len() => {
            let mut to = shape.clone();
            to.splice(dim..=dim + 1, [shape[dim] * shape[dim + 1]]);
            graph.reshape(last, to).ok()
        }
        _ => {
            let fits: Vec<NodeId> = others
                .iter()
                .copied()
                .filter(|other| graph.info(*other).shape == graph.info(last).shape)
                .collect();
            let other = *fits.get((y % fits.len().max(1) as u64) as usize)?;
            graph.concat(vec![last, other], dim).ok()
        }
    }
}

fn header(graph: &mut Graph, name: &str, rows: u64, columns: u64) -> NodeId {
    let weight = graph
        .source(
            &Key::from(format!("{name}.weight")),
            &TensorInfo::new(Dtype::F8_E4M3, vec![rows, columns]),
        )
        .unwrap();
    let scales = TensorInfo::new(Dtype::F32, vec![rows.div_ceil(4), columns.div_ceil(3)]);
    graph.source(&Key::from(format!("{name}.weight_scale_inv")), &scales).unwrap();
    weight
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Where blocks are said to be whole, each is one of the checkpoint's, whole but for edges, and
    /// they lie as is said.
    #[test]
    fn what_is_whole_is_whole(
        rows in 1u64..14,
        columns in 1u64..11,
        chain in prop::collection::vec((0u8..5, 0u64..1000, 0u64..1000), 1..6),
    ) {
        let mut graph = Graph::default();
        let weights = [header(&mut graph, "a", rows, columns), header(&mut graph, "b", rows, columns)];
        let config = Config::from_value(serde_json::json!({"quantization_config": {"weight_block_size": [4, 3]}}));
        let quantized = quantized(&graph, &pairs(&graph), &config);
        prop_assert_eq!(quantized.iter().count(), 2);
        let mut others = weights.to_vec();
        let mut last = weights[0];
        for (kind, x, y) in chain {
            if let Some(next) = step(&mut graph, last, &others, kind, x, y) {
                last = next;
                others.push(next);
            }
        }
        let (blocks, from) = follow(&graph, &quantized);
        let check = Check { graph: &graph, blocks, from, quantized, steps: Cell::new(0), seen: RefCell::default() };
        let Blocks::Of(block) = &check.blocks[last.0 as usize] else { return Ok(()) };
        let info = graph.info(last);
        let sources = |(id, element): (NodeId, u64)| {
            let (row, column) = (element / columns, element % columns);
            (id, row / 4 * columns.div_ceil(3) + column / 3)
        };
        let mut of_blocks: BTreeMap<u64, std::collections::BTreeSet<(NodeId, u64)>> = BTreeMap::new();
        let sizes = grid(info, block);
        let mut elements_of: BTreeMap<u64, u64> = BTreeMap::new();
        for (element, from) in (0u64..).zip(elements(&graph, last)) {
            let (mut rest, mut at) = (element, 0);
            let coordinates: Vec<u64> = info.shape.iter().rev().map(|size| { let here = rest % size; rest /= size; here }).collect();
            for (dim, here) in coordinates.iter().rev().enumerate() {
                at = at * sizes[dim] + here / block[dim].max(1);
            }
            of_blocks.entry(at).or_default().insert(sources(from));
            *elements_of.entry(at).or_default() += 1;
        }
        prop_assert!(of_blocks.values().all(|from| from.len() == 1), "{:?} mixes blocks", check.blocks[last.0 as usize]);
        let (_, order) = check.blocks_in_order(last, 0).unwrap();
        let expected: Vec<u64> = of_blocks.values().map(|from| {
            let (id, which) = from.first().copied().unwrap();
            (u64::from(check.quantized.get(id).unwrap().scales.0) << 24) + which
        }).collect();
        prop_assert_eq!(order, expected);
    }
}

#[test]
fn chains_of_both_kinds_are_met() {
    let mut graph = Graph::default();
    let weight = header(&mut graph, "a", 12, 6);
    let whole = graph.narrow(weight, 0, 4, 8).unwrap();
    let cut = graph.narrow(weight, 0, 2, 4).unwrap();
    // Within a block rows may change places: its scale is the same.
    let split = graph.reshape(weight, vec![6, 2, 6]).unwrap();
    let turned = graph.permute(split, &[1, 0, 2]).unwrap();
    let scattered = graph.reshape(turned, vec![12, 6]).unwrap();
    let within = graph.reshape(weight, vec![3, 2, 2, 6]).unwrap();
    let within = graph.permute(within, &[0, 2, 1, 3]).unwrap();
    let within = graph.reshape(within, vec![12, 6]).unwrap();
    let config = Config::from_value(
        serde_json::json!({"quantization_config": {"weight_block_size": [4, 3]}}),
    );
    let (blocks, _) = follow(&graph, &quantized(&graph, &pairs(&graph), &config));
    let of = |id: NodeId| blocks[id.0 as usize].clone();
    assert_eq!(of(whole), Blocks::Of(smallvec::smallvec![4, 3]));
    assert_eq!(of(within), Blocks::Of(smallvec::smallvec![4, 3]));
    assert!(matches!(of(cut), Blocks::Broken(_)) && matches!(of(scattered), Blocks::Broken(_)));
}
