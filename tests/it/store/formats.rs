//! Files that torch and numpy wrote, broken ones and hostile ones, each with what is in it.
//!
//! `tests/fixtures/{torch,dcp,numpy}` hold a directory for each case, with `expected.json`;
//! `tests/fixtures/torch/README.md` says what its fields mean. Expected are the SHA-256 that torch
//! and numpy give; `scripts/make_torch_fixtures.py` wrote them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use regraft::store::{Checkpoint, OpenOptions, Store, open, same_place};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// What hostile files try to make.
const OWNED: &str = "/tmp/regraft-owned";

/// Longer than any of these small files may take, on a slow machine that does other things too.
const LONG: Duration = Duration::from_secs(10);

/// Tensors of more bytes are not hashed: a few stored bytes can stand for any number.
const MOST: u64 = 1 << 20;

/// Reasons for which a file may be opened without what it is refused for, if that is said.
const SAID: &[&str] = &["module", "code", "sparse", "quantized"];

/// dtype, shape, SHA-256 of the bytes in row-major order.
type Tensor = (String, Vec<u64>, String);
type Tensors = BTreeMap<String, Tensor>;

#[derive(Deserialize)]
struct Expected {
    open: String,
    #[serde(default)]
    root: String,
    tensors: Option<Tensors>,
    #[serde(default)]
    ties: Vec<Vec<String>>,
    #[serde(default)]
    skipped: Vec<String>,
    refused: Option<String>,
    /// What the error, or the notes, must name.
    says: Option<Vec<String>>,
    /// What is there if it is opened all the same.
    rest: Option<Tensors>,
    /// What may be there then.
    #[serde(default)]
    maybe: Tensors,
    /// The tensors under other roots.
    #[serde(default)]
    roots: BTreeMap<String, Tensors>,
    /// The one tensor that is there, by any key.
    only: Option<Tensor>,
    /// Whether both are right: to open it, and to refuse it.
    #[serde(default)]
    either: bool,
    /// Files that lie in other cases: where they are to be -> where they are.
    #[serde(default)]
    files: BTreeMap<String, String>,
}

/// The options that name a root.
fn rooted(root: &str) -> OpenOptions {
    OpenOptions { root: Some(root.to_owned()), ..OpenOptions::default() }
}

/// Every case of a folder of `tests/fixtures`.
fn cases(folder: &str) -> Vec<PathBuf> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder);
    let mut found: Vec<_> = std::fs::read_dir(place)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expected.json").exists())
        .collect();
    found.sort();
    found
}

