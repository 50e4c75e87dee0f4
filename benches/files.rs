//! Whole conversions against `cp -r` of the same checkpoint, in one run on one machine.
//!
//! `cargo bench --bench files -- [--dir DIR] [--mib N] [--runs N] [--no-sync]`. Each round runs `cp
//! -r` and then every conversion once, so that what else the machine does falls on all alike; the
//! table gives medians. `cp` leaves its output in the page cache, regraft makes it durable before
//! it appears; with `--no-sync` it doesn't either.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use regraft::execute::{Report, WriteOptions, write};
use regraft::key::Key;
use regraft::plan::PlanOptions;
use regraft::store::{OpenOptions, Store as _, open, safetensors_header};
use regraft::tensor::{Dtype, TensorInfo};
use regraft::{Route, compile, plan};

const EXPERTS: u64 = 8;
const HIDDEN: u64 = 2048;

struct Arguments {
    dir: PathBuf,
    mib: u64,
    runs: usize,
    sync: bool,
}

/// Anonymous memory before anything was done, in bytes.
static IDLE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();

fn main() {
    IDLE.get_or_init(anonymous);
    let mut arguments = Arguments { dir: std::env::temp_dir(), mib: 3072, runs: 3, sync: true };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--dir" => arguments.dir = words.next().expect("--dir DIR").into(),
            "--mib" => arguments.mib = words.next().and_then(|n| n.parse().ok()).expect("--mib N"),
            "--runs" => {
                arguments.runs = words.next().and_then(|n| n.parse().ok()).expect("--runs N")
            }
            "--no-sync" => arguments.sync = false,
            "--bench" => {}
            // A filter, or what `cargo test --benches` passes: nothing to do here.
            _ => return,
        }
    }
    run(&arguments);
}

fn run(arguments: &Arguments) {
    let directory =
        tempfile::Builder::new().prefix("regraft-bench-").tempdir_in(&arguments.dir).unwrap();
    let source = directory.path().join("source");
    make(&source, arguments.mib << 20);
    let packed = directory.path().join("packed");
    let pack = "rename \"**.block_sparse_moe.**\" <-> \"**.mlp.**\"\n\
                map \"**.experts.{e}.w1.weight\", \"**.experts.{e}.w3.weight\" <-> \"**.experts.gate_up_proj\" via stack(e) | concat(1)\n\
                map \"**.experts.{e}.w2.weight\" <-> \"**.experts.down_proj\" via stack(e)\n";
    convert(&source, &packed, pack, false, true);
    let rename = "rename \"model.**\" <-> \"renamed.**\"\n";
    let turn = "map \"{a**}.weight\" <-> \"{a**}.weight_t\" via transpose(0, 1)\n";
    let works: [(&str, &Path, &str, bool); 4] = [
        ("rename", &source, rename, false),
        ("pack", &source, pack, false),
        ("unpack", &packed, pack, true),
        ("transpose", &source, turn, false),
    ];
    let mut copies = Vec::new();
    let mut copies_synced = Vec::new();
    let mut times: Vec<Vec<f64>> = works.iter().map(|_| Vec::new()).collect();
    let mut last: Vec<Option<(Report, u64)>> = works.iter().map(|_| None).collect();
    let out = directory.path().join("out");
    for _ in 0..arguments.runs {
        warm(&source);
        let start = Instant::now();
        assert!(
            std::process::Command::new("cp")
                .arg("-r")
                .arg(&source)
                .arg(&out)
                .status()
                .unwrap()
                .success()
        );
        copies.push(start.elapsed().as_secs_f64());
        assert!(std::process::Command::new("sync").arg("-f").arg(&out).status().unwrap().success());
        copies_synced.push(start.elapsed().as_secs_f64());
        clean(&out);
        for (i, (_, from, rules, reverse)) in works.iter().enumerate() {
            warm(from);
            let start = Instant::now();
            last[i] = Some(convert(from, &out, rules, *reverse, arguments.sync));
            times[i].push(start.elapsed().as_secs_f64());
            clean(&out);
        }
    }
    let (copy, synced) = (median(&mut copies), median(&mut copies_synced));
    println!(
        "{} MiB in 4 shards, {} runs, medians{}",
        arguments.mib,
        arguments.runs,
        if arguments.sync { "" } else { ", nothing synced" }
    );
    println!(
        "{:<12} {:>8} {:>8} {:>10}  lanes; anonymous memory over idle",
        "work", "seconds", "/ cp -r", "/ cp+sync"
    );
    println!("{:<12} {copy:>8.2} {:>8.2} {:>10.2}", "cp -r", 1.0, copy / synced);
    println!("{:<12} {synced:>8.2} {:>8.2} {:>10.2}", "cp -r; sync", synced / copy, 1.0);
    for (i, (name, ..)) in works.iter().enumerate() {
        let time = median(&mut times[i]);
        let (report, memory) = last[i].as_ref().unwrap();
        let lanes: Vec<String> = report
            .lanes
            .iter()
            .map(|(lane, bytes)| format!("{lane} {} MiB", bytes >> 20))
            .collect();
        println!(
            "{name:<12} {time:>8.2} {:>8.2} {:>10.2}  {}; {:.1} MiB",
            time / copy,
            time / synced,
            lanes.join(", "),
            *memory as f64 / 1048576.0
        );
    }
}

