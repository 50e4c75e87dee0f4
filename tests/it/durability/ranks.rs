//! Several processes write one output, under real launchers where they are installed and under
//! their variables everywhere: the bytes are those of one process, whoever is lost and run again.
//!
//! `scripts/ranks.sh` does the same with the release build and any checkpoint.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{LAUNCHERS, Place, Random, contents, kill_after};

const APPLY: [&str; 10] = [
    "apply",
    "source",
    "--rules",
    "turn.graft",
    "-o",
    "out",
    "--max-shard-size",
    "300000",
    "--checksums",
    "--quiet",
];

type Contents = BTreeMap<String, Vec<u8>>;

/// A checkpoint, and what one process makes of it.
fn place() -> (Place, Contents) {
    let place = Place::new(5, 512);
    place.run(&APPLY);
    let whole = contents(&place.path("out")).unwrap();
    assert!(whole.keys().filter(|name| name.ends_with(".safetensors")).count() >= 10);
    remove(&place);
    (place, whole)
}

fn remove(place: &Place) {
    std::fs::remove_dir_all(place.path("out")).unwrap();
}

fn same(place: &Place, whole: &Contents, what: &str) {
    let found = contents(&place.path("out"));
    assert!(found.is_some(), "{what}: no output");
    assert!(found.as_ref() == Some(whole), "{what}: other bytes");
    assert!(place.hidden().is_empty(), "{what}: {:?}", place.hidden());
    remove(place);
}

/// Where a launcher is installed, if it is.
fn launcher(name: &str) -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|path| path.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// A launcher's command for four processes, in a place, without the variables of another one.
fn four(name: &str, place: &Place) -> Option<Command> {
    let mut command = Command::new(launcher(name)?);
    match name {
        // All it takes for many processes on few cores, run by root in a container.
        "mpirun" => command.args(["--allow-run-as-root", "--oversubscribe", "-n", "4"]),
        _ => command.args(["--no-python", "--standalone", "--nproc-per-node", "4"]),
    };
    command.current_dir(place.root()).stdin(Stdio::null());
    for variable in LAUNCHERS {
        command.env_remove(variable);
    }
    Some(command)
}

fn succeeds(mut command: Command, what: &str) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{what}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn real_launchers_write_what_one_process_writes() {
    let (place, whole) = place();
    for name in ["mpirun", "torchrun"] {
        let Some(mut command) = four(name, &place) else { continue };
        command.arg(env!("CARGO_BIN_EXE_regraft")).args(APPLY);
        succeeds(command, name);
        same(&place, &whole, name);
    }
}

#[test]
fn a_rank_that_mpirun_lost_is_run_again_alone() {
    let (place, whole) = place();
    let mut lost = 0;
    for delay in ["0.05", "0.02", "0.01", "0.005", "0"] {
        let Some(mut command) = four("mpirun", &place) else { return };
        // Rank 2 is killed on its way; that its launcher sees no failure lets the others go on.
        let script = "\"$@\" & own=$!; if [ $OMPI_COMM_WORLD_RANK = 2 ]; then sleep $DELAY; kill -9 $own; wait $own; exit 0; fi; wait $own";
        command
            .env("DELAY", delay)
            .args(["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_regraft")])
            .args(APPLY);
        succeeds(command, "mpirun with a rank killed");
        if let Some(found) = contents(&place.path("out")) {
            assert!(found == whole, "a part of the output is visible");
        } else {
            lost += 1;
            assert_eq!(place.hidden(), [".out.regraft-ranks"]);
            let mut alone = place.regraft(&APPLY);
            alone.envs([("OMPI_COMM_WORLD_RANK", "2"), ("OMPI_COMM_WORLD_SIZE", "4")]);
            succeeds(alone, "rank 2, alone");
        }
        // Killed after it was done, it may not have taken away what was common.
        if place.path(".out.regraft-ranks").exists() {
            std::fs::remove_dir_all(place.path(".out.regraft-ranks")).unwrap();
        }
        same(&place, &whole, "a rank killed and run again");
    }
    assert!(lost > 0, "rank 2 was always done before it was killed");
}

