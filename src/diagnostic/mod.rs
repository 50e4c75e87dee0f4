//! [`Diagnostic`]: rules are wrong, or don't fit this checkpoint.
//!
//! Many come at once; one points at rule text, at keys, or at both. Rendering for a terminal is in
//! [`mod@render`], the list of codes in [`codes`].

pub mod codes;
pub mod plain;
pub mod render;

use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use codes::Code;
pub use render::{render, render_all};

/// A named rule text. Spans point into it.
#[derive(Debug, PartialEq, Eq, Hash, Serialize)]
pub struct SourceText {
    /// What the user calls it: a file, or the name of an embedded rule file.
    pub name: String,
    /// The whole text.
    #[serde(skip)]
    pub text: String,
}

/// A range of bytes in a rule text.
///
/// Two spans are always equal, so that trees that differ only in layout compare equal.
#[derive(Clone, Copy, Debug, Default, Eq, Serialize)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl PartialEq for Span {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Span {
    /// The span from the start of this one to the end of another.
    #[must_use]
    pub fn to(self, end: Span) -> Span {
        Span { start: self.start, end: end.end }
    }

    /// As a range of bytes.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A span and the text it points into. As JSON: `file`, `start` and `end` in bytes, `line` and
/// `column` from 1.
#[derive(Clone, Debug)]
pub struct Place {
    /// The rule text; of a place that was read from JSON, its name only.
    pub source: Arc<SourceText>,
    /// Where in it.
    pub span: Span,
    /// Line and column of a place that was read without its text.
    told: Option<(usize, usize)>,
}

impl Place {
    /// A span of a text.
    pub fn new(source: Arc<SourceText>, span: Span) -> Self {
        Self { source, span, told: None }
    }

    /// Whether the text is here, and not only where in it.
    pub fn has_text(&self) -> bool {
        self.told.is_none()
    }

    /// Line number, from 1.
    pub fn line(&self) -> usize {
        if let Some((line, _)) = self.told {
            return line;
        }
        let start = (self.span.start as usize).min(self.source.text.len());
        self.source.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// Column of the first character, from 1, in characters.
    pub fn column(&self) -> usize {
        if let Some((_, column)) = self.told {
            return column;
        }
        let text = self.source.text.as_bytes();
        let start = (self.span.start as usize).min(text.len());
        let before = &text[..start];
        let line = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        // A character of UTF-8 has exactly one byte that doesn't continue it.
        before[line..].iter().filter(|byte| (**byte & 0xC0) != 0x80).count() + 1
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut place = serializer.serialize_struct("Place", 5)?;
        place.serialize_field("file", &self.source.name)?;
        place.serialize_field("start", &self.span.start)?;
        place.serialize_field("end", &self.span.end)?;
        place.serialize_field("line", &self.line())?;
        place.serialize_field("column", &self.column())?;
        place.end()
    }
}

/// What a place is as JSON.
#[derive(Deserialize)]
struct Told {
    file: String,
    start: u32,
    end: u32,
    line: usize,
    column: usize,
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Told { file, start, end, line, column } = Told::deserialize(deserializer)?;
        let source = Arc::new(SourceText { name: file, text: String::new() });
        Ok(Self { source, span: Span { start, end }, told: Some((line, column)) })
    }
}

/// The same bytes of the same file, whether its text is here or not.
impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        let told = |place: &Place| {
            let Span { start, end } = place.span;
            (start, end, place.line(), place.column())
        };
        self.source.name == other.source.name && told(self) == told(other)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong. Exit code 0.
    Note,
    /// A finding: the work is done, but look at this. Exit code 1.
    Warning,
    /// The work is not done. Exit code 1 for a checkpoint that doesn't fit, 2 for rules.
    Error,
}

/// A message about rules, or about how rules fit a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Its code, as `RG101`.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What was found: lower case, no full stop.
    pub message: String,
    /// Where in the rule text, with what to say there.
    pub primary: Option<(Place, String)>,
    /// Further places in rule text.
    pub labels: Vec<(Place, String)>,
    /// The keys concerned, all of them; rendering shows the first five.
    pub keys: Vec<String>,
    /// What to do about it.
    pub hints: Vec<String>,
}

impl Diagnostic {
    fn new(severity: Severity, code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity,
            message: message.into(),
            primary: None,
            labels: Vec::new(),
            keys: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// An error.
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// A warning.
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    /// A note.
    pub fn note(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, code, message)
    }

    /// Points at rule text.
    #[must_use]
    pub fn at(mut self, place: Place, label: impl Into<String>) -> Self {
        self.primary = Some((place, label.into()));
        self
    }

    /// Points at a further place in rule text.
    #[must_use]
    pub fn label(mut self, place: Place, label: impl Into<String>) -> Self {
        self.labels.push((place, label.into()));
        self
    }

    /// Names keys.
    #[must_use]
    pub fn keys<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.keys.extend(keys.into_iter().map(Into::into));
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}[{}]: {}", self.code, self.message)
    }
}

/// Several diagnostics, at least one of which is an error: what a failed phase returns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The known word closest to a misspelt one, if any is close.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= 1 + candidate.len().min(word.len()) / 4
                && *distance < candidate.chars().count()
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
