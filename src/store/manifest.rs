//! [`Wanted`], the keys that a target asks for, read from files.

use std::path::Path;

use super::Store;
use super::alone::Content;
use super::json::{self, Kind, MAX_KEY_LEN};
use super::open::{Listing, OpenOptions, content, open, parent};
use super::place;
use super::sharded::shards;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::tensor::Wanted;

impl Wanted {
    /// Reads the keys that a target asks for: from a checkpoint or a manifest with dtypes and
    /// shapes; from an index, whose shards need not be there, a JSON list, or a text with one key a
    /// line (empty lines and lines that begin with `#` are skipped) the keys alone.
    ///
    /// # Errors
    /// If the file can't be read, breaks a rule of its format, names a key twice, or names none.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = &place::pinned_path(path.as_ref())?;
        let wanted = read(path)?;
        if wanted.keys.is_empty() {
            return Err(Error::corrupt("it names no key").in_file(path));
        }
        Ok(wanted)
    }
}

fn read(path: &Path) -> Result<Wanted> {
    let here = |error: Error| error.in_file(path);
    let whole =
        || open(path, &OpenOptions::default()).map(|checkpoint| Wanted::from(checkpoint.header()));
    if place::is_directory(path)? {
        return match Listing::read(path)?.index()? {
            Some(index) => read(&path.join(index)),
            None => whole(),
        };
    }
    match content(path)? {
        Content::Tensors | Content::Json(Kind::Manifest | Kind::Wrapped, _) => whole(),
        Content::Json(Kind::Index, text) => {
            let index = json::index(&text).map_err(here)?;
            let directory = parent(path);
            let names = shards(&index).map_err(here)?;
            if names.iter().all(|name| place::there(&directory.join(name)).is_ok()) {
                return whole();
            }
            Ok(Wanted::from_keys(index.weight_map.into_keys()))
        }
        Content::Json(Kind::List, text) => json::list(&text).map(Wanted::from_keys).map_err(here),
        Content::Text(text) => lines(&text).map_err(here),
    }
}

fn lines(text: &str) -> Result<Wanted> {
    let mut wanted = Wanted::default();
    for (i, line) in text.lines().enumerate() {
        let key = line.trim();
        if key.is_empty() || key.starts_with('#') {
            continue;
        }
        if key.len() > MAX_KEY_LEN {
            return Err(Error::new(
                ErrorKind::Limit,
                format!(
                    "line {} has {} bytes; the limit of a key is {MAX_KEY_LEN}",
                    i + 1,
                    key.len()
                ),
            ));
        }
        if wanted.keys.insert(Key::from(key), None).is_some() {
            return Err(Error::corrupt(format!("the key is there twice, again in line {}", i + 1))
                .at_key(key));
        }
    }
    Ok(wanted)
}
