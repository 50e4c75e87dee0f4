//! Random plans: fused in memory and fused to a file, at every size of buffers, agree bitwise with
//! the reference, element by element.

mod boxes;
mod parts;
mod random;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::write::leaves::FileLeaves;
use super::write::stream::{OutFile, Output, Pool};
use super::{naive, view};
use crate::error::Result;
use crate::execute::fuse::compile::{AsStored, Leaf, Program, compile};
use crate::execute::fuse::gather::Leaves;
use crate::execute::fuse::layout::MAX_PIECES;
use crate::plan::{NodeId, Op, Plan};
use crate::store::{Blob, Extent, Hints, Range, Store};
use boxes::boxes_agree;
use parts::parts_agree;
use random::{Choices, Random};

/// Leaves that are only ever read in stretches.
struct Read<'a>(&'a Plan, &'a dyn Store, BTreeMap<NodeId, Vec<u8>>);

impl Leaves for Read<'_> {
    fn read(&self, leaf: Leaf, ranges: &mut [(u64, &mut [u8])]) -> Result<()> {
        let Op::Source { key } = &self.0.node(leaf.node).op else { panic!("it is in memory") };
        let boxes = self.1.boxes(key)?;
        let part = boxes.get(leaf.part.unwrap() as usize).unwrap();
        let ranges = ranges.iter_mut().map(|(offset, buffer)| Range {
            blob: part.blob,
            offset: part.offset + *offset,
            buffer,
        });
        self.1.read(&mut ranges.collect::<Vec<_>>())
    }

    fn bytes(&self, leaf: Leaf) -> Option<&[u8]> {
        if leaf.part.is_some() {
            return None;
        }
        self.2.get(&leaf.node).map(Vec::as_slice)
    }
}

impl FileLeaves for Read<'_> {
    fn hints(&self) -> Hints {
        self.1.hints()
    }

    fn place(&self, leaf: Leaf) -> Option<(Blob, u64)> {
        let Op::Source { key } = &self.0.node(leaf.node).op else { return None };
        let boxes = self.1.boxes(key).ok()?;
        let part = boxes.get(leaf.part? as usize)?;
        Some((part.blob, part.offset))
    }

    fn fetch(&self, ranges: &mut [Range<'_>]) -> Result<()> {
        self.1.read(ranges)
    }

    fn stream(
        &self,
        blob: Blob,
        stretch: (u64, u64),
        buffer: &mut [u8],
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.1.stream(blob, stretch, buffer, take)
    }

    fn extent(&self, _: Leaf) -> Result<Option<Extent<'_>>> {
        Ok(None)
    }
}

fn covered_once(program: &Program) {
    for layout in &program.layouts {
        let mut seen = vec![0u8; usize::try_from(layout.numel).unwrap()];
        for piece in &layout.pieces {
            let mut at = vec![piece.target.offset];
            for (n, stride) in piece.dims.iter().zip(&piece.target.strides) {
                at = at.iter().flat_map(|at| (0..*n).map(move |i| at + i * stride)).collect();
            }
            at.iter().for_each(|at| seen[usize::try_from(*at).unwrap()] += 1);
        }
        assert!(seen.iter().all(|count| *count == 1), "{:?} {:?}", layout.info, layout.pieces);
    }
}

