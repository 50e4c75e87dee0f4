//! Whether files may be read: not while a journal beside them says that they are being changed in
//! place.
//!
//! A journal stands for its files together, whether one of them or all have been changed so far.
//! Other files of the same directory are no concern of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::JOURNAL;
use super::open::parent;
use super::place::is_remote;
use crate::error::{Error, Result};
use crate::seal::unseal;

/// What a journal names.
#[derive(Deserialize)]
struct Names {
    patches: Vec<Name>,
    index: Option<Name>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

/// Refuses files that a journal beside them names.
///
/// # Errors
/// If there is such a journal, or one that can't be read.
pub(super) fn settled<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<()> {
    let mut directories: BTreeMap<_, Vec<&Path>> = BTreeMap::new();
    for path in paths.filter(|path| !is_remote(path)) {
        directories.entry(parent(path)).or_default().push(path);
    }
    for (directory, paths) in directories {
        let journal = directory.join(JOURNAL);
        let Ok(found) = journal.symlink_metadata() else { continue };
        // What can't be read might name anything.
        let names = if found.is_file() { named(&journal) } else { None };
        let concerned =
            |path: &Path| match (&names, path.file_name().and_then(|name| name.to_str())) {
                (Some(names), Some(name)) => names.contains(name),
                _ => true,
            };
        if paths.into_iter().any(concerned) {
            let error = Error::corrupt("a change in place was interrupted here, or is under way")
                .in_file(&journal);
            return Err(error.hint(format!(
                "run `regraft recover {}`, which completes it or takes it back",
                directory.display()
            )));
        }
    }
    Ok(())
}

fn named(journal: &Path) -> Option<BTreeSet<String>> {
    // A damaged one might name anything, too.
    let names = unseal::<Names>(&std::fs::read(journal).ok()?).ok()?.content;
    Some(names.patches.into_iter().chain(names.index).map(|name| name.name).collect())
}
