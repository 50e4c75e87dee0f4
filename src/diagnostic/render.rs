//! Diagnostics as text for people, with annotate-snippets.
//!
//! Spans are clamped to their text and widened to whole characters first, so that no diagnostic can
//! make rendering fail.

use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::plain::one_line;
use super::{Diagnostic, Place, Severity, SourceText};

/// How many keys are shown.
const KEYS: usize = 5;

/// Characters up to which the keys stand on one line.
const ONE_LINE: usize = 80;

/// Renders one diagnostic over several lines, the last of which ends in a newline; with escape
/// sequences for a terminal if `colour`.
pub fn render(diagnostic: &Diagnostic, colour: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Note => Level::NOTE,
        Severity::Warning => Level::WARNING,
        Severity::Error => Level::ERROR,
    };
    let code = diagnostic.code.to_string();
    let mut group = Group::with_title(level.primary_title(one_line(&diagnostic.message)).id(code));
    for (source, marks) in by_source(diagnostic) {
        let mut snippet =
            Snippet::source(source.text.as_str()).path(one_line(&source.name)).fold(true);
        for (primary, range, label) in marks {
            let kind = if primary { AnnotationKind::Primary } else { AnnotationKind::Context };
            let label = (!label.is_empty()).then(|| one_line(label));
            snippet = snippet.annotation(kind.span(range).label(label));
        }
        group = group.element(snippet);
    }
    for (place, label) in told(diagnostic) {
        let label = if label.is_empty() { String::new() } else { format!(" {label}") };
        let at = format!("{}:{}:{}{label}", place.source.name, place.line(), place.column());
        group = group.element(Level::NOTE.with_name("at").message(one_line(&at).into_owned()));
    }
    if let Some(keys) = keys(&diagnostic.keys) {
        group = group.element(Level::NOTE.with_name("keys").message(keys));
    }
    for hint in &diagnostic.hints {
        group = group.element(Level::HELP.message(one_line(hint)));
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let text = renderer.render(&[group]);
    // Without rule text to show, the renderer still leaves an empty margin for it under the title.
    let has_text = places(diagnostic).any(|(_, (place, _))| place.has_text());
    let margin = |at: usize, line: &str| !has_text && at == 1 && plain(line).trim() == "|";
    let mut out = String::with_capacity(text.len() + 1);
    for (_, line) in text.lines().enumerate().filter(|(at, line)| !margin(*at, line)) {
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// A line without the escape sequences that colour it, which end in `m`.
fn plain(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default();
    parts.fold(first.to_owned(), |text, part| {
        text + part.split_once('m').map_or(part, |(_, rest)| rest)
    })
}

/// Renders several diagnostics, with an empty line between them.
pub fn render_all(diagnostics: &[Diagnostic], colour: bool) -> String {
    diagnostics.iter().map(|diagnostic| render(diagnostic, colour)).collect::<Vec<_>>().join("\n")
}

/// Its places and what is said there, the primary one first.
fn places(diagnostic: &Diagnostic) -> impl Iterator<Item = (bool, &(Place, String))> {
    let labels = diagnostic.labels.iter().map(|place| (false, place));
    diagnostic.primary.iter().map(|place| (true, place)).chain(labels)
}

/// The places of which only file, line and column are known, since they were read from JSON.
fn told(diagnostic: &Diagnostic) -> impl Iterator<Item = &(Place, String)> {
    places(diagnostic).map(|(_, place)| place).filter(|(place, _)| !place.has_text())
}

type Mark<'d> = (bool, Range<usize>, &'d str);

/// The places of a diagnostic, grouped by the text they point into; the primary's text first.
fn by_source(diagnostic: &Diagnostic) -> Vec<(&Arc<SourceText>, Vec<Mark<'_>>)> {
    let mut sources: Vec<(&Arc<SourceText>, Vec<Mark<'_>>)> = Vec::new();
    for (primary, (place, label)) in places(diagnostic).filter(|(_, (place, _))| place.has_text()) {
        let mark = (primary, range(place), label.as_str());
        match sources
            .iter_mut()
            .find(|(source, _)| Arc::ptr_eq(source, &place.source) || **source == place.source)
        {
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
    let shown: Vec<String> = keys.iter().take(KEYS).map(|key| one_line(key).into_owned()).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::{Span, codes};

    fn place(text: &str, start: u32, end: u32) -> Place {
        Place::new(
            Arc::new(SourceText { name: "a.graft".to_owned(), text: text.to_owned() }),
            Span { start, end },
        )
    }

    #[test]
    fn code_places_keys_and_hints_are_shown() {
        let other = Place::new(
            Arc::new(SourceText { name: "b.graft".to_owned(), text: "drop \"q\"".to_owned() }),
            Span { start: 5, end: 8 },
        );
        let diagnostic = Diagnostic::error(codes::COLLISION, "two sources give one key")
            .at(place("drop \"a\"\nkeep \"b\"\n", 14, 17), "this one")
            .label(place("drop \"a\"\nkeep \"b\"\n", 5, 8), "and this")
            .label(other, "in another file")
            .keys((0..31).map(|i| format!("k.{i}")))
            .hint("drop one");
        let text = render(&diagnostic, false);
        for part in [
            "error[RG301]: two sources give one key",
            "a.graft:2:6",
            "^^^ this one",
            "--- and this",
            "b.graft:1:6",
            "in another file",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(text.contains("= keys: k.0, k.1, k.2, k.3, k.4 and 26 more"), "{text}");
        assert!(text.contains("= help: drop one"), "{text}");
        assert!(text.ends_with('\n') && !text.contains('\u{1b}'));
        assert!(render(&diagnostic, true).contains('\u{1b}'));
    }

    /// A finding that was read from JSON says where it is, and equals the one that was written.
    #[test]
    fn a_finding_that_was_read_says_where_it_is() {
        let written = Diagnostic::error(codes::COLLISION, "two sources give one key")
            .at(place("# é\ndrop \"a\"\n", 10, 13), "this one")
            .keys(["a"]);
        let read: Diagnostic =
            serde_json::from_str(&serde_json::to_string(&written).unwrap()).unwrap();
        assert_eq!(read, written);
        let text = render(&read, false);
        assert!(text.contains("at: a.graft:2:6 this one") && !text.contains("-->"), "{text}");
    }

    #[test]
    fn long_keys_stand_on_lines_of_their_own() {
        let keys = (0..6).map(|i| format!("model.layers.{i}.self_attn.q_proj.weight"));
        let text =
            render(&Diagnostic::warning(codes::MISSING_KEY, "keys are missing").keys(keys), false);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert!(
            lines.contains(&"model.layers.4.self_attn.q_proj.weight")
                && lines.contains(&"and 1 more"),
            "{text}"
        );
        assert!(!text.contains("layers.5"));
    }

    #[test]
    fn without_rule_text_there_is_no_empty_margin() {
        let diagnostic = Diagnostic::error(codes::COLLISION, "two").keys(["a"]).hint("drop one");
        let lines: Vec<String> = render(&diagnostic, false).lines().map(str::to_owned).collect();
        assert_eq!(lines, ["error[RG301]: two", " = keys: a", " = help: drop one"]);
        let coloured = render(&diagnostic, true);
        assert_eq!(coloured.lines().map(plain).collect::<Vec<_>>(), lines);
    }

    #[test]
    fn no_place_no_trouble() {
        assert_eq!(
            render(&Diagnostic::note(codes::DROPPED, "a key was dropped"), false),
            "note[RG311]: a key was dropped\n"
        );
    }

    #[test]
    fn spans_out_of_bounds_and_inside_characters_are_clamped() {
        for text in ["", "é", "é\né", "a\r\n", "\u{FEFF}drop", "\t\u{0}"] {
            for start in 0..8 {
                for end in 0..8 {
                    render(
                        &Diagnostic::error(codes::SYNTAX, "m")
                            .at(place(text, start, end), "l")
                            .label(place(text, end, u32::MAX), "k"),
                        false,
                    );
                }
            }
        }
    }

    #[test]
    fn control_characters_of_keys_are_escaped() {
        let text = render(
            &Diagnostic::note(codes::DROPPED, "a \u{1b}[31m key").keys(["k\u{1b}[2J", "a\nb"]),
            false,
        );
        assert!(!text.contains('\u{1b}') && text.contains("a\\nb"), "{text}");
    }

    #[test]
    fn a_place_in_json_has_line_and_column() {
        let json = serde_json::to_value(place("é\néx", 5, 6)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"file": "a.graft", "start": 5, "end": 6, "line": 2, "column": 2})
        );
        let json =
            serde_json::to_value(Diagnostic::error(codes::SYNTAX, "m").at(place("x", 0, 9), "l"))
                .unwrap();
        assert_eq!(json["primary"][0]["line"], 1);
        assert_eq!(json["code"], "RG101");
    }
}
