//! [`Opened`]: a rule file as the editor has it.

use std::sync::Arc;

use regraft::diagnostic::{SourceText, Span};
use regraft::editor::{Document, Facts, Pins};
use regraft::library::Library;
use serde_json::Value;

use super::facts::Loaded;
use super::text::{Encoding, Lines};

/// A text, what it means, and what is known of the checkpoint that it pins.
pub(super) struct Opened {
    pub(super) version: i64,
    pub(super) document: Document,
    pub(super) lines: Lines,
    pub(super) pins: Pins,
    pub(super) facts: Arc<Facts>,
    /// Pins that lead nowhere.
    pub(super) failed: Vec<(Span, String)>,
}

impl Opened {
    pub(super) fn new(
        path: String,
        version: i64,
        text: &str,
        encoding: Encoding,
        load: impl FnOnce(&Pins) -> Loaded,
    ) -> Self {
        let source = Arc::new(SourceText { name: path, text: text.to_owned() });
        let document = Document::new(source, &Library::default());
        let pins = document.pins();
        let Loaded { facts, failed } = load(&pins);
        let lines = Lines::of(text, encoding);
        Self { version, document, lines, pins, facts, failed }
    }

    pub(super) fn text(&self) -> &str {
        &self.document.source().text
    }

    pub(super) fn range(&self, span: Span) -> Value {
        self.lines.range(self.text(), span)
    }

    /// The first line of a span: a rule of ten lines isn't underlined whole.
    pub(super) fn first_line(&self, span: Span) -> Span {
        let text = self.text().get(span.range()).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default().trim_end();
        let length = u32::try_from(line.len()).unwrap_or(0);
        Span { start: span.start, end: span.start.saturating_add(length).min(span.end) }
    }

    pub(super) fn offset(&self, position: &Value) -> Option<usize> {
        self.lines.offset(self.text(), position)
    }
}
