//! Ops in rules, forwards and backwards: random chains come back to the bytes they started from,
//! and each op does what a plain loop over indices does.

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use regraft::execute::views;
use regraft::key::Key;
use regraft::plan::{PlanOptions, Stage, plan};
use regraft::store::{StateDict, Store};
use regraft::tensor::{Dtype, Storage, TensorInfo, TensorView};
use regraft::{Direction, Rules, compile};

/// A tensor whose elements are their own places, 0, 1, 2, …
fn counting(shape: &[u64]) -> TensorView {
    let count: u64 = shape.iter().product();
    let bytes: Vec<u8> = (0..u16::try_from(count).unwrap()).flat_map(u16::to_le_bytes).collect();
    TensorView::contiguous(Storage::new(bytes), TensorInfo::new(Dtype::U16, shape), 0).unwrap()
}

fn elements(view: &TensorView) -> Vec<u16> {
    view.to_vec().chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

fn apply(rules: &Rules, direction: Direction, source: &StateDict) -> StateDict {
    let plan =
        plan(&[Stage { rules, direction, named: true }], source.header(), &PlanOptions::default())
            .unwrap();
    StateDict::from_tensors(views(&plan, source).unwrap().tensors, Default::default())
}

fn dict<'a>(tensors: impl IntoIterator<Item = (&'a str, TensorView)>) -> StateDict {
    StateDict::from_tensors(
        tensors.into_iter().map(|(key, view)| (Key::from(key), view)),
        Default::default(),
    )
}

/// The next op of a chain over a shape, chosen by a number, and the shape after it.
fn next_op(shape: &mut Vec<u64>, choice: u32) -> String {
    let rank = shape.len();
    let pick = |from: usize| choice as usize / 16 % from.max(1);
    let dim = pick(rank);
    match choice % 14 {
        0 if rank > 1 => {
            let other = (dim + 1) % rank;
            shape.swap(dim, other);
            format!("transpose({dim}, {other})")
        }
        1 if rank > 1 => {
            let mut dims: Vec<usize> = (0..rank).collect();
            dims.rotate_left(1 + dim % (rank - 1));
            *shape = dims.iter().map(|dim| shape[*dim]).collect();
            format!("permute({})", dims.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))
        }
        2 | 3 if (1..5).contains(&rank) => {
            // A dimension in two factors.
            let before = shape.clone();
            let factor = (1..=shape[dim].max(1))
                .rev()
                .find(|factor| shape[dim].is_multiple_of(*factor) && *factor <= 1 + pick(4) as u64)
                .unwrap_or(1);
            shape.splice(dim..=dim, [shape[dim] / factor, factor]);
            format!("reshape({shape:?}, {before:?})")
        }
        4 | 5 if rank > 1 => {
            // Two neighbours as one.
            let before = shape.clone();
            let at = pick(rank - 1);
            let merged = shape[at] * shape[at + 1];
            shape.splice(at..=at + 1, [merged]);
            format!("reshape({shape:?}, {before:?})")
        }
        6 if rank > 0 && shape[dim].is_multiple_of(2) => format!("interleave({dim})"),
        7 if rank > 0 && shape[dim].is_multiple_of(2) => format!("deinterleave({dim})"),
        8 | 9 if rank > 0 && shape[0].is_multiple_of(4) => {
            format!(
                "rope_{}({})",
                if choice % 14 == 8 { "halves" } else { "pairs" },
                if pick(2) == 0 { 1 } else { 2 }
            )
        }
        10 if rank > 0 => {
            let from = shape[dim];
            shape[dim] += 1 + pick(3) as u64;
            format!("pad({dim}, {}, {from})", shape[dim])
        }
        11 if shape.contains(&1) => {
            let dim = shape.iter().position(|size| *size == 1).unwrap();
            shape.remove(dim);
            // Counted from the start or, as everywhere, from the end.
            let from_end = dim as isize - rank as isize;
            format!("squeeze({})", if pick(2) == 0 { dim as isize } else { from_end })
        }
        12 => {
            let dim = pick(rank + 1);
            shape.insert(dim, 1);
            let from_end = dim as isize - rank as isize - 1;
            format!("unsqueeze({})", if choice.is_multiple_of(2) { dim as isize } else { from_end })
        }
        _ => {
            let before = shape.clone();
            shape.insert(dim.min(rank), 1);
            format!("reshape({shape:?}, {before:?})")
        }
    }
}

