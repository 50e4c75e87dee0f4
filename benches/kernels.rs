//! The parts that planning and execution are made of: key rewriting, planning, header parsing,
//! gathers.
//!
//! `cargo bench --bench kernels`; a name as argument picks some.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use regraft::key::{Atom, Bindings, Key, Part, Pattern, PatternSet, Segments, Slot};
use regraft::plan::PlanOptions;
use regraft::store::{StateDict, safetensors_header};
use regraft::tensor::{Dtype, Header, Storage, TensorInfo, TensorView};
use regraft::{Route, compile, plan};

const RULES: [usize; 4] = [1, 10, 40, 400];
const KEYS: [usize; 3] = [1_000, 100_000, 1_000_000];

/// Keys as models have them: each rule has its own kind of tensor.
fn keys(count: usize, rules: usize) -> Vec<Key> {
    (0..count)
        .map(|i| {
            Key::from(format!(
                "model.layers.{}.part{}.experts.{}.weight",
                i / (rules * 8),
                i % rules,
                i / rules % 8
            ))
        })
        .collect()
}

fn text(part: &str) -> Part {
    Part::Literal(part.into())
}

fn index(slot: u16) -> Part {
    Part::Segment([Atom::Index { slot: Slot(slot), mul: 1, add: 0, range: None }].into())
}

/// One core: each key is matched with the set of patterns, and rendered under its new name.
fn rewriting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rewrite");
    group.sample_size(10);
    for rules in RULES {
        let left: Vec<Pattern> = (0..rules)
            .map(|i| {
                Pattern::new(vec![
                    text("model"),
                    text("layers"),
                    index(0),
                    text(&format!("part{i}")),
                    Part::Rest(Slot(1)),
                ])
            })
            .collect();
        let right: Vec<Pattern> = (0..rules)
            .map(|i| {
                Pattern::new(vec![
                    text("decoder"),
                    index(0),
                    text(&format!("new{i}")),
                    Part::Rest(Slot(1)),
                ])
            })
            .collect();
        let set = PatternSet::new(&left);
        for count in KEYS {
            let keys = keys(count, rules);
            group.throughput(Throughput::Elements(count as u64));
            group.bench_with_input(
                BenchmarkId::new(format!("{rules} rules"), count),
                &keys,
                |bencher, keys| {
                    let (mut segments, mut candidates, mut bindings) =
                        (Segments::default(), Vec::new(), Bindings::default());
                    bencher.iter(|| {
                        let mut bytes = 0;
                        for key in keys {
                            segments.split(key);
                            set.candidates(key, &segments, &mut candidates);
                            for candidate in &candidates {
                                bindings.reset(2);
                                let at = *candidate as usize;
                                if left[at].matches(key, &segments, &mut bindings) {
                                    bytes +=
                                        right[at].render(key, &bindings).map_or(0, |key| key.len());
                                    break;
                                }
                            }
                        }
                        black_box(bytes)
                    });
                },
            );
        }
    }
    group.finish();
}

/// The whole of planning, findings and cover included.
fn planning(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(10);
    for (rules, count) in [(1, 1_000), (40, 1_000), (1, 100_000), (40, 100_000), (400, 100_000)] {
        let header = Header::from_infos(
            keys(count, rules)
                .into_iter()
                .map(|key| (key, TensorInfo::new(Dtype::BF16, &[64u64, 64][..]))),
        );
        let lines: String = (0..rules)
            .map(|i| {
                format!("  \"model.layers.{{l}}.part{i}.**\" <-> \"decoder.{{l}}.new{i}.**\"\n")
            })
            .collect();
        let route = Route::named(
            vec![compile(&format!("rename {{\n{lines}}}\n")).unwrap()],
            None,
            None,
            false,
        )
        .unwrap();
        group.throughput(Throughput::Elements(count as u64));
        group.bench_with_input(
            BenchmarkId::new(format!("{rules} rules"), count),
            &header,
            |bencher, header| {
                bencher.iter(|| plan(&route.stages(), header, &PlanOptions::default()).unwrap());
            },
        );
    }
    group.finish();
}

fn header(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header");
    group.sample_size(10);
    for count in [1_000, 100_000] {
        let entries: Vec<(Key, TensorInfo)> = keys(count, 40)
            .into_iter()
            .map(|key| (key, TensorInfo::new(Dtype::U8, &[0u64, 7][..])))
            .collect();
        let (bytes, _) = safetensors_header(&entries, &BTreeMap::new()).unwrap();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("parse", count), &bytes, |bencher, bytes| {
            bencher.iter(|| StateDict::from_bytes(bytes.clone()).unwrap());
        });
    }
    group.finish();
}

/// Strided copies in memory: a plain one, and transposes of elements of each size.
fn gather(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gather");
    group.sample_size(10);
    const SIDE: u64 = 4096;
    for (name, dtype) in
        [("8 bit", Dtype::U8), ("bf16", Dtype::BF16), ("f32", Dtype::F32), ("f64", Dtype::F64)]
    {
        let info = TensorInfo::new(dtype, &[SIDE, SIDE][..]);
        let len = usize::try_from(info.nbytes().unwrap()).unwrap();
        let view = TensorView::contiguous(Storage::new(vec![1u8; len]), info, 0).unwrap();
        let turned = view.permute(&[1, 0]).unwrap();
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("copy", name), |bencher| {
            bencher.iter(|| view.to_vec())
        });
        group.bench_function(BenchmarkId::new("transpose", name), |bencher| {
            bencher.iter(|| turned.to_vec())
        });
    }
    group.finish();
}

criterion_group!(benches, rewriting, planning, header, gather);
criterion_main!(benches);
