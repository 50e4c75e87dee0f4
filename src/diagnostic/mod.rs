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
    /// The name by which a user knows the text: a file, or the name of an embedded rule file.
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
    /// The first byte of the range.
    pub start: u32,
    /// One past the last byte of the range.
    pub end: u32,
}

impl PartialEq for Span {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Span {
    /// Where the span ends, as a span of nothing.
    #[must_use]
    pub fn after(self) -> Span {
        Span { start: self.end, end: self.end }
    }

    /// The span from the start of this one to the end of another.
    #[must_use]
    pub fn to(self, end: Span) -> Span {
        Span { start: self.start, end: end.end }
    }

    /// The span as a range of bytes, for slicing.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A span and the text it points into. As JSON: `file`, `start` and `end` in bytes, `line` and
/// `column` from 1.
#[derive(Clone, Debug)]
pub struct Place {
    /// The rule text that the span points into; of a place that was read from JSON, its name only.
    pub source: Arc<SourceText>,
    /// The bytes of the text that are meant.
    pub span: Span,
    /// Line and column of a place that was read without its text.
    told: Option<(usize, usize)>,
}

impl Place {
    /// Where the place ends, as a place of nothing.
    #[must_use]
    pub fn after(&self) -> Self {
        Self::new(Arc::clone(&self.source), self.span.after())
    }

    /// A span of a text.
    pub fn new(source: Arc<SourceText>, span: Span) -> Self {
        Self { source, span, told: None }
    }

    /// Whether the text is here, and not only where in it.
    pub fn has_text(&self) -> bool {
        self.told.is_none()
    }

    /// The number of the line on which the span begins, from 1.
    pub fn line(&self) -> usize {
        if let Some((line, _)) = self.told {
            return line;
        }
        let start = (self.span.start as usize).min(self.source.text.len());
        self.source.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// The column at which the span begins, from 1, in characters.
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

/// How bad a finding is. The list is closed, as exit codes depend on it: a program may match on all
/// of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A note is worth knowing; nothing is wrong. The exit code is 0.
    Note,
    /// A warning says that the work is done, but should be looked at. The exit code is 1.
    Warning,
    /// An error says that the work is not done. The exit code is 1 for a checkpoint that doesn't
    /// fit, 2 for rules.
    Error,
}

/// A message about rules, or about how rules fit a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// The code, as `RG101`, by which docs and programs know what was found.
    pub code: Code,
    /// The severity, which decides the exit code.
    pub severity: Severity,
    /// The message says what was found, in lower case and without a full stop.
    pub message: String,
    /// The place in rule text that the message is about, with what to say there.
    pub primary: Option<(Place, String)>,
    /// Further places in rule text that explain it, with what to say there.
    pub labels: Vec<(Place, String)>,
    /// All keys that the message is about; rendering shows the first five.
    pub keys: Vec<String>,
    /// The hints say what can be done about it.
    pub hints: Vec<String>,
    /// Changes of rule text that do what hints say, where those leave no choice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<Fix>,
}

/// A change of rule text, for an editor to offer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fix {
    /// The bytes that go; none where something is only put in.
    pub place: Place,
    /// What stands there instead.
    pub text: String,
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
            fixes: Vec::new(),
        }
    }

    /// Makes an error: the work is not done.
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// Makes a warning: the work is done, and should be looked at.
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    /// Makes a note: nothing is wrong.
    pub fn note(code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, code, message)
    }

    /// Points at the place in rule text that the message is about.
    #[must_use]
    pub fn at(mut self, place: Place, label: impl Into<String>) -> Self {
        self.primary = Some((place, label.into()));
        self
    }

    /// Points at a further place in rule text that explains the message.
    #[must_use]
    pub fn label(mut self, place: Place, label: impl Into<String>) -> Self {
        self.labels.push((place, label.into()));
        self
    }

    /// Adds keys that the message is about.
    #[must_use]
    pub fn keys<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.keys.extend(keys.into_iter().map(Into::into));
        self
    }

    /// Adds a hint: what can be done about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds the change of rule text that does what a hint says.
    #[must_use]
    pub fn fix(mut self, place: Place, text: impl Into<String>) -> Self {
        self.fixes.push(Fix { place, text: text.into() });
        self
    }

    /// Adds a hint that one word was meant for that at a place, and the change that it asks for.
    #[must_use]
    pub fn meant(self, place: Place, word: &str) -> Self {
        self.hint(format!("did you mean `{word}`?")).fix(place, word)
    }

    /// Whether the work is not done because of it.
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
