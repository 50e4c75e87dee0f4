//! What is in a folder far away, and whole documents.

use std::io::Read as _;

use super::http::{self, Refusal, Request, Trouble};
use super::retry::{Interrupts, Tries};
use crate::error::{Error, ErrorKind, Result};

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Kind {
    File,
    Folder,
}

/// Whether a name that a server gave can stand for a file: it leads nowhere else.
pub(super) fn is_plain(name: &str) -> bool {
    !name.contains(['\\', '\0']) && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// What a path is, among files by name.
pub(super) fn kind_among(files: &[String], path: &str) -> Option<Kind> {
    let is_below = |name: &String| {
        path.is_empty() || name.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
    };
    if files.iter().any(|name| name == path) {
        Some(Kind::File)
    } else {
        files.iter().any(is_below).then_some(Kind::Folder)
    }
}

/// The names of the files that lie in a folder, and not deeper.
pub(super) fn names_in(files: &[String], folder: &str) -> Vec<String> {
    let below = |name: &String| -> Option<String> {
        let rest = match folder {
            "" => name,
            folder => name.strip_prefix(folder)?.strip_prefix('/')?,
        };
        (!rest.contains('/')).then(|| rest.to_owned())
    };
    files.iter().filter_map(below).collect()
}

/// Reads a whole document. `learn` says whether a refusal tells how to ask better.
///
/// # Errors
/// If it can't be had, or is longer than `limit` bytes.
pub(super) fn document(
    address: &str,
    request: &dyn Fn() -> Result<Request>,
    learn: impl Fn(&Refusal) -> bool,
    limit: u64,
) -> Result<Vec<u8>> {
    let interrupts = Interrupts::default();
    let mut tries = Tries::new(address, &interrupts);
    loop {
        match try_document(&request()?, limit) {
            Ok(bytes) if bytes.len() as u64 > limit => {
                return Err(Error::new(ErrorKind::Limit, "the answer is too long").in_file(address));
            }
            Ok(bytes) => return Ok(bytes),
            Err(Trouble::Status(refusal)) if learn(&refusal) => {}
            Err(trouble) => tries.again(trouble)?,
        }
    }
}

fn try_document(request: &Request, limit: u64) -> std::result::Result<Vec<u8>, Trouble> {
    let mut answer = http::ask(request)?;
    let mut bytes = Vec::new();
    let mut reader = answer.response.body_mut().as_reader().take(limit.saturating_add(1));
    reader.read_to_end(&mut bytes).map_err(|_| {
        Trouble::Passing(Error::new(ErrorKind::Io, "the connection broke within an answer"), None)
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_what_files_lie_in() {
        let files = ["a", "b/c", "b/d/e", "bc"].map(str::to_owned);
        assert_eq!(kind_among(&files, ""), Some(Kind::Folder));
        assert_eq!(kind_among(&files, "a"), Some(Kind::File));
        assert_eq!(kind_among(&files, "b"), Some(Kind::Folder));
        assert_eq!(kind_among(&files, "b/d"), Some(Kind::Folder));
        assert_eq!(kind_among(&files, "c"), None);
        assert_eq!(names_in(&files, ""), ["a", "bc"]);
        assert_eq!(names_in(&files, "b"), ["c"]);
        assert_eq!(names_in(&files, "b/d"), ["e"]);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        for name in ["../a", "a//b", "/a", "a/./b", "a\\b", ""] {
            assert!(!is_plain(name), "{name}");
        }
        assert!(is_plain("a/b.c"));
    }
}