/// A directory with all below it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// What a checkpoint is: every tensor, or what can't be read of it.
fn read(checkpoint: &Checkpoint) -> Result<Tensors, String> {
    let mut found = Tensors::new();
    for (key, entry) in &checkpoint.header().tensors {
        let len = entry.info.nbytes().ok_or("a size that overflows")?;
        let hash = if len > MOST {
            "too long".to_owned()
        } else {
            let mut bytes = vec![0; len as usize];
            checkpoint.read_at(key, 0, &mut bytes).map_err(|error| text_of(&error))?;
            hex(&Sha256::digest(&bytes))
        };
        let shape = entry.info.shape.iter().copied().collect();
        found.insert(key.to_string(), (entry.info.dtype.name().to_owned(), shape, hash));
    }
    Ok(found)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// All that an error says.
fn text_of(error: &regraft::error::Error) -> String {
    format!("{error}\n{}", error.advice().unwrap_or_default())
}

/// All that a checkpoint says of itself beside its tensors.
fn said_by(checkpoint: &Checkpoint) -> String {
    checkpoint.notes().iter().fold(
        format!("{:?}", checkpoint.header().remarks).trim_matches(['[', ']']).to_owned(),
        |said, note| said + "\n" + note,
    )
}

/// How two sets of tensors differ, or nothing.
fn differ(found: &Tensors, expected: &Tensors) -> Result<(), String> {
    for (key, tensor) in expected {
        match found.get(key) {
            None => return Err(format!("no {key:?}; there is {:?}", found.keys())),
            Some(other) if other != tensor => {
                return Err(format!("{key:?} is {other:?}, not {tensor:?}"));
            }
            Some(_) => {}
        }
    }
    match found.keys().find(|key| !expected.contains_key(*key)) {
        Some(key) => Err(format!("{key:?} is not expected")),
        None => Ok(()),
    }
}

/// Keys without the root, where only those that are expected have it.
fn below(root: &str, expected: &Tensors, found: &Tensors) -> Tensors {
    let prefix = format!("{root}.");
    let all = expected.keys().all(|key| key.starts_with(&prefix));
    if root.is_empty() || !all || found.keys().any(|key| key.starts_with(&prefix)) {
        return expected.clone();
    }
    let cut = |key: &str| key.strip_prefix(&prefix).unwrap_or(key).to_owned();
    expected.iter().map(|(key, tensor)| (cut(key), tensor.clone())).collect()
}

/// All tensors are there, and those that are one tensor lie in one place.
fn readable(path: &Path, case: &Expected, expected: &Tensors) -> Result<(), String> {
    let named = (!case.root.is_empty()).then(|| rooted(&case.root));
    for options in [Some(OpenOptions::default()), named].into_iter().flatten() {
        let checkpoint = open(path, &options).map_err(|error| text_of(&error))?;
        let found = read(&checkpoint)?;
        differ(&found, &below(&case.root, expected, &found))?;
        if !case.skipped.is_empty() && said_by(&checkpoint).trim().is_empty() {
            return Err(format!("says nothing of {:?}", case.skipped));
        }
        let ties = same_place(&checkpoint).map_err(|error| text_of(&error))?;
        let ties: BTreeSet<BTreeSet<String>> = ties
            .iter()
            .filter(|tie| tie.len() > 1)
            .map(|tie| tie.iter().map(ToString::to_string).collect())
            .collect();
        let expected = case.ties.iter().map(|tie| tie.iter().cloned().collect()).collect();
        if ties != expected {
            return Err(format!("in one place are {ties:?}, not {expected:?}"));
        }
    }
    for (root, expected) in &case.roots {
        let checkpoint = open(path, &rooted(root)).map_err(|error| text_of(&error))?;
        differ(&read(&checkpoint)?, expected).map_err(|why| format!("root {root:?}: {why}"))?;
    }
    Ok(())
}

/// An error that names what it should, or the rest with notes that do.
fn refused(path: &Path, case: &Expected, why: &str) -> Result<(), String> {
    let says = case.says.as_deref().unwrap_or_default();
    // A key isn't named by the path of its file.
    let place = path.display().to_string();
    let named =
        |text: &str| match says.iter().find(|word| !text.replace(&place, "").contains(*word)) {
            Some(word) => Err(format!("doesn't name {word:?}: {}", text.trim())),
            None if text.trim().is_empty() => Err("says nothing".to_owned()),
            None => Ok(()),
        };
    let checkpoint = match open(path, &OpenOptions::default()) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return named(&text_of(&error)),
    };
    let found = match read(&checkpoint) {
        Ok(found) => found,
        Err(error) => return named(&error),
    };
    let Some(rest) = &case.rest else {
        let told = !said_by(&checkpoint).trim().is_empty();
        return match case.says.is_none() && SAID.contains(&why) && told {
            true => Ok(()),
            false => Err(format!("opened: {found:?}")),
        };
    };
    let (maybe, sure): (Tensors, Tensors) =
        found.into_iter().partition(|(key, _)| case.maybe.contains_key(key));
    differ(&sure, rest)?;
    for (key, tensor) in &maybe {
        if case.maybe[key] != *tensor {
            return Err(format!("{key:?} is {tensor:?}, not {:?}", case.maybe[key]));
        }
    }
    // What was read needs no word; nothing at all needs one.
    let told = said_by(&checkpoint);
    match says.iter().find(|word| !maybe.contains_key(*word) && !told.contains(*word)) {
        Some(word) => Err(format!("opened without naming {word:?}")),
        None if rest.is_empty() && maybe.is_empty() => named(&told),
        None => Ok(()),
    }
}

/// What is wrong with one case, if anything.
fn check(directory: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(directory.join("expected.json")).unwrap();
    let case: Expected = serde_json::from_str(&text).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut place = directory.to_owned();
    if !case.files.is_empty() {
        place = scratch.path().join(directory.file_name().unwrap());
        copy(directory, &place);
        for (to, from) in &case.files {
            std::fs::create_dir_all(place.join(to).parent().unwrap()).unwrap();
            std::fs::copy(directory.join(from), place.join(to)).unwrap();
        }
    }
    let path = place.join(&case.open);
    if case.either {
        let _ = open(&path, &OpenOptions::default()).map(|checkpoint| read(&checkpoint));
        Ok(())
    } else if let Some(why) = &case.refused {
        refused(&path, &case, why)
    } else if let Some(only) = &case.only {
        let checkpoint = open(&path, &OpenOptions::default()).map_err(|error| text_of(&error))?;
        match read(&checkpoint)?.values().collect::<Vec<_>>()[..] {
            [found] if found == only => Ok(()),
            ref found => Err(format!("{found:?}, not {only:?}")),
        }
    } else {
        readable(&path, &case, case.tensors.as_ref().unwrap())
    }
}

