//! [`Record`]: what a conversion did that its rules, read backwards, can't know: which keys a
//! one-way rename or a prefix rule changed, and what was dropped or rounded. Written beside an
//! output, it lets the way back restore the names that were there.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::check::Direction;
use crate::diagnostic::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::plan::{Plan, Stage};
use crate::seal::{Broken, seal, unseal};

/// The file that `apply --record` writes into its output directory, and that the way back looks
/// for.
pub const RECORD_FILE: &str = "regraft.json";

/// The largest record that is read, in bytes.
const MAX_RECORD: usize = 256 << 20;

/// What a conversion did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of regraft that made it.
    pub regraft: String,
    /// The rule files, in the order in which they applied.
    pub rules: Vec<RecordedRules>,
    /// `--set name=value`, each value as it is written in rules.
    pub parameters: BTreeMap<String, String>,
    /// Keys that only this record can turn back.
    pub renamed: Vec<Renamed>,
    /// Keys of the checkpoint that are not in the output.
    pub dropped: Vec<Key>,
    /// What can't be turned back: keys that a statement took away or rounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
}

/// A rule file that a conversion used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedRules {
    /// Its name.
    pub name: String,
    /// Which way it was read.
    pub direction: Direction,
    /// BLAKE3 of its text, in hexadecimal.
    pub blake3: String,
}

/// A key that a statement renamed which rules alone don't undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// The rule file.
    pub file: String,
    /// The statement or rule, in one line.
    pub rule: String,
    /// The key before.
    pub from: Key,
    /// The key after.
    pub to: Key,
}

/// A key that a statement took away, or whose tensor it rounded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The rule file.
    pub file: String,
    /// The statement, in one line.
    pub rule: String,
    /// The key, as that statement found it.
    pub key: Key,
}

impl RecordedRules {
    /// What a stage is recorded as.
    pub(super) fn of(stage: &Stage<'_>) -> Self {
        let blake3 = blake3::hash(stage.rules.source.text.as_bytes()).to_hex().to_string();
        Self { name: stage.rules.name.clone(), direction: stage.direction, blake3 }
    }
}

impl Lost {
    /// Whether a statement of a file took it.
    pub(super) fn is_by(&self, place: &Place, text: &str) -> bool {
        self.rule == text && self.file == place.source.name
    }
}

impl Renamed {
    /// Whether a statement of a file made it.
    pub(super) fn is_by(&self, place: &Place, text: &str) -> bool {
        self.rule == text && self.file == place.source.name
    }
}

impl Record {
    /// The record of a plan that these stages gave.
    pub fn of(plan: &Plan, stages: &[Stage<'_>], parameters: BTreeMap<String, String>) -> Self {
        Self {
            regraft: env!("CARGO_PKG_VERSION").to_owned(),
            rules: stages.iter().map(RecordedRules::of).collect(),
            parameters,
            renamed: plan.renamed.clone(),
            dropped: plan.dropped.iter().map(|dropped| dropped.key.clone()).collect(),
            lost: plan.lost.clone(),
        }
    }

    /// The bytes of its file, with a checksum.
    ///
    /// # Errors
    /// If a value of it has no JSON form, which none of a plan's lacks.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        seal(self, true)
            .map_err(|error| Error::corrupt(format!("cannot write the record as JSON: {error}")))
    }

    /// Reads a record from the bytes of its file, which errors name. One without a checksum, as
    /// earlier versions wrote, is read as it is.
    ///
    /// # Errors
    /// If they are no record, or its checksum doesn't fit what it says.
    pub fn from_bytes(bytes: &[u8], file: &Path) -> Result<Self> {
        if bytes.len() > MAX_RECORD {
            return Err(
                Error::new(ErrorKind::Limit, "the record is larger than 256 MiB").in_file(file)
            );
        }
        match unseal(bytes) {
            Ok(read) => Ok(read.content),
            Err(Broken::Foreign(error)) => Err(Error::corrupt(format!("not a record of regraft: {error}")).in_file(file)),
            Err(Broken::Damaged) => Err(Error::corrupt("the record is damaged: its checksum doesn't fit what it says")
                .in_file(file)
                .hint("restore it; if it was changed on purpose take its `blake3` out, and without it move it away: names that only it knows stay")),
        }
    }
}
