//! Index against files: every key where the index says, every file inside the directory.

use std::collections::{BTreeSet, HashSet};
use std::path::{Component, Path, PathBuf};

use super::alone::Content;
use super::checkpoint::Checkpoint;
use super::format::Format;
use super::journal;
use super::json::{self, Index, Kind};
use super::open::{Listing, OpenOptions, content, parent};
use super::place;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, natural_order};
use crate::tensor::Remark;

/// Opens the shards that an index names, beside it.
pub(super) fn open(path: &Path, text: &str, options: &OpenOptions) -> Result<Checkpoint> {
    let here = |error: Error| error.in_file(path);
    let index = json::index(text).map_err(here)?;
    let directory = parent(path);
    let names = shards(&index).map_err(here)?;
    if names.is_empty() {
        return Err(here(Error::corrupt("the index names no tensor")));
    }
    for name in &names {
        if let Err(error) = place::there(&directory.join(name)) {
            return Err(stale(path, &index, &names, options).unwrap_or_else(|| {
                let missing = index.weight_map.iter().filter(|(_, file)| *file == name).count();
                let what =
                    format!("the index names it for {missing} keys, but it cannot be opened");
                error
                    .saying(what)
                    .hint("fetch the missing shard; to plan without it, a manifest is enough")
            }));
        }
        check_inside(&directory, name, options)?;
    }
    journal::settled(std::iter::once(path))?;
    let mut checkpoint = Checkpoint::from_files(&directory, names, options)?;
    checkpoint.indexes.push(path.to_owned());
    compare(&mut checkpoint, &index, options).map_err(here)?;
    Ok(checkpoint)
}

/// What to say of an index whose shards aren't there while other files beside it hold all of its
/// keys.
fn stale(path: &Path, index: &Index, names: &[String], options: &OpenOptions) -> Option<Error> {
    let directory = parent(path);
    let there = Listing::read(&directory).ok()?.safetensors;
    let mut left: HashSet<&Key> = index.weight_map.keys().collect();
    let mut holders = Vec::new();
    for name in there.into_iter().filter(|name| check_inside(&directory, name, options).is_ok()) {
        let before = left.len();
        for key in Checkpoint::keys_of(&directory.join(&name)) {
            left.remove(&key);
        }
        if left.len() < before {
            holders.push(directory.join(&name).display().to_string());
        }
    }
    let gone = names.iter().filter(|name| !directory.join(name).exists()).count();
    let gone_first = names.iter().find(|name| !directory.join(name).exists())?;
    let (first, all) = (gone_first.chars().take(80).collect::<String>(), index.weight_map.len());
    if !left.is_empty() {
        return None;
    }
    let files = if gone == 1 {
        "1 file that isn't".to_owned()
    } else {
        format!("{gone} files that aren't")
    };
    let message = format!(
        "the index is stale: it names {files} there, as {first:?}, and other files beside it hold all of its {all} keys"
    );
    let error = Error::corrupt(message).in_file(path);
    Some(
        error
            .hint(format!("remove the index, or give the files themselves: {}", holders.join(" "))),
    )
}

/// The files that other indexes of a directory than its own list. An index that breaks the rules
/// lists nothing.
pub(super) fn listed(directory: &Path, indexes: &[String], own: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in indexes.iter().filter(|name| *name != own) {
        if let Ok(Content::Json(Kind::Index, text)) = content(&directory.join(name))
            && let Ok(index) = json::index(&text)
        {
            found.extend(shards(&index).unwrap_or_default());
        }
    }
    found
}

/// The shards that an index names, in natural order; refuses names that leave its directory.
pub(super) fn shards(index: &Index) -> Result<Vec<String>> {
    let mut names: Vec<&String> = Vec::new();
    let mut last = None;
    for (key, name) in &index.weight_map {
        // Runs of keys lie in one shard.
        if last == Some(name) {
            continue;
        }
        last = Some(name);
        let plain = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        // Also what only another system would take for a way out.
        if name.is_empty() || !plain || name.contains(['\\', '\0', ':']) {
            let error =
                Error::corrupt(format!("the index names a file outside its directory: {name:?}"))
                    .at_key(key.as_str());
            return Err(error.hint("an index may only name files beside it or below"));
        }
        names.push(name);
    }
    names.sort_by(|a, b| natural_order(a, b));
    names.dedup();
    Ok(names.into_iter().cloned().collect())
}

