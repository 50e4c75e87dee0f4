//! Files that are told apart by a name before their keys: named by who gives them, or numbered as
//! the files of ranks.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::checkpoint::Checkpoint;
use super::numbered;
use super::open::{OpenOptions, open_one, parent};
use super::place;
use super::sharded::check_inside;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{RankFiles, natural_order};
use crate::tensor::Remark;

/// A path of a checkpoint, and the name that stands before its keys.
///
/// Files that hold equal keys are one checkpoint only if their keys are told apart: the keys of
/// `rank0` are `rank0.norm.weight` and so on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamedPath {
    /// One or more segments that stand before each key; none if the keys are taken as they are.
    pub name: Option<String>,
    /// A file, a directory, an index, or a manifest.
    pub path: PathBuf,
}

impl<P: AsRef<Path>> From<P> for NamedPath {
    fn from(path: P) -> Self {
        Self { name: None, path: path.as_ref().to_owned() }
    }
}

impl NamedPath {
    /// Reads `NAME=PATH`, or a path. What is there as it is written is a path, and so is all that
    /// has something else than letters, digits, `_`, `-` and `.` before the `=`.
    ///
    /// # Errors
    /// If nothing follows the `=`, or the name isn't made of segments.
    pub fn parse(text: impl AsRef<OsStr>) -> Result<Self> {
        let path = Path::new(text.as_ref());
        let is_name = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        let bytes = path.as_os_str().as_encoded_bytes();
        let at = bytes.iter().position(|byte| *byte == b'=');
        let parts = at.and_then(|at| {
            let name = std::str::from_utf8(&bytes[..at]).ok().filter(|name| is_name(name))?;
            // What follows a character of ASCII begins one: the text can be parted there.
            use std::os::unix::ffi::OsStrExt as _;
            Some((name, OsStr::from_bytes(&bytes[at + 1..])))
        });
        let Some((name, file)) = parts.filter(|_| path.symlink_metadata().is_err()) else {
            return Ok(path.into());
        };
        if file.is_empty() {
            let what = format!("`{name}=` names no file");
            return Err(Error::new(ErrorKind::Unsupported, what).hint("write NAME=FILE"));
        }
        let named = Self { name: Some(name.to_owned()), path: file.into() };
        named.checked().map(|()| named)
    }

    /// Whether the name can stand before a key.
    fn checked(&self) -> Result<()> {
        match &self.name {
            Some(name) if name.split('.').any(str::is_empty) => {
                let what =
                    format!("{name:?} can't stand before a key: a name has segments of a key");
                Err(Error::new(ErrorKind::Unsupported, what).hint("write NAME=FILE"))
            }
            _ => Ok(()),
        }
    }
}

/// Opens several as one checkpoint: keys of named ones begin with the name, and where `ranks` says
/// how the files of ranks are called, keys of such files with the rank's number.
///
/// # Errors
/// As [`open_all`](super::open_all); and if a name or a rank is given twice, or a name isn't made of
/// segments.
pub fn open_named(
    sources: &[NamedPath],
    ranks: Option<&RankFiles>,
    options: &OpenOptions,
) -> Result<Checkpoint> {
    sources.iter().try_for_each(NamedPath::checked)?;
    let sources = &place::pinned(sources)?;
    let mut names: Vec<&str> = sources.iter().filter_map(|one| one.name.as_deref()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        let what = format!("the name `{}` is given twice", twice[0]);
        return Err(Error::new(ErrorKind::Unsupported, what)
            .hint("give several files one name as a directory, or each its own"));
    }
    let mut opened: Option<Checkpoint> = None;
    for source in sources {
        let one = match (&source.name, ranks) {
            (Some(name), _) => open_one(&source.path, options)?.under(name),
            (None, Some(ranks)) => open_ranks(&source.path, ranks, options)?,
            (None, None) => open_one(&source.path, options)?,
        };
        match &mut opened {
            Some(checkpoint) => checkpoint.join(one)?,
            None => opened = Some(one),
        }
    }
    let left = match ranks {
        Some(ranks) => left_beside(sources, ranks),
        None => Vec::new(),
    };
    let mut checkpoint =
        opened.ok_or_else(|| Error::new(ErrorKind::Unsupported, "no checkpoint is given"))?;
    // Of a directory, what is not there is missing; files that are named are those that are meant.
    if checkpoint.indexes.is_empty()
        && checkpoint.has_bytes
        && sources.iter().all(|one| !place::is_directory(&one.path).unwrap_or_default())
    {
        checkpoint.header.remarks.extend(numbered::part(&checkpoint.header.files));
    }
    checkpoint.header.remarks.extend(left);
    Ok(checkpoint)
}

