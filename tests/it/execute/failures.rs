//! Failures: one clear error, and nothing left behind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use regraft::error::{Error, ErrorKind};
use regraft::execute::{Progress, WriteOptions, write};
use regraft::plan::Plan;
use regraft::store::StateDict;
use regraft::tensor::Dtype;

use super::over::Over;
use super::{Build, dict, names};

fn simple() -> (StateDict, Plan) {
    let store = dict(&[("a", Dtype::F32, &[600, 500]), ("b", Dtype::F32, &[600, 500])]);
    let mut build = Build::default();
    for key in ["a", "b"] {
        let source = build.source(&store, key);
        build.target(key, source);
    }
    (store, build.0)
}

fn fails(out: &Path, options: &WriteOptions<'_>) -> Error {
    let (store, plan) = simple();
    write(&plan, &store, out, options).unwrap_err()
}

#[test]
fn an_output_that_exists_is_replaced_only_by_force() {
    let directory = tempfile::tempdir().unwrap();
    let (store, plan) = simple();
    let (dir, file) = (directory.path().join("out"), directory.path().join("out.safetensors"));
    for out in [&dir, &file] {
        write(&plan, &store, out, &WriteOptions::default()).unwrap();
        let error = fails(out, &WriteOptions::default());
        assert_eq!(
            (error.kind(), error.file()),
            (ErrorKind::Exists, Some(out.canonicalize().unwrap().as_path()))
        );
        assert!(error.advice().unwrap().contains("--force"));
    }
    std::fs::write(dir.join("old.json"), "old").unwrap();
    std::fs::write(&file, "old").unwrap();
    let force = WriteOptions { force: true, ..WriteOptions::default() };
    for out in [&dir, &file] {
        write(&plan, &store, out, &force).unwrap();
    }
    assert_eq!(names(&dir), ["model.safetensors"]);
    assert_eq!(
        file.metadata().unwrap().len(),
        dir.join("model.safetensors").metadata().unwrap().len()
    );
    assert_eq!(names(directory.path()), ["out", "out.safetensors"]);

    // An empty directory may be replaced; one with something else in it, or of the other kind, may
    // not.
    let (empty, home) = (directory.path().join("empty"), directory.path().join("home"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("diary"), "dear").unwrap();
    assert_eq!(fails(&empty, &WriteOptions::default()).kind(), ErrorKind::Exists);
    write(&plan, &store, &empty, &force).unwrap();
    assert_eq!(fails(&home, &force).kind(), ErrorKind::Exists);
    assert_eq!(fails(&home.join("diary"), &force).kind(), ErrorKind::Exists);
    let trap = directory.path().join("x.safetensors");
    std::fs::create_dir(&trap).unwrap();
    assert_eq!(fails(&trap, &force).kind(), ErrorKind::Exists);
    assert_eq!(std::fs::read(home.join("diary")).unwrap(), b"dear");
    assert_eq!(
        names(directory.path()),
        ["empty", "home", "out", "out.safetensors", "x.safetensors"]
    );
}

#[test]
fn an_output_in_or_around_its_source_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("models/source");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("model.safetensors"), "x").unwrap();
    std::os::unix::fs::symlink(&source, directory.path().join("link")).unwrap();
    let options =
        WriteOptions { protect: vec![source.clone()], force: true, ..WriteOptions::default() };
    for out in [
        "models/source",
        "models/source/out",
        "models/source/model.safetensors",
        "models",
        "link/out",
        "link",
        "models/../models/source",
    ] {
        let error = fails(&directory.path().join(out), &options);
        assert_eq!(error.kind(), ErrorKind::Exists, "{out}");
        assert!(error.message().contains("source"), "{error}");
    }
    assert_eq!(names(&source), ["model.safetensors"]);
    let (store, plan) = simple();
    write(&plan, &store, &directory.path().join("models/source2"), &options).unwrap();
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = fails(&directory.path().join("no/out"), &WriteOptions::default());
    assert_eq!(missing.kind(), ErrorKind::Io);
    assert!(missing.to_string().contains("cannot be found"), "{missing}");
    std::fs::write(directory.path().join("file"), "").unwrap();
    assert_eq!(
        fails(&directory.path().join("file/out"), &WriteOptions::default()).kind(),
        ErrorKind::Io
    );
    // No one makes files here, root neither, whom modes don't stop.
    let error = fails(Path::new("/proc/self/out"), &WriteOptions::default());
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("cannot write in this directory"), "{error}");
    let locked = directory.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    if std::fs::write(locked.join("probe"), "").is_err() {
        let error = fails(&locked.join("out"), &WriteOptions::default());
        assert!(error.to_string().contains("cannot write in this directory"), "{error}");
        assert!(names(&locked).is_empty());
    }
    assert!(fails(Path::new("/"), &WriteOptions::default()).to_string().contains("no name"));
}

#[test]
fn cancelling_midway_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let cancel = AtomicBool::new(false);
    let progress = |at: Progress| {
        assert!(at.done < at.total, "the run must not reach its end");
        cancel.store(true, Ordering::Relaxed);
    };
    // The least memory makes the most jobs, so that there is a midway.
    let options = WriteOptions {
        cancel: Some(&cancel),
        progress: Some(&progress),
        memory: 1,
        ..WriteOptions::default()
    };
    for out in ["out", "out.safetensors"] {
        cancel.store(false, Ordering::Relaxed);
        assert_eq!(fails(&directory.path().join(out), &options).kind(), ErrorKind::Interrupted);
        assert!(names(directory.path()).is_empty());
    }
}

#[test]
fn a_read_error_names_file_and_key_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, plan) = simple();
    // In the middle of a tensor, as a truncated file fails.
    let reading = |key: &str, offset: u64, len: usize| {
        if key == "b" && offset + len as u64 > 600_000 {
            let why = std::io::ErrorKind::UnexpectedEof.into();
            return Err(Error::io("cannot read", "model.safetensors", why));
        }
        Ok(())
    };
    let broken = Over { reading: &reading, ..Over::new(&store) };
    let error =
        write(&plan, &broken, &directory.path().join("out"), &WriteOptions::default()).unwrap_err();
    assert_eq!(
        (error.kind(), error.key(), error.file()),
        (ErrorKind::Io, Some("b"), Some(Path::new("model.safetensors")))
    );
    assert!(names(directory.path()).is_empty());
}

#[test]
fn a_missing_side_file_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("config.json");
    let options = WriteOptions { side_files: vec![missing.clone()], ..WriteOptions::default() };
    let error = fails(&directory.path().join("out"), &options);
    assert_eq!((error.kind(), error.file()), (ErrorKind::Io, Some(missing.as_path())));
    assert!(names(directory.path()).is_empty());
}

/// A mount that goes away with the test.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_a_clear_error_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "none"])
        .arg(directory.path())
        .output();
    if !mount.is_ok_and(|output| output.status.success()) {
        // Only root may mount; then there is no small disk to fill.
        return;
    }
    let _mount = Mount(directory.path().to_owned());
    let error = fails(&directory.path().join("out"), &WriteOptions::default());
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("No space left"), "{error}");
    assert!(names(directory.path()).is_empty());
}