/// Looks at every case of a folder, of which there are so many at least.
fn check_all(folder: &str, at_least: usize) {
    let cases = cases(folder);
    assert!(cases.len() >= at_least, "{} cases of {folder}", cases.len());
    let mut wrong = String::new();
    for directory in &cases {
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| check(directory)))
            .unwrap_or_else(|_| Err("PANICKED".to_owned()));
        let name = directory.file_name().unwrap().to_string_lossy();
        if let Err(why) = result {
            let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
            writeln!(wrong, "{name}: {why:.300}").unwrap();
        }
        if started.elapsed() > LONG {
            writeln!(wrong, "{name}: took {:?}", started.elapsed()).unwrap();
        }
        assert!(!Path::new(OWNED).exists(), "{name}: code of the file was run");
    }
    let count = wrong.lines().count();
    assert!(wrong.is_empty(), "{count} of {} cases of {folder}:\n{wrong}", cases.len());
}

#[test]
fn files_of_torch_save() {
    check_all("torch", 170);
}

#[test]
fn files_of_numpy() {
    check_all("numpy", 28);
}

#[test]
fn directories_of_distributed_checkpoints() {
    check_all("dcp", 50);
}

/// Numbers that look random, the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    /// Bytes with something wrong in them.
    fn broken(&mut self, bytes: &[u8]) -> Vec<u8> {
        const EXTREME: [u64; 6] = [0, 1, u64::MAX, 1 << 63, (1 << 63) - 1, 0xffff_fffe];
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            if bytes.is_empty() {
                break;
            }
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes[at] = self.below(256) as u8,
                3 => {
                    let number = EXTREME[self.below(EXTREME.len())].to_le_bytes();
                    let len = [1, 2, 4, 8][self.below(4)].min(bytes.len() - at);
                    bytes[at..at + len].copy_from_slice(&number[..len]);
                }
                _ => {
                    let end = at + self.below(bytes.len() - at);
                    let part = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, part);
                }
            }
        }
        bytes
    }
}

/// Files that are broken at random are refused or read, in little time, and nothing panics.
fn break_all(folder: &str, times: usize) {
    let scratch = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut wrong = String::new();
    for directory in cases(folder) {
        let text = std::fs::read_to_string(directory.join("expected.json")).unwrap();
        let case: Expected = serde_json::from_str(&text).unwrap();
        let place = scratch.path().join(directory.file_name().unwrap());
        copy(&directory, &place);
        for (to, from) in &case.files {
            std::fs::copy(directory.join(from), place.join(to)).unwrap();
        }
        let path = place.join(&case.open);
        // Of a directory, what leads to the rest: the metadata or the index.
        let target = match path.is_dir() {
            false => path.clone(),
            true => match [".metadata", "pytorch_model.bin.index.json"]
                .map(|name| path.join(name))
                .into_iter()
                .find(|file| file.exists())
            {
                Some(file) => file,
                None => continue,
            },
        };
        let whole = std::fs::read(&target).unwrap();
        for _ in 0..times {
            let bytes = numbers.broken(&whole);
            std::fs::write(&target, &bytes).unwrap();
            let started = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| {
                let _ = open(&path, &OpenOptions::default()).map(|found| read(&found));
            }));
            if result.is_err() || started.elapsed() > LONG {
                let took = started.elapsed();
                writeln!(wrong, "{}: {took:?}: {}", place.display(), hex(&bytes)).unwrap();
            }
        }
        assert!(!Path::new(OWNED).exists(), "{}: code was run", directory.display());
    }
    assert!(wrong.is_empty(), "{wrong:.4000}");
}

#[test]
fn broken_files_of_torch_save() {
    break_all("torch", 25);
}

#[test]
fn broken_files_of_numpy() {
    break_all("numpy", 25);
}

#[test]
fn broken_metadata_of_distributed_checkpoints() {
    break_all("dcp", 40);
}
