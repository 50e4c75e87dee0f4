//! The rule language of regraft for tree-sitter: [`LANGUAGE`], and the queries of editors.

use tree_sitter_language::LanguageFn;

unsafe extern "C" {
    fn tree_sitter_graft() -> *const ();
}

/// The grammar: what tree-sitter's `Parser::set_language` takes, with `into()`.
// SAFETY: the function is the one that tree-sitter generated; it gives a language that is never freed.
pub const LANGUAGE: LanguageFn = unsafe { LanguageFn::from_raw(tree_sitter_graft) };

/// What is coloured, and how.
pub const HIGHLIGHTS: &str = include_str!("../../queries/highlights.scm");

/// What can be folded.
pub const FOLDS: &str = include_str!("../../queries/folds.scm");

/// Where captures and `let`s are defined and used.
pub const LOCALS: &str = include_str!("../../queries/locals.scm");

/// What is indented.
pub const INDENTS: &str = include_str!("../../queries/indents.scm");
