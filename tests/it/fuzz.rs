//! The fuzz targets over their seeds and over mutations of these, without a guide: what a push can
//! afford.

#[path = "../../fuzz/targets.rs"]
#[allow(missing_docs, unreachable_pub)]
mod targets;

use std::path::Path;

/// Mutations for each target; `REGRAFT_FUZZ` asks for more.
fn rounds(usual: u64) -> u64 {
    std::env::var("REGRAFT_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 17).unwrap() % n.max(1)
    }
}

/// Changes a little: bytes, stretches, numbers, words that mean something, a stretch of another
/// seed.
fn mutate(seed: &[u8], other: &[u8], words: &[&str], random: &mut Random) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(data.len() + 1);
        let until = (at + random.below(12)).min(data.len());
        match random.below(8) {
            0 if at < data.len() => data[at] ^= 1 << random.below(8),
            1 => drop(data.drain(at..until)),
            2 => {
                let copy = data[at..until].to_vec();
                let to = random.below(data.len() + 1);
                data.splice(to..to, copy);
            }
            3 => {
                let from = random.below(other.len() + 1);
                let stretch = other[from..(from + random.below(40)).min(other.len())].to_vec();
                data.splice(at..until, stretch);
            }
            4 => {
                let numbers = [
                    "0",
                    "1",
                    "2",
                    "3",
                    "7",
                    "-1",
                    "64",
                    "65536",
                    "4294967296",
                    "18446744073709551615",
                    "1e9",
                    "0.5",
                ];
                data.splice(at..at, numbers[random.below(numbers.len())].bytes());
            }
            5 | 6 => drop(data.splice(at..until, words[random.below(words.len())].bytes())),
            _ => data.truncate(at),
        }
    }
    data
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut paths: Vec<_> =
        directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 3, "{name} has too few seeds");
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn run(name: &str, target: fn(&[u8]), more: Vec<Vec<u8>>, words: &[&str], usual: u64) {
    let mut seeds = seeds(name);
    seeds.extend(more);
    for seed in &seeds {
        target(seed);
    }
    let seed = std::env::var("REGRAFT_FUZZ_SEED")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0x2545_f491_4f6c_dd1d);
    let mut random = Random(seed);
    for round in 0..rounds(usual) {
        let (a, b) = (random.below(seeds.len()), random.below(seeds.len()));
        let data = mutate(&seeds[a], &seeds[b], words, &mut random);
        if let Err(panic) = std::panic::catch_unwind(|| target(&data)) {
            eprintln!("{name}, round {round}: {}", String::from_utf8_lossy(&data));
            std::panic::resume_unwind(panic);
        }
    }
}

const WORDS: &[&str] = &[
    "rename",
    "map",
    "drop",
    "keep",
    "cast",
    "tie",
    "create",
    "expect",
    "strip",
    "let",
    "size(\"a.w\", 0)",
    "count(\"a.{l}\", l)",
    "when",
    "else",
    "use",
    "via",
    "unless",
    "where",
    "optional",
    "alone",
    "<->",
    "->",
    "stack(e)",
    "concat(0)",
    "split(0)",
    "transpose(0, 1)",
    "permute(1, 0)",
    "reshape(2, 12)",
    "slice(0, 0..2)",
    "interleave(0)",
    "squeeze(0)",
    "unsqueeze(-1)",
    "add_lowrank(16, 4)",
    "rope_halves(2)",
    "{l}",
    "{e}",
    "{a**}",
    "{n*}",
    "{x: q|k|v}",
    "{l+1}",
    "**.",
    "\"",
    "{",
    "}",
    "(",
    ")",
    "|",
    ",",
    "..",
];

/// The rule files that come with the project.
fn library() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let mut paths: Vec<_> = directory
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn rules_never_panic_and_print_as_they_mean() {
    run("rules", targets::rules, library(), WORDS, 1500);
}

#[test]
fn headers_are_accepted_only_where_the_crate_accepts_them() {
    let words = [
        "\"dtype\"",
        "\"shape\"",
        "\"data_offsets\"",
        "\"F32\"",
        "\"U8\"",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"__metadata__\"",
        "\\u0061",
        " ",
    ];
    run("header", targets::header, Vec::new(), &words, 30_000);
}

#[test]
fn files_of_tensors_give_as_many_bytes_as_they_say() {
    let words = [
        "\u{0}",
        "(",
        ")",
        ".",
        "K\u{2}",
        "R",
        "Q",
        "b",
        "}",
        "]",
        "u",
        "e",
        "h\u{1}",
        "t",
        "\u{85}",
        "ctorch\nFloatStorage\n",
        "cos\nsystem\n",
        "PK\u{3}\u{4}",
        "PK\u{1}\u{2}",
        "PK\u{5}\u{6}",
        "'<f4'",
        "'fortran_order': True",
        "(3,)",
    ];
    run("saved", targets::saved, Vec::new(), &words, 6_000);
}

#[test]
fn metadata_of_processes_opens_only_where_it_reads() {
    let words = [
        "\u{0}",
        "(",
        ")",
        ".",
        "K\u{2}",
        "R",
        "b",
        "}",
        "]",
        "u",
        "e",
        "h\u{1}",
        "t",
        "\u{85}",
        "chunks",
        "offsets",
        "sizes",
        "offset",
        "length",
        "__0_0.distcp",
        "fqn",
    ];
    run("metadata", targets::metadata, Vec::new(), &words, 3_000);
}

#[test]
fn pickles_make_values_and_nothing_else() {
    let words = [
        "\u{0}",
        "(",
        ")",
        ".",
        "0",
        "1",
        "2",
        "N",
        "R",
        "Q",
        "b",
        "}",
        "]",
        "t",
        "u",
        "e",
        "h",
        "q",
        "ctorch\nFloatStorage\n",
        "ccollections\nOrderedDict\n",
        "X\u{7}\0\0\0storage",
    ];
    run("torch", targets::torch, Vec::new(), &words, 30_000);
}

#[test]
fn indexes_give_only_what_is_there() {
    let words = [
        "\"weight_map\"",
        "\"metadata\"",
        "\"total_size\"",
        "model-00001-of-00001.safetensors",
        "../",
        "/",
        "\\",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "null",
    ];
    run("index", targets::index, Vec::new(), &words, 3000);
}

#[test]
fn plans_have_each_key_once() {
    run("plan", targets::plan, library(), WORDS, 1500);
}

#[test]
fn whatever_is_carried_out_agrees_with_the_reference() {
    run("execute", targets::execute, Vec::new(), WORDS, 3000);
}
