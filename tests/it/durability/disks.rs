//! Disks that are full, broken or not to be written: a clear error, and nothing half done.
//!
//! They are small filesystems that a test mounts for itself, as only root may; without, it says
//! that it was skipped.

use std::path::PathBuf;
use std::process::Command;

use regraft::error::ErrorKind;
use regraft::execute::{WriteOptions, write};
use regraft::store::{OpenOptions, Store as _, open};
use regraft::{Route, compile, plan};

use super::{Place, RENAME, TURN, contents};
use crate::execute::names;

/// A mount that goes away with the test.
struct Mount(PathBuf);

impl Mount {
    /// A disk in memory.
    fn memory(place: &Place, name: &str, size: &str) -> Option<Self> {
        Self::new(place, name, &["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
    }

    fn new(place: &Place, name: &str, arguments: &[&str]) -> Option<Self> {
        let path = place.path(name);
        std::fs::create_dir_all(&path).unwrap();
        let mounted = Command::new("mount").args(arguments).arg(&path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path));
        }
        eprintln!("skipped: only root may mount a disk to try this");
        None
    }

    fn make_read_only(&self) {
        assert!(
            Command::new("mount")
                .args(["-o", "remount,ro"])
                .arg(&self.0)
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn fails(place: &Place, arguments: &[&str]) -> String {
    let output = place.regraft(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    said
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let place = Place::new(3, 1024);
    let Some(small) = Mount::memory(&place, "small", "1m") else { return };
    for more in [&[][..], &["--checksums"], &["--rank", "0", "--world-size", "2"]] {
        let arguments = [
            &[
                "apply",
                "source",
                "--rules",
                "turn.graft",
                "-o",
                "small/out",
                "--max-shard-size",
                "300000",
            ],
            more,
        ]
        .concat();
        let said = fails(&place, &arguments);
        assert!(said.contains("No space left"), "{said}");
        let left = names(&small.0);
        assert!(left.iter().all(|name| name == ".out.regraft-ranks"), "{left:?}");
    }
}

#[test]
fn in_place_a_full_disk_changes_nothing_wherever_it_is_full() {
    let place = Place::new(24, 64);
    let Some(small) = Mount::memory(&place, "small", "1m") else { return };
    let before = contents(&place.path("source")).unwrap();
    for (name, bytes) in &before {
        std::fs::write(small.0.join(name), bytes).unwrap();
    }
    let (mut refused, mut last) = (0, 0);
    // So many bytes are free: none, then enough for a part of the journal, for all of it, for the
    // new index too.
    for free in (0..40).map(|pages| pages * 4096) {
        let filler = small.0.join("filler");
        let mut all = Vec::new();
        while std::fs::write(&filler, vec![0; all.len() + 4096]).is_ok() {
            all.resize(all.len() + 4096, 0);
        }
        std::fs::write(&filler, vec![0; all.len().saturating_sub(free)]).unwrap();
        let output = place
            .regraft(&["apply", "small", "--rules", "rename.graft", "--in-place", "--quiet"])
            .output()
            .unwrap();
        std::fs::remove_file(&filler).unwrap();
        if output.status.success() {
            last = free;
            break;
        }
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("No space left") && !said.contains("recover"), "{said}");
        assert!(contents(&small.0).unwrap() == before, "with {free} bytes free");
        refused += 1;
    }
    assert!(refused >= 3 && last > 0, "refused {refused} times, done with {last} bytes free");
}

#[test]
fn a_disk_that_is_not_to_be_written_is_said() {
    let place = Place::new(2, 64);
    let Some(disk) = Mount::memory(&place, "disk", "1m") else { return };
    let before = contents(&place.path("source")).unwrap();
    for (name, bytes) in &before {
        std::fs::write(disk.0.join(name), bytes).unwrap();
    }
    disk.make_read_only();
    let said = fails(&place, &["apply", "source", "--rules", "rename.graft", "-o", "disk/out"]);
    assert!(
        said.contains("cannot write in this directory") && said.contains("Read-only"),
        "{said}"
    );
    let said =
        fails(&place, &["apply", "disk", "--rules", "rename.graft", "--in-place", "--force"]);
    assert!(said.contains("cannot open for writing") && said.contains("Read-only"), "{said}");
    assert!(contents(&disk.0).unwrap() == before);
    // To read from it is no matter.
    place.run(&["apply", "disk", "--rules", "rename.graft", "-o", "out", "--quiet"]);
}

#[test]
fn a_disk_that_breaks_during_the_run_is_an_error() {
    for rules in [RENAME, TURN] {
        let place = Place::new(3, 1024);
        let image = place.path("image");
        std::fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
        let made =
            Command::new("mkfs.ext4").args(["-q", "-O", "^has_journal"]).arg(&image).output();
        if !made.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: no mkfs.ext4 to make a disk with");
            return;
        }
        let image_name = image.to_str().unwrap().to_owned();
        let attach = || Mount::new(&place, "disk", &["-o", "loop", &image_name]);
        let Some(disk) = attach() else { return };
        for (name, bytes) in contents(&place.path("source")).unwrap() {
            std::fs::write(disk.0.join(name), bytes).unwrap();
        }
        // Mounted anew, nothing of the data is in memory any more.
        drop(disk);
        let Some(_disk) = attach() else { return };
        let source = open(place.path("disk"), &OpenOptions::default()).unwrap();
        let route = Route::named(vec![compile(rules).unwrap()], None, None, false).unwrap();
        let plan = plan(&route.stages(), source.header(), &Default::default()).unwrap();
        std::fs::File::options().write(true).open(&image).unwrap().set_len(1 << 20).unwrap();
        let error =
            write(&plan, &source, &place.path("out"), &WriteOptions::default()).unwrap_err();
        let said = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Io, "{said}");
        assert!(said.contains("Input/output error") && said.contains("disk/model-0000"), "{said}");
        assert!(!place.path("out").exists() && place.hidden().is_empty());
    }
}