#[test]
fn chains_come_back() {
    let shapes = prop::collection::vec(0u64..7, 0..4);
    let strategy = (shapes, prop::collection::vec(any::<u32>(), 1..6));
    let mut count = 0;
    let mut runner =
        TestRunner::new(Config { cases: 10_000, failure_persistence: None, ..Config::default() });
    runner
        .run(&strategy, |(start, choices)| {
            let mut shape = start.clone();
            let mut chain = String::new();
            for choice in choices {
                let op = next_op(&mut shape, choice);
                if shape.iter().product::<u64>() > 4000 || shape.len() > 8 {
                    return Ok(());
                }
                write!(chain, "{}{op}", if chain.is_empty() { "" } else { " | " }).unwrap();
            }
            let rules = compile(&format!("map \"a\" <-> \"b\" via {chain}")).unwrap();
            let source = dict([("a", counting(&start))]);
            let there = apply(&rules, Direction::Forward, &source);
            prop_assert_eq!(&**there.get("b").unwrap().shape(), &shape[..], "{}", chain);
            let back = apply(&rules, Direction::Reverse, &there);
            prop_assert_eq!(
                back.get("a").unwrap().to_vec(),
                source.get("a").unwrap().to_vec(),
                "{}",
                chain
            );
            Ok(())
        })
        .map(|()| count += 10_000)
        .unwrap();
    assert_eq!(count, 10_000);
}

/// Where the elements of the one result come from, for a rule over one tensor of a shape.
fn places(rule: &str, shape: &[u64]) -> Vec<u16> {
    let rules = compile(&format!("map \"a\" -> \"b\" via {rule}")).unwrap();
    elements(apply(&rules, Direction::Forward, &dict([("a", counting(shape))])).get("b").unwrap())
}

#[test]
fn rope_halves_takes_each_head_apart() {
    // As `w.view(heads, d / 2, 2, -1).transpose(1, 2)` does: pair i of a head goes to i and i + d /
    // 2.
    let (heads, size, columns) = (3usize, 8usize, 2usize);
    let mut expected = vec![0u16; heads * size * columns];
    for head in 0..heads {
        for row in 0..size {
            let to = head * size + (row % 2) * (size / 2) + row / 2;
            for column in 0..columns {
                expected[to * columns + column] =
                    u16::try_from((head * size + row) * columns + column).unwrap();
            }
        }
    }
    assert_eq!(places("rope_halves(3)", &[24, 2]), expected);
    assert_eq!(places("rope_halves(2)", &[8]), [0, 2, 1, 3, 4, 6, 5, 7]);
    assert_eq!(places("rope_pairs(2)", &[8]), [0, 2, 1, 3, 4, 6, 5, 7]);
    assert_eq!(places("rope_pairs(1)", &[8]), [0, 4, 1, 5, 2, 6, 3, 7]);
}

#[test]
fn interleave_takes_from_both_halves_in_turn() {
    assert_eq!(places("interleave(0)", &[6]), [0, 3, 1, 4, 2, 5]);
    assert_eq!(places("deinterleave(0)", &[6]), [0, 2, 4, 1, 3, 5]);
    assert_eq!(places("interleave(1)", &[2, 4]), [0, 2, 1, 3, 4, 6, 5, 7]);
}

#[test]
fn permute_names_where_each_dimension_comes_from() {
    // Result [k][i][j] is input [i][j][k].
    let mut expected = Vec::new();
    for k in 0..4u16 {
        for i in 0..2u16 {
            for j in 0..3u16 {
                expected.push((i * 3 + j) * 4 + k);
            }
        }
    }
    assert_eq!(places("permute(2, 0, 1)", &[2, 3, 4]), expected);
}