/// Runs a plan in every way. Gives how many targets were compared, views among them, and
/// temporaries.
fn agree(random: &Random, choices: &mut Choices) -> (u64, u64, u64) {
    let Random { plan, store } = random;
    let read: Plan = serde_json::from_str(&serde_json::to_string(plan).unwrap()).unwrap();
    assert_eq!(&read, plan, "as JSON");
    let expected: Vec<_> =
        plan.targets.iter().map(|target| naive::evaluate(plan, store, target.node)).collect();
    let limit = if choices.below(4) == 0 { choices.below(6) + 1 } else { MAX_PIECES };
    let all: Vec<usize> = (0..plan.targets.len()).collect();
    let expected: Vec<Vec<u8>> = match expected.into_iter().collect::<Result<_>>() {
        Ok(expected) => expected,
        Err(error) => {
            // An integer overflow is one for the fused executor too, where it computes that
            // element; and nothing else is.
            assert!(error.to_string().contains("overflows"), "{error}");
            return (0, 0, 0);
        }
    };
    let views = view::views_within(plan, store, limit, None).unwrap();
    for (target, expected) in plan.targets.iter().zip(&expected) {
        let view = &views.tensors[&target.key];
        assert_eq!(
            (view.info(), &view.to_vec()),
            (plan.info(target), expected),
            "{} in memory",
            target.key
        );
    }

    boxes_agree(random, choices, &expected, limit);
    let program = compile(plan, &AsStored(store), &all, limit).unwrap();
    covered_once(&program);
    let temporaries = program
        .temporaries
        .iter()
        .map(|node| (*node, naive::evaluate(plan, store, *node).unwrap()))
        .collect();
    let leaves = Read(plan, store, temporaries);
    let mut pool = Pool::new(&leaves, [16, 64, 300, 1 << 20][choices.below(4)], 0);
    pool.hints = Hints::new([0, 6, 4096][choices.below(3)], choices.below(3));
    pool.long_run = [1, 16, 1 << 16][choices.below(3)];
    let size = program.layouts.iter().map(|layout| layout.numel * layout.size).sum();
    let file = OutFile::new(tempfile::tempfile().unwrap(), PathBuf::new(), size);
    let mut start = 3;
    let mut outputs = Vec::new();
    for (target, layout) in plan.targets.iter().zip(&program.layouts) {
        let overflowed = AtomicU64::new(0);
        outputs.push(Output {
            layout: layout.clone(),
            key: target.key.to_string(),
            file: file.clone(),
            start,
            overflowed,
        });
        start += layout.numel * layout.size;
    }
    pool.run(&outputs).unwrap();
    assert_eq!(pool.written.load(Ordering::Relaxed), start - 3, "each byte is written once");
    for (output, expected) in outputs.iter().zip(&expected) {
        let mut found = vec![0; expected.len()];
        file.file.read_exact_at(&mut found, output.start).unwrap();
        assert_eq!(&found, expected, "{} to a file", output.key);
    }
    // Both ways count the same elements, once each.
    let mut firsts = BTreeMap::new();
    for (target, output) in
        plan.targets.iter().zip(&outputs).filter(|_| program.temporaries.is_empty())
    {
        let first = *firsts.entry(target.node).or_insert(&target.key);
        let counted = views.report.overflowed.get(first).copied().unwrap_or(0);
        assert_eq!(output.overflowed.load(Ordering::Relaxed), counted, "{}", output.key);
    }
    (all.len() as u64, views.report.aliased, views.report.temporaries)
}

#[test]
fn random_chains_agree_with_the_reference() {
    let counts: [AtomicU64; 3] = Default::default();
    let mut runner =
        TestRunner::new(Config { cases: 4500, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(any::<u32>(), 4..60), |choices| {
        let mut choices = Choices::new(&choices);
        let random = random::plan(&mut choices);
        let found = agree(&random, &mut choices);
        for (count, found) in counts.iter().zip([found.0, found.1, found.2]) {
            count.fetch_add(found, Ordering::Relaxed);
        }
        Ok(())
    });
    outcome.unwrap();
    let [chains, views, temporaries] = counts.map(|count| count.into_inner());
    println!("{chains} chains, {views} views, {temporaries} temporaries");
    assert!(chains >= 10_000, "only {chains} chains");
    assert!(views >= 1000 && temporaries >= 300, "{views} views and {temporaries} temporaries");
}

#[test]
fn random_parts_in_several_processes_agree_with_the_whole() {
    let counts: [AtomicU64; 2] = Default::default();
    let mut runner =
        TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop::collection::vec(any::<u32>(), 4..60), |choices| {
        let mut choices = Choices::new(&choices);
        let random = random::plan(&mut choices);
        let Random { plan, store } = &random;
        let whole = plan.targets.iter().map(|target| naive::evaluate(plan, store, target.node));
        if let Ok(whole) = whole.collect::<Result<Vec<_>>>() {
            let agreed = parts_agree(&random, &mut choices, &whole);
            counts[usize::from(agreed)].fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    outcome.unwrap();
    let [refused, agreed] = counts.map(|count| count.into_inner());
    println!("{agreed} written, {refused} refused");
    assert!(agreed >= 150 && refused >= 20, "{agreed} written, {refused} refused");
}
