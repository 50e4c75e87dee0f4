//! Diagnostics as text for people, with annotate-snippets.
//!
//! Spans are clamped to their text and widened to whole characters first, so that no diagnostic can make rendering fail.

use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Place, Severity, SourceText};

/// How many keys are shown.
const KEYS: usize = 5;

/// Characters up to which the keys stand on one line.
const ONE_LINE: usize = 80;

/// One diagnostic, over several lines, ending in a newline; with colour if `colour`.
pub fn render(diagnostic: &Diagnostic, colour: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Note => Level::NOTE,
        Severity::Warning => Level::WARNING,
        Severity::Error => Level::ERROR,
    };
    let code = diagnostic.code.to_string();
    let mut group = Group::with_title(level.primary_title(one_line(&diagnostic.message)).id(code));
    for (source, marks) in by_source(diagnostic) {
        let mut snippet = Snippet::source(source.text.as_str()).path(source.name.as_str()).fold(true);
        for (primary, range, label) in marks {
            let kind = if primary { AnnotationKind::Primary } else { AnnotationKind::Context };
            let label = (!label.is_empty()).then(|| one_line(label));
            snippet = snippet.annotation(kind.span(range).label(label));
        }
        group = group.element(snippet);
    }
    if let Some(keys) = keys(&diagnostic.keys) {
        group = group.element(Level::NOTE.with_name("keys").message(keys));
    }
    for hint in &diagnostic.hints {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut text = renderer.render(&[group]);
    text.push('\n');
    text
}

/// Several, with an empty line between them.
pub fn render_all(diagnostics: &[Diagnostic], colour: bool) -> String {
    diagnostics.iter().map(|diagnostic| render(diagnostic, colour)).collect::<Vec<_>>().join("\n")
}

type Mark<'d> = (bool, Range<usize>, &'d str);

/// The places of a diagnostic, grouped by the text they point into; the primary's text first.
fn by_source(diagnostic: &Diagnostic) -> Vec<(&Arc<SourceText>, Vec<Mark<'_>>)> {
    let mut sources: Vec<(&Arc<SourceText>, Vec<Mark<'_>>)> = Vec::new();
    let primary = diagnostic.primary.iter().map(|place| (true, place));
    for (primary, (place, label)) in primary.chain(diagnostic.labels.iter().map(|place| (false, place))) {
        let mark = (primary, range(place), label.as_str());
        match sources.iter_mut().find(|(source, _)| Arc::ptr_eq(source, &place.source) || **source == place.source) {
            Some((_, marks)) => marks.push(mark),
            None => sources.push((&place.source, vec![mark])),
        }
    }
    sources
}

/// The span of a place as a range that its text certainly has.
fn range(place: &Place) -> Range<usize> {
    let text = &place.source.text;
    let mut start = (place.span.start as usize).min(text.len());
    let mut end = (place.span.end as usize).clamp(start, text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// The first keys and how many more there are: on one line if that is short, else one a line.
fn keys(keys: &[String]) -> Option<String> {
    let shown: Vec<String> = keys.iter().take(KEYS).map(|key| one_line(key)).collect();
    let more = keys.len().saturating_sub(KEYS);
    if shown.is_empty() {
        return None;
    }
    let line = shown.join(", ");
    let rest = if more > 0 { format!("and {more} more") } else { String::new() };
    if line.chars().count() + rest.len() <= ONE_LINE {
        return Some(if more > 0 { format!("{line} {rest}") } else { line });
    }
    let mut lines = shown;
    if more > 0 {
        lines.push(rest);
    }
    Some(lines.join("\n"))
}

/// Keys and messages may hold anything; a control character must not reach the terminal.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}