#[test]
fn ranks_are_known_by_the_variables_of_each_launcher() {
    let (place, whole) = place();
    let sets: [(&str, &[(&str, bool)]); 4] = [
        ("torchrun", &[("RANK", true), ("WORLD_SIZE", false)]),
        ("mpirun", &[("OMPI_COMM_WORLD_RANK", true), ("OMPI_COMM_WORLD_SIZE", false)]),
        ("mpiexec", &[("PMI_RANK", true), ("PMI_SIZE", false)]),
        (
            "srun",
            &[("SLURM_PROCID", true), ("SLURM_NTASKS", false), ("SLURM_STEP_NUM_TASKS", false)],
        ),
    ];
    for (launcher, variables) in sets {
        let start =
            |rank: u32| {
                let mut command = place.regraft(&APPLY);
                command.envs(variables.iter().map(|(name, own)| {
                    (*name, if *own { rank.to_string() } else { "4".to_owned() })
                }));
                command.spawn().unwrap()
            };
        let mut ranks: Vec<Child> = (0..4).map(start).collect();
        for child in &mut ranks {
            assert!(child.wait().unwrap().success(), "{launcher}");
        }
        same(&place, &whole, launcher);
    }
    // A batch script of an allocation with four tasks, which runs one process itself: all of the
    // work is that one's.
    let mut batch = place.regraft(&APPLY);
    batch.envs([("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]);
    succeeds(batch, "a batch script");
    same(&place, &whole, "a batch script");
}

#[test]
fn what_another_run_left_is_not_taken_for_this_ones() {
    let (place, whole) = place();
    let rank = |rank: &str| {
        let mut command = place.regraft(&APPLY);
        command.envs([("RANK", rank), ("WORLD_SIZE", "4")]);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for n in ["0", "1", "2", "3"] {
        assert_eq!(rank(n).0, Some(0));
    }
    let attributes = Command::new("python3")
        .args(["-c", "import os; os.getxattr('out', 'user.regraft.run')"])
        .current_dir(place.root())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if attributes {
        // One that comes late, or is started again although it was done, finds nothing left to do.
        assert_eq!(rank("2").0, Some(0));
    } else {
        eprintln!("skipped: no attributes can be read here");
    }
    // The same keys and shapes with other bytes: the source was trained on.
    let shard = place.path("source/model-00001-of-00005.safetensors");
    let mut bytes = std::fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&shard, &bytes).unwrap();
    for n in ["0", "1", "2", "3"] {
        let (code, said) = rank(n);
        assert_eq!(
            (code, said.contains("not known to be of this run")),
            (Some(3), true),
            "rank {n}: {said}"
        );
    }
    assert!(
        contents(&place.path("out")).unwrap() == whole && place.hidden().is_empty(),
        "it is left as it was"
    );
    remove(&place);
    // Ranks that begin before the source changes and ranks that begin after don't mix their shares.
    assert_eq!(rank("0").0, Some(0));
    *bytes.last_mut().unwrap() ^= 3;
    std::fs::write(&shard, &bytes).unwrap();
    let (code, said) = rank("1");
    assert_eq!((code, said.contains("other work")), (Some(3), true), "{said}");
    assert!(contents(&place.path("out")).is_none());
}

/// What a rank of four does, known by its options, in files of about two tensors.
const SMALL: [&str; 10] = [
    "apply",
    "source",
    "--rules",
    "turn.graft",
    "-o",
    "out",
    "--max-shard-size",
    "70000",
    "--checksums",
    "--quiet",
];

/// A small checkpoint, and what one process makes of it.
fn small() -> (Place, Contents) {
    let place = Place::new(5, 256);
    place.run(&SMALL);
    let whole = contents(&place.path("out")).unwrap();
    remove(&place);
    (place, whole)
}

fn rank_of_four(place: &Place, rank: &str) -> Command {
    place.regraft(&[&SMALL[..], &["--rank", rank, "--world-size", "4"]].concat())
}

#[test]
fn four_ranks_write_what_one_process_writes() {
    let (place, whole) = small();
    let mut ranks: Vec<Child> =
        ["0", "1", "2", "3"].map(|n| rank_of_four(&place, n).spawn().unwrap()).into();
    for child in &mut ranks {
        assert!(child.wait().unwrap().success());
    }
    assert!(contents(&place.path("out")).unwrap() == whole, "other bytes");
    assert!(place.hidden().is_empty(), "{:?}", place.hidden());
    std::fs::remove_dir_all(place.path("out")).unwrap();
}

/// As a rank leaves it that is killed between putting the output in its place and cleaning up.
#[test]
fn a_rank_that_comes_late_takes_away_what_a_killed_one_left() {
    let (place, whole) = small();
    for n in ["0", "1", "2", "3"] {
        assert!(rank_of_four(&place, n).status().unwrap().success());
    }
    let left = place.path(".out.regraft-ranks");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("run"), "what ranks told each other").unwrap();
    assert!(rank_of_four(&place, "2").status().unwrap().success());
    assert!(contents(&place.path("out")).unwrap() == whole, "other bytes");
    assert!(place.hidden().is_empty(), "{:?}", place.hidden());
}

/// Rank 2 is killed, by the variables of another launcher the others go on; rerun alone, it
/// completes the output.
#[test]
fn a_rank_that_was_killed_is_run_again_alone() {
    let (place, whole) = small();
    let mut random = Random(3);
    for _ in 0..4 {
        for n in ["0", "1", "3"] {
            let status = place
                .regraft(&SMALL)
                .env("OMPI_COMM_WORLD_RANK", n)
                .env("OMPI_COMM_WORLD_SIZE", "4")
                .status()
                .unwrap();
            assert!(status.success());
        }
        kill_after(rank_of_four(&place, "2"), Duration::from_micros(random.below(60_000)));
        let found = contents(&place.path("out"));
        assert!(found.is_none() || found.as_ref() == Some(&whole));
        // Killed right after the output appeared, it leaves what ranks told each other by, which the
        // next one takes away.
        if found.is_none() || !place.hidden().is_empty() {
            assert!(rank_of_four(&place, "2").status().unwrap().success());
        }
        assert!(contents(&place.path("out")).unwrap() == whole, "other bytes");
        assert!(place.hidden().is_empty(), "{:?}", place.hidden());
        std::fs::remove_dir_all(place.path("out")).unwrap();
    }
}

/// More ranks than files, one after the other: those without a share come too late or too early,
/// and neither matters.
#[test]
fn ranks_without_a_share_change_nothing() {
    let place = Place::new(5, 256);
    for n in ["7", "0", "3", "1", "6"] {
        let one = [
            "apply",
            "source",
            "--rules",
            "rename.graft",
            "-o",
            "one.safetensors",
            "--quiet",
            "--rank",
            n,
            "--world-size",
            "8",
        ];
        let output = place.regraft(&one).output().unwrap();
        assert!(output.status.success(), "rank {n}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(
        place.path("one.safetensors").exists() && place.hidden().is_empty(),
        "{:?}",
        place.names()
    );
    let other = [
        "apply",
        "source",
        "--rules",
        "turn.graft",
        "-o",
        "one.safetensors",
        "--rank",
        "0",
        "--world-size",
        "8",
    ];
    assert_eq!(place.regraft(&other).status().unwrap().code(), Some(3), "another output is there");
}

#[test]
fn ranks_that_are_given_different_work_do_not_mix_it() {
    let (place, _) = small();
    assert!(rank_of_four(&place, "0").status().unwrap().success());
    let other = place
        .regraft(&[
            "apply",
            "source",
            "--rules",
            "rename.graft",
            "-o",
            "out",
            "--rank",
            "1",
            "--world-size",
            "4",
        ])
        .output()
        .unwrap();
    assert_eq!(other.status.code(), Some(3));
    assert!(
        String::from_utf8_lossy(&other.stderr).contains("other work"),
        "{}",
        String::from_utf8_lossy(&other.stderr)
    );
}
