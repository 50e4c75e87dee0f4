//! Lanes that are told before a run are those that it takes.

use std::collections::BTreeMap;
use std::process::Command;

use regraft::execute::{FileLanes, Lane, PatchOptions, WriteOptions, lanes, patch, write};
use regraft::plan::Plan;
use regraft::store::{OpenOptions, Store, open};
use regraft::tensor::Dtype;
use regraft::{Route, compile, plan};

use super::{Build, dict};

fn plan_by(rules: &str, source: &dyn Store) -> Plan {
    let route = Route::named(vec![compile(rules).unwrap()], None, None, false).unwrap();
    plan(&route.stages(), source.header(), &Default::default()).unwrap()
}

/// Bytes by lane of all files; shared blocks are what would be copied elsewhere.
fn sum<'a>(files: impl IntoIterator<Item = &'a BTreeMap<Lane, u64>>) -> BTreeMap<Lane, u64> {
    let mut sum = BTreeMap::new();
    for (lane, bytes) in files.into_iter().flatten() {
        *sum.entry(if *lane == Lane::Shared { Lane::Copied } else { *lane }).or_default() += bytes;
    }
    sum
}

#[test]
fn a_plan_names_the_lanes_that_a_run_takes() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("source");
    let store = dict(&[
        ("m.a", Dtype::F32, &[30, 50]),
        ("m.b", Dtype::F32, &[50, 30]),
        ("m.c", Dtype::F32, &[64, 20]),
    ]);
    let mut build = Build::default();
    for key in ["m.a", "m.b", "m.c"] {
        let source = build.source(&store, key);
        build.target(key, source);
    }
    let options = WriteOptions { max_shard_size: Some(12_100), ..WriteOptions::default() };
    write(&build.0, &store, &place, &options).unwrap();
    let long = format!("rename \"m.**\" <-> \"{}.**\"", "long".repeat(900));
    for (rules, files, stays) in [
        ("rename \"m.**\" <-> \"n.**\"", &[Lane::Copied, Lane::Copied][..], Some(Lane::InPlace)),
        (&*long, &[Lane::Copied, Lane::Copied], Some(Lane::Grown)),
        ("map \"m.a\" <-> \"m.t\" via transpose(0, 1)", &[Lane::Copied, Lane::Streamed], None),
        ("cast \"m.**\" to bf16 lossy", &[Lane::Streamed], None),
    ] {
        let source = open(&place, &OpenOptions::default()).unwrap();
        let plan = plan_by(rules, &source);
        let told = lanes(&plan, &source, &options).unwrap();
        let out = directory.path().join("out");
        let report = write(&plan, &source, &out, &options).unwrap();
        std::fs::remove_dir_all(&out).unwrap();
        assert_eq!(sum([&told.bytes]), sum([&report.lanes]), "{rules}");
        assert_eq!(sum(told.files.iter().map(|file| &file.bytes)), told.bytes, "{rules}");
        let names: Vec<&String> =
            report.files.iter().filter(|name| name.ends_with(".safetensors")).collect();
        assert_eq!(told.files.iter().map(|file| &file.name).collect::<Vec<_>>(), names, "{rules}");
        // Each of these files takes one lane.
        let taken: Vec<Lane> =
            told.files.iter().flat_map(|file| file.bytes.keys().copied()).collect();
        assert_eq!(taken, files, "{rules}");
        assert_eq!(told.in_place.is_some(), stays.is_some(), "{rules}");
        let Some(stay) = told.in_place else { continue };
        assert!(
            stay.iter().all(|file: &FileLanes| file.bytes.keys().eq(&stays)),
            "{rules}: {stay:?}"
        );
        if let Ok(report) = patch(&plan, &source, &PatchOptions::default()) {
            assert_eq!(sum(stay.iter().map(|file| &file.bytes)), report.lanes, "{rules}");
            std::fs::remove_dir_all(&place).unwrap();
            write(&build.0, &store, &place, &options).unwrap();
        } else {
            assert_eq!(stays, Some(Lane::Grown), "a filesystem that can't insert room");
        }
    }

    // On the command line, as text and as JSON.
    std::fs::write(
        directory.path().join("turn.graft"),
        "map \"m.a\" <-> \"m.t\" via transpose(0, 1)\n",
    )
    .unwrap();
    let run = |more: &[&str]| {
        let arguments = ["plan", "source", "--rules", "turn.graft", "--max-shard-size", "12100"];
        let output = Command::new(env!("CARGO_BIN_EXE_regraft"))
            .args(arguments)
            .args(more)
            .current_dir(&directory)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&[]);
    assert!(text.contains("model-00002-of-00002.safetensors: 6.00 kB streamed"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(json["lanes"]["files"][1]["bytes"]["streamed"], 6000, "{}", json["lanes"]);
    assert!(json["targets"].is_array() && json["lanes"]["in_place"].is_null());
}