/// The indexes of a directory that name one of these files in it. An index that breaks the rules
/// names nothing.
///
/// # Errors
/// If the directory or an index can't be read.
pub(crate) fn indexes_of(directory: &Path, files: &[&str]) -> Result<Vec<PathBuf>> {
    let listing = Listing::read(directory)?;
    let mut found = Vec::new();
    for path in listing.indexes.iter().map(|name| directory.join(name)) {
        let index = match content(&path) {
            Ok(Content::Json(Kind::Index, text)) => json::index(&text).ok(),
            Err(error) if error.kind() == ErrorKind::Io => return Err(error),
            _ => None,
        };
        let plain = |name: &str| {
            Path::new(name)
                .components()
                .filter(|part| *part != Component::CurDir)
                .collect::<PathBuf>()
        };
        if index.is_some_and(|index| {
            index
                .weight_map
                .values()
                .any(|name| files.iter().any(|file| plain(name) == Path::new(file)))
        }) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Follows symbolic links: the file itself must lie in the directory, or in the `blobs` of the
/// Hugging Face cache that the directory belongs to (`…/snapshots/<revision>/file ->
/// ../../blobs/<hash>`).
pub(super) fn check_inside(directory: &Path, name: &str, options: &OpenOptions) -> Result<()> {
    let path = directory.join(name);
    // Far away there are no links.
    if options.allow_outside || place::is_remote(&path) {
        return place::there(&path);
    }
    let resolve = |path: &Path| {
        std::fs::canonicalize(path).map_err(|source| Error::io("cannot open", path, source))
    };
    let (root, file) = (resolve(directory)?, resolve(&path)?);
    if file.starts_with(&root) {
        return Ok(());
    }
    let cache = root
        .ancestors()
        .skip(1)
        .find(|ancestor| ancestor.file_name().is_some_and(|name| name == "snapshots"));
    let blobs = cache
        .and_then(Path::parent)
        .and_then(|repository| std::fs::canonicalize(repository.join("blobs")).ok());
    if blobs.is_some_and(|blobs| file.starts_with(blobs)) {
        return Ok(());
    }
    let error = Error::new(
        ErrorKind::Unsupported,
        format!("a symbolic link out of the checkpoint's directory, to {}", file.display()),
    );
    Err(error
        .in_file(path)
        .hint("give the directory that holds the file itself, or allow files outside"))
}

/// Compares what the index says with what the shards hold.
fn compare(checkpoint: &mut Checkpoint, index: &Index, options: &OpenOptions) -> Result<()> {
    let header = &checkpoint.header;
    let mut absent = Vec::new();
    let mut misplaced = Vec::new();
    for (key, name) in &index.weight_map {
        let Some(entry) = header.tensors.get(key) else {
            absent.push((key, name));
            continue;
        };
        let file = entry.location.and_then(|location| header.files.get(location.file as usize));
        if let Some(file) = file
            && file != name
        {
            misplaced.push((key, name, file));
        }
    }
    if let Some((key, name)) = absent.first() {
        let error = Error::corrupt(format!(
            "the index puts it in {name}, which does not hold it{}",
            and_more(absent.len())
        ));
        return Err(error.at_key(key.as_str()));
    }
    let mut notes = Vec::new();
    if let Some((key, name, file)) = misplaced.first() {
        let message = format!(
            "the index puts it in {name}, but it is in {file}{}",
            and_more(misplaced.len())
        );
        if options.strict {
            return Err(Error::corrupt(message).at_key(key.as_str()));
        }
        notes.push(format!("key {:?}: {message}", key.as_str()));
    }
    let unlisted: Vec<_> =
        header.tensors.keys().filter(|key| !index.weight_map.contains_key(*key)).collect();
    if let Some(key) = unlisted.first() {
        let shard = header
            .tensors
            .get(*key)
            .and_then(|entry| header.files.get(entry.location?.file as usize));
        let shard = shard.map_or("a shard", String::as_str);
        let message =
            format!("{shard} holds it, but the index does not list it{}", and_more(unlisted.len()));
        if options.strict {
            return Err(Error::corrupt(message)
                .at_key(key.as_str())
                .hint("the index belongs to other shards, or is older than they are"));
        }
        notes.push(format!("key {:?}: {message}", key.as_str()));
    }
    let bytes = header.tensors.values().filter_map(|entry| entry.info.nbytes());
    let total: u64 = bytes.fold(0, u64::saturating_add);
    let mut remarks = Vec::new();
    #[allow(clippy::cast_precision_loss)] // the claim may be a float itself
    if let Some(claim) = index.total_size.filter(|claim| *claim != total as f64) {
        let wrong =
            format!("the index says total_size {claim}, but the tensors take {total} bytes");
        // In files that may hold a tensor under two keys, tools count in more than one way.
        if checkpoint.formats().all(|format| format == Format::Safetensors) {
            notes.push(wrong);
        } else {
            remarks.push(Remark::Total { what: wrong });
        }
    }
    checkpoint.header.remarks.extend(remarks);
    checkpoint.notes.extend(notes);
    Ok(())
}

fn and_more(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        count => format!("; and {} more keys like it", count - 1),
    }
}
