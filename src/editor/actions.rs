//! Code actions: what findings ask to change, for an editor to do.

use super::Document;
use crate::diagnostic::{Diagnostic, Span};

/// A change of the text that an editor offers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Action {
    /// What it does, in a few words.
    pub title: String,
    /// The bytes that go.
    pub span: Span,
    /// What stands there instead.
    pub text: String,
    /// Whether it is the only change that its finding asks for.
    pub preferred: bool,
}

impl Document {
    /// The changes of this text that a finding asks for.
    pub fn actions(&self, finding: &Diagnostic) -> Vec<Action> {
        let here = |fix: &&crate::diagnostic::Fix| {
            self.is_mine(&fix.place.source) && self.text().get(fix.place.span.range()).is_some()
        };
        let preferred = finding.fixes.len() == 1;
        let action = |fix: &crate::diagnostic::Fix| {
            let old = self.slice(fix.place.span);
            let title = match (old, fix.text.trim()) {
                ("", new) => format!("add `{new}`"),
                (old, "") => format!("leave out `{old}`"),
                (old, new) => format!("change `{old}` to `{new}`"),
            };
            Action { title, span: fix.place.span, text: fix.text.clone(), preferred }
        };
        finding.fixes.iter().filter(here).map(action).collect()
    }
}
