//! `regraft diff`: how two checkpoints differ: keys, dtypes, shapes, bytes.

use std::path::PathBuf;

use rayon::prelude::*;
use regraft::error::Error;
use regraft::key::{Key, natural_order};
use regraft::overview::{Gathered, Line, Page, Row, Section, Tone, counted, times};
use regraft::store::{Checkpoint, NamedPath, OpenOptions, Store as _, open_named};
use regraft::tensor::TensorInfo;
use serde_json::json;

use super::console::Console;
use super::report::{html_file, title, write};
use super::source::named_path;
use super::{Exit, Failure, Result};

/// Compare two checkpoints: keys, dtypes, shapes, and every byte
///
/// Exit code 0 if they are the same, 1 if they differ; with --quiet, that is all. The order of
/// tensors, their sharding and `__metadata__` don't count.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regraft diff before/ after/
  regraft diff before/ after/ --html diff.html        the same as a page, too
  regraft diff model.safetensors header.json --headers")]
pub(super) struct Arguments {
    /// A file of safetensors, torch.save or NumPy, a directory, an index, or a manifest; `NAME=A`
    /// puts `NAME.` before its keys
    #[arg(value_name = "A", value_parser = named_path(), value_hint = clap::ValueHint::AnyPath)]
    left: NamedPath,

    /// The other one
    #[arg(value_name = "B", value_parser = named_path(), value_hint = clap::ValueHint::AnyPath)]
    right: NamedPath,

    /// Compare keys, dtypes and shapes only
    #[arg(long)]
    headers: bool,

    /// Follow symbolic links out of the checkpoints' directories
    #[arg(long)]
    allow_outside: bool,

    /// Write what differs as one page, too, to look at and to attach to a pull request
    #[arg(long, value_name = "FILE", value_parser = html_file)]
    html: Option<PathBuf>,
}

/// What differs, each in natural order.
struct Difference {
    only_left: Vec<(Key, TensorInfo)>,
    only_right: Vec<(Key, TensorInfo)>,
    changed: Vec<(Key, TensorInfo, TensorInfo)>,
    /// With how many bytes differ.
    bytes: Vec<(Key, u64)>,
    same: u64,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let options = OpenOptions { allow_outside: arguments.allow_outside, ..OpenOptions::default() };
    let open = |path: &NamedPath| open_named(std::slice::from_ref(path), None, &options);
    let (left, right) = (open(&arguments.left)?, open(&arguments.right)?);
    let bytes = !arguments.headers;
    if bytes && !(left.has_bytes() && right.has_bytes()) {
        return Err(Failure::Usage(
            "a manifest has no bytes to compare; --headers compares without".to_owned(),
        ));
    }
    let difference = compare(&left, &right, bytes)?;
    let differs = difference.only_left.len()
        + difference.only_right.len()
        + difference.changed.len()
        + difference.bytes.len()
        > 0;
    if console.json {
        let named = |tensors: &[(Key, TensorInfo)]| -> serde_json::Map<_, _> {
            tensors.iter().map(|(key, info)| (key.to_string(), json!(info))).collect()
        };
        let changed: serde_json::Map<_, _> = difference
            .changed
            .iter()
            .map(|(key, left, right)| (key.to_string(), json!({ "a": left, "b": right })))
            .collect();
        let bytes: serde_json::Map<_, _> =
            difference.bytes.iter().map(|(key, count)| (key.to_string(), json!(count))).collect();
        console.json(&json!({
            "same": !differs,
            "only_a": named(&difference.only_left),
            "only_b": named(&difference.only_right),
            "changed": changed,
            "bytes": (!arguments.headers).then_some(bytes),
            "equal": difference.same,
        }))?;
    } else if !console.quiet {
        console.out(&text(&difference, bytes))?;
    }
    if let Some(path) = &arguments.html {
        write(path, &page(arguments, &difference))?;
    }
    Ok(Exit::findings(differs))
}

fn compare(left: &Checkpoint, right: &Checkpoint, bytes: bool) -> Result<Difference> {
    let mut difference = Difference {
        only_left: Vec::new(),
        only_right: Vec::new(),
        changed: Vec::new(),
        bytes: Vec::new(),
        same: 0,
    };
    let mut alike = Vec::new();
    for (key, entry) in &left.header().tensors {
        match right.header().get(key) {
            None => difference.only_left.push((key.clone(), entry.info.clone())),
            Some(other) if *other != entry.info => {
                difference.changed.push((key.clone(), entry.info.clone(), other.clone()))
            }
            Some(_) => alike.push((key, entry.info.nbytes().unwrap_or(0))),
        }
    }
    let only = right.header().tensors.iter().filter(|(key, _)| left.header().get(key).is_none());
    difference.only_right = only.map(|(key, entry)| (key.clone(), entry.info.clone())).collect();
    let counts: Vec<u64> = if bytes {
        alike
            .par_iter()
            .map(|(key, len)| differing(left, right, key, *len))
            .collect::<std::result::Result<_, Error>>()?
    } else {
        vec![0; alike.len()]
    };
    for ((key, _), count) in alike.into_iter().zip(counts) {
        if count > 0 {
            difference.bytes.push((key.clone(), count));
        } else {
            difference.same += 1;
        }
    }
    difference.only_left.sort_by(|a, b| natural_order(&a.0, &b.0));
    difference.only_right.sort_by(|a, b| natural_order(&a.0, &b.0));
    difference.changed.sort_by(|a, b| natural_order(&a.0, &b.0));
    difference.bytes.sort_by(|a, b| natural_order(&a.0, &b.0));
    Ok(difference)
}

