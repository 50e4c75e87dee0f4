//! What a rule file pins: checkpoints are opened, and kept open for as long as nothing was saved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use regraft::check::value::Value;
use regraft::config::Config;
use regraft::conversion::{config_beside, read_config};
use regraft::diagnostic::Span;
use regraft::editor::{Facts, Pins};
use regraft::store::{Checkpoint, OpenOptions, Store, is_remote, open_named, pinned};

use crate::cli::conversion::parameter;

/// What was opened, by the text of the pins and the folder that they are relative to.
#[derive(Default)]
pub(super) struct Pinned {
    known: BTreeMap<(PathBuf, String), Loaded>,
}

/// The facts behind pins, and what is wrong with them.
#[derive(Clone, Default)]
pub(super) struct Loaded {
    pub(super) facts: Arc<Facts>,
    pub(super) failed: Vec<(Span, String)>,
}

impl Pinned {
    /// What files say may have changed.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// The facts that a file in a folder pins.
    pub(super) fn load(&mut self, folder: &Path, pins: &Pins) -> Loaded {
        if *pins == Pins::default() {
            return Loaded::default();
        }
        let key = (folder.to_owned(), format!("{pins:?}"));
        self.known.entry(key).or_insert_with(|| loaded(folder, pins)).clone()
    }
}

/// Where a pinned path leads: it is relative to the file's folder, and an address is none.
fn place(folder: &Path, path: &str) -> PathBuf {
    if is_remote(path) { PathBuf::from(path) } else { folder.join(path) }
}

/// A checkpoint; of a revision, the commit that it is now, for as long as it is kept open.
fn opened(path: &Path) -> regraft::error::Result<Checkpoint> {
    let pinned = pinned(&[path.into()])?;
    open_named(&pinned, None, &OpenOptions::default())
}

fn loaded(folder: &Path, pins: &Pins) -> Loaded {
    let mut failed = Vec::new();
    let (mut header, mut config) = (None, Config::empty());
    if let Some((span, path)) = &pins.checkpoint {
        match opened(&place(folder, path)) {
            Ok(checkpoint) => {
                match config_beside(&checkpoint) {
                    Ok(beside) => config = beside,
                    Err(error) => failed.push((*span, error.to_string())),
                }
                header = Some(Arc::new(checkpoint.header().clone()));
            }
            Err(error) => failed.push((*span, error.to_string())),
        }
    }
    if let Some((span, path)) = &pins.config {
        match read_config(place(folder, path)) {
            Ok(read) => config = read,
            Err(error) => failed.push((*span, error.to_string())),
        }
    }
    let mut parameters: IndexMap<String, Value> = IndexMap::new();
    for (span, text) in &pins.set {
        match parameter(text) {
            Ok((name, value)) => drop(parameters.insert(name, value)),
            Err(why) => failed.push((*span, why)),
        }
    }
    Loaded { facts: Arc::new(Facts::new(header, config, parameters)), failed }
}
