//! Findings as an editor shows them: where they are in the text that is open, and what explains
//! them elsewhere.

use regraft::diagnostic::{Diagnostic, Place, Severity, Span};
use serde_json::{Value, json};

use super::opened::Opened;
use super::text::{Lines, uri_of};

/// Keys of a finding that are shown.
const KEYS: usize = 5;

/// A finding of a text.
pub(super) fn shown(opened: &Opened, uri: &str, finding: &Diagnostic) -> Value {
    let span = opened.first_line(span_of(opened, finding));
    let severity = match finding.severity {
        Severity::Error => 1,
        Severity::Warning => 2,
        Severity::Note => 3,
    };
    let related: Vec<Value> = finding
        .primary
        .iter()
        .filter(|(place, _)| !opened.document.is_mine(&place.source))
        .chain(&finding.labels)
        .filter_map(|(place, label)| {
            let location = location(opened, uri, place)?;
            Some(json!({ "location": location, "message": label }))
        })
        .collect();
    json!({
        "range": opened.range(span),
        "severity": severity,
        "code": finding.code.to_string(),
        "source": "regraft",
        "message": message(finding),
        "relatedInformation": related,
    })
}

/// What is wrong with what a text pins.
pub(super) fn not_there(opened: &Opened, span: Span, why: &str) -> Value {
    json!({
        "range": opened.range(span),
        "severity": 2,
        "source": "regraft",
        "message": why,
    })
}

/// The stretch of the text that a finding is shown at: its place, or the `use` that brings the file
/// that it is in, or, of what a checkpoint says, where that is named.
pub(super) fn span_of(opened: &Opened, finding: &Diagnostic) -> Span {
    let document = &opened.document;
    let mut places = finding.primary.iter().chain(&finding.labels);
    if let Some((place, _)) = places.find(|(place, _)| document.is_mine(&place.source)) {
        return place.span;
    }
    if let Some((place, _)) = &finding.primary {
        return document.use_of(&place.source).unwrap_or_default();
    }
    opened.pins.checkpoint.as_ref().map(|(span, _)| *span).unwrap_or_default()
}

fn message(finding: &Diagnostic) -> String {
    let mut message = finding.message.clone();
    if let Some((_, label)) = finding.primary.as_ref().filter(|(_, label)| !label.is_empty()) {
        message.push_str(&format!(": {label}"));
    }
    if !finding.keys.is_empty() {
        let shown: Vec<&str> = finding.keys.iter().take(KEYS).map(String::as_str).collect();
        message.push_str(&format!("\nkeys: {}", shown.join(", ")));
        if finding.keys.len() > KEYS {
            message.push_str(&format!(" and {} more", finding.keys.len() - KEYS));
        }
    }
    for hint in &finding.hints {
        message.push_str(&format!("\nhelp: {hint}"));
    }
    message
}

/// A place, in the text that is open or in a file; none for what is no file.
fn location(opened: &Opened, uri: &str, place: &Place) -> Option<Value> {
    if opened.document.is_mine(&place.source) {
        return Some(json!({ "uri": uri, "range": opened.range(place.span) }));
    }
    if !std::path::Path::new(&place.source.name).is_absolute() {
        return None;
    }
    let lines = Lines::of(&place.source.text, opened.lines.encoding());
    let range = lines.range(&place.source.text, place.span);
    Some(json!({ "uri": uri_of(&place.source.name), "range": range }))
}
