//! The index of files that are changed in place: which one it is, and what it is going to say.

use std::path::{Path, PathBuf};

use super::Row;
use super::journal::Replaced;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, natural_order};
use crate::store::{Checkpoint, Store as _, indexes_of};

/// The index as it is going to be, if it changes: its `weight_map` is written anew, all else in it
/// stays.
pub(super) fn new_index(
    directory: &Path,
    source: &Checkpoint,
    rows: &[Vec<Row>],
) -> Result<Option<Replaced>> {
    let renames = |(at, rows): (usize, &Vec<Row>)| {
        let here = |key: &Key| {
            source
                .header()
                .tensors
                .get(key)
                .and_then(|entry| entry.location)
                .is_some_and(|l| l.file as usize == at)
        };
        rows.iter().any(|(key, ..)| !here(key))
    };
    if !rows.iter().enumerate().any(renames) {
        return Ok(None);
    }
    let Some(path) = own(directory, source)? else { return Ok(None) };
    let name = name(path, directory)?;
    let before = std::fs::read_to_string(path)
        .map_err(|error| Error::io("cannot read the index", path, error))?;
    let failed = |error: serde_json::Error| {
        Error::corrupt(format!("cannot write the index anew: {error}")).in_file(path)
    };
    let mut document: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(before.trim_start_matches('\u{FEFF}')).map_err(failed)?;
    let mut all: Vec<(&Key, &String)> = rows
        .iter()
        .zip(&source.header().files)
        .flat_map(|(rows, file)| rows.iter().map(move |(key, ..)| (key, file)))
        .collect();
    all.sort_by(|a, b| natural_order(a.0, b.0));
    let map = all.into_iter().map(|(key, file)| (key.to_string(), file.clone().into())).collect();
    document.insert("weight_map".to_owned(), serde_json::Value::Object(map));
    let mut after = serde_json::to_string_pretty(&document).map_err(failed)?;
    after.push('\n');
    Ok(Some(Replaced { name: name.to_owned(), before, after }))
}

/// The one index that changes along: no other may list the same files. `None` for shards without
/// one, which keep on having none.
fn own<'s>(directory: &Path, source: &'s Checkpoint) -> Result<Option<&'s PathBuf>> {
    let names: Vec<&str> = source.paths().filter_map(|path| path.file_name()?.to_str()).collect();
    let own = source.indexes();
    let same = |a: &Path, b: &Path| {
        a.file_name() == b.file_name() && a.canonicalize().ok() == b.canonicalize().ok()
    };
    if let Some(other) = indexes_of(directory, &names)?
        .into_iter()
        .find(|found| !own.iter().any(|own| same(own, found)))
    {
        let error = Error::new(
            ErrorKind::Unsupported,
            "in place, keys would change that this index lists too",
        )
        .in_file(other);
        return Err(error.hint("give the index or its directory, so that all of its files change together; or write to an output"));
    }
    match own {
        [] => Ok(None),
        [path] => Ok(Some(path)),
        [_, second, ..] => {
            let why = "in place, one index is changed at a time";
            Err(Error::new(ErrorKind::Unsupported, why).in_file(second))
        }
    }
}

/// The name of an index that lies beside its files.
fn name<'p>(path: &'p Path, directory: &Path) -> Result<&'p str> {
    let beside =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .filter(|name| name.ends_with(".safetensors.index.json"));
    let (Some(name), true) = (name, beside == directory) else {
        let error = Error::new(
            ErrorKind::Unsupported,
            "in place, the index has to lie beside its files, and be named as one",
        )
        .in_file(path);
        return Err(error.hint("an index ends with .safetensors.index.json; or write to an output"));
    };
    Ok(name)
}