/// As numpy's `squeeze(axis)` and `expand_dims(axis)` do: the elements stay in their order, and an
/// axis counts in what it is taken from, a new one in the result.
#[test]
fn squeeze_and_unsqueeze_are_those_of_numpy() {
    let shape_of = |op: &str, shape: &[u64]| -> Vec<u64> {
        let rules = compile(&format!("map \"a\" <-> \"b\" via {op}")).unwrap();
        let source = dict([("a", counting(shape))]);
        let there = apply(&rules, Direction::Forward, &source);
        let back = apply(&rules, Direction::Reverse, &there);
        let (a, b) = (source.get("a").unwrap(), there.get("b").unwrap());
        assert_eq!(elements(b), elements(a), "{op}");
        assert_eq!(back.get("a").unwrap().info(), a.info(), "{op} backwards");
        b.shape().to_vec()
    };
    assert_eq!(shape_of("squeeze(2)", &[4, 3, 1]), [4, 3]);
    assert_eq!(shape_of("squeeze(-1)", &[4, 3, 1]), [4, 3]);
    assert_eq!(shape_of("squeeze(0)", &[1, 0]), [0]);
    assert_eq!(shape_of("squeeze(0)", &[1]), [0u64; 0]);
    assert_eq!(shape_of("unsqueeze(0)", &[]), [1]);
    assert_eq!(shape_of("unsqueeze(-1)", &[]), [1]);
    assert_eq!(shape_of("unsqueeze(1)", &[4, 3]), [4, 1, 3]);
    assert_eq!(shape_of("unsqueeze(2)", &[4, 3]), [4, 3, 1]);
    assert_eq!(shape_of("unsqueeze(-1)", &[4, 3]), [4, 3, 1]);
    assert_eq!(shape_of("unsqueeze(-3)", &[4, 3]), [1, 4, 3]);
}

#[test]
fn qkv_group_puts_each_kv_head_behind_its_queries() {
    // Four query heads, two key and value heads, of two rows each.
    let rules = compile("map \"q\", \"k\", \"v\" <-> \"qkv\" via qkv_group(4, 2)").unwrap();
    let numbered = |first: u16, count: u16| {
        let bytes: Vec<u8> = (first..first + count).flat_map(u16::to_le_bytes).collect();
        TensorView::contiguous(
            Storage::new(bytes),
            TensorInfo::new(Dtype::U16, vec![u64::from(count)]),
            0,
        )
        .unwrap()
    };
    let source = dict([("q", numbered(0, 8)), ("k", numbered(100, 4)), ("v", numbered(200, 4))]);
    let there = apply(&rules, Direction::Forward, &source);
    let expected = [0, 1, 2, 3, 100, 101, 200, 201, 4, 5, 6, 7, 102, 103, 202, 203];
    assert_eq!(elements(there.get("qkv").unwrap()), expected);
    let back = apply(&rules, Direction::Reverse, &there);
    for key in ["q", "k", "v"] {
        assert_eq!(back.get(key).unwrap().to_vec(), source.get(key).unwrap().to_vec());
    }
}

#[test]
fn joins_come_back() {
    let text = "map \"e.{e}.a\", \"e.{e}.b\" <-> \"ab\" via stack(e) | concat(1)\nmap \"q\", \"k\", \"v\" <-> \"qkv\" via concat(0, 4, 1, 1)";
    let rules = compile(text).unwrap();
    let mut source =
        dict([("q", counting(&[8, 3])), ("k", counting(&[2, 3])), ("v", counting(&[2, 3]))]);
    for expert in 0..12 {
        source.insert(Key::from(format!("e.{expert}.a")), counting(&[2, 3]));
        source.insert(Key::from(format!("e.{expert}.b")), counting(&[2, 3]));
    }
    let there = apply(&rules, Direction::Forward, &source);
    assert_eq!(**there.get("ab").unwrap().shape(), [12, 4, 3]);
    assert_eq!(**there.get("qkv").unwrap().shape(), [12, 3]);
    let back = apply(&rules, Direction::Reverse, &there);
    assert_eq!(back.len(), source.len());
    for (key, view) in source.iter() {
        assert_eq!(back.get(key).unwrap().to_vec(), view.to_vec(), "{key}");
    }
}

#[test]
fn sinusoids_are_sines_then_cosines() {
    let rules = compile("create \"p\" = sinusoids([5, 4], F32)").unwrap();
    let made = apply(&rules, Direction::Forward, &dict([("a", counting(&[1]))]));
    let bytes = made.get("p").unwrap().to_vec();
    let found: Vec<f32> =
        bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    // Four columns: two frequencies, 1 and 1 / 100.
    let expected: Vec<f32> = (0..5u8)
        .map(f64::from)
        .flat_map(|p| [p.sin(), (p / 100.0).sin(), p.cos(), (p / 100.0).cos()])
        .map(|value| value as f32)
        .collect();
    assert_eq!(found, expected);
}
