//! `regraft inspect`: what a checkpoint holds.
//!
//! Tensors that share bytes can't be in a safetensors file (the format refuses overlaps); those
//! with equal bytes are found with `--bytes`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use regraft::config::Config;
use regraft::conversion::config_beside;
use regraft::diagnostic::Diagnostic;
use regraft::diagnostic::plain::one_line;
use regraft::error::Error;
use regraft::key::{Key, natural_order};
use regraft::overview::{Gathered, Size, counted, tree};
use regraft::plan::implausible;
use regraft::store::twins;
use regraft::store::{Checkpoint, NamedPath, OpenOptions, Store, open_named};
use regraft::tensor::{Dtype, Header, Remark, Shape, TensorInfo};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::console::{Console, has_findings};
use super::source::named_path;
use super::{Exit, Result};

/// Show the keys of a checkpoint, grouped by their indices, with dtypes, shapes and sizes
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regraft inspect mixtral-8x7b/
  regraft inspect model.safetensors --bytes      which tensors are equal byte for byte
  regraft inspect mixtral-8x7b/ --depth 3        a tree of segments
  regraft inspect model.safetensors --json")]
pub(super) struct Arguments {
    /// A file of safetensors, torch.save or NumPy, a directory, an index, or a manifest; several
    /// count as one checkpoint, and `NAME=SRC` puts `NAME.` before its keys
    #[arg(required = true, value_name = "[NAME=]SRC", value_parser = named_path(), value_hint = clap::ValueHint::AnyPath)]
    sources: Vec<NamedPath>,

    /// Read the tensors, and list those that are equal byte for byte
    #[arg(long)]
    bytes: bool,

    /// Write what files of torch.save hold besides tensors (epoch, arguments) as JSON; `-` for
    /// standard output
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,

    /// One line for each key
    #[arg(long)]
    all: bool,

    /// A tree of segments, so many levels deep
    #[arg(long, value_name = "LEVELS", conflicts_with = "all", value_parser = clap::value_parser!(u16).range(1..))]
    depth: Option<u16>,

    /// Where in a file with dicts in dicts the state dict lies; empty for the whole file
    #[arg(long, value_name = "PATH")]
    root: Option<String>,

    /// Follow symbolic links out of the checkpoint's directory
    #[arg(long)]
    allow_outside: bool,
}

pub(super) fn run(arguments: &Arguments, console: Console) -> Result<Exit> {
    let options = OpenOptions {
        strict: false,
        allow_outside: arguments.allow_outside,
        root: arguments.root.clone(),
    };
    let checkpoint = open_named(&arguments.sources, None, &options)?;
    if let Some(path) = &arguments.values {
        write_values(&checkpoint, path, console)?;
    }
    // A config that can't be read is for those to say who need it.
    let config = config_beside(&checkpoint).unwrap_or_else(|_| Config::empty());
    let findings = implausible(checkpoint.header(), &config, None, false);
    let equal = if arguments.bytes { twins(&checkpoint)? } else { Vec::new() };
    let equal: Vec<Vec<Key>> = equal.into_iter().map(|group| group.keys).collect();
    if console.json {
        print_json(&checkpoint, arguments.bytes.then_some(&equal), &findings, console)?;
    } else {
        console.out(&text(&checkpoint, &equal, arguments))?;
        console.findings(&findings);
        for note in checkpoint.notes() {
            console.line(&format!("warning: {note}"));
        }
        for path in checkpoint.ignored() {
            console.note(&format!("note: {} is no part of the checkpoint", path.display()));
        }
    }
    let unread = |remark: &Remark| matches!(remark, Remark::Unreadable { .. });
    let is_odd = checkpoint.header().remarks.iter().any(unread) || !checkpoint.notes().is_empty();
    Ok(Exit::findings(is_odd || has_findings(&findings)))
}

