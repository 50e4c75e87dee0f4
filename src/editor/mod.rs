//! What an editor asks of a rule file while it is written, as pure functions: from a text, the
//! facts at hand and an offset to an answer in bytes of the text.
//!
//! Nothing here knows a protocol, a terminal or a file: `cli::lsp` speaks to editors and opens what
//! a text [pins](Pins). A text may be as broken as texts are that someone types; what can't be
//! known of it is left out.

mod actions;
mod complete;
mod docs;
mod facts;
mod hover;
mod keys;
mod lens;
mod names;
mod outline;
mod tokens;
mod walk;

use std::sync::Arc;

use crate::check::{Includes, Rules, check_partly};
use crate::diagnostic::{Diagnostic, SourceText, Span};
use crate::syntax::{self, Parsed, Token};

pub use actions::Action;
pub use complete::{Completion, CompletionKind};
pub use facts::{Facts, Outcome, Pins};
pub use hover::Hover;
pub use lens::{Inlay, Lens};
pub use names::{Definition, NoRename};
pub use outline::{Fold, Symbol, SymbolKind};
pub use tokens::{TokenClass, classes, words};

use names::Names;

/// A rule file as it is being written, with what can be known of it by itself.
#[derive(Debug)]
pub struct Document {
    parsed: Parsed,
    rules: Rules,
    tokens: Vec<Token>,
    names: Names,
}

impl Document {
    /// Reads a text, and what it uses.
    pub fn new(source: Arc<SourceText>, includes: &dyn Includes) -> Self {
        let tokens = syntax::tokens(&source.text);
        let parsed = syntax::parse(source);
        let rules = check_partly(&parsed, includes);
        let names = Names::of(&parsed);
        Self { parsed, rules, tokens, names }
    }

    /// The text.
    pub fn source(&self) -> &Arc<SourceText> {
        &self.parsed.source
    }

    /// The rules that are sound.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Everything that is wrong with it, or worth a remark, by itself.
    pub fn findings(&self) -> &[Diagnostic] {
        &self.rules.findings
    }

    /// Whether nothing is wrong, so that the rules mean what their author meant.
    pub fn is_sound(&self) -> bool {
        !self.findings().iter().any(Diagnostic::is_error)
    }

    /// The text in the one layout; nothing if it doesn't parse.
    pub fn formatted(&self) -> Option<String> {
        self.parsed.diagnostics.is_empty().then(|| syntax::print(&self.parsed.file))
    }

    /// Whether a text is this one, and not one that it uses, or this one as it was.
    pub fn is_mine(&self, source: &Arc<SourceText>) -> bool {
        Arc::ptr_eq(source, self.source()) || source == self.source()
    }

    fn text(&self) -> &str {
        &self.parsed.source.text
    }

    fn slice(&self, span: Span) -> &str {
        self.text().get(span.range()).unwrap_or_default()
    }

    /// The token that an offset is in, or that ends there; where two meet, the second.
    fn token_at(&self, offset: usize) -> Option<Token> {
        let after = self.tokens.partition_point(|token| (token.span.start as usize) <= offset);
        let token = *self.tokens.get(after.checked_sub(1)?)?;
        ((token.span.end as usize) >= offset).then_some(token)
    }
}

/// Whether an offset is in a span, or at its end.
fn touches(span: Span, offset: usize) -> bool {
    (span.start as usize) <= offset && offset <= (span.end as usize)
}

/// An offset as a span says it.
fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
