//! Arguments that are checkpoints: a path, or `NAME=PATH` for one whose keys begin with the name.

use clap::builder::{OsStringValueParser, TypedValueParser};
use regraft::store::NamedPath;

/// Reads a checkpoint's argument.
pub(super) fn named_path() -> impl TypedValueParser<Value = NamedPath> {
    OsStringValueParser::new().try_map(NamedPath::parse)
}