/// Writes what a checkpoint's files hold besides tensors.
pub(super) fn write_values(checkpoint: &Checkpoint, path: &Path, console: Console) -> Result<()> {
    let values = checkpoint.plain_values()?;
    let text = serde_json::to_string_pretty(&values)
        .map_err(|error| Error::corrupt(format!("values that JSON can't hold: {error}")))?;
    if path.as_os_str() == "-" {
        return console.out(&format!("{text}\n"));
    }
    let written = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    let written = written.and_then(|mut file| file.write_all(format!("{text}\n").as_bytes()));
    Ok(written.map_err(|error| Error::io("cannot write the values to", path, error))?)
}

fn sorted(header: &Header) -> Vec<(&Key, &TensorInfo)> {
    let mut tensors: Vec<_> =
        header.tensors.iter().map(|(key, entry)| (key, &entry.info)).collect();
    tensors.sort_by(|a, b| natural_order(a.0, b.0));
    tensors
}

fn text(checkpoint: &Checkpoint, equal: &[Vec<Key>], arguments: &Arguments) -> String {
    let header = checkpoint.header();
    let tensors = sorted(header);
    let size = |bytes: Option<u64>| Size(bytes.unwrap_or(u64::MAX)).to_string();
    let mut rows: Vec<[String; 5]> =
        vec![["key", "dtype", "shape", "count", "size"].map(str::to_owned)];
    let mut row = |key: String, info: &TensorInfo, count: u64| {
        let bytes = info.nbytes().and_then(|bytes| bytes.checked_mul(count));
        rows.push([
            key,
            info.dtype.to_string(),
            info.shape.to_string(),
            count.to_string(),
            size(bytes),
        ]);
    };
    if arguments.all {
        for (key, info) in &tensors {
            row(one_line(key).into_owned(), info, 1);
        }
    } else {
        let mut groups = Gathered::new();
        for (key, info) in &tensors {
            groups.add(key, *info);
        }
        for line in groups.lines() {
            row(line.text(), line.shared, line.count());
        }
    }
    let mut out = match arguments.depth {
        Some(depth) => tree(&tensors, depth.into()),
        None => table(&rows),
    };
    out.push('\n');
    for (dtype, (count, bytes)) in by_dtype(&tensors) {
        out.push_str(&format!("{dtype}: {}, {}\n", counted(count, "tensor"), Size(bytes)));
    }
    let total = tensors.iter().filter_map(|(_, info)| info.nbytes()).fold(0, u64::saturating_add);
    out.push_str(&format!("total: {}, {}\n", counted(tensors.len() as u64, "key"), Size(total)));
    let files = header.files.len();
    match header.files.as_slice() {
        [] => out.push_str("files: none, this is a manifest\n"),
        [one] => out.push_str(&format!("file: {}\n", one_line(one))),
        [first, .., last] => {
            out.push_str(&format!("files: {files}, {} to {}\n", one_line(first), one_line(last)))
        }
    }
    out.push_str(&beside(header));
    if !header.metadata.is_empty() {
        let pairs: Vec<String> = header
            .metadata
            .iter()
            .map(|(name, value)| format!("{} = {value:?}", one_line(name)))
            .collect();
        out.push_str(&format!("metadata: {}\n", pairs.join(", ")));
    }
    if arguments.bytes {
        if equal.is_empty() {
            out.push_str("equal byte for byte: none\n");
        }
        for group in equal {
            let names: Vec<_> = group.iter().map(|key| one_line(key)).collect();
            out.push_str(&format!("equal byte for byte: {}\n", names.join(" = ")));
        }
    }
    out
}

/// What files have besides the tensors of their state dict, a line each.
fn beside(header: &Header) -> String {
    let mut out = String::new();
    for remark in &header.remarks {
        match remark {
            Remark::Root { root, others, .. } => {
                let others: Vec<_> = others.iter().map(|root| one_line(root)).collect();
                out.push_str(&format!("root: {}\n", one_line(root)));
                if !others.is_empty() {
                    out.push_str(&format!("other roots: {}\n", others.join(", ")));
                }
            }
            Remark::LeftOut { trees, plain, .. } => {
                for (path, tensors) in trees {
                    let count = counted(*tensors, "tensor");
                    out.push_str(&format!("left out: {}, {count}\n", one_line(path)));
                }
                if !plain.is_empty() {
                    let names: Vec<_> = plain.iter().take(20).map(|name| one_line(name)).collect();
                    let more = if plain.len() > 20 { ", …" } else { "" };
                    out.push_str(&format!("no tensors: {}{more}\n", names.join(", ")));
                }
            }
            Remark::Unreadable { tensors, .. } => {
                for (key, what) in tensors {
                    let what = one_line(what);
                    out.push_str(&format!("can't be read: {}, {what}\n", one_line(key)));
                }
            }
            _ => {}
        }
    }
    out
}