/// Bytes of a tensor that are compared at once.
const STRETCH: u64 = 1 << 20;

/// How many bytes of one key differ between two checkpoints.
fn differing(
    left: &Checkpoint,
    right: &Checkpoint,
    key: &Key,
    len: u64,
) -> std::result::Result<u64, Error> {
    let size = usize::try_from(len.min(STRETCH)).unwrap_or(0);
    let (mut a, mut b) = (vec![0u8; size], vec![0u8; size]);
    let (mut at, mut count) = (0u64, 0u64);
    while at < len {
        let part = usize::try_from((len - at).min(STRETCH)).unwrap_or(0);
        let (Some(x), Some(y)) = (a.get_mut(..part), b.get_mut(..part)) else { break };
        left.read_at(key, at, x)?;
        right.read_at(key, at, y)?;
        if x != y {
            count += x.iter().zip(y.iter()).filter(|(x, y)| x != y).count() as u64;
        }
        at += part as u64;
    }
    Ok(count)
}

/// Keys that differ in one way.
struct Differing {
    name: &'static str,
    count: usize,
    keys: Gathered<String>,
}

/// All that differs, gathered into lines.
fn parts(difference: &Difference) -> [Differing; 4] {
    let only = |tensors: &[(Key, TensorInfo)]| {
        let mut keys = Gathered::new();
        tensors.iter().for_each(|(key, info)| keys.add(key, info.to_string()));
        keys
    };
    let mut changed = Gathered::new();
    for (key, left, right) in &difference.changed {
        changed.add(key, format!("{left} in A, {right} in B"));
    }
    let mut bytes = Gathered::new();
    for (key, count) in &difference.bytes {
        bytes.add(key, format!("differs in {}", counted(*count, "byte")));
    }
    let part = |name, count, keys| Differing { name, count, keys };
    let Difference { only_left, only_right, .. } = difference;
    [
        part("only in A", only_left.len(), only(only_left)),
        part("only in B", only_right.len(), only(only_right)),
        part("other dtype or shape", difference.changed.len(), changed),
        part("other bytes", difference.bytes.len(), bytes),
    ]
}

/// How keys that are equal were compared.
fn how(bytes: bool) -> &'static str {
    if bytes { "byte for byte" } else { "in dtype and shape; bytes were not compared" }
}

fn text(difference: &Difference, bytes: bool) -> String {
    let mut out = String::new();
    for part in parts(difference).iter().filter(|part| part.count > 0) {
        out.push_str(&format!("{} ({}):\n", part.name, part.count));
        for line in part.keys.lines() {
            let times = times(line.count());
            out.push_str(&format!("  {}  {}{times}\n", line.text(), line.shared));
        }
    }
    out.push_str(&format!("equal: {} {}\n", counted(difference.same, "key"), how(bytes)));
    out
}

fn page(arguments: &Arguments, difference: &Difference) -> Page {
    let parts = parts(difference);
    let differ: usize = parts.iter().map(|part| part.count).sum();
    let side = |path: &NamedPath| title(std::slice::from_ref(path));
    let (left, right) = (side(&arguments.left), side(&arguments.right));
    let mut page = Page::default();
    page.by = "regraft diff".to_owned();
    page.title = format!("{left} and {right}");
    page.verdict = Some(match differ {
        0 => (Tone::Good, "the same".to_owned()),
        _ => (Tone::Poor, format!("{} differ", counted(differ as u64, "key"))),
    });
    let equal = format!("{} {}", counted(difference.same, "key"), how(!arguments.headers));
    page.facts = vec![("A".to_owned(), left), ("B".to_owned(), right), ("equal".to_owned(), equal)];
    for part in parts.iter().filter(|part| part.count > 0) {
        let row = |line: Line<'_, String>| Row {
            keys: line.text(),
            count: line.count(),
            info: line.shared.clone(),
            ..Row::default()
        };
        page.sections.push(Section {
            title: vec![part.name.to_owned()],
            note: counted(part.count as u64, "key"),
            open: true,
            rows: part.keys.lines().into_iter().map(row).collect(),
            ..Section::default()
        });
    }
    page
}
