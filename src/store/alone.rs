//! Files that are bytes and nothing else: what each is, by its content, and the header of some that
//! belong together. A browser has no more of the files that are dropped on it.

use std::path::Path;

use indexmap::map::Entry as Slot;

use super::archive::Window;
use super::format;
use super::json::{self, Index, Kind};
use super::safetensors::{HEAD, MAX_HEADER_LEN, foreign, whole_bytes};
use crate::config::BYTE_ORDER_MARK;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::tensor::{Entry, Header, Location};

/// The largest JSON document (index or manifest) that is read, in bytes.
const MAX_JSON_LEN: u64 = 1 << 30;

/// What a file's content says it is.
pub(super) enum Content {
    /// A file of tensors, or something that only its reader can complain about.
    Tensors,
    /// A JSON document, with its text.
    Json(Kind, String),
    /// Other text.
    Text(String),
}

/// Tells what a file is, by its content; by its name only where it says `.safetensors`.
///
/// # Errors
/// If it is nothing that is read.
pub(super) fn content_of(name: &Path, file: Window<'_>) -> Result<Content> {
    if name.extension().is_some_and(|extension| extension == "safetensors") {
        return Ok(Content::Tensors);
    }
    let mut bytes = file.head(HEAD)?;
    if let Some((header_len, b"{")) =
        bytes.get(..9).and_then(|start| start.split_first_chunk::<8>())
        && u64::from_le_bytes(*header_len) <= MAX_HEADER_LEN
    {
        return Ok(Content::Tensors);
    }
    if format::of_head(&bytes).is_some() {
        return Ok(Content::Tensors);
    }
    if let Some(error) = foreign(&bytes) {
        return Err(error);
    }
    let neither = || {
        Error::new(ErrorKind::Unsupported, "neither safetensors nor JSON")
            .hint("regraft reads safetensors")
    };
    if bytes.contains(&0) {
        return Err(neither());
    }
    let len = file.len();
    if len > MAX_JSON_LEN {
        let error = Error::new(
            ErrorKind::Limit,
            format!("the file has {len} bytes; an index or manifest may have {MAX_JSON_LEN}"),
        );
        return Err(error.hint("is this a safetensors file? then its name should say so"));
    }
    bytes = file.head(len)?;
    // Editors of one system put a byte order mark before text.
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    let text = String::from_utf8(bytes).map_err(|_| neither())?;
    let is_json = name.extension().is_some_and(|extension| extension == "json")
        || text.trim_start().starts_with(['{', '[']);
    if !is_json {
        return Ok(Content::Text(text));
    }
    Ok(Content::Json(json::kind(&text)?, text))
}

/// Reads a manifest's text.
pub(super) fn manifest(text: &str, wrapped: bool) -> Result<Header> {
    let table = json::manifest(text, wrapped, |(info, _)| Entry { info, location: None })?;
    for (key, entry) in &table.rows {
        whole_bytes(&entry.info).map_err(|error| error.at_key(key.as_str()))?;
    }
    Ok(Header { tensors: table.rows, metadata: table.metadata, ..Header::default() })
}

/// The header of files that are one checkpoint, each with its name: safetensors, what `torch.save`
/// or NumPy write, or manifests. An index among them says which files there have to be.
///
/// No byte but those of headers is read.
///
/// # Errors
/// If a file is none of these or breaks a rule of its format, if a key is in two of them, or if
/// files that an index names aren't there.
pub fn header_of(files: &[(&str, Window<'_>)]) -> Result<Header> {
    let (mut header, mut indexes) = (Header::default(), Vec::new());
    for (name, window) in files {
        let here = |error: Error| error.in_file(name);
        match content_of(Path::new(name), *window).map_err(here)? {
            Content::Tensors => add(&mut header, name, *window).map_err(here)?,
            Content::Json(kind @ (Kind::Manifest | Kind::Wrapped), text) => {
                let read = manifest(&text, kind == Kind::Wrapped).map_err(here)?;
                header.metadata.extend(read.metadata);
                for (key, entry) in read.tensors {
                    put(&mut header, key, entry).map_err(here)?;
                }
            }
            Content::Json(Kind::Index, text) => {
                indexes.push((*name, json::index(&text).map_err(here)?));
            }
            Content::Json(Kind::List, _) | Content::Text(_) => {
                let error = Error::new(
                    ErrorKind::Unsupported,
                    "not a checkpoint: neither safetensors nor a manifest with dtypes and shapes",
                );
                return Err(here(error));
            }
        }
    }
    for (name, index) in indexes {
        complete(&index, files).map_err(|error| error.in_file(name))?;
    }
    Ok(header)
}

/// Adds what a file of tensors holds.
fn add(header: &mut Header, name: &str, window: Window<'_>) -> Result<()> {
    let (_, contents) = format::read(name, window, None)?;
    let file = u32::try_from(header.files.len())
        .map_err(|_| Error::new(ErrorKind::Limit, "more files than can be counted"))?;
    header.files.push(name.to_owned());
    for (key, (info, [begin, end])) in contents.tensors {
        let run = !contents.parts.contains_key(&key);
        let location = run.then_some(Location { file, offset: begin, len: end - begin });
        put(header, key, Entry { info, location })?;
    }
    header.shared.extend(contents.shared);
    header.remarks.extend(contents.remarks);
    for (field, value) in contents.metadata {
        header.metadata.entry(field).or_insert(value);
    }
    Ok(())
}

fn put(header: &mut Header, key: Key, entry: Entry) -> Result<()> {
    match header.tensors.entry(key) {
        Slot::Vacant(slot) => {
            slot.insert(entry);
            Ok(())
        }
        Slot::Occupied(slot) => {
            Err(Error::corrupt("the key is in another file too").at_key(slot.key().as_str()))
        }
    }
}

/// That all files of an index are there.
fn complete(index: &Index, files: &[(&str, Window<'_>)]) -> Result<()> {
    let mut missing: Vec<&str> = index
        .weight_map
        .values()
        .map(String::as_str)
        .filter(|named| files.iter().all(|(name, _)| name != named))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    let Some(first) = missing.first() else { return Ok(()) };
    let more = match missing.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let what = format!("it names {first}{more}, which is not among the files");
    Err(Error::new(ErrorKind::Unsupported, what).hint(
        "an index has no dtypes and shapes: give the files that it names with it; only their headers are read",
    ))
}
