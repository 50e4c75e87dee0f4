//! Side files: what lies beside the weights and belongs to the checkpoint, as config, tokenizer and
//! licence.

use std::path::{Path, PathBuf};

use super::OpenOptions;
use super::place;
use super::sharded::check_inside;
use crate::error::{Error, ErrorKind, Result};
use crate::key::natural_order;

/// Endings of files that hold weights, in this format or another, and of what describes them.
const WEIGHTS: &[&str] = &[
    "safetensors",
    "index.json",
    "bin",
    "pt",
    "pth",
    "ckpt",
    "pkl",
    "h5",
    "msgpack",
    "gguf",
    "ggml",
    "onnx",
    "npz",
    "npy",
    "distcp",
    "nemo",
    "mlmodel",
    "tflite",
];

/// What to say of something under a name where a file should be. A pipe would be waited for, a
/// device read without end, and a link that leads nowhere is a file that somebody meant to be
/// there.
pub fn no_file(path: &Path) -> Error {
    let is_link = path.symlink_metadata().is_ok_and(|found| found.file_type().is_symlink());
    let what = if is_link && path.metadata().is_err() {
        "a link that leads nowhere"
    } else {
        "not a regular file"
    };
    Error::new(ErrorKind::Unsupported, what)
        .in_file(path)
        .hint("put the file itself there, or remove this")
}

/// The files of a checkpoint's directory that are neither weights nor an index nor hidden, in
/// natural order. Subdirectories are left out.
///
/// # Errors
/// If the directory can't be listed, a file is a symbolic link out of it that `options` don't
/// allow, or something there is no file: a pipe, a device, a link that leads nowhere.
pub fn side_files(directory: impl AsRef<Path>, options: &OpenOptions) -> Result<Vec<PathBuf>> {
    let directory = directory.as_ref();
    let mut names = Vec::new();
    for name in place::names(directory)? {
        let is_weights = WEIGHTS
            .iter()
            .any(|ending| name.strip_suffix(ending).is_some_and(|stem| stem.ends_with('.')));
        let path = directory.join(&name);
        if name.starts_with('.') || is_weights || path.is_dir() {
            continue;
        }
        // Of a directory far away, only files are listed.
        if !place::is_remote(directory) {
            place::is_file(&path)?;
            check_inside(directory, &name, options)?;
        }
        names.push(name);
    }
    names.sort_by(|a, b| natural_order(a, b));
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_hidden_files_and_directories_are_no_side_files() {
        let directory = tempfile::tempdir().unwrap();
        let names = [
            "config.json",
            "tokenizer.json",
            "merges.txt",
            "LICENSE",
            "model.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "__0_0.distcp",
            "array.npy",
            ".gitattributes",
        ];
        for name in names {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        std::fs::create_dir(directory.path().join("onnx")).unwrap();
        let found = side_files(directory.path(), &OpenOptions::default()).unwrap();
        let found: Vec<_> =
            found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(found, ["LICENSE", "config.json", "merges.txt", "tokenizer.json"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_directory_is_refused_unless_allowed() {
        let (directory, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = outside.path().join("secret");
        std::fs::write(&secret, "x").unwrap();
        std::os::unix::fs::symlink(&secret, directory.path().join("tokenizer.json")).unwrap();
        assert!(side_files(directory.path(), &OpenOptions::default()).is_err());
        let allowed = side_files(
            directory.path(),
            &OpenOptions { allow_outside: true, ..OpenOptions::default() },
        )
        .unwrap();
        assert_eq!(allowed.len(), 1);
    }
}
