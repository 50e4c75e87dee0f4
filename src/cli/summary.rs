//! What a plan says besides its overview: which way bytes go, and everything as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use regraft::diagnostic::plain::one_line;
use regraft::execute::{FileLanes, Lane, Lanes};
use regraft::overview::{Size, counted};
use regraft::plan::Plan;
use serde::Serialize;

/// Files with the same lanes that are named one by one; of more, the first.
const FILES: usize = 3;

/// Which way the bytes will go, and into which files.
pub(super) fn lanes(lanes: &Lanes, all: bool) -> String {
    let mut out = String::new();
    if !lanes.bytes.is_empty() {
        let _ = writeln!(out, "lanes: {}", by_lane(&lanes.bytes));
    }
    if lanes.files.len() > 1 {
        files(&lanes.files, all, &mut out);
    }
    if let Some(stay) = &lanes.in_place {
        let _ = writeln!(out, "with --in-place nothing moves:");
        files(stay, all, &mut out);
    }
    out
}

/// How many bytes go each way.
pub(super) fn by_lane(bytes: &BTreeMap<Lane, u64>) -> String {
    let part = |(lane, bytes): (&Lane, &u64)| match lane {
        Lane::Copied => {
            format!("{} {lane} (shared blocks instead, if the filesystem can)", Size(*bytes))
        }
        _ => format!("{} {lane}", Size(*bytes)),
    };
    if bytes.is_empty() {
        "no bytes".to_owned()
    } else {
        bytes.iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

/// Files, those that follow each other in one set of lanes together.
fn files(files: &[FileLanes], all: bool, out: &mut String) {
    let same = |a: &FileLanes, b: &FileLanes| a.bytes.keys().eq(b.bytes.keys());
    for run in files.chunk_by(same) {
        if all || run.len() <= FILES {
            for file in run {
                let _ = writeln!(out, "  {}: {}", one_line(&file.name), by_lane(&file.bytes));
            }
            continue;
        }
        let mut bytes: BTreeMap<Lane, u64> = BTreeMap::new();
        for (lane, more) in run.iter().flat_map(|file| &file.bytes) {
            let sum = bytes.entry(*lane).or_default();
            *sum = sum.saturating_add(*more);
        }
        let first = one_line(run.first().map_or("", |file| file.name.as_str()));
        let _ = writeln!(
            out,
            "  {first} and {} after it: {}",
            counted(run.len() as u64 - 1, "file"),
            by_lane(&bytes)
        );
    }
}

/// A plan as JSON, with its lanes if its source has bytes.
#[derive(Serialize)]
pub(super) struct Planned<'a> {
    #[serde(flatten)]
    pub(super) plan: &'a Plan,
    pub(super) lanes: Option<&'a Lanes>,
}