/// What of the files of ranks lies beside those that are given by name, and isn't given.
fn left_beside(sources: &[NamedPath], ranks: &RankFiles) -> Vec<Remark> {
    let mut given: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for source in sources
        .iter()
        .filter(|source| source.name.is_none() && place::is_file(&source.path).unwrap_or_default())
    {
        let name = source.path.file_name().and_then(OsStr::to_str);
        if let Some(name) = name.filter(|name| ranks.numbers(name).is_some()) {
            given.entry(parent(&source.path)).or_default().insert(name.to_owned());
        }
    }
    let mut left = Vec::new();
    for (directory, given) in given {
        // Who gives files by name has chosen among those of one number.
        let Ok((there, _)) = files_of(&directory, ranks) else { continue };
        let others: Vec<String> =
            there.into_values().filter(|name| !given.contains(name)).collect();
        if let (Some(file), false) = (given.into_iter().next(), others.is_empty()) {
            left.push(Remark::Ranks { file, others });
        }
    }
    left
}

/// Opens a file of a rank, or those of a directory; anything else as it is.
fn open_ranks(path: &Path, ranks: &RankFiles, options: &OpenOptions) -> Result<Checkpoint> {
    if !place::is_directory(path)? {
        let name = path.file_name().and_then(OsStr::to_str);
        let one = open_one(path, options)?;
        return Ok(match name.and_then(|name| ranks.numbers(name)) {
            Some(numbers) => one.under(&RankFiles::before(&numbers)),
            None => one,
        });
    }
    let (files, others) = files_of(path, ranks)?;
    // As with the files of one checkpoint: their headers are read side by side.
    let files: Vec<(Vec<u64>, String)> = files.into_iter().collect();
    let read = files.par_iter().map(|(numbers, name)| {
        check_inside(path, name, options)?;
        Ok(open_one(&path.join(name), options)?.under(&RankFiles::before(numbers)))
    });
    let read: Vec<Result<Checkpoint>> = read.collect();
    let mut opened: Option<Checkpoint> = None;
    for one in read {
        match &mut opened {
            Some(checkpoint) => checkpoint.join(one?)?,
            None => opened = Some(one?),
        }
    }
    let Some(mut checkpoint) = opened else {
        let mut whole = open_one(path, options)?;
        whole.notes.push(format!(
            "no file of {} is named {ranks}: what is there is read with its keys as they are",
            path.display()
        ));
        return Ok(whole);
    };
    checkpoint.ignored.extend(others.into_iter().map(|name| path.join(name)));
    Ok(checkpoint)
}

/// Files by the numbers in their names.
type ByNumbers = BTreeMap<Vec<u64>, String>;

/// The files of ranks in a directory by their numbers, and what else looks like weights.
fn files_of(directory: &Path, ranks: &RankFiles) -> Result<(ByNumbers, Vec<String>)> {
    let (mut found, mut others) = (ByNumbers::new(), Vec::new());
    for name in place::names(directory)? {
        let Some(numbers) = ranks.numbers(&name) else {
            if name.ends_with(".safetensors") && !name.starts_with('.') {
                others.push(name);
            }
            continue;
        };
        if let Some(other) = found.insert(numbers.clone(), name.clone()) {
            let mut both = [other, name];
            both.sort();
            let which = RankFiles::before(&numbers);
            let what = format!("rank {which} is there twice: {} and {}", both[0], both[1]);
            return Err(Error::new(ErrorKind::Unsupported, what)
                .in_file(directory)
                .hint("move one of them away, or give the files by name"));
        }
    }
    others.sort_by(|a, b| natural_order(a, b));
    Ok((found, others))
}