/// What `sync` and the discarding of blocks still have to do is not the next run's matter.
fn clean(out: &Path) {
    std::fs::remove_dir_all(out).unwrap();
    assert!(std::process::Command::new("sync").status().unwrap().success());
}

/// Reads all files once.
fn warm(directory: &Path) {
    for entry in directory.read_dir().unwrap() {
        let mut file = std::fs::File::open(entry.unwrap().path()).unwrap();
        std::io::copy(&mut file, &mut std::io::sink()).unwrap();
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Converts; gives the report, and how far anonymous memory rose above that of the idle process.
fn convert(source: &Path, out: &Path, rules: &str, reverse: bool, sync: bool) -> (Report, u64) {
    // What earlier runs left in the allocator counts too.
    let idle = *IDLE.get_or_init(anonymous);
    let (most, done) = (AtomicU64::new(idle), AtomicBool::new(false));
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(anonymous(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let checkpoint = open(source, &OpenOptions::default()).unwrap();
        let route = Route::named(vec![compile(rules).unwrap()], None, None, reverse).unwrap();
        let plan = plan(&route.stages(), checkpoint.header(), &PlanOptions::default()).unwrap();
        let options =
            WriteOptions { max_shard_size: Some(1 << 30), sync, ..WriteOptions::default() };
        let report = write(&plan, &checkpoint, out, &options).unwrap();
        done.store(true, Ordering::Relaxed);
        report
    });
    (report, most.into_inner().saturating_sub(idle))
}

/// Bytes of anonymous memory that this process has now.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// A Mixtral-like checkpoint of four layers, one in each shard, of about so many bytes.
fn make(directory: &Path, bytes: u64) {
    use std::io::Write as _;
    std::fs::create_dir(directory).unwrap();
    let inner = (bytes / 4 / (EXPERTS * 3 * HIDDEN * 2)).max(8) / 8 * 8;
    let mut map = serde_json::Map::new();
    // Bytes that a disk can't make less of.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut block = vec![0u8; 1 << 20];
    for layer in 0..4u64 {
        let name = format!("model-{:05}-of-00004.safetensors", layer + 1);
        let mut entries: Vec<(Key, TensorInfo)> = Vec::new();
        let mut add = |key: String, shape: [u64; 2]| {
            entries.push((Key::from(key), TensorInfo::new(Dtype::BF16, &shape[..])))
        };
        for (key, shape) in [("q_proj", [HIDDEN, HIDDEN]), ("o_proj", [HIDDEN, HIDDEN])] {
            add(format!("model.layers.{layer}.self_attn.{key}.weight"), shape);
        }
        for expert in 0..EXPERTS {
            let prefix = format!("model.layers.{layer}.block_sparse_moe.experts.{expert}");
            add(format!("{prefix}.w1.weight"), [inner, HIDDEN]);
            add(format!("{prefix}.w2.weight"), [HIDDEN, inner]);
            add(format!("{prefix}.w3.weight"), [inner, HIDDEN]);
        }
        let (header, _) =
            safetensors_header(&entries, &[("format".to_owned(), "pt".to_owned())].into()).unwrap();
        let mut left: u64 = entries.iter().map(|(_, info)| info.nbytes().unwrap()).sum();
        let mut file = std::fs::File::create(directory.join(&name)).unwrap();
        file.write_all(&header).unwrap();
        while left > 0 {
            for word in block.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
            let take = left.min(block.len() as u64) as usize;
            file.write_all(&block[..take]).unwrap();
            left -= take as u64;
        }
        map.extend(entries.iter().map(|(key, _)| (key.to_string(), name.clone().into())));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    std::fs::write(directory.join("model.safetensors.index.json"), index.to_string()).unwrap();
}