/// Columns as wide as they need to be; numbers to the right.
fn table(rows: &[[String; 5]]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3), width(4)];
    let mut out = String::new();
    for [key, dtype, shape, count, size] in rows {
        let line = format!(
            "{key:<a$}  {dtype:<b$}  {shape:<c$}  {count:>d$}  {size:>e$}",
            a = widths[0],
            b = widths[1],
            c = widths[2],
            d = widths[3],
            e = widths[4]
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn by_dtype(tensors: &[(&Key, &TensorInfo)]) -> BTreeMap<&'static str, (u64, u64)> {
    let mut totals: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
    for (_, info) in tensors {
        let total = totals.entry(info.dtype.name()).or_default();
        total.0 += 1;
        total.1 = total.1.saturating_add(info.nbytes().unwrap_or(0));
    }
    totals
}

/// What a checkpoint holds, for programs. It is written as it is made: of a hundred thousand keys it
/// would take more memory than their header.
#[derive(Serialize)]
struct Document<'a> {
    files: &'a [String],
    metadata: &'a BTreeMap<String, String>,
    groups: Vec<Value>,
    tensors: Rows<'a>,
    dtypes: BTreeMap<&'static str, Value>,
    remarks: &'a [Remark],
    total: Value,
    equal: Option<&'a [Vec<Key>]>,
    notes: &'a [String],
    ignored: &'a [PathBuf],
    findings: &'a [Diagnostic],
}

/// Every tensor, in order.
struct Rows<'a> {
    header: &'a Header,
    sorted: &'a [(&'a Key, &'a TensorInfo)],
}

/// A tensor, and where it lies, if it is one run of a file.
#[derive(Serialize)]
struct Row<'a> {
    dtype: Dtype,
    shape: &'a Shape,
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let place = |key: &Key| self.header.tensors.get(key).and_then(|entry| entry.location);
        serializer.collect_map(self.sorted.iter().map(|(key, info)| {
            let (place, bytes) = (place(key), info.nbytes());
            let file = place.and_then(|place| self.header.files.get(place.file as usize));
            let (file, offset) = (file.map(String::as_str), place.map(|place| place.offset));
            (key.as_str(), Row { dtype: info.dtype, shape: &info.shape, bytes, file, offset })
        }))
    }
}

fn print_json(
    checkpoint: &Checkpoint,
    equal: Option<&[Vec<Key>]>,
    findings: &[Diagnostic],
    console: Console,
) -> Result<()> {
    let header = checkpoint.header();
    let sorted = sorted(header);
    let mut groups = Gathered::new();
    for (key, info) in &sorted {
        groups.add(key, *info);
    }
    let lines = groups.lines();
    let groups = lines.iter().map(|line| {
        let (dtype, shape) = (line.shared.dtype, &line.shared.shape);
        json!({ "keys": line.text(), "dtype": dtype, "shape": shape, "count": line.count() })
    });
    let of_dtype = |(dtype, (tensors, bytes)): (&'static str, (u64, u64))| {
        (dtype, json!({ "tensors": tensors, "bytes": bytes }))
    };
    let bytes = sorted.iter().filter_map(|(_, info)| info.nbytes()).fold(0, u64::saturating_add);
    console.json(&Document {
        files: &header.files,
        metadata: &header.metadata,
        groups: groups.collect(),
        tensors: Rows { header, sorted: &sorted },
        dtypes: by_dtype(&sorted).into_iter().map(of_dtype).collect(),
        remarks: &header.remarks,
        total: json!({ "tensors": sorted.len(), "bytes": bytes }),
        equal,
        notes: checkpoint.notes(),
        ignored: checkpoint.ignored(),
        findings,
    })
}
